"""Caption → wide-spectrum prompt: the offline template rewriter, or any OpenAI-compatible chat endpoint."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from widespectrum.errors import InputError
from widespectrum.types import digest

from .rule_check import MAX_WORDS, check_prompt, effect_words

if TYPE_CHECKING:
    from widespectrum.chat import BadReplyError, Chat, Question

__all__ = ["ChatRewriter", "Request", "Rewrite", "Rewriter", "TemplateRewriter", "open_rewriter"]

TEMPLATE = "template"
INSTRUCTIONS = "rewriter_instructions.txt"
MAX_NEGATIVE_WORDS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One caption and the dimensions that its prompt shall ask for."""

    pair_id: str
    caption: str
    dimensions: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewrite:
    """What came of a request. `problems` is empty where the rule check passed; `phrases` maps dimension → its words.

    `asked` and `reply` are what a chat endpoint was sent and answered, as they stood.
    """

    pair_id: str
    prompt: str
    phrases: Mapping[str, str] = field(default_factory=dict)
    negative_prompt: str = ""
    problems: tuple[str, ...] = ()
    asked: str = ""
    reply: str = ""


class Rewriter(Protocol):
    """Rewrites captions; the answers come in any order, one per request. `name` is what a user asks for."""

    name: str

    def rewrite(self, requests: Sequence[Request]) -> Iterator[Rewrite]:
        """One answer per request, checked."""
        ...


@cache
def _sentences() -> Mapping[str, list[str]]:
    text = resources.files(__package__).joinpath("rewriter_templates.json").read_text(encoding="utf-8")
    table: dict[str, list[str]] = json.loads(text)
    return table


def _as_sentence(caption: str) -> str:
    """`a red bus .` → `A red bus.`"""
    text = " ".join(caption.split()).rstrip(" .,;:")
    text = text[:1].upper() + text[1:]
    return text if re.search(r"[.!?]['\"’”]?$", text) else f"{text}."


def negative_prompt(dimensions: Iterable[str]) -> str:
    """The opposites of what the dimensions ask for, one word each."""
    return ", ".join(effect_words()[name]["opposite"] for name in dimensions)


def _plain(text: str) -> str:
    """The text in one line and in composed characters."""
    return unicodedata.normalize("NFC", " ".join(text.split()))


def _as_it_stands(phrase: str, prompt: str) -> str:
    """The words of the prompt that a phrase means, whatever its capitals and the stop at its end; else the phrase."""
    match = re.search(re.escape(phrase.rstrip(" .,;:!")), prompt, re.IGNORECASE) if phrase not in prompt else None
    return match[0] if match else phrase


class TemplateRewriter:
    """The caption and one sentence per effect; seed and pair decide order and wording. No model, no network."""

    def __init__(self, *, seed: int = 0) -> None:
        self._seed = seed
        self.name = TEMPLATE

    def rewrite(self, requests: Sequence[Request]) -> Iterator[Rewrite]:
        """One answer per request, in order."""
        for request in requests:
            yield self._rewrite(request)

    def _rewrite(self, request: Request) -> Rewrite:
        rng = np.random.default_rng(int(digest([self._seed, request.pair_id, request.caption])[:16], 16))
        ordered = [str(name) for name in rng.permutation(list(request.dimensions))]
        phrases = {name: str(rng.choice(_sentences()[name])) for name in ordered}
        prompt = " ".join([_as_sentence(request.caption), *phrases.values()])
        if len(prompt.split()) > MAX_WORDS:
            phrases = {name: min(_sentences()[name], key=lambda text: len(text.split())) for name in ordered}
            prompt = " ".join([_as_sentence(request.caption), *phrases.values()])
        return Rewrite(
            pair_id=request.pair_id,
            prompt=prompt,
            phrases=phrases,
            negative_prompt=negative_prompt(request.dimensions),
            problems=tuple(check_prompt(request.caption, prompt, request.dimensions, phrases)),
        )


def _schema(dimensions: Sequence[str]) -> dict[str, Any]:
    """The JSON schema of a reply about these dimensions."""
    text = {"type": "string"}
    effect = {"dimension": {"type": "string", "enum": list(dimensions)}, "phrase": text}
    item = {"type": "object", "properties": effect, "required": list(effect), "additionalProperties": False}
    reply = {"prompt": text, "effects": {"type": "array", "items": item}, "negative_prompt": text}
    return {"type": "object", "properties": reply, "required": list(reply), "additionalProperties": False}


