"""Ask for single images in several threads: for generators that wait on an API."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from itertools import islice

from widespectrum.chat.workers import Workers
from widespectrum.protocols import Failure

from .answers import Answer, Ask, Batch, Take, encoded

__all__ = ["draw"]


def draw(ask: Ask, batches: Iterable[Batch], take: Take, *, count: int, halt: Callable[[], None] | None = None) -> None:
    """Work off `batches` in `count` threads.

    Where `ask` raises, nothing new is begun, what is under way is waited for, and then it is raised. On Ctrl-C what is
    under way is waited for up to ten seconds, and `halt` is called, so that it sends nothing more. Either way `take`
    gets what came.
    """

    def work(batch: Batch, stop: threading.Event) -> list[Answer] | Failure:
        answers = ask(batch)
        return answers if isinstance(answers, Failure) else [encoded(answer) for answer in answers]

    workers: Workers[Batch, list[Answer] | Failure] = Workers(work, count)
    trouble: list[BaseException] = []

    def keep(batch: Batch, outcome: list[Answer] | Failure | BaseException) -> None:
        if isinstance(outcome, BaseException):
            trouble.append(outcome)
        else:
            take(batch, outcome)

    todo, under_way, orderly = iter(batches), 0, False
    try:
        while True:
            # Never more than there are threads, so that a stop finds nothing that waits.
            for batch in islice(todo, 0 if trouble else count - under_way):
                workers.give(batch)
                under_way += 1
            if not under_way:
                break
            done = workers.take()
            under_way -= 1
            keep(*done)
        orderly = True
    finally:
        try:
            if not orderly and halt is not None:
                halt()
            workers.stop()
        finally:
            for batch, outcome in workers.rest():
                keep(batch, outcome)
    if trouble:
        raise trouble[0]
