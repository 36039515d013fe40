"""Spread batches over several devices: one process for each, which loads the generator for itself."""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from typing import Any, NamedTuple, TypeAlias

from PIL.Image import Image

from widespectrum.errors import InputError, ModelError, WideSpectrumError
from widespectrum.protocols import Failure, Generator, NeuralGenerator
from widespectrum.types import Prompt

from .answers import Batch, Take, ask, encoded

__all__ = ["Plan", "Spread", "draw"]

Keys: TypeAlias = dict[str, tuple[int, ...]]
"""prompt_id → batch key."""
Plan: TypeAlias = Callable[[Keys], list[Batch]]

_AHEAD = 2
"""Batches that a worker has at a time, so that it never waits for the next one."""
_GRACE = 10.0


class Spread(NamedTuple):
    """`load(device=...)` makes the generator; it travels to the processes, so it must pickle."""

    load: Callable[..., Generator]
    devices: Sequence[str]


class _Message(NamedTuple):
    """What a worker sends. `kind`: ready, unusable, keys, made, trouble; the parent adds `ended`."""

    kind: str
    content: Any = None
    peak: int = 0


def _cause(error: WideSpectrumError) -> Failure:
    return Failure(str(error), "input" if isinstance(error, InputError) else "model")


def _error(failure: Failure) -> WideSpectrumError:
    return (InputError if failure.cause == "input" else ModelError)(failure.reason)


def _read_orders(connection: Connection, orders: queue.SimpleQueue[Any]) -> None:
    """Take orders off the connection as they come; the process ends as soon as its parent does."""
    try:
        while (order := connection.recv()) is not None:
            orders.put(order)
    except (EOFError, OSError):
        os._exit(1)
    orders.put(None)


