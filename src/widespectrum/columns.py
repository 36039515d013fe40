"""Run tables → columns: one row per image pair, with everything that the metrics take as input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from . import store
from .config import EvaluateConfig
from .errors import InputError, RunFolderError
from .judges import JUDGES
from .registry import imported
from .runs import read_manifest
from .types import DIMENSIONS, ModelSpec

__all__ = [
    "CELLS",
    "KEY",
    "SUBSETS",
    "Judges",
    "able_judges",
    "effect_strength",
    "optional_values",
    "pair_table",
    "pick_judges",
    "request_table",
    "row_keys",
    "subset_flags",
]

CELLS = {
    ("original", "original"): "r_io_po",
    ("original", "wide_spectrum"): "r_io_pa",
    ("wide_spectrum", "original"): "r_ia_po",
    ("wide_spectrum", "wide_spectrum"): "r_ia_pa",
}
"""(image role, prompt role) → column."""

KEY = ["pair_id", "generator", "image_seed"]

SUBSETS = ("controlled", "verified", "all")
"""Where a reward model's headline figures come from: the first of these that a run has."""


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
    # None where no score of the pair says it.
    for column, source in (("cut", "truncated"), ("special", "special")):
        wide[column] = long.groupby(index)[source].agg(_any).astype(object)
    wide["past_window"] = own["past_window"].map(tuple)
    return wide.reset_index()


def _any(flags: pd.Series) -> bool | None:
    known = [bool(flag) for flag in flags if flag is not None and flag == flag]
    return any(known) if known else None


def subset_flags(rows: pd.DataFrame) -> dict[str, pd.Series]:
    """Which rows of `pair_table` belong to each of `SUBSETS`."""
    flags = {"controlled": rows["controlled"], "verified": rows["verdict"] == 1, "all": rows["pair_id"].notna()}
    return {subset: flags[subset] for subset in SUBSETS}


def optional_values(column: pd.Series) -> list[Any] | None:
    """The column with None for its gaps; None where there is nothing but gaps."""
    values = [None if value is None or value != value else value for value in column.tolist()]
    return values if any(value is not None for value in values) else None


def row_keys(rows: pd.DataFrame) -> dict[str, list[Any]]:
    """The cluster of each row, and what tells the rows of a cluster apart: pairs of one caption share it."""
    columns = (rows[name] for name in KEY)
    labels = [f"{pair} by {generator}, seed {seed}" for pair, generator, seed in zip(*columns, strict=True)]
    return {"prompt_id": rows["cluster"].tolist(), "image_seed": labels}


def _by_pair(run: Path, role: str, column: str) -> dict[str, Any]:
    prompts = store.read(run, "prompts").to_pandas()
    return dict(prompts[prompts["role"] == role].set_index("pair_id")[column])


def _answers(run: Path) -> pd.DataFrame:
    """The answers of every judge, one per question."""
    names = ("prompt_id", "image_id", "rival_id", "dimension", "judge", "order", "outcome")
    verdicts = store.read(run, "verdicts", names).to_pandas()
    return verdicts[verdicts["order"] == "both"]


class Judges(NamedTuple):
    """Whose answers count: labels of judges of a run, empty where there is none.

    `verdict` says which image fits p_a better, `effect` how far the listed effects show, `content` how far the main
    concept does or how well image and prompt match, `dimension` is J.
    """

    verdict: str = ""
    effect: str = ""
    content: str = ""
    dimension: str = ""


ASKED: Mapping[str, tuple[str, ...]] = {
    "verdict": ("overall",),
    "effect": ("effects",),
    "content": ("content", "main concept"),
    "dimension": DIMENSIONS,
}
"""What the judge of each role was asked; of several the first that it answered counts."""


