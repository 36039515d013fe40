"""Run batches one after another in this process."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from tqdm import tqdm

from widespectrum.errors import ModelError
from widespectrum.protocols import Failure

from .ahead import prepared_ahead
from .answers import Ask, Batch, Take, encoded

__all__ = ["draw", "run", "salvage"]

T = TypeVar("T")
R = TypeVar("R")

_IN_A_ROW = 2


def run(
    work: Callable[[Sequence[Any]], Sequence[Failure] | None],
    items: Sequence[Any],
    *,
    batch_size: int,
    description: str,
    prepare: Callable[[Any], Any] | None = None,
) -> list[Failure]:
    """Call `work` on batches of `items`; what was not made.

    `work` stores what it made before it returns, so that stopping loses at most the batch in flight; it may return
    failures of single items. A batch that raises ModelError is left for the next run. With `prepare`, `work` gets what
    that makes of every item; it runs in threads, one batch ahead. The progress bar appears after two seconds.
    """
    failures: list[Failure] = []
    with tqdm(total=len(items), desc=description, delay=2, leave=False, dynamic_ncols=True) as progress:
        for batch in _batches(items, batch_size, prepare):
            try:
                failures += work(batch) or ()
            except ModelError as error:
                failures.append(Failure(f"{len(batch)} of {len(items)} not made: {error}", "model"))
            progress.update(len(batch))
    return failures


def draw(ask: Ask, batches: Iterable[Batch], take: Take) -> None:
    """Work off `batches`, one after the other; the images of one are encoded while the next is drawn."""
    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1), thread_name_prefix="encode") as pool:
        for batch in batches:
            outcome = ask(batch)
            take(batch, outcome if isinstance(outcome, Failure) else [pool.submit(encoded, each) for each in outcome])


def salvage(
    work: Callable[[Sequence[T]], Sequence[R]], items: Sequence[T]
) -> tuple[list[tuple[T, R]], list[tuple[list[T], ModelError]]]:
    """What `work` makes of the items, one result each, and the items that it cannot do, with the reason.

    Where it raises ModelError it is asked for one item at a time; after two failures in a row the rest is given up,
    as the fault is not theirs.
    """
    if not items:
        return [], []
    try:
        return list(zip(items, work(items), strict=True)), []
    except ModelError as error:
        if len(items) == 1:
            return [], [([items[0]], error)]
    made: list[tuple[T, R]] = []
    failed: list[tuple[list[T], ModelError]] = []
    in_a_row = 0
    for number, item in enumerate(items):
        try:
            made.append((item, work([item])[0]))
            in_a_row = 0
        except ModelError as error:
            in_a_row += 1
            failed.append(([item] if in_a_row < _IN_A_ROW else list(items[number:]), error))
        if in_a_row == _IN_A_ROW:
            break
    return made, failed


def _batches(items: Sequence[Any], size: int, prepare: Callable[[Any], Any] | None) -> Iterator[Sequence[Any]]:
    batches = [items[start : start + size] for start in range(0, len(items), size)]
    if prepare is None:
        yield from batches
        return
    for _, made in prepared_ahead(prepare, batches):
        yield made
