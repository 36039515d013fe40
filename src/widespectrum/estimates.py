"""Metric results as they are gathered: one row per estimate, and a note for what is absent."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd

from .columns import optional_values, row_keys
from .config import EvaluateConfig
from .functional import anti_aesthetic_adherence
from .types import DIMENSIONS, MetricResult

__all__ = ["REWARD_METRICS", "Collector", "Naming", "adherence"]

REWARD_METRICS = ("delta_reward", "reward_after", "escape_rate", "polish_overlap", "wilcoxon_r", "wilcoxon_p")
"""Metrics of a generator that belong to one reward model; their name carries it: `delta_reward/hpsv3`."""

VERDICT_METRICS = ("accuracy", "f1", "f1_weighted", "auroc", "balanced_accuracy", "mcc", "always_wide_accuracy")
"""Metrics of a reward model that rest on the pairs with verdict 1 or 0."""

RATED = {
    "effect_gain": ("effect_io", "effect_ia"),
    "effect_after": ("effect_ia",),
    "content_preservation": ("content_io", "content_ia"),
    "content_after": ("content_ia",),
}
"""The ratings that a metric of a generator rests on."""

Naming = Callable[[str], str]


class Collector:
    """Gathers the flat dictionaries that `functional` returns as metric results, and their notes."""

    def __init__(self, config: EvaluateConfig) -> None:
        self.level = config.confidence_level
        self.options: dict[str, Any] = {
            "n_resamples": config.n_resamples,
            "seed": 0,
            "confidence_level": config.confidence_level,
            "interval": config.interval,
        }
        self.results: list[MetricResult] = []
        self.notes: list[dict[str, str]] = []

    def note(self, model: str, subset: str, metric: str, reason: str) -> None:
        """Say why an estimate is absent, or to be read with care."""
        self.notes.append({"model": model, "subset": subset, "metric": metric, "reason": reason})

    def add(self, model: str, subset: str, values: Mapping[str, Any], rows: pd.DataFrame, name: Naming = str) -> None:
        """Take every estimate of `values`, made from `rows`; `name` gives its name, an empty one leaves it out."""
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
                n=_pairs_behind(key, rows),
                subset=subset,
            )
            self.results.append(result)
        for key, reason in values.get("notes", {}).items():
            if metric := name(key):
                self.note(model, subset, metric, reason)
        for key, reason in values.get("cautions", {}).items():
            # that captions are few is said once, of the whole run
            if key != "n_prompts" and (metric := name(key)):
                self.note(model, subset, f"{metric}_caution", reason)
        for key, count in values.get("undefined_resamples", {}).items():
            if metric := name(key):
                reason = (
                    f"{count} of {self.options['n_resamples']} resamples are undefined and left out of the interval"
                )
                self.note(model, subset, f"{metric}_ci", reason)


def _pairs_behind(metric: str, rows: pd.DataFrame) -> int:
    """How many prompt pairs of `rows` an estimate rests on."""
    used = pd.Series(True, index=rows.index)
    is_ok = rows["status"].isna() | (rows["status"] == "ok") if "status" in rows else used
    if metric in VERDICT_METRICS:
        used = rows["verdict"].isin([0.0, 1.0])
    elif metric in ("success_rate", "mcnemar_p", "mcnemar_p_one_sided"):
        used = (is_ok & rows["verdict"].notna()) | (rows["status"] == "refused")
    elif metric in REWARD_METRICS:
        used = is_ok & rows["r_ia_po"].notna()
    elif metric in RATED:
        used = is_ok & rows[list(RATED[metric])].notna().all(axis=1)
    elif metric.startswith(("delta_j", "j_after", "wilcoxon_j")):
        used = is_ok & pd.Series([_has_j(metric, row) for row in rows.itertuples()], index=rows.index, dtype=bool)
    return int(rows.loc[used, "pair_id"].nunique())


def _has_j(metric: str, row: Any) -> bool:
    """Whether J is known of all dimensions that a figure sums up, of I_a and, for a difference, of I_o."""
    ratings = (row.j_io, row.j_ia) if metric.startswith("delta") else (row.j_ia,)
    if any(each is None for each in ratings):
        return False
    # Of one dimension alone, the rows are those that ask for it.
    names = row.dimensions if metric.endswith("selected") else () if metric == "delta_j" else DIMENSIONS
    known = [dict(zip(DIMENSIONS, each, strict=True)) for each in ratings]
    return all(each.get(name) is not None for each in known for name in names)


def _generator_inputs(rows: pd.DataFrame, suffix: str = "") -> dict[str, Any]:
    names = ("verdict", "effect_io", "effect_ia", "content_io", "content_ia", "j_io", "j_ia", "status")
    columns: dict[str, Any] = {name: optional_values(rows[name]) for name in names}
    columns |= {name: optional_values(rows[name]) or [None] * len(rows) for name in ("r_io_po", "r_ia_po")}
    return {f"{name}{suffix}": values for name, values in columns.items()}


def adherence(out: Collector, rows: pd.DataFrame, base: pd.DataFrame | None) -> dict[str, Any]:
    """`anti_aesthetic_adherence` of the requests in `rows`, against those of `base` where there are any."""
    inputs = _generator_inputs(rows) | row_keys(rows)
    if all(rows["dimensions"]):
        inputs["dimensions"] = [list(names) for names in rows["dimensions"]]
    if base is not None:
        inputs |= _generator_inputs(base, "_base")
    values = anti_aesthetic_adherence(**inputs, **out.options)
    return values | {f"coverage/{name}": share for name, share in values["coverage"].items() if name != "status"}
