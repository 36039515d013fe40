"""What Stable Diffusion 1.5 has of its own: the safety checker, and the UNet of its aligned sibling."""

from __future__ import annotations

import numpy as np
import pytest
from diffusers import UNet2DConditionModel
from PIL.Image import Image

from tests.generators import made_sd1
from widespectrum.generators import load_generator
from widespectrum.protocols import Refusal
from widespectrum.types import Prompt

TINY = {"dtype": "float32", "width": 64, "height": 64, "steps": 2, "device": "cpu"}
OWN = Prompt(prompt_id="", text="a garden with a bench", pair_id="garden", role="original")
STREET = Prompt(prompt_id="", text="a street in fog", pair_id="street", role="original")


def generator_of(folder, name="sd1.5", **given):
    return load_generator(name, checkpoint=folder, **(TINY | given))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return made_sd1.checkpoint(tmp_path_factory.mktemp("sd1"))


@pytest.mark.parametrize("batch_size", [1, 2])
def test_what_the_safety_checker_holds_back_is_a_refusal(tmp_path, batch_size):
    generator = generator_of(made_sd1.checkpoint(tmp_path, blocks=True), batch_size=batch_size)
    refusal = Refusal("the safety checker of sd1.5 held the picture back as not safe for work")
    assert generator.generate([OWN, STREET], seeds=[0, 0]) == [refusal, refusal]


def test_only_the_held_back_picture_of_a_batch_is_refused(folder):
    generator = generator_of(folder, batch_size=2)
    checker = generator.pipeline.safety_checker
    check = checker.forward
    checker.forward = lambda **given: (check(**given)[0], [False, True])
    # The shorter prompt is drawn first.
    refusal, image = generator.generate([OWN, STREET], seeds=[0, 0])
    assert isinstance(image, Image) and isinstance(refusal, Refusal)


def test_a_checkpoint_without_a_safety_checker_draws_the_same(folder, tmp_path):
    plain = generator_of(made_sd1.checkpoint(tmp_path, checker=False))
    assert plain.pipeline.safety_checker is None
    first, second = (each.generate([OWN], seeds=[0])[0] for each in (plain, generator_of(folder)))
    assert np.array_equal(np.asarray(first), np.asarray(second))


def test_the_aligned_unet_takes_the_place_of_the_own_one(folder, tmp_path):
    other = made_sd1.checkpoint(tmp_path / "other", seed=1)
    UNet2DConditionModel.from_pretrained(other / "unet").save_pretrained(tmp_path / "dpo" / "unet")
    base, swapped = generator_of(folder), generator_of(folder, "sd1.5-dpo", transformer=str(tmp_path / "dpo" / "unet"))
    first, second = (each.generate([OWN], seeds=[0])[0] for each in (base, swapped))
    assert not np.array_equal(np.asarray(first), np.asarray(second))
    assert base.spec.key != swapped.spec.key
    for (name, mine), theirs in zip(
        swapped.pipeline.unet.named_parameters(),
        UNet2DConditionModel.from_pretrained(other / "unet").parameters(),
        strict=True,
    ):
        assert mine.equal(theirs), name


def test_published_settings(folder):
    params = dict(load_generator("sd1.5", checkpoint=folder, device="cpu").spec.params)
    params.pop("sha256")
    assert params == {
        "dtype": "float16",
        "steps": 64,
        "guidance": 7.5,
        "width": 512,
        "height": 512,
        "long_prompts": "CLIP in pieces of 75 tokens",
    }
