from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from widespectrum.errors import InputError
from widespectrum.generators import load_generator
from widespectrum.generators.identity import Identity
from widespectrum.generators.photo_effects import PhotoEffects, requested_effects
from widespectrum.prompts import load_prompt_set, open_photograph
from widespectrum.protocols import Refusal
from widespectrum.types import Prompt

SET = load_prompt_set("photographs")
PROMPTS = {(prompt.pair_id, prompt.role): prompt for prompt in SET.prompts}
CHELSEA = open_photograph(SET.photographs["chelsea/clarity"])


def wide(text: str, *dimensions: str, pair_id: str = "p") -> Prompt:
    return Prompt(prompt_id="", text=text, pair_id=pair_id, role="wide_spectrum", dimensions=dimensions)


def make(prompt: Prompt, *, seed: int = 0, strength: int = 3, size: int = 96) -> np.ndarray:
    (image,) = PhotoEffects(strength=strength, size=size).generate([prompt], seeds=[seed], images=[CHELSEA])
    assert isinstance(image, Image.Image)
    return np.asarray(image)


def test_original_is_the_photograph_and_strength_zero_changes_nothing() -> None:
    original, clarity = PROMPTS["chelsea/clarity", "original"], PROMPTS["chelsea/clarity", "wide_spectrum"]
    (expected,) = Identity(size=96).generate([original], seeds=[0], images=[CHELSEA])
    assert expected.size == (96, 64)
    assert np.array_equal(make(original, strength=4), np.asarray(expected))
    assert np.array_equal(make(clarity, strength=0), np.asarray(expected))
    assert not np.array_equal(make(clarity, strength=1), np.asarray(expected))


def test_small_photographs_are_not_enlarged() -> None:
    (image,) = PhotoEffects(strength=0, size=1024).generate([wide("x", "clarity")], seeds=[0], images=[CHELSEA])
    assert np.array_equal(np.asarray(image), np.asarray(CHELSEA))


@pytest.mark.parametrize("prompt", [p for p in SET.prompts if p.subset == "chelsea"], ids=lambda p: p.prompt_id)
def test_every_prompt_of_the_set_is_made_or_refused(prompt: Prompt) -> None:
    (answer,) = PhotoEffects(size=64).generate([prompt], seeds=[0], images=[CHELSEA])
    unseen = {"background", "detail realism", "emotion", "main object", "object pairing"} & set(prompt.dimensions)
    assert isinstance(answer, Refusal) == bool(unseen)
    if isinstance(answer, Refusal):
        assert all(name in answer.reason for name in unseen)


def test_one_unseen_dimension_refuses_the_whole_prompt() -> None:
    (answer,) = PhotoEffects().generate([wide("x", "clarity", "emotion")], seeds=[0], images=[CHELSEA])
    assert answer == Refusal("classical image processing cannot change emotion")


def test_the_text_chooses_among_the_effects_of_the_dimension() -> None:
    assert requested_effects(wide("In MOTION BLUR and darkness", "clarity"), 0) == ["motion blur"]
    assert requested_effects(wide("motion blurred", "clarity"), 0) != requested_effects(wide("q", "emotion"), 0)
    both = wide("in darkness and grainy noise and an empty flat field", "color brightness", "clarity", "richness")
    assert requested_effects(both, 0) == ["empty flat field", "grainy noise", "darkness"]
    assert requested_effects(wide("gaussian blur, defocus blur", "clarity"), 0) == ["gaussian blur", "defocus blur"]


def test_without_a_name_the_seed_chooses_and_every_effect_comes_up() -> None:
    prompt = wide("everything unclear", "clarity")
    drawn = [requested_effects(prompt, seed) for seed in range(40)]
    assert all(len(names) == 1 for names in drawn)
    assert {name for (name,) in drawn} == {"gaussian blur", "motion blur", "defocus blur", "grainy noise"}
    assert requested_effects(prompt, 3) == drawn[3]


def test_seed_text_and_pair_decide_the_noise() -> None:
    first = make(wide("grainy noise", "clarity"))
    assert np.array_equal(first, make(wide("grainy noise", "clarity")))
    assert not np.array_equal(first, make(wide("grainy noise", "clarity"), seed=1))
    assert not np.array_equal(first, make(wide("grainy noise!", "clarity")))
    assert not np.array_equal(first, make(wide("grainy noise", "clarity", pair_id="q")))


@pytest.mark.parametrize("options", [{"strength": 5}, {"strength": -1}, {"strength": "3"}, {"strength": True}])
def test_bad_strength(options: dict[str, object]) -> None:
    with pytest.raises(InputError, match="strength must be a whole number from 0 to 4"):
        load_generator("photo-effects", **options)


@pytest.mark.parametrize("name", ["photo-effects", "identity"])
def test_bad_size_and_missing_photographs(name: str) -> None:
    for size in (15, 0, 8193, 512.0, True):
        with pytest.raises(InputError, match=f"{name}: size must be a whole number from 16 to 8192"):
            load_generator(name, size=size)
    for size in (16, 8192):
        load_generator(name, size=size)
    with pytest.raises(InputError, match=f"{name} starts from photographs"):
        load_generator(name).generate([wide("x", "clarity")], seeds=[0])
    with pytest.raises(InputError, match="1 prompts, 2 seeds, 1 photographs"):
        load_generator(name).generate([wide("x", "clarity")], seeds=[0, 1], images=[CHELSEA])


def test_images_carry_no_metadata() -> None:
    photograph = CHELSEA.copy()
    photograph.info["prompt"] = "left over"
    for name in ("photo-effects", "identity"):
        (image,) = load_generator(name).generate([wide("darkness", "color brightness")], seeds=[0], images=[photograph])
        assert image.info == {}
