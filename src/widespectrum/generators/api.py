"""What generators behind an API share: attempts, pauses, the budget, the record of every call, and keeping the key."""

from __future__ import annotations

import dataclasses
import datetime
import importlib
import math
import random
import threading
import time
import uuid
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from PIL.Image import Image

from widespectrum.budget import Budget
from widespectrum.chat.replies import writable
from widespectrum.chat.workers import StoppedError, Workers
from widespectrum.errors import BudgetSpentError, GeneratorStoppedError, InputError, MissingExtraError, ModelError
from widespectrum.protocols import Failure, Refusal
from widespectrum.types import Call, CallStatus, ModelSpec, Parameter, Prompt

from .api_gate import Gate
from .api_places import checked_url, hidden, host_of, read_key
from .api_replies import CallError, Reply

__all__ = ["ApiGenerator", "backoff"]

FIRST_PAUSE = 1.0
"""Seconds before the second attempt; every further pause is twice as long."""
LONGEST_PAUSE = 60.0
_TICK = 0.2
_SILENT_PROMPTS = 5

Answer = Image | Refusal | Failure


def backoff(failures: int) -> float:
    """Seconds to wait after so many failures, with jitter, so that several threads do not come back at once."""
    return min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(failures - 1, 64)) * random.uniform(0.5, 1)


def _checked(name: str, numbers: Mapping[str, object], timeout: object, price: object) -> None:
    for option, value in numbers.items():
        if type(value) is not int or value < 1:
            raise InputError(f"{name}: {option} is {value!r}, expected a whole number of 1 or more")
    for option, number, least in (("timeout", timeout, "above 0"), ("price", price, "0 or more")):
        if option == "price" and number is None:
            continue
        is_number = isinstance(number, int | float) and not isinstance(number, bool) and math.isfinite(number)
        if not is_number or number < 0 or (number == 0 and option == "timeout"):  # type: ignore[operator]
            raise InputError(f"{name}: {option} is {number!r}, expected a number {least}")


