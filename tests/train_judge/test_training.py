"""The training itself on a small Qwen3-VL with random weights, in this process and in processes that are killed."""

import inspect
import json
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
import typer
import yaml
from PIL import Image
from safetensors.numpy import load_file
from typer.testing import CliRunner

from tests.train_judge import made_annotations as made
from widespectrum import cli_train
from widespectrum.errors import InputError, RunFolderError
from widespectrum.judges import load_judge
from widespectrum.judges.qwen3vl import Qwen3VL
from widespectrum.protocols import Question
from widespectrum.train_judge import BASE, Options, train_judge, training
from widespectrum.train_judge.card import card
from widespectrum.train_judge.data import Example, look_through, open_data
from widespectrum.train_judge.folder import locked, mark_whole
from widespectrum.train_judge.training import batch_of
from widespectrum.types import Prompt

BRIGHTNESS = ("color brightness",)
SMALL = {"dimensions": BRIGHTNESS, "validation": 9, "batch_size": 4, "accumulation": 1, "max_pixels": 1 << 15}


def options(base, **given):
    return Options(base=str(base), **(SMALL | {"learning_rate": 3e-3, "checkpointing": False} | given))


def silent(_):
    pass


@pytest.fixture(scope="module")
def judge(data, base, tmp_path_factory):
    """The folder of a judge that learned brightness, and what was said."""
    out, said = tmp_path_factory.mktemp("judges") / "bright", []
    train_judge(str(data), out, options(base, epochs=3, save_every=20), say=said.append)
    return out, said


def test_it_learns_what_the_annotations_show(judge):
    out, _ = judge
    losses = [each["loss"] for each in map(json.loads, (out / "log.jsonl").read_text().splitlines()) if "loss" in each]
    assert losses[-1] < 0.5 * losses[0]
    found = json.loads((out / "validation.json").read_text())["dimensions"]["color brightness"]
    assert found["n"] == found["n_images"] == 9
    assert found["n_target"] == [3, 3, 3]
    assert found["quadratic_kappa"] > 0.5
    assert found["majority_baseline"] == pytest.approx(1 / 3)
    epochs = [each for each in map(json.loads, (out / "log.jsonl").read_text().splitlines()) if "validation" in each]
    assert [each["epoch"] for each in epochs] == [1, 2]


def test_the_judge_loads_it_and_rates_as_it_learned(judge, base):
    out, _ = judge
    loaded = load_judge("dimension", adapter=str(out), base=str(base), dtype="float32", batch_size=4)
    prompt = Prompt(prompt_id="", text="an image", pair_id="1", role="original")
    shades = [Image.new("RGB", (160, 96), (light,) * 3) for light in (20, 128, 235)]
    answers = loaded.judge([Question(prompt=prompt, image=each, dimension="color brightness") for each in shades])
    dark, middle, bright = (answer.outcome for answer in answers)
    assert dark + 0.2 < bright
    assert dark <= middle <= bright


def test_what_is_left_is_the_adapter_its_record_and_its_card(judge, base):
    out, said = judge
    assert {path.name for path in out.iterdir()} == {
        *("adapter_config.json", "adapter_model.safetensors", "dimension_judge.json", "log.jsonl"),
        *("README.md", "training.json", "validation.json", ".lock"),
    }
    names = list(load_file(out / "adapter_model.safetensors"))
    assert names
    assert all("language_model" in name for name in names)
    assert all("visual" not in name for name in names)
    # seven layers of each of three blocks, two matrices each
    assert len(names) == 7 * 3 * 2
    settings = json.loads((out / "adapter_config.json").read_text())
    assert (settings["r"], settings["base_model_name_or_path"]) == (32, "tiny-qwen3-vl")
    assert str(base) not in "".join(path.read_text() for path in out.glob("*.json"))
    assert said[-1].endswith(f'widespectrum judge RUN --judge "dimension[adapter={out},base={base}]"')


