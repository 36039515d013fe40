"""Small copies of the images of a run, for pages that hold everything they show."""

from __future__ import annotations

import base64
import io
from pathlib import Path

from PIL.Image import Resampling

from .images import ImageReader

__all__ = ["Thumbnails"]

LONG_SIDE = 192


class Thumbnails:
    """Small WebP copies of the images of a run as data URIs, each made once."""

    def __init__(self, run: Path) -> None:
        self._reader = ImageReader(run)
        self._made: dict[str, str] = {}

    def uri(self, image_id: str) -> str:
        """The copy as a `data:` URI; RunFolderError where the run does not hold the image."""
        if image_id not in self._made:
            image = self._reader.read([image_id])[image_id].convert("RGB")
            image.thumbnail((LONG_SIDE, LONG_SIDE), Resampling.LANCZOS)
            buffer = io.BytesIO()
            image.save(buffer, "WEBP", quality=80, method=4)
            self._made[image_id] = "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
        return self._made[image_id]
