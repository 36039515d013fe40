"""Means over slices of the rows, with a cluster bootstrap interval each: what the smaller metrics are made of.

A column holds one number per row, NaN where it is missing. A slice is a set of rows: all of them, those of one emotion,
one element, one topic. Every slice is averaged over the same resampled prompts, so that differences between slices, and
between columns, have intervals too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from ._bootstrap import Draws, Resampling, add_wilson, cluster_sums, draw, interval_cautions, ratio, with_intervals
from ._checks import Codes, Floats, Labels, Names, label_column, require_unique, row_labels

Means: TypeAlias = Mapping[str, Floats]
"""Column to its means, shape (resamples, slices)."""


class Derived(NamedTuple):
    """An estimate made of means: the function, the columns that it rests on, and the slice it compares them with."""

    function: Callable[[Means], Floats]
    columns: Sequence[str]
    against: str | None = None


class Study(NamedTuple):
    """Columns to average over slices of the rows.

    `proportions` names the columns of zeros and ones, which get Wilson's interval; `reasons` says why an estimate can
    be absent ("undefined: no row has it" where it says nothing). `statistics(rows)` gives further estimates of a slice
    as functions of the weights (resamples, prompts) that return (resamples,); `rests_on` names the columns behind them,
    where these have gaps. `averages` names further slices, each the mean of slices before it, all of the same weight; a
    derived estimate is made of those means.
    """

    columns: Mapping[str, Floats]
    slices: Mapping[str, Codes]
    prompts: Labels
    derived: Mapping[str, Derived] = {}
    proportions: Sequence[str] = ()
    reasons: Mapping[str, str] = {}
    statistics: Callable[[Codes], Mapping[str, Callable[[Floats], Floats]]] = lambda rows: {}
    averages: Mapping[str, Sequence[str]] = {}
    rests_on: Mapping[str, Sequence[str]] = {}


def minus_slice(column: str, against: str, slices: Mapping[str, Codes]) -> Derived:
    """The mean of a column less its mean in the slice `against`; undefined in that slice itself."""
    position = list(slices).index(against)

    def function(means: Means) -> Floats:
        difference = means[column] - means[column][:, [position]]
        difference[:, position] = np.nan
        return difference

    return Derived(function, (column,), against)


def keyed_prompts(n: int, *, prompt_id: Names | None, image_seed: Names | None, **labels: Labels) -> Labels:
    """The bootstrap's cluster of each row: `prompt_id`, or every row its own; the key of a row may not repeat.

    The key is (prompt_id, `labels`, image_seed), as far as they are given; without prompt_id there is none.
    """
    if prompt_id is None:
        return row_labels(n)
    prompts = label_column("prompt_id", prompt_id, n)
    seeds = {} if image_seed is None else {"image_seed": label_column("image_seed", image_seed, n)}
    require_unique({"prompt_id": prompts} | labels | seeds)
    return prompts


def slices_of(labels: Labels | None, n: int) -> dict[str, Codes]:
    """All rows under the empty name, then the rows of each label under its own."""
    slices = {"": np.arange(n)}
    if labels is not None:
        slices |= {str(name): np.flatnonzero(labels.codes == code) for code, name in enumerate(labels.names)}
    return slices


def blocks(study: Study, options: Resampling) -> dict[str, dict[str, Any]]:
    """Slice to its block: `n_pairs`, `n_prompts`, every estimate with its interval, `notes`, `cautions`."""
    for name in study.averages:
        if name in study.slices:
            raise ValueError(f"expected no label {name!r}, the name of an average over the labels; call it otherwise")
    draws = draw(_statistic(study), len(study.prompts.names), options)
    names = enumerate((*study.slices, *study.averages))
    return {name: _block(study, name, draws.of(k), options) for k, name in names}


def _statistic(study: Study) -> Callable[[Floats], dict[str, Floats]]:
    codes, n_clusters = study.prompts.codes, len(study.prompts.names)
    columns = np.stack([*study.columns.values()], axis=1)
    terms = np.concatenate([np.nan_to_num(columns), ~np.isnan(columns)], axis=1)
    sums = np.concatenate(
        [cluster_sums(terms[rows], codes[rows], n_clusters) for rows in study.slices.values()], axis=1
    )
    others = [study.statistics(rows) for rows in study.slices.values()]
    names = dict.fromkeys(name for table in others for name in table)
    positions = {name: k for k, name in enumerate((*study.slices, *study.averages))}
    members = [[positions[name] for name in slices] for slices in study.averages.values()]

    def statistic(weights: Floats) -> dict[str, Floats]:
        totals = (weights @ sums).reshape(len(weights), len(study.slices), 2, -1)
        averages = ratio(totals[:, :, 0], totals[:, :, 1])
        means = {name: averages[..., k] for k, name in enumerate(study.columns)}
        means |= {name: np.stack([table[name](weights) for table in others], axis=1) for name in names}
        for those in members:
            means = {name: np.column_stack([values, values[:, those].mean(axis=1)]) for name, values in means.items()}
        return means | {name: derived.function(means) for name, derived in study.derived.items()}

    return statistic


def _rows(study: Study, name: str) -> Codes:
    if name in study.slices:
        return study.slices[name]
    return np.concatenate([_rows(study, member) for member in study.averages[name]])


def _prompts_behind(study: Study, name: str, estimates: Iterable[str]) -> dict[str, int]:
    """On how many prompts each estimate of a slice rests: in an average, on those of the member that has fewest."""
    if name in study.averages:
        counts = [_prompts_behind(study, member, estimates) for member in study.averages[name]]
        return {estimate: min(count[estimate] for count in counts) for estimate in estimates}
    rows, codes = study.slices[name], study.prompts.codes
    clusters = dict.fromkeys(estimates, len(np.unique(codes[rows])))
    for column, values in study.columns.items():
        clusters[column] = len(np.unique(codes[rows[~np.isnan(values[rows])]]))
    needs = dict(study.rests_on) | {key: each.columns for key, each in study.derived.items()}
    return clusters | {key: min(clusters[column] for column in columns) for key, columns in needs.items()}


def _block(study: Study, name: str, draws: Draws, options: Resampling) -> dict[str, Any]:
    rows = _rows(study, name)
    n_prompts = len(np.unique(study.prompts.codes[rows]))
    absent = "undefined in a part of this average" if name in study.averages else "undefined: no row has it"
    reasons = dict.fromkeys(draws.point, absent) | dict(study.reasons)
    behind = _prompts_behind(study, name, (*draws.point, "n_prompts"))
    for key, each in study.derived.items():
        if each.against is not None:
            behind[key] = min(behind[key], _prompts_behind(study, each.against, behind)[key])
    result = with_intervals(draws, behind, reasons, options)
    trials = {column: int((~np.isnan(study.columns[column][rows])).sum()) for column in study.proportions}
    add_wilson(result, trials if name in study.slices else {}, options)
    cautions = interval_cautions(result, behind["n_prompts"])
    return {"n_pairs": len(rows), "n_prompts": n_prompts} | result | {"cautions": cautions}
