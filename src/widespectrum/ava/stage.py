"""Stage folders of the builder: what made them, what is in them, and whether they are finished.

`<work>/<stage>/stage.json` holds the inputs of the stage, its status and a summary. A stage that is run again with the
same inputs goes on where it stopped; with other inputs it is refused, because two halves would be mixed, unless it has
stored nothing yet.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from widespectrum.errors import InputError, RunFolderError
from widespectrum.store import write_file

__all__ = ["Stage", "file_digest", "open_stage", "read_stage"]

_FILE = "stage.json"


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage folder. `inputs`: what it was made from (JSON); `summary`: what it came to, None until it is finished."""

    folder: Path
    inputs: Mapping[str, Any]
    summary: Mapping[str, Any] | None = None

    def finish(self, summary: Mapping[str, Any]) -> Stage:
        """Record that the stage is finished; the finished stage."""
        self._save("complete", summary)
        return replace(self, summary=summary)

    def _save(self, status: str, summary: Mapping[str, Any] | None) -> None:
        content = {"inputs": self.inputs, "status": status, "summary": summary}
        write_file(self.folder / _FILE, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())

    def start(self) -> None:
        """Record that the stage was begun, or begun again."""
        self._save("started", None)

    def write(self, name: str, table: pa.Table) -> None:
        """Write `<name>.parquet`, old or new after a crash, never a piece."""
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
        write_file(self.folder / f"{name}.parquet", sink.getvalue().to_pybytes())

    def append(self, name: str, rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> None:
        """Add rows as one more part of `<name>`."""
        if rows:
            number = max((int(path.stem.rpartition("-")[2]) + 1 for path in self._parts(name)), default=0)
            self.write(f"{name}-{number:06d}", pa.Table.from_pylist(list(rows), schema=schema))

    def read(self, name: str, schema: pa.Schema) -> pa.Table:
        """`<name>.parquet`, or all parts of `<name>`; no rows where there is none."""
        single = self.folder / f"{name}.parquet"
        tables = [_read(path, schema) for path in ([single] if single.exists() else self._parts(name))]
        return pa.concat_tables([schema.empty_table(), *tables])

    def _parts(self, name: str) -> list[Path]:
        return sorted(self.folder.glob(f"{name}-[0-9]*.parquet"))


def _read(path: Path, schema: pa.Schema) -> pa.Table:
    remedy = f"delete the .parquet files of {path.parent} and run this step again"
    try:
        table = pq.read_table(path, page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        raise RunFolderError(f"{path} is damaged ({str(error).splitlines()[0]}): {remedy}") from error
    if not table.schema.equals(schema):
        raise RunFolderError(f"{path} has other columns than expected: {remedy}")
    return table


def _load(folder: Path) -> dict[str, Any]:
    path = folder / _FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if {"inputs", "status", "summary"} <= set(content):
            return dict(content)
    except (ValueError, TypeError):
        pass
    raise RunFolderError(f"{path} is damaged: delete {folder} and run this step again")


def open_stage(work: Path, name: str, inputs: Mapping[str, Any]) -> Stage:
    """The stage called `name` in the folder `work`, begun now or before with the same `inputs` (JSON).

    RunFolderError that names the first input that has changed where something was made with others.
    """
    folder, wanted = work / name, json.loads(json.dumps(inputs))
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; the step {name} needs a folder: choose another one with --work")
    if not (folder / _FILE).exists() or not _holds_something(folder):
        stage = Stage(folder, wanted)
        stage.start()
        return stage
    content = _load(folder)
    for key in sorted({*wanted, *content["inputs"]}):
        if wanted.get(key) != (old := content["inputs"].get(key)):
            raise RunFolderError(
                f"{folder} was made with another {key} ({_short(old)}, now {_short(wanted.get(key))}): delete it to "
                "make it anew, or choose another folder with --work"
            )
    return Stage(folder, wanted, content["summary"])


def _holds_something(folder: Path) -> bool:
    """Whether a table was stored; the list of photographs that could not be read depends on no input."""
    return any(path.stem != "unread" for path in folder.rglob("*.parquet"))


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def read_stage(work: Path, name: str) -> Stage | None:
    """The stage as it lies there, finished or not; None where it was never begun."""
    folder = work / name
    if not (folder / _FILE).exists():
        return None
    content = _load(folder)
    return Stage(folder, content["inputs"], content["summary"])


def file_digest(path: Path) -> str:
    """sha256 of a file; InputError where there is none."""
    if path.is_dir():
        raise InputError(f"{path.absolute()}: expected a file, got a folder; name the file inside it")
    if not path.is_file():
        raise InputError(f"{path.absolute()}: there is no such file")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
