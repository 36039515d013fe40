"""How long prompts are for the text encoders that will read them, and which requested effects they never see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from widespectrum.errors import InputError

from .tokenizers import ENCODERS, Encoder, Unavailable, load_encoder

__all__ = ["LENGTH_COLUMNS", "add_lengths", "open_encoders"]

LIMITS = {"clip": 77, "bert": 35}
"""Encoders that cut prompts of this length: CLIP (all CLIP-type reward models, SDXL, Flux's first encoder), and BERT in
BLIP and ImageReward."""

NOTE = "tokens_note"

LENGTH_COLUMNS = {
    "words": "int32",
    **{f"tokens_{name}": "int32" for name in ENCODERS},
    **{f"past_{name}_{limit}": "list<string>" for name, limit in LIMITS.items()},
    NOTE: "string",
}
"""The columns that `add_lengths` adds, with their types; null where the vocabulary is not at hand."""


def _named_paths(texts: Sequence[str]) -> dict[str, Path]:
    paths: dict[str, Path] = {}
    for text in texts:
        name, equals, path = text.partition("=")
        if not (equals and path and name.isidentifier() and name == name.lower()):
            raise InputError(f"expected --tokenizer NAME=PATH with a name in lower-case letters, got {text!r}")
        if f"tokens_{name}" == NOTE:
            raise InputError(f"--tokenizer {name}: this name is taken, by the column {NOTE}; choose another one")
        if name in paths:
            raise InputError(f"--tokenizer {name} is given twice: leave one out")
        paths[name] = Path(path).expanduser()
    return paths


def open_encoders(tokenizers: Sequence[str] = ()) -> dict[str, Encoder | Unavailable]:
    """The text encoders of the field and those of `NAME=PATH` texts, by name; InputError for a path that holds none."""
    paths = _named_paths(tokenizers)
    return {name: load_encoder(name, paths.get(name)) for name in dict.fromkeys([*ENCODERS, *paths])}


def _lost(encoder: Encoder, limit: int, prompt: str, phrases: Mapping[str, str]) -> list[str]:
    """The dimensions of which the phrase does not lie wholly within the first `limit` tokens of the prompt.

    A phrase that does not stand in the prompt (which is what a rejected one may look like) is not lost there.
    """
    end = encoder.first_lost_character(prompt, limit)
    if end is None:
        return []
    ends = {name: prompt.find(phrase) + len(phrase) for name, phrase in phrases.items() if phrase in prompt}
    return [name for name, last in ends.items() if last > end]


def add_lengths(rows: Sequence[dict[str, Any]], encoders: Mapping[str, Encoder | Unavailable]) -> None:
    """Add LENGTH_COLUMNS to rows of prompt pairs, in place, and `tokens_<name>` for each further encoder.

    All of them are about `wide_spectrum_prompt`, of which `effects` names the words that ask for each of `dimensions`.
    Token counts include the tokens that the encoder puts around a text.
    """
    prompts = [row["wide_spectrum_prompt"] for row in rows]
    missing = [f"{name}: {encoder.reason}" for name, encoder in encoders.items() if isinstance(encoder, Unavailable)]
    for row, prompt in zip(rows, prompts, strict=True):
        row |= {"words": len(prompt.split()), NOTE: "; ".join(missing)}
    for name, encoder in encoders.items():
        counts = [None] * len(rows) if isinstance(encoder, Unavailable) else encoder.count(prompts).tolist()
        for row, count in zip(rows, counts, strict=True):
            row[f"tokens_{name}"] = count
    for name, limit in LIMITS.items():
        encoder = encoders[name]
        for row, prompt in zip(rows, prompts, strict=True):
            phrases = dict(zip(row["dimensions"], row["effects"], strict=True))
            lost = _lost(encoder, limit, prompt, phrases) if isinstance(encoder, Encoder) else None
            row[f"past_{name}_{limit}"] = lost
