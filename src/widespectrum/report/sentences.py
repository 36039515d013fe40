"""What a report says in words: what was measured, what to beware of, what is missing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from widespectrum import store, tables
from widespectrum.tables import SUBSET_NAMES

from .material import Material

__all__ = ["Gap", "absent_parts", "cautions", "gaps", "statement"]

ABSENT = {
    "prompts": "No prompts: their texts and the dimensions they ask for are unknown.",
    "images": "No images: there is no gallery, and refusals and failures are unknown.",
    "verdicts": "No verdicts: whether an image shows what was asked for is not judged.",
}


class Gap(NamedTuple):
    """Estimates that are absent for one reason."""

    reason: str
    estimates: int
    metrics: list[str]


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def _join(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def statement(material: Material) -> str:
    """One sentence: what was measured."""
    pairs = material.image_pairs
    made = _count(pairs["generator"].nunique(), "generator")
    return (
        f"{_count(len(material.reward_models), 'reward model')} scored {_count(len(pairs), 'image pair')} that {made} "
        f"made from {_count(pairs['pair_id'].nunique(), 'prompt pair')}: the image of a plain caption and the image of "
        "a wide-spectrum prompt, which asks for the same content with effects outside mainstream taste, each under "
        "both prompts."
    )


ANSWERS = {
    "verdict": "verdicts",
    "effect": "ratings of the effects",
    "content": "ratings of the content",
    "dimension": "dimension scores",
}


def _judge_caution(material: Material) -> str:
    if not any(material.judges):
        return "The run has no judge: there are no verdicts, no success rates and no dimension scores."
    given: dict[str, list[str]] = {}
    for role, label in material.judges._asdict().items():
        if label:
            given.setdefault(label, []).append(ANSWERS[role])
    said = "; ".join(f"{_join(answers)} are those of the judge {label}" for label, answers in given.items())
    others = [name for name in material.specs("judges") if name not in given]
    beside = f" The answers of {_join(others)} stand beside them where they answered the same." if others else ""
    return f"{said[0].upper()}{said[1:]}.{beside}"


def cautions(material: Material) -> list[str]:
    """What a reader has to know before trusting the figures."""
    captions = material.pairs["cluster"].nunique()
    return [
        f"Reward models are compared on {SUBSET_NAMES[material.subset]}.",
        f"Brackets hold {100 * material.level:g}\u00a0% intervals: a bootstrap that resamples whole plain captions, of "
        f"which there {'is' if captions == 1 else 'are'} {captions:,}.",
        _judge_caution(material),
        *tables.cautions(material.run),
    ]


def absent_parts(material: Material) -> list[str]:
    """Whole parts that the run lacks, one sentence each."""
    return [sentence for table, sentence in ABSENT.items() if not store.parts(material.run, table)]


def gaps(material: Material) -> list[Gap]:
    """The reasons of absent estimates, the most frequent first."""
    grouped: dict[str, list[str]] = {}
    for (_, _, metric), reason in material.reasons.items():
        if metric.partition("/")[0].endswith("_caution"):
            continue
        grouped.setdefault(reason, []).append(metric.partition("/")[0])
    found = [Gap(reason, len(metrics), sorted(set(metrics))) for reason, metrics in grouped.items()]
    return sorted(found, key=lambda gap: (-gap.estimates, gap.reason))
