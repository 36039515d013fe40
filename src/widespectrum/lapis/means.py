"""Ratings → one row per painting: mean, spread and the means of groups of raters, nothing of a single rater."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from widespectrum.errors import InputError

from .annotations import TRAITS, Annotations

__all__ = ["COLUMNS", "MINIMUM", "TRAITS", "painting_rows"]

MINIMUM = 5
"""So many raters at least stand behind every published figure."""

NAMES = dict(zip(TRAITS, ("age", "nationality", "gender", "education", "colorblind"), strict=True))
COLUMNS = {
    "file": "string",
    "image_id": "int64",
    "style": "string",
    "genre": "string",
    "official_split": "string",
    "n": "int32",
    "mean": "float64",
    "sd": "float64",
    **{
        name: kind
        for trait in NAMES.values()
        for name, kind in {
            f"{trait}_groups": "list<string>",
            f"{trait}_n": "list<int32>",
            f"{trait}_means": "list<float64>",
        }.items()
    },
    "caption": "string",
    "caption_problem": "string",
}
"""The columns of a row with their types."""


def _published(counts: Mapping[str, int], unknown: int, minimum: int) -> set[str]:
    """The groups whose mean may be published.

    What is left over, raters who gave no answer included, is the difference to the mean over all. So it must be nobody,
    or enough raters itself; else the smallest group that is left joins it.
    """
    shown = {group for group, count in counts.items() if count >= minimum}
    while shown:
        rest = unknown + sum(count for group, count in counts.items() if group not in shown)
        if rest == 0 or rest >= minimum:
            break
        shown.remove(min(shown, key=lambda group: (counts[group], group)))
    return shown


def _group_means(answers: Sequence[str | None], values: Sequence[float], minimum: int) -> dict[str, list[Any]]:
    """Groups by name, their sizes and their means; None where a mean is not published."""
    by_group: dict[str, list[float]] = {}
    for answer, value in zip(answers, values, strict=True):
        if answer is not None:
            by_group.setdefault(answer, []).append(value)
    counts = {group: len(by_group[group]) for group in sorted(by_group)}
    shown = _published(counts, len(values) - sum(counts.values()), minimum)
    means = [float(np.mean(by_group[group])) if group in shown else None for group in counts]
    return {"groups": list(counts), "n": list(counts.values()), "means": means}


def painting_rows(
    annotations: Annotations, splits: Mapping[str, str] | None = None, *, minimum: int = MINIMUM
) -> tuple[list[dict[str, Any]], list[str]]:
    """One row per painting with at least `minimum` ratings, by file name; and what is worth a notice.

    `mean` and `sd` (the standard deviation of the ratings, ddof 1) are over all ratings. For each trait of the raters
    there are three lists: groups, the number of raters in each, and the mean of each, which is None for a group of
    fewer than `minimum` raters, and for further groups where the mean of those left out could be computed from the
    others. InputError where no painting has so many.
    """
    rows, few = [], []
    for name, given in sorted(annotations.ratings.items()):
        values = [value for _, value in given]
        if len(values) < minimum:
            few.append(name)
            continue
        painting = annotations.paintings[name]
        row: dict[str, Any] = {
            "file": name,
            "image_id": painting.image_id,
            "style": painting.style,
            "genre": painting.genre,
            "official_split": None if splits is None else splits.get(name),
            "n": len(values),
            "mean": float(np.mean(values)),
            "sd": float(np.std(values, ddof=1)),
            "caption": None,
            "caption_problem": None,
        }
        for place, trait in enumerate(NAMES.values()):
            answers = [annotations.raters[rater][place] for rater, _ in given]
            row |= {f"{trait}_{key}": made for key, made in _group_means(answers, values, minimum).items()}
        rows.append({column: row[column] for column in COLUMNS})
    if not rows:
        raise InputError(
            f"none of the {len(few):,} paintings has at least {minimum} ratings, and a figure of fewer raters is not "
            "published: give the whole annotation file"
        )
    return rows, _notices(annotations, splits, few, minimum)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5:,} more" if len(names) > 5 else "")


def _notices(annotations: Annotations, splits: Mapping[str, str] | None, few: Sequence[str], minimum: int) -> list[str]:
    found = list(annotations.notices)
    if few:
        found.append(f"left out {len(few):,} paintings with fewer than {minimum} ratings: {_listed(few)}")
    if splits is not None:
        unlisted = sorted(annotations.ratings.keys() - splits.keys())
        unrated = sorted(splits.keys() - annotations.ratings.keys())
        if unlisted:
            found.append(f"{len(unlisted):,} paintings are in no official split: {_listed(unlisted)}")
        if unrated:
            found.append(f"{len(unrated):,} paintings of the official splits have no rating: {_listed(unrated)}")
    return found
