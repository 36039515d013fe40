"""The plan of a comparison: what a finished run says about how many prompts and seeds the next one needs."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Callable, Sequence
from itertools import combinations
from math import floor, inf, log2, sqrt
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from .config import read_run_file
from .errors import InputError
from .functional import (
    Components,
    cluster_means,
    detectable_difference,
    prompts_needed,
    rank_agreement,
    variance_components,
)
from .outcomes import GENERATOR_METRICS, REWARD_METRICS, RowValues, metric_rows
from .runs import read_manifest
from .tables import FEW_CAPTIONS, SUBSET_NAMES, format_estimate, format_number, text_table

__all__ = ["Plan", "plan_text"]

LOWER_IS_BETTER = (
    "delta_reward",
    "reward_after",
    "delta_j_all",
    "delta_j_selected",
    "j_after",
    "j_after_selected",
    "refusal_rate",
)
"""Metrics of which the best generator has the least: it leaves the mainstream look when asked to, and it answers."""

SMALL_RATES = (0.02, 0.05, 0.10)
"""Differences of two rates that are planned for where none is asked for."""

SMALL_QUANTILES = (0.1, 0.25, 0.5)
"""Of differences in other units, these quantiles of the ones that the models of the run show."""

LITE, FULL = 60, 300
"""Prompts of the lite split and of the whole set."""

SIZES = (5, 10, 20, 30, LITE, 100, 150, 200, FULL, 500, 1000)
"""Numbers of prompts whose ranking is compared with that of the whole run."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to plan for.

    An empty `metric` is the first of the run that varies, empty `differences` are small ones, empty `models` are all.
    """

    metric: str = ""
    differences: tuple[float, ...] = ()
    seeds: tuple[int, ...] = (1, 2, 4, 8)
    models: tuple[str, ...] = ()
    power: float = 0.8
    comparisons: int = 1

    def __post_init__(self) -> None:
        if wrong := [value for value in self.differences if not 0 < value < inf]:
            raise InputError(f"--difference: expected numbers above 0, got {wrong[0]:g}")
        if wrong := [value for value in self.seeds if value < 1]:
            raise InputError(f"--seeds: expected whole numbers of at least 1, got {wrong[0]}")
        if len(set(self.models)) == 1 or len(set(self.models)) < len(self.models):
            raise InputError(f"--models: expected at least two different names, got {', '.join(self.models)}")
        if not 0 < self.power < 1:
            raise InputError(f"--power: expected a number between 0 and 1, such as 0.8, got {self.power:g}")
        if self.comparisons < 1:
            raise InputError(f"--comparisons: expected a whole number of at least 1, got {self.comparisons}")


class Pair(NamedTuple):
    """Two models: their mean on every prompt and seed that both have, and how their difference varies."""

    name: str
    rows: pd.DataFrame
    components: Components

    @property
    def variance(self) -> float:
        """Of the difference on one prompt with one seed."""
        return self.components.prompt + (self.components.seed or 0.0)

    @property
    def differences(self) -> pd.Series:
        """The difference of the two models on every prompt."""
        return (self.rows.iloc[:, 0] - self.rows.iloc[:, 1]).groupby(level="prompt").mean()


class Case(NamedTuple):
    """What a plan rests on: the pairs of models, of them the typical and the hardest one, and how they are tested."""

    metric: str
    values: RowValues
    pairs: list[Pair]
    shown: list[Pair]
    seeds: tuple[int, ...]
    test: dict[str, Any]
    n_resamples: int


def _chosen(run: Path, plan: Plan) -> tuple[str, RowValues]:
    """The metric to plan for, and its values of the chosen models."""
    found = metric_rows(run)
    if not found:
        raise InputError(f"{run} has no metric of two models or more: a plan needs two generators or reward models")
    of_generators = plan.metric.partition("/")[0] in (*GENERATOR_METRICS, *REWARD_METRICS)
    if of_generators and plan.metric not in found and len(read_manifest(run).specs.get("generators", {})) < 2:
        raise InputError(f"--metric: {plan.metric} compares generators, and {run} has one; try {', '.join(found)}")
    metric = plan.metric or next((name for name in found if _varying(_pairs(found[name].table))), next(iter(found)))
    if metric not in found:
        raise InputError(f"--metric: expected one that two models of {run} have ({', '.join(found)}), got {metric!r}")
    values = found[metric]
    if unknown := [name for name in plan.models if name not in values.table]:
        known = ", ".join(values.table)
        raise InputError(f"--models: expected {values.kind}s with values of {metric} ({known}), got {unknown[0]!r}")
    return metric, values._replace(table=values.table[list(plan.models)]) if plan.models else values


def _pairs(table: pd.DataFrame) -> list[Pair]:
    """Every two models that have two prompts in common."""
    pairs = []
    for names in combinations(table, 2):
        rows = table[list(names)].dropna().groupby(level=["prompt", "seed"]).mean()
        prompts = rows.index.get_level_values("prompt")
        if prompts.nunique() > 1:
            components = variance_components(rows[names[0]].to_numpy(), rows[names[1]].to_numpy(), prompts.tolist())
            pairs.append(Pair(" – ".join(names), rows, components))
    return pairs


def _varying(pairs: list[Pair]) -> list[Pair]:
    """The pairs whose difference varies, from the least to the most."""
    return sorted((pair for pair in pairs if pair.variance > 0), key=lambda pair: pair.variance)


def _case(run: Path, plan: Plan) -> Case:
    """Everything that the tables rest on."""
    read_manifest(run)
    metric, values = _chosen(run, plan)
    pairs = _pairs(values.table)
    if not pairs:
        raise InputError(f"no two models have {metric} on two prompts in common: a plan needs the spread over prompts")
    if not (varying := _varying(pairs)):
        raise InputError(f"the difference in {metric} is the same on every prompt: there is no variance to plan with")
    shown = [varying[len(varying) // 2], varying[-1]] if len(varying) > 1 else varying
    has_seeds = all(pair.components.seed is not None for pair in shown)
    seeds = plan.seeds if has_seeds else tuple(n for n in plan.seeds if n == 1)
    if not seeds:
        raise InputError(
            f"--seeds: expected 1, as a run with one seed cannot say what more would add, got {plan.seeds[0]}"
        )
    options = read_run_file(run).evaluate
    test = {"power": plan.power, "confidence_level": options.confidence_level, "comparisons": plan.comparisons}
    case = Case(metric, values, pairs, shown, seeds, test, options.n_resamples)
    if _is_rate(case) and max(plan.differences, default=0) > 1:
        raise InputError(f"--difference: expected at most 1 for {metric}, a rate, got {max(plan.differences):g}")
    return case


def _is_rate(case: Case) -> bool:
    return case.values.kind == "reward model" or case.metric.endswith("_rate")


def _differences(case: Case) -> tuple[float, ...]:
    """Small differences to plan for: of rates fixed ones, else out of those that the run shows."""
    if _is_rate(case):
        return SMALL_RATES
    observed = [abs(pair.differences.mean()) for pair in case.pairs]
    chosen = {float(f"{value:.2g}") for value in np.quantile(observed, SMALL_QUANTILES)} - {0.0}
    if not chosen:
        raise InputError(f"the models do not differ in {case.metric}: say with --difference what to plan for")
    return tuple(sorted(chosen))


def _fewest(case: Case) -> int:
    """The fewest prompts with which the test that ranks models tells two apart: its p is at least 2^(1 − prompts)."""
    return 2 + floor(log2(case.test["comparisons"] / (1 - case.test["confidence_level"])))


def _counted(n: int, noun: str) -> str:
    return f"{n:,} {noun}{'s' if n > 1 else ''}"


def _spread_row(title: str, pair: Pair, level: float, n_resamples: int) -> list[str]:
    """A pair with its difference, and the standard deviations of its parts and of a prompt's mean."""
    from scipy.stats import bootstrap

    found = pair.differences.to_numpy()
    mean = cluster_means(
        found[:, None],
        [str(prompt) for prompt in pair.differences.index],
        n_resamples=n_resamples,
        confidence_level=level,
    )
    options: dict[str, Any] = {"n_resamples": n_resamples, "confidence_level": level, "method": "percentile", "rng": 0}
    ends = bootstrap((found,), lambda x, axis: np.std(x, axis=axis, ddof=1), **options).confidence_interval
    prompt, seed = pair.components[:2]
    return [
        f"{title}{pair.name}",
        format_estimate(mean.mean[0], mean.low[0], mean.high[0]),
        *(["–", "–"] if seed is None else [format_number(sqrt(prompt)), format_number(sqrt(seed))]),
        format_estimate(float(found.std(ddof=1)), ends.low, ends.high),
    ]


