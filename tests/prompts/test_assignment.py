from collections import Counter
from itertools import combinations

import numpy as np
import pytest

from widespectrum.errors import InputError
from widespectrum.prompts.assignment import assign_dimensions, balanced_draw
from widespectrum.types import DIMENSIONS

SUBJECTS = ("animals", "art", "food", "people")


def spread(values):
    counts = Counter(values).values()
    return max(counts) - min(counts)


@pytest.fixture(scope="module", params=[0, 1, 2])
def design(request):
    subjects = balanced_draw(SUBJECTS, 300, np.random.default_rng(request.param))
    return subjects, assign_dimensions(subjects, seed=request.param)


@pytest.mark.parametrize("first", [60, 150, 300])
def test_every_prefix_is_balanced_over_k_dimensions_and_their_crossing(design, first):
    rows = design[1][:first]
    assert spread(len(row) for row in rows) <= 1
    for size in (2, 3, 4):
        assert spread(name for row in rows if len(row) == size for name in row) <= 1
    assert spread(name for row in rows for name in row) <= 3
    assert {name for row in rows for name in row} == set(DIMENSIONS)


def test_companions_and_subjects_are_met_about_equally_often(design):
    subjects, rows = design
    pairs = Counter(pair for row in rows for pair in combinations(row, 2))
    assert len(pairs) == 55
    assert max(pairs.values()) - min(pairs.values()) <= 6  # a random draw of this size spreads over more than 15
    crossing = Counter((subject, name) for subject, row in zip(subjects, rows, strict=True) for name in row)
    assert max(crossing.values()) - min(crossing.values()) <= 8
    assert spread((subject, len(row)) for subject, row in zip(subjects, rows, strict=True)) <= 3


def test_rows_are_sorted_without_repetition_and_come_from_the_seed(design):
    subjects, rows = design
    assert all(list(row) == sorted(set(row)) for row in rows)
    assert assign_dimensions(subjects, seed=9) == assign_dimensions(subjects, seed=9)
    assert assign_dimensions(subjects, seed=9) != assign_dimensions(subjects, seed=10)


def test_subjects_are_drawn_equally_often_at_every_prefix():
    drawn = balanced_draw(SUBJECTS, 30, np.random.default_rng(0))
    assert all(spread([*drawn[:n], *SUBJECTS]) <= 1 for n in range(31))


@pytest.mark.parametrize("sizes", [(), (0,), (12,)])
def test_sizes_that_cannot_be(sizes):
    with pytest.raises(InputError, match="a pair asks for 1 to 11 dimensions"):
        assign_dimensions(["art"], seed=0, sizes=sizes)
