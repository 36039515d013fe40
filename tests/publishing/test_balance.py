"""χ² by hand, by a formula of our own over random tables, and the tables of counts as Markdown."""

import math

import numpy as np
import pytest

from widespectrum.publishing import chi_square_table, count_table, markdown_table

HEADER = "| test | χ² | degrees of freedom | p |\n| --- | --- | --- | --- |\n"


def crossing(table):
    """The pairs of which `table` holds the counts."""
    return [(f"r{i}", f"c{j}") for i, line in enumerate(table) for j, count in enumerate(line) for _ in range(count)]


@pytest.mark.parametrize(
    ("counts", "value", "dof", "p"),
    [
        # 20 expected each: (100 + 0 + 100) / 20; with 2 degrees of freedom p is exp(-χ²/2), with 1 erfc(√(χ²/2))
        ({"a": 10, "b": 20, "c": 30}, 10, 2, math.exp(-5)),
        ({"a": 6, "never": 0}, 6, 1, math.erfc(math.sqrt(3))),
        ({"a": 5, "b": 5}, 0, 1, 1),
        ({"alone": 7}, 0, 0, 1),
    ],
)
def test_equal_shares(counts, value, dof, p):
    assert chi_square_table({"it": counts}) == f"{HEADER}| equal shares: it | {value:.2f} | {dof} | {p:.3f} |"


@pytest.mark.parametrize(
    ("table", "value", "dof", "p"),
    [
        # n (ad - bc)² over the product of the four sums
        ([[10, 20], [30, 40]], 100 * 200**2 / (30 * 70 * 40 * 60), 1, math.erfc(math.sqrt(0.79365 / 2))),
        ([[3, 0], [0, 3]], 6, 1, math.erfc(math.sqrt(3))),
        ([[2, 2, 2], [4, 4, 4]], 0, 2, 1),
        ([[5, 6]], 0, 0, 1),
    ],
)
def test_independence(table, value, dof, p):
    line = f"| independence: it | {value:.2f} | {dof} | {p:.3f} |"
    assert chi_square_table({}, {"it": crossing(table)}) == HEADER + line


def test_random_tables():
    rng = np.random.default_rng(0)
    for _ in range(30):
        table = rng.integers(1, 9, rng.integers(2, 5, 2))
        expected = table.sum(1, keepdims=True) * table.sum(0) / table.sum()
        value = ((table - expected) ** 2 / expected).sum()
        dof = (table.shape[0] - 1) * (table.shape[1] - 1)
        made = chi_square_table({}, {"it": crossing(table)})
        assert f"| independence: it | {value:.2f} | {dof} |" in made


def test_counts():
    pairs = [("cat", "2"), ("ant", "3"), ("cat", "2"), ("cat", "3")]
    assert count_table(pairs, rows="animal", columns="k = ") == (
        "| animal | k = 2 | k = 3 | all |\n"
        "| --- | --- | --- | --- |\n"
        "| ant | 0 | 1 | 1 |\n"
        "| cat | 2 | 1 | 3 |\n"
        "| all | 2 | 2 | 4 |"
    )


def test_a_pipe_in_a_cell_does_not_end_it():
    assert markdown_table(["a|b", "n"], [["x | y", 1]]) == "| a\\|b | n |\n| --- | --- |\n| x \\| y | 1 |"
