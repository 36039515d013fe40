import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest

from widespectrum import __version__, runs, store
from widespectrum.config import parse_run_file
from widespectrum.errors import InputError, RunFolderError
from widespectrum.types import AbstentionRecord, ModelSpec, Prompt, Score
from widespectrum.vendor import functional_digest

CONFIG = parse_run_file("[run]\nseeds = [3, 4]\n")
PROMPTS = [Prompt(prompt_id="", text=f"cup {number}", pair_id=str(number), role="original") for number in range(4)]
DATASETS = {"photographs": "1" * 64}
SPEC = ModelSpec(adapter="hps", name="hpsv3", revision="v1", params={"dtype": "float32"})


def open_run(run, config=CONFIG, datasets=DATASETS, prompts=PROMPTS):
    runs.open_run(run, config, datasets=datasets, prompts=prompts)


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    open_run(folder)
    return folder


HOLD = """
import sys, time
from pathlib import Path
from widespectrum.runs import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_run_belongs_to_one_process_until_it_ends_or_is_killed(tmp_path):
    run = tmp_path / "run"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(run)], stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout.readline() == "held\n"
            with (
                pytest.raises(RunFolderError, match=f"{run} is in use by process {holder.pid} on .*: wait"),
                runs.locked(run),
            ):
                pass
        finally:
            holder.kill()
        holder.wait()
    for _ in range(2):
        with runs.locked(run), pytest.raises(RunFolderError, match="is in use by process"), runs.locked(run):
            pass


def test_the_lock_cleans_up_what_a_killed_process_left(run):
    half = run / "scores" / ".tmp-part-000000-x.parquet"
    half.parent.mkdir()
    half.touch()
    with runs.locked(run):
        assert not half.exists()


@pytest.mark.parametrize("name", ["thesis.txt", "images", ".hidden"])
def test_a_folder_of_other_things_is_refused_and_left_as_it_is(tmp_path, name):
    (tmp_path / name).mkdir()
    (tmp_path / ".tmp-mine").touch()
    (tmp_path / name / ".tmp-mine").touch()
    before = sorted(tmp_path.rglob("*"))
    message = f"{tmp_path} is not empty and is no run folder: choose another folder with --out"
    with pytest.raises(InputError, match=message), runs.locked(tmp_path):
        pass
    assert sorted(tmp_path.rglob("*")) == before


def test_a_file_is_no_run_folder(tmp_path):
    (tmp_path / "run").write_text("mine")
    with pytest.raises(InputError, match="is a file; a run needs a folder"), runs.locked(tmp_path / "run"):
        pass
    assert (tmp_path / "run").read_text() == "mine"


def test_an_empty_folder_and_one_killed_at_its_first_steps_are_taken(tmp_path):
    for files in ([], [".lock"], [".lock", ".tmp-run.toml"], [".lock", "run.toml", ".tmp-manifest.json"]):
        folder = tmp_path / str(len(files))
        folder.mkdir()
        for name in files:
            (folder / name).touch()
        with runs.locked(folder):
            open_run(folder)
        assert {path.name for path in folder.iterdir()} == {".lock", "run.toml", "manifest.json", "prompts"}
        assert (folder / "run.toml").read_text() == CONFIG.text


def test_a_new_run_says_what_it_is_made_with(run):
    manifest = runs.read_manifest(run)
    assert manifest.status == "started"
    assert manifest.seed == 3
    assert manifest.datasets == DATASETS
    assert manifest.specs == {"generators": {}, "reward_models": {}, "judges": {}}
    assert manifest.benchmark_version == __version__
    assert manifest.functional_digest == functional_digest()
    assert manifest.packages["numpy"] == np.__version__
    assert manifest.git_commit is None or len(manifest.git_commit) == 40
    assert (manifest.git_commit is None) == (manifest.dirty is None)
    assert (run / "run.toml").read_text() == CONFIG.text
    assert [row["prompt_id"] for row in store.read(run, "prompts").to_pylist()] == [p.prompt_id for p in PROMPTS]


def test_the_manifest_comes_back_as_it_was(run):
    specs = {"judges": {"jürgen": str(SPEC)}}
    manifest = dataclasses.replace(runs.read_manifest(run), specs=specs, status="complete", dirty=True)
    runs.write_manifest(run, manifest)
    assert runs.read_manifest(run) == manifest


def change_manifest(run, **changes):
    path = run / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_another_schema_version_is_refused_even_with_other_fields(run):
    change_manifest(run, schema_version=5, what_comes_next=[])
    with pytest.raises(RunFolderError, match="has schema version 5; this version of widespectrum reads 4"):
        runs.read_manifest(run)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '"text"', "{}", '{"schema_version": 4}', "\x00"])
def test_what_is_no_manifest(run, text):
    (run / "manifest.json").write_text(text)
    with pytest.raises(RunFolderError, match=r"manifest.json is not a manifest of widespectrum"):
        runs.read_manifest(run)


@pytest.mark.parametrize(
    "changes", [{"status": "done"}, {"specs": []}, {"specs": {"judges": {"j": "vlm:j@main"}}}, {"more": 1}]
)
def test_a_manifest_with_wrong_values(run, changes):
    change_manifest(run, **changes)
    with pytest.raises(RunFolderError, match=r"manifest.json is not a manifest of widespectrum"):
        runs.read_manifest(run)


def test_a_folder_without_manifest_is_no_run(tmp_path):
    with pytest.raises(RunFolderError, match=f"{tmp_path} is no run folder: it has no manifest.json"):
        runs.read_manifest(tmp_path)


def test_opening_again_changes_nothing(run):
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    open_run(run)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_prompts_that_are_lacking_are_added_once(tmp_path):
    store.append(tmp_path / "run", "prompts", PROMPTS[:3])
    open_run(tmp_path / "run")
    assert store.read(tmp_path / "run", "prompts")["text"].to_pylist() == [prompt.text for prompt in PROMPTS]


def test_another_run_file_in_the_same_folder_is_refused(run):
    with pytest.raises(RunFolderError, match=r"holds a run of another run file .*run.toml.*--out"):
        open_run(run, config=parse_run_file("[run]\nseeds = [3]\n"))
    assert (run / "run.toml").read_text() == CONFIG.text


@pytest.mark.parametrize("datasets", [{"photographs": "2" * 64}, {}, {**DATASETS, "more": "3" * 64}])
def test_changed_prompts_in_the_same_folder_are_refused(run, datasets):
    with pytest.raises(RunFolderError, match=r"prompts or photographs of .* have changed .*--out"):
        open_run(run, datasets=datasets, prompts=PROMPTS[:1])
    assert store.read(run, "prompts").num_rows == len(PROMPTS)


def a_score(reward_model):
    keys = ("pair_id", "generator", "image_role", "prompt_role", "image_id", "prompt_id")
    texts = dict.fromkeys(keys, "original")
    return Score(**texts, image_seed=0, reward_model=reward_model, value=1.0, truncated=None)


def test_a_label_stands_for_one_model(run):
    runs.register(run, "reward_models", "a", SPEC)
    runs.register(run, "reward_models", "b", dataclasses.replace(SPEC, name="other"))
    runs.register(run, "judges", "a", dataclasses.replace(SPEC, name="judge"))
    runs.register(run, "reward_models", "a", dataclasses.replace(SPEC))
    store.append(run, "scores", [a_score(reward_model="a")])
    recorded = runs.read_manifest(run).specs
    assert recorded["reward_models"] == {"a": str(SPEC), "b": "hps:other@v1?dtype=%22float32%22"}
    assert recorded["judges"] == {"a": "hps:judge@v1?dtype=%22float32%22"}
    changed = dataclasses.replace(SPEC, params={"dtype": "float16", "lora": "sha256:1"})
    with pytest.raises(RunFolderError) as error:
        runs.register(run, "reward_models", "a", changed)
    assert str(error.value) == (
        f"{run} holds results of a with dtype float32, lora not given, which is now dtype float16, lora sha256:1: "
        "give it another label=NAME, or choose another folder with --out"
    )
    assert runs.read_manifest(run).specs == recorded


def test_a_parameter_called_adapter_is_not_taken_for_the_kind_of_model(run):
    runs.register(run, "reward_models", "a", dataclasses.replace(SPEC, params={"adapter": "sha256:1"}))
    store.append(run, "scores", [a_score(reward_model="a")])
    with pytest.raises(RunFolderError, match="with adapter sha256:1, which is now adapter not given: give it another"):
        runs.register(run, "reward_models", "a", dataclasses.replace(SPEC, params={}))


def test_models_that_were_only_tried_are_taken_off_the_manifest(run):
    for label in ("tried", "answered", "asked for"):
        runs.register(run, "judges", label, dataclasses.replace(SPEC, name=label.replace(" ", "-")))
    judged = AbstentionRecord(
        prompt_id="p", image_id="i", rival_id="r", dimension="overall", judge="answered", reason="declined"
    )
    store.append(run, "abstentions", [judged])
    runs.withdraw(run, "judges", {"tried", "answered"})
    assert set(runs.read_manifest(run).specs["judges"]) == {"answered", "asked for"}


def test_a_label_without_results_may_stand_for_another_model(run):
    runs.register(run, "reward_models", "a", SPEC)
    store.append(run, "scores", [a_score(reward_model="b")])
    changed = dataclasses.replace(SPEC, params={"dtype": "float16"})
    runs.register(run, "reward_models", "a", changed)
    assert runs.read_manifest(run).specs["reward_models"] == {"a": str(changed)}


def test_a_finished_run_is_complete_until_a_model_is_added(run):
    runs.register(run, "judges", "a", SPEC)
    runs.finish(run)
    assert runs.read_manifest(run).status == "complete"
    runs.register(run, "judges", "a", SPEC)
    assert runs.read_manifest(run).status == "complete"
    runs.register(run, "judges", "b", SPEC)
    assert runs.read_manifest(run).status == "started"