class ApiGenerator(ABC):
    """A generator behind an API; `generate` may be called from many threads at once.

    408, 409, 429, 5xx, lost connections, timeouts and bodies that hold no image are tried again, `attempts` times in
    all, after a growing pause or the one that the server asks for. A 429 makes all threads wait and then come back a
    few at a time; `concurrency` is the number of requests at a time, whoever calls. `timeout` in seconds is for one
    request, `price` in US dollars for one image where the list price does not hold.

    What concerns every request (a wrong key, an unknown model, no credit, a server that gives no sign of life to
    several prompts in a row) stops the generator: nothing more is sent, and every further call of `generate` raises the
    same error.

    The key comes from an environment variable and is written nowhere.
    """

    needs_images = False
    adapter = ""
    packages: tuple[str, ...] = ()

    def __init__(
        self,
        *,
        name: str,
        model: str,
        params: Mapping[str, Parameter],
        base_url: str,
        homes: Sequence[str],
        concurrency: int,
        attempts: int,
        timeout: float,
        price: float | None,
    ) -> None:
        if not isinstance(model, str) or not model.strip():
            raise InputError(f"{self.adapter}: model is {model!r}, expected the name that the vendor gave it")
        self.model, self.name = model, name or model.translate(dict.fromkeys(map(ord, ":@?"), "-"))
        self.base_url = checked_url(self.name, base_url)
        _checked(self.name, {"concurrency": concurrency, "attempts": attempts}, timeout, price)
        self.concurrency, self.attempts, self.timeout = concurrency, attempts, timeout
        elsewhere = {} if host_of(self.base_url) in homes else {"host": host_of(self.base_url)}
        self.spec = ModelSpec(
            adapter=self.adapter, name=self.name, revision="v1", params={"model": model, **params, **elsewhere}
        )
        self._price = price
        self._budget: Budget | None = None
        self._gate = Gate(concurrency)
        self._lock = threading.Lock()
        self._calls: list[Call] = []
        self._key: str | None = None
        self._client: Any = None
        self._stopped: CallError | None = None
        self._halted = threading.Event()
        self._silent = 0

    @property
    def price(self) -> float | None:
        """US dollars for an image: what was given, else the list price, else None."""
        return self._price if self._price is not None else self._list_price()

    def limit(self, budget: Budget) -> None:
        """Ask `budget` before every call. InputError where it limits the cost and the price is not known."""
        budget.check(self.price, self.name)
        self._budget = budget

    def take_calls(self) -> list[Call]:
        """The calls made since this was last asked."""
        with self._lock:
            calls, self._calls = self._calls, []
        return calls

    def halt(self) -> None:
        """Have every `generate` that is under way send nothing more; it raises StoppedError where it has no answer."""
        halted, self._halted = self._halted, threading.Event()
        halted.set()

    def open(self) -> None:
        """Make ready to send. InputError without a key, MissingExtraError without the vendor's library."""
        with self._lock:
            if self._client is not None:
                return
            try:
                for package in self.packages:
                    importlib.import_module(package)
            except ImportError as error:
                raise MissingExtraError(
                    f'{self.name} needs {error.name}, which is not installed: pip install "widespectrum[api]"'
                ) from error
            self._key = read_key(self.name, self._variable(), self.base_url)
            client, close = self._connect(self._key)
            weakref.finalize(self, close)
            self._client = client

    def generate(
        self, prompts: Sequence[Prompt], *, seeds: Sequence[int], images: Sequence[Image] | None = None
    ) -> list[Answer]:
        """One image, refusal or failure per prompt; `images` are not looked at.

        Where the budget is spent, or the generator is stopped, what was made in this call is given back, and the rest
        are failures; where nothing was made, BudgetSpentError, InputError or ModelError is raised instead.
        """
        if len(prompts) != len(seeds):
            raise InputError(f"{self.name} needs one seed per prompt; got {len(prompts)} prompts, {len(seeds)} seeds")
        self.open()
        self._raise_if_stopped()
        answers = self._work_off(list(zip(prompts, seeds, strict=True)))
        made = [Failure(str(each), "model") if isinstance(each, BudgetSpentError) else each for each in answers]
        if not any(isinstance(answer, Image | Refusal) for answer in made):
            self._raise_if_stopped()
            for each in answers:
                if isinstance(each, BudgetSpentError):
                    raise each
        return made

    @abstractmethod
    def _list_price(self) -> float | None:
        """The published price, if known."""

    @abstractmethod
    def _variable(self) -> str:
        """The environment variable of the key."""

    @abstractmethod
    def _connect(self, key: str | None) -> tuple[Any, Callable[[], None]]:
        """The vendor's client, and what closes it."""

    @abstractmethod
    def _exchange(self, prompt: Prompt, seed: int) -> Reply:
        """Send one request and read what comes; CallError where it brings no answer. Runs in several threads."""

    def _raise_if_stopped(self) -> None:
        if self._stopped is not None:
            kind = GeneratorStoppedError if self._stopped.kind is ModelError else self._stopped.kind
            raise kind(f"{self.name}: {self._stopped.reason}")

    def _work_off(self, jobs: list[tuple[Prompt, int]]) -> list[Answer | BudgetSpentError]:
        """Answer the jobs, `concurrency` at a time; when the caller stops, those on their way have ten seconds."""
        if len(jobs) == 1:
            try:
                return [self._answer(*jobs[0], self._halted)]
            except BudgetSpentError as error:
                return [error]
        workers: Workers[int, Answer] = Workers(
            lambda number, stop: self._answer(*jobs[number], stop), min(self.concurrency, len(jobs))
        )
        answers: dict[int, Answer | BudgetSpentError] = {}
        try:
            for number in range(len(jobs)):
                workers.give(number)
            for _ in jobs:
                number, answer = workers.take()
                if isinstance(answer, BaseException) and not isinstance(answer, BudgetSpentError):
                    raise answer
                answers[number] = answer
        finally:
            workers.stop()
        return [answers[number] for number in range(len(jobs))]

    def _answer(self, prompt: Prompt, seed: int, stop: threading.Event) -> Answer:
        """Ask until there is an answer, or no further attempt is worth it. BudgetSpentError where none is allowed."""
        error = None
        for attempt in range(1, self.attempts + 1):
            # After a 429 the gate is what waits.
            if error is not None and error.code != 429:
                self._rest(backoff(attempt - 1) if error.wait is None else error.wait, stop)
            try:
                outcome = self._pass(prompt, seed, attempt, stop)
            except BudgetSpentError as spent:
                before = "" if error is None else f" (the last attempt: {error.reason})"
                raise BudgetSpentError(f"{spent}{before}") from None
            if isinstance(outcome, Reply):
                self._silent = 0
                return outcome.answer
            error = outcome
            if error.then != "retry":
                break
        self._count_silence(error)
        return self._failure(error, attempt)

    def _count_silence(self, error: CallError | None) -> None:
        """Stop after several prompts in a row to which the server gave no sign of life, whatever was tried."""
        with self._lock:
            self._silent = self._silent + 1 if error is not None and error.code is None else 0
            if self._silent >= max(_SILENT_PROMPTS, 2 * self.concurrency) and self._stopped is None and error:
                self._stopped = CallError(
                    f"no answer from {host_of(self.base_url)} to {self._silent} prompts in a row ({error.reason}): "
                    "make sure that it can be reached, and run again",
                    then="stop",
                )
                self._gate.open()

    def _failure(self, error: CallError | None, attempts: int) -> Failure:
        reason, stopped = ("", False) if error is None else (error.reason, error.then == "stop")
        cause: Literal["input", "model"] = "input" if error is not None and error.kind is InputError else "model"
        if stopped:
            return Failure(f"{self.name}: {reason}", cause)
        return Failure(f"{self.name} made no image in {attempts} attempt{'s' * (attempts > 1)} ({reason})", cause)

    def _rest(self, seconds: float, stop: threading.Event) -> None:
        """Wait, but not when the generator was stopped meanwhile."""
        end = time.monotonic() + seconds
        while (rest := end - time.monotonic()) > 0 and self._stopped is None:
            if stop.wait(min(rest, _TICK)):
                raise StoppedError

    def _pass(self, prompt: Prompt, seed: int, attempt: int, stop: threading.Event) -> Reply | CallError:
        """One attempt, through the gate and within the budget."""
        self._gate.enter(stop)
        pause: float | None = None
        try:
            if self._stopped is not None:
                return self._stopped
            outcome = self._pay(prompt, seed, attempt)
            if isinstance(outcome, CallError) and outcome.code == 429:
                pause = backoff(attempt) if outcome.wait is None else outcome.wait
            if isinstance(outcome, CallError) and outcome.then == "stop":
                self._stopped = self._stopped or outcome
                # Those who wait are told at once.
                self._gate.open()
            return outcome
        finally:
            self._gate.leave(pause)

    def _pay(self, prompt: Prompt, seed: int, attempt: int) -> Reply | CallError:
        """One attempt within the budget. BudgetSpentError where it does not fit."""
        if self._budget is None:
            return self._send(prompt, seed, attempt)
        reserved = self._budget.reserve(self.price)
        paid: float | None = None
        try:
            outcome = self._send(prompt, seed, attempt)
            paid = outcome.paid
            return outcome
        finally:
            self._budget.settle(reserved, paid)

    def _send(self, prompt: Prompt, seed: int, attempt: int) -> Reply | CallError:
        """One request, written down."""
        sent, started = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds"), time.monotonic()
        outcome: Reply | CallError = CallError("given up")
        try:
            outcome = self._without_key(self._exchange(prompt, seed))
        except CallError as error:
            # Its traceback holds what was sent and what came.
            error.__context__ = None
            outcome = self._without_key(error.with_traceback(None))
        finally:
            self._record(outcome, prompt, seed, attempt, (sent, time.monotonic() - started))
        return outcome

    def _hide(self, text: str) -> str:
        """A text that can be stored, with the key taken out: before it is shortened, so that no part of it is left."""
        return writable(hidden(text, self._key, self._variable()))

    def _without_key(self, outcome: Reply | CallError) -> Reply | CallError:
        """The outcome with the key taken out of every text, should the server have sent it back."""
        if isinstance(outcome, CallError):
            for name in ("reason", "request_id", "model"):
                setattr(outcome, name, self._hide(getattr(outcome, name)))
            return outcome
        answer = outcome.answer
        return dataclasses.replace(
            outcome,
            answer=Refusal(self._hide(answer.reason)) if isinstance(answer, Refusal) else answer,
            request_id=self._hide(outcome.request_id),
            model=self._hide(outcome.model),
        )

    def _record(
        self, outcome: Reply | CallError, prompt: Prompt, seed: int, attempt: int, timing: tuple[str, float]
    ) -> None:
        status: CallStatus = "failed"
        detail = ""
        if isinstance(outcome, CallError):
            detail = outcome.reason
        else:
            status = "refused" if isinstance(outcome.answer, Refusal) else "ok"
            detail = outcome.answer.reason if isinstance(outcome.answer, Refusal) else ""
        call = Call(
            call_id=uuid.uuid4().hex,
            prompt_id=prompt.prompt_id,
            generator="",
            seed=seed,
            attempt=attempt,
            status=status,
            code=outcome.code,
            request_id=outcome.request_id,
            model=outcome.model,
            cost=outcome.paid,
            seconds=timing[1],
            detail=detail,
            time=timing[0],
        )
        with self._lock:
            self._calls.append(call)
