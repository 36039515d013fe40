"""Run batches one after another in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from tqdm import tqdm

from widespectrum.errors import ModelError

__all__ = ["run"]

T = TypeVar("T")


def run(work: Callable[[Sequence[T]], None], items: Sequence[T], *, batch_size: int, description: str) -> list[str]:
    """Call `work` on batches of `items`; the reasons of the batches that failed with ModelError.

    `work` stores what it made before it returns, so that stopping loses at most the batch in flight. A failed batch
    is left for the next run. The progress bar appears after two seconds.
    """
    failures = []
    with tqdm(total=len(items), desc=description, delay=2, leave=False, dynamic_ncols=True) as progress:
        for start in range(0, len(items), batch_size):
            batch = items[start : start + batch_size]
            try:
                work(batch)
            except ModelError as error:
                failures.append(f"{len(batch)} of {len(items)} not made: {error}")
            progress.update(len(batch))
    return failures
