"""What judges behind an OpenAI-compatible endpoint share: options, price, journal, and asking many at a time."""

from __future__ import annotations

import math
import re
import weakref
from abc import ABC, abstractmethod
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, TypeAlias, TypeVar

from PIL.Image import Image

from widespectrum.budget import Budget
from widespectrum.chat import BadReplyError, Chat, Endpoint, Pricing, Reply, Shown
from widespectrum.chat import Question as ChatQuestion
from widespectrum.chat.replies import writable
from widespectrum.chat.tokens import estimate
from widespectrum.errors import InputError, ModelError, WideSpectrumError
from widespectrum.protocols import Abstention, Answer, Failure, Question, Spent, Tokens
from widespectrum.types import ModelSpec, Prompt, canonical_json, digest

from .instructions import instruction

__all__ = ["Form", "VisionChatJudge"]

Mark = TypeVar("Mark")
Said: TypeAlias = Reply | Abstention | Failure
"""What came of one request, which may answer several questions."""

DECLINED = "the model, or a filter of its server, declined to answer"

_PRICES = "input_price= and output_price= in US dollars per million tokens"
_IMAGES_KEPT = 64
# 400 or 422, and the word: servers differ in the rest.
_TEMPERATURE_REFUSED = re.compile(r"\((4(?:00|22): .*\btemperature\b.*)\): ", re.DOTALL)


class Form(NamedTuple):
    """A question as it is put to the model: the text of the user, the JSON schema of the reply, and the images, each
    after its line of `captions` where there are any.
    """

    text: str
    schema: Mapping[str, Any]
    images: Sequence[Image]
    captions: Sequence[str] = ()


