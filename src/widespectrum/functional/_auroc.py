"""Area under the ROC curve: exact pairwise count, DeLong's interval, and its value under cluster weights."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import ndtri

from ._bootstrap import in_blocks, ratio
from ._checks import Codes, Floats, complete_column


class ScoreOrder(NamedTuple):
    """The order of positives among negatives, both in ascending order of score, and the cluster of each.

    `below[i]` negatives lie below positive i, and `upto[i]` lie below it or are tied with it.
    """

    positive_clusters: Codes
    negative_clusters: Codes
    below: Codes
    upto: Codes


def score_order(positive: Floats, negative: Floats, positive_clusters: Codes, negative_clusters: Codes) -> ScoreOrder:
    """What `weighted_auroc` needs, from the scores (m,) and (n,) and the clusters of the same lengths."""
    # sorted positives step through the negatives in order, which with many rows is faster than jumping about
    up, down = np.argsort(positive, kind="stable"), np.argsort(negative, kind="stable")
    below, upto = (np.searchsorted(negative[down], positive[up], side) for side in ("left", "right"))
    return ScoreOrder(positive_clusters[up], negative_clusters[down], below, upto)


def weighted_auroc(order: ScoreOrder, weights: Floats) -> Floats:
    """AUROC under each row of `weights` (resamples, clusters), shape (resamples,); NaN where a class has no weight.

    Integer weights are counts of pairs, so the answer is exact.
    """
    width = len(order.positive_clusters) + len(order.negative_clusters)
    return in_blocks(lambda block: _auroc_block(order, block), weights, width)


def _auroc_block(order: ScoreOrder, weights: Floats) -> Floats:
    negatives = np.zeros((len(weights), len(order.negative_clusters) + 1))
    np.cumsum(np.take(weights, order.negative_clusters, axis=1), axis=1, out=negatives[:, 1:])
    positives = np.take(weights, order.positive_clusters, axis=1)
    beaten = np.take(negatives, order.below, axis=1)
    beaten += np.take(negatives, order.upto, axis=1)
    pairs = positives.sum(axis=1) * negatives[:, -1]
    wins = np.einsum("ij,ij->i", positives, beaten) / 2
    return ratio(wins, pairs)


def auroc(positive: Floats, negative: Floats) -> float:
    """P(positive > negative) + ½ P(equal) over all pairs; 0.5 is chance. Both need at least one score."""
    if not (len(positive) and len(negative)):
        raise ValueError(
            f"expected scores of both classes, got {len(positive)} positives and {len(negative)} negatives"
        )
    columns = (
        complete_column(name, each, len(each)) for name, each in (("positive", positive), ("negative", negative))
    )
    return float(placements(*columns).mean())


def placements(scores: Floats, others: Floats) -> Floats:
    """The share of `others` below each score, ties counted half."""
    ranked = np.sort(others)
    return (np.searchsorted(ranked, scores, "left") + np.searchsorted(ranked, scores, "right")) / (2 * len(others))


def delong_interval(positive: Floats, negative: Floats, confidence_level: float = 0.95) -> tuple[float, float] | None:
    """DeLong's interval for `auroc`, cut to [0, 1]; None with fewer than two scores in a class or zero variance.

    It takes the pairs as independent: where prompts repeat it is too narrow, and the cluster bootstrap is the one to
    read. Source: DeLong, DeLong and Clarke-Pearson, Biometrics 44 (1988).
    """
    if min(len(positive), len(negative)) < 2:
        return None
    wins = placements(positive, negative)
    losses = placements(negative, positive)
    variance = wins.var(ddof=1) / len(wins) + losses.var(ddof=1) / len(losses)
    if variance == 0:
        return None
    half = float(ndtri((1 + confidence_level) / 2) * np.sqrt(variance))
    middle = float(wins.mean())
    return max(0.0, middle - half), min(1.0, middle + half)
