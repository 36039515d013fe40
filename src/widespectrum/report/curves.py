"""Dose and response: how the scores change with the strength of the effects."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from widespectrum.functional._bootstrap import (
    Resampling,
    cluster_sums,
    percentile_interval,
    point_estimates,
    ratio,
    replicate,
)

from .material import Material

__all__ = ["GRADED_ADAPTER", "Curve", "Response", "responses"]

GRADED_ADAPTER = "photo-effects"
"""The adapter whose generators have a `strength`."""

Floats = NDArray[np.float64]


class Curve(NamedTuple):
    """Mean change of the score at each strength, with its interval (NaN without one); arrays of one length."""

    mean: Floats
    low: Floats
    high: Floats


class Response(NamedTuple):
    """One reward model. `standardised` is False where r(I_o,p_o) has no spread: then the scores are in own units."""

    reward_model: str
    strengths: list[int]
    under_original: Curve
    under_wide_spectrum: Curve
    standardised: bool


def _strengths(material: Material) -> dict[str, int]:
    """The effect strength of each graded generator; strength 0 is left to the untouched photograph."""
    graded = {label: spec for label, spec in material.specs("generators").items() if spec.adapter == GRADED_ADAPTER}
    return {label: int(spec.params["strength"]) for label, spec in graded.items() if spec.params["strength"]}


def _complete(rows: pd.DataFrame, strengths: list[int]) -> pd.DataFrame:
    """The rows of the pairs that have an image at every strength, so that every point rests on the same pairs."""
    found = rows.groupby("pair_id")["strength"].nunique()
    return rows[rows["pair_id"].isin(found[found == len(strengths)].index)]


def _cluster_curve(changes: Floats, clusters: NDArray[np.int64], options: Resampling) -> Curve:
    """Means of the columns of `changes` (pairs, strengths) with cluster bootstrap intervals."""
    n_clusters = int(clusters.max()) + 1
    sums = cluster_sums(np.column_stack([np.ones(len(changes)), changes]), clusters, n_clusters)

    def statistic(weights: Floats) -> dict[str, Floats]:
        totals = weights @ sums
        return {"mean": ratio(totals[:, 1:], np.broadcast_to(totals[:, :1], totals[:, 1:].shape))}

    mean = point_estimates(statistic, n_clusters)["mean"]
    if n_clusters < 2:
        return Curve(mean, np.full_like(mean, np.nan), np.full_like(mean, np.nan))
    draws = replicate(statistic, n_clusters, options)["mean"]
    ends = [percentile_interval(float(m), draws[:, k], options.confidence_level) for k, m in enumerate(mean)]
    low, high = np.array(ends).T
    return Curve(mean, low, high)


def _by_strength(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """`column` averaged over seeds, one row per pair and one column per strength."""
    return rows.pivot_table(index="pair_id", columns="strength", values=column, aggfunc="mean", sort=True)


def _response(rows: pd.DataFrame, model: str, options: Resampling) -> Response:
    strengths = [0, *sorted(set(rows["strength"]))]
    first = rows.groupby("pair_id", sort=True)[["r_io_po", "r_io_pa"]].mean()
    baseline = first["r_io_po"].to_numpy()
    spread = float(np.std(baseline, ddof=1)) if np.ptp(baseline) > 0 else 0.0
    captions = rows.groupby("pair_id", sort=True)["cluster"].first()
    clusters = pd.factorize(captions)[0].astype(np.int64)

    def curve(default: str, asked: str) -> Curve:
        scores = np.column_stack([first[default].to_numpy(), _by_strength(rows, asked).to_numpy()])
        return _cluster_curve((scores - baseline[:, None]) / (spread or 1.0), clusters, options)

    return Response(model, strengths, curve("r_io_po", "r_ia_po"), curve("r_io_pa", "r_ia_pa"), spread > 0)


def responses(material: Material) -> list[Response]:
    """One per reward model; none where the run has not at least two strengths on the same pairs.

    The change is r(I,p) − r(I_o,p_o), divided by the standard deviation (ddof 1) of r(I_o,p_o) over the same pairs.
    """
    by_generator = _strengths(material)
    rows: Any = material.pairs[material.pairs["generator"].isin(by_generator)]
    rows = rows.assign(strength=rows["generator"].map(by_generator))
    levels = sorted(set(rows["strength"]))
    rows = _complete(rows, levels)
    if len(levels) < 2 or rows.empty:
        return []
    options = Resampling(material.config.evaluate.n_resamples, 0, material.level)
    return [_response(part, str(model), options) for model, part in rows.groupby("reward_model", sort=True)]
