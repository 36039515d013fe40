"""The weight-free generator: a photograph, with the effects that the prompt asks for."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from PIL import Image

from widespectrum.errors import InputError
from widespectrum.protocols import Refusal
from widespectrum.types import ModelSpec, Prompt, digest

from .effects import EFFECTS, STRENGTHS, VISIBLE_DIMENSIONS, apply_effect
from .photographs import check_size, fit, photographs_of

__all__ = ["PhotoEffects", "requested_effects"]


def _rng(seed: int, prompt: Prompt, purpose: str) -> np.random.Generator:
    """Its own stream for every purpose, so that one effect does not change the draws of another."""
    return np.random.default_rng(int(digest([seed, prompt.pair_id, prompt.text, purpose]), 16))


def _effects_of(dimension: str, prompt: Prompt, seed: int) -> list[str]:
    """The effects of `dimension` that the text names; where it names none, one drawn by the seed."""
    known = [name for name, effect in EFFECTS.items() if effect.dimension == dimension]
    named = [name for name in known if re.search(rf"\b{name}\b", prompt.text, re.IGNORECASE)]
    return named or ([str(_rng(seed, prompt, dimension).choice(known))] if known else [])


def requested_effects(prompt: Prompt, seed: int) -> list[str]:
    """The names of the effects to apply, in the order of EFFECTS; none for dimensions that pixels cannot show."""
    wanted = {name for dimension in prompt.dimensions for name in _effects_of(dimension, prompt, seed)}
    return [name for name in EFFECTS if name in wanted]


class PhotoEffects:
    """Under an original prompt the photograph, under a wide-spectrum prompt the photograph with its effects.

    `strength` 0 (none) to 4 (drastic); the long side of the images is at most `size` pixels. A prompt that asks for a
    dimension that pixels cannot show is refused as a whole. Equal (seed, pair, text, photograph) give equal images.
    """

    needs_images = True

    def __init__(self, *, strength: int = 3, size: int = 256) -> None:
        if type(strength) is not int or strength not in STRENGTHS:
            raise InputError(f"photo-effects: strength must be a whole number from 0 to 4; got {strength!r}")
        check_size("photo-effects", size)
        self._strength, self._size = strength, size
        params = {"strength": strength, "size": size}
        self.spec = ModelSpec(adapter="photo-effects", name="photo-effects", revision="v1", params=params)

    def generate(
        self, prompts: Sequence[Prompt], *, seeds: Sequence[int], images: Sequence[Image.Image] | None = None
    ) -> list[Image.Image | Refusal]:
        """One image or refusal per prompt; `images` are the photographs, one per prompt."""
        photographs = photographs_of("photo-effects", prompts, seeds, images)
        return [self._make(*item) for item in zip(prompts, seeds, photographs, strict=True)]

    def _make(self, prompt: Prompt, seed: int, photograph: Image.Image) -> Image.Image | Refusal:
        unseen = [name for name in prompt.dimensions if name not in VISIBLE_DIMENSIONS]
        if unseen:
            return Refusal(f"classical image processing cannot change {' or '.join(unseen)}")
        fitted = fit(photograph, self._size)
        pixels = np.asarray(fitted, dtype=np.float64) / 255
        for name in requested_effects(prompt, seed):
            pixels = apply_effect(name, pixels, self._strength, _rng(seed, prompt, name))
        return Image.fromarray(np.rint(pixels * 255).astype(np.uint8))
