"""Images as they are sent to a model."""

from __future__ import annotations

import hashlib
import threading
from base64 import b64encode
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from typing import Any

import PIL.Image
from PIL import ImageOps

from widespectrum.errors import InputError
from widespectrum.prompts.images import to_rgb

__all__ = ["Picture", "Shown", "prepare", "source"]

# Pillow goes by content, not by name, and some of its other decoders start programs.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
_SENT_AS_THEY_ARE = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp"}
_ORIENTATION = 0x0112
# What Pillow raises on damaged files.
_UNREADABLE = (
    OSError,
    SyntaxError,
    ValueError,
    PIL.Image.DecompressionBombError,
    PIL.Image.DecompressionBombWarning,
)


@dataclass(frozen=True)
class Picture:
    """An encoded image: its bytes, its media type and its (width, height) in pixels."""

    content: bytes
    media_type: str
    size: tuple[int, int]

    @cached_property
    def part(self) -> dict[str, Any]:
        """The part of a message that carries the image."""
        url = f"data:{self.media_type};base64,{b64encode(self.content).decode()}"
        return {"type": "image_url", "image_url": {"url": url}}

    @cached_property
    def record(self) -> dict[str, Any]:
        """What the journal says instead of the bytes."""
        width, height = self.size
        facts = {
            "sha256": hashlib.sha256(self.content).hexdigest(),
            "bytes": len(self.content),
            "media_type": self.media_type,
            "width": width,
            "height": height,
        }
        return {"type": "image_url", "image_url": facts}


class Shown:
    """An image that several questions show: read and encoded once, however many hold it, and never by the caller.

    It is sent as a JPEG of quality 95 without chroma subsampling, with no side longer than `max_side` pixels. The
    image must stay open and unchanged until the questions are answered.
    """

    def __init__(self, image: PIL.Image.Image, max_side: int) -> None:
        if max_side < 1:
            raise InputError(f"max_side is {max_side}, expected 1 or more")
        self.image, self.max_side = image, max_side
        self._lock = threading.Lock()
        self._source: str | None = None
        self._picture: Picture | None = None

    def source(self, where: str) -> str:
        """As the function `source` has it."""
        with self._lock:
            if self._source is None:
                self._source = source(self.image, where)
            return self._source

    def picture(self, where: str) -> Picture:
        """As `prepare` has it."""
        with self._lock:
            if self._picture is None:
                self._picture = prepare(self.image, self.max_side, where)
            return self._picture


def _upright(image: PIL.Image.Image) -> PIL.Image.Image:
    """The image upright and in RGB: itself where it is that already."""
    upright = image if image.getexif().get(_ORIENTATION, 1) == 1 else ImageOps.exif_transpose(image)
    if upright.mode.startswith(("I", "F")):
        raise ValueError(f"more than 8 bits per channel, mode {upright.mode}")
    return to_rgb(upright)


def _opened(content: bytes) -> PIL.Image.Image:
    image = PIL.Image.open(BytesIO(content), formats=_FORMATS)
    limit = PIL.Image.MAX_IMAGE_PIXELS
    if limit and image.width * image.height > limit:
        raise ValueError(f"more than {limit:,} pixels")
    image.load()
    return image


def _picture(image: PIL.Image.Image | bytes, max_side: int) -> Picture:
    if isinstance(image, bytes):
        content, image = image, _opened(image)
        fits = max(image.size) <= max_side and image.getexif().get(_ORIENTATION, 1) == 1
        if fits and image.format in _SENT_AS_THEY_ARE:
            return Picture(content, _SENT_AS_THEY_ARE[image.format], image.size)
    rgb = _upright(image).copy()
    # Where a comment stands, which would be sent along.
    rgb.info = {}
    rgb.thumbnail((max_side, max_side), PIL.Image.Resampling.LANCZOS, reducing_gap=None)
    buffer = BytesIO()
    rgb.save(buffer, "JPEG", quality=95, subsampling=0)
    return Picture(buffer.getvalue(), "image/jpeg", rgb.size)


def source(image: PIL.Image.Image | bytes | Shown, where: str) -> str:
    """The sha256 of encoded bytes, or of the upright RGB pixels of a Pillow image.

    It is known before anything is encoded, and is the same with every version of an encoder. Raises InputError,
    with `where` in front, where the image cannot be read.
    """
    if isinstance(image, Shown):
        return image.source(where)
    if isinstance(image, bytes):
        return hashlib.sha256(image).hexdigest()
    try:
        rgb = _upright(image)
        content = rgb.tobytes()
    except _UNREADABLE as error:
        raise InputError(f"{where} cannot be read ({error}): replace it, or leave the question out") from None
    digest = hashlib.sha256(f"RGB {rgb.width} {rgb.height}\n".encode())
    digest.update(content)
    return digest.hexdigest()


def prepare(image: PIL.Image.Image | bytes | Shown, max_side: int, where: str) -> Picture:
    """The image as it is sent: no side longer than `max_side` pixels.

    Upright JPEG, PNG and WebP bytes that are small enough stay as they are; all else becomes a JPEG of quality 95
    without metadata. Raises InputError, with `where` in front, where the image cannot be read.
    """
    if isinstance(image, Shown):
        return image.picture(where)
    try:
        return _picture(image, max_side)
    except _UNREADABLE as error:
        raise InputError(f"{where} cannot be read ({error}): replace it, or leave the question out") from None
