"""Images of others → the image table of a run, with the bytes they came with."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from widespectrum import store
from widespectrum.errors import InputError
from widespectrum.types import ImageRecord, Role

from .parquet import Source, Where, row_name

__all__ = ["store_images"]

Keys = Mapping[tuple[Where, Role], tuple[str, str]]
"""(row, image role) → prompt id and generator."""

_SUFFIXES = {"PNG": "png", "JPEG": "jpg", "WEBP": "webp", "BMP": "bmp", "TIFF": "tif"}
_SEED = 0
_BYTES_PER_PART = 100_000_000
_LISTED = 5


def _open(where: Where, column: str, content: bytes | None) -> Image.Image:
    """The image, every byte of it checked; InputError with the row for bytes that are no sound image."""
    from widespectrum.publishing.image_files import check_image

    try:
        check_image(content or b"")
    except InputError as error:
        raise InputError(f"{row_name(where)}: {column} {error}: download the dataset again") from error
    return Image.open(io.BytesIO(content or b""), formats=tuple(_SUFFIXES))


def _is_one_color(image: Image.Image, content: bytes) -> bool:
    """Whether every pixel is the same; only an image that packs very well is decoded to see."""
    if len(content) * 20 > image.width * image.height:
        return False
    extrema: Any = image.getextrema()
    bands = extrema if isinstance(extrema[0], tuple) else (extrema,)
    return all(low == high for low, high in bands)


def _record(key: tuple[str, str], image: Image.Image, content: bytes) -> tuple[ImageRecord, dict[str, Any]]:
    image_id = hashlib.sha256(content).hexdigest()
    path = f"{image_id[:16]}.{_SUFFIXES[str(image.format)]}"
    record = ImageRecord(
        image_id=image_id,
        prompt_id=key[0],
        generator=key[1],
        seed=_SEED,
        status="ok",
        detail="",
        width=image.width,
        height=image.height,
        path=path,
    )
    return record, {"bytes": content, "path": path}


class _Part:
    """Images on their way to the table: written once they are large enough."""

    def __init__(self, run: Path) -> None:
        self.run, self.size = run, 0
        self.made: list[tuple[ImageRecord, dict[str, Any]]] = []

    def add(self, record: ImageRecord, payload: dict[str, Any]) -> None:
        self.made.append((record, payload))
        self.size += len(payload["bytes"])

    def write(self) -> None:
        store.append(self.run, "images", [one for one, _ in self.made], payload=[each for _, each in self.made])
        self.made, self.size = [], 0


def store_images(
    run: Path, source: Source, keys: Keys, columns: Mapping[Role, str]
) -> tuple[dict[Where, dict[Role, str]], list[str]]:
    """Store both images of every row that has not got them yet; their ids by row, and what is worth a notice.

    A row with an image of one single color is left out: that is what the authors' code stored for a failed call.
    """
    done = {
        (row["prompt_id"], row["generator"]): row["image_id"]
        for row in store.read(run, "images", ("prompt_id", "generator", "image_id")).to_pylist()
    }
    missing = list(dict.fromkeys(where for (where, _), key in keys.items() if key not in done))
    part, blank = _Part(run), []
    for where, cells in source.image_rows(list(columns.values()), missing):
        opened = {}
        for role, column in columns.items():
            content = (cells[column] or {}).get("bytes")
            opened[role] = (_open(where, column, content), content or b"")
        if any(_is_one_color(*pair) for pair in opened.values()):
            blank.append(where)
            continue
        for role, pair in opened.items():
            if (key := keys[where, role]) not in done:
                record, payload = _record(key, *pair)
                part.add(record, payload)
                done[key] = record.image_id
        if part.size >= _BYTES_PER_PART:
            part.write()
    part.write()
    found: dict[Where, dict[Role, str]] = {}
    for (where, role), key in keys.items():
        if key in done:
            found.setdefault(where, {})[role] = done[key]
    return found, [*_blank_notice(blank), *_repeated_notice(found)]


def _listed(rows: list[Where]) -> str:
    more = f" and {len(rows) - _LISTED:,} more" if len(rows) > _LISTED else ""
    return ", ".join(row_name(where) for where in rows[:_LISTED]) + more


def _blank_notice(blank: list[Where]) -> list[str]:
    if not blank:
        return []
    return [f"left out {len(blank):,} rows with an image of one single color, a failed call: {_listed(blank)}"]


def _repeated_notice(found: Mapping[Where, Mapping[Role, str]]) -> list[str]:
    """Images that are there twice although they should have been made apart."""
    rows: dict[str, list[Where]] = {}
    for where, ids in found.items():
        for image_id in ids.values():
            rows.setdefault(image_id, []).append(where)
    repeated = [where for places in rows.values() if len(places) > 1 for where in dict.fromkeys(places)]
    if not repeated:
        return []
    count = sum(len(places) > 1 for places in rows.values())
    return [f"{count:,} images are stored more than once, byte for byte: {_listed(list(dict.fromkeys(repeated)))}"]
