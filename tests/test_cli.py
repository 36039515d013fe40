"""The command line as a user meets it: help, exit codes, one-sentence errors, and Ctrl-C."""

import csv
import errno
import os
import re
import shlex
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.commands import invoke, refused
from tests.rewards import made_visionreward
from widespectrum import __version__, cli, run_models, runs, store
from widespectrum.cli import app
from widespectrum.config import parse_run_file
from widespectrum.errors import BudgetSpentError, HubError, ModelError, WideSpectrumError
from widespectrum.importers import CELLS, REWARD_MODELS

VERBS = [command.name or command.callback.__name__ for command in app.registered_commands]
VERBS += [group.name for group in app.registered_groups]


@pytest.fixture(autouse=True)
def workplace(tmp_path_factory, monkeypatch):
    """An empty folder in which the command runs."""
    folder = tmp_path_factory.mktemp("work")
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def run_file(run_text, workplace):
    (workplace / "tiny.toml").write_text(run_text)
    return "tiny.toml"


def test_version():
    result = invoke("--version")
    assert (result.exit_code, result.stdout) == (0, f"{__version__}\n")


def test_every_verb_has_an_example():
    assert {
        "build",
        "demo",
        "evaluate",
        "generate",
        "import-scores",
        "judge",
        "models",
        "rank",
        "report",
        "run",
        "score",
    } <= {*VERBS}
    overview = invoke("--help").stdout
    for verb in VERBS:
        result = invoke(verb, "--help")
        assert result.exit_code == 0
        assert f"Example: widespectrum {verb}" in " ".join(result.stdout.split())
        assert verb in overview
    assert "..." not in overview.partition("Commands:")[2]


def test_models_lists_every_name():
    listed = invoke("models").stdout
    for name in ("identity", "photo-effects", "colorfulness", "oracle", "pixel", "rule", "photographs"):
        assert re.search(rf"^  {name} ", listed, re.MULTILINE)


# what is refused


def test_a_run_file_that_is_not_there(workplace):
    for verb in ("generate", "score", "judge", "evaluate", "report", "run"):
        assert refused(workplace, verb, "no.toml").startswith("no.toml: there is no such file; expected a run file")


def test_a_mistake_in_the_run_file(workplace):
    (workplace / "bad.toml").write_text("[run]\nbatchsize = 3\n")
    assert refused(workplace, "run", "bad.toml") == (
        "bad.toml, line 2: unknown [run] key 'batchsize'; expected one of seeds, batch_size"
    )


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (("identity", "idenity"), "unknown generator 'idenity': did you mean identity? `widespectrum models` lists"),
        (("oracle", "orakle"), "unknown reward model 'orakle': did you mean oracle? `widespectrum models` lists"),
        (('"pixel"', '"pixels"'), "unknown judge 'pixels': did you mean pixel? `widespectrum models` lists"),
        (("strength", "strenght"), "generator 'photo-effects' has no option 'strenght'; its options: strength, size"),
        (("strength = 3", "strength = 9"), "strength must be a whole number from 0 to 4; got 9"),
        (('"photographs"', '"photograph"'), "unknown prompt set 'photograph': did you mean photographs?"),
        (("[[generators]]", "[[judges]]"), "reward model 'pixel'|unknown judge 'identity'"),
        (("size = 48\n\n[[reward", 'size = 48\n\n[[generators]]\nname = "identity"\nsize = 48\n\n[[reward'), "twice"),
    ],
)
@pytest.mark.parametrize("verb", ["run", "generate"])
def test_wrong_names_and_options_in_the_run_file(workplace, run_text, verb, wrong, message):
    assert wrong[0] in run_text
    (workplace / "tiny.toml").write_text(run_text.replace(*wrong))
    assert re.search(message.replace("?", r"\?"), refused(workplace, verb, "tiny.toml", "--out", "out"))


def test_wrong_names_on_the_command_line(workplace, tiny_run):
    assert "unknown reward model 'sharp'" in refused(workplace, "score", tiny_run, "--reward-model", "sharp")
    assert "has no option 'x'; its options: none" in refused(
        workplace, "score", tiny_run, "--reward-model", "random[x=1]"
    )
    assert "unknown judge 'pixl'" in refused(workplace, "judge", tiny_run, "--judge", "pixl")
    assert "judge 'vlm' needs the option 'model': write vlm[model=...]" in refused(
        workplace, "judge", tiny_run, "--judge", "vlm"
    )
    assert "expected a model as name or" in refused(workplace, "judge", tiny_run, "--judge", "vlm[")


