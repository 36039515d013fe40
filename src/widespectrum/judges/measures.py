"""Blind measures of an image: how conventionally good it is in the six dimensions that pixels can show.

Every measure J(I, d) maps an array (height, width, 3), float64, sRGB-coded in [0, 1], to a rating in [0, 2]; 2 is
conventionally good. They are plain formulas, not models of taste: each is built to fall when its dimension is damaged.
Y is Rec. 601 luma.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import convolve
from skimage.color import rgb2lab

from widespectrum.prompts.images import luma

__all__ = [
    "MEASURES",
    "brightness",
    "clarity",
    "color_aesthetic",
    "detail_refinement",
    "edge_sharpness",
    "lighting_distinction",
    "noise_level",
    "richness",
]

Pixels: TypeAlias = NDArray[np.float64]

_NOISE_KERNEL = np.array([[1.0, -2.0, 1.0], [-2.0, 4.0, -2.0], [1.0, -2.0, 1.0]])
_SICKLY_HUE = np.deg2rad(115)


def noise_level(light: Pixels) -> float:
    """Standard deviation of the noise in `light` (height, width), robust against edges.

    1.4826 times the median absolute response to the difference of two Laplacians, divided by the kernel's norm 6
    (kernel: Immerkaer, "Fast Noise Variance Estimation", 1996; the median in place of his mean).
    """
    return float(1.4826 * np.median(np.abs(convolve(light, _NOISE_KERNEL, mode="nearest"))) / 6)


def _contrast(light: Pixels, rows: int, columns: int) -> float:
    """The 99th percentile of the differences between pixels `rows` and `columns` (may be negative) apart."""
    height, width = light.shape
    if height <= rows or width <= abs(columns):
        return 0.0
    if columns < 0:
        return _contrast(light[:, ::-1], rows, -columns)
    return float(np.percentile(np.abs(light[rows:, columns:] - light[: height - rows, : width - columns]), 99))


def edge_sharpness(light: Pixels) -> float:
    """How much of the strongest contrast up to 1/12 of the long side away is reached within two pixels, in [0, 1].

    Contrast is the 99th percentile of differences. The smallest of four directions counts, so that a blur in one
    direction shows. 0 for an image with hardly any edges.
    """
    steps = [2, *(max(3, round(max(light.shape) / part)) for part in (64, 32, 12))]
    ratios = []
    for rows, columns in ((0, 1), (1, 0), (1, 1), (1, -1)):
        contrasts = [_contrast(light, step * rows, step * columns) for step in steps]
        ratios.append(contrasts[0] / max(contrasts) if max(contrasts) > 0 else 0.0)
    return min(ratios)


def clarity(image: Pixels) -> float:
    """2 * edge_sharpness(Y) / (1 + (noise_level(Y) / 0.03)^2): sharp edges, quiet surfaces."""
    light = luma(image)
    return 2 * edge_sharpness(light) / (1 + (noise_level(light) / 0.03) ** 2)


def brightness(image: Pixels) -> float:
    """2 * (1 - (1 - mean Y)^2): falls toward black, ever faster. Too much light is charged to the color aesthetic."""
    return float(2 * (1 - (1 - luma(image).mean()) ** 2))


def color_aesthetic(image: Pixels) -> float:
    """2 * (1 - clash) * (1 - cast) * (1 - blown), each factor in [0, 1]; C and h are chroma and hue in CIELAB.

    clash = (mean C - |mean of C exp(2ih)|) / 60: color whose hues lie neither together nor opposite each other;
    cast = mean of C max(0, cos(h - 115 degrees))^2 / 50: color near yellow-green;
    blown = share of pixels with a channel above 0.98.
    """
    lab = rgb2lab(image)
    chroma, hue = np.hypot(lab[..., 1], lab[..., 2]), np.arctan2(lab[..., 2], lab[..., 1])
    clash = (chroma.mean() - np.abs((chroma * np.exp(2j * hue)).mean())) / 60
    cast = (chroma * np.maximum(0, np.cos(hue - _SICKLY_HUE)) ** 2).mean() / 50
    blown = (image.max(axis=2) > 0.98).mean()
    return float(2 * (1 - min(clash, 1)) * (1 - min(cast, 1)) * (1 - blown))


def lighting_distinction(image: Pixels) -> float:
    """2 * (98th percentile - 2nd percentile of Y): the distance from shadow to light."""
    low, high = np.percentile(luma(image), (2, 98))
    return float(2 * (high - low))


def detail_refinement(image: Pixels) -> float:
    """2 * min(1, H / 6): H is the entropy in bits of the differences between neighbors of Y in 256 steps.

    H is what one pixel costs once its neighbor is known: little where tones, blocks or squares repeat.
    """
    steps = np.rint(luma(image) * 255).astype(np.int64)
    differences = np.concatenate([np.diff(steps, axis=0).ravel(), np.diff(steps, axis=1).ravel()])
    counts = np.bincount(differences + 255)
    shares = counts[counts > 0] / differences.size
    return float(2 * min(1.0, -(shares * np.log2(shares)).sum() / 6))


def richness(image: Pixels) -> float:
    """2 * mean over cells of s / (s + 0.04): s is the standard deviation of Y in a cell of 1/16 of the long side."""
    light = luma(image)
    cell = max(2, round(max(light.shape) / 16))
    rows, columns = max(1, light.shape[0] // cell), max(1, light.shape[1] // cell)
    spreads = [part.std() for row in np.array_split(light, rows, 0) for part in np.array_split(row, columns, 1)]
    return float(2 * np.mean([spread / (spread + 0.04) for spread in spreads]))


MEASURES: dict[str, Callable[[Pixels], float]] = {
    "clarity": clarity,
    "color aesthetic": color_aesthetic,
    "color brightness": brightness,
    "detail refinement": detail_refinement,
    "lighting distinction": lighting_distinction,
    "richness": richness,
}
