"""A subset of paintings that is spread over styles and genres as the whole is, with rare combinations kept."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from widespectrum.errors import InputError

__all__ = ["Cell", "allocate", "stratified_subset"]

Cell: TypeAlias = tuple[str, str]
"""Style and genre."""


def allocate(counts: Mapping[Cell, int], size: int) -> dict[Cell, int]:
    """How many to take from each cell: its share of `size` by largest remainder, at least one where `size` allows.

    A cell gives no more than it has. Equal remainders go to the larger cell, then to the first by name. InputError
    where there are fewer than `size` in all.

    >>> allocate({("a", "x"): 60, ("b", "x"): 35, ("c", "x"): 5}, 10)
    {('a', 'x'): 6, ('b', 'x'): 3, ('c', 'x'): 1}
    """
    total = sum(counts.values())
    if not 0 < size <= total:
        raise InputError(f"the size of the subset must be from 1 to {total:,}, the paintings there are; got {size:,}")
    floor = 1 if size >= len(counts) else 0
    taken = {cell: max(floor, size * counts[cell] // total) for cell in sorted(counts)}

    def behind(cell: Cell) -> tuple[int, int]:
        """How far a cell is below its share, in whole numbers; of equal ones the larger cell."""
        return size * counts[cell] - taken[cell] * total, counts[cell]

    # `max` and `min` take the first of equals, and the cells are in the order of their names.
    while sum(taken.values()) < size:
        taken[max((cell for cell in taken if taken[cell] < counts[cell]), key=behind)] += 1
    while sum(taken.values()) > size:
        taken[min((cell for cell in taken if taken[cell] > floor), key=behind)] -= 1
    return taken


def _draw(seed: int, name: str) -> str:
    """A number that is the same on every machine, in hexadecimal."""
    return hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()


def stratified_subset(rows: Sequence[dict[str, Any]], size: int, *, seed: int = 0) -> list[dict[str, Any]]:
    """`size` of the rows that have style and genre, spread over the cells by `allocate`, drawn by `seed`, by file name.

    Within a cell a larger subset holds the smaller one of the same seed.
    """
    cells: dict[Cell, list[dict[str, Any]]] = {}
    for row in rows:
        if row["style"] is not None and row["genre"] is not None:
            cells.setdefault((row["style"], row["genre"]), []).append(row)
    taken = allocate({cell: len(cells[cell]) for cell in sorted(cells)}, size)
    drawn = [
        row
        for cell, count in taken.items()
        for row in sorted(cells[cell], key=lambda row: _draw(seed, row["file"]))[:count]
    ]
    return sorted(drawn, key=lambda row: str(row["file"]))