def test_a_missing_extra_gives_the_pip_command(workplace, run_file, monkeypatch):
    monkeypatch.setattr("widespectrum.registry.importlib.util.find_spec", lambda package: None)
    message = refused(workplace, "run", run_file)
    assert message.endswith('which is not installed: pip install "widespectrum[demo]"')


def test_contradicting_options(workplace, tiny_run):
    assert refused(workplace, "run", tiny_run, "--out", "other") == (
        f"{tiny_run} is a run folder, so --out other contradicts it: leave --out away"
    )


def test_photographs_that_are_not_there(workplace):
    assert "photos = 'none': there is nothing at" in refused(workplace, "demo", "--photos", "none")
    assert "captions goes with 'photos' alone: give that" in refused(workplace, "demo", "--captions", "none.csv")
    (workplace / "empty").mkdir()
    assert refused(workplace, "demo", "--photos", "empty").startswith("no photographs in empty; expected files ending")


def test_a_folder_that_is_no_run(workplace):
    (workplace / "thesis").mkdir()
    (workplace / "thesis" / "chapter.tex").touch()
    for verb in ("score", "judge", "evaluate", "report", "run"):
        assert refused(workplace, verb, "thesis").startswith(
            "thesis/run.toml: there is no such file; expected a run file"
        )


def test_a_run_is_not_started_among_other_things(workplace, run_file):
    (workplace / "thesis").mkdir()
    (workplace / "thesis" / "chapter.tex").touch()
    message = "thesis is not empty and is no run folder: choose another folder with --out"
    assert refused(workplace, "run", run_file, "--out", "thesis") == message
    assert "is a file; a run needs a folder" in refused(workplace, "run", run_file, "--out", "tiny.toml")


def test_a_stage_before_its_time(workplace, run_file):
    for verb in ("score", "judge", "evaluate", "report"):
        assert refused(workplace, verb, run_file, "--out", "out") == "out is no run folder: it has no manifest.json"


def test_evaluate_before_score(workplace, run_file):
    config = parse_run_file((workplace / run_file).read_text())
    with runs.locked(workplace / "out"):
        runs.open_run(workplace / "out", config, datasets={}, prompts=())
    assert refused(workplace, "evaluate", "out").startswith("out holds no scores: run the score stage")


def test_a_stage_without_its_models(workplace, photos):
    """`score` and `judge` by themselves need a model; a whole run does without."""
    text = f'[prompts]\nset = "photographs"\nphotos = "{photos}"\n[[generators]]\nname = "identity"\nsize = 48\n'
    (workplace / "bare.toml").write_text(text)
    assert invoke("generate", "bare.toml", "--out", "out").exit_code == 0
    lists = "(`widespectrum models` lists the names)"
    assert refused(workplace, "score", "bare.toml", "--out", "out") == (
        f"bare.toml names no reward model: give --reward-model NAME {lists}"
    )
    assert refused(workplace, "score", "out") == (
        f"out/run.toml names no reward model: give --reward-model NAME, or add a table [[reward_models]] to it {lists}"
    )
    assert refused(workplace, "judge", "out") == (
        f"out/run.toml names no judge: give --judge NAME, or add a table [[judges]] to it {lists}"
    )
    assert invoke("run", "out").exit_code == 0
    assert invoke("judge", "out", "--judge", "pixel").exit_code == 0
    with (workplace / "out" / "run.toml").open("a") as file:
        file.write('[[reward_models]]\nname = "random"\n[evaluate]\nn_resamples = 20\n')
    assert invoke("score", "out").exit_code == 0
    assert invoke("evaluate", "out").exit_code == 0


def test_report_before_evaluate(workplace, run_copy):
    assert "widespectrum evaluate" in refused(workplace, "report", run_copy)


def test_a_folder_that_another_process_holds(workplace, run_copy, run_file):
    with runs.locked(run_copy):
        assert " is in use by process " in refused(workplace, "score", run_copy)


def test_a_disk_that_refuses(workplace, run_file, monkeypatch):
    (workplace / "file").touch()
    message = refused(workplace, "build", "wide_spectrum_prompts", "--config", "emotion", "--out", "file")
    assert message == "file/emotion: Not a directory: check the path, its permissions and the space left"

    def write_file(path, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store, "write_file", write_file)
    result = invoke("run", run_file)
    assert result.exit_code == 2
    assert result.stderr == "error: No space left on device: check the path, its permissions and the space left\n"


