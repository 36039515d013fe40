"""Put published figures and finished runs side by side: `ranking.parquet` for programs, `ranking.md` for people.

Two boards: generators (headline `success_rate`) and reward models (headline `both_ways_accuracy`). Three tiers, never
ranked against one another: `run` (computed by this package), `published` (printed in the paper or on its site, not
recomputed) and `pending` (announced without figures). Runs are ranked only against runs on the same material, and
never in a bare order: going down from the best, every model whose interval reaches the best one's shares its tie group.
"""

from __future__ import annotations

import csv
import io
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from widespectrum import store
from widespectrum.errors import InputError, RunFolderError
from widespectrum.published import load_module
from widespectrum.results import Evaluation, read_evaluation, read_results
from widespectrum.runs import read_manifest
from widespectrum.tables import SUBSETS
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
rows with the same text and subset are ranked against each other. `tie_group`, `rank_low` and `rank_high` (the places
that the group takes) stand on the headline rows of runs alone.
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
    """A finished run: the short name of its folder, its manifest, what it was evaluated on, and its results."""

    name: str
    manifest: RunManifest
    evaluation: Evaluation
    results: list[dict[str, Any]]


def rank(runs: Sequence[Path], *, out: Path) -> pa.Table:
    """Merge the published figures with `runs` (finished run folders) and write both files into the folder `out`.

    Returns the table that `ranking.parquet` holds (columns: `SCHEMA`). Raises InputError for a folder that is
    unfinished or given twice, and RunFolderError for one that is no run, is damaged, or whose results are older than
    its tables; both name the folder, and nothing is written then.
    """
    rows = [*_published_rows(), *_pending_rows(), *_ranked(_run_rows(_read_runs(runs)))]
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
    return Run(name, manifest, read_evaluation(folder), read_results(folder).to_dict("records"))


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
    if judge := evaluation.verdict_judge:
        judges = run.manifest.specs.get("judges", {})
        parts.append(f"verdicts of {_entry(run, judges, judge, 'what stands behind the judge')}")
    parts.append(f"metrics {evaluation.functional_digest[:_DIGITS]}")
    if board == "reward_models":
        images = _entry(run, evaluation.material, model, "which image pairs were scored by")
        parts.append(f"image pairs {images[:_DIGITS]}")
    return "; ".join(parts)


def _run_rows(runs: list[Run]) -> list[Row]:
    rows = [
        Row(
            board=board,
            tier="run",
            # The tie group of a result holds inside its run only and is made anew.
            **{**result, "tie_group": None},
            comparison=_comparison(run, board, result["model"]),
            source=f"run {run.name}",
            note=_ILLUSTRATION if _illustrates(run) else "",
        )
        for run in runs
        for result in run.results
        if (board := _board(run, result["model"]))
    ]
    owners = Counter((board, model) for board, model, _ in {(row.board, row.model, row.source) for row in rows})
    shared = {owner for owner, count in owners.items() if count > 1}
    return [
        row._replace(model=f"{row.model} ({row.source.removeprefix('run ')})") if row[:2] in shared else row
        for row in rows
    ]


def _illustrates(run: Run) -> bool:
    specs = run.manifest.specs.get("generators", {}).values()
    return any(ModelSpec.parse(spec).adapter == "photo-effects" for spec in specs)


def _headlines(rows: list[Row]) -> set[int]:
    """The index of each model's headline row, on the most trustworthy subset that the model has."""
    found: dict[tuple[str, str], int] = {}
    for subset in reversed(SUBSETS):
        for index, row in enumerate(rows):
            if row.metric == _HEADLINE[row.board] and row.subset == subset:
                found[row.board, row.model] = index
    return set(found.values())


def _tie_groups(rows: Iterable[Row]) -> list[list[Row]]:
    """Best first: a row joins the group while its interval reaches that of the group's best."""
    groups: list[list[Row]] = []
    for row in sorted(rows, key=lambda row: (-row.value, row.model)):
        if groups and row.ci_high >= groups[-1][0].ci_low:
            groups[-1].append(row)
        else:
            groups.append([row])
    return groups


def _ranked(rows: list[Row]) -> list[Row]:
    """The rows of the runs with their headlines marked, and tie groups and places where those have an interval."""
    headlines = _headlines(rows)
    rows = [row._replace(headline=index in headlines) for index, row in enumerate(rows)]
    comparable: dict[tuple[object, ...], list[Row]] = defaultdict(list)
    for row in rows:
        if row.headline and not math.isnan(row.ci_low):
            comparable[row.board, row.comparison, row.subset, row.level].append(row)
    placed: dict[tuple[str, str], Row] = {}
    for members in comparable.values():
        first = 1
        for number, group in enumerate(_tie_groups(members), start=1):
            last = first + len(group) - 1
            for row in group:
                placed[row.board, row.model] = row._replace(tie_group=number, rank_low=first, rank_high=last)
            first = last + 1
    return [placed.get((row.board, row.model), row) if row.headline else row for row in rows]
