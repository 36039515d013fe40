"""The cluster bootstrap against scipy's, Wilson's interval against statsmodels."""

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from widespectrum.functional import cluster_means, reward_bias, wilson_interval
from widespectrum.functional._bootstrap import (
    cluster_sums,
    cluster_weights,
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
    result = with_intervals(
        {"a": 2.0, "b": np.nan, "c": 1.0}, replicates, {"a": 3, "b": 3, "c": 1}, {"b": "why"}, resampling(4, 0, 0.5)
    )
    assert result["undefined_resamples"] == {"a": 2}
    assert (result["a_ci_low"], result["a_ci_high"]) == (1.5, 2.5)
    assert result["notes"]["b"] == "why"
    assert "b" not in result
    assert result["c"] == 1.0
    assert "c_ci_low" not in result
    assert "at least two prompts" in result["notes"]["c_ci"]


@pytest.mark.parametrize(("successes", "n"), [(0, 1), (1, 1), (0, 300), (300, 300), (7, 30), (1, 2), (28, 2246)])
@pytest.mark.parametrize("level", [0.8, 0.95, 0.99])
def test_wilson_agrees_with_statsmodels(successes, n, level):
    oracle = proportion_confint(successes, n, alpha=1 - level, method="wilson")
    np.testing.assert_allclose(wilson_interval(successes, n, level), oracle, atol=1e-12)


def test_wilson_refuses_impossible_counts():
    with pytest.raises(ValueError, match="successes=3, n=2"):
        wilson_interval(3, 2)
