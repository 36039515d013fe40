"""A mistake in a run file is named with the line on which it stands, and nothing is written."""

import re

import pytest
from typer.testing import CliRunner

from widespectrum.cli import app

GOOD = """[prompts]
set = "photographs"
[[generators]]
name = "photo-effects"
strength = 2
[[reward_models]]
name = "random"
[[judges]]
name = "pixel"
"""


def run(folder, text):
    (folder / "bad.toml").write_text(text)
    return CliRunner().invoke(app, ["run", "bad.toml", "--out", "out"])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"photographs"', '"photograps"', "line 2: unknown prompt set 'photograps': did you mean photographs?"),
        ('set = "photographs"', 'set = "photographs"\nphotos = "bad.toml"', "line 3: "),
        ('set = "photographs"', 'set = "photographs"\nphotos = "empty"', "line 3: no photographs in empty"),
        ('set = "photographs"', 'file = "empty"', "line 2: "),
        ('"photo-effects"', '"photo-efects"', "line 4: unknown generator 'photo-efects': did you mean photo-effects?"),
        ("strength = 2", "strength = 2.0", "line 5: photo-effects: strength must be a whole number from 0 to 4"),
        ("strength = 2", "strengh = 2", "line 5: generator 'photo-effects' has no option 'strengh'"),
        ("strength = 2", "strength = 2\nsize = 3", "line 6: photo-effects: size must be"),
        ('"random"', '"randon"', "line 7: unknown reward model 'randon': did you mean random?"),
        (
            'name = "pixel"',
            'name = "rule"\nreward_model = "Random"',
            "line 10: judge 'rule' needs the scores of 'Random'",
        ),
        ('name = "pixel"', 'name = "pixel"\n[evaluate]\nverdict_judge = "pixl"', "line 11: [evaluate] verdict_judge"),
        ("[prompts]", "run.seeds = [-1]\n[prompts]", "line 1: [run] seeds must be"),
    ],
)
def test_the_line_of_the_mistake(tmp_path, monkeypatch, old, new, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    assert old in GOOD
    result = run(tmp_path, GOOD.replace(old, new, 1))
    assert result.exit_code == 2
    assert re.fullmatch(r"error: [^\n]+\n", result.stderr)
    assert result.stderr.startswith(f"error: bad.toml, {message}")
    assert not (tmp_path / "out").exists()


def test_a_verdict_judge_without_judges_is_refused_before_anything_is_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = GOOD.replace('[[judges]]\nname = "pixel"\n', '[evaluate]\nverdict_judge = "pixel"\n')
    result = run(tmp_path, text)
    assert (result.exit_code, (tmp_path / "out").exists()) == (2, False)
    assert "line 9: [evaluate] verdict_judge 'pixel' is no judge of this run file; it has: none" in result.stderr


def test_inline_tables_are_named_by_the_line_of_their_array(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = 'generators = [{name = "photo-effects", strengh = 3}]\nprompts.set = "photographs"\n'
    assert run(tmp_path, text).stderr.startswith("error: bad.toml, line 1: generator 'photo-effects' has no option")


def test_a_near_reward_model_is_offered_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run(tmp_path, GOOD.replace('name = "pixel"', 'name = "rule"\nreward_model = "randm"'))
    assert result.stderr.rstrip().endswith("it has: random; did you mean random?")
