"""Store answers in groups as they come, so that whatever ends the work, what was finished is kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TypeAlias

from tqdm import tqdm

from widespectrum.protocols import Failure, Refusal

from .answers import Answer, Batch, Encoded, Task

__all__ = ["Collector", "Store"]

Store: TypeAlias = Callable[[Sequence[tuple[Task, Encoded | Refusal]], bool], None]
"""Stores rows; where the flag is set, an earlier call was interrupted and some of them may be there already."""


class Collector:
    """Takes answers and hands them to `store`: when `group` of them wait, every so many `seconds`, and at the end.

    Use it as a context: it stores what waits whatever ends the block, Ctrl-C among it. A batch is never parted. What is
    given twice is kept once, so that who was interrupted may give it again.
    """

    def __init__(self, store: Store, *, total: int, group: int, description: str, seconds: float = 60.0) -> None:
        self._store, self._total, self._group, self._seconds = store, total, group, seconds
        self._waiting: dict[Task, Answer | Future[Answer]] = {}
        self._kept: set[Task] = set()
        self._unsure = False
        self._stored = time.monotonic()
        self._progress = tqdm(total=total, desc=description, unit=" images", delay=2, leave=False, dynamic_ncols=True)
        self.failures: list[Failure] = []
        self.made = self.refused = self.failed = 0

    def __enter__(self) -> Collector:
        return self

    def __exit__(self, *error: object) -> None:
        try:
            self._put_away()
        finally:
            self._progress.close()

    def take(self, tasks: Batch, outcome: Sequence[Answer | Future[Answer]] | Failure) -> None:
        """Keep the answers of a batch, or count it as failed."""
        if isinstance(outcome, Failure):
            self._fail(tasks, outcome)
        else:
            given = zip(tasks, outcome, strict=True)
            self._waiting.update((task, answer) for task, answer in given if task not in self._kept)
        self._progress.update(len(tasks))
        if len(self._waiting) >= self._group or time.monotonic() - self._stored >= self._seconds:
            self._put_away()

    def _fail(self, tasks: Batch, failure: Failure) -> None:
        """List a failure with what it concerns."""
        if len(tasks) == 1:
            prompt = tasks[0].prompt
            what = f"pair {prompt.pair_id} ({prompt.role}, seed {tasks[0].seed})"
        else:
            what = f"{len(tasks):,} of {self._total:,} not made"
        self.failed += len(tasks)
        self.failures.append(Failure(f"{what}: {failure.reason}", failure.cause))

    def _put_away(self) -> None:
        found = [(task, each.result() if isinstance(each, Future) else each) for task, each in self._waiting.items()]
        rows = [(task, answer) for task, answer in found if not isinstance(answer, Failure)]
        unsure, self._unsure = self._unsure, True
        self._store(rows, unsure)
        self._kept.update(self._waiting)
        self._waiting, self._unsure, self._stored = {}, False, time.monotonic()
        self.refused += sum(isinstance(answer, Refusal) for _, answer in rows)
        self.made += sum(isinstance(answer, Encoded) for _, answer in rows)
        for task, answer in found:
            if isinstance(answer, Failure):
                self._fail([task], answer)
