"""Two reward models on the same pairs: how their figures differ, and whether chance could have done it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.special import ndtr

from ._auroc import placements
from ._bootstrap import Draws, Resampling, Statistic, draw, interval_cautions, resampling, with_intervals
from ._checks import Codes, Flags, Floats, Names, Numbers, complete_column
from ._design import BOTH_CLASSES, Pairs, design_statistic, group_slices, prompts_behind, read_pairs
from ._ranks import clustered_t_test
from ._reward_bias import ENOUGH_OF_A_VERDICT, FEW_OF_A_VERDICT, drop_estimate, drop_loose_ratio, verdict_reasons
from ._significance import holm, mcnemar_exact

RIVAL = "_rival"
NO_DIFFERENCE = ("image_prior", "prompt_match", "always_wide_accuracy")
"""In the units of a reward model, or the same for every model: given for each, never subtracted."""

_MISSING_P = {
    "accuracy_mcnemar_p": "not given: no pair has verdict 1 or 0",
    "accuracy_cluster_p": "not given: no pair has verdict 1 or 0",
    "auroc_delong_p": "undefined: it needs two pairs of each verdict, and there is no variance without a difference",
}


def compare_reward_models(
    r_io_po: Numbers,
    r_io_pa: Numbers,
    r_ia_po: Numbers,
    r_ia_pa: Numbers,
    r_io_po_rival: Numbers,
    r_io_pa_rival: Numbers,
    r_ia_po_rival: Numbers,
    r_ia_pa_rival: Numbers,
    *,
    verdict: Numbers | None = None,
    prompt_id: Names | None = None,
    group: Names | None = None,
    image_seed: Names | None = None,
    n_resamples: int = 2000,
    seed: int = 0,
    confidence_level: float = 0.95,
    interval: str = "percentile",
) -> dict[str, Any]:
    """Paired comparison of two reward models that scored the same image pairs under the same prompts.

    Formula: every figure of `reward_bias` for the first model under its own name, for the second as `<name>_rival`, and
    `<name>_difference`, first minus second, with an interval from common resamples of the prompts; Q and X themselves
    are in the units of a model and have no difference. For the three accuracies of the 2×2 design and, with verdicts,
    `accuracy`: `<name>_mcnemar_p`, exact and two-sided, on the pairs that one model alone gets right, and
    `<name>_cluster_p`, of the cluster-robust t test of the difference (as in `pairwise_p`). `auroc_delong_p`: DeLong's
    test of two areas on the same pairs, two-sided, z = difference / its standard error. `<name>_p_holm` are these
    adjusted, the cluster-robust ones and the others as a family each, groups apart.

    Inputs: eight rewards, float (n,), one row per prompt pair; those in `_rival` are the second model's. Optional as in
    `reward_bias`: `verdict`, `prompt_id`, `group`, `image_seed`.

    Range: differences of rates in [−1, 1]; positive: the first model is higher. p-values in [0, 1].

    Ties and gaps: as in `reward_bias`; a difference is absent where either figure is, with its reason in `notes`.
    McNemar's and DeLong's tests take rows as independent: where prompts repeat, trust `<name>_cluster_p` and the
    interval of the difference.
    No rows, unequal lengths, NaN, infinity or repeated keys raise ValueError.

    Returns a flat dict with `n_pairs`, `n_prompts`, `notes`, `cautions`, `undefined_resamples`; with `group`,
    `by_group` holds the same per group.

    Source: McNemar, Psychometrika 12 (1947); DeLong, DeLong and Clarke-Pearson, Biometrics 44 (1988).

    >>> own, rival = ([4, 5, 6], [3, 3, 5], [1, 2, 2], [4, 4, 6]), ([4, 5, 6], [4, 5, 6], [1, 2, 2], [1, 2, 2])
    >>> result = compare_reward_models(*own, *rival, n_resamples=100)
    >>> result["both_ways_accuracy"], result["both_ways_accuracy_rival"], result["both_ways_accuracy_difference"]
    (1.0, 0.0, 1.0)
    >>> result["both_ways_accuracy_mcnemar_p"]
    0.25
    """
    options = resampling(n_resamples, seed, confidence_level, interval)
    own = {"r_io_po": r_io_po, "r_io_pa": r_io_pa, "r_ia_po": r_ia_po, "r_ia_pa": r_ia_pa}
    second = (r_io_po_rival, r_io_pa_rival, r_ia_po_rival, r_ia_pa_rival)
    keys = {"prompt_id": prompt_id, "group": group, "image_seed": image_seed}
    pairs, groups = read_pairs(own, verdict, keys)
    n = len(pairs.verdict)
    columns = [complete_column(f"{name}{RIVAL}", values, n) for name, values in zip(own, second, strict=True)]
    both = (pairs, Pairs(pairs.prompts, pairs.verdict, *columns))
    slices = group_slices(groups, n)
    draws = draw(_both(both, slices), len(pairs.prompts.names), options)
    blocks = [_block(both, rows, draws.of(k), options) for k, rows in enumerate(slices)]
    result = blocks[0]
    if groups is not None:
        result["by_group"] = dict(zip(groups.names, blocks[1:], strict=True))
    return result


def _both(both: tuple[Pairs, Pairs], slices: list[Codes]) -> Statistic:
    own, rival = (design_statistic(pairs, slices) for pairs in both)

    def statistic(weights: Floats) -> dict[str, Floats]:
        first, second = own(weights), rival(weights)
        result = first | {f"{name}{RIVAL}": values for name, values in second.items()}
        return result | {
            f"{name}_difference": first[name] - second[name] for name in first if name not in NO_DIFFERENCE
        }

    return statistic


def _block(both: tuple[Pairs, Pairs], rows: Codes, draws: Draws, options: Resampling) -> dict[str, Any]:
    """Everything about one slice of the rows, flat."""
    pairs = both[0]
    behind = prompts_behind(pairs, rows)
    suffixes = ("", RIVAL, "_difference")
    clusters = {f"{name}{suffix}": count for name, count in behind.items() for suffix in suffixes}
    reasons = verdict_reasons(pairs.verdict[rows])
    result = with_intervals(
        draws, clusters, {f"{name}{end}": why for name, why in reasons.items() for end in suffixes}, options
    )
    loose = [suffix for suffix in ("", RIVAL) if drop_loose_ratio(result, suffix)]
    if loose:
        drop_estimate(result, "prior_over_match_difference", "not given: one of the two ratios is not")
    cautions = interval_cautions(result, behind["image_prior"])
    for name in BOTH_CLASSES:
        if f"{name}_difference" in result and behind[name] < ENOUGH_OF_A_VERDICT:
            cautions[f"{name}_difference"] = FEW_OF_A_VERDICT
    p_values = _adjusted(_independent_p(both, rows)) | _adjusted(_cluster_p(both, rows))
    for name, missing in _MISSING_P.items():
        if name not in p_values:
            result["notes"][name] = missing
    sizes = {"n_pairs": len(rows), "n_prompts": behind["image_prior"]}
    return sizes | result | {"cautions": cautions} | p_values


def _adjusted(p_values: Mapping[str, float]) -> dict[str, float]:
    """Each as it is, and adjusted by Holm for all of them."""
    adjusted = holm(list(p_values.values()))
    return {**p_values, **{f"{name}_holm": float(p) for name, p in zip(p_values, adjusted, strict=True)}}


def _independent_p(both: tuple[Pairs, Pairs], rows: Codes) -> dict[str, float]:
    """Tests that take rows as independent."""
    first, second = (_right(pairs, rows) for pairs in both)
    p = {f"{name}_mcnemar_p": mcnemar_exact(first[name], second[name]).p for name in first}
    verdict = both[0].verdict[rows]
    margins = [(pairs.ia_pa - pairs.io_pa)[rows] for pairs in both]
    delong = delong_test(*((margin[verdict == 1], margin[verdict == 0]) for margin in margins))
    return p if delong is None else p | {"auroc_delong_p": delong}


def _cluster_p(both: tuple[Pairs, Pairs], rows: Codes) -> dict[str, float]:
    """Tests of the mean difference over prompts."""
    first, second = (_right(pairs, rows) for pairs in both)
    codes = both[0].prompts.codes[rows]
    decided = np.isin(both[0].verdict[rows], (0, 1))
    clusters = {name: codes[decided] if name == "accuracy" else codes for name in first}
    gaps = {name: first[name].astype(np.float64) - second[name] for name in first}
    if len(np.unique(codes)) < 2:
        return {}
    return {f"{name}_cluster_p": clustered_t_test(gaps[name], clusters[name])[1] for name in first}


def _right(pairs: Pairs, rows: Codes) -> dict[str, Flags]:
    """Which of the rows a model decides rightly, in each of the senses that are tested."""
    original, wide = (pairs.io_po > pairs.ia_po)[rows], (pairs.ia_pa > pairs.io_pa)[rows]
    right = {"accuracy_under_original": original, "accuracy_under_wide_spectrum": wide}
    right["both_ways_accuracy"] = original & wide
    decided = np.isin(pairs.verdict[rows], (0, 1))
    if decided.any():
        right["accuracy"] = wide[decided] == (pairs.verdict[rows][decided] == 1)
    return right


def delong_test(first: tuple[Floats, Floats], second: tuple[Floats, Floats]) -> float | None:
    """DeLong's two-sided p-value for two AUROCs on the same pairs; None where their difference has no variance.

    Each argument holds the scores of the positives (m,) and of the negatives (n,), in the same order in both.
    """
    if min(len(first[0]), len(first[1])) < 2:
        return None
    wins = placements(*first) - placements(*second)
    losses = placements(first[1], first[0]) - placements(second[1], second[0])
    variance = wins.var(ddof=1) / len(wins) + losses.var(ddof=1) / len(losses)
    return float(2 * ndtr(-abs(wins.mean()) / np.sqrt(variance))) if variance > 0 else None
