"""Run tables as immutable Parquet parts: append a part, read all parts, list what is still missing.

A table is the folder `<run>/<table>/` of files `part-*.parquet`. A part is written under a temporary name, synced and
renamed, so a reader sees all of it or nothing. What was wanted and is not there is the work that remains: a set
difference on the table's key.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from .errors import InputError, RunFolderError

__all__ = [
    "KEYS",
    "SCHEMAS",
    "append",
    "clean",
    "journal",
    "keys",
    "missing",
    "parts",
    "read",
    "reading",
    "replace",
    "write_file",
]

_STRING = pa.string()
_IMAGE = pa.struct([("bytes", pa.binary()), ("path", _STRING)])
_FEATURES = {
    _STRING: {"dtype": "string", "_type": "Value"},
    pa.int64(): {"dtype": "int64", "_type": "Value"},
    pa.int32(): {"dtype": "int32", "_type": "Value"},
    pa.float64(): {"dtype": "float64", "_type": "Value"},
    pa.bool_(): {"dtype": "bool", "_type": "Value"},
    pa.list_(_STRING): {"feature": {"dtype": "string", "_type": "Value"}, "_type": "List"},
    _IMAGE: {"_type": "Image"},
}


def _schema(*fields: tuple[str, pa.DataType]) -> pa.Schema:
    """An Arrow schema that `datasets` reads with the right features, images included."""
    features = {name: _FEATURES[kind] for name, kind in fields}
    return pa.schema(list(fields), metadata={"huggingface": json.dumps({"info": {"features": features}})})


SCHEMAS = {
    "prompts": _schema(
        ("prompt_id", _STRING),
        ("text", _STRING),
        ("pair_id", _STRING),
        ("role", _STRING),
        ("dimensions", pa.list_(_STRING)),
        ("effects", pa.list_(_STRING)),
        ("subset", _STRING),
        ("negative_prompt", _STRING),
    ),
    "images": _schema(
        ("image_id", _STRING),
        ("prompt_id", _STRING),
        ("generator", _STRING),
        ("seed", pa.int64()),
        ("status", _STRING),
        ("detail", _STRING),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("path", _STRING),
        ("noise_seed", pa.int64()),
        ("image", _IMAGE),
    ),
    "calls": _schema(
        ("call_id", _STRING),
        ("prompt_id", _STRING),
        ("generator", _STRING),
        ("seed", pa.int64()),
        ("attempt", pa.int64()),
        ("status", _STRING),
        ("code", pa.int64()),
        ("request_id", _STRING),
        ("model", _STRING),
        ("cost", pa.float64()),
        ("seconds", pa.float64()),
        ("detail", _STRING),
        ("time", _STRING),
    ),
    "scores": _schema(
        ("pair_id", _STRING),
        ("generator", _STRING),
        ("image_seed", pa.int64()),
        ("image_role", _STRING),
        ("prompt_role", _STRING),
        ("image_id", _STRING),
        ("prompt_id", _STRING),
        ("reward_model", _STRING),
        ("value", pa.float64()),
        ("truncated", pa.bool_()),
        ("past_window", pa.list_(_STRING)),
        ("special", pa.bool_()),
    ),
    "verdicts": _schema(
        ("prompt_id", _STRING),
        ("image_id", _STRING),
        ("rival_id", _STRING),
        ("dimension", _STRING),
        ("judge", _STRING),
        ("outcome", pa.float64()),
        ("order", _STRING),
        ("rationale", _STRING),
        ("raw", _STRING),
        ("details", _STRING),
        ("confidence", pa.float64()),
    ),
    "abstentions": _schema(
        ("prompt_id", _STRING),
        ("image_id", _STRING),
        ("rival_id", _STRING),
        ("dimension", _STRING),
        ("judge", _STRING),
        ("reason", _STRING),
        ("raw", _STRING),
    ),
    "results": _schema(
        ("metric", _STRING),
        ("model", _STRING),
        ("value", pa.float64()),
        ("ci_low", pa.float64()),
        ("ci_high", pa.float64()),
        ("level", pa.float64()),
        ("n", pa.int64()),
        ("subset", _STRING),
        ("tie_group", pa.int64()),
    ),
}
"""The columns of each table: the fields of its record, plus the encoded bytes of an image."""

KEYS = {
    "prompts": ("pair_id", "role"),
    "images": ("prompt_id", "generator", "seed"),
    "calls": ("call_id",),
    "scores": ("pair_id", "generator", "image_seed", "image_role", "prompt_role", "reward_model"),
    "verdicts": ("prompt_id", "image_id", "rival_id", "dimension", "judge", "order"),
    "abstentions": ("prompt_id", "image_id", "rival_id", "dimension", "judge"),
    "results": ("metric", "model", "subset"),
}
"""The columns in which no two rows of a table agree."""

_ROWS_PER_GROUP = 100
_DELETE_IT = "delete it and run again; its rows are made anew"


def parts(run: Path, table: str) -> list[Path]:
    """The finished parts of a table, in the order in which they were written."""
    if table not in SCHEMAS:
        raise InputError(f"unknown table {table!r}; expected one of {', '.join(SCHEMAS)}")
    return sorted((run / table).glob("part-*.parquet"))


def _sync_folder(folder: Path) -> None:
    """Make what was created or renamed in `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_file(path: Path, content: bytes) -> None:
    """Write `path` so that after a crash the old or the new content is there, never a piece."""
    if not path.parent.is_dir():
        path.parent.mkdir(parents=True, exist_ok=True)
        _sync_folder(path.parent.parent)
    temporary = path.with_name(f".tmp-{path.name}")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    _sync_folder(path.parent)


def _encode(table: str, rows: Sequence[Any] | pa.Table, payload: Sequence[Any] | None) -> bytes:
    """Parquet bytes of records (one per row) with the image structs of `payload` beside them."""
    schema = SCHEMAS[table]
    if not isinstance(rows, pa.Table):
        columns = {name: [getattr(row, name) for row in rows] for name in schema.names if name != "image"}
        if "image" in schema.names:
            columns["image"] = list(payload or ())
        rows = pa.table(columns, schema=schema)
    sink = pa.BufferOutputStream()
    stored = "NONE" if table == "images" else "zstd"
    pq.write_table(
        rows.cast(schema),
        sink,
        row_group_size=_ROWS_PER_GROUP if table == "images" else None,
        compression=stored,
        use_dictionary=table != "images",
        write_page_checksum=True,
    )
    content: bytes = sink.getvalue().to_pybytes()
    return content


def append(run: Path, table: str, rows: Sequence[Any] | pa.Table, payload: Sequence[Any] | None = None) -> Path | None:
    """Add `rows` (records, or an Arrow table) as one new part; None where there is nothing to add.

    `payload` holds one `{"bytes", "path"}` per image record, None for a refusal.
    """
    if len(rows) == 0:
        return None
    content = _encode(table, rows, payload)
    number = int(existing[-1].stem.split("-")[1]) + 1 if (existing := parts(run, table)) else 0
    path = run / table / f"part-{number:06d}-{hashlib.sha256(content).hexdigest()[:12]}.parquet"
    write_file(path, content)
    return path


def replace(run: Path, table: str, rows: Sequence[Any] | pa.Table) -> Path:
    """Write a table that is computed from others: one file, which a later computation overwrites."""
    path = run / table / f"{table}.parquet"
    write_file(path, _encode(table, rows, None))
    return path


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what Arrow raises on a damaged part into a RunFolderError that says what to do."""
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise RunFolderError(f"{path} is damaged ({str(error).splitlines()[0]}): {_DELETE_IT}") from error


def _read_part(path: Path, expected: pa.Schema, columns: Sequence[str] | None) -> pa.Table:
    with reading(path):
        part = pq.read_table(path, columns=list(columns) if columns else None, page_checksum_verification=True)
        names = part.schema.names
    if names != expected.names or part.schema.types != expected.types:
        raise RunFolderError(f"{path} has the columns {names}; expected {expected.names}: {_DELETE_IT}")
    return part


def read(run: Path, table: str, columns: Sequence[str] | None = None) -> pa.Table:
    """All rows of a table (no rows where nothing is written yet), or only some `columns`."""
    files = parts(run, table)
    schema = SCHEMAS[table] if columns is None else pa.schema([SCHEMAS[table].field(name) for name in columns])
    if (computed := run / table / f"{table}.parquet").exists():
        files.append(computed)
    found = [_read_part(path, schema, columns).cast(schema) for path in files]
    return pa.concat_tables(found or [schema.empty_table()])


def keys(run: Path, table: str) -> set[tuple[Any, ...]]:
    """The keys of the rows that are there."""
    columns = read(run, table, KEYS[table])
    return set(zip(*(column.to_pylist() for column in columns.columns), strict=True))


def missing(run: Path, table: str, wanted: Iterable[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """The wanted keys that are not there yet, in the given order, each once."""
    done = keys(run, table)
    return [key for key in dict.fromkeys(wanted) if key not in done]


def journal(run: Path, label: str) -> Path:
    """Where the requests and replies of a judge behind an endpoint are written down, beside the tables."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", label).strip("-.")[:80]
    return run / "journals" / f"{name}-{hashlib.sha256(label.encode()).hexdigest()[:8]}.jsonl"


def clean(run: Path) -> None:
    """Remove what a killed process left half-written. Call it with the run locked."""
    for pattern in (".tmp-*", "*/.tmp-*"):
        for path in run.glob(pattern):
            path.unlink(missing_ok=True)