def able_judges(run: Path) -> dict[str, list[str]]:
    """The judges that answered something in each role, in the order of the manifest."""
    table = store.read(run, "verdicts", ("judge", "dimension"))
    found = set(zip(*(column.to_pylist() for column in table.columns), strict=True))
    judges = list(read_manifest(run).specs.get("judges", {}))
    return {
        role: [judge for judge in judges if any((judge, each) in found for each in asked)]
        for role, asked in ASKED.items()
    }


def _can_answer(spec: str, asked: Sequence[str]) -> bool:
    """Whether a judge is asked one of these; of people and those of other programs it is not known beforehand."""
    entry = JUDGES.get(ModelSpec.parse(spec).adapter)
    return entry is None or any(each in imported(entry).dimensions for each in asked)


def pick_judges(run: Path, wanted: EvaluateConfig) -> Judges:
    """The judges whose answers count: those that `wanted` names; else of each role the first that answered in it, the
    judge of the verdicts before others.

    InputError where a wanted one is no judge of the run, or of another kind.
    """
    specs, able = read_manifest(run).specs.get("judges", {}), able_judges(run)
    judges = list(specs)
    chosen: dict[str, str] = {}
    for role in ASKED:
        if (name := getattr(wanted, f"{role}_judge")) and name not in judges:
            raise InputError(f"{role}_judge {name!r} is no judge of this run; it has: {', '.join(judges) or 'none'}")
        if name and not _can_answer(specs[name], ASKED[role]):
            raise InputError(f"{role}_judge {name!r} is asked nothing of the kind: name one that is, or leave it out")
        first = chosen.get("verdict", "")
        rest = able[role] or (judges if role == "verdict" else [])
        chosen[role] = name or (first if first in able[role] else next(iter(rest), ""))
    return Judges(**chosen)


def _rating_lists(answers: pd.DataFrame) -> dict[tuple[str, str], list[float | None]]:
    """(prompt_id, image_id) → J in [0, 2] per dimension, None where it is not rated."""
    rated = answers[(answers["rival_id"] == "") & answers["dimension"].isin(DIMENSIONS)]
    found: dict[tuple[str, str], list[float | None]] = {}
    columns = (rated[name] for name in ("prompt_id", "image_id", "dimension", "outcome"))
    for prompt_id, image_id, dimension, outcome in zip(*columns, strict=True):
        row = found.setdefault((prompt_id, image_id), [None] * len(DIMENSIONS))
        row[DIMENSIONS.index(dimension)] = 2.0 * outcome
    return found


def _shares(answers: pd.DataFrame, dimensions: Sequence[str]) -> dict[tuple[str, str], float]:
    """(prompt_id, image_id) → rating from 0 to 100 on the first of `dimensions` that is answered."""
    rated = answers[answers["rival_id"] == ""]
    parts = (rated[rated["dimension"] == dimension] for dimension in dimensions)
    part = next((part for part in parts if len(part)), rated.iloc[:0])
    return {key: 100.0 * outcome for key, outcome in part.set_index(["prompt_id", "image_id"])["outcome"].items()}


def _add_answers(table: pd.DataFrame, answers: pd.DataFrame, judges: Judges) -> pd.DataFrame:
    """Add what the judges said about `prompt_pa`, `image_io` and `image_ia`: None where they said nothing."""
    of = {role: answers[answers["judge"] == label] for role, label in judges._asdict().items()}
    overall = of["verdict"][of["verdict"]["dimension"] == "overall"]
    verdicts = dict(overall.set_index(["prompt_id", "image_id", "rival_id"])["outcome"])
    sources: dict[str, Mapping[tuple[str, str], Any]] = {"j": _rating_lists(of["dimension"])}
    sources |= {role: _shares(of[role], ASKED[role]) for role in ("effect", "content")}
    asked = list(zip(table["prompt_pa"], table["image_ia"], table["image_io"], strict=True))
    columns = {"verdict": [verdicts.get(question) for question in asked]}
    for name, ratings in sources.items():
        columns[f"{name}_io"] = [ratings.get((prompt, default)) for prompt, _, default in asked]
        columns[f"{name}_ia"] = [ratings.get((prompt, own)) for prompt, own, _ in asked]
    return table.assign(
        **{name: pd.Series(values, index=table.index, dtype=object) for name, values in columns.items()}
    )


