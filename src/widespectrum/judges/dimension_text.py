"""What the dimension judge is asked, the same text in training and in use, and the record of it beside its weights."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from widespectrum.errors import InputError, UnknownNameError
from widespectrum.types import digest

from .instructions import instruction

__all__ = [
    "ANSWERS",
    "MAX_PIXELS",
    "RECIPE",
    "VERSION",
    "dimension_conversation",
    "dimensions_with_text",
    "read_recipe",
    "recipe",
    "texts_digest",
]

VERSION = "v1"
"""Of the texts."""

ANSWERS = ("0", "1", "2")
"""The words of which one is the answer: the sign of an annotation, plus 1."""

MAX_PIXELS = 512 * 512
"""Width x height of an image after it was resized, at most, where nothing else is said."""

RECIPE = "dimension_judge.json"
"""The file beside the weights of a trained judge that says how it was trained to be asked."""


@cache
def _questions() -> dict[str, list[str]]:
    """By dimension: the question, and what 0, 1 and 2 mean."""
    file = resources.files(__package__).joinpath("prompts", f"dimension_questions.{VERSION}.json")
    found: dict[str, list[str]] = json.loads(file.read_text(encoding="utf-8"))
    return found


def dimensions_with_text() -> tuple[str, ...]:
    """The dimensions of VisionReward about which there is a question, in alphabetical order."""
    return tuple(sorted(_questions()))


def dimension_conversation(dimension: str) -> tuple[str, str]:
    """(text of the system, text of the user after the image) that ask for 0, 1 or 2 on a dimension of VisionReward.

    The text of the system and the image are the same for all dimensions, and come first.

    >>> system, text = dimension_conversation("clarity")
    >>> text.splitlines()[0]
    'The property: clarity. How sharp and free of haze is the picture?'
    """
    if dimension not in _questions():
        raise UnknownNameError(f"no question for {dimension!r}: expected one of {', '.join(dimensions_with_text())}")
    system, _, text = instruction("dimension", VERSION).text.partition("\n\n---\n\n")
    question, low, middle, high = _questions()[dimension]
    return system, text.format(dimension=dimension, question=question, low=low, middle=middle, high=high)


@cache
def texts_digest() -> str:
    """16 hex digits of all the texts."""
    return digest([dimension_conversation(name) for name in dimensions_with_text()])[:16]


def recipe(max_pixels: int, dimensions: Sequence[str]) -> dict[str, Any]:
    """What training writes as JSON to `RECIPE` beside the weights, so that the judge is asked as it was trained."""
    facts = {"instruction": texts_digest(), "version": VERSION, "max_pixels": max_pixels}
    return {**facts, "dimensions": sorted(dimensions)}


def read_recipe(folder: Path) -> dict[str, Any] | None:
    """What `recipe` gave when the weights in `folder` were trained; None where it was not written.

    InputError where the judge was trained with other texts.
    """
    file = folder / RECIPE
    if not file.is_file():
        return None
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        texts, version, max_pixels = found["instruction"], found["version"], found["max_pixels"]
        if type(max_pixels) is not int or max_pixels < 1:
            raise ValueError(f"max_pixels is {max_pixels!r}")
        if unknown := {*found["dimensions"]} - {*dimensions_with_text()}:
            raise ValueError(f"there is no dimension {min(map(str, unknown))!r}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file} is no record of a dimension judge ({error}): copy it again, or delete it") from None
    if (texts, version) != (texts_digest(), VERSION):
        raise InputError(
            f"{folder}: this judge was trained with other instruction texts (version {version}, {texts}) than these "
            f"({VERSION}, {texts_digest()}): use the version of widespectrum with which it was trained, or train again"
        )
    return dict(found)
