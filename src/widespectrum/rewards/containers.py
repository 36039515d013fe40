"""What the files of checkpoints hold: the name, type, shape and place of every tensor, without reading the numbers.

The container is told by its content, not by its name: safetensors, torch.save (zip, or the older form), a TorchScript
archive, or a pickled network. Nothing of a file is executed (`unpickling`).
"""

from __future__ import annotations

import json
import math
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, NamedTuple

from widespectrum.errors import InputError

from .state_dicts import TensorRecord, tensor_records
from .unpickling import LARGEST_PICKLE, Storage, read_pickle

__all__ = ["Stored", "reading", "stored_tensors"]

_SIZES = {
    **{"bool": 1, "uint8": 1, "int8": 1, "float8_e4m3fn": 1, "float8_e5m2": 1, "int16": 2, "float16": 2, "bfloat16": 2},
    **{"int32": 4, "float32": 4, "int64": 8, "float64": 8, "complex64": 8, "complex128": 16},
}
"""Bytes of a number, by torch's name of the type."""

_SAFETENSORS = {
    **{"BOOL": "bool", "U8": "uint8", "I8": "int8", "I16": "int16", "I32": "int32", "I64": "int64"},
    **{"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"},
    **{"F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "C64": "complex64"},
}
_STORAGES = {
    **{"BoolStorage": "bool", "ByteStorage": "uint8", "CharStorage": "int8", "ShortStorage": "int16"},
    **{"IntStorage": "int32", "LongStorage": "int64", "HalfStorage": "float16", "BFloat16Storage": "bfloat16"},
    **{"FloatStorage": "float32", "DoubleStorage": "float64", "UntypedStorage": "uint8"},
    **{"ComplexFloatStorage": "complex64", "ComplexDoubleStorage": "complex128"},
}
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_AGAIN = "download it again"


class _Record(NamedTuple):
    """A run of bytes in a file; `checksum` is their CRC-32, 0 where none was recorded."""

    start: int
    length: int
    checksum: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A tensor in a file: `stride` (in numbers) is None where they lie one after the other in reading order."""

    file: Path
    start: int
    dtype: str
    shape: tuple[int, ...]
    stride: tuple[int, ...] | None = None
    checksum: int = 0

    @property
    def size(self) -> int:
        """Bytes of one number."""
        return _SIZES[self.dtype]

    @property
    def span(self) -> int:
        """Bytes in the file from the first number to the last."""
        if self.stride is None:
            return math.prod(self.shape) * self.size
        steps = sum((n - 1) * step for n, step in zip(self.shape, self.stride, strict=True))
        return 0 if 0 in self.shape else (1 + steps) * self.size


_WRAPPER = "module."


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Say in one sentence that a file cannot be read."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error}): check it and its permissions") from error


def stored_tensors(path: Path) -> dict[str, Stored]:
    """The tensors of one file by name. InputError, in one sentence, for anything else than a whole checkpoint."""
    with reading(path), path.open("rb") as file:
        head = file.read(512)
        file.seek(0)
        return _without_wrapper(_container(head, path)(file, path))


def _without_wrapper(found: dict[str, Stored]) -> dict[str, Stored]:
    """Without the `module.` that a wrapper around a network puts before its names, and what only the wrapper has."""
    inner = {name.removeprefix(_WRAPPER): each for name, each in found.items() if name.startswith(_WRAPPER)}
    return inner if 2 * len(inner) > len(found) else found


def _container(head: bytes, path: Path) -> Callable[[BinaryIO, Path], dict[str, Stored]]:
    """How a file that begins like this is read; InputError for what is no checkpoint."""
    if head.startswith(b"PK\x03\x04"):
        return _zip
    # Before the pickle: the length with which safetensors begins may be 0x80 in its first byte.
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 10**8:
        return _safetensors
    if head.startswith(b"\x80"):
        return _legacy
    raise InputError(f"{path} {_what_else(head)}")


def _what_else(head: bytes) -> str:
    """What a file is that is no checkpoint, and what to do."""
    if not head:
        return f"is an empty file: {_AGAIN}"
    if head.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not the file it stands for: download it again (`git lfs pull`, or from the page)"
    if head.lstrip().lower().startswith((b"<!doctype html", b"<html", b"<?xml")):
        return "is an HTML page, saved in place of the file: download it again"
    if head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf", b"Rar!")) or head[257:262] == b"ustar":
        return "is a packed archive: unpack it, and give the checkpoint inside"
    kind = "a text file" if not set(head) & {*range(9), *range(14, 27)} else "of no known kind"
    return f"is {kind}: expected weights in safetensors or as torch.save writes them"


def _safetensors(file: BinaryIO, path: Path) -> dict[str, Stored]:
    from safetensors import SafetensorError, safe_open

    try:
        # the library checks that the header fits the file
        with safe_open(path, framework="numpy"):
            pass
    except SafetensorError as error:
        raise InputError(f"{path} is cut short or damaged ({error}): {_AGAIN}") from None
    length = int.from_bytes(file.read(8), "little")
    header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    found = {}
    for name, entry in header.items():
        if entry["dtype"] not in _SAFETENSORS:
            raise InputError(f"{path}: {name} is of type {entry['dtype']}, expected {', '.join(_SAFETENSORS)}")
        place, shape = 8 + length + entry["data_offsets"][0], tuple(entry["shape"])
        found[name] = Stored(file=path, start=place, dtype=_SAFETENSORS[entry["dtype"]], shape=shape)
    return found


def _zip(file: BinaryIO, path: Path) -> dict[str, Stored]:
    try:
        with zipfile.ZipFile(file) as archive:
            entries = {entry.filename: entry for entry in archive.infolist()}
            pickles = sorted((name for name in entries if name.endswith("/data.pkl")), key=lambda name: name.count("/"))
            if not pickles:
                raise InputError(f"{path} is a zip archive but no checkpoint: unpack it, and give the file inside")
            root = pickles[0].removesuffix("data.pkl")
            if entries[pickles[0]].file_size > LARGEST_PICKLE:
                raise InputError(f"{path} is no checkpoint: its data.pkl is over {LARGEST_PICKLE} bytes long")
            with archive.open(pickles[0]) as stream:
                tree = read_pickle(stream, str(path))
            order = archive.read(f"{root}byteorder") if f"{root}byteorder" in entries else b"little"
    except InputError:
        raise
    # zipfile raises all of these for a damaged archive
    except (zipfile.BadZipFile, ArithmeticError, EOFError, OSError, RuntimeError, ValueError, struct.error) as error:
        raise InputError(f"{path} is cut short or damaged ({error}): {_AGAIN}") from None
    if order != b"little":
        raise InputError(f"{path} was written on a big-endian machine: convert it to safetensors there")
    return _placed(
        tensor_records(tree, str(path)), path, lambda key: _zip_record(file, entries.get(f"{root}data/{key}"), path)
    )


def _zip_record(file: BinaryIO, entry: zipfile.ZipInfo | None, path: Path) -> _Record | None:
    """Where the bytes of an entry lie; None where there is no such entry."""
    if entry is None:
        return None
    if entry.compress_type != zipfile.ZIP_STORED:
        raise InputError(f"{path} is a compressed zip archive, which torch.save does not write: {_AGAIN}")
    file.seek(entry.header_offset)
    local = file.read(30)
    if len(local) < 30 or local[:4] != b"PK\x03\x04":
        raise InputError(f"{path} is damaged: {_AGAIN}")
    name, extra = struct.unpack("<HH", local[26:30])
    return _Record(entry.header_offset + 30 + name + extra, entry.file_size, entry.CRC)


def _legacy(file: BinaryIO, path: Path) -> dict[str, Stored]:
    """torch.save as it wrote before 1.6: five pickles, then for every storage its length and its numbers."""
    where = str(path)
    if read_pickle(file, where) != _LEGACY_MAGIC:
        raise InputError(f"{path} is a pickle, but not one of torch.save: convert it to safetensors where you trust it")
    storages: dict[str, Storage] = {}
    version, system, tree, keys = (read_pickle(file, where, storages) for _ in range(4))
    if version != 1001 or not isinstance(system, dict) or not system.get("little_endian") or not isinstance(keys, list):
        raise InputError(f"{path} was written by a torch or on a machine of another kind: convert it to safetensors")
    end, places = path.stat().st_size, dict[str, _Record]()
    for key in map(str, keys):
        if key not in storages:
            raise InputError(f"{path} is damaged: {_AGAIN}")
        count = file.read(8)
        length = int.from_bytes(count, "little") * _SIZES[_dtype(storages[key], path)]
        places[key] = _Record(file.tell(), length)
        if len(count) < 8 or places[key].start + length > end:
            raise InputError(f"{path} is cut short: {_AGAIN}")
        file.seek(length, 1)
    return _placed(tensor_records(tree, where), path, places.get)


def _dtype(storage: Storage, path: Path) -> str:
    """The type of the numbers of a storage, as torch calls it."""
    if storage.kind not in _STORAGES:
        raise InputError(f"{path} holds tensors of an unknown type ({storage.kind}): convert it to safetensors")
    return _STORAGES[storage.kind]


def _placed(named: Mapping[str, TensorRecord], path: Path, place: Callable[[str], _Record | None]) -> dict[str, Stored]:
    """The tensors with their places in the file; InputError where a place is not in it."""
    found, places = {}, dict[str, _Record | None]()
    for name, record in named.items():
        dtype, key = _dtype(record.storage, path), record.storage.key
        if key not in places:
            places[key] = place(key)
        at = places[key]
        stored = Stored(
            file=path,
            start=(at.start if at else 0) + record.offset * _SIZES[dtype],
            dtype=dtype,
            shape=record.shape,
            stride=None if record.is_contiguous else record.stride,
        )
        if at is None or stored.start + stored.span > at.start + at.length:
            raise InputError(f"{path} is damaged, {name} lies outside it: {_AGAIN}")
        whole = record.offset == 0 and stored.span == at.length and stored.stride is None
        found[name] = replace(stored, checksum=at.checksum) if whole else stored
    return found
