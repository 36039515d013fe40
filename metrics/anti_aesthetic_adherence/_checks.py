"""Inputs to arrays: what the metrics accept, and one sentence naming the first row that they do not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Codes: TypeAlias = NDArray[np.intp]
Flags: TypeAlias = NDArray[np.bool_]
Numbers: TypeAlias = Sequence[float | None] | NDArray[Any]
Names: TypeAlias = Sequence[Any] | NDArray[Any]

VERDICTS = (0.0, 0.5, 1.0)
_LARGEST = 1e150
"""Beyond this a square is infinite; no reward is so large."""


class Labels(NamedTuple):
    """`names[codes[i]]` is the label of row i; names are sorted and distinct."""

    names: list[Any]
    codes: Codes


def _row_error(name: str, row: int, expected: str, got: object) -> ValueError:
    got = got.item() if isinstance(got, np.generic) else got
    return ValueError(
        f"{name}, row {row} (counted from 0): expected {expected}, got {_short(got)}; correct it or leave it out"
    )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def as_rows(name: str, values: Any) -> NDArray[Any]:
    """`values` as a one-dimensional array; a list becomes an array of its objects."""
    if isinstance(values, str | bytes | Mapping):
        raise ValueError(f"{name}: expected one value per row, got a {type(values).__name__}; give a list or array")
    rows = np.asarray(values) if hasattr(values, "__array__") else _listed(name, values)
    if rows.ndim != 1:
        raise ValueError(f"{name}: expected one value per row, got shape {rows.shape}; give a flat list or array")
    return rows


def _listed(name: str, values: Any) -> NDArray[Any]:
    try:
        items = list(values)
    except TypeError:
        raise ValueError(f"{name}: expected one value per row, got {values!r}; give a list or array") from None
    return np.fromiter(items, dtype=object, count=len(items))


def require_rows(name: str, values: Any) -> int:
    """The number of rows of `values`, at least one."""
    n = len(as_rows(name, values))
    if n == 0:
        raise ValueError(f"{name}: expected at least one row, got none")
    return n


def _number(name: str, row: int, item: Any) -> float:
    if item is None:
        return np.nan
    is_number = isinstance(item, bool | int | float | np.integer | np.floating | np.bool_)
    # a whole number may be too large to become a float
    if is_number and abs(item if isinstance(item, int) else float(item)) <= _LARGEST:
        return float(item)
    raise _row_error(name, row, "a finite number", item)


def number_column(name: str, values: Numbers, n: int, *, skip: Flags | None = None) -> Floats:
    """`values` as float64 of length n. None becomes NaN, the mark of a missing value; NaN and infinity are errors.

    Rows flagged in `skip` may hold anything and become NaN.
    """
    rows = as_rows(name, values)
    if len(rows) != n:
        raise ValueError(f"{name}: expected {n} rows like the other columns, got {len(rows)}; give one value per row")
    skipped = np.zeros(n, dtype=bool) if skip is None else skip
    if rows.dtype == object and all(
        type(item) is float or (type(item) is int and abs(item) < _LARGEST) for item in rows
    ):
        rows = rows.astype(np.float64)
    if rows.dtype.kind not in "fiub":
        return np.array([np.nan if skipped[i] else _number(name, i, item) for i, item in enumerate(rows)])
    column = rows.astype(np.float64)
    column[skipped] = np.nan
    bad = np.flatnonzero(~(np.abs(column) <= _LARGEST) & ~skipped)
    if bad.size:
        raise _row_error(name, int(bad[0]), "a finite number", column[bad[0]])
    return column


def complete_column(name: str, values: Numbers, n: int) -> Floats:
    """`number_column` in which every row has a value."""
    column = number_column(name, values, n)
    missing = np.isnan(column)
    if missing.any():
        raise _row_error(name, int(np.argmax(missing)), "a finite number", None)
    return column


def _within(name: str, column: Floats, allowed: Flags, expected: str) -> Floats:
    bad = np.flatnonzero(~allowed & ~np.isnan(column))
    if bad.size:
        raise _row_error(name, int(bad[0]), expected, column[bad[0]])
    return column


def verdict_column(name: str, values: Numbers, n: int, *, skip: Flags | None = None) -> Floats:
    """Verdicts 1, 0 or 0.5 (tie); None, stored as NaN, where the judge gave none."""
    column = number_column(name, values, n, skip=skip)
    return _within(
        name, column, np.isin(column, VERDICTS), "a verdict 0, 0.5 (a tie, sometimes written −1) or 1, or None"
    )


def flag_column(name: str, values: Numbers, n: int) -> Flags:
    """Flags given as true and false or as 1 and 0; every row has one."""
    column = complete_column(name, values, n)
    flags: Flags = _within(name, column, np.isin(column, (0, 1)), "true or false, or 1 or 0") == 1
    return flags


def range_column(name: str, values: Numbers, n: int, high: float, *, skip: Flags | None = None) -> Floats:
    """Numbers in [0, high]; None, stored as NaN, where there is none."""
    column = number_column(name, values, n, skip=skip)
    return _within(name, column, (column >= 0) & (column <= high), f"a number from 0 to {high:g}, or None")


def label_column(name: str, values: Names, n: int) -> Labels:
    """Names or numbers that label the rows; every row has one."""
    rows = as_rows(name, values)
    if len(rows) != n:
        raise ValueError(f"{name}: expected {n} rows like the other columns, got {len(rows)}; give one label per row")
    if rows.dtype.kind in "iu":
        numbers, codes = np.unique(rows, return_inverse=True)
        return Labels(numbers.tolist(), codes)
    items = [item.item() if isinstance(item, np.generic) else item for item in rows.tolist()]
    for row, item in enumerate(items):
        if not isinstance(item, str | int | float) or item == "" or item != item:
            raise _row_error(name, row, "a non-empty name or a number", item)
    try:
        names = sorted(set(items))
    except TypeError:
        raise ValueError(f"{name}: expected all names or all numbers, got a mixture; write them all as text") from None
    position = {label: code for code, label in enumerate(names)}
    return Labels(names, np.fromiter((position[item] for item in items), dtype=np.intp, count=n))


def count_distinct(codes: Codes) -> int:
    """How many different codes there are; for many rows far faster than `np.unique`."""
    return int(np.count_nonzero(np.bincount(codes)))


def row_labels(n: int) -> Labels:
    """Every row its own label."""
    return Labels(list(range(n)), np.arange(n))


def select_labels(labels: Labels, flags: Flags) -> Labels:
    """The labels of the flagged rows alone."""
    used, codes = np.unique(labels.codes[flags], return_inverse=True)
    return Labels([labels.names[code] for code in used], codes)


def require_unique(columns: Mapping[str, Labels]) -> None:
    """Raises where two rows agree in every one of `columns`."""
    key = np.zeros(len(next(iter(columns.values())).codes), dtype=np.intp)
    for labels in columns.values():
        # numbering the keys anew after each column keeps them below the number of rows
        key = np.unique(key * len(labels.names) + labels.codes, return_inverse=True)[1]
    order = np.argsort(key, kind="stable")
    repeats = order[1:][key[order][1:] == key[order][:-1]]
    if repeats.size:
        row = int(repeats.min())
        first = int(np.argmax(key == key[row]))
        values = ", ".join(f"{name}={labels.names[labels.codes[row]]!r}" for name, labels in columns.items())
        what = "give each pair once, or tell its images apart by image_seed"
        raise ValueError(f"row {row} (counted from 0) repeats the key of row {first} ({values}): {what}")


def _one_list_per_row(name: str, values: Any, n: int) -> list[Any]:
    rows = list(_listed(name, values))
    if len(rows) != n:
        raise ValueError(f"{name}: expected {n} rows like the other columns, got {len(rows)}; give one list per row")
    return rows


def matrix_column(name: str, values: Any, n: int, width: int, high: float, *, skip: Flags) -> Floats:
    """Rows of `width` numbers in [0, high], shape (n, width); None, for a row or a number, becomes NaN."""
    rows = _one_list_per_row(name, values, n)
    result = np.full((n, width), np.nan)
    for i, row in enumerate(rows):
        if skip[i] or row is None:
            continue
        if not hasattr(row, "__len__") or isinstance(row, str) or len(row) != width:
            raise _row_error(name, i, f"a list of {width} numbers, one per dimension", row)
        result[i] = [_number(name, i, item) for item in row]
        if (result[i] < 0).any() or (result[i] > high).any():
            raise _row_error(name, i, f"numbers from 0 to {high:g}", list(row))
    return result


def choice_column(name: str, values: Names, n: int, choices: Sequence[str]) -> NDArray[Any]:
    """Names out of `choices`, shape (n,)."""
    labels = label_column(name, values, n)
    names = np.array([str(label) for label in labels.names])[labels.codes]
    bad = np.flatnonzero(~np.isin(names, choices))
    if bad.size:
        raise _row_error(name, int(bad[0]), f"one of {', '.join(choices)}", names[bad[0]])
    return names


def selection_flags(name: str, values: Any, n: int, choices: Sequence[str]) -> Flags:
    """One list of names out of `choices` per row, as flags (n, len(choices)); every row names at least one."""
    rows = _one_list_per_row(name, values, n)
    flags = np.zeros((n, len(choices)), dtype=bool)
    for i, row in enumerate(rows):
        listed = isinstance(row, Sequence | set | np.ndarray) and not isinstance(row, str) and len(row)
        if not listed or not all(isinstance(item, str) and item in choices for item in row):
            raise _row_error(name, i, f"a non-empty list of names out of {', '.join(choices)}", row)
        flags[i] = np.isin(choices, list(row))
    return flags