def test_a_dataset_that_is_not_there(workplace):
    for name in ("prompts", "", "..", "."):
        message = refused(workplace, "build", name, "--out", "out")
        assert message.startswith(f"unknown dataset {name!r}: ")
        assert message.endswith("`widespectrum build --help` lists every name")


COLUMNS = ["model_tag", "prompt_index", *(f"{prefix}_{cell}" for prefix in REWARD_MODELS for cell in CELLS)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: [row[:-1] for row in table], "scores.csv: the columns image_reward_didp are missing; add"),
        (
            lambda table: [*table[:2], [*table[2][:5], "high", *table[2][6:]]],
            "scores.csv, line 3: column 'hpsv3_didp' must",
        ),
        (
            lambda table: [*table, table[1]],
            "scores.csv, lines 2 and 4: 'flux_dev' has prompt_index 0 twice; expected one row per prompt",
        ),
        (lambda table: [*table, [*table[1], "more"]], "scores.csv, line 4: 15 cells, expected 14 columns"),
        (
            lambda table: [*table, ["a:b", *table[1][1:-1], "0.5"]],
            "scores.csv, line 4: model_tag 'a:b' cannot name a generator",
        ),
        (lambda table: table[:1], "scores.csv holds no rows"),
    ],
)
def test_a_bad_score_table(workplace, change, message):
    table = [COLUMNS, *(["flux_dev", row, *range(row, 12 + row)] for row in range(2))]
    with (workplace / "scores.csv").open("w", newline="") as file:
        csv.writer(file).writerows(change(table))
    assert refused(workplace, "import-scores", "scores.csv", "--out", "out").startswith(message)


