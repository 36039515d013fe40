"""How far a reward model's taste for an image outweighs what the prompt asks for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ._auroc import ScoreOrder, delong_interval, score_order, weighted_auroc
from ._bootstrap import (
    Resampling,
    Statistic,
    cluster_sums,
    point_estimates,
    ratio,
    replicate,
    resampling,
    wilson_interval,
    with_intervals,
)
from ._checks import (
    Codes,
    Floats,
    Labels,
    Names,
    Numbers,
    complete_column,
    label_column,
    require_rows,
    require_unique,
    row_labels,
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
PROPORTIONS = {
    "match_positive_rate": "n_pairs",
    "accuracy_under_original": "n_pairs",
    "accuracy_under_wide_spectrum": "n_pairs",
    "both_ways_accuracy": "n_pairs",
    "accuracy": "n_decided",
    "always_wide_accuracy": "n_decided",
}
_BOTH_CLASSES = "undefined: it needs at least one pair with verdict 1 and one with verdict 0"
_NO_SPREAD = "undefined: r(I_o, p_o) is constant or there is one pair only, so there is no spread to divide by"
_REASONS = {
    "prior_over_match": "undefined: the mean prompt match is 0",
    "image_prior_standardised": _NO_SPREAD,
    "prompt_match_standardised": _NO_SPREAD,
    "accuracy": "undefined: no pair has verdict 1 or 0",
    "f1": "undefined: no pair has verdict 1",
    "f1_weighted": "undefined: no pair has verdict 1 or 0",
    "auroc": _BOTH_CLASSES,
    "balanced_accuracy": _BOTH_CLASSES,
    "mcc": "undefined: all verdicts, or all decisions, are of one class",
    "always_wide_accuracy": "undefined: no pair has verdict 1 or 0",
}
_NO_RATIO = "not given: the interval of prompt_match includes 0 or is absent, so that the ratio may have either sign"


class _Pairs(NamedTuple):
    """Checked rows; `verdict` is NaN where there is none."""

    io_po: Floats
    io_pa: Floats
    ia_po: Floats
    ia_pa: Floats
    verdict: Floats
    prompts: Labels


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
    return prior, match


def reward_bias(
    r_io_po: Numbers,
    r_io_pa: Numbers,
    r_ia_po: Numbers,
    r_ia_pa: Numbers,
    *,
    verdict: Numbers | None = None,
    prompt_id: Names | None = None,
    group: Names | None = None,
    image_seed: Names | None = None,
    n_resamples: int = 2000,
    seed: int = 0,
    confidence_level: float = 0.95,
) -> dict[str, Any]:
    """Image prior against prompt match of a reward model, and how well it agrees with verdicts.

    A generator made I_o from the original prompt p_o and I_a from the wide-spectrum prompt p_a; the reward model
    scored both images under both prompts.

    Formula: per pair, Q = ½[(r(I_a,p_o) + r(I_a,p_a)) − (r(I_o,p_o) + r(I_o,p_a))] is the preference for I_a whatever
    the prompt, and X = ½[(r(I_a,p_a) − r(I_o,p_a)) − (r(I_a,p_o) − r(I_o,p_o))] is what changing the prompt moves
    toward I_a. `image_prior` = mean Q, `prompt_match` = mean X, `prior_over_match` = −mean Q / mean X,
    `match_positive_rate` = share of X > 0; the standardised forms are divided by the standard deviation (ddof 1) of
    r(I_o,p_o) over the same pairs. `accuracy_under_wide_spectrum` = share of r(I_a,p_a) > r(I_o,p_a),
    `accuracy_under_original` = share of r(I_o,p_o) > r(I_a,p_o), `both_ways_accuracy` = share of both at once: the raw
    scores are compared, strictly, since rounding in Q ± X would turn ties into decisions. With verdicts, over the
    pairs with verdict 1 or 0: the decision is 1 where r(I_a,p_a) > r(I_o,p_a), the score is their difference d
    (AUROC is the same for the logistic function of d, which would tie large differences); `accuracy`, `f1` (of class
    1), `f1_weighted` (by class size), `balanced_accuracy`, `mcc`, `auroc`, and `always_wide_accuracy`, the accuracy of
    always answering I_a.

    Inputs: four rewards, float (n,), higher = preferred, one row per prompt pair. Optional, each (n,): `verdict` 1
    (I_a fits p_a better), 0 (I_o), 0.5 (tie) or None; `prompt_id`, the bootstrap's cluster (omitted: every row its
    own); `group`; `image_seed`. (prompt_id, group, image_seed) is a row's key and may not repeat.

    Range: Q and X in reward units. A model blind to the prompt has X = 0 and both ways 0; an oracle Q = 0 and both
    ways 1; a random one both ways ¼. Accuracy over the two prompts has chance ½. A ratio above 1: taste outweighs the
    request. AUROC and balanced accuracy have chance ½, MCC 0.

    Ties and gaps: an equal score is not a right decision; ties and missing verdicts are left out of the verdict block
    and counted. What is undefined is an absent key with its reason in `notes`: no ratio where the interval of
    `prompt_match` includes 0, no AUROC without both classes, no interval for fewer than two prompts. No rows, unequal
    lengths, NaN, infinity or repeated keys raise ValueError.

    Returns a flat dict: every name above with `<name>_ci_low` and `<name>_ci_high` (percentile cluster bootstrap over
    prompts, `n_resamples`, `seed`, `confidence_level`), `<name>_wilson_low` and `_high` for proportions,
    `auroc_delong_low` and `_high` (both take rows as independent), `n_pairs`, `n_prompts`, `n_positive`, `n_negative`,
    `n_tie`, `coverage` (share of rows with each input), `notes`, `undefined_resamples`. With `group`, `by_group` holds
    the same per group and `macro` the means over groups, its ratio being that of the means.

    Source: Guo, Qian, Hasan and Du, "Position: Universal Aesthetic Alignment Narrows Artistic Expression", ICML 2026
    (arXiv 2512.11883) for the verdict block; the prior-against-match design is this package's.

    >>> result = reward_bias([4, 5], [3, 5], [1, 2], [4, 3], verdict=[1, 1], n_resamples=100)
    >>> result["image_prior"], result["prompt_match"], result["prior_over_match"]
    (-1.75, 1.25, 1.4)
    >>> result["accuracy_under_original"], result["accuracy_under_wide_spectrum"], result["both_ways_accuracy"]
    (1.0, 0.5, 0.5)
    >>> result["notes"]["auroc"]
    'undefined: it needs at least one pair with verdict 1 and one with verdict 0'
    """
    options = resampling(n_resamples, seed, confidence_level)
    rewards = {"r_io_po": r_io_po, "r_io_pa": r_io_pa, "r_ia_po": r_ia_po, "r_ia_pa": r_ia_pa}
    n = require_rows("r_io_po", r_io_po)
    io_po, io_pa, ia_po, ia_pa = (complete_column(name, values, n) for name, values in rewards.items())
    verdicts = np.full(n, np.nan) if verdict is None else verdict_column("verdict", verdict, n)
    keys = {"prompt_id": prompt_id, "group": group, "image_seed": image_seed}
    labels = {name: label_column(name, values, n) for name, values in keys.items() if values is not None}
    if prompt_id is not None:
        require_unique(labels)
    pairs = _Pairs(io_po, io_pa, ia_po, ia_pa, verdicts, labels.get("prompt_id", row_labels(n)))
    result = _analyse(pairs, labels.get("group"), options)
    result["coverage"] = {name: float(name in labels) for name in keys}
    result["coverage"]["verdict"] = float(np.mean(~np.isnan(verdicts)))
    return result


def _analyse(pairs: _Pairs, groups: Labels | None, options: Resampling) -> dict[str, Any]:
    """The pooled block, with `by_group` and `macro` where there are groups."""
    slices = [np.arange(len(pairs.verdict))]
    if groups is not None:
        slices += [np.flatnonzero(groups.codes == code) for code in range(len(groups.names))]
    statistic = _statistic(pairs, slices)
    n_clusters = len(pairs.prompts.names)
    points, replicates = point_estimates(statistic, n_clusters), replicate(statistic, n_clusters, options)
    blocks = [_block(pairs, rows, _column(points, k), _column(replicates, k), options) for k, rows in enumerate(slices)]
    result = blocks[0]
    if groups is not None:
        result["by_group"] = dict(zip(groups.names, blocks[1:], strict=True))
        counts = [_cluster_counts(pairs, rows) for rows in slices[1:]]
        result["macro"] = _macro(points, replicates, counts, groups.names, options)
    return result


def _column(table: Mapping[str, Floats], k: int) -> dict[str, Floats]:
    return {name: values[..., k] for name, values in table.items()}


def _terms(pairs: _Pairs, center: float) -> Floats:
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


def _statistic(pairs: _Pairs, slices: list[Codes]) -> Statistic:
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


def _order(pairs: _Pairs, rows: Codes) -> ScoreOrder | None:
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
        "prior_over_match": ratio(0.0 - mean_prior, mean_match),  # 0 - x: no -0.0
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


def _cluster_counts(pairs: _Pairs, rows: Codes) -> dict[str, int]:
    """Per estimate, on how many prompts it rests: the smaller number where both verdicts are needed."""
    verdict, codes = pairs.verdict[rows], pairs.prompts.codes[rows]
    everything, decided = len(np.unique(codes)), len(np.unique(codes[np.isin(verdict, (0, 1))]))
    both = min(len(np.unique(codes[verdict == 1])), len(np.unique(codes[verdict == 0])))
    counts = dict.fromkeys(DESIGN_NAMES, everything) | dict.fromkeys(VERDICT_NAMES, decided)
    return counts | dict.fromkeys(("auroc", "balanced_accuracy", "mcc"), both)


def _block(
    pairs: _Pairs, rows: Codes, points: Mapping[str, Any], replicates: Mapping[str, Floats], options: Resampling
) -> dict[str, Any]:
    """Everything about one slice of the rows, flat."""
    verdict = pairs.verdict[rows]
    counts = {
        "n_pairs": len(rows),
        "n_prompts": len(np.unique(pairs.prompts.codes[rows])),
        "n_positive": int((verdict == 1).sum()),
        "n_negative": int((verdict == 0).sum()),
        "n_tie": int((verdict == 0.5).sum()),
    }
    reasons = dict(_REASONS)
    if np.isnan(verdict).all():
        reasons |= dict.fromkeys(VERDICT_NAMES, "not given: it needs `verdict`")
    result = with_intervals(points, replicates, _cluster_counts(pairs, rows), reasons, options)
    sizes = counts | {"n_decided": counts["n_positive"] + counts["n_negative"]}
    for name, size in PROPORTIONS.items():
        if name in result:
            ends = wilson_interval(round(result[name] * sizes[size]), sizes[size], options.confidence_level)
            result[f"{name}_wilson_low"], result[f"{name}_wilson_high"] = ends
    margin = (pairs.ia_pa - pairs.io_pa)[rows]
    delong = delong_interval(margin[verdict == 1], margin[verdict == 0], options.confidence_level)
    if delong is not None:
        result["auroc_delong_low"], result["auroc_delong_high"] = delong
    elif "auroc" in result:
        result["notes"]["auroc_delong"] = "no interval: it needs two pairs of each verdict and overlapping scores"
    return counts | _without_loose_ratio(result)


def _without_loose_ratio(result: dict[str, Any]) -> dict[str, Any]:
    """`result` less the ratio where the sign of its denominator is open."""
    low, high = result.get("prompt_match_ci_low", -np.inf), result.get("prompt_match_ci_high", np.inf)
    if "prior_over_match" in result and low <= 0 <= high:
        for suffix in ("", "_ci_low", "_ci_high"):
            result.pop(f"prior_over_match{suffix}", None)
        result["undefined_resamples"].pop("prior_over_match", None)
        result["notes"].pop("prior_over_match_ci", None)
        result["notes"]["prior_over_match"] = _NO_RATIO
    return result


def _macro(
    points: Mapping[str, Floats],
    replicates: Mapping[str, Floats],
    counts: list[dict[str, int]],
    names: list[Any],
    options: Resampling,
) -> dict[str, Any]:
    """Means over groups; absent where one group has no value. Column 0 of the tables is the pooled slice."""
    averages = _group_means(points)
    resampled = _group_means(replicates)
    clusters = {name: min(count[name] for count in counts) for name in averages}
    reasons = {"prior_over_match": _REASONS["prior_over_match"]}
    for name in averages:
        missing = [str(group) for group, value in zip(names, points[name][1:], strict=True) if np.isnan(value)]
        if missing:
            reasons[name] = f"undefined in {len(missing)} of {len(names)} groups, the first being {missing[0]!r}"
    result = with_intervals(averages, resampled, clusters, reasons, options)
    return {"n_groups": len(names)} | _without_loose_ratio(result)


def _group_means(table: Mapping[str, Floats]) -> dict[str, Any]:
    means = {name: values[..., 1:].mean(axis=-1) for name, values in table.items()}
    means["prior_over_match"] = ratio(0.0 - means["image_prior"], means["prompt_match"])
    return means
