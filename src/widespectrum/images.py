"""Images as bytes: encode once and hash, read back from a run by id, decode under a pixel limit."""

from __future__ import annotations

import hashlib
import io
import warnings
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from pathlib import Path
from threading import Lock

import PIL.Image
import pyarrow.parquet as pq
from PIL.Image import Image

from . import store
from .errors import RunFolderError
from .prompts.images import to_rgb

__all__ = ["ImageReader", "decode", "encode"]

FORMATS = ("PNG", "JPEG", "WEBP")
_GROUPS_IN_MEMORY = 4
_OPENING = Lock()
_TOO_LARGE = (PIL.Image.DecompressionBombError, PIL.Image.DecompressionBombWarning)


def encode(image: Image) -> tuple[str, bytes]:
    """The sha256 and the bytes of the image as PNG."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    content = buffer.getvalue()
    return hashlib.sha256(content).hexdigest(), content


def decode(content: bytes, where: str, formats: Sequence[str] = FORMATS) -> Image:
    """The image in `content`, in the mode in which it is stored; `where` names it in errors.

    RunFolderError for bytes of no image of these `formats`, a damaged image, and one beyond Pillow's pixel limit.
    """
    try:
        # The filters of warnings belong to the process, not to a thread.
        with _OPENING, warnings.catch_warnings():
            warnings.simplefilter("error", PIL.Image.DecompressionBombWarning)
            # Other decoders are kept away from bytes of unknown origin: some of them start programs.
            image = PIL.Image.open(io.BytesIO(content), formats=tuple(formats))
        image.load()
    except PIL.UnidentifiedImageError:
        raise RunFolderError(f"{where} cannot be decoded: expected {', '.join(formats)}, got other bytes") from None
    except _TOO_LARGE:
        limit = f"{PIL.Image.MAX_IMAGE_PIXELS:,} pixels" if PIL.Image.MAX_IMAGE_PIXELS else "Pillow's limit"
        raise RunFolderError(f"{where} cannot be decoded: it has more than {limit}; make it smaller") from None
    # Pillow raises SyntaxError and ValueError for some damaged files.
    except (OSError, SyntaxError, ValueError) as error:
        raise RunFolderError(f"{where} cannot be decoded: {error}") from error
    return image


class ImageReader:
    """Reads images of a run by id, keeping only a few row groups in memory."""

    def __init__(self, run: Path) -> None:
        self._where: dict[str, tuple[Path, int, int]] = {}
        self._groups: OrderedDict[tuple[Path, int], list[bytes | None]] = OrderedDict()
        self._reading = Lock()
        for path in store.parts(run, "images"):
            with store.reading(path):
                self._locate(path)

    def _locate(self, path: Path) -> None:
        file = pq.ParquetFile(path, page_checksum_verification=True)
        for group in range(file.num_row_groups):
            ids = file.read_row_group(group, columns=["image_id"]).column("image_id").to_pylist()
            for row, image_id in enumerate(ids):
                if image_id:
                    self._where.setdefault(image_id, (path, group, row))

    def read(self, image_ids: Iterable[str]) -> dict[str, Image]:
        """The decoded images, each freshly made, by id."""
        return {image_id: self._read(image_id) for image_id in dict.fromkeys(image_ids)}

    def content(self, image_id: str) -> bytes:
        """The encoded bytes of one image, checked against its id; may be called from many threads."""
        if image_id not in self._where:
            raise RunFolderError(f"the image {image_id[:12]} is not in this run; run the generate stage again")
        path, group, row = self._where[image_id]
        with self._reading:
            content = self._group(path, group)[row]
        if content is None or hashlib.sha256(content).hexdigest() != image_id:
            raise RunFolderError(
                f"{path}: the bytes of image {image_id[:12]} are not the ones that were written: delete the file and "
                "run again"
            )
        return content

    def _read(self, image_id: str) -> Image:
        image = decode(self.content(image_id), f"image {image_id[:12]} in {self._where[image_id][0]}")
        # Runs of this package hold PNG; imported ones may hold JPEG and WebP in modes that nothing else here makes.
        return image if image.format == "PNG" else to_rgb(image)

    def _group(self, path: Path, group: int) -> list[bytes | None]:
        key = (path, group)
        if key not in self._groups:
            with store.reading(path):
                column = pq.ParquetFile(path).read_row_group(group, columns=["image"]).column("image")
                self._groups[key] = [None if image is None else image["bytes"] for image in column.to_pylist()]
            while len(self._groups) > _GROUPS_IN_MEMORY:
                self._groups.popitem(last=False)
        self._groups.move_to_end(key)
        return self._groups[key]
