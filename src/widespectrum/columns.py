"""Run tables → columns: one row per image pair, with everything that the metrics take as input."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd

from . import store
from .errors import InputError, RunFolderError
from .runs import read_manifest
from .types import DIMENSIONS, ModelSpec

__all__ = ["CELLS", "KEY", "pair_table", "pick_judge", "request_table"]

CELLS = {
    ("original", "original"): "r_io_po",
    ("original", "wide_spectrum"): "r_io_pa",
    ("wide_spectrum", "original"): "r_ia_po",
    ("wide_spectrum", "wide_spectrum"): "r_ia_pa",
}
"""(image role, prompt role) → column."""

KEY = ["pair_id", "generator", "image_seed"]


def _score_columns(run: Path) -> pd.DataFrame:
    """One row per pair, generator, seed and reward model: the four scores, and the ids of both images and of p_a."""
    long = store.read(run, "scores").to_pandas()
    if long.empty:
        raise RunFolderError(f"{run} holds no scores: run the score stage, on pairs of which both images exist")
    long["cell"] = [CELLS[cell] for cell in zip(long["image_role"], long["prompt_role"], strict=True)]
    index = [*KEY, "reward_model"]
    if (repeated := long.duplicated([*index, "cell"])).any():
        first = long[repeated].iloc[0]
        raise RunFolderError(f"{run}: the scores hold pair {first.pair_id!r} of {first.generator!r} twice")
    wide = long.pivot(index=index, columns="cell", values="value").reindex(columns=list(CELLS.values()))
    asked = long[long["prompt_role"] == "wide_spectrum"]
    ids = asked.pivot(index=index, columns="image_role", values="image_id")
    own = asked[asked["image_role"] == "wide_spectrum"].set_index(index)
    wide["image_io"], wide["image_ia"], wide["prompt_pa"] = ids["original"], ids["wide_spectrum"], own["prompt_id"]
    if (gaps := wide.isna().any(axis=1)).any():
        pair = wide[gaps].index[0]
        raise RunFolderError(f"{run}: pair {pair[0]!r} of {pair[1]!r} lacks one of its four scores: score it again")
    return wide.reset_index()


def _by_pair(run: Path, role: str, column: str) -> dict[str, object]:
    prompts = store.read(run, "prompts").to_pandas()
    return dict(prompts[prompts["role"] == role].set_index("pair_id")[column])


def _answers(run: Path, judge: str) -> pd.DataFrame:
    """The answers of one judge, one per question."""
    verdicts = store.read(run, "verdicts").to_pandas()
    return verdicts[(verdicts["order"] == "both") & (verdicts["judge"] == judge)]


def pick_judge(run: Path, wanted: str) -> str:
    """The judge whose verdicts count: the wanted one, else the first; empty where nothing was judged."""
    judges = list(read_manifest(run).specs.get("judges", {}))
    if not wanted:
        return judges[0] if judges else ""
    if wanted not in judges:
        raise InputError(f"verdict_judge {wanted!r} is no judge of this run; it has: {', '.join(judges) or 'none'}")
    return wanted


def _j_lists(answers: pd.DataFrame) -> dict[tuple[str, str], list[float | None]]:
    """(prompt_id, image_id) → J in [0, 2] per dimension, None where it is not rated."""
    rated = answers[(answers["rival_id"] == "") & answers["dimension"].isin(DIMENSIONS)]
    found: dict[tuple[str, str], list[float | None]] = {}
    columns = (rated[name] for name in ("prompt_id", "image_id", "dimension", "outcome"))
    for prompt_id, image_id, dimension, outcome in zip(*columns, strict=True):
        row = found.setdefault((prompt_id, image_id), [None] * len(DIMENSIONS))
        row[DIMENSIONS.index(dimension)] = 2.0 * outcome
    return found


def _is_controlled(spec: ModelSpec) -> bool:
    """Whether the images of a generator show by construction what the prompt asks for."""
    return spec.adapter == "photo-effects" and spec.params["strength"] != 0


def pair_table(run: Path, verdict_judge: str = "") -> pd.DataFrame:
    """One row per image pair and reward model.

    Columns: `pair_id`, `generator`, `image_seed`, `reward_model`, the four scores, `image_io`, `image_ia`,
    `prompt_pa`, `cluster` (pairs that share their plain caption are one cluster), `dimensions` (tuple),
    `verdict` (of I_a against I_o under p_a; NaN without one), `j_io` and `j_ia` (lists over the dimensions, or None),
    `controlled` (I_a shows by construction what p_a asks for).
    """
    table = _score_columns(run)
    captions, requested = _by_pair(run, "original", "text"), _by_pair(run, "wide_spectrum", "dimensions")
    table["cluster"] = [captions.get(pair, pair) for pair in table["pair_id"]]
    table["dimensions"] = [tuple(requested.get(pair, ())) for pair in table["pair_id"]]  # type: ignore[arg-type]
    answers = _answers(run, pick_judge(run, verdict_judge))
    overall = answers[answers["dimension"] == "overall"].set_index(["prompt_id", "image_id", "rival_id"])["outcome"]
    verdicts, ratings = dict(overall), _j_lists(answers)
    asked = list(zip(table["prompt_pa"], table["image_ia"], table["image_io"], strict=True))
    table["verdict"] = [verdicts.get(question, math.nan) for question in asked]
    table["j_ia"] = [ratings.get((prompt, ours)) for prompt, ours, _ in asked]
    table["j_io"] = [ratings.get((prompt, default)) for prompt, _, default in asked]
    specs = read_manifest(run).specs.get("generators", {})
    controlled = [label for label, text in specs.items() if _is_controlled(ModelSpec.parse(text))]
    table["controlled"] = table["generator"].isin(controlled)
    return table.sort_values([*KEY, "reward_model"], ignore_index=True)


def request_table(run: Path, pairs: pd.DataFrame, seeds: tuple[int, ...]) -> pd.DataFrame:
    """Every pair that each generator was asked for, with `status` ok, refused or failed; `pairs` of one reward model.

    Of a run without images (imported scores) nobody knows what was asked for: its `status` is None.
    """
    images = store.read(run, "images", ("prompt_id", "generator", "seed", "status")).to_pandas()
    if images.empty:
        return pairs.assign(status=None)
    prompts = store.read(run, "prompts").to_pandas()
    wide = prompts[prompts["role"] == "wide_spectrum"]
    captions = _by_pair(run, "original", "text")
    asked = pd.DataFrame(
        [
            {"pair_id": pair, "generator": generator, "image_seed": seed, "asked_for": tuple(names)}
            for generator in dict.fromkeys(read_manifest(run).specs["generators"])
            for seed in seeds
            for pair, names in zip(wide["pair_id"], wide["dimensions"], strict=True)
        ]
    )
    refused = images[images["status"] == "refused"].merge(prompts[["prompt_id", "pair_id"]], on="prompt_id")
    said_no = set(zip(refused["pair_id"], refused["generator"], refused["seed"], strict=True))
    table = asked.merge(pairs, on=KEY, how="left")
    table["cluster"] = [captions[pair] for pair in table["pair_id"]]
    table["dimensions"] = table.pop("asked_for")
    keys = zip(table["pair_id"], table["generator"], table["image_seed"], strict=True)
    scored = table["r_ia_po"].notna()
    table["status"] = [
        "ok" if there else "refused" if key in said_no else "failed" for key, there in zip(keys, scored, strict=True)
    ]
    return table
