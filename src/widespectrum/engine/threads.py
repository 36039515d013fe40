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
    done: dict[int, tuple[Batch, list[Answer] | Failure]] = {}
    trouble: list[BaseException] = []

    def work(job: tuple[int, Batch], stop: threading.Event) -> None:
        answers = ask(job[1])
        # Kept here until it was taken: a Ctrl-C in between must not lose what was paid.
        done[job[0]] = job[1], answers if isinstance(answers, Failure) else [encoded(answer) for answer in answers]

    def keep(number: int) -> None:
        if number in done:
            take(*done[number])
            del done[number]

    workers: Workers[tuple[int, Batch], None] = Workers(work, count)
    todo, under_way, orderly = iter(enumerate(batches)), 0, False
    try:
        while True:
            # Never more than there are threads, so that a stop finds nothing that waits.
            for job in islice(todo, 0 if trouble else count - under_way):
                workers.give(job)
                under_way += 1
            if not under_way:
                break
            (number, _), outcome = workers.take()
            under_way -= 1
            keep(number)
            if isinstance(outcome, BaseException):
                trouble.append(outcome)
        orderly = True
    finally:
        try:
            if not orderly and halt is not None:
                halt()
            workers.stop()
        finally:
            for number in sorted(done):
                keep(number)
    if trouble:
        raise trouble[0]
