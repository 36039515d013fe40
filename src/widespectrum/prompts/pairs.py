"""Prompt pairs, one row each: the form in which our prompt datasets are published."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any

from widespectrum.errors import InputError
from widespectrum.types import Prompt, prompt_id

from .prompt_set import PromptSet

__all__ = ["LITE_PAIRS", "PAIR_COLUMNS", "authored_pairs", "authored_prompts", "pair_prompts", "pair_row"]

PAIR_COLUMNS = {
    "pair_id": "string",
    "original_prompt": "string",
    "wide_spectrum_prompt": "string",
    "original_prompt_id": "string",
    "wide_spectrum_prompt_id": "string",
    "dimensions": "list<string>",
    "subset": "string",
}
"""The columns that every config of prompt pairs has, with their types."""

LITE_PAIRS = 60
"""The first pairs of the authored set are its split `lite`: the design is balanced from the start on."""


def pair_row(
    pair_id: str, original: str, wide_spectrum: str, dimensions: Sequence[str], subset: str = ""
) -> dict[str, Any]:
    """The columns of PAIR_COLUMNS; the ids change with the texts."""
    return {
        "pair_id": pair_id,
        "original_prompt": original,
        "wide_spectrum_prompt": wide_spectrum,
        "original_prompt_id": prompt_id(pair_id, "original", original),
        "wide_spectrum_prompt_id": prompt_id(pair_id, "wide_spectrum", wide_spectrum, tuple(dimensions)),
        "dimensions": list(dimensions),
        "subset": subset,
    }


def pair_prompts(row: Mapping[str, Any]) -> tuple[Prompt, Prompt]:
    """The two prompts of a pair; InputError where a text or a dimension is not what a Prompt takes."""
    shared = {"pair_id": row["pair_id"], "subset": row.get("subset") or ""}
    original = Prompt(
        prompt_id=row.get("original_prompt_id") or "", text=row["original_prompt"], role="original", **shared
    )
    wide_spectrum = Prompt(
        prompt_id=row.get("wide_spectrum_prompt_id") or "",
        text=row["wide_spectrum_prompt"],
        role="wide_spectrum",
        dimensions=tuple(row["dimensions"]),
        effects=tuple(row.get("effects") or ()),
        negative_prompt=row.get("negative_prompt") or "",
        **shared,
    )
    return original, wide_spectrum


@cache
def authored_pairs() -> list[dict[str, Any]]:
    """The 300 pairs that ship with this package; not to be changed by callers.

    Per pair: pair_id, subject, style, caption, prompt, effects (dimension → the words of the prompt that ask for it),
    negative.
    """
    text = resources.files(__package__).joinpath("authored.json").read_text(encoding="utf-8")
    pairs: list[dict[str, Any]] = json.loads(text)
    return pairs


def _authored(name: str, count: int | None) -> PromptSet:
    rows = [
        pair_row(pair["pair_id"], pair["caption"], pair["prompt"], sorted(pair["effects"]), pair["subject"])
        | {
            "effects": [words for _, words in sorted(pair["effects"].items())],
            "negative_prompt": pair["negative"],
        }
        for pair in authored_pairs()[:count]
    ]
    prompts = tuple(prompt for row in rows for prompt in pair_prompts(row))
    return PromptSet(name=name, prompts=prompts, photographs={})


def authored_prompts(photos: object = None, captions: object = None, *, lite: bool = False) -> PromptSet:
    """The authored set, or its `lite` split. It is not about photographs: InputError where some are given."""
    name = "authored-lite" if lite else "authored"
    if photos is not None or captions is not None:
        raise InputError(f"the prompt set {name!r} is not about photographs: leave photos and captions away")
    return _authored(name, LITE_PAIRS if lite else None)
