"""Dose and response: how the reward of an image changes with the strength of an effect, requested or not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ._bootstrap import cluster_sums, ratio, resampling
from ._checks import (
    Codes,
    Flags,
    Floats,
    Labels,
    Names,
    Numbers,
    as_rows,
    complete_column,
    flag_column,
    label_column,
    require_rows,
    require_unique,
    row_labels,
)
from ._slices import Derived, Means, Study, blocks

_ROUNDING = 1e-12
_NO_SLOPE = "undefined: it needs rewards at two strengths"
_NO_RHO = f"{_NO_SLOPE} that are not all equal"
_NO_SPREAD = "undefined: it needs two series whose unrequested rewards at strength 0 differ"
_SLOPES = ("slope_requested", "slope_unrequested", "slope_difference")
_REASONS = {
    "slope_requested": f"{_NO_SLOPE}, requested",
    "slope_unrequested": f"{_NO_SLOPE}, unrequested",
    "slope_difference": f"{_NO_SLOPE}, requested and unrequested",
    "spearman_requested": f"{_NO_RHO}, requested",
    "spearman_unrequested": f"{_NO_RHO}, unrequested",
    "spearman_difference": f"{_NO_RHO}, requested and unrequested",
    "respects_request_rate": f"{_NO_SLOPE}, requested",
    "reward_spread": _NO_SPREAD,
} | dict.fromkeys((f"{name}_standardised" for name in _SLOPES), _NO_SPREAD)


def dose_response(
    reward: Numbers,
    strength: Numbers,
    requested: Numbers,
    *,
    series: Names,
    dimension: Any = None,
    prompt_id: Names | None = None,
    n_resamples: int = 2000,
    seed: int = 0,
    confidence_level: float = 0.95,
    interval: str = "percentile",
) -> dict[str, Any]:
    """How the reward of an image changes as an effect in it grows, when the prompt asks for the effect and when not.

    A series is one photograph with one effect at several strengths, strength 0 being the photograph itself; a reward
    model scored each of its images under a prompt that requests the effect and under one that does not.

    Formula: per series and prompt, the least-squares slope of reward on strength, Σ(s − s̄)(r − r̄) / Σ(s − s̄)², and
    Spearman's rho, the correlation of their midranks. `slope_requested`, `slope_unrequested`, `spearman_requested` and
    `spearman_unrequested` are means over series, `slope_difference` and `spearman_difference` means of requested minus
    unrequested over the series that have both. `<slope>_standardised` are the three slopes divided by `reward_spread`,
    the standard deviation (ddof 1) over series of the unrequested reward at strength 0, so that reward models compare.
    `respects_request_rate` = share of series with slope_requested ≥ 0. The slope says how much, in reward units per
    step of strength, and believes that the steps are equal; rho says how steadily and needs only their order. A
    monotone fit would presume the direction, which is what is asked here.

    Inputs, each (n,), one row per image and prompt: `reward` float, higher = preferred; `strength`, 0 = unedited;
    `requested` 1 or 0; `series`. (series, requested, strength) is a row's key and may not repeat. Optional: `dimension`
    of the effect, a name or a list of names per row; `prompt_id`, the bootstrap's cluster (omitted: every series its
    own). Both are the same in all rows of a series.

    Range: slopes in reward units per unit of strength, rho in [−1, 1], its difference in [−2, 2]; 0: the strength does
    not matter. A model that respects the request has slope_requested ≥ 0 and a positive difference; one that is blind
    to the prompt has difference 0, whatever its taste; a random one is near 0 throughout, with a rate near ½.

    Ties and gaps: a slope of 0 counts as respecting, for the model does not act against the request; but a model that
    gives all images one reward then has rate 1, so `cautions` counts these series, and the rate is to be read beside
    the difference. A series with fewer than two strengths has no slope, one of equal rewards no rho; it is left out
    and counted in `cautions`, and where no series is left the key is absent with its reason in `notes`. No rows,
    unequal lengths, a missing value, NaN, infinity or repeated keys raise ValueError.

    Returns a flat dict: every name above with `<name>_ci_low` and `<name>_ci_high` (cluster bootstrap over prompts:
    `n_resamples`, `seed`, `confidence_level`, `interval` "percentile" or "bca"), `respects_request_rate_wilson_low` and
    `_high` (they take series as independent), `n_pairs` (the series), `n_prompts`, `notes`, `cautions`,
    `undefined_resamples`. With `dimension`, `by_dimension` holds the same per dimension; a series with several
    dimensions is in each of them.

    Source: Spearman, Am. J. Psychol. 15 (1904), for rho; the design is this package's.

    >>> strength, requested = [0, 2, 4] * 4, [1, 1, 1, 0, 0, 0] * 2
    >>> reward, series = [1, 2, 3, 5, 4, 3, 1, 2, 2, 5, 5, 2], ["bus"] * 6 + ["cat"] * 6
    >>> result = dose_response(reward, strength, requested, series=series, n_resamples=100)
    >>> result["slope_requested"], result["slope_unrequested"], result["slope_difference"]
    (0.375, -0.625, 1.0)
    >>> round(result["spearman_requested"], 3), result["respects_request_rate"]
    (0.933, 1.0)
    >>> result["notes"]["slope_difference_standardised"]
    'undefined: it needs two series whose unrequested rewards at strength 0 differ'
    """
    options = resampling(n_resamples, seed, confidence_level, interval)
    n = require_rows("reward", reward)
    rewards, strengths = complete_column("reward", reward, n), complete_column("strength", strength, n)
    asked, curves = flag_column("requested", requested, n), label_column("series", series, n)
    flags = Labels([0, 1], asked.astype(np.intp))
    require_unique({"series": curves, "requested": flags, "strength": label_column("strength", strengths, n)})
    clusters = row_labels(len(curves.names))
    if prompt_id is not None:
        clusters = _per_series("prompt_id", label_column("prompt_id", prompt_id, n), curves)
    slices = {"": np.arange(len(curves.names))}
    if dimension is not None:
        slices |= _slices(_per_series("dimension", _dimension_labels(dimension, n), curves))
    columns = _series_columns(rewards, strengths, asked, curves)
    unedited = np.full(len(curves.names), np.nan)
    is_unedited = ~asked & (strengths == 0)
    unedited[curves.codes[is_unedited]] = rewards[is_unedited]
    study = Study(
        columns=columns,
        slices=slices,
        prompts=clusters,
        derived={f"{name}_standardised": Derived(_over_spread(name), [name]) for name in _SLOPES},
        proportions=["respects_request_rate"],
        reasons=_REASONS,
        statistics=lambda rows: {"reward_spread": _deviation(unedited[rows], clusters, rows)},
    )
    found = blocks(study, options)
    for name, rows in slices.items():
        found[name]["cautions"] |= _cautions({key: column[rows] for key, column in columns.items()})
    result = found.pop("")
    return result if dimension is None else result | {"by_dimension": found}


def _per_series(name: str, labels: Labels, curves: Labels) -> Labels:
    """The label of each series, which is that of all its rows."""
    first = np.unique(curves.codes, return_index=True)[1]
    other = np.flatnonzero(labels.codes != labels.codes[first][curves.codes])
    if other.size:
        row, code = int(other[0]), curves.codes[other[0]]
        expected, got = (labels.names[labels.codes[k]] for k in (first[code], row))
        raise ValueError(
            f"{name}, row {row} (counted from 0): expected {expected!r} as in row {first[code]} of the same series "
            f"{curves.names[code]!r}, got {got!r}; give a series one {name} or several names"
        )
    return Labels(labels.names, labels.codes[first])


def _dimension_labels(dimension: Any, n: int) -> Labels:
    """The names of each row, sorted, as one label."""
    rows = [(row,) if isinstance(row, str) else row for row in as_rows("dimension", dimension)]
    if len(rows) != n:
        raise ValueError(
            f"dimension: expected {n} rows like the other columns, got {len(rows)}; give one name or list per row"
        )
    for k, row in enumerate(rows):
        if not hasattr(row, "__len__") or not len(row) or not all(isinstance(name, str) and name for name in row):
            raise ValueError(
                f"dimension, row {k} (counted from 0): expected a name or a non-empty list of names, got {row!r}; "
                "name the dimensions of the effect"
            )
    found = [tuple(sorted({str(name) for name in row})) for row in rows]
    position = {names: code for code, names in enumerate(sorted(set(found)))}
    return Labels(list(position), np.array([position[names] for names in found], dtype=np.intp))


def _slices(dimensions: Labels) -> dict[str, Codes]:
    """The series of each dimension, by its name."""
    every = sorted({name for names in dimensions.names for name in names})
    has = np.array([[name in names for name in every] for names in dimensions.names])[dimensions.codes]
    return {name: np.flatnonzero(column) for name, column in zip(every, has.T, strict=True)}


def _series_columns(rewards: Floats, strengths: Floats, asked: Flags, curves: Labels) -> dict[str, Floats]:
    """What is averaged, one number per series, NaN where a series has none."""
    n = 2 * len(curves.names)
    code = 2 * curves.codes + asked
    order = np.lexsort((strengths, code))
    rows = (code[order], strengths[order], rewards[order])
    columns: dict[str, Floats] = {}
    for name, values in (("slope", _slopes(*rows, n)), ("spearman", _rhos(rows[0], rows[2], n))):
        unrequested, requested = values.reshape(-1, 2).T
        columns |= {f"{name}_requested": requested, f"{name}_unrequested": unrequested}
        columns[f"{name}_difference"] = requested - unrequested
    slope = columns["slope_requested"]
    columns["respects_request_rate"] = np.where(np.isnan(slope), np.nan, slope >= 0)
    return columns


def _slopes(curve: Codes, strengths: Floats, rewards: Floats, n: int) -> Floats:
    """Least-squares slope per curve, (n,); rows in the order of their curves."""
    counts, total = cluster_sums(np.stack([np.ones_like(strengths), strengths], axis=1), curve, n).T
    centred = strengths - ratio(total, counts)[curve]
    # against the first reward, not the mean: equal rewards then differ by exactly 0
    rises = rewards - rewards[np.searchsorted(curve, curve)]
    terms = np.stack([centred * rises, centred**2, rises**2], axis=1)
    products, squares, heights = cluster_sums(terms, curve, n).T
    # below this share of its parts a sum is rounding
    is_level = np.abs(products) <= _ROUNDING * np.sqrt(squares * heights)
    return ratio(np.where(is_level, 0.0, products), squares)


def _rhos(curve: Codes, rewards: Floats, n: int) -> Floats:
    """Spearman's rho per curve, (n,); rows in the order of their curves, and there of their distinct strengths."""
    counts = np.bincount(curve, minlength=n)
    middle = (np.cumsum(counts) - (counts + 1) / 2)[curve]
    order = np.lexsort((rewards, curve))
    ordered = rewards[order]
    starts_tie = np.append(True, (ordered[1:] != ordered[:-1]) | (curve[1:] != curve[:-1]))
    tie = np.cumsum(starts_tie) - 1
    sizes = np.bincount(tie)
    ranks = np.empty(len(curve))
    ranks[order] = (np.cumsum(sizes) - (sizes + 1) / 2)[tie]
    across, up = np.arange(len(curve)) - middle, ranks - middle
    products, *squares = cluster_sums(np.stack([across * up, across**2, up**2], axis=1), curve, n).T
    return ratio(products, np.sqrt(squares[0] * squares[1]))


