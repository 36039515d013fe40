"""Planning: how many prompts tell two models apart, and how far a ranking on fewer prompts agrees with the whole.

The difference of two models on prompt p and seed s is taken as D_ps = δ + a_p + e_ps with independent parts. Its mean
over P prompts with S seeds each then has the variance var_prompt / P + var_seed / (P·S): more seeds shrink the second
part alone, more prompts shrink both.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from scipy.special import nctdtr, stdtrit

from ._bootstrap import Resampling, ratio, resampling
from ._checks import Floats, Names, Numbers, complete_column, label_column, require_rows

_MOST_PROMPTS = 2**50  # beyond it the power function of SciPy is no longer exact to one prompt
_BLOCK = 256  # draws worked on at a time
_ROUNDING = 1e-12  # differences below this share of what they are differences of are rounding

_ONE_ROW = "unknown: every prompt has one row, so `prompt` holds the variance of prompts and seeds together"
_NEGATIVE = "the estimate is below 0 (the rows of a prompt differ by more than the prompts do) and is reported as 0"


class Components(NamedTuple):
    """Variances of the difference of two models, `prompt` between prompts and `seed` between the rows of a prompt.

    `seed` is None where every prompt has one row: `prompt` then holds both parts. `notes` gives the reason.
    """

    prompt: float
    seed: float | None
    n_prompts: int
    n_rows: int
    notes: dict[str, str]


class Agreement(NamedTuple):
    """How a ranking on fewer prompts agrees with the ranking on all of them: see `rank_agreement`."""

    kendall_tau: float
    low: float
    high: float
    same_best: float
    kendall_tau_rest: float | None
    undefined_resamples: dict[str, int]


def variance_components(values_a: Numbers, values_b: Numbers, prompts: Names) -> Components:
    """How much of the difference of two models varies between prompts, and how much between seeds of one prompt.

    Formula: one-way random-effects analysis of variance of D = a − b. With n_i rows of prompt i, N rows and k prompts,
    MSB = Σ n_i (D̄_i − D̄)² / (k − 1) and MSW = Σ (D − D̄_i)² / (N − k); var_seed = MSW and var_prompt =
    (MSB − MSW) / n0 with n0 = (N − Σ n_i² / N) / (k − 1).
    Inputs: `values_a`, `values_b` float (n,), a row each per prompt and seed; `prompts`, the prompt of each row, (n,).
    Range: variances from 0, in squared units of the values; swapping the models changes nothing.
    Gaps: with one row per prompt `seed` is None and `prompt` the variance (ddof 1) of both parts together; a negative
    `prompt` is reported as 0, and `notes` says so. Fewer than two prompts, a missing value, NaN or infinity raise
    ValueError.
    Source: Searle, Casella and McCulloch, Variance Components (1992), section 3.6.

    >>> components = variance_components([3, 5, 8, 10], [1, 1, 2, 2], ["a", "a", "b", "b"])
    >>> components.prompt, components.seed
    (7.0, 2.0)
    """
    n = require_rows("values_a", values_a)
    a, b = complete_column("values_a", values_a, n), complete_column("values_b", values_b, n)
    labels = label_column("prompts", prompts, n)
    k = len(labels.names)
    if k < 2:
        raise ValueError(f"prompts: expected at least two different ones, got {labels.names[0]!r} alone")
    difference, sizes = a - b, np.bincount(labels.codes).astype(np.float64)
    means = np.bincount(labels.codes, weights=difference) / sizes
    floor = (_ROUNDING * max(np.abs(a).max(), np.abs(b).max())) ** 2
    between = _above(float((sizes * (means - difference.mean()) ** 2).sum()) / (k - 1), floor)
    if n == k:
        return Components(between, None, k, n, {"seed": _ONE_ROW})
    within = _above(float(((difference - means[labels.codes]) ** 2).sum()) / (n - k), floor)
    prompt = (between - within) / ((n - float((sizes**2).sum()) / n) / (k - 1))
    return Components(max(prompt, 0.0), within, k, n, {"prompt": _NEGATIVE} if prompt < 0 else {})


def _above(square: float, floor: float) -> float:
    return square if square > floor else 0.0


def prompts_needed(
    components: Components,
    difference: float,
    *,
    n_seeds: int = 1,
    power: float = 0.8,
    confidence_level: float = 0.95,
    comparisons: int = 1,
) -> int:
    """The fewest prompts with which a paired t test tells two models apart that differ by `difference`.

    Formula: the smallest P ≥ 2 at which the two-sided t test of the P prompt means at α = (1 − confidence_level) /
    comparisons rejects with probability `power` or more, by the noncentral t distribution with P − 1 degrees of freedom
    and noncentrality |difference| · √P / √(var_prompt + var_seed / n_seeds).
    Inputs: `components` of the difference of such models; `difference` in units of the values, not 0; `n_seeds` per
    prompt; `comparisons`, the number of pairs tested together: α / comparisons is what Holm asks of the smallest of
    that many p-values, so it is the worst case.
    Range: from 2; a smaller difference, a higher power and more comparisons need more.
    Undefined: no variance, more than one seed where their variance is unknown, and a number of prompts above 2**50
    raise ValueError.

    >>> components = Components(prompt=0.5, seed=0.5, n_prompts=300, n_rows=600, notes={})
    >>> prompts_needed(components, 0.2), prompts_needed(components, 0.2, n_seeds=4)
    (199, 125)
    """
    alpha = _alpha(power, confidence_level, comparisons)
    if not isinstance(difference, int | float | np.number) or not np.isfinite(difference) or difference == 0:
        raise ValueError(f"difference: expected a finite number other than 0, got {difference!r}")
    spread = _spread(components, n_seeds)
    effect = abs(float(difference)) / spread
    low, high = 1, 2
    while _power(high, effect, alpha) < power:
        low, high = high, 2 * high
        if high > _MOST_PROMPTS:
            raise ValueError(f"difference: expected more than {difference!r} beside a standard deviation of {spread:g}")
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _power(middle, effect, alpha) >= power else (middle, high)
    return high


def detectable_difference(
    components: Components,
    n_prompts: int,
    n_seeds: int = 1,
    *,
    power: float = 0.8,
    confidence_level: float = 0.95,
    comparisons: int = 1,
) -> float:
    """The smallest difference of two models that `n_prompts` prompts with `n_seeds` seeds each show.

    Formula: the inverse of `prompts_needed`: the difference at which the same test has exactly this power.
    Inputs: as there; `n_prompts` from 2.
    Range: above 0, in units of the values; more prompts show smaller differences.
    Undefined: as in `prompts_needed`.

    >>> components = Components(prompt=0.5, seed=0.5, n_prompts=300, n_rows=600, notes={})
    >>> round(detectable_difference(components, 199), 3), round(detectable_difference(components, 60), 3)
    (0.2, 0.368)
    """
    alpha = _alpha(power, confidence_level, comparisons)
    n_prompts = _whole("n_prompts", n_prompts, 2)
    spread = _spread(components, n_seeds)
    low, high = 0.0, 1.0
    while _power(n_prompts, high, alpha) < power:
        low, high = high, 2 * high
    while (middle := (low + high) / 2) not in (low, high):
        low, high = (low, middle) if _power(n_prompts, middle, alpha) >= power else (middle, high)
    return high * spread


def _power(n: int, effect: float, alpha: float) -> float:
    """The chance that the two-sided paired t test of n differences rejects, for a mean of `effect` deviations."""
    critical, shift = -float(stdtrit(n - 1, alpha / 2)), effect * float(np.sqrt(n))
    # where SciPy cannot give the chance of rejecting on the wrong side, it is far too small to matter
    return 1 - float(nctdtr(n - 1, shift, critical)) + float(np.nan_to_num(nctdtr(n - 1, shift, -critical)))


def _spread(components: Components, n_seeds: int) -> float:
    """The standard deviation of a prompt's mean difference over `n_seeds` seeds."""
    n_seeds = _whole("n_seeds", n_seeds, 1)
    if components.seed is None and n_seeds > 1:
        raise ValueError(f"n_seeds: expected 1, as one row per prompt says nothing about more seeds, got {n_seeds}")
    variance = components.prompt + (components.seed or 0.0) / n_seeds
    if not variance > 0:
        raise ValueError("components: expected a variance above 0, got 0: every prompt shows the same difference")
    return float(np.sqrt(variance))


