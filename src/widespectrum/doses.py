"""Image pairs → dose and response: the photographs whose effects a run has at several strengths, and their curves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from .columns import effect_strength
from .functional import dose_response
from .types import ModelSpec

__all__ = ["SERIES", "doses", "response_to_doses"]

SERIES = ["pair_id", "image_seed", "image_io"]
"""One curve: one photograph at one size, with one choice of effects."""


def doses(pairs: pd.DataFrame, generators: Mapping[str, ModelSpec]) -> pd.DataFrame:
    """The controlled rows of `columns.pair_table` that belong to a whole curve, with `strength` and `series` (number).

    A curve is whole for a reward model that scored its photograph at every strength that the run has; where the effect
    changed nothing at some strength the pair is not controlled and its curve is left out. Without two strengths above 0
    there is no row. `generators` are the specs by label.
    """
    strengths = {label: effect_strength(spec) for label, spec in generators.items()}
    rows = pairs[pairs["controlled"]]
    rows = rows.assign(strength=rows["generator"].map(strengths).astype(int))
    # Of a small photograph two sizes are the same image.
    rows = rows.drop_duplicates([*SERIES, "reward_model", "strength"])
    n_strengths = rows["strength"].nunique()
    found = rows.groupby([*SERIES, "reward_model"])["strength"].transform("nunique")
    # with the photograph one strength gives a difference, not a curve
    rows = rows[(found == n_strengths) & (n_strengths > 1)]
    return rows.assign(series=rows.groupby(SERIES).ngroup())


def response_to_doses(rows: pd.DataFrame, options: Mapping[str, Any]) -> dict[str, Any]:
    """`functional.dose_response` of the rows of `doses` of one reward model: p_a requests the effects, p_o does not."""
    photographs = rows.drop_duplicates("series").assign(strength=0)
    photographs = photographs.assign(r_ia_pa=photographs["r_io_pa"], r_ia_po=photographs["r_io_po"])
    images = pd.concat([photographs, rows])
    long = pd.concat(
        [images.assign(reward=images[cell], requested=cell == "r_ia_pa") for cell in ("r_ia_pa", "r_ia_po")]
    )
    return dose_response(
        long["reward"].to_numpy(),
        long["strength"].to_numpy(),
        long["requested"].to_numpy(),
        series=long["series"].to_numpy(),
        dimension=long["dimensions"].tolist() if all(long["dimensions"]) else None,
        prompt_id=long["cluster"].tolist(),
        **options,
    )
