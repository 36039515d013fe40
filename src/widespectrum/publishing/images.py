"""Packing image files into Parquet: bytes as they are, every file checked, what is left out listed, restartable."""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import astuple, dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from tqdm import tqdm

from widespectrum.errors import InputError
from widespectrum.store import write_file

from .configs import SHARD_BYTES
from .image_files import FORMATS, Folder, FoundFile, ImageFile, UnreadError, quiet, read_groups
from .image_shards import Rejected, Shard, ShardFolder, open_shards, sync

__all__ = ["IMAGE_FEATURES", "Duplicate", "NoImageError", "Packed", "Packing", "Rejected", "pack_images"]

IMAGE_FEATURES = {
    "image": datasets.Image(),
    "sha256": datasets.Value("string"),
    "width": datasets.Value("int32"),
    "height": datasets.Value("int32"),
}
"""The columns that packing fills in; width and height in pixels as stored, before any turn that EXIF asks for."""

_VERSION = 1
_BYTES_PER_SYNC = 64 << 20
_PARQUET = {"compression": "NONE", "use_dictionary": False, "write_page_index": True}

_Failure: TypeAlias = tuple[int, InputError]


class NoImageError(InputError):
    """No row of a split is left; `rejected` says why."""

    def __init__(self, message: str, rejected: tuple[Rejected, ...] = ()) -> None:
        super().__init__(message)
        self.rejected = rejected


@dataclass(frozen=True, slots=True, kw_only=True)
class Packing:
    """How to pack: the column in which no two rows agree, the folder that no file may lie outside of, the bytes of
    image files in a shard, the number of threads that read and check.
    """

    key: str
    root: Path
    shard_size: int = SHARD_BYTES
    workers: int = 2


@dataclass(frozen=True, slots=True)
class Duplicate:
    """A row that was kept though its file has the same bytes as that of an earlier row, `same_as`."""

    key: str
    path: str
    same_as: str


@dataclass(frozen=True, slots=True)
class Packed:
    """What was packed; `kept` counts the shards that an earlier run had finished."""

    rows: int
    shards: tuple[Path, ...]
    kept: int
    rejected: tuple[Rejected, ...]
    duplicates: tuple[Duplicate, ...]


@dataclass(slots=True)
class _Chunk:
    """The rows and files of a shard to be; `size` in bytes."""

    rows: list[Mapping[str, Any]] = field(default_factory=list)
    files: list[FoundFile] = field(default_factory=list)
    size: int = 0


def _check(config: str, split: str, features: Mapping[str, Any], packing: Packing) -> None:
    for name, text in (("config", config), ("split", split)):
        if not re.fullmatch(r"\w+", text):
            raise InputError(f"{name} must be letters, digits and underscores; got {text!r}")
    for name, expected in IMAGE_FEATURES.items():
        if features.get(name, expected) != expected:
            raise InputError(f"the feature {name!r} must be {expected}, as packing fills it in; got {features[name]}")
    if packing.key not in features or packing.key in IMAGE_FEATURES:
        raise InputError(f"the key {packing.key!r} must be a column of the rows; expected one of {', '.join(features)}")
    if packing.shard_size < 1 or packing.workers < 1:
        raise InputError(f"shard_size and workers must be 1 or more; got {packing.shard_size} and {packing.workers}")


class _Pools(NamedTuple):
    """Threads: `readers` read and check, `planner` gathers the rows to come, `finisher` syncs what is written."""

    readers: ThreadPoolExecutor
    planner: ThreadPoolExecutor
    finisher: ThreadPoolExecutor


@contextmanager
def _pools(readers: int) -> Iterator[_Pools]:
    with ThreadPoolExecutor(readers) as first, ThreadPoolExecutor(1) as second, ThreadPoolExecutor(1) as third:
        yield _Pools(first, second, third)


