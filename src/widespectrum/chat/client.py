"""The client: questions in, replies out; when to ask again, and when to give up."""

from __future__ import annotations

import datetime
import functools
import itertools
import json
import random
import threading
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from widespectrum.budget import Budget
from widespectrum.errors import BudgetSpentError, InputError, MissingExtraError, ModelError
from widespectrum.protocols import Spent, Tokens

from .endpoint import Endpoint
from .journal import Journal
from .pictures import Shown, prepare
from .questions import Question, Request, compose
from .replies import BadReplyError, Outcome, Reply, failure, parse, read_body, validator, writable
from .spending import Ledger
from .tokens import REPLY_TOKENS, Pricing, estimate
from .workers import StoppedError, Workers

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Chat"]

_LONGEST_PAUSE = 60.0
_FAILURES_IN_A_ROW = 3
# Encoding a JPEG holds no lock of the interpreter, and one is done in milliseconds.
_ENCODERS = 2
_PER_SPARE = 4
# Shorter ones are placeholders for servers that check none, and are found in ordinary words.
_SHORTEST_KEY = 8
_WHAT_TO_DO = {
    401: "set OPENAI_API_KEY to a key that is valid there",
    403: "ask for access, or choose another model",
    404: "check the name of the model and the base URL, which usually ends in /v1",
}


def _pause(seconds: float, stop: threading.Event) -> bool:
    """Wait; True where `stop` was set meanwhile."""
    return stop.wait(seconds)


def _backoff(failures: int) -> float:
    """Seconds to wait after so many failures, with jitter, so that several workers do not come back at once."""
    return min(_LONGEST_PAUSE, 2.0 ** (failures - 1)) * random.uniform(0.5, 1)


def _without(secret: str | None, value: Any) -> Any:
    """`value` (JSON) with the API key taken out of its texts."""
    if secret is None or len(secret) < _SHORTEST_KEY:
        return value
    if isinstance(value, str):
        return value.replace(secret, "[OPENAI_API_KEY]")
    if isinstance(value, Mapping):
        return {name: _without(secret, each) for name, each in value.items()}
    return [_without(secret, each) for each in value] if isinstance(value, list) else value


Job = tuple[str, "Future[tuple[Request, Reply | None]]"]
"""The key of a question, and its request (or the reply that is known) once its images are encoded."""


