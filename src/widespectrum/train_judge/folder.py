"""The folder of a training: whose it is, which checkpoints are whole, and when it is finished."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from widespectrum.errors import RunFolderError
from widespectrum.runs import held
from widespectrum.store import write_file

__all__ = [
    "ADAPTER",
    "CHECKPOINTS",
    "TEMPORARY",
    "last_checkpoint",
    "locked",
    "mark_whole",
    "open_folder",
    "record_of",
    "refuse_foreign",
    "write_json",
]

ADAPTER = "adapter_model.safetensors"
CHECKPOINTS = "checkpoints"
RECORD = "training.json"
TEMPORARY = ".tmp-"
_WHOLE = "whole"
"""A file that a checkpoint gets last: a checkpoint without it was cut short."""

_NUMBERED = re.compile(r"checkpoint-([0-9]+)")


def refuse_foreign(out: Path) -> None:
    """RunFolderError where `out` is a file, or a folder that holds something else than a training."""
    if out.exists() and not out.is_dir():
        raise RunFolderError(f"{out} is a file; a training needs a folder: choose another one with --out")
    files = {path.name for path in out.iterdir()} if out.exists() else set()
    if RECORD not in files and {name for name in files if not name.startswith(".")}:
        raise RunFolderError(f"{out} is not empty and holds no training: choose another folder with --out")


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Hold the folder for this process. RunFolderError where another one has it."""
    out.mkdir(parents=True, exist_ok=True)
    with held(out / ".lock", f"{out} is in use", "wait for it to end, or stop it"):
        yield


def record_of(out: Path) -> dict[str, Any] | None:
    """What training.json says, None where there is none. RunFolderError where it is damaged."""
    path = out / RECORD
    if not path.exists():
        return None
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found["identity"], dict) or not isinstance(found["data"]["source"], str):
            raise TypeError("it holds something else")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunFolderError(f"{path} is damaged ({error}): choose another folder with --out") from None
    return found


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file in one step."""
    write_file(path, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())


def open_folder(out: Path, record: Mapping[str, Any]) -> dict[str, Any]:
    """Begin a training in `out`, or go on with the same one; the record that holds.

    RunFolderError where something was trained there with another `identity`.
    """
    cut_short = [path for path in _numbered(out) if not (path / _WHOLE).exists()]
    for path in (*cut_short, *out.glob(f"{TEMPORARY}*/")):
        shutil.rmtree(path)
    found = record_of(out)
    if found is not None and (last_checkpoint(out) or (out / ADAPTER).exists()):
        mine, theirs = record["identity"], found["identity"]
        if other := [name for name in {**theirs, **mine} if mine.get(name) != theirs.get(name)]:
            said = ", ".join(f"{name} {theirs.get(name)!r} and not {mine.get(name)!r}" for name in other)
            raise RunFolderError(f"{out} holds another training, with {said}: give the same, or another --out")
        return found
    write_json(out / RECORD, record)
    return dict(record)


def _numbered(out: Path) -> list[Path]:
    found = {path: _NUMBERED.fullmatch(path.name) for path in (out / CHECKPOINTS).glob("checkpoint-*")}
    return sorted((path for path, match in found.items() if match), key=lambda path: int(path.name.split("-")[1]))


def last_checkpoint(out: Path) -> Path | None:
    """The last whole checkpoint."""
    return next((path for path in reversed(_numbered(out)) if (path / _WHOLE).exists()), None)


def mark_whole(checkpoint: Path) -> None:
    """Say that a checkpoint is whole, once everything in it is on the disk."""
    for path in sorted(checkpoint.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    write_file(checkpoint / _WHOLE, b"")
