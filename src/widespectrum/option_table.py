"""What `widespectrum models show NAME` prints of any model: its options, and what its class says of itself."""

from __future__ import annotations

import inspect
import re
import textwrap
from typing import Any

__all__ = ["WIDTH", "about", "option_lines", "shown", "wrapped"]

WIDTH = 120
_COLUMNS = (19, 24)
"""How wide the names of options are, and what they are unless given."""


def option_lines(option: str, default: str, meaning: str) -> list[str]:
    """The lines of one option; a long default has one of its own."""
    first, second = _COLUMNS
    head, rest = f"  {option:<{first}}{default:<{second}}", " " * (2 + first + second)
    if len(default) < second:
        return textwrap.wrap(meaning, WIDTH, initial_indent=head, subsequent_indent=rest)
    return [head, *textwrap.wrap(meaning, WIDTH, initial_indent=rest, subsequent_indent=rest)]


def shown(default: Any) -> str:
    """A default as it is printed."""
    if default is inspect.Parameter.empty:
        return "(needed)"
    return "–" if default in ("", None) else str(default).partition("@")[0]


def about(family: Any, *hidden: str) -> list[str]:
    """The paragraphs that describe a class, without the sentences that hold one of the `hidden` words."""
    words = "|".join(("InputError", *hidden))
    paragraphs = [" ".join(each.split()) for each in inspect.cleandoc(family.__doc__ or "").split("\n\n")]
    kept = [re.sub(rf"(?<![^ ])[^.]*\b({words})\b[^.]*\.( |$)", "", each) for each in paragraphs]
    return [each.strip() for each in kept if each.strip()]


def wrapped(paragraphs: list[str]) -> list[str]:
    """The paragraphs in lines that fit; an empty one is an empty line."""
    return [line for each in paragraphs for line in textwrap.wrap(each, WIDTH, subsequent_indent="  ") or [""]]
