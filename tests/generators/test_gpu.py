"""What only a GPU can show, on tiny pipelines; `pytest -m gpu` where there is one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.generators import made_flux, made_sd3, made_sdxl
from tests.generators.made import SETTINGS
from widespectrum.generators import load_generator
from widespectrum.types import Prompt

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]

MAKERS = {"flux-dev": made_flux.checkpoint, "sdxl": made_sdxl.checkpoint, "sd3.5-medium": made_sd3.checkpoint}
PROMPTS = [Prompt(prompt_id="", text=f"a cup, number {n}", pair_id=str(n), role="original") for n in range(3)]


@pytest.fixture(scope="module", params=MAKERS)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    return request.param, MAKERS[request.param](tmp_path_factory.mktemp(request.param))


def draw(made: tuple[str, Path], **options: Any) -> np.ndarray:
    name, folder = made
    generator: Any = load_generator(name, checkpoint=str(folder), **{**SETTINGS, "device": "cuda", **options})
    try:
        images = generator.generate(PROMPTS, seeds=[0] * len(PROMPTS))
        assert generator.peak_memory() > 0
    finally:
        generator.close()
    return np.stack([np.asarray(image, dtype=int) for image in images])


def test_a_gpu_repeats_itself_and_starts_from_the_noise_of_the_cpu(made: tuple[str, Path]) -> None:
    images = draw(made)
    assert np.array_equal(images, draw(made))
    # Kernels round differently; other noise would be another image.
    assert np.abs(images - draw(made, device="cpu")).mean() < 2


@pytest.mark.parametrize("offload", ["model", "sequential"])
def test_offload_changes_where_and_not_what(made: tuple[str, Path], offload: str) -> None:
    assert np.abs(draw(made, offload=offload) - draw(made)).max() <= 1


def test_memory_is_given_back(made: tuple[str, Path]) -> None:
    before = torch.cuda.memory_allocated()
    draw(made)
    assert torch.cuda.memory_allocated() <= before + 2**20
