"""Dose and response: how the scores change with the strength of the effects."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from widespectrum.doses import doses
from widespectrum.functional import ClusterMeans, cluster_means

from .headline import Column, Place, Table, estimate_table
from .material import Material

__all__ = ["Response", "responses", "slope_table"]

Floats: TypeAlias = NDArray[np.float64]

SLOPE_COLUMNS = {
    "dose_slope_requested": Column(
        "slope, p_a",
        "mean slope of the score per step of strength under p_a, which asks for the effects; ≥ 0 respects it",
    ),
    "dose_slope_unrequested": Column("slope, p_o", "the same under p_o, which does not ask for them"),
    "dose_slope_difference": Column(
        "difference", "slope under p_a − slope under p_o, curve by curve; 0: the prompt makes no difference"
    ),
    "dose_slope_difference_standardised": Column(
        "in SD", "this difference in standard deviations of r(I_o,p_o), so that reward models compare"
    ),
    "dose_spearman_requested": Column(
        "rho, p_a", "mean rank correlation of score and strength under p_a: 1 is a steady rise, −1 a steady fall"
    ),
    "dose_spearman_unrequested": Column("rho, p_o", "the same under p_o"),
}


class Response(NamedTuple):
    """One reward model: the mean change of its score at each strength, under either prompt.

    `standardised` is False where r(I_o,p_o) has no spread: then the scores are in own units.
    """

    reward_model: str
    strengths: list[int]
    under_original: ClusterMeans
    under_wide_spectrum: ClusterMeans
    standardised: bool


def _by_strength(rows: pd.DataFrame, default: str, asked: str) -> Floats:
    """Scores of each series, (series, 1 + strengths): of the photograph, then of its images by strength."""
    photographs = rows.groupby("series")[default].first()
    images = rows.pivot(index="series", columns="strength", values=asked)
    return np.column_stack([photographs.to_numpy(), images.to_numpy()])


def _response(rows: pd.DataFrame, model: str, material: Material) -> Response:
    original, wide_spectrum = _by_strength(rows, "r_io_po", "r_ia_po"), _by_strength(rows, "r_io_pa", "r_ia_pa")
    baseline = original[:, :1]
    spread = float(np.std(baseline, ddof=1)) if np.ptp(baseline) > 0 else 0.0
    captions = rows.groupby("series")["cluster"].first().tolist()
    n_resamples = material.config.evaluate.n_resamples

    def curve(scores: Floats) -> ClusterMeans:
        changes = (scores - baseline) / (spread or 1.0)
        return cluster_means(changes, captions, n_resamples=n_resamples, confidence_level=material.level)

    strengths = [0, *sorted(set(rows["strength"]))]
    return Response(model, strengths, curve(original), curve(wide_spectrum), spread > 0)


def responses(material: Material) -> list[Response]:
    """One per reward model; none where the run has not at least two strengths on the same pairs.

    The change is r(I,p) − r(I_o,p_o), divided by the standard deviation (ddof 1) of r(I_o,p_o) over the same curves.
    """
    rows = doses(material.pairs, material.specs("generators"))
    return [_response(part, str(model), material) for model, part in rows.groupby("reward_model", sort=True)]


def slope_table(material: Material) -> Table:
    """The slopes of each reward model, on the curves that are drawn."""
    places = [Place(model, model, "controlled") for model in material.reward_models]
    return estimate_table(material, "Slopes of score on effect strength", "reward model", SLOPE_COLUMNS, places)
