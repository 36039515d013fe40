from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.generators.made_flux2_klein import checkpoint
from tests.generators.modern import FAMILIES, ORIGINAL, counted, draw, load, pipeline_of, pixels
from widespectrum.errors import InputError

KLEIN = FAMILIES["flux2-klein-9b"]


@pytest.fixture(scope="module")
def distilled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("klein") / "distilled")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("klein") / "base", is_distilled=False)


def test_the_distilled_checkpoint_is_not_guided(distilled: Path) -> None:
    generator = load(KLEIN, distilled, steps=4)
    passes = counted(generator.pipeline.transformer)
    generator.generate([ORIGINAL], seeds=[0])
    assert len(passes) == 4


def test_guidance_that_would_be_ignored_is_refused(distilled: Path) -> None:
    with pytest.raises(InputError) as error:
        load(KLEIN, distilled, guidance=4.0).open()
    assert str(error.value) == (
        "flux2-klein-9b: the checkpoint is distilled and takes no guidance; got guidance=4, give guidance=1"
    )


def test_another_checkpoint_is_guided(whole: Path) -> None:
    generator = load(KLEIN, whole, guidance=4.0)
    passes = counted(generator.pipeline.transformer)
    (image,) = generator.generate([ORIGINAL], seeds=[0])
    assert len(passes) == 2 * 2
    seed = generator.noise_seed(ORIGINAL, 0)
    direct = draw(KLEIN, pipeline_of(KLEIN, whole), ORIGINAL.text, seed, guidance_scale=4.0)
    assert np.array_equal(pixels(image), pixels(direct))


def test_a_text_encoder_with_too_few_layers_is_refused(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "short", layers=26)
    with pytest.raises(InputError, match="reads layer 27 of its text encoder, that of this checkpoint has 26"):
        load(KLEIN, folder).open()
