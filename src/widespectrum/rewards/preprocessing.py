"""How an image becomes what a reward model reads: the official steps of each model, without torchvision.

Everywhere EXIF orientation is ignored and no color profile applied, as the official programs do.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image, Resampling

from widespectrum.errors import InputError

__all__ = [
    "OPENAI_MEAN",
    "OPENAI_STD",
    "clip_crop",
    "drop_alpha",
    "longest_side",
    "normalized",
    "qwen_resize",
    "squash",
]

OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)

_MEAN = np.array(OPENAI_MEAN, dtype=np.float32)[:, None, None]
_STD = np.array(OPENAI_STD, dtype=np.float32)[:, None, None]
_MOST_PIXELS = 1 << 25
_QWEN_PIXELS = 256 * 28 * 28
_QWEN_FACTOR = 28
_QWEN_RATIO = 200

Pixels = NDArray[np.float32]


def clip_crop(image: Image, size: int = 224, *, rgb_first: bool) -> Pixels:
    """The middle of the image, its shortest side scaled to `size`: shape (3, size, size), normalized.

    With `rgb_first` as transformers' CLIPImageProcessor does (PickScore, MPS): RGB at once, alpha dropped; of an odd
    margin the smaller half is cut off on the left and at the top. Without it as OpenAI's CLIP does (also HPS v1,
    ImageReward, LAION): scaled and cropped in the image's own mode, so that Pillow weighs colors by their alpha and
    scales palettes to the nearest pixel, and RGB at the end; half of an odd margin is rounded to the even number.
    Bicubic, by Pillow. InputError for an image so narrow that scaling it would take more than 33 million pixels.
    """
    width, height = _size(image)
    if rgb_first:
        image = drop_alpha(image)
    long = int(size * max(width, height) / min(width, height))
    if size * long > _MOST_PIXELS:
        raise InputError(
            f"an image of {width} x {height} pixels is too narrow: scaled to a shortest side of {size} pixels its "
            f"longest side would have {long:,}, at most {_MOST_PIXELS // size:,} can be scaled; crop it"
        )
    resized = image.resize((size, long) if width <= height else (long, size), Resampling.BICUBIC)
    margins = [side - size for side in resized.size]
    left, top = (margin // 2 if rgb_first else round(margin / 2) for margin in margins)
    return normalized(drop_alpha(resized.crop((left, top, left + size, top + size))))


def squash(image: Image, size: int) -> Pixels:
    """The whole image at `size` x `size`, whatever its proportions (BLIP): shape (3, size, size), normalized.

    RGB at once, alpha dropped; bicubic, by Pillow.
    """
    _size(image)
    return normalized(drop_alpha(image).resize((size, size), Resampling.BICUBIC))


def longest_side(image: Image, size: int, *, antialias: bool) -> Pixels:
    """The whole image, its longest side scaled to `size`, in the middle of black bars (HPSv2): (3, size, size).

    RGB at once, alpha dropped, where the official code fails for RGBA. Bicubic on numbers from 0 to 1 by torch, which
    may overshoot, with or without `antialias`; bars come before normalization, of an odd width the wider one on the
    right and at the bottom. An image whose longest side is `size` gets its bars too, where the official code fails.
    InputError for an image so narrow that its shortest side would vanish.
    """
    import torch

    width, height = _size(image)
    scale = size / max(width, height)
    new = (round(height * scale), round(width * scale))
    if min(new) < 1:
        raise InputError(
            f"an image of {width} x {height} pixels is too narrow: scaled to a longest side of {size} pixels nothing "
            "is left of its shortest side; crop it"
        )
    # Channels stay last in memory: torch scales them so in a third of the time, to the same bits.
    pixels = torch.from_numpy(np.array(drop_alpha(image))).permute(2, 0, 1)[None].to(torch.float32).div_(255)
    pixels = torch.nn.functional.interpolate(pixels, size=new, mode="bicubic", align_corners=False, antialias=antialias)
    padded = np.zeros((3, size, size), dtype=np.float32)
    top, left = (size - new[0]) // 2, (size - new[1]) // 2
    padded[:, top : top + new[0], left : left + new[1]] = pixels[0].numpy()
    return _standardized(padded)


def qwen_resize(image: Image) -> Image:
    """The whole image in RGB (alpha dropped) at about 448 x 448 pixels, its proportions kept (HPSv3).

    Both sides are multiples of 28 and their product is about 200,704, rounded as qwen-vl-utils does. Bicubic, by
    Pillow. InputError where the longest side is more than 200 times the shortest.
    """
    width, height = _size(image)
    ratio = max(width, height) / min(width, height)
    if ratio > _QWEN_RATIO:
        raise InputError(
            f"an image of {width} x {height} pixels is too narrow: its sides have the ratio {ratio:g}, HPSv3 reads "
            f"images up to {_QWEN_RATIO}; crop it"
        )
    new_width, new_height = _qwen_size(width, height)
    return drop_alpha(image).resize((new_width, new_height), Resampling.BICUBIC)


def _qwen_size(width: int, height: int) -> tuple[int, int]:
    """Width and height after scaling; the order of the divisions matters, see 768 x 768."""
    rounded = [max(_QWEN_FACTOR, round(side / _QWEN_FACTOR) * _QWEN_FACTOR) for side in (width, height)]
    product = rounded[0] * rounded[1]
    if product > _QWEN_PIXELS:
        shrink = math.sqrt(height * width / _QWEN_PIXELS)
        rounded = [math.floor(side / shrink / _QWEN_FACTOR) * _QWEN_FACTOR for side in (width, height)]
    elif product < _QWEN_PIXELS:
        grow = math.sqrt(_QWEN_PIXELS / (height * width))
        rounded = [math.ceil(side * grow / _QWEN_FACTOR) * _QWEN_FACTOR for side in (width, height)]
    return rounded[0], rounded[1]


def drop_alpha(image: Image) -> Image:
    """The image in RGB as Pillow converts it: alpha is dropped, a palette looked up. An RGB image comes back itself."""
    if image.mode == "RGB":
        return image
    if isinstance(image.info.get("transparency"), bytes):
        # Pillow drops it as well, and warns.
        image = image.copy()
        del image.info["transparency"]
    try:
        return image.convert("RGB")
    except ValueError as error:
        raise InputError(f"an image of mode {image.mode} cannot become RGB ({error}): save it as PNG in RGB") from None


def normalized(image: Image) -> Pixels:
    """Shape (3, height, width): an RGB image divided by 255, less `OPENAI_MEAN`, divided by `OPENAI_STD`."""
    levels: NDArray[Any] = np.asarray(image).transpose(2, 0, 1)
    return _standardized(np.divide(levels, np.float32(255), dtype=np.float32, order="C"))


def _standardized(pixels: Pixels) -> Pixels:
    pixels -= _MEAN
    pixels /= _STD
    return pixels


def _size(image: Image) -> tuple[int, int]:
    width, height = image.size
    if width < 1 or height < 1:
        raise InputError(f"an image of {width} x {height} pixels has nothing to score: give one with pixels")
    return width, height
