"""What every test starts from: no network, no window, and one small run to look at."""

import os

# Before anything imports the libraries that read them.
os.environ |= {
    "HF_HUB_OFFLINE": "1",
    "HF_EVALUATE_OFFLINE": "1",
    "HF_UPDATE_DOWNLOAD_COUNTS": "0",
    "MPLBACKEND": "Agg",
}

import shutil

import numpy as np
import PIL.Image
import pytest

RUN_TEXT = """
[prompts]
set = "photographs"
photos = {photos}

[[generators]]
name = "identity"
size = 48

[[generators]]
name = "photo-effects"
strength = 3
size = 48

[[reward_models]]
name = "colorfulness"

[[reward_models]]
name = "random"

[[reward_models]]
name = "oracle"

[[judges]]
name = "pixel"
"""


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """A folder with two small photographs, `garden.png` and `street.png`."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for name, tint in (("garden", (0.5, 1.0, 0.4)), ("street", (0.9, 0.8, 1.0))):
        light = np.linspace(30, 220, 72)[None, :, None] + rng.normal(0, 15, (54, 72, 3))
        PIL.Image.fromarray(np.clip(light * tint, 0, 255).astype(np.uint8)).save(folder / f"{name}.png")
    return folder


@pytest.fixture(scope="session")
def run_text(photos):
    """The run file of `tiny_run`."""
    return RUN_TEXT.format(photos=f'"{photos}"')


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory, run_text):
    """A run folder with images, scores and verdicts, not yet evaluated. Not to be changed: see `run_copy`."""
    from widespectrum import run_models, stages
    from widespectrum.config import parse_run_file
    from widespectrum.runs import locked

    folder = tmp_path_factory.mktemp("runs") / "tiny"
    config = parse_run_file(run_text)
    models, prompt_set = run_models.load_models(config), stages.prompt_set_of(config)
    with locked(folder):
        stages.start(folder, config, models, prompt_set)
        failures = stages.generate(folder, config, models, prompt_set, print)
        failures += stages.score(folder, config, models, print)
        failures += stages.judge(folder, config, models, print)
    assert not failures
    return folder


@pytest.fixture(scope="session")
def finished_run(tiny_run, tmp_path_factory):
    """`tiny_run`, evaluated and finished. Not to be changed."""
    from widespectrum import runs
    from widespectrum.config import read_run_file
    from widespectrum.results import evaluate

    run = shutil.copytree(tiny_run, tmp_path_factory.mktemp("finished") / "run")
    evaluate(run, read_run_file(run))
    runs.finish(run)
    return run


@pytest.fixture
def run_copy(tiny_run, tmp_path):
    """A copy of `tiny_run` to change."""
    return shutil.copytree(tiny_run, tmp_path / "copy")
