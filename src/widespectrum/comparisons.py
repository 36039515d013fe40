"""Image pairs → the paired comparisons of a run: every two reward models, and which models cannot be told apart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any, NamedTuple

import pandas as pd

from .columns import CELLS, KEY, row_keys
from .functional import compare_reward_models, rank_models

__all__ = ["COMPARED", "Comparison", "compare", "tie_groups"]

COMPARED = (
    "prior_over_match_difference",
    "accuracy_under_original_difference",
    "accuracy_under_wide_spectrum_difference",
    "both_ways_accuracy_difference",
    "auroc_difference",
    "accuracy_under_original_cluster_p",
    "accuracy_under_wide_spectrum_cluster_p",
    "both_ways_accuracy_cluster_p",
    "accuracy_under_original_mcnemar_p",
    "accuracy_under_wide_spectrum_mcnemar_p",
    "both_ways_accuracy_mcnemar_p",
    "auroc_delong_p",
)
"""What a run keeps of `functional.compare_reward_models`."""


class Comparison(NamedTuple):
    """What two reward models have on the pairs that both scored; `rows` are the first one's."""

    model: str
    rival: str
    values: dict[str, Any]
    rows: pd.DataFrame


def compare(pairs: pd.DataFrame, options: Mapping[str, Any]) -> Iterator[Comparison]:
    """Every two reward models of `columns.pair_table` that have pairs in common."""
    by_model = dict(list(pairs.groupby("reward_model")))
    for model, rival in combinations(by_model, 2):
        both = by_model[model].merge(by_model[rival][[*KEY, *CELLS.values()]], on=KEY, suffixes=("", "_rival"))
        if both.empty:
            continue
        columns: dict[str, Any] = {
            name: both[name].to_numpy() for cell in CELLS.values() for name in (cell, f"{cell}_rival")
        }
        verdict = None if both["verdict"].isna().all() else [None if v != v else v for v in both["verdict"]]
        values = compare_reward_models(**columns | row_keys(both), verdict=verdict, **options)
        yield Comparison(str(model), str(rival), values, both)


def tie_groups(outcomes: pd.DataFrame, level: float) -> dict[tuple[str, str, str], int]:
    """(model, metric, subset) to its tie group, from `outcomes.outcomes`."""
    found = {}
    for (metric, subset), rows in outcomes.groupby(["metric", "subset"]):
        table = rows.pivot(index=["cluster", "key"], columns="model", values="value")
        values = {model: [None if v != v else v for v in table[model]] for model in table}
        clusters = table.index.get_level_values("cluster").tolist()
        for place in rank_models(values, clusters, confidence_level=level):
            found[place.name, str(metric), str(subset)] = place.tie_group
    return found
