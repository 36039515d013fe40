"""What a run's judges say beside the one whose answers count, and how far they agree."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from . import store
from .columns import Judges, able_judges, request_table
from .emotion_faces import face_table, generated_emotion_of
from .estimates import Collector, Naming, adherence
from .functional import judge_agreement
from .prompts.emotion import CONTROL

__all__ = ["add_emotions", "add_other_judges", "add_position_bias"]

ORDER_METRICS = ("position_bias_rate", "first_shown_rate")
"""Metrics of a judge: how far the order in which the images are shown sways it."""

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


def add_emotions(out: Collector, run: Path, requests: pd.DataFrame) -> None:
    """How far the faces of each generator show the emotion asked for: of all, and per emotion, and of which judge.

    The first judge of faces gives `emotion_match`; the others have their label behind it.
    """
    judged = store.read(run, "verdicts", ("judge", "dimension")).to_pandas()
    judges = dict.fromkeys(judged.loc[judged["dimension"] == "expressed emotion", "judge"])
    for number, judge in enumerate(judges):
        named, faces = _emotion_names(f"/{judge}" if number else ""), face_table(run, judge)
        for generator, values in generated_emotion_of(run, judge, out.options).items():
            own, shown = (table[table["generator"] == generator] for table in (requests, faces))
            # The control is no part of the mean over emotions, unless there is nothing else.
            others = shown[shown["emotion"] != CONTROL]
            found = {"face_rate": values.pop("face_rate")}
            parts = [("all", found, shown), ("all", values, shown if others.empty else others)]
            for emotion, block in values.get("by_emotion", {}).items():
                parts.append((f"emotion={emotion}", block, shown[shown["emotion"] == emotion]))
            for subset, block, part in parts:
                out.add(generator, subset, block, own[own["pair_id"].isin(part["pair_id"])], named)


def _emotion_names(suffix: str) -> Naming:
    def name(metric: str) -> str:
        plain = metric.removesuffix("_ci")
        return f"emotion_{metric}{suffix}" if plain in ("match", "match_minus_control", "face_rate") else ""

    return name


def add_position_bias(out: Collector, run: Path) -> None:
    """How far the order of showing sways each judge that answered in both; its label is the model."""
    prompts = store.read(run, "prompts", ("prompt_id", "pair_id", "role", "text")).to_pandas()
    captions = prompts[prompts["role"] == "original"].set_index("pair_id")["text"]
    pairs = prompts.set_index("prompt_id")["pair_id"]
    names = ("prompt_id", "image_id", "rival_id", "dimension", "judge", "order", "outcome")
    rows = store.read(run, "verdicts", names).to_pandas()
    rows = rows[(rows["dimension"] == "overall") & (rows["rival_id"] != "")]
    for judge, part in rows.groupby("judge"):
        table = part.pivot(index=["prompt_id", "image_id", "rival_id"], columns="order", values="outcome")
        # People see a pair once, some of them with one image first and some with the other.
        table = table.reindex(columns=["first", "second", "both"]).dropna().reset_index()
        if table.empty:
            continue
        pair = table["prompt_id"].map(pairs)
        values = judge_agreement(
            table["both"].tolist(),
            table["both"].tolist(),
            verdict_first=table["first"].tolist(),
            verdict_second=table["second"].tolist(),
            prompt_id=pair.map(captions).fillna(pair).tolist(),
            image_seed=list(map(str, range(len(table)))),
            **out.options,
        )
        table = table.assign(pair_id=pair)
        turned = table[(table["first"] != table["second"]) & (table[["first", "second"]] != 0.5).all(axis=1)]
        for metric, rows_behind in zip(ORDER_METRICS, (table, turned), strict=True):
            out.add(judge, "all", values, rows_behind, _only(metric))


def _only(metric: str) -> Naming:
    return lambda name: name if name == metric else ""
