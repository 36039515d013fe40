from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.generators.made_qwen_image import checkpoint
from tests.generators.modern import FAMILIES, ORIGINAL, counted, draw, load, long_text, pipeline_of, pixels
from widespectrum.types import Prompt

QWEN = FAMILIES["qwen-image"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("qwen") / "pipeline")


def test_the_image_is_guided_away_from_a_blank_prompt(folder: Path) -> None:
    generator = load(QWEN, folder)
    passes = counted(generator.pipeline.transformer)
    (image,) = generator.generate([ORIGINAL], seeds=[0])
    assert len(passes) == 2 * 2
    assert generator.spec.params["negative_prompt"] == " "
    seed = generator.noise_seed(ORIGINAL, 0)
    unguided = draw(QWEN, pipeline_of(QWEN, folder), ORIGINAL.text, seed, negative_prompt=None)
    assert not np.array_equal(pixels(image), pixels(unguided))


def test_without_guidance_there_is_no_negative_prompt(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generator = load(QWEN, folder, guidance=1)
    passes = counted(generator.pipeline.transformer)
    (image,) = generator.generate([ORIGINAL], seeds=[0])
    assert len(passes) == 2
    assert "negative_prompt" not in generator.spec.params
    seed = generator.noise_seed(ORIGINAL, 0)
    direct = draw(QWEN, pipeline_of(QWEN, folder), ORIGINAL.text, seed, true_cfg_scale=1.0, negative_prompt=None)
    assert np.array_equal(pixels(image), pixels(direct))


def test_prompts_beyond_the_default_of_the_pipeline_are_read_to_the_end(folder: Path) -> None:
    generator = load(QWEN, folder)
    text = long_text(1023, generator)
    prompts = [Prompt(prompt_id="", text=f"{text}{last}", pair_id="long", role="original") for last in ("b", "c")]
    passes = counted(generator.pipeline.transformer)
    one, other = generator.generate(prompts, seeds=[0, 0])
    assert passes[0]["encoder_hidden_states"].shape[1] == 1024
    assert not np.array_equal(pixels(one), pixels(other))
