"""How a picture looks, in five numbers: brightness, saturation, sharpness, background blur, texture."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter, gaussian_gradient_magnitude

from ._checks import Flags, Floats

LOOKS = ("brightness", "saturation", "sharpness", "background_blur", "texture")
COMMON = 384
"""Every image is brought to the area of a square of this side before it is measured."""

_NARROWEST = 64  # pixels of the short side at the common size
_FINE, _COARSE, _WINDOW = 1.0, 4.0, 16.0  # Gaussian scales in pixels of the common size
_FAINTEST = 2e-4  # slope of luma per pixel below which there is no edge: noise of one gray level stays under it
_BLACK = "undefined: the image is black"
_NO_EDGES = "undefined: the image has no edges"


def look_statistics(image: Any) -> dict[str, Any]:
    """Brightness, saturation, sharpness, background blur and texture of one image.

    The image is first area-averaged to 384² pixels, its aspect kept, so that a large photograph and a small picture of
    the same scene measure alike. Y is Rec. 601 luma of the sRGB-coded values in [0, 1].

    Formula: `brightness` = mean Y. `saturation` = Σ(max − min) / Σ max over pixels, max and min taken over the three
    channels: HSV saturation weighted by value, so that near-black pixels, whose hue is noise, have no say, and a change
    of exposure cancels out. Local sharpness S = 1 − E₄/E₁, with E_s the squared gradient of Y at Gaussian scale s
    pixels, averaged in a Gaussian window of 16: the share of edge energy that a second blur takes away. It does not
    depend on contrast; a lone edge of blur width w gives 1 − √((w² + 1)/(w² + 16)), and fine detail gives more. S is
    read where the window holds an edge, √E₄ at least a tenth of its largest value: a blank wall is neither sharp nor
    blurred. `sharpness` = 90th percentile of S over the frame, that of what is in focus; `background_blur` = the 90th
    less the 25th percentile, how much sharpness the blurred quarter of the frame gives away, without a guess at what is
    background; `texture` = median |Y − Y blurred by 1 pixel| over pixels with S of at least 0.8 of `sharpness`, over
    their mean Y: the median passes over edges, which cover few pixels, and looking at what is in focus keeps
    background blur out of it.

    Inputs: `image`, uint8 RGB of shape (height, width, 3), or anything that np.asarray makes such an array of, such as
    a PIL image; gray (height, width) and opaque RGBA count too, and PIL images of another mode are converted.

    Range: brightness, saturation and texture from 0; brightness, saturation and sharpness at most 1; a sharp lone edge
    has S = 0.75, one of width 2 S = 0.5. Higher means brighter, more colorful, sharper, more blurred away from the
    focus, more fine detail. Blur of the whole image lowers texture as it lowers sharpness.

    Gaps: saturation is undefined in a black image, sharpness, background blur and texture in one without edges: an
    absent key, with its reason in `notes`. Fewer than 384² pixels (enlarging would count as blur), a strip, another
    type or shape, and transparent pixels raise ValueError.

    Source: reblurring as a measure of blur, Crete, Dolmiere, Ladret and Nicolas, SPIE 6492 (2007), and the ratio of
    edge gradients before and after it, Zhuo and Sim, Pattern Recognition 44 (2011); the percentiles are this package's.

    >>> look = look_statistics(np.full((400, 600, 3), [255, 0, 0], dtype=np.uint8))
    >>> round(look["brightness"], 3), look["saturation"], look["notes"]["sharpness"]
    (0.299, 1.0, 'undefined: the image has no edges')
    """
    pixels = _common_size(_pixels(image))
    light = pixels @ [0.299, 0.587, 0.114]
    largest = pixels.max(axis=2)
    found = {"brightness": float(light.mean())}
    notes = {}
    if largest.any():
        found["saturation"] = float((largest - pixels.min(axis=2)).sum() / largest.sum())
    else:
        notes["saturation"] = _BLACK
    focus = _focus(light)
    if focus is None:
        notes |= dict.fromkeys(LOOKS[2:], _NO_EDGES)
    else:
        found |= focus
    return found | {"notes": notes}


def _pixels(image: Any) -> Floats:
    """RGB in [0, 1], shape (height, width, 3)."""
    if hasattr(image, "convert") and getattr(image, "mode", "") not in ("L", "RGB", "RGBA", "F", "I", "I;16"):
        image = image.convert("RGB" if image.mode == "CMYK" else "RGBA")
    values = np.asarray(image)
    if values.dtype != np.uint8:
        raise ValueError(f"expected an image of whole numbers from 0 to 255 (uint8), got {values.dtype}; convert it")
    if values.ndim == 2:
        values = np.repeat(values[..., None], 3, axis=2)
    if values.ndim != 3 or values.shape[2] not in (3, 4):
        raise ValueError(f"expected an image of shape (height, width, 3), got {values.shape}; convert it to RGB")
    if values.shape[2] == 4 and (values[..., 3] < 255).any():
        raise ValueError("expected an opaque image, got transparent pixels; paste it on a background first")
    height, width = values.shape[:2]
    if height * width < COMMON**2:
        raise ValueError(f"expected at least {COMMON}² pixels, got {height} x {width}; give a larger image")
    if min(height, width) ** 2 * COMMON**2 < _NARROWEST**2 * height * width:
        raise ValueError(f"expected an image with sides of at most 36 to 1, got {height} x {width}; crop it")
    return values[..., :3] / 255.0


def _common_size(pixels: Floats) -> Floats:
    height, width = pixels.shape[:2]
    scale = COMMON / np.sqrt(height * width)
    rows = _averaged(pixels, round(height * scale))
    return _averaged(rows.swapaxes(0, 1), round(width * scale)).swapaxes(0, 1)


def _averaged(pixels: Floats, n: int) -> Floats:
    """The rows of `pixels` averaged to n rows, each over the same height, parts of rows included."""
    height = len(pixels)
    sums = np.concatenate([np.zeros((1, *pixels.shape[1:])), np.cumsum(pixels, axis=0)])
    edges = np.linspace(0, height, n + 1)
    whole = np.minimum(edges.astype(np.intp), height - 1)
    return np.diff(sums[whole] + (edges - whole)[:, None, None] * pixels[whole], axis=0) * (n / height)


def _focus(light: Floats) -> dict[str, float] | None:
    """Sharpness, background blur and texture of luma (height, width); None without edges."""
    fine, coarse = (
        gaussian_filter(gaussian_gradient_magnitude(light, scale, mode="nearest") ** 2, _WINDOW, mode="nearest")
        for scale in (_FINE, _COARSE)
    )
    strongest = coarse.max()
    if strongest < _FAINTEST**2:
        return None
    edged: Flags = coarse >= 0.01 * strongest
    local = 1 - coarse[edged] / fine[edged]
    sharp, blurred = np.percentile(local, [90, 25])
    focused = local >= 0.8 * sharp
    detail = np.abs(light - gaussian_filter(light, _FINE, mode="nearest"))[edged][focused]
    texture = np.median(detail) / light[edged][focused].mean()
    return {"sharpness": float(sharp), "background_blur": float(sharp - blurred), "texture": float(texture)}
