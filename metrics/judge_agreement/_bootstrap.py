"""Intervals: a seeded cluster bootstrap over prompts, and Wilson's interval for a plain proportion.

A resample draws as many clusters as there are, with replacement; a cluster drawn twice weighs twice. A statistic is a
function of such weights, so that one piece of code gives the estimate (all weights 1), its resamples, and its values
with one cluster left out; and a sum over rows is a product of the weights with the clusters' own sums. The same `seed`
and number of clusters give the same resamples in every call: reward models are compared on common draws.

Source: Field and Welsh, "Bootstrapping clustered data", J. R. Statist. Soc. B 69 (2007); Efron, "Better bootstrap
confidence intervals", JASA 82 (1987), for BCa; Wilson, JASA 22 (1927).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from scipy.special import ndtr, ndtri

from ._checks import Codes, Floats, Names, complete_column, label_column

Statistic: TypeAlias = Callable[[Floats], dict[str, Floats]]
"""Weights (resamples, clusters) to named estimates (resamples, slices); NaN where an estimate is undefined."""

INTERVALS = ("percentile", "bca")
FEW_CLUSTERS = 30
"""Below this many prompts an interval of resampled prompts is too narrow to be taken at its word."""

NO_WIDTH = "every resample gives the same value: the missing width of its interval is no certainty"
_TOO_FEW = "no interval: it needs at least two prompts with a value (of each kind, where two kinds are compared)"
_NEVER = "no interval: it is undefined in every resample"
_NO_BCA = "no BCa interval: all resamples lie on one side of the estimate, or one prompt alone decides it"
_ELEMENTS = 1 << 18  # numbers in one working array: 2 MB, about a core's cache


class ClusterMeans(NamedTuple):
    """Means with the ends of their intervals, arrays of one length."""

    mean: Floats
    low: Floats
    high: Floats


class Resampling(NamedTuple):
    """How intervals are made."""

    n_resamples: int
    seed: int
    confidence_level: float
    interval: str = "percentile"


class Draws(NamedTuple):
    """Estimates by name: on the rows as they are, on every resample, and without each cluster (for BCa alone).

    The last axis runs over slices of the rows; `of` takes one of them.
    """

    point: dict[str, Floats]
    replicates: dict[str, Floats]
    left_out: dict[str, Floats]

    def of(self, k: int) -> Draws:
        """The estimates of slice k."""
        return self.map(lambda table: {name: values[..., k] for name, values in table.items()})

    def map(self, function: Callable[[dict[str, Floats]], dict[str, Floats]]) -> Draws:
        """`function` applied to each of the three tables."""
        return Draws(function(self.point), function(self.replicates), function(self.left_out) if self.left_out else {})


def resampling(n_resamples: int, seed: int, confidence_level: float, interval: str = "percentile") -> Resampling:
    """Checked options; ValueError names the one that is wrong."""
    if isinstance(n_resamples, bool) or not isinstance(n_resamples, int | np.integer) or n_resamples < 1:
        raise ValueError(f"n_resamples: expected a whole number of at least 1, got {n_resamples!r}")
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise ValueError(f"seed: expected a whole number of at least 0, got {seed!r}")
    if not isinstance(confidence_level, int | float | np.floating) or not 0 < confidence_level < 1:
        raise ValueError(f"confidence_level: expected a number between 0 and 1, such as 0.95, got {confidence_level!r}")
    if interval not in INTERVALS:
        raise ValueError(f"interval: expected one of {', '.join(INTERVALS)}, got {interval!r}")
    return Resampling(int(n_resamples), int(seed), float(confidence_level), interval)


def cluster_weights(n_clusters: int, options: Resampling) -> Iterator[Floats]:
    """How often each cluster is drawn, in blocks of shape (resamples, n_clusters); rows sum to n_clusters.

    The blocks depend on n_clusters alone, so more resamples begin with the same ones.
    """
    rng = np.random.default_rng([options.seed, n_clusters])
    block = max(1, min(256, _ELEMENTS // n_clusters))
    for start in range(0, options.n_resamples, block):
        rows = min(block, options.n_resamples - start)
        drawn = rng.integers(n_clusters, size=(rows, n_clusters), dtype=np.int64)
        drawn += np.arange(rows)[:, None] * n_clusters
        counts = np.bincount(drawn.ravel(), minlength=rows * n_clusters)
        yield counts.reshape(rows, n_clusters).astype(np.float64)


def cluster_sums(values: Floats, clusters: Codes, n_clusters: int) -> Floats:
    """Sums of `values` (rows, columns) over the rows of each cluster, shape (n_clusters, columns)."""
    columns = [np.bincount(clusters, weights=column, minlength=n_clusters) for column in values.T]
    return np.stack(columns, axis=1)


def ratio(numerator: Floats, denominator: Floats) -> Floats:
    """Elementwise ratio of equal shapes; NaN where the denominator is 0."""
    result = np.full(np.shape(numerator), np.nan)
    np.divide(numerator, denominator, out=result, where=np.asarray(denominator) != 0)
    return result


def in_blocks(function: Callable[[Floats], Floats], weights: Floats, width: int) -> Floats:
    """`function(weights)`, worked in blocks of rows so that arrays of (rows, width) stay small."""
    block = max(1, _ELEMENTS // max(1, width))
    parts = [function(weights[start : start + block]) for start in range(0, len(weights), block)]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def draw(statistic: Statistic, n_clusters: int, options: Resampling) -> Draws:
    """The estimates of `statistic` on the rows, on every resample and, for BCa, without each cluster in turn."""
    point = {name: values[0] for name, values in statistic(np.ones((1, n_clusters))).items()}
    replicates = _stacked(statistic, cluster_weights(n_clusters, options))
    bca = options.interval == "bca" and n_clusters > 1
    return Draws(point, replicates, _stacked(statistic, _without_each(n_clusters)) if bca else {})


def _stacked(statistic: Statistic, weights: Iterable[Floats]) -> dict[str, Floats]:
    blocks = [statistic(block) for block in weights]
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


def _without_each(n_clusters: int) -> Iterator[Floats]:
    block = max(1, _ELEMENTS // n_clusters)
    for start in range(0, n_clusters, block):
        rows = min(block, n_clusters - start)
        weights = np.ones((rows, n_clusters))
        weights[np.arange(rows), start + np.arange(rows)] = 0
        yield weights


def percentile_interval(estimate: float, replicates: Floats, confidence_level: float) -> tuple[float, float]:
    """The central `confidence_level` of the replicates, widened to hold the estimate where they leave it out."""
    tail = (1 - confidence_level) / 2
    low, high = np.quantile(replicates, [tail, 1 - tail])
    return min(float(low), estimate), max(float(high), estimate)


def bca_interval(
    estimate: float, replicates: Floats, left_out: Floats, confidence_level: float
) -> tuple[float, float] | None:
    """Efron's bias-corrected and accelerated interval; None where the correction is undefined.

    `left_out` holds the estimate without each cluster. A replicate that differs from the estimate by rounding alone
    ties with it, and ties count half. Source: Efron, JASA 82 (1987).
    """
    rounding = 1e-12 * np.abs(replicates).max()
    below = ((replicates < estimate - rounding).mean() + (replicates <= estimate + rounding).mean()) / 2
    if below in (0, 1) or np.isnan(left_out).any():
        return None
    shift = left_out.mean() - left_out
    shift /= np.abs(shift).max() or 1.0  # the third power of very small numbers is 0
    acceleration = (shift**3).sum() / (6 * (shift**2).sum() ** 1.5) if shift.any() else 0.0
    bias = ndtri(below)
    normal = bias + ndtri(np.array([1 - confidence_level, 1 + confidence_level]) / 2)
    if (acceleration * normal >= 1).any():
        return None
    low, high = np.quantile(replicates, ndtr(bias + normal / (1 - acceleration * normal)))
    return min(float(low), estimate), max(float(high), estimate)


def cluster_means(
    values: Floats, clusters: Names, *, n_resamples: int = 2000, seed: int = 0, confidence_level: float = 0.95
) -> ClusterMeans:
    """The mean of each column of `values` with its percentile cluster bootstrap interval.

    Inputs: `values` float (n, k); `clusters`, the name or number of each row's cluster, (n,). All columns are
    resampled together. Returns three arrays (k,); with fewer than two clusters the ends are NaN. No rows, another
    shape, a missing value, NaN or infinity raise ValueError.

    >>> means = cluster_means(np.array([[1.0, 5.0], [3.0, 5.0], [8.0, 5.0]]), ["a", "a", "b"])
    >>> means.mean.tolist(), means.low.tolist(), means.high.tolist()
    ([4.0, 5.0], [2.0, 5.0], [8.0, 5.0])
    """
    options = resampling(n_resamples, seed, confidence_level)
    values = np.asarray(values)
    if np.ndim(values) != 2 or not np.size(values):
        raise ValueError(f"values: expected an array of rows and columns, got shape {np.shape(values)}")
    columns = [complete_column(f"values, column {k}", column, len(values)) for k, column in enumerate(values.T)]
    labels = label_column("clusters", clusters, len(values))
    n_clusters = len(labels.names)
    sums = cluster_sums(np.column_stack([np.ones(len(values)), *columns]), labels.codes, n_clusters)

    def statistic(weights: Floats) -> dict[str, Floats]:
        totals = weights @ sums
        return {"mean": totals[:, 1:] / totals[:, :1]}

    draws = draw(statistic, n_clusters, options)
    mean = draws.point["mean"]
    if n_clusters < 2:
        return ClusterMeans(mean, np.full_like(mean, np.nan), np.full_like(mean, np.nan))
    replicates = draws.replicates["mean"]
    ends = [percentile_interval(float(m), replicates[:, k], options.confidence_level) for k, m in enumerate(mean)]
    low, high = np.array(ends).T
    return ClusterMeans(mean, low, high)


def wilson_interval(successes: float, n: float, confidence_level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval for a proportion of `n` independent trials; it takes no account of clusters."""
    if not (n > 0 and 0 <= successes <= n):
        raise ValueError(f"expected 0 <= successes <= n and n > 0, got successes={successes}, n={n}")
    if not 0 < confidence_level < 1:
        raise ValueError(f"confidence_level: expected a number between 0 and 1, such as 0.95, got {confidence_level!r}")
    z = float(ndtri((1 + confidence_level) / 2))
    share = successes / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # the ends are exactly 0 and 1 in these cases; the formula misses them by a rounding error
    low = 0.0 if successes == 0 else float(middle - half)
    high = 1.0 if successes == n else float(middle + half)
    return low, high