def test_a_score_table_from_a_spreadsheet(workplace):
    with (workplace / "scores.csv").open("w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file).writerows([COLUMNS, ["flux_dev", 0, *range(12)]])
    assert invoke("import-scores", "scores.csv").exit_code == 0
    assert store.read(workplace / "runs" / "scores", "scores").num_rows == 12


# exit codes


@pytest.mark.parametrize("kind", [WideSpectrumError, *WideSpectrumError.__subclasses__()])
def test_exit_codes(monkeypatch, kind):
    def fail(*_):
        raise kind("expected a, got b: do c")

    monkeypatch.setattr(cli, "target", fail)
    result = invoke("run", "x")
    passes = kind in (BudgetSpentError, HubError, ModelError)
    assert (result.exit_code, result.stderr) == (1 if passes else 2, "error: expected a, got b: do c\n")


def test_what_failed_is_named_and_everything_else_kept(workplace, run_file, monkeypatch):
    from widespectrum.rewards.controls import RandomReward

    def fail(self, images, prompts):
        raise ModelError("no dice")

    with monkeypatch.context() as patch:
        patch.setattr(RandomReward, "score", fail)
        result = invoke("run", run_file, "--out", "out")
    assert result.exit_code == 1
    lines = [line for line in result.stderr.splitlines() if line.startswith("failed: score random: pair ")]
    # Of every batch two pairs are tried for themselves; the rest is named together.
    assert len(lines) == 6
    assert lines[0].endswith("background of identity[size=48]: no dice")
    assert " and 12 more: no dice" in lines[1]
    assert "Nothing else was lost. To try these again: widespectrum" in result.stderr
    assert runs.read_manifest(workplace / "out").status == "started"
    kept = set(store.read(workplace / "out", "scores")["reward_model"].to_pylist())
    assert kept == {"colorfulness", "oracle"}
    assert invoke("score", "out").exit_code == 0
    assert store.read(workplace / "out", "scores").num_rows == 3 * 34 * 4


# the verbs one by one


def test_the_stages_one_by_one(workplace, run_file, tiny_run):
    for verb in ("generate", "score", "judge"):
        result = invoke(verb, run_file)
        assert result.exit_code == 0, result.output
        assert result.stdout.startswith(f"{verb}: ")
    folder = workplace / "runs" / "tiny"
    for table in ("prompts", "images", "scores", "verdicts"):
        key = [(name, "ascending") for name in store.KEYS[table]]
        assert store.read(folder, table).sort_by(key).equals(store.read(tiny_run, table).sort_by(key))
    assert invoke("score", folder, "--reward-model", "sharpness").exit_code == 0
    assert set(store.read(folder, "scores")["reward_model"].to_pylist()) == {
        "colorfulness",
        "random",
        "oracle",
        "sharpness",
    }
    result = invoke("evaluate", folder)
    assert result.exit_code == 0, result.output
    assert "Reward models, on" in result.stdout
    assert store.read(folder, "results").num_rows > 0


def test_the_interval_of_the_run_file(workplace):
    """BCa moves the ends of intervals and no estimate, and results made with the other kind are stale."""
    rng, found, out = np.random.default_rng(0), {}, workplace / "out"
    with (workplace / "scores.csv").open("w", newline="") as file:
        rows = [[tag, index, *rng.gamma(2.0, size=12)] for tag in ("flux_dev", "dance_flux") for index in range(12)]
        csv.writer(file).writerows([COLUMNS, *rows])
    assert invoke("import-scores", "scores.csv", "--out", "out").exit_code == 0
    text = (out / "run.toml").read_text()
    for interval in ("percentile", "bca"):
        (out / "run.toml").write_text(f'{text}n_resamples = 200\ninterval = "{interval}"\n')
        if found:
            assert "older than its tables or its [evaluate] settings" in refused(workplace, "report", "out")
        assert invoke("evaluate", "out").exit_code == 0
        table = store.read(out, "results").to_pandas().set_index(["model", "metric", "subset"]).sort_index()
        found[interval] = table[["value", "ci_low", "ci_high"]]
    # a ratio is there only where the interval of its denominator excludes 0
    percentile, bca = (table.drop(index="prior_over_match", level="metric") for table in found.values())
    assert percentile["value"].equals(bca["value"])
    moved = (percentile[["ci_low", "ci_high"]] != bca[["ci_low", "ci_high"]]).any(axis=1) & bca["ci_low"].notna()
    families = {"image_prior", "delta_reward", "both_ways_accuracy_difference"}
    assert families <= {metric.partition("/")[0] for _, metric, _ in moved[moved].index}


# Ctrl-C

SLOW = """
[run]
seeds = [0, 1, 2, 3]
batch_size = 1

[prompts]
set = "photographs"
photos = {photos}

[[generators]]
name = "photo-effects"
size = 48
"""


def test_ctrl_c_keeps_what_is_made_and_says_how_to_go_on(workplace, photos):
    (workplace / "slow.toml").write_text(SLOW.format(photos=f'"{photos}"'))
    command = [sys.executable, "-m", "widespectrum", "run", "slow.toml", "--out", "my run"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 60
        while len(list((workplace / "my run" / "images").glob("part-*"))) < 3:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.001)
        os.kill(process.pid, signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in stderr
    (hint,) = re.findall(r"Stopped. Every finished batch is kept. To go on: widespectrum (.*)", stdout)
    made = store.read(workplace / "my run", "images")["prompt_id"].to_pylist()
    assert 3 <= len(made) < 2 * 22 * 4
    assert runs.read_manifest(workplace / "my run").status == "started"
    again = invoke(*shlex.split(hint))
    assert again.exit_code == 0, again.output
    assert f"generate: {2 * 22 * 4 - len(made)} images" in again.stdout
    keys = store.keys(workplace / "my run", "images")
    assert len(keys) == store.read(workplace / "my run", "images").num_rows == 2 * 22 * 4
    assert runs.read_manifest(workplace / "my run").status == "complete"


def test_a_label_names_one_model(run_text):
    text = run_text.replace(
        'name = "pixel"', 'name = "rule"\nreward_model = "2"\n[[judges]]\nname = "rule"\nreward_model = 2'
    )
    with pytest.raises(WideSpectrumError, match=r"judge rule\[reward_model=2\] is named twice: delete one"):
        run_models.load_models(parse_run_file(text))


def test_a_reward_model_that_gave_nothing_is_not_waited_for(workplace, run_copy, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    options = {**made_visionreward.files(workplace / "vr"), "endpoint": "openai:x@https://nowhere.invalid/v1"}
    given = ",".join(f"{name}={value}" for name, value in options.items())
    # Found out when it is asked, with its spec long in the manifest: there is no key.
    result = invoke("score", run_copy, "--reward-model", f"visionreward[{given}]")
    assert result.exit_code == 2, result.output
    assert "visionreward" not in runs.read_manifest(run_copy).specs["reward_models"]
    assert invoke("score", run_copy, "--reward-model", "exposure").exit_code == 0
    assert runs.read_manifest(run_copy).status == "complete"
