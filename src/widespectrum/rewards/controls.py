"""The two controls: one reward model that knows nothing, one that knows everything, to show what metrics must say."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image

from widespectrum.errors import InputError
from widespectrum.prompts.images import to_rgb
from widespectrum.types import ModelSpec

from .inputs import check_inputs

__all__ = ["OracleReward", "RandomReward"]


def _uniform(image: Image, prompt: str) -> float:
    """A number in [0, 1) from the sha256 of the size, the RGB pixels and the prompt."""
    rgb = to_rgb(image)
    content = f"{rgb.width}x{rgb.height}:".encode() + rgb.tobytes() + prompt.encode()
    # 13 hexadecimal digits are 52 bits, which a float64 holds exactly.
    return int(hashlib.sha256(content).hexdigest()[:13], 16) / 16**13


class RandomReward:
    """Uniform in [0, 1), fixed by the pixels and the prompt."""

    spec = ModelSpec(adapter="controls", name="random", revision="v1")

    def score(self, images: Sequence[Image], prompts: Sequence[str]) -> NDArray[np.float64]:
        """Shape (N,), in [0, 1)."""
        check_inputs(self.spec.name, images, prompts)
        return np.array([_uniform(*item) for item in zip(images, prompts, strict=True)], dtype=np.float64)


class OracleReward:
    """1 where the prompt is the one that made the image (`image.info["prompt"]`, set by a run), else 0."""

    spec = ModelSpec(adapter="controls", name="oracle", revision="v1")

    def score(self, images: Sequence[Image], prompts: Sequence[str]) -> NDArray[np.float64]:
        """Shape (N,), 0 or 1; InputError for an image that does not know its prompt."""
        check_inputs(self.spec.name, images, prompts)
        if any("prompt" not in image.info for image in images):
            raise InputError(
                "oracle scores only images of a run, which know the prompt that made them: leave it away here"
            )
        matches = [image.info["prompt"] == prompt for image, prompt in zip(images, prompts, strict=True)]
        return np.array(matches, dtype=np.float64)
