"""Dose and response: how the scores change with the strength of the effects."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from widespectrum.columns import effect_strength
from widespectrum.functional import ClusterMeans, cluster_means

from .material import Material

__all__ = ["Response", "responses"]


class Response(NamedTuple):
    """One reward model: the mean change of its score at each strength, under either prompt.

    `standardised` is False where r(I_o,p_o) has no spread: then the scores are in own units.
    """

    reward_model: str
    strengths: list[int]
    under_original: ClusterMeans
    under_wide_spectrum: ClusterMeans
    standardised: bool


def _strengths(material: Material) -> dict[str, int]:
    """The effect strength of each graded generator; strength 0 is left to the untouched photograph."""
    found = {label: effect_strength(spec) for label, spec in material.specs("generators").items()}
    return {label: strength for label, strength in found.items() if strength}


def _complete(rows: pd.DataFrame, strengths: list[int]) -> pd.DataFrame:
    """The rows of the pairs that a reward model scored at every strength, so that its points rest on the same pairs."""
    found = rows.groupby(["pair_id", "reward_model"])["strength"].transform("nunique")
    return rows[found == len(strengths)]


def _by_strength(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """`column` averaged over seeds, one row per pair and one column per strength."""
    return rows.pivot_table(index="pair_id", columns="strength", values=column, aggfunc="mean", sort=True)


def _response(rows: pd.DataFrame, model: str, material: Material) -> Response:
    strengths = [0, *sorted(set(rows["strength"]))]
    first = rows.groupby("pair_id", sort=True)[["r_io_po", "r_io_pa"]].mean()
    baseline = first["r_io_po"].to_numpy()
    spread = float(np.std(baseline, ddof=1)) if np.ptp(baseline) > 0 else 0.0
    captions = rows.groupby("pair_id", sort=True)["cluster"].first().tolist()

    def curve(default: str, asked: str) -> ClusterMeans:
        scores = np.column_stack([first[default].to_numpy(), _by_strength(rows, asked).to_numpy()])
        changes = (scores - baseline[:, None]) / (spread or 1.0)
        n_resamples = material.config.evaluate.n_resamples
        return cluster_means(changes, captions, n_resamples=n_resamples, confidence_level=material.level)

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
    return [_response(part, str(model), material) for model, part in rows.groupby("reward_model", sort=True)]
