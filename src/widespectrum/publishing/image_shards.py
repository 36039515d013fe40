"""Finished Parquet shards of images: their journal, which of them a rerun may keep, and their final names.

Until the last shard is there, all lie in `<out>/.packing/<config>/`; afterwards only the journal stays in it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from widespectrum.errors import InputError
from widespectrum.store import write_file

__all__ = ["WORK", "Rejected", "Shard", "ShardFolder", "open_shards", "sync"]

WORK = ".packing"
"""The folder beside the configs that holds what is unfinished and the journals; it is not to be published."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row that was left out: its key, its file below the root, the reason."""

    key: str
    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class Shard:
    """A line of the journal: a finished shard, known by a fingerprint of the rows and files that it was made from.

    `content` is a digest of its keys, paths and images, `name` its final name, empty until all shards are there.
    """

    fingerprint: str
    rows: int
    size: int
    content: str
    rejected: tuple[Rejected, ...]
    name: str = ""


def _read_journal(path: Path) -> dict[str, Shard]:
    """The finished shards of earlier runs by fingerprint; none where there is no journal that can be read."""
    try:
        lines = json.loads(path.read_text(encoding="utf-8"))
        found = [Shard(**{**line, "rejected": tuple(Rejected(**each) for each in line["rejected"])}) for line in lines]
    except (OSError, ValueError, TypeError, KeyError):
        return {}  # then every shard is made anew
    return {shard.fingerprint: shard for shard in found}


def _digest(images: Sequence[tuple[str, str, str]]) -> str:
    return hashlib.sha256(json.dumps(images).encode()).hexdigest()


def sync(path: Path) -> None:
    """Make what is written of a file or folder last, and give back the memory in which the system held the file."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
        if path.is_file() and hasattr(os, "posix_fadvise"):
            # Memory that was in use a moment ago is many times faster to write to than memory that is new.
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(handle)


class ShardFolder:
    """The shards of one split of a config; `key` is the column that tells rows apart."""

    def __init__(self, out: Path, config: str, split: str, key: str) -> None:
        self.folder, self.work = out / config, out / WORK / config
        self.split, self.key = split, key
        self.journal = self.work / f"{split}.json"
        self.known = _read_journal(self.journal)
        self._places: dict[str, Path] = {}
        self._images: dict[str, list[tuple[str, str, str]]] = {}

    def temporary(self, fingerprint: str) -> Path:
        """Where a shard is written."""
        return self.work / f".tmp-{self.split}-{fingerprint}.parquet"

    def _read(self, path: Path) -> list[tuple[str, str, str]]:
        """(key, path, sha256) of every row of a shard."""
        with pq.ParquetFile(path) as file:
            table = file.read(columns=[self.key, "image.path", "sha256"])
        keys, digests = (table[name].to_pylist() for name in (self.key, "sha256"))
        paths = [each["path"] for each in table["image"].to_pylist()]
        return [(str(key), path, digest) for key, path, digest in zip(keys, paths, digests, strict=True)]

    def images(self, shard: Shard) -> list[tuple[str, str, str]]:
        """(key, path, sha256) of every row of a shard that was found or added; to be asked for once."""
        return self._images.pop(shard.fingerprint, [])

    def find(self, fingerprint: str) -> Shard | None:
        """The shard that an earlier run made of the same rows and files, where it is still there unaltered."""
        shard = self.known.get(fingerprint)
        if shard is None or shard.rows == 0:
            return shard
        for path in (self._waiting(shard), self.folder / (shard.name or "none")):
            try:
                if path.stat().st_size != shard.size or _digest(images := self._read(path)) != shard.content:
                    continue
            except (OSError, pa.ArrowException, KeyError):
                continue
            self._places[fingerprint], self._images[fingerprint] = path, images
            return shard
        return None

    def _waiting(self, shard: Shard) -> Path:
        return self.work / f"{self.split}-{shard.fingerprint}.parquet"

    def add(self, written: Path, fingerprint: str, rejected: Sequence[Rejected]) -> Shard:
        """Put a shard that was written at a temporary place into the journal; without rows its file is removed."""
        images = self._read(written)
        shard = Shard(fingerprint, len(images), written.stat().st_size, _digest(images), tuple(rejected))
        if images:
            sync(written)
            self._places[fingerprint], self._images[fingerprint] = written.replace(self._waiting(shard)), images
        else:
            written.unlink()
        self.known[fingerprint] = shard
        self._write_journal(self.known.values())
        return shard

    def _write_journal(self, shards: Iterable[Shard]) -> None:
        text = json.dumps([asdict(shard) for shard in shards], ensure_ascii=False, indent=1)
        write_file(self.journal, text.encode())

    def settle(self, shards: Sequence[Shard]) -> tuple[Path, ...]:
        """Give the shards their final names and remove those of earlier runs; a kill in between loses no shard."""
        filled = [shard for shard in shards if shard.rows]
        final = [self.folder / f"{self.split}-{i:05d}-of-{len(filled):05d}.parquet" for i in range(len(filled))]
        names = {shard.fingerprint: path.name for shard, path in zip(filled, final, strict=True)}
        self.known = {shard.fingerprint: replace(shard, name=names.get(shard.fingerprint, "")) for shard in shards}
        self.folder.mkdir(parents=True, exist_ok=True)
        if [self._places[shard.fingerprint] for shard in filled] != final or set(self._there()) != set(final):
            self._move(filled, final)
        self._write_journal(self.known.values())
        return tuple(final)

    def _there(self) -> Iterator[Path]:
        return self.folder.glob(f"{self.split}-[0-9]*-of-*.parquet")

    def _move(self, shards: Sequence[Shard], final: Sequence[Path]) -> None:
        """All shards into the working folder, their names into the journal, only then the shards to their places."""
        waiting = [self._places[shard.fingerprint].replace(self._waiting(shard)) for shard in shards]
        self._write_journal(self.known.values())
        for stale in self._there():
            stale.unlink()
        for old, new in zip(waiting, final, strict=True):
            old.replace(new)
        for stale in self.work.glob(f"{self.split}-*.parquet"):
            stale.unlink()
        sync(self.folder)


@contextmanager
def open_shards(out: Path, config: str, split: str, key: str) -> Iterator[ShardFolder]:
    """The shards of a split, held for this process; InputError where another process packs them."""
    import fcntl

    work = out / WORK / config
    try:
        work.mkdir(parents=True, exist_ok=True)
        lock = (work / f"{split}.lock").open("a")
    except OSError as error:
        raise InputError(f"{out} cannot be written to ({error}): choose another folder") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{out / config} is being packed by another process: wait for it to end") from None
        for path in work.glob(f".tmp-{split}-*.parquet"):
            path.unlink()
        yield ShardFolder(out, config, split, key)