def _spread(case: Case) -> str:
    titles = ["typical: ", "hardest: "] if len(case.shown) > 1 else [""]
    header = ["pair", "difference", "SD of prompts", "SD of seeds", "SD of a prompt's mean"]
    level = case.test["confidence_level"]
    rows = [_spread_row(title, pair, level, case.n_resamples) for title, pair in zip(titles, case.shown, strict=True)]
    count = f"{_counted(len(case.pairs), 'pair')} of {case.values.kind}s"
    return f"\nDifferences in {case.metric} of {count}; {100 * level:g} % intervals\n{text_table(header, rows)}"


def _by_seeds(case: Case, title: str, header: str, keys: Sequence[float], cell: Callable[..., str]) -> str:
    """A table by `keys` and number of seeds; `cell(components, key, n_seeds)` for the typical and the hardest pair."""
    rows = []
    for key in keys:
        cells = [[cell(pair.components, key, n) for pair in case.shown] for n in case.seeds]
        rows.append([f"{key:g}", *(first if not more else f"{first} ({more[0]})" for first, *more in cells)])
    title += ": typical pair (hardest pair)" if len(case.shown) > 1 else ""
    return f"{title}\n{text_table([header, *(_counted(n, 'seed') for n in case.seeds)], rows)}"


def _plans(case: Case, differences: Sequence[float]) -> list[str]:
    """The prompts that differences need, and the differences that prompts show."""

    def needed(components: Components, difference: float, n_seeds: int) -> str:
        return f"{max(_fewest(case), prompts_needed(components, difference, n_seeds=n_seeds, **case.test)):,}"

    def shown(components: Components, n_prompts: int, n_seeds: int) -> str:
        return f"{detectable_difference(components, n_prompts, n_seeds, **case.test):.3g}"

    try:
        return [
            _by_seeds(case, "Prompts needed to tell two models apart", "difference", differences, needed),
            _by_seeds(case, "Smallest difference that can be told", "prompts", (LITE, FULL), shown),
        ]
    except ValueError as error:
        raise InputError(f"--{error}") from error


