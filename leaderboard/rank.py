"""Put published figures and finished runs side by side: `ranking.parquet` for programs, `ranking.md` for people.

Two boards: generators (headline `success_rate`) and reward models (headline `both_ways_accuracy`). Three tiers, never
ranked against one another: `run` (computed by this package), `published` (printed in the paper or on its site, not
recomputed) and `pending` (announced without figures). Runs are ranked only against runs on the same material, and
never in a bare order: each has an interval of places and a tie group, from tests of its outcomes against every other's
on the same requests or image pairs (`widespectrum.functional.rank_models`).
"""

from __future__ import annotations

import csv
import io
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from widespectrum import store
from widespectrum.columns import SUBSETS
from widespectrum.config import read_run_file
from widespectrum.errors import InputError, RunFolderError
from widespectrum.functional import Place, rank_models
from widespectrum.outcomes import headline_outcomes
from widespectrum.published import load_module
from widespectrum.results import Evaluation, read_evaluation, read_results
from widespectrum.runs import read_manifest
from widespectrum.tables import FEW_CAPTIONS
from widespectrum.types import ModelSpec, RunManifest

__all__ = ["SCHEMA", "rank"]

_HERE = Path(__file__).resolve().parent
_page: Callable[[list[dict[str, Any]]], str] = load_module(_HERE / "page.py").page

_BOARDS = ("generators", "reward_models")
_HEADLINE = {"generators": "success_rate", "reward_models": "both_ways_accuracy"}
_PUBLISHED_HEADLINE = {"generators": "success_rate", "reward_models": "accuracy"}
_DIGITS = 12
"""How much of a sha256 tells two things apart and can still be read."""

_ILLUSTRATION = "illustration: classical effects on photographs"

SCHEMA = pa.schema(
    [
        ("board", pa.string()),
        ("model", pa.string()),
        ("tier", pa.string()),
        ("metric", pa.string()),
        ("value", pa.float64()),
        ("ci_low", pa.float64()),
        ("ci_high", pa.float64()),
        ("level", pa.float64()),
        ("n", pa.int64()),
        ("subset", pa.string()),
        ("headline", pa.bool_()),
        ("tie_group", pa.int64()),
        ("rank_low", pa.int64()),
        ("rank_high", pa.int64()),
        ("comparison", pa.string()),
        ("source", pa.string()),
        ("note", pa.string()),
    ]
)
"""The columns of `ranking.parquet`; what is unknown is null.

`headline` marks the figure by which a model is listed. `comparison` says on what material a run's figure rests: only
rows with the same text, subset and level are ranked against each other. `rank_low` and `rank_high` (the interval of
places) and `tie_group` stand on the headline rows of runs alone.
"""


class Row(NamedTuple):
    """One row of the ranking; NaN and None become null."""

    board: str
    model: str
    tier: str
    metric: str = ""
    value: float = math.nan
    ci_low: float = math.nan
    ci_high: float = math.nan
    level: float = math.nan
    n: int | None = None
    subset: str = ""
    headline: bool = False
    tie_group: int | None = None
    rank_low: int | None = None
    rank_high: int | None = None
    comparison: str = ""
    source: str = ""
    note: str = ""


class Run(NamedTuple):
    """A finished run: its folder and the short name of that, its manifest, what was evaluated, and the results."""

    folder: Path
    name: str
    manifest: RunManifest
    evaluation: Evaluation
    results: list[dict[str, Any]]


Owner: TypeAlias = tuple[str, str, str]
"""Board, model and source: what tells the model of one run from every other."""

Outcomes: TypeAlias = Mapping[tuple[str, str, str], pd.DataFrame]
"""Source, model and subset → the outcomes behind its headline figure, with the columns `key`, `cluster`, `value`."""


def rank(runs: Sequence[Path], *, out: Path) -> pa.Table:
    """Merge the published figures with `runs` (finished run folders) and write both files into the folder `out`.

    Returns the table that `ranking.parquet` holds (columns: `SCHEMA`). Raises InputError for a folder that is
    unfinished or given twice, and RunFolderError for one that is no run, is damaged, or whose results are older than
    its tables; both name the folder, and nothing is written then.
    """
    found = _read_runs(runs)
    rows = [*_published_rows(), *_pending_rows(), *_named_apart(_ranked(_run_rows(found), _outcomes(found)))]
    cells = [{name: None if _missing(cell) else cell for name, cell in row._asdict().items()} for row in rows]
    table = pa.Table.from_pylist(cells, schema=SCHEMA)
    content = io.BytesIO()
    pq.write_table(table, content)
    if out.exists() and not out.is_dir():
        raise InputError(f"the ranking is written into a folder, but {out} is a file: name another place")
    store.write_file(out / "ranking.parquet", content.getvalue())
    store.write_file(out / "ranking.md", _page(table.to_pylist()).encode())
    return table