def _work(connection: Connection, load: Callable[..., Any], device: str, label: str) -> None:
    """One worker: load the generator, do what is ordered, until it is told to end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    orders: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_read_orders, args=(connection, orders), daemon=True).start()
    try:
        generator: NeuralGenerator = load(device=device)
        generator.open()
    except WideSpectrumError as error:
        connection.send(_Message("unusable", _cause(error)))
        return
    connection.send(_Message("ready"))
    with ThreadPoolExecutor(max_workers=1) as sender:
        sending: Future[None] | None = None
        while (order := orders.get()) is not None:
            message = _obey(generator, label, *order)
            # One batch is encoded and sent while the next is drawn, and no more wait.
            if sending is not None:
                sending.result()
            sending = sender.submit(_send, connection, message)


def _obey(generator: NeuralGenerator, label: str, content: Any, images: Sequence[Image] | None) -> _Message:
    try:
        if isinstance(content[0], Prompt):
            return _Message("keys", {prompt.prompt_id: generator.batch_key(prompt) for prompt in content})
        answers = ask(generator, label, content, images)
    except WideSpectrumError as error:
        return _Message("trouble", _cause(error))
    return _Message("made", answers, generator.peak_memory())


def _send(connection: Connection, message: _Message) -> None:
    if isinstance(message.content, list):
        message = message._replace(content=[encoded(answer) for answer in message.content])
    connection.send(message)


class _Worker:
    """A process, seen from its parent."""

    def __init__(self, spread: Spread, device: str, label: str, inbox: queue.SimpleQueue[Any]) -> None:
        self.device = device
        self.given: deque[Batch] = deque()
        self.ready = False
        self._inbox = inbox
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs, spread.load, device, label), daemon=True)
        self._process.start()
        theirs.close()
        # In a thread, so that Ctrl-C never finds a message half read.
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        message = _Message("")
        while message.kind != "ended":
            try:
                message = self._connection.recv()
            except (EOFError, OSError):
                message = _Message("ended")
            self._inbox.put((self, message))

    def give(self, content: Any, images: Sequence[Image] | None = None) -> None:
        """Order keys of prompts, or a batch. Of a process that has ended the reader tells."""
        with suppress(OSError):
            self._connection.send(content and (content, images))

    def end(self, grace: float) -> None:
        """End the process, at once or when it is done with what it has begun."""
        if grace:
            self.give(None)
            self._process.join(grace)
        self._process.terminate()
        self._process.join(_GRACE)
        self._process.kill()
        self._process.join()
        self._reader.join(_GRACE)
        self._connection.close()
        self._process.close()

    def death(self) -> str:
        """How the process ended."""
        self._process.join(_GRACE)
        code = self._process.exitcode
        if code is not None and code < 0:
            how = f"killed by {signal.Signals(-code).name}: the memory of the machine may not suffice"
        else:
            how = f"exit code {code}: its last words stand above"
        return f"the process on {self.device} ended ({how})"


class _Pool:
    """Hands batches to the workers and takes what they bring."""

    def __init__(self, plan: Plan, images_of: Callable[[Batch], Sequence[Image] | None], take: Take) -> None:
        self._plan, self._images_of, self._take = plan, images_of, take
        self.inbox: queue.SimpleQueue[tuple[_Worker, _Message]] = queue.SimpleQueue()
        self.workers: list[_Worker] = []
        self.failures: list[Failure] = []
        self._todo: deque[Batch] | None = None
        self._counting: _Worker | None = None
        self._opened = False
        self.peak = 0

    def work(self, prompts: Sequence[Prompt]) -> None:
        """Until everything is made or no worker is left; without `prompts`, batches are cut without keys."""
        if not prompts:
            self._todo = deque(self._plan({}))
        while self.workers and (self._todo is None or self._todo or any(worker.given for worker in self.workers)):
            self.receive(*self.inbox.get())
            for worker in self.workers:
                self._provide(worker, prompts)

    def _provide(self, worker: _Worker, prompts: Sequence[Prompt]) -> None:
        """Keep a worker busy."""
        if self._todo is None and self._counting is None and worker.ready:
            self._counting = worker
            worker.give(list(prompts))
        while self._todo and worker.ready and len(worker.given) < _AHEAD:
            batch = self._todo.popleft()
            worker.given.append(batch)
            worker.give(list(batch), self._images_of(batch))

    def receive(self, worker: _Worker, message: _Message) -> None:
        """Take one message; raises what is the fault of no single batch."""
        if message.kind == "ready":
            worker.ready = self._opened = True
        elif message.kind == "keys":
            self._todo = deque(self._plan(message.content))
        elif message.kind == "made":
            self.peak = max(self.peak, message.peak)
            self._take(worker.given.popleft(), message.content)
        elif message.kind == "unusable":
            failure: Failure = message.content
            self.failures.append(Failure(f"on {worker.device}: {failure.reason}", failure.cause))
            self._dismiss(worker)
        elif message.kind == "trouble":
            raise _error(message.content)
        elif worker in self.workers:
            self._bury(worker)

    def _bury(self, worker: _Worker) -> None:
        """Give back what a dead worker had."""
        reason = worker.death()
        for batch in worker.given:
            self._take(batch, Failure(reason, "model"))
        if not worker.given:
            self.failures.append(Failure(reason, "model"))
        self._dismiss(worker)

    def _dismiss(self, worker: _Worker) -> None:
        self.workers.remove(worker)
        self._counting = None if self._counting is worker else self._counting
        worker.end(0)

    def give_up(self) -> None:
        """Where no worker is left: raise why none came to work, or count what is not made as failed."""
        if self._todo is None or not self._opened:
            raise _error(self.failures[0])
        if rest := [task for batch in self._todo for task in batch]:
            self._take(rest, Failure("no process is left", "model"))

    def drain(self) -> None:
        """Take what is there already, whatever else went wrong."""
        while not self.inbox.empty():
            worker, message = self.inbox.get()
            if message.kind == "made":
                self.receive(worker, message)


@contextmanager
def _without_ctrl_c() -> Iterator[None]:
    """Keep Ctrl-C away from processes that are started here; it reaches this one at the end."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # The tracker would start with the first process, and let Ctrl-C through again.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def draw(
    plan: Plan,
    spread: Spread,
    take: Take,
    *,
    label: str,
    prompts: Sequence[Prompt],
    images_of: Callable[[Batch], Sequence[Image] | None],
) -> tuple[int, list[Failure]]:
    """Work off the batches that `plan` cuts, by the keys of `prompts` where there are any.

    Bytes that a worker had in use at most, and what failed beside batches. A worker that dies gives back its batches
    as failures, and the others go on.
    """
    pool = _Pool(plan, images_of, take)
    orderly = False
    try:
        with _without_ctrl_c():
            for device in spread.devices:
                pool.workers.append(_Worker(spread, device, label, pool.inbox))
        pool.work(prompts)
        orderly = True
        if not pool.workers:
            pool.give_up()
    finally:
        try:
            if not orderly:
                pool.drain()
        finally:
            for worker in pool.workers:
                worker.end(_GRACE if orderly else 0)
    return pool.peak, pool.failures
