import re
import socket
import sys

import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

from tests.annotate.made import answer_all, made_run, study_of
from widespectrum import store
from widespectrum.annotate.log import folder_of, serving
from widespectrum.cli_annotate import annotate
from widespectrum.errors import InputError, MissingExtraError, RunFolderError


@pytest.fixture
def run(tmp_path):
    return made_run(tmp_path / "run")


@pytest.fixture
def gradio():
    return pytest.importorskip("gradio", reason="gradio is not installed")


@pytest.fixture
def call():
    app = typer.Typer()
    app.command()(annotate)

    def run(*arguments):
        result = CliRunner().invoke(app, [str(each) for each in arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == 0, result.output
        return result.output

    return run


def test_export_and_status(call, run, tmp_path):
    study = study_of(run, raters=("a1", "a2", "a3"), pairs=6)
    for code in ("a1", "a2"):
        answer_all(study.begin(code))
    assert "a3     0             " in call(run, "--status")
    said = call(run, "--export")
    assert "a1: 5 of 5 answered, 1 of 1 checks passed" in said
    assert re.search(r"^(\d+) verdict rows of 2 raters added to ", said, re.M)[1] == str(
        len(store.keys(run, "verdicts"))
    )
    assert call(run, "--export").endswith(
        f"0 verdict rows of 2 raters added to {run}. Next: widespectrum report {run}\n"
    )
    said = call(run, "--export", tmp_path / "new" / "answers.csv")
    assert said.endswith(f"8 answers of 2 raters: {tmp_path}/new/answers.csv\n")
    assert len(pd.read_csv(tmp_path / "new" / "answers.csv")) == 8


@pytest.mark.usefixtures("gradio")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--export", "--status"], "--export and --status: give one of them"),
        (["--export", "--pairs", "3"], "--pairs belongs to the start of a study: leave it away beside --export and"),
        (["--status", "--per-rater", "3"], "--per-rater belongs to the start of a study"),
        (["answers.csv"], "FILE.csv, --include-failed, --include-unfinished and --replace belong to --export: add it"),
        (["--replace"], "belong to --export: add it"),
        (["--export", "answers.txt"], "answers.txt: expected a name that ends in .csv"),
        (["--export", "answers.csv", "--replace"], "--replace is for the verdicts of the run"),
        (["--raters", "a1,Ada L"], "--raters: 'ada l' cannot be a code. That looks like a name"),
        (["--raters", "a1,a2", "--overlap", "3"], "--overlap 3: expected 1 to 2, the number of raters"),
        (["--raters", "a1,"], "--raters: '' cannot be a code. Please enter a code first."),
        (["--host", "no-such-host.invalid"], "--host no-such-host.invalid --port 7860: cannot be used"),
    ],
)
def test_what_cannot_be_asked_for(call, run, arguments, message):
    with pytest.raises(InputError, match=re.escape(message)):
        call(run, *arguments)


@pytest.mark.usefixtures("gradio")
def test_a_port_that_is_taken(call, run):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(InputError, match=rf"--port {port}: cannot be used .*in use.*: choose another one"):
            call(run, "--port", port)


def test_places_that_are_no_run_or_have_no_study(call, run, tmp_path):
    with pytest.raises(RunFolderError, match="is no run folder: it has no manifest"):
        call(tmp_path / "none")
    assert not (tmp_path / "none").exists()
    for verb in ("--status", "--export"):
        with pytest.raises(RunFolderError, match="has no study: start one with `widespectrum annotate"):
            call(run, verb)
    assert not folder_of(run).exists()


def test_without_gradio(call, run, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(MissingExtraError, match=re.escape('not installed: pip install "widespectrum[annotate]"')):
        call(run)
    assert not folder_of(run).exists()


@pytest.mark.usefixtures("gradio")
def test_a_run_that_is_served_already(call, run):
    with serving(run), pytest.raises(RunFolderError, match="is served to raters by process"):
        call(run, "--port", "0")
