"""Prepare the next batch in threads while the one before it is worked on."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

__all__ = ["prepared_ahead"]

T = TypeVar("T")
R = TypeVar("R")


def prepared_ahead(prepare: Callable[[T], R], batches: Iterable[Sequence[T]]) -> Iterator[tuple[Sequence[T], list[R]]]:
    """Each batch with `prepare(item)` of its items, in order; one batch is made ahead, so two are in memory.

    What `prepare` raises is raised when its batch is asked for.
    """
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1), thread_name_prefix="prepare") as pool:
        waiting: tuple[Sequence[T], list[Future[R]]] | None = None
        try:
            for batch in batches:
                started = (batch, [pool.submit(prepare, item) for item in batch])
                if waiting is not None:
                    yield waiting[0], [future.result() for future in waiting[1]]
                waiting = started
            if waiting is not None:
                yield waiting[0], [future.result() for future in waiting[1]]
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
