"""Ask for single images in several threads: for generators that wait on an API."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from itertools import islice

from widespectrum.chat.workers import Workers
from widespectrum.protocols import Failure

from .answers import Answer, Ask, Batch, Take, encoded

__all__ = ["draw"]


def draw(ask: Ask, batches: Iterable[Batch], take: Take, *, count: int) -> None:
    """Work off `batches` in `count` threads.

    Where `ask` raises, nothing new is begun, what is under way is waited for, and then it is raised. On Ctrl-C what is
    under way is waited for up to ten seconds. Either way `take` gets what came.
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

    todo, under_way = iter(batches), 0
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
    finally:
        try:
            workers.stop()
        finally:
            for batch, outcome in workers.rest():
                keep(batch, outcome)
    if trouble:
        raise trouble[0]
