"""The inputs of `anti_aesthetic_adherence` as one table of numbers per prompt pair; NaN marks what is missing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ._checks import (
    Flags,
    Floats,
    choice_column,
    matrix_column,
    number_column,
    range_column,
    selection_flags,
    verdict_column,
)

DIMENSIONS = (
    "background",
    "clarity",
    "color aesthetic",
    "color brightness",
    "detail realism",
    "detail refinement",
    "emotion",
    "lighting distinction",
    "main object",
    "object pairing",
    "richness",
)
ALL_DIMENSIONS = (*DIMENSIONS, "lighting aesthetic", "symmetry")
STATUSES = ("ok", "refused", "failed")
_COLUMNS = ("r_io_po", "r_ia_po", "verdict", "effect_io", "effect_ia", "content_io", "content_ia", "j_io", "j_ia")


class Rows(NamedTuple):
    """`values[name]` has one number per row; `coverage[name]` is the share of rows that hold the input."""

    values: dict[str, Floats]
    coverage: dict[str, float]


def adherence_rows(inputs: Mapping[str, Any], n: int, selected: Flags | None, suffix: str = "") -> Rows:
    """Checks the inputs whose names end in `suffix` and derives the numbers to average."""
    given = {name.removesuffix(suffix): name for name, value in inputs.items() if value is not None}
    status = _status(inputs, given, n)
    skip = np.zeros(n, dtype=bool) if status is None else status != "ok"
    columns = {name: _column(name, full, inputs[full], n, skip) for name, full in given.items() if name != "status"}
    coverage = {name: _share(columns.get(name)) for name in _COLUMNS} | {"status": float(status is not None)}
    return Rows(_derived(columns, status, skip, selected), coverage)


def dimension_flags(dimensions: Any, n: int) -> Flags | None:
    """Which of `ALL_DIMENSIONS` each row selects, shape (n, 13); None where `dimensions` is."""
    return None if dimensions is None else selection_flags("dimensions", dimensions, n, ALL_DIMENSIONS)


def _status(inputs: Mapping[str, Any], given: Mapping[str, str], n: int) -> Any:
    return choice_column(given["status"], inputs[given["status"]], n, STATUSES) if "status" in given else None


def _column(name: str, full_name: str, values: Any, n: int, skip: Flags) -> Floats:
    if name.startswith("r_"):
        return number_column(full_name, values, n, skip=skip)
    if name == "verdict":
        return verdict_column(full_name, values, n, skip=skip)
    if name.startswith("j_"):
        return matrix_column(full_name, values, n, len(DIMENSIONS), 2, skip=skip)
    return range_column(full_name, values, n, 100, skip=skip)


def _share(column: Floats | None) -> float:
    """The share of rows with a value, in a table the share of its cells."""
    return 0.0 if column is None else float(np.mean(~np.isnan(column)))


def _derived(columns: Mapping[str, Floats], status: Any, skip: Flags, selected: Flags | None) -> dict[str, Floats]:
    missing = np.full(len(skip), np.nan)
    get = {name: columns.get(name, missing) for name in _COLUMNS if not name.startswith("j_")}
    values = {
        "success_rate": missing,
        "delta_reward": get["r_ia_po"] - get["r_io_po"],
        "reward_after": get["r_ia_po"],
        "reward_before": get["r_io_po"],
        "effect_gain": get["effect_ia"] - get["effect_io"],
        "effect_after": get["effect_ia"],
        "content_before": get["content_io"],
        "content_after": get["content_ia"],
        "refusal_rate": missing if status is None else (status == "refused").astype(np.float64),
        "failure_rate": missing if status is None else (status == "failed").astype(np.float64),
    }
    if "verdict" in columns:
        won = np.where(np.isnan(get["verdict"]), np.nan, get["verdict"] == 1)
        # a failed call says nothing about the generator; a refusal is its answer, and no success
        values["success_rate"] = won if status is None else np.where(status == "refused", 0.0, won)
    return values | _j_values(columns, len(skip), selected)


def _j_values(columns: Mapping[str, Floats], n: int, selected: Flags | None) -> dict[str, Floats]:
    """The sum of J(I_a) over the dimensions, and J(I_a) − J(I_o) over all, over the selected and one by one."""
    unknown = np.full((n, len(ALL_DIMENSIONS)), np.nan)
    before, after = unknown.copy(), unknown.copy()
    for table, name in ((before, "j_io"), (after, "j_ia")):
        if name in columns:
            table[:, : len(DIMENSIONS)] = columns[name]
    delta = after - before
    chosen = np.zeros_like(delta, dtype=bool) if selected is None else selected
    over_selected = np.where(chosen, delta, 0.0).sum(axis=1)
    values = {
        "j_after": after[:, : len(DIMENSIONS)].sum(axis=1),
        "j_after_selected": np.where(chosen.any(axis=1), np.where(chosen, after, 0.0).sum(axis=1), np.nan),
        "delta_j_all": delta[:, : len(DIMENSIONS)].sum(axis=1),
        "delta_j_selected": np.where(chosen.any(axis=1), over_selected, np.nan),
    }
    one_by_one = np.where(chosen, delta, np.nan)
    return values | {f"delta_j:{name}": one_by_one[:, k] for k, name in enumerate(ALL_DIMENSIONS)}
