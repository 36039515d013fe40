"""Variance components, the planned number of prompts and rank agreement, against scipy and statsmodels."""

import itertools
import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats
from statsmodels.regression.mixed_linear_model import MixedLM
from statsmodels.stats.power import TTestPower

from widespectrum.functional import (
    Components,
    detectable_difference,
    prompts_needed,
    rank_agreement,
    variance_components,
)

UNIT = Components(prompt=1.0, seed=None, n_prompts=10, n_rows=10, notes={})


def study(rng, sizes, prompt=1.0, seed=0.7):
    """Paired values of two models and the prompt of each row."""
    codes = np.repeat(np.arange(len(sizes)), sizes)
    b = rng.normal(size=len(codes))
    parts = rng.normal(0, prompt, len(sizes))[codes] + rng.normal(0, seed, len(codes))
    return b + 0.3 + parts, b, [f"prompt {code}" for code in codes]


def by_prompt(a, b, prompts):
    names = np.asarray(prompts)
    return [(np.asarray(a) - np.asarray(b))[names == name] for name in dict.fromkeys(prompts)]


# variance components


@pytest.mark.parametrize("sizes", [[2] * 30, [3, 3], [1, 2, 3, 4, 9], [1, 1, 1, 1, 2], [50, 2, 2, 2]])
def test_components_agree_with_the_mean_squares_of_f_oneway(sizes):
    a, b, prompts = study(np.random.default_rng(len(sizes)), sizes)
    result = variance_components(a, b, prompts)
    groups = by_prompt(a, b, prompts)
    n, k = sum(sizes), len(sizes)
    n0 = (n - sum(size**2 for size in sizes) / n) / (k - 1)
    within = sum(np.var(group) * len(group) for group in groups) / (n - k)
    between = within * stats.f_oneway(*groups).statistic
    assert result.seed == pytest.approx(within, rel=1e-10)
    assert result.prompt == pytest.approx(max(0, (between - within) / n0), rel=1e-9, abs=1e-12)
    assert (result.n_prompts, result.n_rows) == (k, n)


def test_components_of_balanced_rows_are_those_of_reml():
    a, b, prompts = study(np.random.default_rng(0), [4] * 60)
    result = variance_components(a, b, prompts)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = MixedLM(a - b, np.ones((len(a), 1)), groups=prompts).fit(reml=True)
    assert result.prompt == pytest.approx(float(np.asarray(fit.cov_re).item()), rel=1e-3)
    assert result.seed == pytest.approx(fit.scale, rel=1e-3)


def test_components_are_unbiased():
    rng = np.random.default_rng(1)
    found = [variance_components(*study(rng, [1, 2, 2, 3, 4] * 8, 2.0, 1.5))[:2] for _ in range(400)]
    prompt, seed = np.mean(found, axis=0)
    # four standard errors of the mean of 400 estimates
    assert abs(prompt - 4.0) < 4 * np.std([p for p, _ in found]) / 20
    assert abs(seed - 2.25) < 4 * np.std([s for _, s in found]) / 20


def test_one_row_per_prompt_leaves_the_seeds_unknown():
    a, b, prompts = study(np.random.default_rng(2), [1] * 25)
    result = variance_components(a, b, prompts)
    assert result.prompt == pytest.approx(np.var(a - b, ddof=1))
    assert result.seed is None
    assert result.notes["seed"].startswith("unknown: every prompt has one row")


def test_a_negative_component_is_0_and_said_so():
    result = variance_components([1, -1, -1, 1], [0, 0, 0, 0], ["a", "a", "b", "b"])
    assert (result.prompt, result.seed) == (0.0, 2.0)
    assert "below 0" in result.notes["prompt"]
    assert variance_components([3, 5, 8, 10], [1, 1, 2, 2], ["a", "a", "b", "b"]).notes == {}


@pytest.mark.parametrize("prompts", [["a", "b", "c"], ["a", "a", "b"]])
def test_a_constant_difference_has_no_variance_whatever_the_rounding(prompts):
    b = np.array([0.1, 1.7, 123.4])
    assert variance_components(b + 0.3, b, prompts)[:2] in ((0.0, None), (0.0, 0.0))


