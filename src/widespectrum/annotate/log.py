"""The answers of one rater: a file to which every answer is appended and synced before the next item shows.

The first line, written with the file in one step, holds the consent and the items in order. Each line after it is an
answer to the item at hand, or takes back the last answer that stands, so that the answers always belong to the first
items. A last line without its end was cut off by a crash: it never counted and is dropped.
"""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from widespectrum import store
from widespectrum.errors import RunFolderError
from widespectrum.runs import held

from .items import Choice, Item

__all__ = ["Given", "RaterLog", "folder_of", "read_log", "read_logs", "serving", "start_log"]


@dataclass(frozen=True, slots=True)
class Given:
    """An answer that stands, and when it was given (UTC, to the second)."""

    choice: Choice
    time: str


@dataclass(slots=True)
class RaterLog:
    """What one rater has to do and has done.

    `n` counts the lines after the first, `did` is what the last of them says (a choice, or undo) and `last` its time;
    `torn` says that a line after it was cut off.
    """

    path: Path
    items: tuple[Item, ...]
    text: str
    given: list[Given] = field(default_factory=list)
    n: int = 0
    torn: bool = False
    did: str = ""
    last: str = ""

    @property
    def code(self) -> str:
        """The rater's code, which names the file."""
        return self.path.stem

    @property
    def is_finished(self) -> bool:
        """Whether every item has an answer."""
        return len(self.given) == len(self.items)

    def is_fresh(self, span: datetime.timedelta) -> bool:
        """Whether the last line is younger than `span`."""
        return datetime.datetime.now(datetime.UTC) - datetime.datetime.fromisoformat(self.last) < span

    def answered(self) -> Iterator[tuple[Item, Given]]:
        """The items that have an answer, with it."""
        return zip(self.items, self.given, strict=False)

    def checks(self) -> tuple[int, int]:
        """How many attention checks were passed, and how many were answered."""
        results = [item.passed(given.choice) for item, given in self.answered() if item.kind != "pair"]
        return sum(results), len(results)

    def answer(self, choice: Choice) -> None:
        """Store the answer to the item at hand; it is on the disk when this returns."""
        self._append({"event": "answer", "item": len(self.given), "choice": choice})

    def undo(self) -> None:
        """Take back the last answer that stands; nothing is erased."""
        self._append({"event": "undo", "item": len(self.given) - 1})

    def _append(self, event: dict[str, Any]) -> None:
        line = {"n": self.n + 1, **event, "time": _now()}
        _require_next(self, line)
        text = (json.dumps(line) + "\n").encode()
        # Without O_CREAT: a log that was deleted for a rater who withdraws must not come back.
        handle = os.open(self.path, os.O_RDWR | os.O_APPEND)
        try:
            _end_at_a_line(handle)
            size = os.fstat(handle).st_size
            try:
                _write(handle, text)
                os.fsync(handle)
            except OSError:
                os.ftruncate(handle, size)
                raise
        finally:
            os.close(handle)
        _apply(self, line)


def folder_of(run: Path) -> Path:
    """Where a run keeps what raters do."""
    return run / "annotations"


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _write(handle: int, content: bytes) -> None:
    while content:
        content = content[os.write(handle, content) :]


def _end_at_a_line(handle: int) -> None:
    """Cut off what a crash left after the last whole line."""
    size = os.fstat(handle).st_size
    if size and os.pread(handle, 1, size - 1) != b"\n":
        os.ftruncate(handle, os.pread(handle, size, 0).rfind(b"\n") + 1)


def start_log(run: Path, code: str, items: Sequence[Item], text: str) -> RaterLog:
    """Begin the log of a rater who has consented; `text` is the version of what was shown."""
    path = folder_of(run) / f"{code}.jsonl"
    rows = [[item.kind, *item.key, item.order] for item in items]
    first: dict[str, Any] = {"event": "start", "code": code, "consent": True, "text": text, "time": _now()}
    first["items"] = rows
    store.write_file(path, (json.dumps(first) + "\n").encode())
    return RaterLog(path, tuple(items), text, last=first["time"])


def _require_time(text: str) -> str:
    if datetime.datetime.fromisoformat(text).tzinfo is None:
        raise ValueError(f"expected a time in UTC, got {text!r}")
    return text


def _require_next(log: RaterLog, line: dict[str, Any]) -> None:
    """ValueError where `line` cannot come after the lines so far."""
    if line["n"] != log.n + 1:
        raise ValueError(f"expected n {log.n + 1}, got {line['n']}")
    done = len(log.given)
    places = {"answer": range(done, min(done + 1, len(log.items))), "undo": range(max(done - 1, 0), done)}
    if line["item"] not in places.get(line["event"], ()):
        raise ValueError(f"{line['event']!r} of item {line['item']} does not follow from the lines before")
    _require_time(line["time"])
    if line["event"] == "answer" and line["choice"] not in get_args(Choice):
        raise ValueError(f"expected the choice first, second or tie, got {line['choice']!r}")


def _apply(log: RaterLog, line: dict[str, Any]) -> None:
    if line["event"] == "answer":
        log.given.append(Given(line["choice"], line["time"]))
    else:
        log.given.pop()
    log.n, log.did, log.last = log.n + 1, line.get("choice", "undo"), line["time"]


def read_log(path: Path) -> RaterLog:
    """The state that a log holds. RunFolderError where it is damaged, other than by a last line that was cut off."""
    *whole, rest = path.read_bytes().split(b"\n")
    number = 1
    try:
        first = json.loads(whole[0])
        if first["event"] != "start" or first["code"] != path.stem:
            raise ValueError(f"expected the start of {path.stem}, got {first['event']!r} of {first['code']!r}")
        log = RaterLog(path, tuple(Item(*row) for row in first["items"]), first["text"])
        log.torn, log.last = bool(rest), _require_time(first["time"])
        for text in whole[1:]:
            number += 1
            _require_next(log, line := json.loads(text))
            _apply(log, line)
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise RunFolderError(
            f"{path}, line {number}: expected what this program writes, got something else ({error}): put back the "
            "file as it was, or move it away, which takes the rater's answers out"
        ) from error
    return log


def read_logs(run: Path) -> dict[str, RaterLog]:
    """The logs of all raters by code, in the order of the codes."""
    return {path.stem: read_log(path) for path in sorted(folder_of(run).glob("*.jsonl"))}


@contextmanager
def serving(run: Path) -> Iterator[None]:
    """Be the one server of a run's raters; RunFolderError where another process is.

    The other stages may work on the run meanwhile, and the answers so far can be exported.
    """
    folder = folder_of(run)
    folder.mkdir(exist_ok=True)
    with held(folder / ".lock", f"{run} is served to raters", "use that one, or stop it"):
        store.clean(folder)
        yield
