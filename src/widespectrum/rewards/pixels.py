"""Reward models that measure pixels and never read the prompt: their prompt match is 0 by construction."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image

from widespectrum.errors import InputError
from widespectrum.prompts.images import luma, to_rgb
from widespectrum.protocols import Features
from widespectrum.types import ModelSpec

from .inputs import check_inputs

__all__ = ["MEASURES", "PixelReward", "colorfulness", "exposure", "sharpness"]


def colorfulness(rgb: NDArray[np.float64]) -> float:
    """sqrt(var rg + var yb) + 0.3 sqrt(mean(rg)^2 + mean(yb)^2) with rg = R - G and yb = (R + G) / 2 - B.

    `rgb` has shape (height, width, 3), values 0 to 255. Not below 0; 0 for a gray image; above 80 is very colorful.
    Source: Hasler and Süsstrunk, "Measuring colourfulness in natural images", 2003.
    """
    red, green, blue = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    rg, yb = red - green, (red + green) / 2 - blue
    return float(np.sqrt(rg.var() + yb.var()) + 0.3 * np.sqrt(rg.mean() ** 2 + yb.mean() ** 2))


def sharpness(rgb: NDArray[np.float64]) -> float:
    """Variance of the Laplacian (up + down + left + right - 4 center) of Rec. 601 luma; the border repeats outward.

    `rgb` has shape (height, width, 3), values 0 to 255. Not below 0; 0 for a flat image.
    """
    light = luma(rgb)
    padded = np.pad(light, 1, mode="edge")
    laplacian = padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:] - 4 * light
    return float(laplacian.var())


def exposure(rgb: NDArray[np.float64]) -> float:
    """-|mean(Y) / 255 - 1/2| - share of pixels with Y <= 5 or Y >= 250; Y is Rec. 601 luma.

    `rgb` has shape (height, width, 3), values 0 to 255. From -1.5 (all black or all white) to 0.
    """
    light = luma(rgb)
    clipped = (light <= 5) | (light >= 250)
    return float(-abs(light.mean() / 255 - 0.5) - clipped.mean())


MEASURES: dict[str, Callable[[NDArray[np.float64]], float]] = {
    "colorfulness": colorfulness,
    "sharpness": sharpness,
    "exposure": exposure,
}


class PixelReward:
    """One of MEASURES as a reward model; an image is measured once, whatever the number of prompts."""

    def __init__(self, *, measure: str) -> None:
        if measure not in MEASURES:
            raise InputError(f"measure must be one of {', '.join(MEASURES)}; got {measure!r}")
        self._measure = MEASURES[measure]
        self.spec = ModelSpec(adapter="pixels", name=measure, revision="v1")

    def encode_images(self, images: Sequence[Image]) -> Features:
        """Shape (N, 1): the measure of each image."""
        values = [self._measure(np.asarray(to_rgb(image), dtype=np.float64)) for image in images]
        return np.array(values, dtype=np.float64).reshape(-1, 1)

    def encode_texts(self, prompts: Sequence[str]) -> Features:
        """Shape (N, 0): nothing is read."""
        return np.empty((len(prompts), 0))

    def combine(self, image_features: Features, text_features: Features) -> NDArray[np.float64]:
        """Shape (N,): the measures."""
        return image_features[:, 0]

    def score(self, images: Sequence[Image], prompts: Sequence[str]) -> NDArray[np.float64]:
        """Shape (N,): the measure of each image; `prompts` change nothing."""
        check_inputs(self.spec.name, images, prompts)
        return self.combine(self.encode_images(images), self.encode_texts(prompts))