class Chat:
    """A model that is asked questions; close it, or use it in a `with`.

    The schema of a question goes into `response_format` (`json_schema`, strict: every property required, no others).
    A server that refuses that (400 or 422) is asked once more without it, with the schema in the system text; once it
    accepts that, questions with this schema are sent so. Either way a reply is checked against the schema.

    408, 409, 429, 5xx, lost connections, timeouts and replies that do not fit are tried again, `attempts` times in
    all, after a growing pause or the one that the server asks for. `temperature` None leaves it to the server, `seed`
    is passed on, `timeout` is in seconds, `concurrency` is the number of requests at a time, images are made smaller
    until no side is longer than `max_side` pixels. Without a `journal` replies are kept in memory only.

    `budget` is asked before every request, retries included, with what it is likely to cost at `pricing`; a reply's
    own figures (`usage`, with OpenRouter's `cost`) replace that. What the journal knows costs nothing.

    Raises InputError for an option that cannot be, a missing API key and a journal that cannot be used;
    MissingExtraError without the packages of the extra "judges".
    """

    def __init__(
        self,
        endpoint: Endpoint,
        journal: Path | None,
        *,
        temperature: float | None = 0.1,
        attempts: int = 4,
        timeout: float = 120,
        concurrency: int = 4,
        seed: int | None = None,
        max_side: int = 1024,
        budget: Budget | None = None,
        pricing: Pricing | None = None,
    ) -> None:
        for name, value in (("attempts", attempts), ("concurrency", concurrency), ("max_side", max_side)):
            if value < 1:
                raise InputError(f"{name} is {value}, expected 1 or more")
        if not timeout > 0:
            raise InputError(f"timeout is {timeout}, expected seconds above 0")
        try:
            import jsonschema  # noqa: F401
            import openai
        except ImportError as error:
            raise MissingExtraError(
                f'asking a model needs {error.name}, which is not installed: pip install "widespectrum[judges]"'
            ) from error
        self.endpoint = endpoint
        self.attempts, self.concurrency, self.max_side = attempts, concurrency, max_side
        self._options = {"model": endpoint.model, "temperature": temperature, "seed": seed}
        self._api_key = endpoint.api_key()
        self._in_words: set[str] = set()
        self._running: set[Workers[Job, Reply]] = set()
        self._slots = threading.BoundedSemaphore(concurrency)
        self._ledger = Ledger(budget, pricing)
        self._journal = Journal(None if journal is None else Path(journal))
        self._client = openai.OpenAI(
            base_url=endpoint.base_url, api_key=self._api_key or "none", timeout=timeout, max_retries=0
        )

    def __enter__(self) -> Chat:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop what is running, as at the end of `ask_all`, and close the connections and the journal."""
        try:
            for workers in list(self._running):
                workers.stop()
        finally:
            self._client.close()
            self._journal.close()

    def spent(self) -> Spent:
        """The requests that were sent since this was opened, retries included, and what they took; thread-safe."""
        return self._ledger.spent()

    def ask(
        self,
        key: str,
        messages: Sequence[Mapping[str, Any]],
        schema: Mapping[str, Any],
        images: Sequence[Image | bytes | Shown] = (),
        captions: Sequence[str] = (),
    ) -> dict[str, Any]:
        """The reply to one question, from the journal where it was answered already.

        Raises BadReplyError where no reply fits the schema or the server will not answer this question; ModelError
        where it does not answer or refuses the request; InputError where the key, the model or the base URL is wrong;
        BudgetSpentError where it does not fit into the budget.
        """
        request, known = self._prepare(Question(key, messages, schema, images, captions))
        return (self._answer(request, threading.Event()) if known is None else known).value

    def raw_reply(self, question: Question) -> str | None:
        """The text that was taken as the reply to a question, as it came; None where there is none yet."""
        request = self._request(question)
        return self._journal.answer(request.key, request.digest)

    def ask_all(self, questions: Iterable[Question]) -> Iterator[tuple[str, dict[str, Any] | BadReplyError]]:
        """As `stream`, for those who need every question answered: values of replies, and why there is none.

        A ModelError is raised at the end, or as soon as several questions in a row failed.
        """
        failures: list[ModelError] = []
        asked = 0
        with closing(self.stream(questions)) as answers:
            for key, outcome in answers:
                asked += 1
                if isinstance(outcome, Reply):
                    yield key, outcome.value
                elif isinstance(outcome, BadReplyError):
                    yield key, outcome
                else:
                    failures.append(outcome)
        if failures:
            raise _no_answers(failures, asked)

    def stream(self, questions: Iterable[Question]) -> Generator[tuple[str, Reply | BadReplyError | ModelError]]:
        """Ask several questions at a time, and give each key and its reply (or why there is none) as they come.

        Questions are taken from the iterable as they are needed. One that the server does not answer does not hold up
        the others, and ends as a ModelError; where several in a row do, a ModelError is raised. BudgetSpentError is
        raised once what is on its way has come, InputError at once. When the caller stops (Ctrl-C, an error, `break`),
        replies on their way are waited for up to ten seconds, so that they are kept.
        """
        # While some compose, read and write down, as many requests as are allowed are on their way.
        workers: Workers[Job, Reply] = Workers(self._work, self.concurrency + self.concurrency // _PER_SPARE)
        self._running.add(workers)
        encoders = ThreadPoolExecutor(_ENCODERS, "chat images")
        failures: list[ModelError] = []
        asked = in_a_row = 0
        try:
            for key, outcome in self._exchange(questions, workers, encoders):
                asked += 1
                yield key, outcome
                if isinstance(outcome, Reply | BadReplyError):
                    in_a_row = 0
                    continue
                failures.append(outcome)
                in_a_row += 1
                if in_a_row >= max(_FAILURES_IN_A_ROW, self.concurrency):
                    raise _no_answers(failures, asked)
        finally:
            encoders.shutdown(wait=False, cancel_futures=True)
            workers.stop()
            self._running.discard(workers)

    def _exchange(
        self, questions: Iterable[Question], workers: Workers[Job, Reply], encoders: ThreadPoolExecutor
    ) -> Iterator[tuple[str, Reply | BadReplyError | ModelError]]:
        """Hand the questions to the workers, never many more than they work on, and take what they bring."""
        seen: set[str] = set()
        spent: list[BudgetSpentError] = []
        waiting = 0
        for each in questions:
            question = Question(*each)
            if question.checked_key() in seen:
                raise InputError(f"two questions have the key {question.key!r}: give each a key of its own")
            seen.add(question.key)
            prepared = encoders.submit(self._prepare, question) if question.is_shown else self._prepared(question)
            if not question.is_shown and (known := prepared.result()[1]) is not None:
                yield question.key, known
                continue
            workers.give((question.key, prepared))
            waiting += 1
            if waiting == 2 * self.concurrency:
                waiting -= 1
                yield from _taken(workers, spent)
                if spent:
                    break
        for _ in range(waiting):
            yield from _taken(workers, spent)
        if spent:
            raise spent[0]

    def _request(self, question: Question) -> Request:
        return Request.of(question, {**self._options, "base_url": self.endpoint.base_url}, self.max_side)

    def _prepare(self, question: Question) -> tuple[Request, Reply | None]:
        """The request of a question, and its reply where the journal has it. Images are encoded where it has not."""
        request = self._request(question)
        validator(request.schema)
        raw = self._journal.answer(request.key, request.digest)
        known = None if raw is None else parse(raw, request.schema)[0]
        if raw is not None and known is not None:
            return request, Reply(known, raw)
        places = zip(question.images, question.places(), strict=True)
        return request._replace(pictures=tuple(prepare(image, self.max_side, place) for image, place in places)), None

    def _prepared(self, question: Question) -> Future[tuple[Request, Reply | None]]:
        """The same, done by the caller: images that are not `Shown` need not stay as they are."""
        future: Future[tuple[Request, Reply | None]] = Future()
        future.set_result(self._prepare(question))
        return future

    def _work(self, job: Job, stop: threading.Event) -> Reply:
        """What the workers do."""
        request, known = job[1].result()
        return self._answer(request, stop) if known is None else known

    def _answer(self, request: Request, stop: threading.Event) -> Reply:
        """Ask until a reply fits, or raise."""
        in_words = request.schema in self._in_words
        failures = 0
        for attempt in itertools.count(1):
            outcome = self._attempt(request, attempt, in_words, stop)
            if outcome.value is not None:
                return Reply(outcome.value, outcome.raw or "")
            if not in_words and outcome.code in (400, 422) and not outcome.concerns_the_question:
                in_words = True
                continue
            failures += 1
            if failures == self.attempts or not outcome.is_worth_a_retry:
                break
            if _pause(_backoff(failures) if outcome.wait is None else outcome.wait, stop):
                raise StoppedError
        raise self._error(request, outcome, failures)

    def _attempt(self, request: Request, attempt: int, in_words: bool, stop: threading.Event) -> Outcome:
        """Send a request once, as soon as one more may be on its way; pay for it and write it down."""
        options: dict[str, Any] = {name: value for name, value in self._options.items() if value is not None}
        if not in_words:
            shape = {"name": "reply", "strict": True, "schema": json.loads(request.schema)}
            options["response_format"] = {"type": "json_schema", "json_schema": shape}
        messages = compose(request, [picture.part for picture in request.pictures], in_words=in_words)
        with self._slots:
            if stop.is_set():
                raise StoppedError
            reserved = self._ledger.reserve(functools.partial(_size, request))
            outcome = self._send(messages, options, request.schema)
            cost = self._ledger.settle(reserved, outcome)
        if in_words and outcome.status != "error":
            self._in_words.add(request.schema)
        shown = compose(request, [picture.record for picture in request.pictures], in_words=in_words)
        self._record(request, {**options, "messages": shown}, outcome, {"attempt": attempt, "cost": cost})
        return outcome

    def _send(self, messages: Any, options: Mapping[str, Any], schema: str) -> Outcome:
        # In `extra_body`, because the SDK walks through all else, and a third of the work of a request goes there.
        body = {**options, "messages": messages}
        try:
            response = self._client.chat.completions.with_raw_response.create(
                model=self.endpoint.model, messages=(), extra_body=body
            )
            text = response.http_response.text
        # The SDK wraps most of what goes wrong on the way, and not all of it.
        except Exception as error:
            return failure(error, functools.partial(_without, self._api_key))
        return read_body(_without(self._api_key, text), schema)

    def _record(self, request: Request, sent: Mapping[str, Any], outcome: Outcome, facts: Mapping[str, Any]) -> None:
        entry = {
            "key": request.key,
            "digest": request.digest,
            "attempt": facts["attempt"],
            "status": outcome.status,
            "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "request": {"base_url": self.endpoint.base_url, **sent, "max_side": request.max_side},
            "reply": outcome.raw,
            "error": outcome.error,
            **{name: outcome.facts.get(name) for name in ("id", "model", "finish_reason", "usage")},
            "cost": facts["cost"],
        }
        self._journal.append(_without(self._api_key, entry))

    def _error(self, request: Request, outcome: Outcome, failures: int) -> InputError | ModelError:
        """What to raise after the last outcome."""
        what, times = f"the question {request.key!r}", f"{failures} attempt{'s' * (failures > 1)}"
        if outcome.status == "bad" or outcome.concerns_the_question:
            ended = "but declined to answer" if outcome.refused else "that fits the schema"
            return BadReplyError(
                f"{self.endpoint} gave no reply to {what} {ended}, after {times} ({outcome.error}): "
                "ask again, or leave the question out",
                key=request.key,
                raw=writable(outcome.raw or ""),
                refused=outcome.refused,
            )
        if outcome.code in _WHAT_TO_DO:
            return InputError(f"{self.endpoint} refused {what} ({outcome.error}): {_WHAT_TO_DO[outcome.code]}")
        if outcome.is_worth_a_retry:
            advice = "make sure that it is running, and run again"
        elif outcome.wait is not None:
            advice = f"run again in {outcome.wait:,.0f} seconds"
        elif outcome.code == 429:
            advice = "run again when there is quota left"
        else:
            advice = "change the question or an option of the request"
        return ModelError(f"{self.endpoint} did not answer {what}, after {times} ({outcome.error}): {advice}")


def _size(request: Request) -> Tokens:
    """What a request is likely to take."""
    texts = [request.schema, *(json.dumps(message["content"]) for message in request.messages)]
    sizes = [picture.size for picture in request.pictures]
    return Tokens(estimate(texts, sizes, request.max_side), REPLY_TOKENS)


def _taken(
    workers: Workers[Job, Reply], spent: list[BudgetSpentError]
) -> Iterator[tuple[str, Reply | BadReplyError | ModelError]]:
    """What a worker brings next: an outcome of its question, or word that the budget is spent."""
    (key, _), outcome = workers.take()
    if isinstance(outcome, Reply | ModelError):
        yield key, outcome
    elif isinstance(outcome, BudgetSpentError):
        spent.append(outcome)
    else:
        raise outcome


def _no_answers(failures: Sequence[ModelError], asked: int) -> ModelError:
    several = f"{len(failures)} of {asked} questions got no answer; the last: {failures[-1]}"
    return ModelError(several) if len(failures) > 1 else failures[0]
