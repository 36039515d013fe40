"""Verdicts on expressed emotion → the metric `generated_emotion`, per generator.

The judge `emotion` rates both images of a pair under p_a. The metric takes I_a alone: the image made for the prompt
that names the emotion. Pairs of one template, whose ids are `<template>/<emotion>` as in the config `emotion`, are one
prompt, so that each emotion is held against the happy face of the same template.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from . import store
from .errors import RunFolderError
from .functional import generated_emotion
from .prompts.emotion import CONTROL

__all__ = ["face_table", "generated_emotion_of"]

_DIMENSION = "expressed emotion"


def face_table(run: Path, judge: str) -> pd.DataFrame:
    """One row per I_a that `judge` rated and probe wording: `pair_id`, `generator`, `template`, `emotion`, `seed`,
    `probe`, `match` (0 to 1), `has_face`.

    RunFolderError where the details of a verdict are not those of the judge `emotion`.
    """
    verdicts = store.read(run, "verdicts", ("prompt_id", "image_id", "dimension", "judge", "details")).to_pandas()
    rated = verdicts[(verdicts["judge"] == judge) & (verdicts["dimension"] == _DIMENSION)]
    prompts = store.read(run, "prompts", ("prompt_id", "pair_id")).to_pandas()
    images = store.read(run, "images", ("prompt_id", "image_id", "generator", "seed")).to_pandas()
    made = rated.merge(images, on=["prompt_id", "image_id"]).merge(prompts, on="prompt_id")
    columns = ["pair_id", "generator", "template", "emotion", "seed", "probe", "match", "has_face"]
    rows = []
    for row in made.itertuples():
        emotion, has_face, probes = _details(f"{run}, judge {judge!r}, pair {row.pair_id!r}", row.details)
        key = (row.pair_id, row.generator, row.pair_id.removesuffix(f"/{emotion}"), emotion, row.seed)
        rows += [(*key, probe, match, has_face) for probe, match in probes.items()]
    return pd.DataFrame(rows, columns=columns)


def _details(where: str, text: str) -> tuple[str, bool, dict[str, float]]:
    try:
        details = json.loads(text)
        probes = {str(name): float(match) for name, match in details["probes"].items()}
        if not probes or not all(0 <= match <= 1 for match in probes.values()):
            raise ValueError(f"the probes {probes} are not probabilities")
        return str(details["emotion"]), details["face"] is not None, probes
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RunFolderError(
            f"{where}: expected emotion, face and probes in the details of a verdict on {_DIMENSION}, got "
            f"{text[:80]!r} ({error!r}): give verdicts of the judge `emotion`, or leave them out"
        ) from None


def generated_emotion_of(run: Path, judge: str, options: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Generator → `generated_emotion` of its images by `judge`, over the probe wordings, empty without such verdicts.

    `options` are those of the bootstrap (`n_resamples`, `seed`, `confidence_level`, `interval`). Added is `face_rate`,
    the share of its images on which a face was found: where none is, the whole image was rated.
    """
    table = face_table(run, judge)
    return {str(name): _of_generator(rows, options) for name, rows in table.groupby("generator", sort=False)}


def _of_generator(rows: pd.DataFrame, options: Mapping[str, Any]) -> dict[str, Any]:
    # With happy faces alone there is nothing to hold against them, but their own figures remain.
    only_control = set(rows["emotion"]) == {CONTROL}
    values = generated_emotion(
        rows["match"].tolist(),
        emotion=rows["emotion"].tolist(),
        probe=rows["probe"].tolist(),
        prompt_id=rows["template"].tolist(),
        image_seed=rows["seed"].tolist(),
        control=None if only_control else CONTROL,
        **options,
    )
    images = rows.drop_duplicates(["template", "emotion", "seed"])
    return {**values, "face_rate": float(images["has_face"].mean())}
