"""What judges that rate an image alone say of I_o and I_a, and how far two of them rank images alike."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from widespectrum.functional import cluster_means, spearman
from widespectrum.report.material import Estimate
from widespectrum.types import DIMENSIONS

from .material import Material

__all__ = ["Correlation", "Rating", "correlations", "ratings", "scale_of"]

_FIRST = ("main concept", "effects", "content", "expressed emotion")


class Rating(NamedTuple):
    """The mean ratings of one judge on one dimension, from 0 to `scale`, over the `n` pairs with both images rated."""

    judge: str
    dimension: str
    scale: int
    n: int
    original: Estimate
    wide: Estimate
    difference: Estimate


class Correlation(NamedTuple):
    """Spearman's correlation of two judges on one dimension, over the images that both rated."""

    judge: str
    other: str
    dimension: str
    values: Mapping[str, Any]


def scale_of(dimension: str) -> int:
    """What a rating of 1 means: 2 for a dimension of J, 100 for shares, 1 for probabilities."""
    return 2 if dimension in DIMENSIONS else 100 if dimension in ("main concept", "effects") else 1


def _place(dimension: str) -> tuple[int, int | str]:
    if dimension in _FIRST:
        return 0, _FIRST.index(dimension)
    return (1, DIMENSIONS.index(dimension)) if dimension in DIMENSIONS else (2, dimension)


def _by_dimension(material: Material) -> dict[str, dict[str, dict[tuple[str, str], float]]]:
    """Dimension → judge → (prompt_id, image_id) → rating as a share of its scale."""
    found: dict[str, dict[str, dict[tuple[str, str], float]]] = {}
    names = ("dimension", "judge", "prompt_id", "image_id", "outcome")
    for dimension, judge, prompt, image, outcome in zip(*(material.ratings[name] for name in names), strict=True):
        found.setdefault(dimension, {}).setdefault(judge, {})[prompt, image] = outcome
    return {dimension: found[dimension] for dimension in sorted(found, key=_place)}


def _rating(material: Material, judge: str, dimension: str, rated: Mapping[tuple[str, str], float]) -> Rating | None:
    scale = scale_of(dimension)
    rows, clusters = [], []
    for (prompt, wide, original), caption in ((pair.key, pair.caption) for pair in material.pairs):
        both = rated.get((prompt, original)), rated.get((prompt, wide))
        if both[0] is not None and both[1] is not None:
            rows.append((both[0] * scale, both[1] * scale, (both[1] - both[0]) * scale))
            clusters.append(caption)
    if not rows:
        return None
    plain = {name: value for name, value in material.options.items() if name != "interval"}
    means = cluster_means(np.array(rows), clusters, **plain)
    columns = [Estimate(*(float(part[k]) for part in means)) for k in range(3)]
    return Rating(judge, dimension, scale, len(rows), *columns)


def ratings(material: Material) -> list[Rating]:
    """One per judge and dimension that has both images of some pair."""
    every = _by_dimension(material)
    found = (_rating(material, judge, name, rated) for name, table in every.items() for judge, rated in table.items())
    return [each for each in found if each is not None]


def correlations(material: Material) -> list[Correlation]:
    """One per dimension and every two judges that rated common images of known pairs."""
    captions: dict[tuple[str, str], str] = {}
    for pair in material.pairs:
        prompt, *images = pair.key
        captions |= {(prompt, image): pair.caption for image in images}
    found = []
    for dimension, table in _by_dimension(material).items():
        for one, other in combinations(table, 2):
            if common := [key for key in table[one] if key in table[other] and key in captions]:
                x, y = (np.array([table[each][key] for key in common]) for each in (one, other))
                values = spearman(x, y, [captions[key] for key in common], **material.options)
                found.append(Correlation(one, other, dimension, values))
    return found
