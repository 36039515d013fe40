"""How far a reward model's taste for an image outweighs what the prompt asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ._auroc import delong_interval
from ._bootstrap import (
    Draws,
    Resampling,
    add_wilson,
    draw,
    interval_cautions,
    ratio,
    resampling,
    with_intervals,
)
from ._checks import Codes, Floats, Labels, Names, Numbers, count_distinct, flag_column
from ._design import (
    BOTH_CLASSES,
    DESIGN_NAMES,
    VERDICT_NAMES,
    Pairs,
    design_statistic,
    group_slices,
    prompts_behind,
    read_pairs,
    select_pairs,
)

ESTIMATES = DESIGN_NAMES + VERDICT_NAMES
PROPORTIONS = (
    "match_positive_rate",
    "accuracy_under_original",
    "accuracy_under_wide_spectrum",
    "both_ways_accuracy",
    "accuracy",
    "always_wide_accuracy",
)
_BOTH_CLASSES = "undefined: it needs at least one pair with verdict 1 and one with verdict 0"
_NO_SPREAD = "undefined: r(I_o, p_o) is constant or there is one pair only, so there is no spread to divide by"
REASONS = {
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
ENOUGH_OF_A_VERDICT = 50
"""From so many prompts of each verdict on, simulated intervals of AUROC hold what they promise."""

FEW_OF_A_VERDICT = f"fewer than {ENOUGH_OF_A_VERDICT} prompts of one verdict: its intervals may be far too narrow"
_NEGATIVE_MATCH = "prompt_match is below 0: the prompt moves this model the wrong way, so read Q and X, not their ratio"
_NO_RATIO = "not given: the interval of prompt_match includes 0 or is absent, so that the ratio may have either sign"


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
    controlled: Numbers | None = None,
    n_resamples: int = 2000,
    seed: int = 0,
    confidence_level: float = 0.95,
    interval: str = "percentile",
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
    `controlled` 1 where I_a shows by construction what p_a asks for, else 0.

    Range: Q and X in reward units. A model blind to the prompt has X = 0 and both ways 0; an oracle Q = 0 and both
    ways 1; a random one both ways ¼. Accuracy over the two prompts has chance ½. A ratio above 1: taste outweighs the
    request. AUROC and balanced accuracy have chance ½, MCC 0.

    Ties and gaps: an equal score is not a right decision; ties and missing verdicts are left out of the verdict block
    and counted. What is undefined is an absent key with its reason in `notes`: no ratio where the interval of
    `prompt_match` includes 0, no AUROC without both classes, no interval for fewer than two prompts. No rows, unequal
    lengths, NaN, infinity or repeated keys raise ValueError.

    Returns a flat dict: every name above with `<name>_ci_low` and `<name>_ci_high` (cluster bootstrap over prompts:
    `n_resamples`, `seed`, `confidence_level`, `interval` "percentile" or "bca"), `<name>_wilson_low` and `_high` for
    proportions, `auroc_delong_low` and `_high` (both take rows as independent), `n_pairs`, `n_prompts`, `n_positive`,
    `n_negative`, `n_tie`, `coverage` (share of rows with each input), `notes`, `cautions` (name to why it is to be read
    with care), `undefined_resamples`. With `group`, `by_group` holds the same per group and `macro` the means over
    groups, its ratio being that of the means. A generator may have failed to follow p_a, and over all pairs the reward
    model is then blamed for being right: `verified` holds the same figures, the verdict block apart, over the pairs
    with verdict 1, and `controlled` over those flagged so.

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
    options = resampling(n_resamples, seed, confidence_level, interval)
    rewards = {"r_io_po": r_io_po, "r_io_pa": r_io_pa, "r_ia_po": r_ia_po, "r_ia_pa": r_ia_pa}
    keys = {"prompt_id": prompt_id, "group": group, "image_seed": image_seed}
    pairs, groups = read_pairs(rewards, verdict, keys)
    subsets = {}
    if verdict is not None:
        subsets["verified"] = pairs.verdict == 1
    if controlled is not None:
        subsets["controlled"] = flag_column("controlled", controlled, len(pairs.verdict))
    result = _analyse(pairs, groups, options)
    result["coverage"] = {name: float(values is not None) for name, values in keys.items()}
    result["coverage"]["verdict"] = float(np.mean(~np.isnan(pairs.verdict)))
    for name, flags in subsets.items():
        if flags.any():
            result[name] = _analyse(*select_pairs(pairs, groups, flags), options, DESIGN_NAMES)
        else:
            result["notes"][name] = f"not given: no pair is {name}"
    return result


def _analyse(
    pairs: Pairs, groups: Labels | None, options: Resampling, names: Sequence[str] = ESTIMATES
) -> dict[str, Any]:
    """The pooled block of the estimates `names`, with `by_group` and `macro` where there are groups."""
    slices = group_slices(groups, len(pairs.verdict))
    n_clusters = len(pairs.prompts.names)
    draws = draw(design_statistic(pairs, slices), n_clusters, options)
    draws = draws.map(lambda table: {name: table[name] for name in names})
    blocks = [_block(pairs, rows, draws.of(k), options) for k, rows in enumerate(slices)]
    result = blocks[0]
    if groups is not None:
        result["by_group"] = dict(zip(groups.names, blocks[1:], strict=True))
        counts = [prompts_behind(pairs, rows) for rows in slices[1:]]
        result["macro"] = _macro(draws, counts, groups.names, options)
    return result


def _block(pairs: Pairs, rows: Codes, draws: Draws, options: Resampling) -> dict[str, Any]:
    """Everything about one slice of the rows, flat."""
    verdict = pairs.verdict[rows]
    clusters = prompts_behind(pairs, rows)
    result = with_intervals(draws, clusters, verdict_reasons(verdict), options)
    n_decided = int(np.isin(verdict, (0, 1)).sum())
    sizes = {name: n_decided if name in VERDICT_NAMES else len(rows) for name in PROPORTIONS}
    add_wilson(result, sizes, options)
    drop_loose_ratio(result)
    counts = {"n_pairs": len(rows), "n_prompts": count_distinct(pairs.prompts.codes[rows])}
    result = counts | _with_cautions(result, clusters)
    return result | _of_verdicts(pairs, rows, result, options) if "auroc" in draws.point else result


def _of_verdicts(pairs: Pairs, rows: Codes, result: dict[str, Any], options: Resampling) -> dict[str, Any]:
    """How many verdicts there are of each kind, and DeLong's interval."""
    verdict = pairs.verdict[rows]
    counts = {"n_positive": 1.0, "n_negative": 0.0, "n_tie": 0.5}
    found: dict[str, Any] = {name: int((verdict == value).sum()) for name, value in counts.items()}
    margin = (pairs.ia_pa - pairs.io_pa)[rows]
    delong = delong_interval(margin[verdict == 1], margin[verdict == 0], options.confidence_level)
    if delong is not None:
        found["auroc_delong_low"], found["auroc_delong_high"] = delong
    elif "auroc" in result:
        result["notes"]["auroc_delong"] = "no interval: it needs two pairs of each verdict and overlapping scores"
    return found


