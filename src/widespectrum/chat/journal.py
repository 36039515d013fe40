"""The journal: one JSON line per request, and what was answered already."""

from __future__ import annotations

import json
import os
import threading
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from widespectrum.errors import InputError

__all__ = ["Journal"]

_LINE_START = b'{"key": '


def _read(path: Path) -> tuple[dict[tuple[str, str], str], int]:
    """The raw replies that were good, by key and digest, and where the last whole line ends."""
    answers: dict[tuple[str, str], str] = {}
    end = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            # Only what looks like the beginning of a line of ours is cut off later: this may be another file.
            if not line.endswith(b"\n") and line.startswith(_LINE_START[: len(line)]):
                break
            try:
                entry = json.loads(line)
                if entry["status"] == "ok":
                    answers[entry["key"], entry["digest"]] = entry["reply"]
            except (ValueError, LookupError, TypeError, RecursionError):
                raise InputError(
                    f"{path}, line {number} is not a line of a journal: remove it (its question is asked again), or "
                    "choose another file"
                ) from None
            end += len(line)
    return answers, end


class Journal:
    """An append-only file of JSON lines, locked while it is open. Each line is on the disk when `append` returns.

    A last line that a crash cut off is dropped. Raises InputError where the file cannot be written, is no journal or
    is in use.
    """

    def __init__(self, path: Path) -> None:
        import fcntl

        self.path = path
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise InputError(f"the journal {path} cannot be opened ({error.strerror}): choose another file") from None
        self._close = weakref.finalize(self, os.close, self._file)
        self._close.atexit = False
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._close()
            raise InputError(f"the journal {path} is in use: wait for the other process, or stop it") from None
        try:
            self._answers, self._end = _read(path)
        except InputError:
            self._close()
            raise
        os.ftruncate(self._file, self._end)

    def answer(self, key: str, digest: str) -> str | None:
        """The raw reply to a question that was answered well, or None."""
        return self._answers.get((key, digest))

    def append(self, entry: Mapping[str, Any]) -> None:
        """Add a line; `entry` begins with `key`. Nothing happens after `close`: the request was given up."""
        line = json.dumps(entry).encode() + b"\n"
        with self._lock:
            if not self._close.alive:
                return
            try:
                written = 0
                while written < len(line):
                    written += os.write(self._file, line[written:])
                os.fsync(self._file)
            except OSError as error:
                os.ftruncate(self._file, self._end)
                raise InputError(
                    f"the journal {self.path} cannot be written ({error.strerror}): make room and run again"
                ) from None
            self._end += len(line)
            if entry["status"] == "ok":
                self._answers[entry["key"], entry["digest"]] = entry["reply"]

    def close(self) -> None:
        """Close the file and release its lock."""
        with self._lock:
            self._close()