def _alpha(power: float, confidence_level: float, comparisons: int) -> float:
    for name, value in (("power", power), ("confidence_level", confidence_level)):
        if not isinstance(value, int | float | np.floating) or not 0 < value < 1:
            raise ValueError(f"{name}: expected a number between 0 and 1, such as 0.8, got {value!r}")
    alpha = (1 - confidence_level) / _whole("comparisons", comparisons, 1)
    if power <= alpha:
        raise ValueError(
            f"power: expected more than {alpha:g}, the chance of a rejection without any difference, got {power!r}"
        )
    return float(alpha)


def _whole(name: str, value: Any, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ValueError(f"{name}: expected a whole number of at least {least}, got {value!r}")
    return int(value)


def rank_agreement(
    values: Floats, n_prompts: int, *, n_resamples: int = 2000, seed: int = 0, confidence_level: float = 0.95
) -> Agreement:
    """How well a ranking of models on `n_prompts` of the prompts agrees with the ranking on all of them.

    Formula: `n_prompts` prompts are drawn without replacement, `n_resamples` times, and the models ranked by their mean
    over them. `kendall_tau` is the mean of Kendall's tau-b between this ranking and the one on all prompts; `low` and
    `high` hold the central `confidence_level` of the draws, so what a single draw may give; `same_best` is the share of
    draws with the same best model or models. The drawn prompts are part of the whole: that is right for the question
    whether a small split gives the ranking of the large one, but too good for the question how the ranking carries over
    to new prompts. For it, `kendall_tau_rest` compares the drawn prompts with those not drawn: they share none.
    Inputs: `values` float (prompts, models), each model's mean on each prompt; the best is the highest, so negate
    values of which less is better. `n_prompts` from 1 to all.
    Range: tau in [−1, 1], 1 = the same order, 0 = no relation; `same_best` in [0, 1].
    Ties and gaps: models with equal means are tied, and tau-b corrects for them; draws in which all models are tied
    have no tau, are left out of its mean and counted in `undefined_resamples`. `kendall_tau_rest` is None where no
    prompt is left over. Fewer than two models, more prompts than there are, models that are all equal, a missing value,
    NaN or infinity raise ValueError.
    Source: Kendall, Biometrika 33 (1945), for tau-b.

    >>> rank_agreement(np.array([[1.0, 2.0, 4.0], [2.0, 3.0, 5.0], [5.0, 6.0, 9.0]]), 2).kendall_tau
    1.0
    """
    options = resampling(n_resamples, seed, confidence_level)
    table = _table(values)
    if not 1 <= (drawn := _whole("n_prompts", n_prompts, 1)) <= len(table):
        raise ValueError(f"n_prompts: expected at most the {len(table)} prompts of `values`, got {n_prompts}")
    rounding = _ROUNDING * float(np.abs(table).sum(axis=0).max())
    whole = table.sum(axis=0)[None]
    order, best = _order(whole, rounding), _best(whole, rounding)
    if not order.any():
        raise ValueError("values: expected models with different means, got equal ones: they have no ranking")
    sums = np.concatenate([weights @ table for weights in _subsets(len(table), drawn, options)])
    taus = {"kendall_tau": _tau(_order(sums, rounding), order)}
    if drawn < len(table):
        taus["kendall_tau_rest"] = _tau(_order(sums, rounding), _order(whole - sums, rounding))
    defined = {name: tau[~np.isnan(tau)] for name, tau in taus.items()}
    undefined = {name: len(sums) - len(tau) for name, tau in defined.items() if len(tau) < len(sums)}
    if not len(tau := defined["kendall_tau"]):
        raise ValueError(
            f"n_prompts: expected enough prompts to rank the models, got {drawn}: every draw ties them all"
        )
    low, high = np.quantile(tau, [(1 - options.confidence_level) / 2, (1 + options.confidence_level) / 2])
    rest = defined.get("kendall_tau_rest", np.empty(0))
    same_best = float((_best(sums, rounding) == best).all(axis=1).mean())
    return Agreement(
        float(tau.mean()), float(low), float(high), same_best, float(rest.mean()) if len(rest) else None, undefined
    )


def _table(values: Floats) -> Floats:
    if np.ndim(values) != 2 or not np.size(values):
        raise ValueError(f"values: expected an array of prompts and models, got shape {np.shape(values)}")
    columns = np.asarray(values).T
    if len(columns) < 2:
        raise ValueError("values: expected at least two models (columns), got one: it has no ranking")
    return np.stack(
        [complete_column(f"values, column {k}", column, len(column)) for k, column in enumerate(columns)], 1
    )


def _subsets(n: int, drawn: int, options: Resampling) -> Iterator[Floats]:
    """Flags of the drawn prompts, in blocks of shape (resamples, n)."""
    rng = np.random.default_rng([options.seed, n, drawn])
    for start in range(0, options.n_resamples, _BLOCK):
        rows = min(_BLOCK, options.n_resamples - start)
        first = np.argsort(rng.random((rows, n)), axis=1)[:, :drawn]
        flags = np.zeros((rows, n))
        np.put_along_axis(flags, first, 1.0, axis=1)
        yield flags


def _order(sums: Floats, rounding: float) -> Floats:
    """The sign of each difference of two models, 0 for a tie; shape (resamples, pairs of models)."""
    first, second = np.triu_indices(sums.shape[1], 1)
    difference = sums[:, first] - sums[:, second]
    return np.where(np.abs(difference) > rounding, np.sign(difference), 0.0)


def _best(sums: Floats, rounding: float) -> Any:
    return sums >= sums.max(axis=1, keepdims=True) - rounding


def _tau(first: Floats, second: Floats) -> Floats:
    """Kendall's tau-b of two orders; NaN where one of them ties every pair of models."""
    untied = np.sqrt(np.abs(first).sum(axis=1) * np.abs(second).sum(axis=1))
    return ratio((first * second).sum(axis=1), untied)
