"""A run that is killed again and again ends in the same tables as one that is left alone."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import PIL.Image
import pytest

from widespectrum import store
from widespectrum.results import read_evaluation
from widespectrum.runs import read_manifest

RUN_FILE = """
[run]
seeds = [0, 1]
batch_size = 4

[prompts]
set = "photographs"
photos = "photos"

[[generators]]
name = "identity"

[[generators]]
name = "photo-effects"
strength = 2

[[reward_models]]
name = "colorfulness"

[[reward_models]]
name = "random"

[[judges]]
name = "pixel"

[[judges]]
name = "rule"
reward_model = "random"

[evaluate]
n_resamples = 100
"""

COMMAND = [sys.executable, "-m", "widespectrum", "run", "run.toml", "--out", "run"]

KILL_WHEN_THERE = [
    "run.toml",
    "prompts/part-*",
    "images/part-000000-*",
    "images/part-000007-*",
    "scores/part-000000-*",
    "scores/part-000009-*",
    "verdicts/part-000000-*",
    "verdicts/part-000001-*",
    "results/results.parquet",
]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kill")
    (folder / "photos").mkdir()
    rng = np.random.default_rng(0)
    for name in ("garden", "street"):
        noise = rng.normal(0, 12, (72, 96, 3)) + np.linspace(40, 200, 96)[None, :, None]
        PIL.Image.fromarray(np.clip(noise, 0, 255).astype(np.uint8)).save(folder / "photos" / f"{name}.png")
    (folder / "run.toml").write_text(RUN_FILE)
    return folder


def run_to_the_end(folder, out):
    command = [*COMMAND[:-1], out]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return folder / out


def kill_when_there(folder, pattern):
    """Start the run and kill it -9 as soon as a file shows that it has come so far."""
    process = subprocess.Popen(COMMAND, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline and not list((folder / "run").glob(pattern)):
        time.sleep(0.0005)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, f"the run was over before {pattern} was seen"


def bits(run, table):
    """Every column of a table, sorted by key, as exact values: floats by their bits."""
    frame = store.read(run, table).to_pandas().sort_values(list(store.KEYS[table]), ignore_index=True)
    columns = {}
    for name in frame:
        values = frame[name]
        columns[name] = (
            values.to_numpy().view(np.int64) if values.dtype == np.float64 else values.astype(str)
        ).tolist()
    return columns


def test_a_killed_run_ends_in_the_same_tables(workplace):
    calm = run_to_the_end(workplace, "calm")
    for pattern in KILL_WHEN_THERE:
        kill_when_there(workplace, pattern)
        assert (
            not (workplace / "run" / "manifest.json").exists() or read_manifest(workplace / "run").status == "started"
        )
    disturbed = run_to_the_end(workplace, "run")
    # No generator here is behind an API.
    for table in store.SCHEMAS.keys() - {"calls"}:
        expected = bits(calm, table)
        assert expected[next(iter(expected))], f"{table} is empty: the test compares nothing"
        assert bits(disturbed, table) == expected, table
    assert read_manifest(disturbed).status == "complete"
    ours, theirs = read_evaluation(disturbed), read_evaluation(calm)
    assert (ours.results, ours.material, ours.notes) == (theirs.results, theirs.material, theirs.notes)
    assert not list(disturbed.glob("**/.tmp-*"))


def test_a_finished_run_does_nothing_again(workplace):
    calm = run_to_the_end(workplace, "calm")
    before = {path: path.read_bytes() for path in calm.glob("**/part-*.parquet")}
    run_to_the_end(workplace, "calm")
    assert {path: path.read_bytes() for path in calm.glob("**/part-*.parquet")} == before