def with_intervals(
    draws: Draws, n_clusters: Mapping[str, int], reasons: Mapping[str, str], options: Resampling
) -> dict[str, Any]:
    """`<name>`, `<name>_ci_low` and `<name>_ci_high` of every defined estimate of one slice, flat.

    `notes` says why a name or an interval is absent (`reasons[name]` for an undefined estimate; fewer than two
    clusters, `n_clusters[name]`, for an interval); `undefined_resamples` counts the resamples that an interval leaves
    out because the estimate is undefined there.
    """
    result: dict[str, Any] = {}
    notes: dict[str, str] = {}
    undefined: dict[str, int] = {}
    for name, estimate in draws.point.items():
        if np.isnan(estimate):
            notes[name] = reasons[name]
            continue
        result[name] = float(estimate)
        defined = draws.replicates[name][~np.isnan(draws.replicates[name])]
        if n_clusters[name] < 2 or not len(defined):
            notes[f"{name}_ci"] = _TOO_FEW if n_clusters[name] < 2 else _NEVER
            continue
        if len(defined) < len(draws.replicates[name]):
            undefined[name] = len(draws.replicates[name]) - len(defined)
        ends: tuple[float, float] | None
        if options.interval == "bca":
            ends = bca_interval(result[name], defined, draws.left_out[name], options.confidence_level)
        else:
            ends = percentile_interval(result[name], defined, options.confidence_level)
        if ends is None:
            notes[f"{name}_ci"] = _NO_BCA
        else:
            result[f"{name}_ci_low"], result[f"{name}_ci_high"] = ends
    return result | {"notes": notes, "undefined_resamples": undefined}


def interval_cautions(result: Mapping[str, Any], n_clusters: int) -> dict[str, str]:
    """What keeps the intervals of `result` from being taken at their word: few prompts, and no width."""
    cautions = {name: NO_WIDTH for name in result if _has_no_width(result, name)}
    if n_clusters < FEW_CLUSTERS:
        cautions["n_prompts"] = (
            f"fewer than {FEW_CLUSTERS} prompts: intervals over prompts are too narrow to rest a claim on"
        )
    return cautions


def _has_no_width(result: Mapping[str, Any], name: str) -> bool:
    low = result.get(f"{name}_ci_low")
    return low is not None and low == result[f"{name}_ci_high"]


def add_wilson(result: dict[str, Any], sizes: Mapping[str, int], options: Resampling) -> None:
    """Adds `<name>_wilson_low` and `_high` to every proportion of `sizes` (name to trials) that `result` holds."""
    for name, n in sizes.items():
        if name in result:
            ends = wilson_interval(round(result[name] * n), n, options.confidence_level)
            result[f"{name}_wilson_low"], result[f"{name}_wilson_high"] = ends
