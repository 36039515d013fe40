"""A few threads that call one function on what they are given."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["StoppedError", "Workers"]

_GRACE = 10.0

Given = TypeVar("Given")
Result = TypeVar("Result")


class StoppedError(Exception):
    """Raised by the function where it notices that it is to stop; its item is dropped."""


class Workers(Generic[Given, Result]):
    """`count` threads that call `function(item, stop)`; `stop` is set when they are to come to an end.

    Not a ThreadPoolExecutor: the interpreter waits for its threads, so that a second Ctrl-C would not end them.
    """

    def __init__(self, function: Callable[[Given, threading.Event], Result], count: int) -> None:
        self._function = function
        self._todo: queue.SimpleQueue[Given | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[tuple[Given, Result | BaseException]] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._work, name="chat", daemon=True) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def _work(self) -> None:
        while (item := self._todo.get()) is not None and not self._stop.is_set():
            try:
                self._done.put((item, self._function(item, self._stop)))
            except StoppedError:
                return
            # Whoever takes it raises it again.
            except BaseException as error:
                self._done.put((item, error))

    def give(self, item: Given) -> None:
        """Add an item, which is not None, to what is to be done."""
        self._todo.put(item)

    def take(self) -> tuple[Given, Result | BaseException]:
        """Wait for the next item that is done: its result, or what the function raised."""
        return self._done.get()

    def stop(self) -> None:
        """Begin nothing new, and wait for what was begun, but not for longer than ten seconds."""
        self._stop.set()
        for _ in self._threads:
            self._todo.put(None)
        deadline = time.monotonic() + _GRACE
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