class VisionChatJudge(ABC):
    """A vision-language model that is asked by chat; see `widespectrum.protocols.EndpointJudge` for the methods.

    `model` is its name at the server `base_url`; the key is read from OPENAI_API_KEY. `temperature` "default" leaves it
    to the server, for models that take no other. Images are sent with no side above `max_side` pixels. `concurrency`
    requests are on their way at a time, each for `timeout` seconds at most; what goes wrong is tried again, `attempts`
    times in all. `input_price` and `output_price` are US dollars per million tokens. Requests and replies go to the
    file `journal`; what is answered there is not asked again.

    InputError for an option that cannot be.
    """

    adapter = ""
    dimensions: tuple[str, ...] = ()
    texts: ClassVar[Mapping[str, str]] = {}
    """The files of the texts that the model is sent, by the name of their digest in the spec; `instruction` leads."""
    output_tokens = 0
    """About how many a reply takes; a model that thinks before it answers takes many more."""

    def __init__(
        self,
        *,
        model: str,
        base_url: str = "https://api.openai.com/v1",
        temperature: float | Literal["default"] = 0.0,
        max_side: int = 1024,
        attempts: int = 4,
        timeout: float = 120,
        concurrency: int = 8,
        input_price: float | None = None,
        output_price: float | None = None,
        journal: Path | str | None = None,
    ) -> None:
        self._endpoint = _endpoint(self.adapter, model, base_url)
        _check_counts(self.adapter, {"max_side": max_side, "attempts": attempts, "concurrency": concurrency})
        _check_number(self.adapter, "timeout", timeout, above=True)
        if temperature != "default":
            _check_number(self.adapter, "temperature", temperature, or_else=' or "default"')
            temperature = float(temperature)
        self._pricing = _pricing(self.adapter, input_price, output_price)
        self._options: dict[str, Any] = {
            "temperature": None if temperature == "default" else temperature,
            **{"max_side": max_side, "attempts": attempts, "timeout": timeout, "concurrency": concurrency},
        }
        self._journal = None if journal is None else Path(journal).expanduser()
        self._budget: Budget | None = None
        self._chat: Chat | None = None
        self._spent = Spent(0, Tokens(0, 0), 0.0)
        self._shown: OrderedDict[int, tuple[Image, Shown]] = OrderedDict()
        self._texts = {name: instruction(file) for name, file in self.texts.items()}
        digests = {name: text.digest for name, text in self._texts.items()}
        self.spec = ModelSpec(
            adapter=self.adapter,
            name=self.adapter,
            revision=self._texts["instruction"].version,
            params={"model": model, "temperature": temperature, "max_side": max_side, **digests},
        )

    @abstractmethod
    def _form(self, question: Question) -> Form | Abstention:
        """How a question is put to the model."""

    @abstractmethod
    def _answer(self, question: Question, reply: Reply) -> Answer:
        """What a reply, which fits the schema, says to a question."""

    @abstractmethod
    def estimate(self, prompt: Prompt, dimension: str, sizes: Sequence[tuple[int, int]]) -> Tokens | None:
        """What a question about images of these (width, height) takes; None where another's request answers it."""

    def _tokens(self, text: str, schema: Mapping[str, Any], sizes: Sequence[tuple[int, int]]) -> Tokens:
        texts = [self._texts["instruction"].text, text, canonical_json(schema)]
        return Tokens(estimate(texts, sizes, self._options["max_side"]), self.output_tokens)

    def price(self, tokens: Tokens) -> float | None:
        """US dollars; None where no prices were given."""
        return None if self._pricing is None else self._pricing.cost(tokens)

    def keep(self, journal: Path) -> None:
        """Write requests and replies to this file, where the user named none."""
        if self._journal is None:
            self.close()
            self._journal = journal

    def limit(self, budget: Budget) -> None:
        """Ask `budget` before every request. InputError where it limits the cost and the prices are not known."""
        budget.check(self.price(Tokens(0, 0)), f"{self.adapter} ({self._endpoint.model})", _PRICES)
        self.close()
        self._budget = budget

    def spent(self) -> Spent:
        """What was sent since the judge was made."""
        return self._spent if self._chat is None else _sum(self._spent, self._chat.spent())

    def open(self) -> None:
        """InputError where nothing can be asked, such as for want of a key; sends nothing."""
        self._opened()

    def _opened(self) -> Chat:
        if self._chat is None:
            self._chat = Chat(
                self._endpoint, self._journal, budget=self._budget, pricing=self._pricing, **self._options
            )
            self._close_chat = weakref.finalize(self, self._chat.close)
        return self._chat

    def close(self) -> None:
        """Close the connections and the journal; what is asked next opens them again."""
        self._shown.clear()
        if self._chat is not None:
            self._close_chat()
            self._spent, self._chat = self.spent(), None

    def judge(self, questions: Sequence[Question]) -> list[Answer | Abstention | Failure]:
        """One answer, abstention or failure per question. Errors as those of `ask`."""
        found = dict(self.ask(enumerate(questions)))
        return [found[number] for number in range(len(questions))]

    def ask(self, questions: Iterable[tuple[Mark, Question]]) -> Iterator[tuple[Mark, Answer | Abstention | Failure]]:
        """Ask several questions at a time; each comes back with its mark and its answer, as they come.

        Equal questions are asked once. A refusal is an Abstention; a reply that does not fit, or none, a Failure.
        Raises BudgetSpentError once what is on its way has come, InputError, and ModelError where the server answers
        nobody.
        """
        chat = self._opened()
        waiting: dict[str, list[tuple[Mark, Question]]] = {}
        said: dict[str, Said] = {}
        ready: deque[tuple[Mark, Answer | Abstention | Failure]] = deque()
        trouble: WideSpectrumError | None = None
        with closing(chat.stream(self._wanted(questions, waiting, said, ready))) as replies:
            try:
                for key, outcome in replies:
                    said[key] = self._said(key, outcome)
                    ready.extend((mark, self._read(question, said[key])) for mark, question in waiting.pop(key))
                    while ready:
                        yield ready.popleft()
            except WideSpectrumError as error:
                trouble = error
        yield from ready
        if trouble is not None:
            raise trouble

    def _wanted(
        self,
        questions: Iterable[tuple[Mark, Question]],
        waiting: dict[str, list[tuple[Mark, Question]]],
        said: Mapping[str, Said],
        ready: deque[tuple[Mark, Answer | Abstention | Failure]],
    ) -> Iterator[ChatQuestion]:
        """What has to be asked; what waits for the same reply is noted, and what needs no request is ready."""
        for mark, question in questions:
            form = self._form(question)
            if isinstance(form, Abstention):
                ready.append((mark, form))
                continue
            try:
                asked = self._question(question.prompt, form)
            except InputError as error:
                ready.append((mark, Failure(str(error), "input")))
                continue
            if asked.key in said:
                ready.append((mark, self._read(question, said[asked.key])))
            elif asked.key in waiting:
                waiting[asked.key].append((mark, question))
            else:
                waiting[asked.key] = [(mark, question)]
                yield asked

    def _question(self, prompt: Prompt, form: Form) -> ChatQuestion:
        shown = [self._show(image) for image in form.images]
        sources = [each.source(f"an image of pair {prompt.pair_id!r}") for each in shown]
        key = f"{prompt.prompt_id} {digest([form.text, *sources])[:16]}"
        messages = [
            {"role": "system", "content": self._texts["instruction"].text},
            {"role": "user", "content": form.text},
        ]
        return ChatQuestion(key, messages, form.schema, shown, form.captions)

    def _show(self, image: Image) -> Shown:
        """The image as it is sent, encoded once for the questions about it, which stand side by side."""
        _, shown = self._shown.setdefault(id(image), (image, Shown(image, self._options["max_side"])))
        self._shown.move_to_end(id(image))
        if len(self._shown) > _IMAGES_KEPT:
            self._shown.popitem(last=False)
        return shown

    def _said(self, key: str, outcome: Reply | ModelError) -> Said:
        """A reply, or why there is none. InputError where no question would be answered with this temperature."""
        if isinstance(outcome, Reply):
            # What stands around the JSON, such as thoughts, was not looked at.
            return Reply(outcome.value, writable(outcome.raw))
        if isinstance(outcome, BadReplyError) and outcome.refused:
            return Abstention(DECLINED, outcome.raw)
        refused = _TEMPERATURE_REFUSED.search(str(outcome))
        if refused and self._options["temperature"] is not None:
            raise InputError(
                f"{self._endpoint} does not take temperature={self._options['temperature']:g} ({refused[1]}): "
                "set temperature=default, which leaves it to the server, or a value that it takes"
            )
        # Without the key equal reasons are equal texts, which are listed once.
        return Failure(str(outcome).replace(f"the question {key!r}", "a question"), "model")

    def _read(self, question: Question, said: Said) -> Answer | Abstention | Failure:
        return self._answer(question, said) if isinstance(said, Reply) else said


