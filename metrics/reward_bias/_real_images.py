"""Real photographs against clean counterparts: does a reward model prefer the clean image to the one described?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ._bootstrap import cluster_sums, ratio, resampling
from ._both_prompts import (
    DESIGN_COLUMNS,
    RATIO,
    Rewards,
    design_columns,
    ratio_reasons,
    read_rewards,
    settle_ratio,
    share_of,
)
from ._checks import Codes, Floats, Labels, Names, Numbers, as_rows
from ._slices import Study, blocks, keyed_prompts

_UNDER_CLEAN = ("gap_under_clean_caption", "gap_change", "beaten_rate_under_clean_caption", *DESIGN_COLUMNS)
_RATES = ("beaten_rate", "beaten_rate_under_clean_caption", "match_positive_rate", "both_ways_accuracy")
_NO_SPREAD = "undefined: r(I_o, p_o) is constant or there is one pair only, so there is no spread to divide by"


def real_image_gap(
    r_io_pa: Numbers,
    r_ia_pa: Numbers,
    *,
    elements: Any = None,
    r_io_po: Numbers | None = None,
    r_ia_po: Numbers | None = None,
    prompt_id: Names | None = None,
    image_seed: Names | None = None,
    n_resamples: int = 2000,
    seed: int = 0,
    confidence_level: float = 0.95,
    interval: str = "percentile",
) -> dict[str, Any]:
    """By how much a reward model prefers a clean generated image to a real photograph that the caption describes.

    I_a is a real photograph with effects outside mainstream taste and p_a a caption that describes it, effects
    included; p_o is a short clean caption of the same content and I_o the image generated from it.

    Formula: `gap` = mean r(I_o,p_a) − r(I_a,p_a), `beaten_rate` = share of r(I_o,p_a) > r(I_a,p_a). With rewards under
    p_o: `gap_under_clean_caption` = mean r(I_o,p_o) − r(I_a,p_o), `beaten_rate_under_clean_caption` = share of
    r(I_o,p_o) > r(I_a,p_o), `gap_change` = gap − gap_under_clean_caption, `both_ways_accuracy` = share of photographs
    that beat the clean image under p_a and lose to it under p_o, `gap_standardised` = gap / standard deviation (ddof 1)
    of r(I_o,p_o), and `image_prior`, `prompt_match`, `match_positive_rate`, `prior_over_match` as in `reward_bias`, so
    that gap = −(image_prior + prompt_match) and gap_change = −2 · prompt_match.

    Inputs: two rewards, float (n,), higher = preferred, one row per photograph and clean counterpart. Optional, each
    (n,): `elements`, a list of names per row (None or an empty list: it carries none); the two rewards under p_o (both
    or neither); `prompt_id`, the photograph, which is the bootstrap's cluster (omitted: every row its own);
    `image_seed`, of the clean counterpart. (prompt_id, image_seed) is a row's key and may not repeat.

    Range: gaps in reward units; above 0, the clean image wins although the caption describes the photograph. A model
    that reads the caption has gap < 0 and gap_under_clean_caption > 0: under p_o the clean image is right to win. A
    `gap_change` of 0 means that the gap is there whatever the caption asks for, which is taste alone; below 0, the
    caption moves the model toward what it describes. `beaten_rate` and `both_ways_accuracy` are in [0, 1], with chance
    ½ and ¼ (a model blind to the caption: 0). `gap_standardised` is in units of the spread that the polished default
    has under its own caption, the unit of the standardised forms of `reward_bias`: r(I_o,p_a) would mix in how ill the
    clean images fit captions that were not written for them.

    Ties and gaps: an equal reward does not beat; `n_tie` counts those under p_a. What is undefined is an absent key
    with its reason in `notes`. There is no p-value of a signed-rank test: the interval says whether the mean gap leaves
    0, and the test would take rows as independent. Intervals of elements are each on their own, not for all at once. No
    rows, unequal lengths, a missing reward, NaN, infinity or repeated keys raise ValueError.

    Returns a flat dict: every name above with `<name>_ci_low` and `<name>_ci_high` (cluster bootstrap over prompts:
    `n_resamples`, `seed`, `confidence_level`, `interval` "percentile" or "bca"), `<name>_wilson_low` and `_high` for
    shares (they take rows as independent), `n_pairs`, `n_prompts`, `n_tie`, `coverage`, `notes`, `cautions`,
    `undefined_resamples`; with `elements`, `by_element` holds the same over the rows that carry each one.

    Source: Guo, Qian, Hasan and Du, "Position: Universal Aesthetic Alignment Narrows Artistic Expression", ICML 2026
    (arXiv 2512.11883) for the gap; the clean-caption control and the intervals are this package's.

    >>> clean, real, found = [9, 8, 6], [4, 5, 8], [["blur"], ["blur", "light_leak"], ["light_leak"]]
    >>> result = real_image_gap(clean, real, elements=found, n_resamples=100)
    >>> result["gap"], result["by_element"]["blur"]["gap"], result["by_element"]["light_leak"]["beaten_rate"]
    (2.0, 4.0, 0.5)
    >>> control = real_image_gap(clean, real, r_io_po=[9, 9, 8], r_ia_po=[3, 5, 6], n_resamples=100)
    >>> control["gap_under_clean_caption"], control["gap_change"]
    (4.0, -2.0)
    """
    options = resampling(n_resamples, seed, confidence_level, interval)
    rewards, n = read_rewards(r_io_pa, r_ia_pa, r_io_po, r_ia_po)
    carriers = {} if elements is None else _carriers(elements, n)
    prompts = keyed_prompts(n, prompt_id=prompt_id, image_seed=image_seed)
    study = Study(
        columns=_gap_columns(rewards),
        slices={"": np.arange(n)} | carriers,
        prompts=prompts,
        derived=RATIO,
        proportions=_RATES,
        reasons={"gap_standardised": _NO_SPREAD} | ratio_reasons(rewards, (*_UNDER_CLEAN, "gap_standardised")),
        statistics=lambda rows: {"gap_standardised": _standardised(rewards, prompts, rows)},
    )
    found = blocks(study, options)
    for name, rows in study.slices.items():
        settle_ratio(found[name])
        found[name]["n_tie"] = int((rewards.io_pa == rewards.ia_pa)[rows].sum())
    result = found.pop("")
    given = {"r_io_po": r_io_po, "r_ia_po": r_ia_po, "prompt_id": prompt_id, "image_seed": image_seed}
    result["coverage"] = {name: float(value is not None) for name, value in given.items()}
    carrying = np.unique(np.concatenate([*carriers.values()])) if carriers else ()
    result["coverage"]["elements"] = len(carrying) / n
    return result | ({} if elements is None else {"by_element": found})


def _gap_columns(rewards: Rewards) -> dict[str, Floats]:
    gap, gap_under_clean = rewards.io_pa - rewards.ia_pa, rewards.io_po - rewards.ia_po
    return {
        "gap": gap,
        "beaten_rate": (rewards.io_pa > rewards.ia_pa).astype(np.float64),
        "gap_under_clean_caption": gap_under_clean,
        "gap_change": gap - gap_under_clean,
        "beaten_rate_under_clean_caption": share_of(rewards.io_po > rewards.ia_po, rewards),
    } | design_columns(rewards)


def _standardised(rewards: Rewards, prompts: Labels, rows: Codes) -> Callable[[Floats], Floats]:
    """The gap of some rows over the standard deviation of r(I_o,p_o), as a function of the weights."""
    if not rewards.under_both:
        return lambda weights: np.full(len(weights), np.nan)
    spread = rewards.io_po - np.median(rewards.io_po)
    terms = np.stack([np.ones_like(spread), rewards.io_pa - rewards.ia_pa, spread, spread**2], axis=1)
    sums = cluster_sums(terms[rows], prompts.codes[rows], len(prompts.names))

    def statistic(weights: Floats) -> Floats:
        n, gap, first, second = (weights @ sums).T
        square = second - ratio(first**2, n)
        # below this share of the squares the difference is rounding, not variance
        deviation = np.sqrt(ratio(np.where(square > 1e-12 * second, square, 0.0), np.maximum(n - 1, 0)))
        return ratio(ratio(gap, n), deviation)

    return statistic


def _carriers(elements: Any, n: int) -> dict[str, Codes]:
    """The rows that carry each element, by its name."""
    lists = as_rows("elements", elements)
    if len(lists) != n:
        raise ValueError(f"elements: expected {n} rows like the other columns, got {len(lists)}; give one list per row")
    carriers: dict[str, list[int]] = {}
    for row, given in enumerate(lists):
        names = () if given is None else given
        listed = isinstance(names, list | tuple | np.ndarray)
        if not listed or not all(isinstance(name, str) and name for name in names):
            raise ValueError(
                f"elements, row {row} (counted from 0): expected a list of non-empty names, or None, got {given!r}"
            )
        for name in {str(name) for name in names}:
            carriers.setdefault(name, []).append(row)
    return {name: np.array(carriers[name], dtype=np.intp) for name in sorted(carriers)}
