"""Parquet files of others: found, checked column by column, and read a few rows at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from widespectrum.errors import InputError
from widespectrum.types import digest

__all__ = [
    "IMAGE",
    "INTEGER",
    "NUMBER",
    "NUMBERS",
    "TEXT",
    "TEXTS",
    "Kind",
    "Source",
    "Where",
    "list_of",
    "row_name",
    "struct_of",
]

Where: TypeAlias = tuple[Path, int]
"""A row: its file, and its number there, from 0."""

_ROWS_AT_A_TIME = 1000
_IMAGES_AT_A_TIME = 8


@dataclass(frozen=True, slots=True)
class Kind:
    """What a column may hold: a test of its Arrow type and the words for it."""

    words: str
    fits: Callable[[pa.DataType], bool]

    def takes(self, given: pa.DataType) -> bool:
        """Whether a column of this Arrow type may be read; one without a single value has the type null."""
        return bool(pa.types.is_null(given)) or self.fits(given)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_integer(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_boolean(kind))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def list_of(kind: Kind, words: str) -> Kind:
    """A list whose entries are of one kind."""

    def fits(given: pa.DataType) -> bool:
        is_list = pa.types.is_list(given) or pa.types.is_large_list(given) or pa.types.is_fixed_size_list(given)
        return bool(is_list and kind.takes(given.value_type))

    return Kind(words, fits)


def struct_of(fields: Mapping[str, Kind], optional: Mapping[str, Kind] | None = None) -> Kind:
    """A struct with exactly these fields, some of which may be absent."""
    known = {**fields, **(optional or {})}

    def fits(given: pa.DataType) -> bool:
        if not pa.types.is_struct(given):
            return False
        found = {one.name: one.type for one in given}
        return set(fields) <= set(found) <= set(known) and all(known[name].takes(kind) for name, kind in found.items())

    return Kind(f"a struct of {', '.join(fields)}", fits)


TEXT = Kind("text", _is_text)
INTEGER = Kind("whole numbers", _is_integer)
NUMBER = Kind("numbers", _is_number)
TEXTS = list_of(TEXT, "lists of texts")
NUMBERS = list_of(NUMBER, "lists of numbers")
IMAGE = struct_of({"bytes": Kind("bytes", _is_bytes), "path": TEXT})


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path} is no readable Parquet file ({reason}): download it again") from error


@dataclass(frozen=True, slots=True)
class Source:
    """The Parquet files of one dataset, in the order of their names."""

    hub_id: str
    files: tuple[Path, ...]
    _open: dict[Path, pq.ParquetFile] = field(default_factory=dict)

    @classmethod
    def find(cls, hub_id: str, place: Path) -> Source:
        """Every Parquet file in the folder `place` or below it, or the one file that it is."""
        files = sorted(place.rglob("*.parquet")) if place.is_dir() else [place]
        if not files:
            raise InputError(f"{place} holds no Parquet file; expected the folder of {hub_id} as downloaded")
        return cls(hub_id, tuple(files))

    def _file(self, path: Path) -> pq.ParquetFile:
        if path not in self._open:
            with _readable(path):
                # A buffer, and nothing read ahead: a row group of images may not fit into memory.
                self._open[path] = pq.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False)
        return self._open[path]

    def columns(self) -> dict[str, pa.DataType]:
        """The columns of the first file."""
        return {one.name: one.type for one in self._file(self.files[0]).schema_arrow}

    def check(self, required: Mapping[str, Kind], optional: Mapping[str, Kind]) -> None:
        """InputError that lists every missing, unexpected and mistyped column of the first file that has any."""
        known = {**required, **optional}
        for path in self.files:
            found = {one.name: one.type for one in self._file(path).schema_arrow}
            faults = {
                "missing": [name for name in required if name not in found],
                "unexpected": [name for name in found if name not in known],
                "mistyped": [
                    f"{name} (expected {known[name].words}, got {kind})"
                    for name, kind in found.items()
                    if name in known and not known[name].takes(kind)
                ],
            }
            if listed := "; ".join(f"{fault}: {', '.join(names)}" for fault, names in faults.items() if names):
                raise InputError(
                    f"{path} has not the columns of {self.hub_id}; {listed}: give the folder as downloaded"
                )

    def rows(self, columns: Sequence[str]) -> Iterator[tuple[Where, dict[str, Any]]]:
        """Every row, with some of its columns."""
        for path in self.files:
            with _readable(path):
                groups = range(self._file(path).num_row_groups)
                yield from self._rows(path, groups, columns, start=0, at_a_time=_ROWS_AT_A_TIME)

    def image_rows(self, columns: Sequence[str], wanted: Sequence[Where]) -> Iterator[tuple[Where, dict[str, Any]]]:
        """The wanted rows, a few in memory at a time; row groups without one are not read."""
        left = set(wanted)
        with tqdm(total=len(left), desc=f"read {self.hub_id}", delay=2, leave=False) as bar:
            for path, group, start, stop in self._groups():
                if left.isdisjoint((path, number) for number in range(start, stop)):
                    continue
                with _readable(path):
                    for where, row in self._rows(path, [group], columns, start=start, at_a_time=_IMAGES_AT_A_TIME):
                        if where in left:
                            bar.update()
                            yield where, row

    def _groups(self) -> Iterator[tuple[Path, int, int, int]]:
        """File, row group, its first row and the row after its last."""
        for path in self.files:
            start = 0
            for group in range(self._file(path).num_row_groups):
                stop = start + self._file(path).metadata.row_group(group).num_rows
                yield path, group, start, stop
                start = stop

    def _rows(
        self, path: Path, groups: Sequence[int], columns: Sequence[str], *, start: int, at_a_time: int
    ) -> Iterator[tuple[Where, dict[str, Any]]]:
        for batch in self._file(path).iter_batches(at_a_time, row_groups=list(groups), columns=list(columns)):
            for offset, row in enumerate(batch.to_pylist()):
                yield (path, start + offset), row
            start += batch.num_rows

    def revision(self) -> str:
        """A digest (64 hex digits) of the bytes of all files."""
        sums = []
        for path in tqdm(self.files, desc="hash", delay=2, leave=False):
            with path.open("rb") as file:
                sums.append(hashlib.file_digest(file, "sha256").hexdigest())
        return digest(sums)


def row_name(where: Where) -> str:
    """`file, row N` as errors name a row; the first row is 1."""
    return f"{where[0]}, row {where[1] + 1}"
