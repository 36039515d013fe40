"""What the cards of the reward models say: complete, with sources, and as the code has it."""

import csv
import json
import re
from pathlib import Path

import pytest

from widespectrum.config import parse_model
from widespectrum.errors import UnknownNameError
from widespectrum.published import load_module
from widespectrum.rewards import REWARD_MODELS, load_reward_model
from widespectrum.rewards.facts import cited, describe, facts, options_of, sections, usage
from widespectrum.rewards.instruction import SHA256

ROOT = Path(__file__).resolve().parents[2]
LICENSES = {
    "hps": "Apache-2.0",
    "hpsv2": "Apache-2.0",
    "hpsv2.1": "Apache-2.0",
    "hpsv3": "MIT",
    "pickscore": "MIT",
    "imagereward": "Apache-2.0",
    "mps": "MIT",
    "clip-l": "MIT",
    "blip-l": "BSD-3-Clause",
    "laion-aesthetic": "Apache-2.0",
    "visionreward": "Apache-2.0",
}
NAMES = list(LICENSES)
WITH_WEIGHTS = [name for name in NAMES if REWARD_MODELS[name].extra == "rewards"]
MAY_BE_EMPTY = {"hub", "window", "options", "example", "tolerance"}
DATA = json.loads((ROOT / "src/widespectrum/rewards/facts.json").read_text(encoding="utf-8"))

cards = load_module(ROOT / "cards" / "fill_reward_models.py")


def statements(name):
    return [facts(name).network, *(text for each in sections(name).values() for text in each)]


def clauses(name, source):
    """The parts of statements that stand before the mark of a source."""
    parts = [re.split(r"(\[[a-z]+\])", text) for text in statements(name)]
    return [text for each in parts for text, mark in zip(each[::2], each[1::2], strict=False) if mark == f"[{source}]"]


def numbers(text):
    plain = text.replace("−", "-").replace(",", "")
    return {float(found) for found in re.findall(r"(?<![\w.])-?(?:\d+\.?\d*|\.\d+)", plain)}


def test_every_reward_model_that_needs_something_has_a_card_and_no_other():
    assert sorted(NAMES) == sorted(name for name, entry in REWARD_MODELS.items() if entry.extra)
    assert sorted(DATA["models"]) == sorted(NAMES)
    assert facts("sharpness") is None


@pytest.mark.parametrize("name", NAMES)
def test_facts_are_complete(name):
    known = facts(name)
    empty = {key for key in known.__dataclass_fields__ if not getattr(known, key)}
    assert empty <= MAY_BE_EMPTY
    assert known.license == LICENSES[name]
    assert all(sections(name).values())


@pytest.mark.parametrize("name", NAMES)
def test_every_statement_has_a_source(name):
    for text in statements(name):
        assert re.search(r"\[(\w+)\]$", text), text
    assert set(re.findall(r"\[([a-z]+)\]", " ".join(statements(name)))) == set(cited(statements(name)))


def test_every_source_is_used_and_memory_is_called_what_it_is():
    used = cited(text for name in NAMES for text in statements(name))
    assert set(DATA["sources"]) - set(used) <= {"page"}
    assert "not verified here" in DATA["sources"]["memory"]


