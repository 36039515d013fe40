"""Agreement among several raters, and rank correlation of two, resampled by cluster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ._bootstrap import cluster_sums, draw, in_blocks, ratio, resampling, with_intervals
from ._checks import Floats, label_column


def krippendorff_alpha(
    answers: Floats,
    clusters: Sequence[Any],
    categories: Sequence[float],
    *,
    n_resamples: int = 2000,
    seed: int = 0,
    confidence_level: float = 0.95,
    interval: str = "percentile",
) -> dict[str, Any]:
    """Krippendorff's alpha for ordered categories, with a cluster bootstrap interval.

    Formula: alpha = 1 − (n − 1) Σ o_ck δ²_ck / Σ n_c n_k δ²_ck. A row with m answers adds 1 / (m − 1) to the
    coincidence o_ck for each ordered pair of its answers; n_c = Σ_k o_ck, n = Σ_c n_c; δ_ck is the number of answers
    that lie between the middles of c and k, n_c / 2 + … + n_k / 2.

    Inputs: `answers` (rows, raters), values of `categories` (in order), NaN for none; rows with fewer than two do not
    count. `clusters` (rows,). Range: at most 1, 0 at chance. Undefined, with its reason in `notes`, where nothing was
    answered twice or only one category was used. Source: Krippendorff, Content Analysis (2004), chapter 11.

    Returns `alpha`, `alpha_ci_low`, `alpha_ci_high`, `n_rows`, `notes`.

    >>> answers = np.array([[1, 1], [0, 0], [0.5, 1], [0, np.nan]])
    >>> result = krippendorff_alpha(answers, ["a", "b", "c", "d"], (0, 0.5, 1), n_resamples=100)
    >>> round(result["alpha"], 3), result["n_rows"]
    (0.778, 3)
    """
    checked = resampling(n_resamples, seed, confidence_level, interval)
    labels = label_column("clusters", clusters, len(answers))
    counts = np.stack([(answers == category).sum(axis=1) for category in categories], axis=1).astype(np.float64)
    sizes = counts.sum(axis=1)
    pairs = counts[:, :, None] * counts[:, None, :] - counts[:, :, None] * np.eye(len(categories))
    shares = pairs / np.maximum(sizes - 1, 1)[:, None, None]
    k = len(categories)
    sums = cluster_sums(shares.reshape(len(answers), k * k), labels.codes, len(labels.names))

    def statistic(weights: Floats) -> dict[str, Floats]:
        seen = (weights @ sums).reshape(-1, k, k)
        each = seen.sum(axis=2)
        middles = each.cumsum(axis=1) - each / 2
        distance = (middles[:, :, None] - middles[:, None, :]) ** 2
        observed = (seen * distance).sum(axis=(1, 2)) * (each.sum(axis=1) - 1)
        expected = (each[:, :, None] * each[:, None, :] * distance).sum(axis=(1, 2))
        return {"alpha": (1 - ratio(observed, expected))[:, None]}

    answered = sizes > 1
    behind = {"alpha": len(np.unique(labels.codes[answered]))}
    reasons = {"alpha": "undefined: nothing was answered twice, or all answers are the same"}
    found = with_intervals(draw(statistic, len(labels.names), checked).of(0), behind, reasons, checked)
    return {"n_rows": int(answered.sum())} | found


def _ranks(values: Floats) -> Callable[[Floats], Floats]:
    """Weights (resamples, rows) to the mid-ranks of the rows, where a row of weight 2 stands there twice."""
    codes = np.unique(values, return_inverse=True)[1]
    order = np.argsort(codes, kind="stable")
    starts = np.searchsorted(codes[order], np.arange(codes.max() + 1))

    def ranks(weights: Floats) -> Floats:
        sizes = np.add.reduceat(weights[:, order], starts, axis=1)
        middles: Floats = sizes.cumsum(axis=1) - sizes / 2
        return middles[:, codes]

    return ranks


def spearman(
    one: Floats,
    other: Floats,
    clusters: Sequence[Any],
    *,
    n_resamples: int = 2000,
    seed: int = 0,
    confidence_level: float = 0.95,
    interval: str = "percentile",
) -> dict[str, Any]:
    """Spearman's rank correlation with a cluster bootstrap interval; every resample is ranked anew.

    Formula: Pearson's correlation of the mid-ranks. Inputs: `one`, `other`, `clusters`, each (n,), without gaps.
    Range: −1 to 1, 0 for no relation. Undefined, with its reason in `notes`, where one of them is constant.

    Returns `rho`, `rho_ci_low`, `rho_ci_high`, `n_rows`, `notes`.

    >>> one, other = np.array([1.0, 2, 3, 4]), np.array([1.0, 3, 2, 4])
    >>> round(spearman(one, other, ["a", "b", "c", "d"], n_resamples=100)["rho"], 3)
    0.8
    """
    checked = resampling(n_resamples, seed, confidence_level, interval)
    labels = label_column("clusters", clusters, len(one))
    ranks = _ranks(one), _ranks(other)

    def correlation(weights: Floats) -> Floats:
        rows = weights[:, labels.codes]
        n = rows.sum(axis=1, keepdims=True)
        # Mid-ranks have the mean n / 2 here; what is centered exactly gives exactly 0 where all are tied.
        x, y = (rank(rows) - n / 2 for rank in ranks)
        spread = (rows * x * x).sum(axis=1) * (rows * y * y).sum(axis=1)
        return ratio((rows * x * y).sum(axis=1), np.sqrt(spread))

    def statistic(weights: Floats) -> dict[str, Floats]:
        return {"rho": in_blocks(correlation, weights, len(one))[:, None]}

    behind, reasons = {"rho": len(labels.names)}, {"rho": "undefined: one of the two gives everything the same rating"}
    found = with_intervals(draw(statistic, len(labels.names), checked).of(0), behind, reasons, checked)
    return {"n_rows": len(one)} | found
