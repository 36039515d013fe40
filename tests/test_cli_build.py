"""The verb `build`: which builders there are, and how the signatures of their steps become a command line."""

import re

import pytest
from typer.testing import CliRunner

from widespectrum import cli_build
from widespectrum.cli import app
from widespectrum.published import published_path

BUILDER = '''
from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from widespectrum.errors import InputError, ModelError


class Table:
    def __init__(self, rows):
        self.num_rows = rows


def build(
    out: Annotated[Path, typer.Option("--out", help="The folder.")] = Path("build/things"),
    *,
    config: Annotated[list[str] | None, typer.Option(help="Which.")] = None,
    pairs: Annotated[int | None, typer.Option(min=1)] = None,
) -> object:
    """Build the things.

    Example: widespectrum build things
    """
    if pairs == 13:
        raise InputError("13 pairs bring bad luck: ask for 12")
    return {"test": Table(1234), "lite": Table(5)} if config is None else f"{out} {config} {pairs}"


def read(source: Annotated[Path, typer.Option(help="What to read.")], *, code: int = 0) -> None:
    """Read the things.

    More.
    """
    if code == 9:
        raise ModelError("the endpoint is down: run again")
    raise typer.Exit(code)


VERBS = {"read": read, "build": build}
'''

PLAIN = '''
from pathlib import Path

def build(out: Path = Path("x")) -> str:
    """Build it."""
    return "done"
'''


@pytest.fixture
def builders(tmp_path, monkeypatch):
    """Two builders, one with steps."""
    for name, text in (("things", BUILDER), ("plain", PLAIN)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "build.py").write_text(text)
    (tmp_path / "no_builder").mkdir()
    monkeypatch.setattr(cli_build, "published_path", lambda kind, name="": tmp_path / name)


def build(*arguments):
    return CliRunner().invoke(app, ["build", *map(str, arguments)])


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",)])
def test_without_a_name_it_lists_the_datasets(builders, arguments):
    result = build(*arguments)
    assert result.exit_code == 0
    assert "Example: widespectrum build wide_spectrum_prompts --out build/prompts" in result.stdout
    assert result.stdout.endswith("\n\nDatasets:\n  plain\n  things\n")


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_the_help_of_a_dataset_shows_its_options_and_steps(builders, flag):
    result = build("things", flag)
    assert result.exit_code == 0
    assert result.stdout.startswith("Usage: widespectrum build things [OPTIONS]\n")
    assert re.search(r"--out <path> +The folder\.\s+\[default: build/things\]", result.stdout)
    assert result.stdout.endswith("\n\nSteps:\n  read           Read the things.\n  build          Build the things.\n")
    step = build("things", "read", flag).stdout
    assert step.startswith("Usage: widespectrum build things read [OPTIONS]\n")
    assert "Steps:" not in step
    assert "Steps:" not in build("plain", flag).stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("things",), "things: test 1,234 rows, lite 5 rows\n"),
        (("things", "build"), "things: test 1,234 rows, lite 5 rows\n"),
        (("things", "--config", "a", "--out", "-odd", "--config", "b"), "things: -odd ['a', 'b'] None\n"),
        (("things", "--pairs", "3", "--config=a"), "things: build/things ['a'] 3\n"),
        (("plain",), "plain: done\n"),
        (("things", "read", "--source", "x"), ""),
    ],
)
def test_arguments_reach_the_step(builders, arguments, said):
    result = build(*arguments)
    assert (result.exit_code, result.stdout, result.stderr) == (0, said, "")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("thing",), 2, "error: unknown dataset 'thing': did you mean things? `widespectrum build --help` lists every"),
        (("--out", "x"), 2, "error: unknown dataset '--out': `widespectrum build --help` lists every name"),
        (("things", "embed"), 2, "error: things has no step 'embed'; its steps: read, build"),
        (("plain", "x"), 2, "error: plain has no step 'x'; its steps: build"),
        (("things", "--pairs", "13"), 2, "error: 13 pairs bring bad luck: ask for 12"),
        (("things", "read", "--source", "x", "--code", "9"), 1, "error: the endpoint is down: run again"),
    ],
)
def test_a_mistake_is_one_sentence(builders, arguments, code, message):
    result = build(*arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert re.fullmatch(rf"{re.escape(message)}[^\n]*\n", result.stderr)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("things", "--shards", "3"), "No such option: --shards"),
        (("things", "--pairs", "0"), "Invalid value for '--pairs': "),
        (("things", "--pairs", "many"), "Invalid value for '--pairs': "),
        (("things", "--out", "x", "read"), "Got unexpected extra argument"),
        (("things", "read"), "Missing option '--source'."),
    ],
)
def test_a_wrong_option_shows_the_usage_of_the_step(builders, arguments, message):
    result = build(*arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"Usage: widespectrum build things{' read' if arguments[1] == 'read' else ''} [")
    assert f"Error: {message}" in result.stderr


def test_the_exit_code_of_a_step_is_that_of_the_command(builders):
    result = build("things", "read", "--source", "x", "--code", "3")
    assert (result.exit_code, result.output) == (3, "")


NAMES = sorted(path.parent.name for path in published_path("dataset_builders").glob("*/build.py"))


@pytest.mark.parametrize("name", NAMES)
def test_every_builder_of_ours_has_help(name):
    result = build(name, "--help")
    assert result.exit_code == 0, result.output
    assert "--out" in result.stdout
    assert f"Example: widespectrum build {name}" in " ".join(result.stdout.split())
    assert f"\n  {name}\n" in build().stdout


def test_one_of_ours_from_end_to_end(tmp_path):
    result = build("wide_spectrum_prompts", "--config", "emotion_probes", "--out", tmp_path / "out")
    assert (result.exit_code, result.stdout) == (0, "wide_spectrum_prompts: test 30 rows\n")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "README.md",
        "croissant.json",
        "emotion_probes",
    ]
