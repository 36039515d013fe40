"""The journal: one JSON line per request, and what was answered already."""

from __future__ import annotations

import errno
import json
import os
import threading
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
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


@dataclass
class _Line:
    """A line on its way to the disk."""

    content: bytes
    entry: Mapping[str, Any]
    is_done: bool = False
    error: OSError | None = None


class Journal:
    """An append-only file of JSON lines, locked while it is open. Each line is on the disk when `append` returns.

    A last line that a crash cut off is dropped. Without a path, answers are kept in memory only. Raises InputError
    where the file cannot be written, is no journal or is in use.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._answers: dict[tuple[str, str], str] = {}
        self._waiting: list[_Line] = []
        self._is_writing = False
        self._changed = threading.Condition()
        self._file: int | None = None
        if path is not None:
            self._open(path)

    def _open(self, path: Path) -> None:
        import fcntl

        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise InputError(f"the journal {path} cannot be opened ({error.strerror}): choose another file") from None
        self._release = weakref.finalize(self, os.close, file)
        self._release.atexit = False
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._release()
            raise InputError(f"the journal {path} is in use: wait for the other process, or stop it") from None
        try:
            self._answers, self._end = _read(path)
        except InputError:
            self._release()
            raise
        os.ftruncate(file, self._end)
        self._file = file

    def answer(self, key: str, digest: str) -> str | None:
        """The raw reply to a question that was answered well, or None."""
        return self._answers.get((key, digest))

    def append(self, entry: Mapping[str, Any]) -> None:
        """Add a line; `entry` begins with `key`. Nothing happens after `close`: the request was given up.

        Lines that come while others are written wait for them, and then go to the disk together.
        """
        if self.path is None:
            self._keep(entry)
            return
        line = _Line(json.dumps(entry).encode() + b"\n", entry)
        with self._changed:
            if self._file is None:
                return
            self._waiting.append(line)
            self._changed.wait_for(lambda: line.is_done or not self._is_writing)
            if not line.is_done:
                self._write_what_waits()
        if line.error is not None:
            raise InputError(
                f"the journal {self.path} cannot be written ({line.error.strerror}): make room and run again"
            ) from None

    def _write_what_waits(self) -> None:
        """Write and sync all lines that wait, with the lock given back meanwhile."""
        lines, self._waiting, self._is_writing = self._waiting, [], True
        error: OSError | None = OSError(errno.EINTR, "interrupted")
        self._changed.release()
        try:
            error = self._write(b"".join(line.content for line in lines))
        finally:
            self._changed.acquire()
            self._is_writing = False
            for line in lines:
                line.is_done, line.error = True, error
                if error is None:
                    self._keep(line.entry)
            self._changed.notify_all()

    def _write(self, content: bytes) -> OSError | None:
        """Put it on the disk whole, or not at all."""
        assert self._file is not None
        try:
            written = 0
            while written < len(content):
                written += os.write(self._file, content[written:])
            os.fsync(self._file)
        except BaseException as error:
            os.ftruncate(self._file, self._end)
            if isinstance(error, OSError):
                return error
            raise
        self._end += len(content)
        return None

    def _keep(self, entry: Mapping[str, Any]) -> None:
        if entry["status"] == "ok":
            self._answers[entry["key"], entry["digest"]] = entry["reply"]

    def close(self) -> None:
        """Write what waits, close the file and release its lock."""
        with self._changed:
            while self._is_writing or self._waiting:
                if self._is_writing:
                    self._changed.wait()
                else:
                    self._write_what_waits()
            if self._file is not None:
                self._file = None
                self._release()
