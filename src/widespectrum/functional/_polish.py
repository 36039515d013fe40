"""Polish pull: how much of a generator's wide-spectrum images stays inside its polished default.

Both figures look at r(I, p_o), the reward under the *original* prompt, which asks for nothing unusual: it places an
image on the scale of conventional looks. The generator's own r(I_o, p_o) is the default to compare with, so that no
threshold depends on the reward model's scale or on other generators.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ._bootstrap import in_blocks, ratio
from ._checks import Codes, Floats


class Escape(NamedTuple):
    """Rewards of I_o and of I_a in ascending order, each with its clusters."""

    default: Floats
    default_clusters: Codes
    wide: Floats
    wide_clusters: Codes


def escape(default: Floats, wide: Floats, clusters: Codes) -> Escape:
    """What `weighted_escape_rate` needs: r(I_o,p_o), r(I_a,p_o) and the cluster of each row, all (n,)."""
    by_default, by_wide = np.argsort(default, kind="stable"), np.argsort(wide, kind="stable")
    return Escape(default[by_default], clusters[by_default], wide[by_wide], clusters[by_wide])


def weighted_escape_rate(rewards: Escape, weights: Floats) -> Floats:
    """The share of I_a below the 10th percentile of the default, under each row of `weights`; shape (resamples,).

    The percentile is the linear one of NumPy and is drawn anew in every resample. I_a with the very rewards of the
    default give about 0.1, less where rewards tie at the percentile (0 where all are equal); no I_a in the default
    gives 1.
    """
    return in_blocks(lambda block: _escape_block(rewards, block), weights, 2 * len(rewards.default))


def _escape_block(rewards: Escape, weights: Floats) -> Floats:
    drawn = np.cumsum(np.take(weights, rewards.default_clusters, axis=1), axis=1)
    n = drawn[:, -1]
    position = np.maximum(n - 1, 0) / 10
    lower = _order_statistic(rewards.default, drawn, np.floor(position))
    upper = _order_statistic(rewards.default, drawn, np.floor(position) + 1)
    threshold = lower + (upper - lower) * (position - np.floor(position))
    escaped = np.zeros((len(weights), len(rewards.wide) + 1))
    np.cumsum(np.take(weights, rewards.wide_clusters, axis=1), axis=1, out=escaped[:, 1:])
    below = escaped[np.arange(len(weights)), np.searchsorted(rewards.wide, threshold, "left")]
    return ratio(below, n)


def _order_statistic(values: Floats, drawn: Floats, rank: Floats) -> Floats:
    """Per resample, the value of the given rank (from 0), where `drawn` counts up to each of the sorted values."""
    index: Codes = np.minimum((drawn <= rank[:, None]).sum(axis=1), len(values) - 1)
    return values[index]


def overlap(above: float) -> float:
    """2·min(A, 1 − A) with A = P(r(I_a,p_o) > r(I_o,p_o)) + ½ P(equal), the AUROC of the two sets of rewards.

    1 where a random I_a is as likely above as below a random I_o, 0 where the two do not overlap. Taken from ranks, it
    needs no bandwidth or bins, as an overlap of densities would, and no change of scale alters it; read `delta_reward`
    for the direction. Source for A: McGraw and Wong, Psychol. Bull. 111 (1992), the common-language effect size.
    """
    return 2 * min(above, 1 - above)


def overlap_interval(low: float, high: float) -> tuple[float, float]:
    """The overlaps that belong to an interval of A; up to 1 where it holds ½.

    Resampled overlaps would not do: where the truth is 1, none of them reaches it.
    """
    ends = overlap(low), overlap(high)
    return min(ends), 1.0 if low <= 0.5 <= high else max(ends)
