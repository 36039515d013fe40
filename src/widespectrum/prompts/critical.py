"""The config `critical`: pictures that accuse, each beside the same picture without the accusation.

Five topics (anti-war, pollution, inequality, censorship, digital overload) with twenty pairs each. The socially
critical prompt, `wide_spectrum_prompt`, is a concrete scene and not a slogan; `original_prompt` is its neutral control:
the same scene, medium and composition at about the same length (within 10 % of the words), with the criticism taken
out. No pair shows a real person, state or party.

Guo, Qian, Hasan and Du (ICML 2026, arXiv 2512.11883) give one critical prompt to an aligned generator and to its base,
and look at which of the two images a reward model prefers. The control, which they lack, tells whether a difference
comes from the criticism or is there for any picture of the kind: compare it under both prompts of a pair.
"""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

from .pairs import PAIR_COLUMNS, pair_row

__all__ = ["FEATURES", "critical_rows"]

FEATURES = {**PAIR_COLUMNS, "topic": "string", "medium": "string", "composition": "string"}
"""The columns of `critical_rows` with their types. `subset` is the topic, so that results are sliced by it."""

# What a critical picture asks for beyond its control is that it disturbs: the bad end of this dimension.
_DIMENSIONS = ("emotion",)


def _row(topic: str, entry: dict[str, str]) -> dict[str, Any]:
    pair = pair_row(f"{topic}/{entry['name']}", entry["control"], entry["critical"], _DIMENSIONS, topic)
    return {**pair, "topic": topic, "medium": entry["medium"], "composition": entry["composition"]}


def critical_rows() -> list[dict[str, Any]]:
    """The 100 pairs, twenty per topic, with the columns FEATURES; topics stay together."""
    texts = json.loads(resources.files(__package__).joinpath("critical.json").read_text("utf-8"))
    return [_row(topic, entry) for topic, entries in texts["topics"].items() for entry in entries]
