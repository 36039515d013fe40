"""What requests take, guessed before they are sent, and what tokens cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from widespectrum.errors import InputError
from widespectrum.protocols import Tokens

__all__ = ["REPLY_TOKENS", "Pricing", "estimate"]

REPLY_TOKENS = 200
"""Tokens that a short JSON reply takes, generously; what is reserved for one before it has come."""

_CHARACTERS_PER_TOKEN = 4
_PIXELS_PER_TOKEN = 784


@dataclass(frozen=True, slots=True)
class Pricing:
    """US dollars per million tokens, read and written. InputError for a price below 0 or without end."""

    input: float
    output: float

    def __post_init__(self) -> None:
        for name, value in (("input", self.input), ("output", self.output)):
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
                raise InputError(
                    f"the price of {name} tokens is {value!r}, expected US dollars per million tokens, 0 or more: "
                    "give another price"
                )

    def cost(self, tokens: Tokens) -> float:
        """US dollars for so many tokens."""
        return (self.input * tokens.input + self.output * tokens.output) / 1e6


def estimate(texts: Sequence[str], sizes: Sequence[tuple[int, int]], max_side: int) -> int:
    """About how many input tokens texts and images of these (width, height) take.

    One per four characters, and one per 28 x 28 pixels of an image made smaller until no side is longer than
    `max_side`, as Qwen-VL counts. Other models count otherwise: a guess, not a bound.
    """
    tokens = sum(math.ceil(len(text) / _CHARACTERS_PER_TOKEN) for text in texts)
    for width, height in sizes:
        scale = min(1.0, max_side / max(width, height))
        tokens += math.ceil(width * height * scale**2 / _PIXELS_PER_TOKEN)
    return tokens
