"""What a run's judges say beside the one whose answers count, and how far they agree."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from .columns import Judges, able_judges, request_table
from .estimates import Collector, Naming, adherence

__all__ = ["add_other_judges"]

JUDGE_METRICS = {
    "verdict": ("success_rate",),
    "effect": ("effect_gain", "effect_after"),
    "content": ("content_preservation", "content_after"),
    "dimension": ("delta_j_selected", "delta_j_all", "j_after_selected", "j_after"),
}
"""Metrics of a generator that rest on the judge of each role; for every other judge their name carries it."""


def _of_judge(metrics: Sequence[str], judge: str) -> Naming:
    def name(metric: str) -> str:
        return f"{metric}/{judge}" if metric.removesuffix("_ci") in metrics else ""

    return name


def add_other_judges(out: Collector, run: Path, requests: pd.DataFrame, judges: Judges, seeds: tuple[int, ...]) -> None:
    """What the judges say whose answers do not count otherwise: `<metric>/<judge>`, over all pairs."""
    for role, able in able_judges(run).items():
        for judge in able:
            if judge != getattr(judges, role):
                rows = request_table(run, requests, seeds, judges._replace(**{role: judge}))
                rows = rows.assign(r_io_po=None, r_ia_po=None)
                for generator, part in rows.groupby("generator"):
                    values = adherence(out, part, None)
                    out.add(generator, "all", values, part, _of_judge(JUDGE_METRICS[role], judge))
