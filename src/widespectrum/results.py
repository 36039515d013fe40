"""Columns → metric results: `functional` computes, one row per estimate comes out, gaps come with their reason."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from . import __version__, store
from .columns import (
    CELLS,
    KEY,
    SUBSETS,
    optional_values,
    pair_table,
    pick_judges,
    request_table,
    row_keys,
    subset_flags,
)
from .comparisons import COMPARED, compare, tie_groups
from .config import RunConfig, read_run_file
from .doses import SERIES, doses, response_to_doses
from .errors import InputError, RunFolderError
from .estimates import REWARD_METRICS, Collector, Naming, adherence
from .functional import holm, reward_bias
from .generators import known_bases
from .judge_estimates import add_emotions, add_other_judges, add_position_bias
from .outcomes import outcomes
from .runs import read_manifest
from .types import MetricResult, ModelSpec, digest
from .vendor import functional_digest

__all__ = ["Evaluation", "evaluate", "read_evaluation", "read_results"]

P_VALUES = ("wilcoxon_p", "wilcoxon_j_p", "mcnemar_p")
"""The p-values that a report prints for a generator with a base."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What the results of a run rest on, and what is absent from them.

    `inputs` is a digest of the run's tables and of how they were evaluated, `results` the sha256 of the results file;
    `judges` are those whose answers count in each role (`columns.Judges`), `material` maps a reward model to a digest
    of the image pairs that it scored; `notes` say why estimates are absent (model, subset, metric, reason).
    """

    inputs: str
    results: str
    functional_digest: str
    benchmark_version: str
    verdict_judge: str
    judges: dict[str, str]
    seeds: list[int]
    material: dict[str, str]
    notes: list[dict[str, str]]

    def __post_init__(self) -> None:
        kinds = {"seeds": list, "judges": dict, "material": dict, "notes": list}
        for field in dataclasses.fields(self):
            if not isinstance(getattr(self, field.name), kind := kinds.get(field.name, str)):
                raise InputError(f"{field.name} must be a {kind.__name__}")


def _asks_for(rows: pd.DataFrame, dimension: str) -> pd.DataFrame:
    return rows[[dimension in names for names in rows["dimensions"]]]


def _bias(out: Collector, rows: pd.DataFrame, **labels: list[str]) -> dict[str, dict[str, Any]]:
    """`reward_bias` on all, on verified and on controlled pairs, as far as there are any."""
    inputs: dict[str, Any] = {name: rows[name].to_numpy() for name in CELLS.values()} | row_keys(rows) | labels
    inputs["controlled"] = rows["controlled"].tolist()
    values = reward_bias(**inputs, verdict=optional_values(rows["verdict"]), **out.options)
    blocks = {subset: values.pop(subset) for subset in SUBSETS if subset in values}
    values["notes"] = {name: reason for name, reason in values["notes"].items() if name not in SUBSETS}
    return blocks | {"all": values | {"coverage/verdict": values["coverage"]["verdict"]}}


def _add_reward_model(out: Collector, model: str, rows: pd.DataFrame) -> None:
    """One reward model on each subset of the pairs: pooled, per generator, macro, per dimension."""
    flags = subset_flags(rows)
    blocks = _bias(out, rows, group=rows["generator"].tolist())
    for subset in (name for name in SUBSETS if name not in blocks):
        out.note(model, subset, "n_pairs", f"no pair is {subset}")
    for subset, values in blocks.items():
        chosen = rows[flags[subset]]
        out.add(model, subset, values, chosen)
        out.add(model, f"{subset}/macro", values["macro"], chosen)
        for generator, block in values["by_group"].items():
            out.add(model, f"{subset}/generator={generator}", block, chosen[chosen["generator"] == generator])
    for dimension in sorted({name for names in rows["dimensions"] for name in names}):
        part = _asks_for(rows, dimension)
        for subset, values in _bias(out, part).items():
            out.add(model, f"{subset}/dimension={dimension}", values, part[flags[subset][part.index]])


def _add_windows(out: Collector, model: str, rows: pd.DataFrame) -> None:
    """What one reward model does not read of the prompts; where it cuts some, the figures of these and the others."""
    prompts = rows[rows["cut"].notna()].drop_duplicates("pair_id")
    if prompts.empty:
        return
    rates = {"cut_rate": prompts["cut"].mean(), "special_rate": prompts["special"].eq(True).mean()}
    out.add(model, "all", {name: float(rate) for name, rate in rates.items()}, prompts)
    for dimension in sorted({name for names in prompts["past_window"] for name in names}):
        asking = _asks_for(prompts, dimension)
        lost = sum(dimension in names for names in asking["past_window"])
        out.add(model, f"all/dimension={dimension}", {"past_window_rate": lost / len(asking)}, asking)
    if not prompts["cut"].any():
        return
    flags = subset_flags(rows)
    for name, is_cut in (("cut", True), ("uncut", False)):
        part = rows[rows["cut"] == is_cut]
        for subset, values in _bias(out, part).items() if len(part) else ():
            out.add(model, f"{subset}/prompt={name}", values, part[flags[subset][part.index]])


def _against(rival: str) -> Naming:
    return lambda metric: f"{metric}/{rival}" if metric.removesuffix("_ci") in COMPARED else ""


def _add_comparisons(out: Collector, table: pd.DataFrame) -> None:
    """Every two reward models on each subset, `<figure>/<rival>`.

    One test of all pairs of models is one family for Holm, as it is where they are ranked.
    """
    for subset, chosen in subset_flags(table).items():
        first = len(out.results)
        for model, rival, values, rows in compare(table[chosen], out.options):
            out.add(model, subset, values, rows, _against(rival))
        found = out.results[first:]
        for test in COMPARED:
            if test.endswith("_p"):
                _add_holm(out, [each for each in found if each.metric.partition("/")[0] == test])


def _of_doses(metric: str) -> str:
    return "" if metric in ("n_pairs", "n_prompts") else f"dose_{metric}"


def _add_doses(out: Collector, model: str, rows: pd.DataFrame, generators: Mapping[str, ModelSpec]) -> None:
    """How one reward model answers to the strength of the effects: over all whole curves, and per dimension."""
    chosen = doses(rows, generators)
    subset = "controlled"
    if chosen.empty:
        reason = "not given: it needs photographs with their effects at two strengths or more, each changed and scored"
        out.note(model, subset, "dose_slope_difference", reason)
        return
    n_curves = chosen["series"].nunique()
    if left := len(rows[rows["controlled"]].drop_duplicates(SERIES)) - n_curves:
        reason = (
            f"{left} of {left + n_curves} curves left out: at some strength an image is unchanged or without a score"
        )
        out.note(model, subset, "dose_n_pairs", reason)
    values = response_to_doses(chosen, out.options)
    out.add(model, subset, values, chosen, _of_doses)
    for dimension, block in values.get("by_dimension", {}).items():
        out.add(model, f"{subset}/dimension={dimension}", block, _asks_for(chosen, dimension), _of_doses)


def _add_generator(out: Collector, generator: str, rows: pd.DataFrame, base: pd.DataFrame | None, name: Naming) -> None:
    """One generator over all pairs and per dimension, against its base where it has one."""
    values = adherence(out, rows, base)
    out.add(generator, "all", values, rows, name)
    for dimension, block in values.get("by_dimension", {}).items():
        out.add(generator, f"dimension={dimension}", block, _asks_for(rows, dimension), name)


def _rests_on_rewards(metric: str) -> bool:
    return metric.removesuffix("_ci") in REWARD_METRICS or metric.startswith("coverage/r_")


def _of_no_reward_model(metric: str) -> str:
    """The name of a metric that rests on no reward model; empty for others, and for what is corrected within a call."""
    return "" if _rests_on_rewards(metric) or metric.endswith("_holm") else metric


def _of_reward_model(model: str) -> Naming:
    def name(metric: str) -> str:
        return f"{metric}/{model}" if _rests_on_rewards(metric) else ""

    return name


def _base_rows(rows: pd.DataFrame, base: pd.DataFrame) -> pd.DataFrame:
    """The base generator's rows in the order of `rows`; failed where it was not asked for them."""
    key = ["pair_id", "image_seed"]
    merged = rows[key].merge(base, on=key, how="left")
    return merged.assign(status=merged["status"].fillna("failed")) if base["status"].notna().any() else merged