def _deviation(values: Floats, clusters: Labels, rows: Codes) -> Callable[[Floats], Floats]:
    """Weights of the clusters to the standard deviation (ddof 1) of the known `values`, one for each of `rows`."""
    known = ~np.isnan(values)
    values, codes = values[known], clusters.codes[rows][known]
    values = values - np.median(values) if len(values) else values
    sums = cluster_sums(np.stack([np.ones_like(values), values, values**2], axis=1), codes, len(clusters.names))

    def deviation(weights: Floats) -> Floats:
        n, total, squares = (weights @ sums).T
        square = squares - ratio(total**2, n)
        square = np.where(square > _ROUNDING * squares, square, 0.0)
        return np.sqrt(ratio(square, np.maximum(n - 1, 0)))

    return deviation


def _over_spread(name: str) -> Callable[[Means], Floats]:
    return lambda means: ratio(means[name], means["reward_spread"])


def _cautions(columns: dict[str, Floats]) -> dict[str, str]:
    """How many series an estimate leaves out, and how many respect the request by not moving."""
    found = {}
    for name, column in columns.items():
        if 0 < (missing := int(np.isnan(column).sum())) < len(column):
            needs = _REASONS[name].removeprefix("undefined: it ")
            found[name] = f"{missing} of {len(column)} series left out: one {needs}"
    still = int((columns["slope_requested"] == 0).sum())
    if still:
        said = f"{still} of {len(columns['slope_requested'])} series have slope 0 when requested, which counts as"
        found["respects_request_rate"] = f"{said} respecting: read it beside slope_difference"
    return found
