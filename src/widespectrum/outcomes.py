"""The metrics that are means over rows, before the mean is taken: one value per image pair and model."""

from __future__ import annotations

import json
from math import nan
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from .columns import KEY, optional_values, pair_table, pick_judges, request_table, subset_flags
from .config import RunConfig, read_run_file
from .functional import prior_and_match
from .functional._adherence_rows import adherence_rows, dimension_flags

__all__ = ["RowValues", "headline_outcomes", "metric_rows", "outcomes"]

GENERATOR_METRICS = (
    "success_rate",
    "effect_gain",
    "effect_after",
    "content_after",
    "delta_j_selected",
    "delta_j_all",
    "j_after_selected",
    "j_after",
    "refusal_rate",
)
REWARD_METRICS = ("delta_reward", "reward_after")


class RowValues(NamedTuple):
    """A metric's value in every row, a column per model; a row's index is its prompt, seed and image pair.

    `kind` says what the models are. `subset` is what the rows of reward models are limited to, empty for generators.
    """

    table: pd.DataFrame
    kind: str
    subset: str


def _table(rows: pd.DataFrame, values: Any, model: str, pair: pd.Series) -> pd.DataFrame:
    names = {"prompt": rows["cluster"], "seed": rows["image_seed"], "pair": pair, "model": rows[model]}
    long = pd.DataFrame(names).assign(value=np.asarray(values, dtype=np.float64)).dropna()
    return long.pivot(index=["prompt", "seed", "pair"], columns="model", values="value")


def _generator_rows(rows: pd.DataFrame) -> dict[str, RowValues]:
    """The metrics of generators; `rows` are requests, with the scores of one reward model or with none."""
    names = ("verdict", "effect_io", "effect_ia", "content_ia", "j_io", "j_ia", "status", "r_io_po", "r_ia_po")
    inputs = {name: optional_values(rows[name]) for name in names if name in rows}
    dimensions = [list(names) for names in rows["dimensions"]] if all(rows["dimensions"]) else None
    values = adherence_rows(inputs, len(rows), dimension_flags(dimensions, len(rows))).values
    wanted = REWARD_METRICS if "r_io_po" in rows else GENERATOR_METRICS
    tables = {name: _table(rows, values[name], "generator", rows["pair_id"]) for name in wanted}
    return {name: RowValues(table, "generator", "") for name, table in tables.items()}


def _reward_model_rows(rows: pd.DataFrame, subset: str, chosen: pd.Series) -> dict[str, RowValues]:
    """The metrics of reward models that have no unit, so that two models can be compared in them."""
    io_po, io_pa, ia_po, ia_pa = (rows[name].to_numpy() for name in ("r_io_po", "r_io_pa", "r_ia_po", "r_ia_pa"))
    values = {
        "both_ways_accuracy": (io_po > ia_po) & (ia_pa > io_pa),
        "accuracy_under_wide_spectrum": ia_pa > io_pa,
        "accuracy_under_original": io_po > ia_po,
        "match_positive_rate": prior_and_match(io_po, io_pa, ia_po, ia_pa)[1] > 0,
    }
    values = {name: np.where(chosen, value, nan) for name, value in values.items()}
    verdict = rows["verdict"].astype(float).to_numpy()
    agrees = np.where(np.isin(verdict, (0, 1)), (ia_pa > io_pa) == (verdict == 1), nan)
    pair = rows["pair_id"] + " by " + rows["generator"]
    found = {
        name: RowValues(_table(rows, each, "reward_model", pair), "reward model", subset)
        for name, each in values.items()
    }
    return found | {"accuracy": RowValues(_table(rows, agrees, "reward_model", pair), "reward model", "all")}


def metric_rows(run: Path) -> dict[str, RowValues]:
    """The metrics that are means over rows, of which a run has values for two models or more.

    Those of reward models come from the subset on which the run's headline compares them, `accuracy` from every pair
    with a verdict for or against.
    """
    config = read_run_file(run)
    judges = pick_judges(run, config.evaluate)
    pairs = pair_table(run, judges)
    requests = request_table(run, pairs, config.seeds, judges)
    found = _generator_rows(requests)
    for model, rows in pairs.groupby("reward_model"):
        scored = requests.merge(rows[[*KEY, "r_io_po", "r_ia_po"]], on=KEY, how="left")
        found |= {f"{name}/{model}": values for name, values in _generator_rows(scored).items()}
    subset, chosen = next((subset, flags) for subset, flags in subset_flags(pairs).items() if flags.any())
    found |= _reward_model_rows(pairs, subset, chosen)
    return {name: values for name, values in found.items() if values.table.shape[1] > 1}


def headline_outcomes(run: Path, config: RunConfig) -> pd.DataFrame:
    """`outcomes` of a run folder."""
    judges = pick_judges(run, config.evaluate)
    pairs = pair_table(run, judges)
    return outcomes(pairs, request_table(run, pairs, config.seeds, judges))


def outcomes(pairs: pd.DataFrame, requests: pd.DataFrame) -> pd.DataFrame:
    """The outcomes behind `success_rate` of each generator and `both_ways_accuracy` of each reward model.

    Columns: `model`, `metric`, `subset`, `cluster` (pairs that share their plain caption are one cluster), `key` (the
    same in every run for the same request or image pair), `value` (1.0 or 0.0). The mean of `value` over a model,
    metric and subset is the figure that `evaluate` gives; what it leaves out has no row here: a failed request, a pair
    without a verdict. A refusal is no success.
    """
    successes = _generator_rows(requests)["success_rate"]
    tables = [_outcomes(successes.table, "success_rate", "all")]
    for subset, chosen in subset_flags(pairs).items():
        rows = _reward_model_rows(pairs, subset, chosen)["both_ways_accuracy"]
        tables.append(_outcomes(rows.table, "both_ways_accuracy", subset))
    return pd.concat(tables, ignore_index=True)


def _outcomes(table: pd.DataFrame, metric: str, subset: str) -> pd.DataFrame:
    long = table.melt(ignore_index=False, value_name="value").dropna(subset="value").reset_index()
    keys = [json.dumps(key) for key in long[["pair", "seed"]].to_numpy().tolist()]
    return pd.DataFrame(
        {"model": long["model"], "metric": metric, "subset": subset, "cluster": long["prompt"], "key": keys}
    ).assign(value=long["value"])
