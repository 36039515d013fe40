"""The 2×2 design, images by prompts: a reward model's pairs, and every estimate as a function of prompt weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from ._auroc import ScoreOrder, score_order, weighted_auroc
from ._bootstrap import Statistic, cluster_sums, ratio
from ._checks import (
    Codes,
    Flags,
    Floats,
    Labels,
    Names,
    Numbers,
    complete_column,
    count_distinct,
    label_column,
    require_rows,
    require_unique,
    row_labels,
    select_labels,
    verdict_column,
)

DESIGN_NAMES = (
    "image_prior",
    "prompt_match",
    "prior_over_match",
    "match_positive_rate",
    "accuracy_under_original",
    "accuracy_under_wide_spectrum",
    "both_ways_accuracy",
    "image_prior_standardised",
    "prompt_match_standardised",
)
VERDICT_NAMES = (
    "accuracy",
    "f1",
    "f1_weighted",
    "auroc",
    "balanced_accuracy",
    "mcc",
    "always_wide_accuracy",
)
BOTH_CLASSES = ("auroc", "balanced_accuracy", "mcc")


class Pairs(NamedTuple):
    """Checked rows; `verdict` is NaN where there is none."""

    prompts: Labels
    verdict: Floats
    io_po: Floats
    io_pa: Floats
    ia_po: Floats
    ia_pa: Floats


def prior_and_match(r_io_po: Numbers, r_io_pa: Numbers, r_ia_po: Numbers, r_ia_pa: Numbers) -> tuple[Floats, Floats]:
    """Image prior Q and prompt match X of each pair, whose means `reward_bias` gives.

    Formula: Q = ½[(r(I_a,p_o) + r(I_a,p_a)) − (r(I_o,p_o) + r(I_o,p_a))], the preference for I_a whatever the prompt;
    X = ½[(r(I_a,p_a) − r(I_o,p_a)) − (r(I_a,p_o) − r(I_o,p_o))], what changing the prompt moves toward I_a. So
    r(I_a,p_a) − r(I_o,p_a) = Q + X and r(I_a,p_o) − r(I_o,p_o) = Q − X, but for rounding: decide by the raw scores.
    Inputs: four rewards, float (n,). Returns Q and X, (n,), in reward units.
    No rows, unequal lengths, a missing value, NaN or infinity raise ValueError.

    >>> prior, match = prior_and_match([4, 5], [3, 5], [1, 2], [4, 3])
    >>> prior.tolist(), match.tolist()
    ([-1.0, -2.5], [2.0, 0.5])
    """
    n = require_rows("r_io_po", r_io_po)
    rewards = {"r_io_po": r_io_po, "r_io_pa": r_io_pa, "r_ia_po": r_ia_po, "r_ia_pa": r_ia_pa}
    io_po, io_pa, ia_po, ia_pa = (complete_column(name, values, n) for name, values in rewards.items())
    prior = 0.5 * ((ia_po + ia_pa) - (io_po + io_pa))
    match = 0.5 * ((ia_pa - io_pa) - (ia_po - io_po))
    size = np.abs(io_po) + np.abs(io_pa) + np.abs(ia_po) + np.abs(ia_pa)
    # a model that adds up image and prompt has X = 0 throughout: what rounding leaves of it is no match
    is_rounding = bool((np.abs(match) <= 4 * np.finfo(np.float64).eps * size).all())
    return prior, np.zeros_like(match) if is_rounding else match


def _terms(pairs: Pairs, center: float) -> Floats:
    """Per row, the numbers whose sums give every estimate but AUROC; shape (n, 12)."""
    under_original = pairs.io_po > pairs.ia_po
    under_wide = pairs.ia_pa > pairs.io_pa
    prior, match = prior_and_match(pairs.io_po, pairs.io_pa, pairs.ia_po, pairs.ia_pa)
    spread = pairs.io_po - center
    positive, negative = pairs.verdict == 1, pairs.verdict == 0
    terms = [np.ones_like(prior), prior, match, match > 0, under_original, under_wide, under_original & under_wide]
    terms += [spread, spread**2, positive & under_wide, positive & ~under_wide, negative & under_wide]
    terms += [negative & ~under_wide]
    return np.stack([np.asarray(term, dtype=np.float64) for term in terms], axis=1)


def read_pairs(
    rewards: Mapping[str, Numbers], verdict: Numbers | None, keys: Mapping[str, Names | None]
) -> tuple[Pairs, Labels | None]:
    """Checked rows and, where `keys` has a `group`, the group of each.

    `rewards` are four columns in the order of the last fields of `Pairs`, by the names they are given under; `keys` are
    prompt_id, group and image_seed, each a column or None, and together the key of a row.
    """
    n = require_rows(next(iter(rewards)), next(iter(rewards.values())))
    columns = [complete_column(name, values, n) for name, values in rewards.items()]
    verdicts = np.full(n, np.nan) if verdict is None else verdict_column("verdict", verdict, n)
    labels = {name: label_column(name, values, n) for name, values in keys.items() if values is not None}
    if "prompt_id" in labels:
        require_unique(labels)
    return Pairs(labels.get("prompt_id", row_labels(n)), verdicts, *columns), labels.get("group")


def select_pairs(pairs: Pairs, groups: Labels | None, flags: Flags) -> tuple[Pairs, Labels | None]:
    """The flagged rows with their groups; verdicts are dropped: they are what the rows were selected by."""
    columns = (pairs.io_po[flags], pairs.io_pa[flags], pairs.ia_po[flags], pairs.ia_pa[flags])
    unknown = np.full(int(flags.sum()), np.nan)
    chosen = None if groups is None else select_labels(groups, flags)
    return Pairs(select_labels(pairs.prompts, flags), unknown, *columns), chosen


def group_slices(groups: Labels | None, n: int) -> list[Codes]:
    """All rows, then the rows of each group."""
    slices = [np.arange(n)]
    if groups is not None:
        slices += [np.flatnonzero(groups.codes == code) for code in range(len(groups.names))]
    return slices


def design_statistic(pairs: Pairs, slices: list[Codes]) -> Statistic:
    """Weights of prompts (resamples, prompts) to estimates (resamples, slices)."""
    codes, n_clusters = pairs.prompts.codes, len(pairs.prompts.names)
    terms = _terms(pairs, float(np.median(pairs.io_po)))
    sums = np.concatenate([cluster_sums(terms[rows], codes[rows], n_clusters) for rows in slices], axis=1)
    orders = [_order(pairs, rows) for rows in slices]

    def statistic(weights: Floats) -> dict[str, Floats]:
        totals = (weights @ sums).reshape(len(weights), len(slices), terms.shape[1])
        undefined = np.full(len(weights), np.nan)
        areas = [undefined if order is None else weighted_auroc(order, weights) for order in orders]
        return _design_estimates(totals) | _verdict_estimates(totals[..., -4:]) | {"auroc": np.stack(areas, axis=1)}

    return statistic


def _order(pairs: Pairs, rows: Codes) -> ScoreOrder | None:
    """The order of wide-spectrum wins among the losses, by r(I_a,p_a) − r(I_o,p_a); None without both verdicts."""
    margin = pairs.ia_pa - pairs.io_pa
    positive, negative = rows[pairs.verdict[rows] == 1], rows[pairs.verdict[rows] == 0]
    if not (len(positive) and len(negative)):
        return None
    codes = pairs.prompts.codes
    return score_order(margin[positive], margin[negative], codes[positive], codes[negative])


def _design_estimates(totals: Floats) -> dict[str, Floats]:
    n, prior, match, positive, original, wide, both, spread, squares = np.moveaxis(totals[..., :9], -1, 0)
    square = squares - ratio(spread**2, n)
    # below this share of the squares the difference is rounding, not variance
    deviation = np.sqrt(ratio(np.where(square > 1e-12 * squares, square, 0.0), np.maximum(n - 1, 0)))
    mean_prior, mean_match = ratio(prior, n), ratio(match, n)
    return {
        "image_prior": mean_prior,
        "prompt_match": mean_match,
        "prior_over_match": ratio(-mean_prior, mean_match) + 0.0,  # no -0.0
        "match_positive_rate": ratio(positive, n),
        "accuracy_under_original": ratio(original, n),
        "accuracy_under_wide_spectrum": ratio(wide, n),
        "both_ways_accuracy": ratio(both, n),
        "image_prior_standardised": ratio(mean_prior, deviation),
        "prompt_match_standardised": ratio(mean_match, deviation),
    }


def _verdict_estimates(confusion: Floats) -> dict[str, Floats]:
    """From true positives, false negatives, false positives, true negatives on the last axis."""
    tp, fn, fp, tn = np.moveaxis(confusion, -1, 0)
    positives, negatives = tp + fn, fp + tn
    n = positives + negatives
    f1_one = ratio(2 * tp, np.where(positives > 0, 2 * tp + fp + fn, 0))
    f1_zero = ratio(2 * tn, np.where(negatives > 0, 2 * tn + fp + fn, 0))
    weighted = positives * np.nan_to_num(f1_one) + negatives * np.nan_to_num(f1_zero)
    margins = np.sqrt(positives * negatives) * np.sqrt((tp + fp) * (tn + fn))
    return {
        "accuracy": ratio(tp + tn, n),
        "f1": f1_one,
        "f1_weighted": ratio(weighted, n),
        "balanced_accuracy": 0.5 * (ratio(tp, positives) + ratio(tn, negatives)),
        "mcc": ratio(tp * tn - fp * fn, margins),
        "always_wide_accuracy": ratio(positives, n),
    }


def prompts_behind(pairs: Pairs, rows: Codes) -> dict[str, int]:
    """Per estimate, on how many prompts it rests: the smaller number where both verdicts are needed."""
    verdict, codes = pairs.verdict[rows], pairs.prompts.codes[rows]
    everything, decided = count_distinct(codes), count_distinct(codes[np.isin(verdict, (0, 1))])
    both = min(count_distinct(codes[verdict == 1]), count_distinct(codes[verdict == 0]))
    counts = dict.fromkeys(DESIGN_NAMES, everything) | dict.fromkeys(VERDICT_NAMES, decided)
    return counts | dict.fromkeys(BOTH_CLASSES, both)
