"""Prompts: plain captions and their wide-spectrum counterparts, from named sets or from a table of the user."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

from widespectrum.registry import unknown_name

from .images import open_photograph
from .pairs import authored_prompts
from .photographs import photograph_prompts
from .prompt_set import PromptSet
from .tables import read_prompts

__all__ = ["PROMPT_SETS", "PromptSet", "PromptSource", "load_prompt_set", "open_photograph", "read_prompts"]


class PromptFunction(Protocol):
    """Makes a prompt set; `photos` and `captions` are the user's own photographs and their captions."""

    def __call__(self, photos: Path | None = None, captions: Path | None = None) -> PromptSet: ...


class PromptSource(NamedTuple):
    """One line of the table of prompt sets."""

    make: PromptFunction
    summary: str


PROMPT_SETS: dict[str, PromptSource] = {
    "authored": PromptSource(authored_prompts, "300 captions on eight subjects, each with two to four dimensions"),
    "authored-lite": PromptSource(partial(authored_prompts, lite=True), "60 of the authored pairs, balanced like all"),
    "photographs": PromptSource(
        photograph_prompts,
        "photographs that ship with scikit-image and scikit-learn, or your own, with one prompt per dimension",
    ),
}


def load_prompt_set(name: str, *, photos: Path | None = None, captions: Path | None = None) -> PromptSet:
    """The prompt set called `name`; InputError where the name is unknown or the photographs cannot be used."""
    if name not in PROMPT_SETS:
        raise unknown_name("prompt set", name, PROMPT_SETS, "widespectrum models")
    return PROMPT_SETS[name].make(photos, captions)
