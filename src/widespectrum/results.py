"""Columns → metric results: `functional` computes, one row per estimate comes out, gaps come with their reason."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from . import store
from .columns import CELLS, pair_table, request_table
from .config import RunConfig
from .errors import InputError, RunFolderError
from .functional import anti_aesthetic_adherence, reward_bias
from .types import MetricResult

__all__ = ["NOTES_FILE", "evaluate", "read_notes", "read_results"]

REWARD_METRICS = ("delta_reward", "reward_after", "escape_rate", "polish_overlap", "wilcoxon_r", "wilcoxon_p")
"""Metrics of a generator that belong to one reward model; their name carries it: `delta_reward/hpsv3`."""

NOTES_FILE = "results/notes.json"

Naming = Callable[[str], str]


class _Collector:
    """Gathers the flat dictionaries that `functional` returns as metric results, and their notes."""

    def __init__(self, config: RunConfig) -> None:
        self.level = config.evaluate.confidence_level
        self.options: dict[str, Any] = {
            "n_resamples": config.evaluate.n_resamples,
            "seed": 0,
            "confidence_level": self.level,
        }
        self.results: list[MetricResult] = []
        self.notes: list[dict[str, str]] = []

    def note(self, model: str, subset: str, metric: str, reason: str) -> None:
        self.notes.append({"model": model, "subset": subset, "metric": metric, "reason": reason})

    def add(self, model: str, subset: str, values: Mapping[str, Any], n: int, name: Naming = str) -> None:
        """Take every estimate of `values`; `name` gives the metric's name, an empty one leaves it out."""
        for key, value in values.items():
            is_estimate = isinstance(value, int | float) and not key.endswith(("_low", "_high"))
            if not is_estimate or not (metric := name(key)):
                continue
            low, high = (float(values.get(f"{key}_ci_{end}", math.nan)) for end in ("low", "high"))
            result = MetricResult(
                metric=metric,
                model=model,
                value=float(value),
                ci_low=low,
                ci_high=high,
                level=self.level,
                n=n,
                subset=subset,
            )
            self.results.append(result)
        for key, reason in values.get("notes", {}).items():
            if metric := name(key):
                self.note(model, subset, metric, reason)


def _keys(rows: pd.DataFrame) -> dict[str, list[Any]]:
    """The cluster of each row, and what tells the rows of a cluster apart: pairs of one caption share it."""
    columns = (rows[name] for name in ("pair_id", "generator", "image_seed"))
    labels = [f"{pair} by {generator}, seed {seed}" for pair, generator, seed in zip(*columns, strict=True)]
    return {"prompt_id": rows["cluster"].tolist(), "image_seed": labels}


def _optional(column: pd.Series) -> list[Any] | None:
    """The column with None for its gaps; None where there is nothing but gaps."""
    values = [None if value is None or value != value else value for value in column.tolist()]
    return values if any(value is not None for value in values) else None


def _pairs_in(rows: pd.DataFrame) -> int:
    return int(rows["pair_id"].nunique())


def _asks_for(rows: pd.DataFrame, dimension: str) -> pd.DataFrame:
    return rows[[dimension in names for names in rows["dimensions"]]]


def _bias(out: _Collector, rows: pd.DataFrame, group: list[str] | None = None) -> dict[str, Any]:
    inputs: dict[str, Any] = {name: rows[name].to_numpy() for name in CELLS.values()} | _keys(rows)
    return reward_bias(**inputs, verdict=_optional(rows["verdict"]), group=group, **out.options)


def _add_reward_model(out: _Collector, model: str, rows: pd.DataFrame) -> None:
    """One reward model on all, on verified and on controlled pairs: pooled, per generator, macro, per dimension."""
    subsets = {"all": rows, "verified": rows[rows["verdict"] == 1], "controlled": rows[rows["controlled"]]}
    for subset, chosen in subsets.items():
        if chosen.empty:
            out.note(model, subset, "n_pairs", f"no pair is {subset}")
            continue
        values = _bias(out, chosen, group=chosen["generator"].tolist())
        out.add(model, subset, values, _pairs_in(chosen))
        out.add(model, f"{subset}/macro", values["macro"], _pairs_in(chosen))
        for generator, block in values["by_group"].items():
            out.add(
                model, f"{subset}/generator={generator}", block, _pairs_in(chosen[chosen["generator"] == generator])
            )
        for dimension in sorted({name for names in chosen["dimensions"] for name in names}):
            part = _asks_for(chosen, dimension)
            out.add(model, f"{subset}/dimension={dimension}", _bias(out, part), _pairs_in(part))


