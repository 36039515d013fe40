"""Which dimensions a pair asks for: a seeded, balanced draw."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from widespectrum.errors import InputError
from widespectrum.types import DIMENSIONS

__all__ = ["assign_dimensions", "balanced_draw"]

SIZES = (2, 3, 4)
"""How many dimensions a pair combines."""


def balanced_draw(choices: Sequence[str], count: int, rng: np.random.Generator) -> list[str]:
    """`count` draws in which every stretch from the start holds each choice equally often, up to one."""
    rounds = -(-count // len(choices))
    return [str(name) for _ in range(rounds) for name in rng.permutation(list(choices))][:count]


def assign_dimensions(
    subjects: Sequence[str], *, seed: int, sizes: Sequence[int] = SIZES, dimensions: Sequence[str] = DIMENSIONS
) -> list[tuple[str, ...]]:
    """The dimensions of each pair, given its subject: sorted names, `sizes` of them.

    Balanced: sizes are used equally often, up to one, and so are the dimensions among the pairs of one size. Among
    equals comes first what has met its companions, then what has met the pair's subject least often; the seed decides
    the rest. The first n pairs are as balanced as all, whatever n.
    """
    if not sizes or not all(1 <= size <= len(dimensions) for size in sizes):
        raise InputError(f"a pair asks for 1 to {len(dimensions)} dimensions; got the sizes {list(sizes)}")
    rng = np.random.default_rng(seed)
    used: Counter[tuple[object, ...]] = Counter()
    rows = []
    for subject in subjects:
        size = min(sizes, key=lambda size: (used[size,], used[subject, size], rng.random()))
        taken: list[str] = []
        while len(taken) < size:
            keys = {
                name: (used[size, name], sum(used[name, other] for other in taken), used[subject, name], rng.random())
                for name in dimensions
                if name not in taken
            }
            taken.append(min(keys, key=keys.__getitem__))
        groups = ((size,), (subject, size), *((key, name) for key in (size, subject, *taken) for name in taken))
        used.update(groups)
        rows.append(tuple(sorted(taken)))
    return rows