def test_kinds_of_input_agree():
    a, b, prompts = study(np.random.default_rng(3), [2, 3, 4])
    a, b = a.astype(np.float32), b.astype(np.float32)
    expected = variance_components(a.astype(float), b.astype(float), prompts)
    assert variance_components(a, b, np.array(prompts)) == expected
    assert variance_components(a.tolist(), b.tolist(), prompts) == expected


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(-9, 9), st.integers(-9, 9)), min_size=2, max_size=20),
    st.integers(-3, 3),
    st.integers(1, 5),
    st.randoms(use_true_random=False),
)
def test_order_swap_shift_and_scale(rows, shift, scale, random):
    if len({prompt for prompt, _, _ in rows}) < 2:
        rows = [*rows, (5, 0, 0), (6, 1, 0)]
    prompts, a, b = zip(*rows, strict=True)
    result = variance_components(a, b, prompts)
    assert variance_components(b, a, prompts)[:2] == pytest.approx(result[:2])
    mixed = list(rows)
    random.shuffle(mixed)
    mixed_prompts, mixed_a, mixed_b = zip(*mixed, strict=True)
    moved = variance_components(
        [scale * value + shift for value in mixed_a], [scale * value for value in mixed_b], mixed_prompts
    )
    assert moved.prompt == pytest.approx(scale**2 * result.prompt, abs=1e-9)
    assert moved.seed == (None if result.seed is None else pytest.approx(scale**2 * result.seed, abs=1e-9))
    # the prompts once more under other names: the same seed part, hardly another prompt part
    twice = variance_components([*a, *a], [*b, *b], [*prompts, *(prompt + 100 for prompt in prompts)])
    assert twice.seed == (None if result.seed is None else pytest.approx(result.seed))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], [], []), "values_a: expected at least one row, got none"),
        (([1.0], [2.0], ["a"]), "prompts: expected at least two different ones, got 'a' alone"),
        (([1.0, 2.0], [2.0, 3.0], ["a", "a"]), "prompts: expected at least two different ones"),
        (([1.0, float("nan")], [2.0, 3.0], ["a", "b"]), r"values_a, row 1 \(counted from 0\): expected a finite"),
        (([1.0, 2.0], [2.0, float("inf")], ["a", "b"]), r"values_b, row 1 \(counted from 0\): expected a finite"),
        (([1.0, None], [2.0, 3.0], ["a", "b"]), r"values_a, row 1 \(counted from 0\): expected a finite number, got"),
        (([1.0, 2.0], [2.0], ["a", "b"]), "values_b: expected 2 rows"),
        (([1.0, 2.0], [2.0, 1.0], ["a"]), "prompts: expected 2 rows"),
        (([1.0, 2.0], [2.0, 1.0], ["a", ""]), r"prompts, row 1 \(counted from 0\): expected a non-empty name"),
    ],
)
def test_rows_that_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        variance_components(*arguments)


# the number of prompts


@pytest.mark.parametrize("power", [0.5, 0.8, 0.95])
@pytest.mark.parametrize("comparisons", [1, 45])
@pytest.mark.parametrize("effect", [0.02, 0.1, 0.35, 0.8])
def test_prompts_needed_is_the_ceiling_of_statsmodels(power, comparisons, effect):
    alpha = 0.05 / comparisons
    expected = math.ceil(TTestPower().solve_power(effect, None, alpha, power))
    assert prompts_needed(UNIT, effect, power=power, comparisons=comparisons) == expected


def power_by_integration(n, effect, alpha):
    """The power of the two-sided t test, integrated over the variance; statsmodels has gaps at large effects."""
    critical, shift = stats.t.isf(alpha / 2, n - 1), effect * math.sqrt(n)

    def density(variance):
        edge = critical * math.sqrt(variance / (n - 1))
        return stats.chi2.pdf(variance, n - 1) * (stats.norm.sf(edge - shift) + stats.norm.cdf(-edge - shift))

    return integrate.quad(density, 0, n + 100, points=[1e-3, 1], limit=400)[0]


@pytest.mark.parametrize("comparisons", [1, 45])
@pytest.mark.parametrize("effect", [1.1, 1.5, 3, 10])
def test_prompts_needed_at_large_effects_agree_with_integration(effect, comparisons):
    n, alpha = prompts_needed(UNIT, effect, power=0.95, comparisons=comparisons), 0.05 / comparisons
    assert power_by_integration(n, effect, alpha) >= 0.95
    assert n == 2 or power_by_integration(n - 1, effect, alpha) < 0.95


@pytest.mark.parametrize("n", [3, 17, 60, 300, 4000])
@pytest.mark.parametrize("alpha", [0.05, 0.01])
def test_detectable_difference_agrees_with_statsmodels(n, alpha):
    found = detectable_difference(UNIT, n, confidence_level=1 - alpha)
    assert TTestPower().power(found, n, alpha) == pytest.approx(0.8, abs=1e-9)


def test_detectable_difference_of_two_prompts_agrees_with_integration():
    assert power_by_integration(2, detectable_difference(UNIT, 2), 0.05) == pytest.approx(0.8, abs=1e-5)


