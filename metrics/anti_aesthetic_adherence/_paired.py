"""Paired tests over prompts: a prompt counts once, with the mean of its rows, however many images it has."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ._checks import Codes, Floats
from ._significance import holm, signed_ranks, weighted_effect_size, wilcoxon_signed_rank

ALL_TIED = "undefined: no prompt has a difference other than 0"


def prompt_means(difference: Floats, prompts: Codes) -> tuple[Floats, Codes]:
    """The mean difference of each prompt and the prompt, one row each; rows of NaN are left out."""
    known = ~np.isnan(difference)
    clusters, rows = np.unique(prompts[known], return_inverse=True)
    sums, sizes = (np.bincount(rows, weights=column) for column in (difference[known], np.abs(difference[known])))
    # rows that cancel leave a rounding error, which is no difference
    return np.where(np.abs(sums) > 1e-12 * sizes, sums, 0.0) / np.bincount(rows), clusters


def effect_size(difference: Floats, prompts: Codes) -> Callable[[Floats], Floats]:
    """Wilcoxon's r = −Z/√N of the prompts' mean differences, as a function of weights (resamples, prompts)."""
    means, clusters = prompt_means(difference, prompts)
    ranks = signed_ranks(means, np.zeros_like(means), clusters)
    return lambda weights: weighted_effect_size(ranks, weights)


def signed_rank_p(difference: Floats, prompts: Codes) -> tuple[float, float] | None:
    """Wilcoxon's p for "greater than 0", and two-sided; None where every prompt's mean difference is 0.

    Two-sided is twice the smaller of the two one-sided values, at most 1.
    """
    means, _ = prompt_means(difference, prompts)
    if not len(means):
        return None
    zeros = np.zeros_like(means)
    greater, less = wilcoxon_signed_rank(means, zeros).p, wilcoxon_signed_rank(zeros, means).p
    return None if greater is None or less is None else (greater, min(1.0, 2 * min(greater, less)))


def add_wilcoxon(
    blocks: Mapping[str, dict[str, Any]], difference: Floats, slices: Mapping[str, Codes], prompts: Codes
) -> None:
    """Adds `wilcoxon_p` (for "greater") and `wilcoxon_p_two_sided` to the block of every slice."""
    for name, block in blocks.items():
        rows = slices[name]
        p = signed_rank_p(difference[rows], prompts[rows])
        for key, value in zip(("wilcoxon_p", "wilcoxon_p_two_sided"), p or (None, None), strict=True):
            if value is None:
                block["notes"][key] = ALL_TIED
            else:
                block[key] = value


def add_holm(family: Iterable[dict[str, Any]], names: Sequence[str]) -> None:
    """Adds `<name>_holm` to the blocks of a family, adjusted for all the p-values `names` that they hold together."""
    tests = [(block, name) for block in family for name in names if name in block]
    for (block, name), p in zip(tests, holm([block[name] for block, name in tests]), strict=True):
        block[f"{name}_holm"] = float(p)
