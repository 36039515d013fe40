"""Classical image effects of graded strength: what the pixels of a photograph can be made to show.

Every effect maps an array (height, width, 3), float64, sRGB-coded in [0, 1], to one of the same shape and range.
Strength 0 gives the input back, 4 is drastic. Lengths are shares of the long side, so that a small and a large copy
of a photograph come out alike.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter
from scipy.signal import fftconvolve
from skimage.color import lab2rgb, rgb2lab

from widespectrum.prompts.images import luma

__all__ = ["EFFECTS", "STRENGTHS", "VISIBLE_DIMENSIONS", "Effect", "Pixels", "apply_effect"]

Pixels: TypeAlias = NDArray[np.float64]

STRENGTHS = range(5)

_SICKLY = np.array([0.80, 0.95, 0.20])
_COMPRESSION_SIDE = 384


class Effect(NamedTuple):
    """One effect: the dimension it lowers, its amount at strengths 1 to 4, and how it is made."""

    dimension: str
    amounts: tuple[float, float, float, float]
    make: Callable[[Pixels, float, np.random.Generator], Pixels]


def _long_side(image: Pixels) -> int:
    return int(max(image.shape[:2]))


def _to_picture(image: Pixels) -> Image.Image:
    return Image.fromarray(np.rint(image * 255).astype(np.uint8))


def _to_pixels(picture: Image.Image) -> Pixels:
    return np.asarray(picture.convert("RGB"), dtype=np.float64) / 255


def _blend(image: Pixels, target: Pixels, share: float | Pixels) -> Pixels:
    return image + (target - image) * share


def _linear(image: Pixels) -> Pixels:
    return np.power(image, 2.2)


def _display(light: Pixels) -> Pixels:
    return np.power(light, 1 / 2.2)


def _convolve(image: Pixels, kernel: Pixels) -> Pixels:
    """`image` averaged under `kernel` (odd sides), its border repeated outward."""
    rows, columns = kernel.shape[0] // 2, kernel.shape[1] // 2
    padded = np.pad(image, ((rows, rows), (columns, columns), (0, 0)), mode="edge")
    return np.asarray(fftconvolve(padded, (kernel / kernel.sum())[:, :, None], mode="valid", axes=(0, 1)))


def _offsets(radius: float) -> tuple[Pixels, Pixels]:
    reach = int(np.ceil(radius)) + 1
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1].astype(np.float64)
    return y, x


def _gaussian_blur(image: Pixels, amount: float, rng: np.random.Generator) -> Pixels:
    sigma = amount * _long_side(image)
    return np.asarray(gaussian_filter(image, (sigma, sigma, 0), mode="nearest"))


def _defocus_blur(image: Pixels, amount: float, rng: np.random.Generator) -> Pixels:
    """Every point becomes a disc, averaged in linear light as a lens does it."""
    radius = amount * _long_side(image)
    disc = np.clip(radius + 0.5 - np.hypot(*_offsets(radius)), 0, 1)
    return _display(np.clip(_convolve(_linear(image), disc), 0, 1))


def _motion_blur(image: Pixels, amount: float, rng: np.random.Generator) -> Pixels:
    """Every point becomes a line in one direction, drawn by `rng`."""
    half, angle = amount * _long_side(image) / 2, rng.uniform(0, np.pi)
    y, x = _offsets(half)
    along, across = x * np.cos(angle) + y * np.sin(angle), x * np.sin(angle) - y * np.cos(angle)
    line = np.clip(half + 0.5 - np.abs(along), 0, 1) * np.clip(1 - np.abs(across), 0, 1)
    return _convolve(image, line)


def _noise(image: Pixels, amount: float, rng: np.random.Generator) -> Pixels:
    """Gaussian color noise of the standard deviation `amount`, its grain in proportion to the image."""
    grain = _long_side(image) / 1500
    noise: Pixels = gaussian_filter(rng.standard_normal(image.shape), (grain, grain, 0))
    return image + amount * noise / float(noise.std())


def _darkness(image: Pixels, amount: float, rng: np.random.Generator) -> Pixels:
    return image * (1 - amount)


def _clashing_hues(image: Pixels, amount: float, rng: np.random.Generator) -> Pixels:
    """Adds `amount` of chroma in three hues a third of the circle apart to the dark, middle and bright regions."""
    lab = rgb2lab(image)
    region = gaussian_filter(lab[..., 0], 0.01 * _long_side(image))
    rank = np.searchsorted(np.sort(region, axis=None), region) / region.size
    hues = rng.uniform(0, 2 * np.pi) + np.array([0.0, 2.0, 4.0]) * np.pi / 3
    stops = np.array([1 / 6, 1 / 2, 5 / 6])
    for channel, direction in ((1, np.cos), (2, np.sin)):
        lab[..., channel] += amount * np.interp(rank, stops, direction(hues))
    return _in_gamut(lab)


def _in_gamut(lab: Pixels) -> Pixels:
    # Z = (L + 16) / 116 - b / 200 must not be negative: skimage would warn and clip it.
    lab[..., 2] = np.minimum(lab[..., 2], (lab[..., 0] + 16) * 200 / 116 - 1e-6)
    return np.asarray(lab2rgb(lab))


def _overexposure(image: Pixels, amount: float, rng: np.random.Generator) -> Pixels:
    """`amount` stops too much light, clipped at white, and the veil that stray light lays over the blacks."""
    veil = 0.06 * amount
    exposed = _display(np.clip(_linear(image) * 2**amount, 0, 1))
    return veil + (1 - veil) * exposed


def _sickly_cast(image: Pixels, amount: float, rng: np.random.Generator) -> Pixels:
    return _blend(image, luma(image)[..., None] * _SICKLY, amount)


def _flat_lighting(image: Pixels, amount: float, rng: np.random.Generator) -> Pixels:
    """The slow changes of lightness (illumination) go, and most of the contrast that is left."""
    light = luma(image)
    illumination: Pixels = gaussian_filter(light, 0.06 * _long_side(image), mode="nearest")
    mean = float(light.mean())
    flat = mean + (1 - amount) * (illumination - mean) + (1 - 0.85 * amount) * (light - illumination)
    return _blend(image, light[..., None], 0.4 * amount) + (flat - light)[..., None]


def _posterization(image: Pixels, amount: float, rng: np.random.Generator) -> Pixels:
    """`amount` colors, chosen by median cut."""
    return _to_pixels(_to_picture(image).quantize(int(amount), Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE))


def _compression_artifacts(image: Pixels, amount: float, rng: np.random.Generator) -> Pixels:
    """JPEG at quality `amount`, written at one size, so that its blocks are the same share of every image."""
    picture = _to_picture(image)
    scale = _COMPRESSION_SIDE / _long_side(image)
    small = picture.resize((max(1, round(picture.width * scale)), max(1, round(picture.height * scale))))
    file = io.BytesIO()
    small.save(file, "JPEG", quality=int(amount))
    with Image.open(file) as decoded:
        return _to_pixels(decoded.resize(picture.size, Image.Resampling.BILINEAR))


def _pixelation(image: Pixels, amount: float, rng: np.random.Generator) -> Pixels:
    """Squares of the side `amount`, each in its mean color."""
    picture = _to_picture(image)
    block = amount * _long_side(image)
    grid = (max(1, round(picture.width / block)), max(1, round(picture.height / block)))
    return _to_pixels(picture.resize(grid, Image.Resampling.BOX).resize(picture.size, Image.Resampling.NEAREST))


def _empty_flat_field(image: Pixels, amount: float, rng: np.random.Generator) -> Pixels:
    """The mean color takes over, from the border toward the middle."""
    height, width = image.shape[:2]
    y, x = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)[None, :]
    distance = np.hypot(y, x) / np.sqrt(2)
    kept = (1 - amount) ** (0.4 + 1.2 * distance)
    return _blend(image.mean(axis=(0, 1)), image, kept[..., None])


EFFECTS: dict[str, Effect] = {
    "empty flat field": Effect("richness", (0.4, 0.65, 0.85, 0.97), _empty_flat_field),
    "flat lighting": Effect("lighting distinction", (0.3, 0.55, 0.78, 0.95), _flat_lighting),
    "clashing hues": Effect("color aesthetic", (30, 52, 78, 110), _clashing_hues),
    "sickly cast": Effect("color aesthetic", (0.2, 0.4, 0.62, 0.88), _sickly_cast),
    "overexposure": Effect("color aesthetic", (0.9, 1.8, 2.9, 4.5), _overexposure),
    "gaussian blur": Effect("clarity", (0.003, 0.007, 0.014, 0.028), _gaussian_blur),
    "defocus blur": Effect("clarity", (0.005, 0.012, 0.025, 0.05), _defocus_blur),
    "motion blur": Effect("clarity", (0.015, 0.035, 0.07, 0.14), _motion_blur),
    "grainy noise": Effect("clarity", (0.06, 0.14, 0.28, 0.5), _noise),
    "posterization": Effect("detail refinement", (32, 14, 7, 3), _posterization),
    "pixelation": Effect("detail refinement", (1 / 120, 1 / 64, 1 / 34, 1 / 18), _pixelation),
    "compression artifacts": Effect("detail refinement", (15, 8, 4, 1), _compression_artifacts),
    "darkness": Effect("color brightness", (0.35, 0.6, 0.8, 0.92), _darkness),
}
"""Name to effect. The name is the phrase by which a prompt asks for it; the order is the one in which several are
applied: what stands before the camera, light, color, lens, sensor, file, and last the dimming of the whole, so that it
does not bury the others."""

VISIBLE_DIMENSIONS = tuple(sorted({effect.dimension for effect in EFFECTS.values()}))
"""The dimensions that pixels can show."""


def apply_effect(name: str, image: Pixels, strength: int, rng: np.random.Generator) -> Pixels:
    """`image` (height, width, 3) in [0, 1] with the effect called `name` at `strength` 0 to 4; 0 returns the input."""
    if strength == 0:
        return image
    effect = EFFECTS[name]
    return np.clip(effect.make(image, effect.amounts[strength - 1], rng), 0, 1)