@pytest.mark.parametrize("n_seeds", [1, 3, 10])
def test_the_two_are_inverse_and_follow_the_variance_of_the_mean(n_seeds):
    components = Components(prompt=0.4, seed=1.2, n_prompts=50, n_rows=100, notes={})
    same = Components(prompt=0.4 + 1.2 / n_seeds, seed=None, n_prompts=50, n_rows=50, notes={})
    n = prompts_needed(components, 0.25, n_seeds=n_seeds)
    assert n == prompts_needed(same, 0.25) == prompts_needed(components, -0.25, n_seeds=n_seeds)
    assert detectable_difference(components, n, n_seeds) <= 0.25 < detectable_difference(components, n - 1, n_seeds)


def test_a_simulation_has_the_planned_power():
    rng = np.random.default_rng(4)
    components = Components(prompt=1.0, seed=2.0, n_prompts=50, n_rows=100, notes={})
    n = prompts_needed(components, 0.6, n_seeds=4)
    prompt, rows = rng.normal(0, 1, (20_000, n)), rng.normal(0, math.sqrt(2), (20_000, n, 4)).mean(axis=2)
    p = stats.ttest_1samp(0.6 + prompt + rows, 0, axis=1).pvalue
    assert 0.79 < np.mean(p < 0.05) < 0.83


def test_a_large_difference_needs_two_prompts_and_a_tiny_one_is_refused():
    assert prompts_needed(UNIT, 1e12) == 2
    assert prompts_needed(UNIT, 1e-6) == pytest.approx(7.85e12, rel=1e-3)
    with pytest.raises(ValueError, match="difference: expected more than 1e-09 beside a standard deviation of 1"):
        prompts_needed(UNIT, 1e-9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"difference": 0}, "difference: expected a finite number other than 0, got 0"),
        ({"difference": float("nan")}, "difference: expected a finite number other than 0, got nan"),
        ({"difference": "big"}, "difference: expected a finite number other than 0, got 'big'"),
        ({"power": 1.0}, "power: expected a number between 0 and 1, such as 0.8, got 1.0"),
        ({"power": 0.04}, "power: expected more than 0.05, the chance of a rejection without any difference, got 0.04"),
        ({"confidence_level": 95}, "confidence_level: expected a number between 0 and 1, such as 0.8, got 95"),
        ({"comparisons": 0}, "comparisons: expected a whole number of at least 1, got 0"),
        ({"n_seeds": 1.5}, "n_seeds: expected a whole number of at least 1, got 1.5"),
        ({"n_seeds": True}, "n_seeds: expected a whole number of at least 1, got True"),
        ({"n_seeds": 2}, "n_seeds: expected 1, as one row per prompt says nothing about more seeds, got 2"),
    ],
)
def test_plans_that_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        prompts_needed(UNIT, **{"difference": 0.1, **options})


def test_without_variance_there_is_nothing_to_plan():
    components = variance_components([1, 2, 3], [0, 1, 2], ["a", "b", "c"])
    for plan in (lambda: prompts_needed(components, 0.1), lambda: detectable_difference(components, 60)):
        with pytest.raises(ValueError, match="components: expected a variance above 0, got 0: every prompt shows"):
            plan()
    with pytest.raises(ValueError, match="n_prompts: expected a whole number of at least 2, got 1"):
        detectable_difference(UNIT, 1)


# rank agreement


def every_draw(values, n):
    """Kendall's tau by scipy of every subset of n prompts with the whole and with the rest, and who is best."""
    whole, taus, rests, best = values.mean(axis=0), [], [], []
    for rows in itertools.combinations(range(len(values)), n):
        others = [row for row in range(len(values)) if row not in rows]
        means = values[list(rows)].mean(axis=0)
        taus.append(stats.kendalltau(means, whole).statistic)
        rests.append(stats.kendalltau(means, values[others].mean(axis=0)).statistic)
        best.append(np.array_equal(means == means.max(), whole == whole.max()))
    return np.array(taus), np.array(rests), np.mean(best)


@pytest.mark.parametrize(("grid", "n"), [(0, 4), (2, 4), (3, 2), (2, 1)])
def test_agreement_with_scipy_over_every_subset(grid, n):
    rng = np.random.default_rng(10 * grid + n)
    values = rng.normal(size=(8, 5)) if not grid else rng.integers(0, grid, (8, 5)).astype(float)
    taus, rests, best = every_draw(values, n)
    result = rank_agreement(values, n, n_resamples=20_000)
    assert result.kendall_tau == pytest.approx(np.nanmean(taus), abs=0.02)
    assert result.kendall_tau_rest == pytest.approx(np.nanmean(rests), abs=0.02)
    assert result.same_best == pytest.approx(best, abs=0.02)
    assert (result.low, result.high) == pytest.approx(np.nanquantile(taus, [0.025, 0.975]), abs=0.15)
    share = result.undefined_resamples.get("kendall_tau", 0) / 20_000
    assert share == pytest.approx(np.isnan(taus).mean(), abs=0.02)
    if np.isnan(taus).any():
        assert share > 0


