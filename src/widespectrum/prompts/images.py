"""Opening photographs and reading pixels, the same for every stage."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from widespectrum.errors import InputError

__all__ = ["StoredImage", "luma", "open_photograph", "to_rgb"]

# Pillow goes by content, not by name, and some of its other decoders start programs (EPS: Ghostscript).
_FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP")


@dataclass(frozen=True, slots=True)
class StoredImage:
    """An image inside a run: its id, which is the sha256 of its bytes, and what opens it."""

    image_id: str
    read: Callable[[str], Image.Image] = field(compare=False, repr=False)


def to_rgb(image: Image.Image) -> Image.Image:
    """`image` in the mode RGB; what is transparent is laid over white."""
    if image.mode == "RGB":
        return image
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")


def luma(rgb: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rec. 601 luma 0.299 R + 0.587 G + 0.114 B of an array (..., 3), on the scale of its values."""
    return 0.299 * rgb[..., 0] + 0.587 * rgb[..., 1] + 0.114 * rgb[..., 2]


def open_photograph(path: Path | StoredImage) -> Image.Image:
    """The photograph at `path`, decoded, upright (EXIF orientation applied), RGB, without metadata; or a stored image.

    Raises InputError where the file is missing, is no JPEG, PNG, BMP, TIFF or WebP image, is cut off, is too large or
    has more than 8 bits; RunFolderError where a stored image is not what was stored.
    """
    if isinstance(path, StoredImage):
        image = to_rgb(path.read(path.image_id))
        image.info = {}
        return image
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=_FORMATS) as file:
                upright = ImageOps.exif_transpose(file)
    except FileNotFoundError:
        raise InputError(f"no photograph at {path}") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        limit = f"{Image.MAX_IMAGE_PIXELS:,} pixels"
        raise InputError(f"{path} is too large: expected a photograph of at most {limit}; make it smaller") from None
    except UnidentifiedImageError:
        expected = ", ".join(_FORMATS)
        raise InputError(
            f"{path} is not an image that can be read, expected one of {expected}: convert it to PNG, or remove it"
        ) from None
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(f"{path} is damaged or cut off ({error}); copy it again or remove it") from error
    if upright.mode.startswith(("I", "F")):
        raise InputError(f"{path} has more than 8 bits per channel (mode {upright.mode}); save it with 8 bits")
    photograph = to_rgb(upright)
    photograph.info = {}
    return photograph