def effect_strength(spec: ModelSpec) -> int | None:
    """The strength at which a generator applies classical effects; None for any other generator."""
    return int(spec.params["strength"]) if spec.adapter == "photo-effects" else None


def _add_prompts(run: Path, table: pd.DataFrame) -> pd.DataFrame:
    """Add `cluster` (pairs that share their plain caption are one cluster) and `dimensions` (tuple)."""
    captions, requested = _by_pair(run, "original", "text"), _by_pair(run, "wide_spectrum", "dimensions")
    cluster = [captions.get(pair, pair) for pair in table["pair_id"]]
    return table.assign(cluster=cluster, dimensions=[tuple(requested.get(pair, ())) for pair in table["pair_id"]])


def pair_table(run: Path, judges: Judges) -> pd.DataFrame:
    """One row per image pair and reward model.

    Columns: `pair_id`, `generator`, `image_seed`, `reward_model`, the four scores, `image_io`, `image_ia`,
    `prompt_pa`, `cut` (the reward model reads only a part of p_o or p_a), `past_window` (the dimensions that p_a asks
    for beyond it), `special` (it reads a part as a special token), `cluster`, `dimensions`; of the judges `verdict` (of
    I_a against I_o under p_a), `j_io`, `j_ia` (lists over the dimensions), `effect_*`, `content_*`, each None where
    there is none; `graded` (the generator by construction does what p_a asks for), `controlled` (it does, and I_a
    differs from I_o).
    """
    table = _add_answers(_add_prompts(run, _score_columns(run)), _answers(run), judges)
    specs = read_manifest(run).specs.get("generators", {})
    graded = [label for label, text in specs.items() if effect_strength(ModelSpec.parse(text))]
    table["graded"] = table["generator"].isin(graded)
    table["controlled"] = table["graded"] & (table["image_io"] != table["image_ia"])
    return table.sort_values([*KEY, "reward_model"], ignore_index=True)


def request_table(run: Path, pairs: pd.DataFrame, seeds: tuple[int, ...], judges: Judges) -> pd.DataFrame:
    """One row per pair that a generator was asked for, whether or not anything scored it.

    `status` is ok, refused or failed (not made); the other columns are those of `pair_table` without scores. Of
    imported scores nobody knows what was asked for: its rows are those of `pairs`, its status None.
    """
    if all(ModelSpec.parse(text).adapter == "external" for text in read_manifest(run).specs["generators"].values()):
        return pairs.drop_duplicates(KEY).drop(columns=["reward_model", *CELLS.values()]).assign(status=None)
    images = store.read(run, "images", ("prompt_id", "generator", "seed", "status", "image_id")).to_pandas()
    if images.empty or not store.parts(run, "prompts"):
        raise RunFolderError(f"{run} lacks its {'images' if images.empty else 'prompts'}: run `widespectrum run {run}`")
    made = {(row.prompt_id, row.generator, row.seed): row for row in images.itertuples()}
    original, wide = _by_pair(run, "original", "prompt_id"), _by_pair(run, "wide_spectrum", "prompt_id")
    rows = []
    for generator in read_manifest(run).specs["generators"]:
        for seed in seeds:
            for pair, prompt in wide.items():
                both = [made.get((each, generator, seed)) for each in (original[pair], prompt)]
                ids = ["" if image is None else image.image_id for image in both]
                rows.append((pair, generator, seed, prompt, *ids, _status(both)))
    table = pd.DataFrame(rows, columns=[*KEY, "prompt_pa", "image_io", "image_ia", "status"])
    return _add_answers(_add_prompts(run, table), _answers(run), judges)


def _status(images: list[Any]) -> str:
    statuses = {None if image is None else image.status for image in images}
    return "refused" if "refused" in statuses else "ok" if statuses == {"ok"} else "failed"
