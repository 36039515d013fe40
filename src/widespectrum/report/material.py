"""What a report is made from: the tables of a run, read once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from widespectrum.columns import KEY, Judges, pair_table
from widespectrum.config import RunConfig, read_run_file
from widespectrum.results import read_evaluation, read_results
from widespectrum.runs import read_manifest
from widespectrum.tables import headline_subset
from widespectrum.types import ModelSpec, RunManifest

__all__ = ["Estimate", "Material", "read_material"]


class Estimate(NamedTuple):
    """One metric result; `low` and `high` are NaN where it has no interval."""

    value: float
    low: float
    high: float

    @property
    def has_interval(self) -> bool:
        """Whether both ends are known."""
        return not math.isnan(self.low)


@dataclass(frozen=True, slots=True)
class Material:
    """The tables of one evaluated run.

    `estimates` and `reasons` are keyed by (model, subset, metric), with `tie_group` among the metrics; `pairs` is
    `columns.pair_table`; `subset` is the one that the reward models' headline figures come from; `judges` are
    those whose answers count, each empty where the run has none.
    """

    run: Path
    manifest: RunManifest
    config: RunConfig
    pairs: pd.DataFrame
    estimates: dict[tuple[str, str, str], Estimate]
    reasons: dict[tuple[str, str, str], str]
    level: float
    subset: str
    judges: Judges

    @property
    def image_pairs(self) -> pd.DataFrame:
        """One row per image pair: the first reward model's."""
        return self.pairs.drop_duplicates(KEY)

    @property
    def reward_models(self) -> list[str]:
        """The labels of the reward models that have scores."""
        return sorted(set(self.pairs["reward_model"]))

    @property
    def generators(self) -> list[str]:
        """The labels of the generators that have scores, or nothing but refusals."""
        return sorted(set(self.manifest.specs.get("generators", {})) | set(self.pairs["generator"]))

    def specs(self, kind: str) -> dict[str, ModelSpec]:
        """The specs of `generators`, `reward_models` or `judges` by label."""
        return {label: ModelSpec.parse(text) for label, text in self.manifest.specs.get(kind, {}).items()}


def read_material(run: Path) -> Material:
    """Everything of `run` that a report shows; RunFolderError where it is not evaluated."""
    manifest, evaluation = read_manifest(run), read_evaluation(run)
    results = read_results(run)
    config = read_run_file(run)
    key = zip(results["model"], results["subset"], results["metric"], strict=True)
    numbers = zip(results["value"], results["ci_low"], results["ci_high"], strict=True)
    estimates = {place: Estimate(*values) for place, values in zip(key, numbers, strict=True)}
    for row in results[results["tie_group"].notna()].itertuples():
        estimates[row.model, row.subset, "tie_group"] = Estimate(row.tie_group, math.nan, math.nan)
    return Material(
        run=run,
        manifest=manifest,
        config=config,
        pairs=pair_table(run, Judges(**evaluation.judges)),
        estimates=estimates,
        reasons={(note["model"], note["subset"], note["metric"]): note["reason"] for note in evaluation.notes},
        level=float(results["level"].iloc[0]),
        subset=headline_subset(results),
        judges=Judges(**evaluation.judges),
    )
