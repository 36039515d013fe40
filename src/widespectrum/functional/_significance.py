"""Paired tests of an aligned generator against its base, and Holm's correction for a family of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr, ndtr

from ._bootstrap import in_blocks, ratio
from ._checks import Codes, Floats, complete_column, flag_column, require_rows

_EXACT = 50  # pairs up to which the signed-rank distribution is counted out


class PairedTest(NamedTuple):
    """`r` is the effect size, `p` the one-sided p-value; None for both where every pair is tied."""

    r: float | None
    p: float | None


class McNemar(NamedTuple):
    """`p` two-sided, `p_one_sided` for the alternative that the aligned generator succeeds less often."""

    p: float
    p_one_sided: float


class SignedRanks(NamedTuple):
    """Non-zero differences in order of size: clusters, signs, where each run of ties starts; clusters of all rows."""

    clusters: Codes
    positive: Floats
    starts: Codes
    all_clusters: Codes


def signed_ranks(aligned: Floats, base: Floats, clusters: Codes) -> SignedRanks:
    """What `weighted_effect_size` needs, from paired values (n,) and the cluster of each pair."""
    difference = aligned - base
    rows = np.flatnonzero(difference)
    rows = rows[np.argsort(np.abs(difference[rows]), kind="stable")]
    sizes = np.abs(difference[rows])
    starts = np.flatnonzero(np.append(True, sizes[1:] != sizes[:-1])) if len(rows) else np.empty(0, dtype=np.intp)
    return SignedRanks(clusters[rows], (difference[rows] > 0).astype(np.float64), starts, clusters)


def weighted_effect_size(ranks: SignedRanks, weights: Floats) -> Floats:
    """R = −Z/√N under each row of `weights` (resamples, clusters), shape (resamples,); NaN where all pairs are tied.

    Z is the normal score of the signed-rank sum of aligned − base, zeros dropped and ties corrected; N counts all
    pairs. r has the sign of base − aligned: negative where the aligned generator scores higher.
    """
    if not len(ranks.clusters):
        return np.full(len(weights), np.nan)
    return in_blocks(lambda block: _effect_size_block(ranks, block), weights, len(ranks.all_clusters))


def _effect_size_block(ranks: SignedRanks, weights: Floats) -> Floats:
    drawn = np.take(weights, ranks.clusters, axis=1)
    tied = np.add.reduceat(drawn, ranks.starts, axis=1)
    positive = np.add.reduceat(drawn * ranks.positive, ranks.starts, axis=1)
    midranks = np.cumsum(tied, axis=1) - (tied - 1) / 2
    n = tied.sum(axis=1)
    excess = (positive * midranks).sum(axis=1) - n * (n + 1) / 4
    variance = n * (n + 1) * (2 * n + 1) / 24 - (tied**3 - tied).sum(axis=1) / 48
    n_all = np.take(weights, ranks.all_clusters, axis=1).sum(axis=1)
    return ratio(0.0 - excess, np.sqrt(variance * n_all))


def wilcoxon_signed_rank(aligned: Floats, base: Floats) -> PairedTest:
    """Wilcoxon's signed-rank test of two generators, paired row by row.

    Formula: r = −Z/√N as in `weighted_effect_size`; p is for "aligned is greater", exact up to 50
    unequal pairs, from the normal approximation above.
    Inputs: `aligned`, `base` float (n,), the same prompt and seed in the same row.
    Range: r in [−1, 1], for many untied pairs within ±0.87; negative: aligned scores higher; 0: no shift.
    Undefined: equal pairs are dropped from the ranks but counted in N; where all are equal both figures are None.

    >>> result = wilcoxon_signed_rank(np.array([3.0, 4.0, 6.0, 9.0]), np.array([2.0, 2.0, 3.0, 5.0]))
    >>> round(result.r, 3), result.p
    (-0.913, 0.0625)
    """
    n = require_rows("aligned", aligned)
    aligned, base = complete_column("aligned", aligned, n), complete_column("base", base, n)
    difference = aligned - base
    difference = difference[difference != 0]
    if not len(difference):
        return PairedTest(None, None)
    rows = np.arange(len(aligned))
    r = weighted_effect_size(signed_ranks(aligned, base, rows), np.ones((1, len(rows))))[0]
    return PairedTest(float(r), _signed_rank_p(difference))


def _signed_rank_p(difference: Floats) -> float:
    """P(W ≥ observed) where each sign is a fair coin: counted out, ties and all, up to 50 pairs, then normal."""
    _, tie, sizes = np.unique(np.abs(difference), return_inverse=True, return_counts=True)
    ranks = (2 * np.cumsum(sizes) - sizes + 1)[tie]  # twice the midranks: whole numbers
    observed = int(ranks[difference > 0].sum())
    if len(ranks) > _EXACT:
        return float(ndtr((ranks.sum() / 2 - observed) / np.sqrt((ranks**2).sum() / 4)))
    chances = np.zeros(ranks.sum() + 1)
    chances[0] = 1.0
    for rank in ranks:
        without = chances.copy()
        chances[rank:] += without[:-rank]
        chances /= 2
    return float(min(1.0, chances[observed:].sum()))


def mcnemar_exact(aligned: Sequence[bool] | NDArray[np.bool_], base: Sequence[bool] | NDArray[np.bool_]) -> McNemar:
    """McNemar's exact test on paired successes.

    Formula: among the b + c pairs in which one generator alone succeeds, b (aligned alone) is Binomial(b + c, ½).
    Inputs: two flags (n,), the same prompt and seed in the same row.
    Range: p-values in (0, 1]; 1 where the two never differ.

    >>> mcnemar_exact([True, False, False, False, False], [True, True, True, True, True])
    McNemar(p=0.125, p_one_sided=0.0625)
    """
    n_rows = require_rows("aligned", aligned)
    first, second = flag_column("aligned", aligned, n_rows), flag_column("base", base, n_rows)
    aligned_alone, base_alone = int((first & ~second).sum()), int((second & ~first).sum())
    n = aligned_alone + base_alone
    two_sided = min(1.0, 2 * float(bdtr(min(aligned_alone, base_alone), n, 0.5)))
    return McNemar(two_sided, float(bdtr(aligned_alone, n, 0.5)))


def holm(p_values: Sequence[float] | Floats) -> Floats:
    """Holm's step-down correction: adjusted p-values in the order given, shape (m,).

    Formula: the i-th smallest of m is multiplied by m − i + 1, then kept from falling below a smaller one, at most 1.
    Reject where the adjusted value is below the level of the whole family. Source: Holm, Scand. J. Statist. 6 (1979).

    >>> holm([0.01, 0.04, 0.03]).tolist()
    [0.03, 0.06, 0.06]
    """
    p = np.asarray(p_values, dtype=np.float64)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"expected a flat list of p-values between 0 and 1, got {p_values!r}")
    order = np.argsort(p, kind="stable")
    adjusted = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    result = np.empty_like(p)
    result[order] = adjusted
    return result