def _add_generators(out: Collector, table: pd.DataFrame, bases: Mapping[str, str], name: Naming) -> None:
    """Every generator of `table`: requests with the scores of one reward model, or with none."""
    by_generator = dict(list(table.groupby("generator")))
    for generator, rows in by_generator.items():
        base = _base_rows(rows, by_generator[bases[generator]]) if generator in bases else None
        _add_generator(out, generator, rows, base, name)


def _check_bases(bases: Mapping[str, str], generators: set[str]) -> None:
    for generator in dict.fromkeys(name for pair in bases.items() for name in pair):
        if generator not in generators:
            known = ", ".join(sorted(generators))
            raise InputError(f"[evaluate] bases names {generator!r}, which is no generator of this run: {known}")


def _add_holm(out: Collector, family: Sequence[MetricResult]) -> None:
    """`<name>_holm` beside each p-value of a family."""
    for each, p in zip(family, holm([each.value for each in family]), strict=True):
        name, slash, model = each.metric.partition("/")
        out.results.append(dataclasses.replace(each, metric=f"{name}_holm{slash}{model}", value=float(p)))


def _base_tests(out: Collector) -> list[MetricResult]:
    """The tests against base generators that a report prints, a family of their own.

    Every `wilcoxon_p/<reward model>` and `wilcoxon_j_p` (one-sided) and `mcnemar_p` (two-sided) of every generator with
    a base, over all pairs. Outside it are `mcnemar_p_one_sided`, a second reading of the same test, and the p-values
    per dimension, which stay uncorrected.
    """
    return [each for each in out.results if each.subset == "all" and each.metric.partition("/")[0] in P_VALUES]