class ChatRewriter:
    """A language model behind an OpenAI-compatible endpoint, at the temperature of the chat.

    A prompt that fails the rule check is sent back once with what was found. What fails again is kept with its
    problems, and so is a reply that never fits the schema.
    """

    def __init__(self, chat: Chat) -> None:
        self._chat = chat
        self._instructions = resources.files(__package__).joinpath(INSTRUCTIONS).read_text(encoding="utf-8")
        self.name = str(chat.endpoint)

    def rewrite(self, requests: Sequence[Request]) -> Iterator[Rewrite]:
        """One answer per request, in the order in which they come."""
        by_key = {request.pair_id: request for request in requests}
        again: dict[str, tuple[Rewrite, Question]] = {}
        first = (self._question(request) for request in requests)
        for key, reply in self._chat.ask_all(first):
            made = self._rewrite(by_key[key], self._question(by_key[key]), reply)
            if made.problems and isinstance(reply, dict):
                again[f"{key}#corrected"] = made, self._correction(by_key[key], made)
            else:
                yield made
        for key, reply in self._chat.ask_all(question for _, question in again.values()):
            made, question = again[key]
            yield self._rewrite(by_key[made.pair_id], question, reply)

    def _question(self, request: Request) -> Question:
        from widespectrum.chat import Question

        effects = "\n".join(f"- {name}: {effect_words()[name]['asks']}" for name in request.dimensions)
        messages = [
            {"role": "system", "content": self._instructions},
            {"role": "user", "content": f"Caption: {request.caption}\nEffects:\n{effects}"},
        ]
        return Question(request.pair_id, messages, _schema(request.dimensions))

    def _correction(self, request: Request, made: Rewrite) -> Question:
        """The same question once more, with the reply and what is wrong with it."""
        question = self._question(request)
        found = "\n".join(f"- {problem}" for problem in made.problems)
        messages = [
            *question.messages,
            {"role": "assistant", "content": made.reply},
            {"role": "user", "content": f"Your prompt breaks the rules:\n{found}\nWrite it again."},
        ]
        return question._replace(key=f"{question.key}#corrected", messages=messages)

    def _rewrite(self, request: Request, question: Question, reply: dict[str, Any] | BadReplyError) -> Rewrite:
        asked = "\n\n".join(message["content"] for message in question.messages if message["role"] == "user")
        if not isinstance(reply, dict):
            return Rewrite(pair_id=request.pair_id, prompt="", problems=(str(reply),), asked=asked, reply=reply.raw)
        prompt = _plain(reply["prompt"])
        phrases: dict[str, str] = {}
        for entry in reply["effects"]:
            phrase = _as_it_stands(_plain(entry["phrase"]), prompt)
            first = phrases.get(entry["dimension"])
            if not first or first not in prompt:
                phrases[entry["dimension"]] = phrase
        problems = check_prompt(request.caption, prompt, request.dimensions, phrases)
        negative = _plain(reply["negative_prompt"])
        if not 1 <= len(negative.split()) <= MAX_NEGATIVE_WORDS:
            problems.append(f"negative prompt of {len(negative.split())} words; expected 1 to {MAX_NEGATIVE_WORDS}")
        return Rewrite(
            pair_id=request.pair_id,
            prompt=prompt,
            phrases=phrases,
            negative_prompt=negative,
            problems=tuple(problems),
            asked=asked,
            reply=self._chat.raw_reply(question) or "",
        )


@contextmanager
def open_rewriter(text: str, journal: Path, *, seed: int = 0) -> Iterator[Rewriter]:
    """The rewriter that `template` or `openai:<model>@<base-url>` names; a chat keeps its replies in `journal`."""
    if text == TEMPLATE:
        yield TemplateRewriter(seed=seed)
        return
    if not text.startswith("openai:"):
        raise InputError(f"expected the rewriter {TEMPLATE!r} or openai:<model>@<base-url>, got {text!r}")
    from widespectrum.chat import Chat, Endpoint

    with Chat(Endpoint.parse(text), journal) as chat:
        yield ChatRewriter(chat)
