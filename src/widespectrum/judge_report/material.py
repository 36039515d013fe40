"""What the judge report is made from: the image pairs of a run, and what every judge said about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from widespectrum import store
from widespectrum.config import read_run_file
from widespectrum.errors import InputError
from widespectrum.pipeline import image_pairs
from widespectrum.runs import read_manifest
from widespectrum.types import ModelSpec, RunManifest

__all__ = ["PEOPLE", "RATER", "Asked", "Floats", "Key", "Material", "Verdicts", "listed", "read_material"]

Floats: TypeAlias = NDArray[np.float64]
Key: TypeAlias = tuple[str, str, str]
"""prompt_id of p_a, image_id of I_a, image_id of I_o: what a judge is asked about. Generators may share it."""

PEOPLE = "people"
"""The label under which the verdicts of several people are taken together."""

RATER = "human:"
"""How the label of one person begins."""


class Asked(NamedTuple):
    """One image pair as judges see it; `caption` is p_o, which pairs of one cluster share."""

    key: Key
    pair_id: str
    caption: str
    prompt: str
    dimensions: tuple[str, ...]
    generators: tuple[str, ...]


class Verdicts(NamedTuple):
    """The verdicts of one judge, one per pair, NaN for none: of both orders together and of each, and its confidence
    (mean over the orders).
    """

    both: Floats
    first: Floats
    second: Floats
    confidence: Floats

    @property
    def has_an_order(self) -> bool:
        """Whether it is known of any pair which image it saw first."""
        return bool((~np.isnan(self.first) | ~np.isnan(self.second)).any())

    @property
    def has_both_orders(self) -> bool:
        """Whether it saw any pair in both orders."""
        return bool((~np.isnan(self.first + self.second)).any())


def listed(column: Floats) -> list[float | None]:
    """The numbers, None for NaN, as `functional` takes them."""
    return [None if value != value else value for value in column.tolist()]


@dataclass(frozen=True)
class Material:
    """The pairs and verdicts of one run.

    `verdicts` holds the judges that compare two images, in the order in which they are shown; `abstentions` is the
    table of the run, `ratings` the rows of images alone; `unknown` counts rows about pairs that the run does not hold.
    """

    run: Path
    manifest: RunManifest
    options: dict[str, Any]
    pairs: Sequence[Asked]
    verdicts: Mapping[str, Verdicts]
    abstentions: pd.DataFrame
    ratings: pd.DataFrame
    unknown: int

    @property
    def raters(self) -> list[str]:
        """The people, one by one."""
        return [label for label in self.verdicts if label.startswith(RATER)]

    @property
    def machines(self) -> list[str]:
        """The judges that are no people."""
        return [label for label in self.verdicts if label != PEOPLE and not label.startswith(RATER)]

    @cached_property
    def row_keys(self) -> dict[str, list[str]]:
        """The cluster of each pair, which is its plain caption, and what tells the pairs of a cluster apart."""
        return {"prompt_id": [pair.caption for pair in self.pairs], "image_seed": [" ".join(p.key) for p in self.pairs]}

    def spec(self, label: str) -> ModelSpec | None:
        """What a judge is, as far as the manifest says it."""
        text = self.manifest.specs.get("judges", {}).get(label)
        return None if text is None else ModelSpec.parse(text)

    def members(self, label: str) -> set[str]:
        """The judges whose verdicts make up those of `label`."""
        if label == PEOPLE:
            return set(self.raters)
        spec = self.spec(label)
        if spec is None or spec.adapter != "majority":
            return set()
        # Each label is followed by the key of its spec.
        return {part.rpartition(" ")[0] for part in str(spec.params.get("judges", "")).split(";")}


def _asked(run: Path) -> list[Asked]:
    """Every pair that a judge can be asked about, once."""
    found: dict[Key, list[Any]] = {}
    for pair in image_pairs(run):
        wide = pair.prompts["wide_spectrum"]
        key = (wide.prompt_id, pair.image_ids["wide_spectrum"], pair.image_ids["original"])
        found.setdefault(key, []).append(pair)
    return [
        Asked(
            key=key,
            pair_id=pairs[0].pair_id,
            caption=pairs[0].prompts["original"].text,
            prompt=pairs[0].prompts["wide_spectrum"].text,
            dimensions=tuple(pairs[0].prompts["wide_spectrum"].dimensions),
            generators=tuple(dict.fromkeys(pair.generator for pair in pairs)),
        )
        for key, pairs in found.items()
    ]


def _in_order(labels: set[str], manifest: RunManifest) -> list[str]:
    """The people first, then the judges as the manifest has them, then each person."""
    known = list(manifest.specs.get("judges", {}))

    def place(label: str) -> tuple[Any, ...]:
        kind = 0 if label == PEOPLE else 2 if label.startswith(RATER) else 1
        return kind, known.index(label) if kind == 1 and label in known else len(known), label

    return sorted(labels, key=place)


def _verdicts(rows: pd.DataFrame, places: Mapping[Key, int]) -> Verdicts:
    """The verdicts of one judge."""
    columns = {name: np.full(len(places), np.nan) for name in ("both", "first", "second")}
    totals = np.zeros((2, len(places)))
    values = (rows[name] for name in ("prompt_id", "image_id", "rival_id", "order", "outcome", "confidence"))
    for prompt, image, rival, order, outcome, confidence in zip(*values, strict=True):
        place = places[prompt, image, rival]
        columns[order][place] = outcome
        if confidence == confidence and confidence is not None:
            totals[:, place] += (1, confidence)
    with np.errstate(invalid="ignore"):
        return Verdicts(**columns, confidence=totals[1] / np.where(totals[0] == 0, np.nan, totals[0]))


def _options(run: Path) -> dict[str, Any]:
    """How intervals are made: as the run file says it."""
    chosen = read_run_file(run).evaluate
    names = ("n_resamples", "confidence_level", "interval")
    return {"seed": 0} | {name: getattr(chosen, name) for name in names}


def read_material(run: Path, options: Mapping[str, Any] | None = None) -> Material:
    """The pairs and verdicts of `run`; InputError where it holds no verdict on a pair."""
    manifest, pairs = read_manifest(run), _asked(run)
    names = [name for name in store.SCHEMAS["verdicts"].names if name not in ("rationale", "raw", "details")]
    rows = store.read(run, "verdicts", names).to_pandas()
    abstentions = store.read(run, "abstentions").to_pandas()
    compared = rows[(rows["dimension"] == "overall") & (rows["rival_id"] != "")]
    if compared.empty:
        raise InputError(
            f"{run} holds no verdict of any judge on a pair of images: run `widespectrum judge {run}` with a judge "
            "that compares images, or `widespectrum annotate`, then the report again"
        )
    places = {pair.key: place for place, pair in enumerate(pairs)}
    keys = list(zip(compared["prompt_id"], compared["image_id"], compared["rival_id"], strict=True))
    is_known = np.array([key in places for key in keys])
    declined = abstentions[(abstentions["dimension"] == "overall") & (abstentions["rival_id"] != "")]
    labels = _in_order(set(compared["judge"]) | set(declined["judge"]), manifest)
    known = compared[is_known]
    return Material(
        run=run,
        manifest=manifest,
        options=dict(options or _options(run)),
        pairs=pairs,
        verdicts={label: _verdicts(known[known["judge"] == label], places) for label in labels},
        abstentions=abstentions,
        ratings=rows[(rows["rival_id"] == "") & (rows["order"] == "both")],
        unknown=len(set(keys) - set(places)),
    )