def test_a_single_draw_is_exactly_that_of_scipy():
    # one draw of all prompts but one; whichever it is, its tau is among the six that scipy gives
    values = np.random.default_rng(5).normal(size=(6, 7))
    taus, rests, _ = every_draw(values, 5)
    for seed in range(8):
        result = rank_agreement(values, 5, n_resamples=1, seed=seed)
        place = int(np.argmin(np.abs(taus - result.kendall_tau) + np.abs(rests - result.kendall_tau_rest)))
        assert result.kendall_tau == result.low == result.high == pytest.approx(taus[place], abs=1e-12)
        assert result.kendall_tau_rest == pytest.approx(rests[place], abs=1e-12)


def test_all_prompts_agree_with_themselves():
    result = rank_agreement(np.random.default_rng(6).normal(size=(20, 4)), 20, n_resamples=50)
    assert result == (1.0, 1.0, 1.0, 1.0, None, {})


def test_models_that_are_alike_on_new_prompts_agree_by_chance_alone():
    values = np.random.default_rng(7).normal(size=(300, 12))
    values -= values.mean(axis=0)
    values[0] += np.linspace(0, 1e-6, 12)
    result = rank_agreement(values, 150, n_resamples=400)
    assert result.kendall_tau_rest < 0


def test_equal_means_are_tied_whatever_the_rounding():
    values = np.array([[0.1, 0.3, 1.0], [0.2, 0.2, 1.0], [0.3, 0.1, 1.0]] * 4)
    exact = np.array([[1, 3, 10], [2, 2, 10], [3, 1, 10]] * 4, dtype=float)
    assert rank_agreement(values, 6, n_resamples=200) == rank_agreement(exact, 6, n_resamples=200)
    assert rank_agreement(values, 12).kendall_tau == pytest.approx(1.0)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**16), st.integers(1, 9))
def test_order_of_models_shift_and_scale_change_nothing(seed, n):
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 5, (9, 4)).astype(float)
    values[0] += [0, 10, 20, 30]
    result = rank_agreement(values, n, n_resamples=40)
    other = rank_agreement((3 * values - 7)[:, rng.permutation(4)].astype(np.float32), n, n_resamples=40)
    assert other[:4] == pytest.approx(result[:4])
    assert rank_agreement(-values, n, n_resamples=40).kendall_tau == pytest.approx(result.kendall_tau)
    assert rank_agreement(values, n, n_resamples=40) == result


def test_more_prompts_agree_better():
    rng = np.random.default_rng(8)
    values = rng.normal(size=(300, 10)) + np.linspace(0, 1, 10)
    taus = [rank_agreement(values, n, n_resamples=300).kendall_tau for n in (10, 30, 60, 150, 299)]
    assert taus == sorted(taus)


@pytest.mark.parametrize(
    ("values", "n", "message"),
    [
        (np.zeros((3, 1)), 2, r"values: expected at least two models \(columns\), got one: it has no ranking"),
        (np.zeros(3), 2, r"values: expected an array of prompts and models, got shape \(3,\)"),
        (np.zeros((0, 2)), 1, "values: expected an array of prompts and models"),
        (np.ones((3, 2)), 2, "values: expected models with different means, got equal ones: they have no ranking"),
        (np.eye(3), 4, "n_prompts: expected at most the 3 prompts of `values`, got 4"),
        (np.eye(3), 0, "n_prompts: expected a whole number of at least 1, got 0"),
        (np.array([[1.0, np.nan], [0.0, 1.0]]), 1, r"values, column 1, row 0 \(counted from 0\): expected a finite"),
        (np.array([[1.0, np.inf], [0.0, 1.0]]), 1, r"values, column 1, row 0 \(counted from 0\): expected a finite"),
    ],
)
def test_rankings_that_are_refused(values, n, message):
    with pytest.raises(ValueError, match=message):
        rank_agreement(values, n)


def test_draws_that_never_rank_are_refused():
    values = np.zeros((40, 2))
    values[0, 0] = 1
    with pytest.raises(ValueError, match="every draw ties them all"):
        rank_agreement(values, 1, n_resamples=1, seed=1)