def _endpoint(name: str, model: object, base_url: object) -> Endpoint:
    for option, value in (("model", model), ("base_url", base_url)):
        if not isinstance(value, str):
            raise InputError(f"{name}: {option} is {value!r}, expected a text")
    try:
        return Endpoint(str(model), str(base_url))
    except InputError as error:
        # What the chat asks for is one text of both, which is not how they are given here.
        problem = re.split(r"(?:,? and|:) write it as ", str(error))[0]
        raise InputError(f"{name}: {problem}; give model= and base_url=, such as http://localhost:8000/v1") from None


def _check_counts(name: str, counts: Mapping[str, object]) -> None:
    for option, value in counts.items():
        if type(value) is not int or value < 1:
            raise InputError(f"{name}: {option} is {value!r}, expected a whole number of 1 or more")


def _check_number(name: str, option: str, value: Any, *, above: bool = False, or_else: str = "") -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not is_number or value < 0 or (above and value == 0):
        least = "above 0" if above else "of 0 or more"
        raise InputError(f"{name}: {option} is {value!r}, expected a number {least}{or_else}")


def _pricing(name: str, input_price: float | None, output_price: float | None) -> Pricing | None:
    if input_price is None or output_price is None:
        if input_price is not output_price:
            raise InputError(f"{name}: one of two prices is given, expected both or neither: give {_PRICES}")
        return None
    _check_number(name, "input_price", input_price)
    _check_number(name, "output_price", output_price)
    return Pricing(float(input_price), float(output_price))


def _sum(one: Spent, other: Spent) -> Spent:
    tokens = Tokens(one.tokens.input + other.tokens.input, one.tokens.output + other.tokens.output)
    cost = None if one.cost is None or other.cost is None else one.cost + other.cost
    return Spent(one.calls + other.calls, tokens, cost)
