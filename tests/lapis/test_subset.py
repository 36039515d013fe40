import collections

import pytest

from tests.lapis.made import paintings
from widespectrum.errors import InputError
from widespectrum.lapis import allocate, stratified_subset


@pytest.mark.parametrize("size", [1, 30, 91, 107, 150, 200])
def test_a_subset_is_spread_as_the_whole(size):
    cells = collections.Counter((painting["style"], painting["genre"]) for painting in paintings())
    total = sum(cells.values())
    taken = allocate(cells, size)
    assert sum(taken.values()) == size
    floor = int(size >= len(cells))
    for cell, count in cells.items():
        share = size * count / total
        assert floor <= taken[cell] <= count
        assert taken[cell] == floor or taken[cell] < share + 1
    raised = sum(taken[cell] > size * count / total + 1 - 1e-9 for cell, count in cells.items())
    assert raised == 0 or floor
    assert allocate(dict(reversed(cells.items())), size) == taken


def test_largest_remainders_by_hand():
    assert allocate({("a", "x"): 50, ("b", "x"): 30, ("c", "x"): 20}, 7) == {
        ("a", "x"): 4, ("b", "x"): 2, ("c", "x"): 1,
    }  # fmt: skip
    assert allocate({("a", "x"): 96, ("b", "x"): 2, ("c", "x"): 2}, 10) == {
        ("a", "x"): 8, ("b", "x"): 1, ("c", "x"): 1,
    }  # fmt: skip
    assert allocate({("b", "x"): 1, ("a", "x"): 1, ("c", "x"): 2}, 2) == {
        ("a", "x"): 1, ("b", "x"): 0, ("c", "x"): 1,
    }  # fmt: skip
    with pytest.raises(InputError, match="must be from 1 to 4, the paintings there are; got 5"):
        allocate({("a", "x"): 4}, 5)


def test_the_draw_depends_on_the_seed_alone(rows):
    cells = {(row["style"], row["genre"]) for row in rows}
    small, same, other = (stratified_subset(rows, len(cells) + 20, seed=seed) for seed in (1, 1, 2))
    assert small == same == stratified_subset(rows[::-1], len(cells) + 20, seed=1)
    assert {row["file"] for row in small} != {row["file"] for row in other}
    assert {(row["style"], row["genre"]) for row in small} == cells
    larger = stratified_subset(rows, len(rows) - 10, seed=1)
    assert {row["file"] for row in small} <= {row["file"] for row in larger}
    unknown = [{**row, "style": None} for row in rows[:5]] + rows[5:]
    assert len(stratified_subset(unknown, len(rows) - 5)) == len(rows) - 5
    with pytest.raises(InputError):
        stratified_subset(unknown, len(rows))