def _missing(cell: object) -> bool:
    return isinstance(cell, float) and math.isnan(cell)


def _read_csv(name: str) -> list[dict[str, str]]:
    with (_HERE / "published" / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _published_rows() -> list[Row]:
    return [
        Row(
            board=board,
            model=line["model"],
            tier="published",
            # One printed column holds two definitions of F1; here each goes under its own name.
            metric="f1_weighted" if line.get("f1_definition") == "weighted" else line["metric"],
            value=float(line["value"]),
            n=int(line["n"]) if line["n"] else None,
            subset=line["subset"],
            headline=line["metric"] == _PUBLISHED_HEADLINE[board],
            source=line["source"],
            note=line["note"],
        )
        for board in _BOARDS
        for line in _read_csv(f"{board}.csv")
    ]


def _pending_rows() -> list[Row]:
    return [
        Row(board="generators", model=line["model"], tier="pending", source=line["source"], note=line["note"])
        for line in _read_csv("generators_pending.csv")
    ]


def _read_run(name: str, folder: Path) -> Run:
    manifest = read_manifest(folder)
    if manifest.status != "complete":
        raise InputError(f"{folder} is unfinished (status {manifest.status!r}): finish the run, then rank it")
    return Run(folder, name, manifest, read_evaluation(folder), read_results(folder).to_dict("records"))


def _read_runs(folders: Sequence[Path]) -> list[Run]:
    names = _short_names([folder.resolve() for folder in folders])
    return [_read_run(name, folder) for name, folder in zip(names, folders, strict=True)]


def _short_names(folders: list[Path]) -> list[str]:
    """As many trailing parts of each path as it takes to tell the folders apart."""
    if twice := [str(folder) for folder, count in Counter(folders).items() if count > 1]:
        raise InputError(f"{twice[0]} is given twice: name each run folder once")
    depth = 1
    while len({folder.parts[-depth:] for folder in folders}) < len(folders):
        depth += 1
    return ["/".join(folder.parts[-depth:]) for folder in folders]


def _board(run: Run, model: str) -> str | None:
    """The board on which a model of this run stands; None for a judge, which has no board."""
    for board in _BOARDS:
        if model in run.manifest.specs.get(board, {}):
            return board
    if model in run.manifest.specs.get("judges", {}):
        return None
    raise RunFolderError(f"{run.name} cannot be ranked: its results name {model!r}, which its manifest does not list")


def _entry(run: Run, table: Mapping[str, str], name: str, what: str) -> str:
    if name not in table:
        raise RunFolderError(f"{run.name} cannot be ranked: it does not say {what} {name!r}: evaluate the run again")
    return table[name]


def _comparison(run: Run, board: str, model: str) -> str:
    """What the figures of `model` rest on, in words; figures that rest on different material are not compared."""
    evaluation = run.evaluation
    parts = [f"benchmark {evaluation.benchmark_version}"]
    parts += [f"prompts {name}@{revision}" for name, revision in sorted(run.manifest.datasets.items())]
    parts.append(f"seeds {', '.join(map(str, evaluation.seeds))}")
    judges = run.manifest.specs.get("judges", {})
    if judge := evaluation.verdict_judge:
        parts.append(f"verdicts of {_entry(run, judges, judge, 'what stands behind the judge')}")
    for role, label in evaluation.judges.items():
        if label and label != judge:
            parts.append(f"{role} of {_entry(run, judges, label, 'what stands behind the judge')}")
    parts.append(f"metrics {evaluation.functional_digest[:_DIGITS]}")
    if board == "reward_models":
        images = _entry(run, evaluation.material, model, "which image pairs were scored by")
        parts.append(f"image pairs {images[:_DIGITS]}")
    return "; ".join(parts)


def _source(run: Run) -> str:
    return f"run {run.name}"


def _run_rows(runs: list[Run]) -> list[Row]:
    return [
        Row(
            board=board,
            tier="run",
            # The tie group of a result holds inside its run only and is made anew.
            **{**result, "tie_group": None},
            comparison=_comparison(run, board, result["model"]),
            source=_source(run),
            note=_ILLUSTRATION if _illustrates(run) else "",
        )
        for run in runs
        for result in run.results
        if (board := _board(run, result["model"]))
    ]


def _illustrates(run: Run) -> bool:
    specs = run.manifest.specs.get("generators", {}).values()
    return any(ModelSpec.parse(spec).adapter == "photo-effects" for spec in specs)


def _outcomes(runs: list[Run]) -> Outcomes:
    """The outcomes behind the headline figures, of which those must be the means."""
    found: dict[tuple[str, str, str], pd.DataFrame] = {}
    for run in runs:
        outcomes = headline_outcomes(run.folder, read_run_file(run.folder))
        by_figure = dict(list(outcomes.groupby(["model", "metric", "subset"])))
        for result in run.results:
            model, metric, subset = (result[name] for name in ("model", "metric", "subset"))
            if metric not in _HEADLINE.values() or subset not in SUBSETS:
                continue
            rows = by_figure.get((model, metric, subset))
            if rows is None or not math.isclose(result["value"], rows["value"].mean(), rel_tol=1e-9):
                what = f"the {metric} of {model!r} ({subset}) is not the mean of what its tables hold"
                raise RunFolderError(f"{run.name} cannot be ranked: {what}: evaluate the run again")
            found[_source(run), model, subset] = rows
    return found


def _owner(row: Row) -> Owner:
    return (row.board, row.model, row.source)


def _named_apart(rows: list[Row]) -> list[Row]:
    """A model of several runs is named with its run."""
    count = Counter((board, model) for board, model, _ in {_owner(row) for row in rows})
    return [
        row._replace(model=f"{row.model} ({row.source.removeprefix('run ')})") if count[row[:2]] > 1 else row
        for row in rows
    ]


def _headlines(rows: list[Row]) -> set[int]:
    """The index of each model's headline row, on the most trustworthy subset that the model has."""
    found: dict[Owner, int] = {}
    for subset in reversed(SUBSETS):
        for index, row in enumerate(rows):
            if row.metric == _HEADLINE[row.board] and row.subset == subset:
                found[_owner(row)] = index
    return set(found.values())


def _ranked(rows: list[Row], outcomes: Outcomes) -> list[Row]:
    """The rows with their headlines marked, and tie groups and places where those have an interval."""
    headlines = _headlines(rows)
    rows = [row._replace(headline=index in headlines) for index, row in enumerate(rows)]
    comparable: dict[tuple[object, ...], list[Row]] = defaultdict(list)
    for row in rows:
        if row.headline and not math.isnan(row.ci_low):
            comparable[row.board, row.comparison, row.subset, row.level].append(row)
    placed: dict[Owner, Row] = {}
    for members in comparable.values():
        for row, place in zip(members, _places(members, outcomes), strict=True):
            ranks = {name: getattr(place, name) for name in ("tie_group", "rank_low", "rank_high")}
            caution = _caution(outcomes[row.source, row.model, row.subset])
            placed[_owner(row)] = row._replace(**ranks, note="; ".join(filter(None, [caution, row.note])))
    return [placed.get(_owner(row), row) if row.headline else row for row in rows]


def _caution(outcomes: pd.DataFrame) -> str:
    captions = outcomes["cluster"].nunique()
    return f"{captions} plain captions: too few to rank by" if captions < FEW_CAPTIONS else ""


def _places(members: list[Row], outcomes: Outcomes) -> list[Place]:
    """The place of each of these comparable rows, from their outcomes paired by key."""
    found = [outcomes[row.source, row.model, row.subset].set_index("key") for row in members]
    table = pd.DataFrame(
        {f"{row.model} ({row.source})": rows["value"] for row, rows in zip(members, found, strict=True)}
    )
    clusters = pd.concat([rows["cluster"] for rows in found])
    clusters = clusters[~clusters.index.duplicated()].loc[table.index]
    values = {name: [None if math.isnan(value) else value for value in table[name]] for name in table}
    places = rank_models(values, clusters.tolist(), confidence_level=members[0].level)
    by_name = {place.name: place for place in places}
    return [by_name[name] for name in table]