class _Packer:
    """One split of one config in the making."""

    def __init__(
        self, packing: Packing, features: Mapping[str, Any], shards: ShardFolder, pools: _Pools, bar: tqdm[None]
    ) -> None:
        self.packing, self.shards, self.pools, self.bar = packing, shards, pools, bar
        self.folder = Folder(packing.root)
        self.features = datasets.Features(
            {**features, **{k: v for k, v in IMAGE_FEATURES.items() if k not in features}}
        )
        self.row_features = datasets.Features({k: v for k, v in features.items() if k not in IMAGE_FEATURES})
        self.rejected: list[Rejected] = []
        self.kept = 0
        self.first_with: dict[bytes, str] = {}
        self.duplicates: list[Duplicate] = []

    def chunks(self, items: Iterable[tuple[Mapping[str, Any], Path]]) -> Iterator[_Chunk]:
        """The rows whose files are there, a shard at a time; the others go to `rejected`."""
        chunk, seen = _Chunk(), set()
        for row, path in items:
            key = self._key(row)
            try:
                if key in seen:
                    raise InputError(f"an earlier row has the same {self.packing.key}")
                seen.add(key)
                file = self.folder.find(path)
            except InputError as error:
                self.rejected.append(Rejected(key, self.folder.name(path), str(error)))
                self.bar.update()
                continue
            if chunk.files and chunk.size + file.size > self.packing.shard_size:
                yield chunk
                chunk = _Chunk()
            chunk.rows.append(row)
            chunk.files.append(file)
            chunk.size += file.size
        if chunk.files:
            yield chunk

    def _key(self, row: Mapping[str, Any]) -> str:
        if row.keys() != self.row_features.keys():
            expected, got = (", ".join(map(str, names)) for names in (self.row_features, row))
            raise InputError(f"{self.shards.folder}: expected rows with the columns {expected}; got {got}")
        if row[self.packing.key] is None:
            raise InputError(f"{self.shards.folder}: expected a {self.packing.key} in every row; got the row {row}")
        return str(row[self.packing.key])

    def table(self, chunk: _Chunk) -> pa.Table:
        """The rows of a chunk as a table, without the columns of the image."""
        try:
            columns = self.row_features.encode_batch({k: [row[k] for row in chunk.rows] for k in self.row_features})
            return pa.table(columns, schema=self.row_features.arrow_schema)
        except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
            first, last = (row[self.packing.key] for row in (chunk.rows[0], chunk.rows[-1]))
            where = f"{self.shards.folder}, rows {first} to {last}"
            raise InputError(f"{where}: a value does not fit the features ({error}); correct it") from error

    def fingerprint(self, chunk: _Chunk, table: pa.Table) -> str:
        """A digest of everything that decides what the shard of a chunk holds, but for the bytes of the files."""
        digest = hashlib.sha256(f"{_VERSION} {self.features} {Image.MAX_IMAGE_PIXELS} {FORMATS}".encode())
        for batch in table.combine_chunks().to_batches():
            digest.update(batch.serialize())
        for file in chunk.files:
            digest.update(f"{file.name}\0{file.size}\0{file.changed}\n".encode())
        return digest.hexdigest()[:32]

    def write(self, chunk: _Chunk, table: pa.Table, path: Path, syncs: list[Future[None]]) -> list[_Failure]:
        """Write the shard of a chunk; what the checks found wrong. Syncs that were begun go into `syncs`."""
        failures: list[_Failure] = []
        unsynced = 0
        schema = self.features.arrow_schema
        with pq.ParquetWriter(path, schema, **_PARQUET) as writer:
            for rows, found, content in read_groups(chunk.files, self.pools.readers):
                part = table.slice(rows.start, len(rows))
                for name, column in _image_columns(chunk.files[rows.start : rows.stop], found, content).items():
                    part = part.append_column(name, column)
                part = part.select(schema.names).cast(schema)
                failed = [(row, image) for row, image in zip(rows, found, strict=True) if isinstance(image, InputError)]
                if failed:
                    part = part.filter(pa.array([isinstance(image, ImageFile) for image in found]))
                if len(part):
                    writer.write_table(part)
                failures += failed
                unsynced += part.nbytes
                if unsynced > _BYTES_PER_SYNC:
                    syncs.append(self.pools.finisher.submit(sync, path))
                    unsynced = 0
                self.bar.update(len(rows))
        return failures

    def shard(self, chunk: _Chunk) -> Future[Shard]:
        """The shard of a chunk, from an earlier run or written now; synced while the next one is written."""
        table = self.table(chunk)
        fingerprint = self.fingerprint(chunk, table)
        if found := self.shards.find(fingerprint):
            self.kept += 1
            self.bar.update(len(chunk.files))
            return self.pools.finisher.submit(self._finish, lambda: found, ())
        path, syncs = self.shards.temporary(fingerprint), list[Future[None]]()
        try:
            failures = self.write(chunk, table, path, syncs)
        except OSError as error:
            raise _cannot_write(self.shards.folder, error) from error
        if any(isinstance(error, UnreadError) for _, error in failures):
            fingerprint += "-unread"  # so that a rerun does not find this shard and reads the files again
        key = self.packing.key
        rejected = [Rejected(str(chunk.rows[i][key]), chunk.files[i].name, str(error)) for i, error in failures]
        return self.pools.finisher.submit(self._finish, lambda: self.shards.add(path, fingerprint, rejected), syncs)

    def _finish(self, finished: Callable[[], Shard], syncs: Iterable[Future[None]]) -> Shard:
        """Make a shard last, and list the rows whose image an earlier row has; one shard after the other, in order."""
        for each in syncs:
            each.result()  # a sync that failed is told of once, and the next one would not know
        shard = finished()
        for key, name, digest in self.shards.images(shard):
            if (same_as := self.first_with.setdefault(bytes.fromhex(digest), key)) != key:
                self.duplicates.append(Duplicate(key, name, same_as))
        return shard