def _material(rows: pd.DataFrame) -> str:
    """A digest of the image pairs that a reward model scored."""
    columns = [*KEY, "image_io", "image_ia", "prompt_pa"]
    return digest(sorted(rows[columns].astype(str).to_numpy().tolist()))


def _note_unchanged(out: Collector, model: str, rows: pd.DataFrame) -> None:
    unchanged = int((rows["graded"] & ~rows["controlled"]).sum())
    if unchanged:
        out.note(model, "controlled", "n_pairs", f"{unchanged} pairs left out: the effect changed nothing in the image")


def evaluate(run: Path, config: RunConfig) -> list[MetricResult]:
    """Every metric of a run, written to `results/` with what it rests on and the reasons of what is absent."""
    judges = pick_judges(run, config.evaluate)
    table = pair_table(run, judges)
    requests = request_table(run, table, config.seeds, judges)
    bases = config.evaluate.bases or known_bases(requests["generator"])
    _check_bases(bases, set(requests["generator"]))
    out = Collector(config.evaluate)
    unscored = requests.assign(r_io_po=None, r_ia_po=None)
    _add_generators(out, unscored, bases, _of_no_reward_model)
    generators = {label: ModelSpec.parse(text) for label, text in read_manifest(run).specs["generators"].items()}
    by_model = dict(list(table.groupby("reward_model")))
    for model, rows in tqdm(by_model.items(), desc="evaluate", delay=2, leave=False):
        _add_reward_model(out, model, rows)
        _add_windows(out, model, rows)
        _note_unchanged(out, model, rows)
        _add_doses(out, model, rows, generators)
        scored = requests.merge(rows[[*KEY, "r_io_po", "r_ia_po"]], on=KEY, how="left")
        _add_generators(out, scored, bases, _of_reward_model(model))
    add_other_judges(out, run, table, judges, config.seeds)
    add_emotions(out, run, requests)
    add_position_bias(out, run)
    _add_holm(out, _base_tests(out))
    _add_comparisons(out, table)
    groups = tie_groups(outcomes(table, requests), out.level)
    out.results = [
        dataclasses.replace(each, tie_group=groups.get((each.model, each.metric, each.subset))) for each in out.results
    ]
    path = store.replace(run, "results", out.results)
    evaluation = Evaluation(
        inputs=_inputs(run, config),
        results=hashlib.sha256(path.read_bytes()).hexdigest(),
        functional_digest=functional_digest(),
        benchmark_version=__version__,
        verdict_judge=judges.verdict,
        judges=judges._asdict(),
        seeds=list(config.seeds),
        material={model: _material(rows) for model, rows in by_model.items()},
        notes=out.notes,
    )
    text = json.dumps(dataclasses.asdict(evaluation), indent=1, ensure_ascii=False)
    store.write_file(_evaluation_file(run), (text + "\n").encode())
    return out.results


def _evaluation_file(run: Path) -> Path:
    return run / "results" / "evaluation.json"


def _inputs(run: Path, config: RunConfig) -> str:
    """A digest of the tables (the name of a part carries its content's hash) and of how they are evaluated."""
    tables = ("prompts", "images", "scores", "verdicts", "abstentions")
    parts = [sorted(path.name for path in store.parts(run, table)) for table in tables]
    return digest([parts, list(config.seeds), dataclasses.asdict(config.evaluate)])


def read_evaluation(run: Path) -> Evaluation:
    """What the results of a run rest on; RunFolderError where it has none, or tables have changed since."""
    path = _evaluation_file(run)
    again = f"run `widespectrum evaluate {run}`"
    if not path.is_file():
        raise RunFolderError(f"{run} holds no results: {again} first")
    table = run / "results" / "results.parquet"
    if not table.is_file():
        raise RunFolderError(f"{table} is missing: {again} again")
    try:
        evaluation = Evaluation(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise RunFolderError(f"{path} is damaged ({error}): {again} again") from error
    found = hashlib.sha256(table.read_bytes()).hexdigest()
    if evaluation.results != found or evaluation.inputs != _inputs(run, read_run_file(run)):
        raise RunFolderError(
            f"the results of {run} are older than its tables or its [evaluate] settings: {again} again"
        )
    return evaluation


def read_results(run: Path) -> pd.DataFrame:
    """The metric results of a run, one row per estimate; RunFolderError as `read_evaluation`."""
    read_evaluation(run)
    return store.read(run, "results").to_pandas()
