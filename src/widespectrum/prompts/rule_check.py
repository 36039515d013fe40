"""The rule check of a wide-spectrum prompt, whoever wrote it: a person, a template or a language model.

It reads words, not meaning. A prompt that passes keeps the caption's content words, names every requested effect, names
no other one, is short and is prose; whether it reads well is for people to say.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any

__all__ = ["MAX_WORDS", "MIN_WORDS", "check_prompt", "content_words", "effect_words"]

MIN_WORDS, MAX_WORDS = 8, 69
"""A prompt has fewer than 70 words, as in the paper."""

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_NO_PROSE = re.compile(r"</?[a-z!][^>]*>|&#?\w+;|https?://|[*_`]{2,}|^\s*(?:#|[{\[])", re.IGNORECASE)
_TALK = re.compile(
    r"\b(?:ignore|disregard|forget) (?:\w+ ){0,2}(?:previous|prior|earlier|above)\b|\bas an ai\b|\blanguage model\b"
    r"|\bjson\b|\bi(?:['’]m| am) (?:sorry|unable|not able)\b|\bi can(?:not|['’]t)\b|\b(?:system|user|negative) prompt\b"
    r"|^(?:sure|certainly|prompt|(?:here is|here['’]s) (?:a|the|your) (?:\w+ )?prompt)\b",
    re.IGNORECASE,
)
_SUFFIXES = ("ingly", "edly", "ing", "ied", "ies", "ed", "es", "ly", "s", "e", "y")


@cache
def _stop_words() -> frozenset[str]:
    """English words that carry no content of a caption, and words that only say that there is a picture."""
    return frozenset(resources.files(__package__).joinpath("stop_words.txt").read_text(encoding="utf-8").split())


@cache
def effect_words() -> Mapping[str, Mapping[str, Any]]:
    """Per dimension: what it `asks` for in words, its `opposite`, and patterns of words.

    `cues` name it by themselves, `hints` within a phrase that is said to name it, `signs` give it away where nobody
    asked for it; `yields` are words of a caption that it may replace.
    """
    table: dict[str, dict[str, Any]] = json.loads(
        resources.files(__package__).joinpath("effect_words.json").read_text(encoding="utf-8")
    )
    return table


@cache
def _pattern(dimension: str, *kinds: str) -> re.Pattern[str]:
    words = [word for kind in kinds for word in effect_words()[dimension][kind]]
    return re.compile(rf"\b(?:{'|'.join(words)})\b", re.IGNORECASE)


def _stem(word: str) -> str:
    """A word without the endings of English inflection, so that `park`, `parks` and `parked` agree."""
    word = re.sub(r"['’]s?$", "", word.lower())
    for suffix in _SUFFIXES:
        if word.endswith(suffix) and len(word) - len(suffix) >= 3:
            word = word[: -len(suffix)]
            break
    return re.sub(r"(.)\1$", r"\1", word)


def content_words(caption: str) -> list[str]:
    """The words of a caption that carry its content, in order, each once; numbers are left out."""
    words = (word for word in _WORD.findall(caption) if word.lower() not in _stop_words())
    return list({_stem(word): word for word in words}.values())


def _foreign(caption: str, prompt: str) -> Iterator[str]:
    """What a language model lets slip into a prompt: what cannot be seen, markup, and talk to somebody."""
    if unseen := sorted({f"U+{ord(character):04X}" for character in prompt if not character.isprintable()}):
        yield f"characters that cannot be seen: {', '.join(unseen)}"
    for pattern, kind in ((_NO_PROSE, "markup"), (_TALK, "talk")):
        match = pattern.search(prompt)
        if match and match[0].lower() not in caption.lower():
            yield f"{kind} in place of a description: {match[0]!r}"


def _lost_words(caption: str, prompt: str, dimensions: Sequence[str]) -> list[str]:
    kept = {_stem(word) for word in _WORD.findall(prompt)}
    may_go = {_stem(word) for name in dimensions for word in effect_words()[name]["yields"]}
    return [word for word in content_words(caption) if _stem(word) not in kept | may_go]


def _unrequested(caption: str, prompt: str, dimensions: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(dimension, word) for every sign of an effect that nobody asked for and that the caption does not hold."""
    requested = [_pattern(name, "cues", "hints") for name in dimensions]
    for name in effect_words():
        if name in dimensions:
            continue
        for match in _pattern(name, "signs").finditer(prompt):
            is_in_caption = match[0].lower() in caption.lower()
            if not is_in_caption and not any(pattern.search(match[0]) for pattern in requested):
                yield name, match[0]


def _unnamed(caption: str, prompt: str, dimensions: Sequence[str]) -> Iterator[str]:
    for name in dimensions:
        cues = (match[0].lower() for match in _pattern(name, "cues").finditer(prompt))
        if all(cue in caption.lower() for cue in cues):
            yield f"no word of the prompt names the effect {name!r}"


def _badly_named(prompt: str, dimensions: Sequence[str], phrases: Mapping[str, str]) -> Iterator[str]:
    for name in dimensions:
        phrase = phrases.get(name, "")
        if not phrase or phrase not in prompt:
            yield f"the phrase given for {name!r} does not stand in the prompt: {phrase!r}"
        elif not _pattern(name, "cues", "hints").search(phrase):
            yield f"no word of the phrase given for {name!r} names that effect: {phrase!r}"
    if surplus := [name for name in phrases if name not in dimensions]:
        yield f"phrases for effects that were not requested: {', '.join(surplus)}"


def check_prompt(
    caption: str, prompt: str, dimensions: Sequence[str], phrases: Mapping[str, str] | None = None
) -> list[str]:
    """What is wrong with `prompt` as the wide-spectrum counterpart of `caption`; nothing where it passes.

    `phrases` maps a dimension to the words of the prompt that ask for it; without it any cue of the dimension counts
    that the caption does not hold.
    """
    problems = []
    if not MIN_WORDS <= (count := len(prompt.split())) <= MAX_WORDS:
        problems.append(f"{count} words; expected {MIN_WORDS} to {MAX_WORDS}")
    if prompt.strip() == caption.strip():
        problems.append("the prompt is the caption")
    problems += _foreign(caption, prompt)
    if lost := _lost_words(caption, prompt, dimensions):
        problems.append(f"words of the caption are lost: {', '.join(lost)}")
    problems += _unnamed(caption, prompt, dimensions) if phrases is None else _badly_named(prompt, dimensions, phrases)
    problems += [
        f"names the unrequested effect {n!r}: {word!r}" for n, word in _unrequested(caption, prompt, dimensions)
    ]
    return problems