def test_the_card(judge):
    out, _ = judge
    _, front, body = (out / "README.md").read_text().split("---\n", 2)
    matter = yaml.safe_load(front)
    assert matter["library_name"] == "peft"
    assert matter["base_model"] == "tiny-qwen3-vl"
    assert matter["datasets"] == ["annotated"]
    assert matter["pipeline_tag"] == "image-text-to-text"
    # neither base nor data is one whose license is known
    assert matter["license"] == "other"
    found = json.loads((out / "validation.json").read_text())["dimensions"]["color brightness"]
    row = next(line for line in body.splitlines() if line.startswith("| color brightness"))
    assert f"{found['quadratic_kappa']:.2f} [" in row
    assert f"{found['accuracy']:.2f} [" in row
    assert f"{found['majority_baseline']:.2f} [" in row
    assert "3 / 3 / 3" in row
    record = json.loads((out / "training.json").read_text())
    for text in (record["identity"]["data_sha256"], record["packages"]["torch"], "learning rate", "Limits", "$"):
        assert (text in body) == (text != "$")


def test_the_same_command_afterwards_changes_nothing_but_restores_what_was_lost(judge, data, base):
    out, _ = judge
    kept = {path: path.read_bytes() for path in out.iterdir()}
    (out / "README.md").unlink()
    (out / "validation.json").unlink()
    train_judge(str(data), out, options(base, epochs=3, save_every=7), say=silent)
    assert {path: path.read_bytes() for path in out.iterdir()} == kept


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"learning_rate": 2e-2}, r"with learning_rate 0.003 and not 0.02: give the same, or another --out"),
        ({"seed": 1, "epochs": 4}, r"with epochs 3 and not 4, seed 0 and not 1"),
        ({"validation": 6}, "with validation 9 and not 6"),
    ],
)
def test_a_folder_with_other_options_is_refused(judge, data, base, changed, message):
    out, _ = judge
    kept = {path: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(RunFolderError, match=message):
        train_judge(str(data), out, options(base, **({"epochs": 3} | changed)), say=silent)
    assert {path: path.read_bytes() for path in out.iterdir()} == kept


def test_a_folder_with_other_data_is_refused(judge, base, tmp_path):
    rows = made.rows(45)
    rows[0]["annotation"]["richness"] = 1
    other = made.save(tmp_path / "annotated", rows)
    with pytest.raises(RunFolderError, match="another training, with data_sha256"):
        train_judge(str(other), judge[0], options(base, epochs=3), say=silent)


def test_folders_that_cannot_be_trained_in(data, base, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunFolderError, match="is not empty and holds no training"):
        train_judge(str(data), tmp_path, options(base), say=silent)
    with pytest.raises(RunFolderError, match=r"notes.txt is a file"):
        train_judge(str(data), tmp_path / "notes.txt", options(base), say=silent)
    with locked(tmp_path / "held"), pytest.raises(RunFolderError, match="held is in use by process"):
        train_judge(str(data), tmp_path / "held", options(base), say=silent)


def test_a_dry_run_says_everything_and_writes_nothing(data, base, tmp_path):
    said = []
    given = options(base, dimensions=("color brightness", "face"), accumulation=2, epochs=3)
    train_judge(str(data), tmp_path / "out", given, dry_run=True, say=said.append)
    text = "\n".join(said)
    # 36 examples of brightness and 18 of faces, in 14 batches an epoch
    assert "images: 36 to learn from, 9 to validate on" in text
    assert "left out: 22 face: absent" in text
    lines = [" ".join(line.split()) for line in said]
    assert "color brightness 12 / 12 / 12 3 / 3 / 3" in lines
    assert "face 0 / 0 / 18 0 / 0 / 5" in lines
    assert "steps: 21 of 4 x 2 examples, 3 epochs of 54; a checkpoint every 200" in text
    assert "91,272 parameters, of which 53,760 are trained" in text
    assert "memory: about" in text
    assert said[-1] == "dry run: nothing was trained or written"
    assert not (tmp_path / "out").exists()


def test_the_loss_is_that_of_the_answer_behind_the_whole_conversation(data, base):
    """Against the usual way: the answer behind the prompt, and labels of -100 everywhere else."""
    opened = open_data(str(data), None, BRIGHTNESS)
    found = look_through(opened, BRIGHTNESS, 9)
    examples = [Example(4, "color brightness", 1), Example(2, "object pairing", 2), Example(0, "emotion", 0)]
    qwen = Qwen3VL.open(base, adapter=None, device="cpu", dtype="float32", max_pixels=1 << 15)
    answers = qwen.token_ids(["0", "1", "2"])
    batch = batch_of(qwen, opened, examples, answers)
    assert [(int(rows), int(columns)) for _, rows, columns in batch["image_grid_thw"]] == [(12, 8), (12, 4), (8, 8)]
    assert found.sizes[2] == (80, 200)
    losses = []
    for example in examples:
        alone = batch_of(qwen, opened, [example], answers)
        ids = torch.cat([alone["input_ids"], torch.tensor([[answers[example.target]]])], dim=1)
        labels = torch.full_like(ids, -100)
        labels[0, -1] = answers[example.target]
        with torch.no_grad():
            whole = qwen.model(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                mm_token_type_ids=torch.cat([alone["mm_token_type_ids"], torch.zeros(1, 1, dtype=torch.long)], dim=1),
                pixel_values=alone["pixel_values"],
                image_grid_thw=alone["image_grid_thw"],
                labels=labels,
            )
        losses.append(float(whole.loss))
    with torch.no_grad():
        assert float(qwen.model(**batch).loss) == pytest.approx(sum(losses) / 3, rel=1e-5)


COMMAND = "import typer; from widespectrum.cli_train import train_judge; typer.run(train_judge)"


def killed_at(checkpoint, arguments):
    """Train in a process of its own, which is killed once a checkpoint is whole; what it printed."""
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", COMMAND, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        while not (checkpoint / "whole").exists() and process.poll() is None:
            time.sleep(0.01)
        process.kill()
        output = process.communicate()[0]
    assert process.returncode == -signal.SIGKILL, output
    return output


def stopped_at(checkpoint, arguments, monkeypatch):
    """Train as on the command line, with Ctrl-C as soon as a checkpoint is whole; what it printed."""

    def mark(path):
        mark_whole(path)
        if path == checkpoint:
            raise KeyboardInterrupt

    app = typer.Typer()
    app.command()(cli_train.train_judge)
    monkeypatch.setattr(training, "mark_whole", mark)
    result = CliRunner().invoke(app, arguments)
    monkeypatch.undo()
    assert result.exit_code == 130
    return result.stdout


def test_stopped_and_killed_it_ends_with_the_same_weights(data, base, tmp_path, monkeypatch):
    same = options(base, epochs=2, save_every=2, accumulation=2)
    train_judge(str(data), tmp_path / "whole", same, say=silent)
    out = tmp_path / "killed"
    arguments = (data, "--out", out, "--base", base, "--dimensions", "color brightness", "--validation", 9)
    arguments += ("--batch-size", 4, "--accumulation", 2, "--max-pixels", 1 << 15, "--learning-rate", 3e-3)
    arguments += ("--epochs", 2, "--save-every", 2, "--no-checkpointing")
    arguments = [str(each) for each in arguments]
    checkpoints = out / "checkpoints"
    # what an earlier training without a checkpoint may have left
    (out / ".tmp-adapter").mkdir(parents=True)
    (out / "training.json").write_text('{"identity": {"seed": 9}, "data": {"source": "annotated", "revision": ""}}')
    (out / "validation.json").write_text("{}")
    output = stopped_at(checkpoints / "checkpoint-4", arguments, monkeypatch)
    assert "Stopped. The checkpoint of step 4 is kept. To go on: " in output
    assert not (out / "adapter_model.safetensors").exists()
    # in the second of two epochs of five steps
    assert "going on after step 4" in killed_at(checkpoints / "checkpoint-6", arguments)
    assert {"checkpoint-6"} <= {path.name for path in checkpoints.iterdir()}
    assert len(list(checkpoints.iterdir())) <= 3
    # as if the power had failed while the next one was written
    half = checkpoints / "checkpoint-10"
    shutil.rmtree(half, ignore_errors=True)
    shutil.copytree(checkpoints / "checkpoint-6", half)
    (half / "whole").unlink()
    said, written = [], []
    monkeypatch.setattr(training, "mark_whole", lambda path: (written.append(path.name), mark_whole(path)))
    train_judge(str(data), out, same, say=said.append)
    assert written in (["checkpoint-8", "checkpoint-10"], ["checkpoint-10"])
    assert {"going on after step 6", "going on after step 8"} & set(said)
    one, other = (load_file(folder / "adapter_model.safetensors") for folder in (tmp_path / "whole", out))
    assert one.keys() == other.keys()
    assert all((one[name] == other[name]).all() for name in one)
    figures = [json.loads((folder / "validation.json").read_text()) for folder in (tmp_path / "whole", out)]
    assert figures[0] == figures[1]
    assert not (out / ".tmp-adapter").exists()
    log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert log[-1]["step"] == json.loads((out / "training.json").read_text())["counts"]["steps"] == 10


def test_the_options_of_the_command_are_those_of_a_training():
    given = {name: parameter.default for name, parameter in inspect.signature(cli_train.train_judge).parameters.items()}
    known = {name: parameter.default for name, parameter in inspect.signature(Options).parameters.items()}
    assert {name: given[name] for name in known if name != "dimensions"} == {
        name: value for name, value in known.items() if name != "dimensions"
    }
    assert given["dimensions"] == "eleven"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"epochs": 0}, "--epochs must be at least 1, got 0"),
        ({"batch_size": -1}, "--batch-size must be at least 1"),
        ({"learning_rate": float("nan")}, "--learning-rate must be above 0"),
        ({"warmup": 1.0}, "--warmup must be from 0 to below 1"),
        ({"max_pixels": 100}, "--max-pixels must be at least 1024"),
        ({"seed": -1}, "--seed must be from 0"),
    ],
)
def test_options_out_of_range(changed, message):
    with pytest.raises(InputError, match=message):
        Options(**changed)


