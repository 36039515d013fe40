"""Markdown tables of counts for cards, and χ² tests of how evenly a design is spread."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from scipy import stats

__all__ = ["chi_square_table", "count_table", "markdown_table"]


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table in Markdown; a pipe inside a cell is escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in cells)} |" for cells in lines)


def count_table(pairs: Sequence[tuple[str, str]], *, rows: str, columns: str) -> str:
    """How often each (row, column) occurs, with sums; `rows` and `columns` say what they are."""
    counts = Counter(pairs)
    row_names, column_names = (sorted({pair[side] for pair in pairs}) for side in (0, 1))
    body = []
    for row in row_names:
        cells = [counts[row, column] for column in column_names]
        body.append([row, *cells, sum(cells)])
    sums = [sum(cells) for cells in zip(*(line[1:] for line in body), strict=True)]
    return markdown_table([rows, *(f"{columns}{name}" for name in column_names), "all"], [*body, ["all", *sums]])


def _fit(counts: Sequence[int]) -> tuple[float, int, float]:
    """χ² of equal shares: the statistic, its degrees of freedom, p (1 where there is a single value)."""
    result = stats.chisquare(counts)
    return float(result.statistic), len(counts) - 1, float(result.pvalue) if len(counts) > 1 else 1.0


def _independence(pairs: Sequence[tuple[str, str]]) -> tuple[float, int, float]:
    """χ² of independence of the two sides of `pairs`, without continuity correction."""
    counts = Counter(pairs)
    rows, columns = (sorted({pair[side] for pair in pairs}) for side in (0, 1))
    table = np.array([[counts[row, column] for column in columns] for row in rows])
    result = stats.chi2_contingency(table, correction=False)
    return float(result.statistic), int(result.dof), float(result.pvalue)


def chi_square_table(
    shares: Mapping[str, Mapping[str, int]], crossings: Mapping[str, Sequence[tuple[str, str]]] | None = None
) -> str:
    """χ² tests as a table: equal shares in each of `shares`, independence in each of `crossings`.

    `shares` maps each value to how often it occurs, 0 for a value that could have occurred; `crossings` are pairs.
    A small χ² (p near 1) says that the design is more even than chance would make it, which is what a balanced design
    is meant to be; p near 0 would say that it is not balanced.
    """
    tests = {f"equal shares: {name}": _fit(list(counts.values())) for name, counts in shares.items()}
    tests |= {f"independence: {name}": _independence(pairs) for name, pairs in (crossings or {}).items()}
    return markdown_table(
        ["test", "χ²", "degrees of freedom", "p"],
        [[name, f"{value:.2f}", dof, f"{p:.3f}"] for name, (value, dof, p) in tests.items()],
    )