def _ahead(chunks: Iterator[_Chunk], planner: ThreadPoolExecutor) -> Iterator[_Chunk]:
    """`chunks`, each gathered while the one before it is worked on."""
    waiting = planner.submit(next, chunks, None)
    while chunk := waiting.result():
        waiting = planner.submit(next, chunks, None)
        yield chunk


def _cannot_write(folder: Path, error: OSError) -> InputError:
    return InputError(f"{folder} cannot be written ({error}): make room or choose another folder, and run again")


def _image_columns(
    files: Sequence[FoundFile], found: Sequence[ImageFile | InputError], content: bytearray
) -> dict[str, pa.Array]:
    """The columns of one row group's images, whose bytes stand one after the other in `content`; not copied."""
    ends = np.cumsum([0, *(file.size for file in files)], dtype=np.int32)
    encoded = pa.Array.from_buffers(pa.binary(), len(files), [None, pa.py_buffer(ends), pa.py_buffer(content)])
    names = pa.array([file.name for file in files])
    columns = {"image": pa.StructArray.from_arrays([encoded, names], names=["bytes", "path"])}
    for name, kind in (("sha256", pa.string()), ("width", pa.int32()), ("height", pa.int32())):
        columns[name] = pa.array([getattr(image, name, None) for image in found], kind)
    return columns


def _list(path: Path, split: str, kind: type, rows: Sequence[Rejected] | Sequence[Duplicate]) -> None:
    """Write the CSV list of a config: the rows of this split replace its earlier ones; no file where none are left."""
    header = ["split", *(each.name for each in fields(kind))]
    lines = [(split, *astuple(row)) for row in rows]
    if path.exists():
        with path.open(encoding="utf-8", newline="") as file:
            lines = [*(tuple(line) for line in list(csv.reader(file))[1:] if line and line[0] != split), *lines]
    if not lines:
        path.unlink(missing_ok=True)
        return
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *sorted(lines, key=lambda line: line[0])])
    write_file(path, text.getvalue().encode())


def pack_images(
    items: Iterable[tuple[Mapping[str, Any], Path]],
    out: Path,
    *,
    config: str,
    split: str,
    features: Mapping[str, Any],
    packing: Packing,
) -> Packed:
    """Pack image files and the rows they belong to into `out/<config>/<split>-00000-of-0000N.parquet`.

    `items` are (row, path of its image file); `features` are those of the rows, in the order of the table, and may hold
    `IMAGE_FEATURES`, which are filled in and else come last. The bytes of the files are stored as they are. Every file
    is checked (`check_image`); rows whose file is missing, damaged, no image, too large or outside the root, and rows
    whose key was there before, are left out and listed in the result and in `out/<config>/rejected.csv`. Rows with
    the same bytes as an earlier row are kept and listed in `duplicates.csv`.

    A rerun keeps the shards of which no row and no file (name, size, time of last change) is another one.
    InputError where a row does not fit the features, NoImageError where no row is left.
    """
    _check(config, split, features, packing)
    total = len(items) if isinstance(items, Sized) else None
    with (
        open_shards(out, config, split, packing.key) as shards,
        quiet(),
        _pools(packing.workers) as pools,
        tqdm(total=total, desc=f"packing {config}/{split}", unit=" images", delay=2, leave=False) as bar,
    ):
        packer = _Packer(packing, features, shards, pools, bar)
        waiting = [packer.shard(chunk) for chunk in _ahead(packer.chunks(items), pools.planner)]
        try:
            done = [each.result() for each in waiting]
        except OSError as error:
            raise _cannot_write(out / config, error) from error
        rejected = (*packer.rejected, *(each for shard in done for each in shard.rejected))
        _list(out / config / "rejected.csv", split, Rejected, rejected)
        if not any(shard.rows for shard in done):
            why = "; ".join(f"{each.path} {each.reason}" for each in rejected[:3]) or "there are no rows"
            listed = out / config / "rejected.csv"
            raise NoImageError(f"{config}/{split}: no image can be packed ({why}); see {listed}", rejected)
        paths = shards.settle(done)
        _list(out / config / "duplicates.csv", split, Duplicate, packer.duplicates)
    return Packed(sum(shard.rows for shard in done), paths, packer.kept, rejected, tuple(packer.duplicates))