@pytest.mark.parametrize("name", NAMES)
def test_figures_of_the_paper_are_those_of_the_published_tables(name):
    also = {"hpsv2.1": "hpsv2"}.get(name, name)
    readme = (ROOT / "leaderboard/published/README.md").read_text(encoding="utf-8")
    printed = {0.9875} & numbers(readme)
    for path in sorted((ROOT / "leaderboard/published").glob("*.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                if row["model"] in (name, also):
                    printed |= numbers(row["value"]) | numbers(row["n"])
    for text in clauses(name, "paper"):
        assert numbers(text) <= printed, (text, numbers(text) - printed)


@pytest.mark.parametrize(
    ("name", "label"), [("hpsv3", "HPSv3"), ("hpsv2.1", "HPSv2.1"), ("imagereward", "ImageReward")]
)
def test_our_figures_are_those_of_the_computed_table(name, label):
    page = (ROOT / "metrics/reward_bias/README.md").read_text(encoding="utf-8")
    table = page.partition("<!-- table models -->")[2].partition("<!-- end of table -->")[0]
    (row,) = [line for line in table.splitlines() if line.startswith(f"| {label} |")]
    found = [numbers(text) - {0.0} for text in clauses(name, "ours")]
    assert found
    assert set().union(*found) <= numbers(row.partition(label)[2])


def test_only_three_models_have_figures_of_ours():
    assert [name for name in NAMES if clauses(name, "ours")] == ["hpsv2.1", "hpsv3", "imagereward"]


@pytest.mark.parametrize("name", WITH_WEIGHTS)
def test_window_and_hub_are_those_of_the_class(name):
    model, known = load_reward_model(name), facts(name)
    assert model.window == known.window
    assert (model.checkpoint.hub.repo if model.checkpoint.hub else "") == known.hub
    assert bool(known.hub) != bool(known.example)


@pytest.mark.parametrize("name", NAMES)
def test_every_option_is_explained_and_every_explanation_has_its_option(name):
    options = options_of(name)
    assert set(facts(name).options) <= set(options)
    for option, text in options.items():
        assert not text.startswith("("), option


def test_defaults_are_read_from_the_code():
    assert options_of("mps")["mask_threshold"].endswith("(default 0.3)")
    assert options_of("hpsv2.1")["antialias"].endswith("(default true)")
    assert "version" not in options_of("hpsv2.1")
    assert options_of("visionreward")["questions"].endswith("(needed)")
    assert "default none" not in options_of("pickscore")["checkpoint"]


def test_the_instruction_of_hpsv3_is_the_one_that_is_looked_for():
    assert SHA256 in " ".join(statements("hpsv3"))


@pytest.mark.parametrize("name", NAMES)
def test_parity_says_what_was_compared(name):
    text = " ".join(facts(name).parity)
    assert "{" not in text
    assert ("weights were not available" in text) == (name in WITH_WEIGHTS)
    (test,) = re.findall(r"tests/rewards/test_\w+\.py", text)
    assert (ROOT / test).is_file(), test


@pytest.mark.parametrize("name", [*REWARD_MODELS, "clip:openai/clip-vit-base-patch32@main"])
def test_show_names_options_and_how_to_use_the_model(name):
    text = describe(name)
    assert text.startswith(f"{name}: ")
    assert all(f"  - {option}: " in text for option in options_of(name))
    command = usage(name)[1]
    chosen = parse_model(re.search(r'--reward-model "(.+)"$', command)[1])
    assert (chosen.name, dict(chosen.options)) == (name, dict(facts(name).example) if facts(name) else {})
    assert command in text
    assert f'load_reward_model("{name}"' in "".join(text.split())


def test_an_unknown_name_has_near_ones():
    with pytest.raises(UnknownNameError, match="did you mean pickscore"):
        describe("pickscor")


def test_every_card_is_as_it_is_made(capsys):
    assert cards.main(["--check"]) == 0, capsys.readouterr().out


def test_a_card_that_differs_is_named_and_written_anew(tmp_path, monkeypatch, capsys):
    for file in cards.FOLDER.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    monkeypatch.setattr(cards, "FOLDER", tmp_path)
    (tmp_path / "mps.md").write_text("old", encoding="utf-8")
    assert cards.main(["--check"]) == 1
    assert capsys.readouterr().out == "mps.md differs\n"
    assert (tmp_path / "mps.md").read_text(encoding="utf-8") == "old"
    assert cards.main([]) == 0
    assert cards.main(["--check"]) == 0


def test_what_was_measured_stands_on_the_card_and_the_rest_says_that_it_was_not():
    measured = {"pickscore": {"speed": {"of the pure forward": 0.95}, "machine": "two cores", "date": "2026-11-21"}}
    text = cards.card("pickscore", facts("pickscore"), measured)
    assert "| Speed: of the pure forward | 0.95 |" in text
    assert "| Memory | not measured yet |" in text
    assert "Measured on: two cores, 2026-11-21." in text


@pytest.mark.parametrize(
    ("content", "message"), [({"sharpness": {}}, "no card"), ({"mps": {"sped": {}}}, "unknown groups sped")]
)
def test_a_slip_in_what_was_measured_is_named(tmp_path, content, message):
    path = tmp_path / "measured.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        cards.read_measured(path)