def verdict_reasons(verdict: Floats) -> dict[str, str]:
    """Why an estimate over pairs with these verdicts can be absent."""
    if np.isnan(verdict).all():
        return REASONS | dict.fromkeys(VERDICT_NAMES, "not given: it needs `verdict`")
    return REASONS


def drop_loose_ratio(result: dict[str, Any], suffix: str = "") -> bool:
    """Takes out the ratio where the sign of its denominator is open, and says whether it is absent."""
    name, match = f"prior_over_match{suffix}", f"prompt_match{suffix}"
    low, high = result.get(f"{match}_ci_low", -np.inf), result.get(f"{match}_ci_high", np.inf)
    if name in result and low <= 0 <= high:
        drop_estimate(result, name, _NO_RATIO)
    return name not in result


def drop_estimate(result: dict[str, Any], name: str, reason: str) -> None:
    """Takes an estimate out of `result`, with its interval, and notes the reason."""
    for suffix in ("", "_ci_low", "_ci_high"):
        result.pop(f"{name}{suffix}", None)
    result["undefined_resamples"].pop(name, None)
    result["notes"].pop(f"{name}_ci", None)
    result["notes"][name] = reason


def _with_cautions(result: dict[str, Any], clusters: Mapping[str, int]) -> dict[str, Any]:
    cautions = interval_cautions(result, clusters["image_prior"])
    needs_both = (name for name in BOTH_CLASSES if name in result and clusters[name] < ENOUGH_OF_A_VERDICT)
    cautions |= dict.fromkeys(needs_both, FEW_OF_A_VERDICT)
    if "prior_over_match" in result and result["prompt_match"] < 0:
        cautions["prior_over_match"] = _NEGATIVE_MATCH
    return result | {"cautions": cautions}


def _macro(draws: Draws, counts: list[dict[str, int]], names: list[Any], options: Resampling) -> dict[str, Any]:
    """Means over groups; absent where one group has no value. Slice 0 of the draws is the pooled one."""
    averages = draws.map(_group_means)
    clusters = {name: min(count[name] for count in counts) for name in averages.point}
    reasons = {"prior_over_match": REASONS["prior_over_match"]}
    for name in averages.point:
        missing = [str(group) for group, value in zip(names, draws.point[name][1:], strict=True) if np.isnan(value)]
        if missing:
            reasons[name] = f"undefined in {len(missing)} of {len(names)} groups, the first being {missing[0]!r}"
    result = with_intervals(averages, clusters, reasons, options)
    drop_loose_ratio(result)
    return {"n_groups": len(names)} | _with_cautions(result, clusters)


def _group_means(table: Mapping[str, Floats]) -> dict[str, Floats]:
    means: dict[str, Floats] = {name: values[..., 1:].mean(axis=-1) for name, values in table.items()}
    means["prior_over_match"] = ratio(-means["image_prior"], means["prompt_match"]) + 0.0  # no -0.0
    return means
