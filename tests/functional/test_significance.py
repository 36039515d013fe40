"""Paired tests and Holm's correction against scipy and statsmodels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from widespectrum.functional import holm, mcnemar_exact, wilcoxon_signed_rank
from widespectrum.functional._significance import signed_ranks, weighted_effect_size


@pytest.mark.parametrize(("n", "grid"), [(300, 0), (300, 4), (120, 2), (20, 0)])
def test_wilcoxon_agrees_with_scipy(n, grid):
    rng = np.random.default_rng(n + grid)
    base = rng.normal(size=n) if not grid else rng.integers(0, grid, n).astype(float)
    aligned = base + (rng.normal(0.3, 1, n) if not grid else rng.integers(-1, 3, n))
    result = wilcoxon_signed_rank(aligned, base)
    oracle = stats.wilcoxon(aligned, base, zero_method="wilcox", alternative="greater", method="asymptotic")
    assert result.r == pytest.approx(-oracle.zstatistic / np.sqrt(n), abs=1e-12)
    # scipy's own choice of method: exact for few pairs without ties
    difference = (aligned - base)[aligned != base]
    assert result.p == pytest.approx(stats.wilcoxon(difference, alternative="greater").pvalue, rel=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_wilcoxon_of_few_tied_pairs_agrees_with_all_sign_flips(seed):
    difference = np.random.default_rng(seed).choice([-2.0, -1.0, 1.0, 2.0, 3.0], 9)
    ranks = stats.rankdata(np.abs(difference))
    observed = ranks[difference > 0].sum()
    flips = np.array([(np.arange(2**9)[:, None] >> np.arange(9)) & 1])[0]
    assert wilcoxon_signed_rank(difference, np.zeros(9)).p == pytest.approx(np.mean(flips @ ranks >= observed))


def test_wilcoxon_of_one_pair_and_of_equal_pairs():
    assert wilcoxon_signed_rank([2.0], [1.0]) == (-1.0, 0.5)
    assert wilcoxon_signed_rank([1.0, 2.0], [1.0, 2.0]) == (None, None)


def test_equal_pairs_count_in_n_but_not_in_the_ranks():
    aligned, base = np.array([3.0, 5.0, 4.0]), np.array([2.0, 3.0, 1.0])
    padded = wilcoxon_signed_rank(np.append(aligned, np.zeros(9)), np.append(base, np.zeros(9)))
    plain = wilcoxon_signed_rank(aligned, base)
    assert padded.r == pytest.approx(plain.r / 2)
    assert padded.p == plain.p


def test_weighted_effect_size_equals_that_of_the_repeated_rows():
    rng = np.random.default_rng(0)
    aligned, base, clusters = rng.integers(0, 5, 12), rng.integers(0, 5, 12), np.repeat(np.arange(6), 2)
    ranks = signed_ranks(aligned.astype(float), base.astype(float), clusters)
    weights = rng.integers(0, 3, (5, 6)).astype(float)
    for row, r in zip(weights, weighted_effect_size(ranks, weights), strict=True):
        rows = np.repeat(np.arange(12), row[clusters].astype(int))
        assert r == pytest.approx(wilcoxon_signed_rank(aligned[rows], base[rows]).r, abs=1e-12)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_mcnemar_agrees_with_statsmodels(pairs):
    aligned, base = np.array(pairs).T
    table = [[(aligned & base).sum(), (aligned & ~base).sum()], [(~aligned & base).sum(), (~aligned & ~base).sum()]]
    result = mcnemar_exact(aligned, base)
    assert result.p == pytest.approx(float(mcnemar(table, exact=True).pvalue))
    discordant = table[0][1] + table[1][0]
    if discordant:
        oracle = stats.binomtest(int(table[0][1]), int(discordant), 0.5, alternative="less").pvalue
        assert result.p_one_sided == pytest.approx(oracle)
    else:
        assert result == (1.0, 1.0)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_agrees_with_statsmodels(p_values):
    np.testing.assert_allclose(holm(p_values), multipletests(p_values, method="holm")[1], atol=1e-12)


def test_holm_refuses_what_is_no_p_value():
    with pytest.raises(ValueError, match="between 0 and 1"):
        holm([0.1, 1.2])
    with pytest.raises(ValueError, match="between 0 and 1"):
        holm([0.1, float("nan")])


@pytest.mark.parametrize("test", [mcnemar_exact, wilcoxon_signed_rank])
def test_unequal_lengths_gaps_and_no_rows_are_refused(test):
    with pytest.raises(ValueError, match="base: expected 1 rows like the other columns, got 3"):
        test([1], [0, 0, 1])
    with pytest.raises(ValueError, match=r"base, row 1 .*got nan"):
        test([1, 0], [0, float("nan")])
    with pytest.raises(ValueError, match="aligned: expected at least one row"):
        test([], [])