def _generator_inputs(rows: pd.DataFrame, suffix: str = "") -> dict[str, Any]:
    columns: dict[str, Any] = {name: rows[name].tolist() for name in ("r_io_po", "r_ia_po")}
    columns |= {name: _optional(rows[name]) for name in ("status", "verdict", "j_io", "j_ia")}
    return {f"{name}{suffix}": values for name, values in columns.items()}


def _add_generator(
    out: _Collector, generator: str, rows: pd.DataFrame, base: pd.DataFrame | None, name: Naming
) -> None:
    """One generator under one reward model, over all pairs and per dimension, against its base where it has one."""
    inputs: dict[str, Any] = _generator_inputs(rows) | _keys(rows)
    if all(rows["dimensions"]):
        inputs["dimensions"] = [list(names) for names in rows["dimensions"]]
    if base is not None:
        inputs |= _generator_inputs(base, "_base")
    values = anti_aesthetic_adherence(**inputs, **out.options)
    out.add(generator, "all", values, _pairs_in(rows), name)
    for dimension, block in values.get("by_dimension", {}).items():
        out.add(generator, f"dimension={dimension}", block, _pairs_in(_asks_for(rows, dimension)), name)


def _base_rows(rows: pd.DataFrame, base: pd.DataFrame) -> pd.DataFrame:
    """The base generator's rows in the order of `rows`; failed where it has none."""
    key = ["pair_id", "image_seed"]
    base = rows[key].merge(base, on=key, how="left")
    missing = base["r_ia_po"].isna()
    if missing.any():
        base["status"] = base["status"].where(base["status"].notna(), "ok").where(~missing, "failed")
    return base


def _add_generators(out: _Collector, model: str, requests: pd.DataFrame, bases: Mapping[str, str], first: bool) -> None:
    """Every generator under one reward model; what depends on no reward model is taken with the first one only."""

    def name(metric: str) -> str:
        if metric.removesuffix("_ci") in REWARD_METRICS:
            return f"{metric}/{model}"
        return metric if first else ""

    by_generator = dict(list(requests.groupby("generator")))
    for generator, rows in by_generator.items():
        base = _base_rows(rows, by_generator[bases[generator]]) if generator in bases else None
        _add_generator(out, generator, rows, base, name)


def _check_bases(bases: Mapping[str, str], generators: set[str]) -> None:
    for aligned, base in bases.items():
        for generator in (aligned, base):
            if generator not in generators:
                known = ", ".join(sorted(generators))
                raise InputError(f"[evaluate] bases names {generator!r}, which is no generator of this run: {known}")


def evaluate(run: Path, config: RunConfig) -> list[MetricResult]:
    """Every metric of a run, written to `results/` with the reasons of what is absent."""
    table = pair_table(run, config.evaluate.verdict_judge)
    _check_bases(config.evaluate.bases, set(table["generator"]))
    out = _Collector(config)
    by_model = dict(list(table.groupby("reward_model")))
    for position, (model, rows) in enumerate(tqdm(by_model.items(), desc="evaluate", delay=2, leave=False)):
        _add_reward_model(out, model, rows)
        requests = request_table(run, rows, config.seeds)
        _add_generators(out, model, requests, config.evaluate.bases, position == 0)
    notes = json.dumps(out.notes, indent=1, ensure_ascii=False)
    store.write_file(run / NOTES_FILE, (notes + "\n").encode())
    store.replace(run, "results", out.results)
    return out.results


def read_results(run: Path) -> pd.DataFrame:
    """The metric results of a run, one row per estimate."""
    results = store.read(run, "results").to_pandas()
    if results.empty:
        raise RunFolderError(f"{run} holds no results: run `widespectrum evaluate {run}` first")
    return results


def read_notes(run: Path) -> list[dict[str, str]]:
    """Why estimates of a run are absent: model, subset, metric and reason."""
    notes: list[dict[str, str]] = json.loads((run / NOTES_FILE).read_text(encoding="utf-8"))
    return notes