def _ranking(case: Case) -> str:
    """The table of rank agreement, or why there is none."""
    means = case.values.table.dropna().groupby(level="prompt").mean().to_numpy()
    if len(means) <= SIZES[0]:
        return f"All models have {len(means)} prompts in common: too few to rank them on fewer."
    values = -means if case.metric.partition("/")[0] in LOWER_IS_BETTER else means
    level = case.test["confidence_level"]
    rows, notes = [], [] if len(means) > LITE else [f"With {len(means)} prompts nobody can say how {LITE} rank models."]
    for size in (size for size in SIZES if size < len(means)):
        try:
            found = rank_agreement(values, size, n_resamples=case.n_resamples, confidence_level=level)
        except ValueError:
            return "The models have equal means: there is no ranking that fewer prompts could repeat."
        others = found.kendall_tau_rest if 2 * size <= len(means) else None
        rest = "–" if others is None else format_number(others)
        tau = format_estimate(found.kendall_tau, found.low, found.high)
        rows.append([str(size) + " (lite)" * (size == LITE), tau, format_number(found.same_best), rest])
        if found.undefined_resamples:
            count = max(found.undefined_resamples.values())
            drawn = f"{count} of {case.n_resamples} draws of {size} prompts"
            notes.append(f"{drawn} tie all models and are left out of Kendall's tau.")
    header = ["prompts", f"tau with all {len(means)}", "same best", "tau with the others"]
    title = f"Ranking of {means.shape[1]} models on fewer prompts: Kendall's tau, [{100 * level:g} % of draws]"
    return "\n".join([title, text_table(header, rows), *notes])


def _sentences(run: Path, case: Case, plan: Plan) -> list[str]:
    """What the figures rest on."""
    counts = sorted({pair.components.n_prompts for pair in case.pairs})
    per_prompt = case.values.table.groupby(level=["prompt", "seed"]).size().mean()
    prompts = " to ".join(f"{count:,}" for count in dict.fromkeys((counts[0], counts[-1])))
    basis = f", on {SUBSET_NAMES[case.values.subset]}" if case.values.subset else ""
    found = [f"From {prompts} prompts{basis}."]
    if per_prompt > 1:
        found.append(f"A prompt counts once, with the mean over its {per_prompt:.3g} image pairs.")
    if len(case.shown) > 1:
        found.append(
            "Typical and hardest: the pairs of models whose difference has the median and the largest variance."
        )
    if read_manifest(run).status != "complete":
        found.append("This run is not finished: the plan rests on what is there.")
    if counts[0] < FEW_CAPTIONS:
        found.append("So few prompts cannot stand for others: these tables show how a plan is made, not what it says.")
    if any(pair.components.seed is None for pair in case.shown):
        found.append(
            "One seed per prompt: what seeds add cannot be told from what prompts add. With k seeds the numbers of "
            "prompts would lie between those given and a k-th of them."
        )
    for pair in case.shown:
        if reason := pair.components.notes.get("prompt"):
            found.append(f"SD of prompts, {pair.name}: {reason}.")
    if constant := sum(pair.variance == 0 for pair in case.pairs):
        found.append(f"Left out: {_counted(constant, 'pair')} of models whose difference is the same on every prompt.")
    found.append(
        f"Assumed: a two-sided paired t test of prompt means, confidence {case.test['confidence_level']:g}, power "
        f"{plan.power:g}, {_counted(plan.comparisons, 'comparison')}; prompts and seeds to come vary like these. The "
        "number of prompts grows with the square of the standard deviation (SD), so its uncertainty does too."
    )
    if not plan.differences and not _is_rate(case):
        found.append("The differences planned for: the 10th, 25th and 50th percentile of those between these models.")
    found.append(
        f"No plan is below {_fewest(case)} prompts: with fewer the test that ranks models can tell nothing apart."
    )
    if plan.comparisons < len(case.pairs):
        found.append(f"To tell all models apart at once give --comparisons {len(case.pairs)}.")
    found.append(
        "Kendall's tau: 1 is the same order, 0 no relation. With all: how well a split stands for the whole that it is "
        "part of. With the others, up to half of all: no prompt is shared, so how a ranking carries over to new ones."
    )
    return found


def plan_text(run: Path, plan: Plan) -> str:
    """The tables of a plan, and what they rest on."""
    case = _case(run, plan)
    tables = [_spread(case), *_plans(case, plan.differences or _differences(case)), _ranking(case)]
    notes = (textwrap.fill(sentence, 120) for sentence in _sentences(run, case, plan))
    return "\n\n".join([*tables, "\n".join(notes)])
