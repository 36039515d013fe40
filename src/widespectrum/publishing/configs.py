"""The Parquet files of a dataset folder: `<config>/<split>-00000-of-00001.parquet`, as `datasets` finds them."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
import pyarrow.compute as pc
from datasets.arrow_writer import ArrowWriter

from widespectrum.errors import InputError
from widespectrum.store import reading

from .provenance import FILE_NAME, Provenance, write_provenance

__all__ = ["configs_of", "load_split", "save_config", "splits_of", "table_on_disk"]

SHARD_BYTES = 500_000_000
_SHARD = re.compile(r"(?P<split>\w+)-\d{5}-of-\d{5}\.parquet")


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the bar that `datasets` draws for every file, however small."""
    was_on = datasets.are_progress_bars_disabled() is False
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if was_on:
            datasets.enable_progress_bars()


def table_on_disk(rows: Iterable[Mapping[str, Any]], columns: datasets.Features) -> datasets.Dataset:
    """Rows as a table that takes no memory, for images: its file has no name and goes with the table.

    The file lies where TMPDIR says. Of `rows` a few are held at a time.
    """
    with tempfile.NamedTemporaryFile(suffix=".arrow") as file:
        with ArrowWriter(path=file.name, features=columns, writer_batch_size=16) as writer:
            for row in rows:
                writer.write(columns.encode_example(row))
            writer.finalize()
        return datasets.Dataset.from_file(file.name)


def _check_images(where: str, table: datasets.Dataset) -> None:
    """Refuse images that lie in files: `datasets` would write their paths into the Parquet and not their bytes."""
    for name, feature in table.features.items():
        if isinstance(feature, datasets.Image):
            content, path = (pc.struct_field(table.data[name], field) for field in ("bytes", "path"))
            if pc.any(pc.and_(pc.is_null(content), pc.is_valid(path))).as_py():
                raise InputError(f"{where}: expected the bytes of the images in the column {name!r}, got paths alone")


def _save_split(folder: Path, split: str, table: datasets.Dataset) -> list[Path]:
    """Write one split under temporary names; the paths."""
    _check_images(f"{folder.name}/{split}", table)
    size = table.data.nbytes
    count = max(1, min(table.num_rows, -(-size // SHARD_BYTES)))
    written = []
    for index in range(count):
        path = folder / f".tmp-{split}-{index:05d}-of-{count:05d}.parquet"
        shard = table.shard(num_shards=count, index=index, contiguous=True) if count > 1 else table
        with _quiet():
            shard.to_parquet(path)
        with path.open("rb") as file:
            os.fsync(file.fileno())
        written.append(path)
    return written


def save_config(
    out: Path, config: str, splits: Mapping[str, datasets.Dataset], provenance: Provenance
) -> datasets.DatasetDict:
    """Write a config with its splits and its provenance into the dataset folder `out`; the splits.

    Files of the config from an earlier build are replaced. InputError where an image is a path without bytes.
    """
    folder = out / config
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob(".tmp-*"):
        path.unlink()
    written = [path for split, table in splits.items() for path in _save_split(folder, split, table)]
    # First the terms go, then the old files, and the terms come back last: a build that is stopped in between is never
    # a mixture of two, and without its terms it is not published.
    for path in [folder / FILE_NAME, *sorted(set(folder.glob("*.parquet")) - set(written))]:
        path.unlink(missing_ok=True)
    for path in written:
        path.replace(path.with_name(path.name.removeprefix(".tmp-")))
    write_provenance(folder, provenance)
    return datasets.DatasetDict(splits)


def configs_of(out: Path) -> list[str]:
    """The configs that a dataset folder holds, by name."""
    return sorted(path.parent.name for path in out.glob(f"*/{FILE_NAME}"))


def splits_of(out: Path, config: str) -> dict[str, list[Path]]:
    """The Parquet files of each split of a config, in order; `test` comes first."""
    found: dict[str, list[Path]] = {}
    for path in sorted((out / config).glob("*.parquet")):
        if match := _SHARD.fullmatch(path.name):
            found.setdefault(match["split"], []).append(path)
    if not found:
        raise InputError(f"{out / config} holds no Parquet files: build this config again")
    return dict(sorted(found.items(), key=lambda item: (item[0] != "test", item[0])))


def load_split(out: Path, config: str, split: str = "test", columns: list[str] | None = None) -> datasets.Dataset:
    """The rows of a split as they were saved, all columns or some; not through the cache of `datasets`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    splits = splits_of(out, config)
    if split not in splits:
        raise InputError(f"{out / config} holds no split {split!r}, only {', '.join(splits)}: build this config again")
    files = splits[split]
    tables = []
    for path in files:
        with reading(path):
            tables.append(pq.read_table(path, columns=columns))
    features = datasets.Features.from_arrow_schema(pq.read_schema(files[0]))
    table = pa.concat_tables(tables)
    if columns is not None:
        features = datasets.Features({name: features[name] for name in columns})
    return datasets.Dataset(table.cast(features.arrow_schema))
