"""Finding image files below a root folder, and checking every byte of them without decoding more than is needed."""

from __future__ import annotations

import hashlib
import io
import os
import re
import stat
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from widespectrum.errors import InputError

__all__ = [
    "FORMATS",
    "Folder",
    "FoundFile",
    "ImageFile",
    "UnreadError",
    "check_image",
    "quiet",
    "read_groups",
    "read_image",
]

FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP")
"""The formats that are taken; Pillow goes by content, not by name."""

LARGEST_FILE = 1 << 30
"""Bytes; an Arrow column of binary values holds less than 2 GiB."""

FILES_PER_GROUP = 100
_BYTES_PER_GROUP = 16 << 20
_GROUPS_AHEAD = 3

_JPEG = b"\xff\xd8"
_END, _SCAN = 0xD9, 0xDA
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# Stuffed and fill bytes, restarts and the private marker TEM carry no segment.
_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")
_SCAN_START, _ROWS = 512, 8
_HIGHEST = 65_500  # libjpeg's JPEG_MAX_DIMENSION; it has to see what is beyond


class UnreadError(InputError):
    """A file that could not be read this time, whatever is in it."""


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A regular file inside the root: where it is, its name below the root, its bytes and time of last change."""

    path: Path
    name: str
    size: int
    changed: int


@dataclass(frozen=True, slots=True)
class ImageFile:
    """An image file that passed the check; width and height in pixels as stored, not turned by EXIF."""

    sha256: str
    width: int
    height: int


def _jpeg_skeleton(content: memoryview) -> tuple[bytes, int]:
    """A JPEG file cut to its segments, the start of each scan and its first rows, and the height that it had.

    libjpeg raises on markers, tables and missing bytes only; whatever lies between two markers it decodes to some
    picture. So the decoder refuses this short file, or the walk along the markers fails, wherever decoding the whole
    file would fail, and the walk also finds what libjpeg passes over. InputError holds the reason, no path.
    """
    pieces, position, in_scan, height = [_JPEG], len(_JPEG), False, 0
    while found := _MARKER.search(content, position):
        at, kind = found.start(), content[found.start() + 1]
        between = bytes(content[position : min(at, position + _SCAN_START)] if in_scan else content[position:at])
        pieces.append(between.rstrip(b"\xff") if in_scan else between)
        if kind == _END:
            return b"".join([*pieces, b"\xff\xd9"]), height
        if kind < 0xC0 or kind == 0xD8:
            raise InputError(f"is damaged: marker FF{kind:02X} at byte {at} has no place there")
        position = at + 2 + int.from_bytes(content[at + 2 : at + 4], "big")
        if at + 4 > len(content) or position > len(content):
            break
        segment = bytearray(content[at:position])
        if kind in _FRAMES:
            height = int.from_bytes(segment[5:7], "big")
            if height <= _HIGHEST:
                segment[5:7] = min(height, _ROWS).to_bytes(2, "big")
        pieces.append(bytes(segment))
        in_scan = kind == _SCAN
    raise InputError("is cut off: the end of the JPEG picture is missing")


def _check_size(width: int, height: int, frames: int = 1) -> None:
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and width * height * frames > limit:
        what = f"{width} x {height} pixels" + (f" in {frames} frames" if frames > 1 else "")
        raise InputError(f"is too large: {what}, at most {limit:,} pixels are taken")


def _decode_frames(image: Image.Image) -> None:
    """Decode every frame of an open file; InputError as soon as the frames together pass the pixel limit."""
    frame = 0
    while True:
        image.load()
        frame += 1
        try:
            image.seek(frame)
        except EOFError:
            return
        _check_size(*image.size, frame + 1)


def _check_jpeg(content: memoryview) -> tuple[int, int]:
    skeleton, height = _jpeg_skeleton(content)
    with Image.open(io.BytesIO(skeleton), formats=FORMATS) as image:
        width = image.width
        _check_size(width, height)
        image.draft(image.mode, (1, 1))
        image.load()
    return width, height


def _check_other(content: memoryview) -> tuple[int, int]:
    file = io.BytesIO(content)
    with Image.open(file, formats=FORMATS) as image:
        size = image.size
        _check_size(*size)
        if image.format == "PNG":
            image.verify()  # the checksums; the file has to be opened again after it
    file.seek(0)
    with Image.open(file, formats=FORMATS) as image:
        _decode_frames(image)
    return size


def check_image(content: memoryview | bytes) -> tuple[int, int]:
    """Width and height of an encoded image whose every byte was looked at; InputError holds the reason, no path.

    JPEG files are walked marker by marker to the end, and the decoder is run on all tables and the start of each
    scan: this refuses what decoding refuses, at a small part of its cost, and files that end before their end marker.
    It does not prove the picture sound: changed or lost bytes between two markers decode to other colors or to gray,
    and neither this nor decoding by Pillow takes notice; only a checksum does. Of all other formats every frame is
    decoded, of PNG files the checksums are compared too.
    """
    if not content:
        raise InputError("is empty")
    try:
        return (_check_jpeg if content[:2] == _JPEG else _check_other)(memoryview(content))
    except InputError:
        raise
    except Image.DecompressionBombError:
        raise InputError(f"is too large: at most {Image.MAX_IMAGE_PIXELS or 0:,} pixels are taken") from None
    except UnidentifiedImageError:
        raise InputError(f"is not an image that can be read; expected one of {', '.join(FORMATS)}") from None
    except Exception as error:  # on damaged bytes Pillow's decoders raise nearly every kind of exception
        what = str(error).partition("\n")[0] or type(error).__name__
        raise InputError(f"is damaged or cut off ({what})") from error


def read_image(file: FoundFile, into: memoryview | None = None) -> ImageFile:
    """Read a file once, hash and check it; InputError holds the reason, no path (UnreadError: another run may succeed).

    The bytes go to `into`, as long as the file.
    """
    content = memoryview(bytearray(file.size)) if into is None else into
    try:
        with file.path.open("rb", buffering=0) as handle:
            whole = handle.readinto(content) == file.size and not handle.read(1)
    except OSError as error:
        raise UnreadError(f"cannot be read ({error.strerror})") from error
    if not whole:
        raise UnreadError("changed while it was read; run again")
    return ImageFile(hashlib.sha256(content).hexdigest(), *check_image(content))


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Pillow's warnings about single files off the screen. Enter it before the threads start."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield


def _read_group(files: Sequence[FoundFile]) -> tuple[list[ImageFile | InputError], bytearray]:
    """What the check found in each file or why it failed, and the bytes of all, one after the other."""
    found: list[ImageFile | InputError] = []
    content = bytearray(sum(file.size for file in files))
    view, end = memoryview(content), 0
    for file in files:
        begin, end = end, end + file.size
        try:
            found.append(read_image(file, view[begin:end]))
        except InputError as error:
            found.append(error)
    return found, content


def _groups(files: Sequence[FoundFile]) -> Iterator[range]:
    start, size = 0, 0
    for index, file in enumerate(files):
        if index > start and (index - start == FILES_PER_GROUP or size + file.size > _BYTES_PER_GROUP):
            yield range(start, index)
            start, size = index, 0
        size += file.size
    if start < len(files):
        yield range(start, len(files))


def read_groups(
    files: Sequence[FoundFile], pool: ThreadPoolExecutor
) -> Iterator[tuple[range, list[ImageFile | InputError], bytearray]]:
    """Read and check files in order, a few at a time, each group by one thread of `pool`.

    Gives which files, for each what the check found or why it failed, and their bytes one after the other. The threads
    are some groups ahead.
    """
    waiting: deque[tuple[range, Future[tuple[list[ImageFile | InputError], bytearray]]]] = deque()
    for group in _groups(files):
        waiting.append((group, pool.submit(_read_group, files[group.start : group.stop])))
        if len(waiting) > _GROUPS_AHEAD:
            done, reading = waiting.popleft()
            yield done, *reading.result()
    for group, reading in waiting:
        yield group, *reading.result()


class Folder:
    """A root folder; no file outside of it is read, whatever names and links say."""

    def __init__(self, root: Path) -> None:
        self.given = root
        self.root = root.resolve()
        if not self.root.is_dir():
            raise InputError(f"{root} is not a folder; expected the folder that holds the image files")
        self._names: dict[str, str | None] = {}

    def name(self, path: Path) -> str:
        """`path` below the root, as text that can be stored, however odd it is."""
        relative = os.path.relpath(os.path.abspath(path), os.path.abspath(self.given))  # noqa: PTH100 links stay
        return Path(relative).as_posix().encode("utf-8", "backslashreplace").decode()

    def find(self, path: Path) -> FoundFile:
        """The regular file at `path`; InputError holds the reason why it is none that is taken, and no path."""
        try:
            name, found = self._look(path)
            (name or "").encode()
        except (FileNotFoundError, NotADirectoryError):
            raise InputError("is missing") from None
        except UnicodeEncodeError:
            raise InputError("has a name that is not valid UTF-8; rename it") from None
        except (OSError, RuntimeError, ValueError) as error:  # loops of links, null bytes, names that are too long
            raise InputError(f"cannot be opened ({getattr(error, 'strerror', None) or error})") from error
        if name is None:
            raise InputError("lies outside the root folder; copy it into the folder")
        if not stat.S_ISREG(found.st_mode):
            raise InputError("is not a file")
        if found.st_size > LARGEST_FILE:
            raise InputError(f"is too large: {found.st_size:,} bytes, at most {LARGEST_FILE:,} are taken")
        return FoundFile(path, name, found.st_size, found.st_mtime_ns)

    def _look(self, path: Path) -> tuple[str | None, os.stat_result]:
        """The name of `path` below the root, None where it or its target lies outside, and what it is."""
        parent, leaf = os.path.split(path)
        if parent not in self._names:
            real = Path(parent).resolve()
            inside = real.is_relative_to(self.root)
            self._names[parent] = f"{real.relative_to(self.root).as_posix()}/".removeprefix("./") if inside else None
        above, found = self._names[parent], path.lstat()
        if stat.S_ISLNK(found.st_mode):
            target = path.resolve(strict=True)
            found = target.stat()
            above = above if target.is_relative_to(self.root) else None
        return None if above is None else above + leaf, found