def test_a_base_that_is_none(data, tmp_path):
    for base, message in (
        (tmp_path / "nowhere", "--base .*nowhere: there is nothing; expected a folder"),
        (tmp_path, "config.json"),
        ("someone/qwen", r"HF_HUB_OFFLINE is set.* \(or give a folder as --base\)$"),
    ):
        with pytest.raises(InputError, match=message):
            train_judge(str(data), tmp_path / "out", options(base), say=silent)
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "source", "stated"),
    [
        (BASE, "zai-org/VisionRewardDB-Image", "apache-2.0"),
        ("someone/else", "zai-org/VisionRewardDB-Image", "other"),
        (BASE, "annotated", "other"),
    ],
)
def test_the_card_states_a_license_where_it_is_known(judge, name, source, stated):
    record = json.loads((judge[0] / "training.json").read_text())
    commit = record["identity"]["base_revision"] = "0123456789abcdef0123456789abcdef01234567"
    del record["identity"]["base_sha256"]
    record |= {"base": name, "data": {"source": source, "revision": "abc"}}
    text = card(record, json.loads((judge[0] / "validation.json").read_text()), "j")
    matter = yaml.safe_load(text.split("---\n")[1])
    assert (matter["license"], matter["base_model"], matter["datasets"]) == (stated, name, [source])
    assert f"`{name}` ({commit})" in text
    assert f"`{source}` at revision `abc`" in text
    assert 'judge "dimension[adapter=j]"' in text
