"""Ranks of models measured on the same rows: intervals that hold together, and groups that cannot be told apart."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from scipy.special import stdtr

from ._bootstrap import resampling
from ._checks import Codes, Floats, Names, Numbers, as_rows, label_column, number_column, require_rows
from ._significance import holm


class Place(NamedTuple):
    """Where a model stands: `mean` over its own `n` rows, `tie_group` from 1, and its rank interval."""

    name: str
    mean: float
    n: int
    tie_group: int
    rank_low: int
    rank_high: int


class _Pairs(NamedTuple):
    """Each model (row) against each (column): mean difference on their common rows, p-value after Holm; (m, m)."""

    difference: Floats
    p: Floats


def rank_models(
    values: Mapping[str, Numbers], clusters: Names, *, confidence_level: float = 0.95, higher_is_better: bool = True
) -> list[Place]:
    """The models from best to worst, with simultaneous rank intervals and disjoint tie groups; never a bare order.

    Formula: two models are told apart where `pairwise_p` is below 1 − `confidence_level`. `rank_low` = 1 + how many
    models are shown to be better, `rank_high` = m − how many are shown to be worse. Going down by mean, a model joins
    the tie group while it cannot be told from the group's best; the first that can be starts the next group.

    Inputs: `values[name]`, one number per row (n,), None where it is missing, the rows being the same (prompt pair,
    seed) for all models; `clusters`, the prompt of each row, (n,).

    Range: ranks from 1 to m. With a chance of at least about `confidence_level` every interval holds its model's true
    rank, all at once. Two models of one tie group may still be told apart from each other; their rank intervals say so.

    Ties and gaps: equal means stand in the order of their names. `mean` and `n` are over a model's own rows, the tests
    over the rows that both models have: with many gaps the order of the means can contradict the tests, so believe the
    rank intervals. Two models without a common row cannot be told apart. Unequal lengths, NaN, infinity, no models and
    a model without a value raise ValueError.

    Source: Al Mohamad, Goeman and van Zwet, "Simultaneous confidence intervals for ranks with application to ranking
    institutions", Biometrics 78 (2022), with Holm's correction in the place of Tukey's.

    >>> good, fair, poor = [5, 6, 7, 5, 6, 7, 5, 6], [5, 6, 6, 5, 7, 7, 5, 6], [1, 2, 2, 1, 2, 3, 1, 1]
    >>> for place in rank_models({"poor": poor, "good": good, "fair": fair}, list("abcdefgh")):
    ...     print(*place)
    fair 5.875 8 1 1 2
    good 5.875 8 1 1 2
    poor 1.625 8 2 3 3
    """
    options = resampling(1, 0, confidence_level)
    table, codes = _checked(values, clusters)
    difference, p = _pairs(table, codes)
    names, sign = list(values), 1 if higher_is_better else -1
    told = p < 1 - options.confidence_level
    wins = told & (sign * difference > 0)
    means = np.nanmean(table, axis=1)
    places: list[Place] = []
    best, group = 0, 0
    for k in sorted(range(len(names)), key=lambda k: (-sign * means[k], str(names[k]))):
        if not places or told[best, k]:
            best, group = k, group + 1
        low, high = 1 + int(wins[:, k].sum()), len(names) - int(wins[k].sum())
        places.append(Place(names[k], float(means[k]), int((~np.isnan(table[k])).sum()), group, low, high))
    return places


def pairwise_p(values: Mapping[str, Numbers], clusters: Names) -> Floats:
    """P-values of every pair of models after Holm's correction, (m, m) in the order of `values`, 1 on the diagonal.

    Formula: on the n rows that both have, d = difference, u_g = the sum of d − mean d over the rows of cluster g,
    SE = √(G/(G−1) · Σ u_g²) / n; mean d / SE against Student's t with G − 1 degrees of freedom, two-sided. With one
    row per cluster this is the paired t-test. No p is below 2^(1−G'), G' = clusters whose differences do not sum to 0:
    the least that flipping their signs could give. Then Holm over all m(m−1)/2 pairs.
    Range: 0 to 1; 1 for equal models, and for a pair with fewer than two clusters in common. Inputs and errors as
    `rank_models`.

    >>> pairwise_p({"a": [3, 4, 5, 6], "b": [1, 2, 2, 4]}, ["p", "q", "r", "s"]).tolist()
    [[1.0, 0.125], [0.125, 1.0]]
    """
    return _pairs(*_checked(values, clusters)).p


def _checked(values: Mapping[str, Numbers], clusters: Names) -> tuple[Floats, Codes]:
    """The values as a table (m, n), NaN where they are missing, and the cluster of each row."""
    if not isinstance(values, Mapping) or not values:
        raise ValueError("values: expected the numbers of at least one model by its name, got none; give a mapping")
    n = require_rows("clusters", clusters)
    columns = [_column(f"values of {name!r}", column, n) for name, column in values.items()]
    return np.stack(columns), label_column("clusters", clusters, n).codes


def _column(name: str, values: Any, n: int) -> Floats:
    if (length := len(as_rows(name, values))) != n:
        raise ValueError(f"{name}: expected {n} rows like the clusters, got {length}; give None where one is missing")
    column = number_column(name, values, n)
    if np.isnan(column).all():
        raise ValueError(f"{name}: expected a number in at least one row, got none; leave the model out")
    return column


def _pairs(table: Floats, codes: Codes) -> _Pairs:
    m = len(table)
    difference, p = np.zeros((m, m)), np.ones((m, m))
    for i, k in combinations(range(m), 2):
        gap = table[i] - table[k]
        common = ~np.isnan(gap)
        if common.any():
            difference[i, k], p[i, k] = clustered_t_test(gap[common], codes[common])
    upper = np.triu_indices(m, 1)
    p[upper] = holm(p[upper])
    return _Pairs(difference - difference.T, np.minimum(p, p.T))


def clustered_t_test(difference: Floats, codes: Codes) -> tuple[float, float]:
    """The mean of `difference` and its two-sided p-value, as in `pairwise_p`."""
    counts = np.bincount(codes)
    sums, sizes = (np.bincount(codes, weights=column) for column in (difference, np.abs(difference)))
    mean, n_clusters = float(difference.mean()), int(np.count_nonzero(counts))
    freedom = max(n_clusters - 1, 1)
    error = np.sqrt(n_clusters / freedom * ((sums - counts * mean) ** 2).sum()) / len(difference)
    p = 2 * float(stdtr(freedom, -abs(mean) / error)) if error > 0 else 0.0
    # below this share of its parts a sum is rounding
    n_decided = int(np.count_nonzero(np.abs(sums) > 1e-12 * sizes))
    return mean, min(1.0, max(p, 0.5 ** (n_decided - 1)))
