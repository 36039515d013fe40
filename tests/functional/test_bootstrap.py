"""The cluster bootstrap against scipy's, Wilson's interval against statsmodels."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from widespectrum.functional import auroc, cluster_means, reward_bias, wilson_interval
from widespectrum.functional._auroc import score_order, weighted_auroc
from widespectrum.functional._bootstrap import (
    Draws,
    bca_interval,
    cluster_sums,
    cluster_weights,
    draw,
    in_blocks,
    percentile_interval,
    ratio,
    resampling,
    with_intervals,
)


def test_weights_count_draws_of_whole_clusters():
    blocks = list(cluster_weights(7, resampling(600, 3, 0.95)))
    weights = np.concatenate(blocks)
    assert len(blocks) > 1
    assert weights.shape == (600, 7)
    assert (weights.sum(axis=1) == 7).all()
    # each cluster is drawn once on average, with the binomial's variance
    np.testing.assert_allclose(weights.mean(axis=0), 1, atol=0.2)
    assert weights.var() == pytest.approx(6 / 7, rel=0.1)


def test_weights_are_reproducible_and_more_resamples_begin_with_the_same():
    few, many = (np.concatenate(list(cluster_weights(40, resampling(n, 5, 0.95)))) for n in (300, 700))
    other = np.concatenate(list(cluster_weights(40, resampling(300, 6, 0.95))))
    np.testing.assert_array_equal(few, many[:300])
    assert (few != other).any()


def test_each_cluster_is_left_out_once_and_for_bca_alone():
    draws = draw(lambda weights: {"weights": weights}, 700, resampling(2, 0, 0.95, "bca"))
    np.testing.assert_array_equal(draws.left_out["weights"], 1 - np.eye(700))
    np.testing.assert_array_equal(draws.point["weights"], np.ones(700))
    assert draw(lambda weights: {"weights": weights}, 700, resampling(2, 0, 0.95)).left_out == {}


def test_cluster_sums_and_ratio():
    sums = cluster_sums(np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), np.array([1, 0, 1]), 3)
    np.testing.assert_array_equal(sums, [[3, 4], [6, 8], [0, 0]])
    np.testing.assert_array_equal(ratio(np.array([1.0, 0.0]), np.array([4.0, 0.0])), [0.25, np.nan])


def test_blocks_do_not_change_a_result():
    weights = np.random.default_rng(0).random((50, 4))
    whole = weights.sum(axis=1)
    np.testing.assert_array_equal(in_blocks(lambda block: block.sum(axis=1), weights, 1 << 17), whole)


@pytest.mark.parametrize("seed", [0, 1])
def test_interval_of_a_mean_agrees_with_scipy(seed):
    rng = np.random.default_rng(seed)
    r_io, r_ia = rng.normal(5, 2, 200), rng.gumbel(3, 2, 200)
    result = reward_bias(r_io, r_io, r_ia, r_ia, n_resamples=20_000, seed=seed)
    oracle = stats.bootstrap(
        (r_ia - r_io,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(seed + 100)
    )
    # the ends of 20,000 resamples scatter by about 2 % of the standard error
    margin = 0.1 * oracle.standard_error
    assert result["image_prior_ci_low"] == pytest.approx(oracle.confidence_interval.low, abs=margin)
    assert result["image_prior_ci_high"] == pytest.approx(oracle.confidence_interval.high, abs=margin)


def test_interval_of_a_standardised_mean_agrees_with_scipy():
    rng = np.random.default_rng(4)
    r_io, r_ia = rng.normal(5, 2, 150), rng.normal(3, 2, 150)
    result = reward_bias(r_io, r_io, r_ia, r_ia, n_resamples=20_000)
    oracle = stats.bootstrap(
        (r_io, r_ia),
        lambda a, b, axis: (b - a).mean(axis=axis) / a.std(axis=axis, ddof=1),
        n_resamples=20_000,
        method="percentile",
        paired=True,
        vectorized=True,
        rng=np.random.default_rng(9),
    )
    margin = 0.1 * oracle.standard_error
    assert result["image_prior_standardised_ci_low"] == pytest.approx(oracle.confidence_interval.low, abs=margin)
    assert result["image_prior_standardised_ci_high"] == pytest.approx(oracle.confidence_interval.high, abs=margin)


def test_cluster_means_are_those_of_the_metrics():
    rng = np.random.default_rng(6)
    values, prompt, seed = rng.normal(size=(60, 2)), np.arange(60) % 20, np.arange(60)
    means = cluster_means(values, prompt, n_resamples=300, seed=4, confidence_level=0.9)
    np.testing.assert_allclose(means.mean, values.mean(axis=0))
    for k, changes in enumerate(values.T):
        zero, options = np.zeros(60), {"n_resamples": 300, "seed": 4, "confidence_level": 0.9}
        result = reward_bias(zero, zero, changes, changes, prompt_id=prompt, image_seed=seed, **options)
        expected = result["image_prior_ci_low"], result["image_prior_ci_high"]
        assert (means.low[k], means.high[k]) == pytest.approx(expected)


def test_cluster_means_of_one_cluster_have_no_interval():
    means = cluster_means(np.array([[1.0], [3.0]]), ["a", "a"])
    assert (means.mean[0], np.isnan(means.low[0]), np.isnan(means.high[0])) == (2, True, True)


@pytest.mark.parametrize(
    ("values", "clusters", "sentence"),
    [
        (np.zeros(3), ["a", "b", "c"], r"values: .*rows and columns, got shape \(3,\)"),
        (np.zeros((0, 2)), [], r"got shape \(0, 2\)"),
        (np.array([[1.0, 2.0], [1.0, np.nan]]), ["a", "b"], r"values, column 1, row 1 .*got nan"),
        (np.zeros((2, 1)), ["a"], r"clusters: expected 2 rows"),
    ],
)
def test_cluster_means_names_what_is_wrong(values, clusters, sentence):
    with pytest.raises(ValueError, match=sentence):
        cluster_means(values, clusters)


def test_clusters_widen_the_interval_of_correlated_rows():
    rng = np.random.default_rng(2)
    prompt = np.repeat(np.arange(60), 10)
    r_ia = rng.normal(size=60)[prompt] + 0.1 * rng.normal(size=600)
    zero, seed = np.zeros(600), np.tile(np.arange(10), 60)
    clustered = reward_bias(zero, zero, r_ia, r_ia, prompt_id=prompt, image_seed=seed)
    plain = reward_bias(zero, zero, r_ia, r_ia)
    width = {name: r["image_prior_ci_high"] - r["image_prior_ci_low"] for name, r in (("c", clustered), ("p", plain))}
    # ten near-copies per prompt: the plain interval is narrower by about the square root of ten
    assert width["c"] / width["p"] == pytest.approx(np.sqrt(10), rel=0.15)


def test_percentile_interval_holds_its_estimate():
    replicates = np.linspace(0.0, 0.9, 101)
    assert percentile_interval(0.95, replicates, 0.9) == (pytest.approx(0.045), 0.95)
    assert percentile_interval(0.45, replicates, 0.9) == (pytest.approx(0.045), pytest.approx(0.855))


def test_undefined_resamples_are_counted_and_left_out():
    replicates = {"a": np.array([1.0, np.nan, 3.0, np.nan]), "b": np.full(4, np.nan), "c": np.arange(4.0)}
    replicates["d"] = replicates["b"]
    draws = Draws({"a": 2.0, "b": np.nan, "c": 1.0, "d": 1.0}, replicates, {})
    result = with_intervals(draws, {"a": 3, "b": 3, "c": 1, "d": 2}, {"b": "why"}, resampling(4, 0, 0.5))
    assert result["undefined_resamples"] == {"a": 2}
    assert (result["a_ci_low"], result["a_ci_high"]) == (1.5, 2.5)
    assert result["notes"]["b"] == "why"
    assert "b" not in result
    assert (result["c"], result["d"]) == (1.0, 1.0)
    assert not {"c_ci_low", "d_ci_low"} & set(result)
    assert "at least two prompts" in result["notes"]["c_ci"]
    assert "undefined in every resample" in result["notes"]["d_ci"]


def mean_of(values, clusters):
    """A mean as a function of cluster weights, and of a list of clusters."""
    sums = cluster_sums(np.column_stack([values, np.ones(len(values))]), clusters, clusters.max() + 1)

    def of_weights(weights):
        totals = weights @ sums
        return {"x": ratio(totals[:, :1], totals[:, 1:])}

    return of_weights, lambda chosen: sums[chosen, 0].sum() / sums[chosen, 1].sum()


def auroc_of(positive, negative):
    """The same for AUROC; every cluster has one positive and one negative."""
    order = score_order(positive, negative, np.arange(len(positive)), np.arange(len(positive)))
    wins = (positive[:, None] > negative) + 0.5 * (positive[:, None] == negative)
    by_pairs = lambda chosen: wins[np.ix_(chosen, chosen)].mean()  # noqa: E731
    return lambda weights: {"x": weighted_auroc(order, weights)[:, None]}, by_pairs


def bca_cases():
    rng = np.random.default_rng(3)
    single, sizes = np.arange(40), np.repeat(np.arange(25), rng.integers(1, 9, 25))
    yield "skewed mean", 40, mean_of(rng.exponential(size=40), single)
    yield "float32", 40, mean_of(rng.gumbel(size=40).astype(np.float32), single)
    yield "ratio of sums over unequal clusters", 25, mean_of(rng.lognormal(size=len(sizes)) + 0.3 * sizes, sizes)
    yield "proportion, replicates tied with it", 40, mean_of((rng.random(40) < 0.1).astype(float), single)
    yield "one cluster far out", 40, mean_of(np.append(rng.normal(size=39), 50.0), single)
    yield "two clusters", 2, mean_of(np.array([1.0, 4.0]), np.arange(2))
    yield "AUROC", 40, auroc_of(rng.normal(1.2, 1, 40), rng.normal(size=40))


@pytest.mark.parametrize(("n_clusters", "pair"), [pytest.param(n, pair, id=name) for name, n, pair in bca_cases()])
@pytest.mark.parametrize("level", [0.8, 0.95])
def test_bca_is_that_of_scipy_on_the_same_replicates(n_clusters, pair, level):
    statistic, of_clusters = pair
    draws = draw(statistic, n_clusters, resampling(1500, 8, level, "bca")).of(0)
    # scipy leaves out one cluster in turn where its data are the clusters' numbers
    oracle = stats.bootstrap(
        (np.arange(n_clusters),),
        of_clusters,
        n_resamples=0,
        bootstrap_result=SimpleNamespace(bootstrap_distribution=draws.replicates["x"]),
        method="BCa",
        confidence_level=level,
        vectorized=False,
    ).confidence_interval
    ends = bca_interval(float(draws.point["x"]), draws.replicates["x"], draws.left_out["x"], level)
    assert ends == pytest.approx((oracle.low, oracle.high), rel=1e-9)
    if n_clusters > 2:
        assert ends != pytest.approx(percentile_interval(float(draws.point["x"]), draws.replicates["x"], level))


@pytest.mark.parametrize("interval", ["bca", "percentile"])
def test_intervals_of_reward_bias_are_those_of_scipy_resampling_prompts(interval):
    rng = np.random.default_rng(12)
    prompt, seed = np.arange(120) // 3, np.arange(120) % 3
    shared = rng.exponential(2, 40)[prompt]
    r_io, r_ia = rng.normal(5, 1, 120) - shared, rng.normal(4, 1, 120) + shared
    match = rng.normal(1, 1, 120) + rng.exponential(1, 40)[prompt]
    result = reward_bias(
        r_io, r_io, r_ia - match, r_ia + match, prompt_id=prompt, image_seed=seed, n_resamples=20_000, interval=interval
    )
    by_prompt = (r_ia - r_io).reshape(40, 3), match.reshape(40, 3)
    oracle = stats.bootstrap(
        (np.arange(40),),
        lambda chosen, axis: -by_prompt[0][chosen].mean(axis=(-1, -2)) / by_prompt[1][chosen].mean(axis=(-1, -2)),
        n_resamples=20_000,
        method=interval,
        rng=np.random.default_rng(31),
    )
    margin = 0.1 * oracle.standard_error
    assert result["prior_over_match_ci_low"] == pytest.approx(oracle.confidence_interval.low, abs=margin)
    assert result["prior_over_match_ci_high"] == pytest.approx(oracle.confidence_interval.high, abs=margin)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1.0, -1.0, 1e-130, 1e130]), st.booleans())
def test_bca_follows_a_change_of_scale_and_sign(seed, scale, discrete):
    rng = np.random.default_rng(seed)
    values = rng.integers(1, 5, 12).astype(float) if discrete else rng.exponential(size=12)
    draws = draw(mean_of(values, np.arange(12))[0], 12, resampling(400, seed, 0.9, "bca")).of(0)
    estimate, replicates, left_out = float(draws.point["x"]), draws.replicates["x"], draws.left_out["x"]
    ends = bca_interval(estimate, replicates, left_out, 0.9)
    scaled = bca_interval(scale * estimate, scale * replicates, scale * left_out, 0.9)
    assert scaled == pytest.approx(tuple(sorted(scale * end for end in ends)), rel=1e-9)


@pytest.mark.parametrize("value", [0.0, 0.1, -1e9 / 3])
def test_bca_of_constant_values_has_no_width(value):
    draws = draw(mean_of(np.full(37, value), np.arange(37))[0], 37, resampling(300, 0, 0.95, "bca")).of(0)
    # sums of thirds and tenths differ in their last digits, and that is no bias
    assert bca_interval(value, draws.replicates["x"], draws.left_out["x"], 0.95) == pytest.approx((value, value))


def test_replicates_that_differ_by_rounding_alone_are_ties():
    exact = np.repeat([0.1, 0.2, 0.3, 0.4], [5, 40, 30, 25])
    rounded = exact * (1 + 1e-15 * np.where(np.arange(100) % 3, 1, -1))
    left_out = np.array([0.1, 0.25, 0.3, 0.9])
    assert bca_interval(0.2, rounded, left_out, 0.9) == pytest.approx(bca_interval(0.2, exact, left_out, 0.9))


@pytest.mark.parametrize(
    ("estimate", "replicates", "left_out"),
    [
        pytest.param(0.0, np.arange(1.0, 9), np.arange(4.0), id="all replicates above"),
        pytest.param(9.0, np.arange(1.0, 9), np.arange(4.0), id="all replicates below"),
        pytest.param(4.0, np.arange(1.0, 9), np.array([3.0, np.nan, 5.0]), id="undefined without a cluster"),
        # one cluster in 500 holds all the influence, and one replicate in 10,000 lies above the estimate
        pytest.param(9_998.5, np.arange(1e4), np.append(np.zeros(499), -1.0), id="past the pole of the correction"),
    ],
)
def test_bca_is_absent_where_its_correction_is_undefined(estimate, replicates, left_out):
    assert bca_interval(estimate, replicates, left_out, 0.999) is None
    draws = Draws({"x": estimate}, {"x": replicates}, {"x": left_out})
    result = with_intervals(draws, {"x": 4}, {}, resampling(8, 0, 0.999, "bca"))
    assert result["x"] == estimate
    assert "x_ci_low" not in result
    assert result["notes"] == {
        "x_ci": "no BCa interval: all resamples lie on one side of the estimate, or one prompt alone decides it"
    }


def test_bca_leaves_undefined_resamples_out_and_counts_them():
    defined, left_out = np.random.default_rng(0).normal(size=200), np.random.default_rng(1).exponential(size=9)
    replicates = np.insert(defined, [0, 50, 200], np.nan)
    draws = Draws({"x": 0.1}, {"x": replicates}, {"x": left_out})
    result = with_intervals(draws, {"x": 9}, {}, resampling(203, 0, 0.9, "bca"))
    assert result["undefined_resamples"] == {"x": 3}
    assert (result["x_ci_low"], result["x_ci_high"]) == bca_interval(0.1, defined, left_out, 0.9)


@pytest.mark.parametrize("interval", ["bca", "percentile"])
def test_one_prompt_has_no_interval(interval):
    result = reward_bias([4, 5], [3, 4], [1, 2], [4, 3], prompt_id=["a", "a"], image_seed=[0, 1], interval=interval)
    assert not [name for name in result if "_ci_" in name]
    assert "at least two prompts" in result["notes"]["image_prior_ci"]


def test_bca_of_a_group_leaves_out_every_prompt_the_others_have_too():
    rng = np.random.default_rng(5)
    rewards, group = rng.exponential(size=(4, 60)), np.repeat(["a", "b"], 30)
    result = reward_bias(*rewards, prompt_id=np.arange(60), group=group, interval="bca", n_resamples=500)
    change = 0.5 * (rewards[2] + rewards[3] - rewards[0] - rewards[1])
    draws = draw(mean_of_some(change, group == "a"), 60, resampling(500, 0, 0.95, "bca")).of(0)
    assert len(draws.left_out["x"]) == 60
    ends = bca_interval(float(draws.point["x"]), draws.replicates["x"], draws.left_out["x"], 0.95)
    assert (result["by_group"]["a"]["image_prior_ci_low"], result["by_group"]["a"]["image_prior_ci_high"]) == (
        pytest.approx(ends)
    )


def mean_of_some(values, flags):
    return lambda weights: {"x": ((weights * flags) @ values / (weights @ flags.astype(float)))[:, None]}


def test_an_unknown_interval_is_an_error():
    with pytest.raises(ValueError, match="interval: expected one of percentile, bca, got 'basic'"):
        resampling(10, 0, 0.95, "basic")


@pytest.mark.parametrize(("successes", "n"), [(0, 1), (1, 1), (0, 300), (300, 300), (7, 30), (1, 2), (28, 2246)])
@pytest.mark.parametrize("level", [0.8, 0.95, 0.99])
def test_wilson_agrees_with_statsmodels(successes, n, level):
    oracle = proportion_confint(successes, n, alpha=1 - level, method="wilson")
    np.testing.assert_allclose(wilson_interval(successes, n, level), oracle, atol=1e-12)


def test_wilson_refuses_impossible_counts():
    with pytest.raises(ValueError, match="successes=3, n=2"):
        wilson_interval(3, 2)


def test_helpers_take_lists_and_refuse_what_they_cannot_use():
    assert cluster_means([[1.0, 2.0], [3.0, 4.0]], ["a", "b"]).mean.tolist() == [2.0, 3.0]
    with pytest.raises(ValueError, match=r"confidence_level: .*got 2.0"):
        wilson_interval(1, 2, 2.0)
    with pytest.raises(ValueError, match=r"positive, row 0 .*got nan"):
        auroc(np.array([np.nan, 1.0]), np.array([0.0, 2.0]))
