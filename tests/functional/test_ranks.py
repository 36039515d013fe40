"""Ranks against scipy, statsmodels, exact sign flips and simulated truth."""

import itertools

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.linalg import hadamard
from statsmodels.stats.multitest import multipletests

from widespectrum.functional import Place, pairwise_p, rank_models


def p_of(first, second, clusters):
    """The p-value of one pair: alone in its family, so not corrected."""
    p = pairwise_p({"first": first, "second": second}, clusters)
    assert p[0, 1] == p[1, 0]
    assert p[0, 0] == p[1, 1] == 1
    return p[0, 1]


def sample(seed, n_models=5, n_prompts=12, n_seeds=3, spread=0.5):
    """Continuous values with a common effect of each prompt, models further and further apart."""
    rng = np.random.default_rng(seed)
    clusters = np.repeat(np.arange(n_prompts), n_seeds)
    prompt = rng.normal(0, 2, n_prompts)[clusters]
    own = rng.normal(0, 0.5, (n_models, n_prompts))[:, clusters]
    noise = rng.normal(0, 0.5, (n_models, len(clusters)))
    return {f"m{k}": prompt + own[k] + noise[k] + spread * k for k in range(n_models)}, clusters


@pytest.mark.parametrize("n", [2, 3, 20, 300])
@pytest.mark.parametrize("kind", ["normal", "binary"])
def test_with_one_row_per_cluster_it_is_the_paired_t_test(n, kind):
    rng = np.random.default_rng(n)
    first, second = rng.normal(0.1, 1, (2, n)) if kind == "normal" else rng.integers(0, 2, (2, n)).astype(float)
    changed = np.count_nonzero(first - second)
    least = 2.0 ** (1 - changed)
    expected = max(stats.ttest_rel(first, second).pvalue, least) if changed else 1.0
    assert p_of(first, second, np.arange(n)) == pytest.approx(min(1, expected), rel=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_with_clusters_it_is_the_robust_regression_of_statsmodels(seed):
    rng = np.random.default_rng(seed)
    clusters = rng.integers(0, 15, 80)  # heavily unbalanced, some empty
    clusters[:30] = 3
    first, second = rng.normal(0, 1, (2, 80)) + rng.normal(0, 1, 15)[clusters]
    fit = sm.OLS(first - second, np.ones(80)).fit(cov_type="cluster", cov_kwds={"groups": clusters}, use_t=True)
    assert p_of(first, second, clusters) == pytest.approx(fit.pvalues[0], rel=1e-9)


@pytest.mark.parametrize(("wins", "draws"), [(1, 0), (2, 0), (4, 3), (7, 1), (9, 200), (3, 5000)])
def test_no_p_is_below_the_least_of_all_sign_flips(wins, draws):
    difference = np.repeat([1.0, 0.0], [wins, draws])
    flips = np.array(list(itertools.product([-1, 1], repeat=wins)))
    exact = np.mean(np.abs(flips.sum(axis=1)) >= wins)
    p = p_of(difference, np.zeros_like(difference), np.arange(len(difference)))
    assert p >= exact
    if draws < 5:
        assert p == exact  # the t-test alone would say 0, or nearly


def test_equal_models_constant_differences_and_single_clusters():
    values = np.random.default_rng(0).normal(size=10)
    each = np.arange(10)
    assert p_of(values, values, each) == 1
    assert p_of(values, values + 0.25, each) == 2.0**-9  # no variance: the floor
    assert p_of(values, values + 0.25, np.zeros(10)) == 1
    assert p_of([3.0], [1.0], ["only"]) == 1
    # inside each cluster the differences cancel, but for rounding
    first, second = [0.1, 0.2, 0.0, 0.2, 0.1, 0.0], [0.0, 0.0, 0.3, 0.0, 0.0, 0.3]
    assert p_of(first, second, list("aaabbb")) == 1


def test_only_common_rows_are_compared():
    values, clusters = sample(1, n_models=3)
    gappy = {name: column.copy().astype(object) for name, column in values.items()}
    rng = np.random.default_rng(2)
    for column in gappy.values():
        column[rng.random(len(column)) < 0.2] = None
    p = pairwise_p(gappy, clusters)
    raw = []
    for a, b in itertools.combinations(gappy.values(), 2):
        both = np.array([x is not None and y is not None for x, y in zip(a, b, strict=True)])
        raw.append(p_of(a[both].astype(float), b[both].astype(float), clusters[both]))
    np.testing.assert_allclose(p[np.triu_indices(3, 1)], multipletests(raw, method="holm")[1], rtol=1e-12)
    for place in rank_models(gappy, clusters):
        own = [value for value in gappy[place.name] if value is not None]
        assert (place.mean, place.n) == (pytest.approx(np.mean(own)), len(own))


def test_models_without_a_common_row_cannot_be_told_apart():
    places = rank_models({"a": [9, None, 9, None], "b": [None, 1, None, 1]}, [1, 2, 3, 4])
    assert [tuple(place) for place in places] == [("a", 9, 2, 1, 1, 2), ("b", 1, 2, 1, 1, 2)]


def by_hand(values, p, alpha):
    """Places from the definitions, with plain loops over complete rows."""
    order = sorted(values, key=lambda name: (-np.mean(values[name]), name))
    number = {name: k for k, name in enumerate(values)}
    told = {(a, b): p[number[a], number[b]] < alpha for a in values for b in values}
    places, leader, group = [], None, 0
    for name in order:
        if leader is None or told[leader, name]:
            leader, group = name, group + 1
        above = sum(told[name, other] for other in order[: order.index(name)])
        below = sum(told[name, other] for other in order[order.index(name) :])
        places.append((name, group, 1 + above, len(order) - below))
    return places


@pytest.mark.parametrize("seed", range(6))
def test_places_follow_from_the_p_values(seed):
    values, clusters = sample(seed, n_models=7, spread=0.3)
    p = pairwise_p(values, clusters)
    raw = [p_of(a, b, clusters) for a, b in itertools.combinations(values.values(), 2)]
    np.testing.assert_allclose(p[np.triu_indices(7, 1)], multipletests(raw, method="holm")[1], rtol=1e-12)
    assert 1 < rank_models(values, clusters)[-1].tie_group < 7
    for level in (0.5, 0.95, 0.999):
        places = rank_models(values, clusters, confidence_level=level)
        assert [(q.name, q.tie_group, q.rank_low, q.rank_high) for q in places] == by_hand(values, p, 1 - level)


def test_a_tie_group_is_measured_from_its_best_alone():
    """b ties with a, and c with b; c can be told from a, so it starts the second group, and d, which ties with c."""
    noise = np.tile(hadamard(8)[1:5], 8)
    values = {name: noise[k] - 0.35 * k for k, name in enumerate("abcd")}
    p = pairwise_p(values, np.arange(64)) < 0.05
    assert not p[0, 1] and not p[1, 2] and not p[2, 3] and p[0, 2] and p[1, 3]
    places = rank_models(values, np.arange(64))
    assert [tuple(place[:1] + place[3:]) for place in places] == [
        ("a", 1, 1, 2),
        ("b", 1, 1, 3),
        ("c", 2, 2, 4),
        ("d", 2, 3, 4),
    ]


def test_one_model_and_exact_ties():
    assert rank_models({"only": [1, None, 0]}, [1, 1, 2]) == [Place("only", 0.5, 2, 1, 1, 1)]
    assert pairwise_p({"only": [1]}, [1]).tolist() == [[1.0]]
    places = rank_models({"b": [1, 0], "c": [0, 1], "a": [1, 0]}, ["p", "q"])
    assert [place.name for place in places] == ["a", "b", "c"]
    assert {place[3:] for place in places} == {(1, 1, 3)}


def test_lower_is_better():
    values, clusters = sample(3)
    negated = {name: -column for name, column in values.items()}
    places = rank_models(values, clusters, higher_is_better=False)
    assert [place._replace(mean=-place.mean) for place in places] == rank_models(negated, clusters)
    assert [place.mean for place in places] == sorted(place.mean for place in places)


def test_lists_and_arrays_of_any_kind_give_the_same():
    rng = np.random.default_rng(5)
    bits = {name: rng.random(60) < share for name, share in (("a", 0.9), ("b", 0.5), ("c", 0.4))}
    clusters = np.arange(60) // 2
    expected = rank_models({name: column.astype(float) for name, column in bits.items()}, clusters)
    assert expected[0].tie_group != expected[1].tie_group
    for kind in (bool, np.int8, np.float32, object):
        assert rank_models({name: column.astype(kind) for name, column in bits.items()}, clusters) == expected
    lists = {name: column.tolist() for name, column in bits.items()}
    assert rank_models(lists, [f"prompt {k}" for k in clusters]) == expected


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 5), st.integers(2, 8), st.booleans())
def test_invariances(seed, n_models, n_prompts, binary):
    values, clusters = sample(seed, n_models, n_prompts)
    if binary:
        values = {name: (column > 1).astype(float) for name, column in values.items()}
    rng = np.random.default_rng(seed)
    p, places = pairwise_p(values, clusters), [place[3:] for place in rank_models(values, clusters)]
    # of rows, with other names of the prompts
    order = rng.permutation(len(clusters))
    shuffled = {name: column[order] for name, column in values.items()}
    np.testing.assert_allclose(pairwise_p(shuffled, [f"x{c}" for c in clusters[order]]), p, rtol=1e-6)
    # every row twice: nothing was learned
    doubled = {name: np.tile(column, 2) for name, column in values.items()}
    np.testing.assert_allclose(pairwise_p(doubled, np.tile(clusters, 2)), p, rtol=1e-6)
    # a change of scale, and a shift of each row
    scaled = {name: 4 * column + 0.5 * clusters for name, column in values.items()}
    np.testing.assert_allclose(pairwise_p(scaled, clusters), p, rtol=1e-6)
    # the order in which the models are given
    turned = dict(reversed(values.items()))
    np.testing.assert_allclose(pairwise_p(turned, clusters), p[::-1, ::-1], rtol=1e-6)
    assert [place[3:] for place in rank_models(turned, clusters)] == places
    for position, (_, low, high) in enumerate(places, start=1):
        assert 1 <= low <= position <= high <= n_models
    groups = [group for group, _, _ in places]
    assert groups[0] == 1 and set(np.diff(groups)) <= {0, 1}


def holds_all(places, truth):
    """Whether every interval holds its model's true ranks; equals share theirs."""
    found = {place.name: place for place in places}
    return all(
        found[f"m{k}"].rank_low <= 1 + sum(t > own for t in truth)
        and len(truth) - sum(t < own for t in truth) <= found[f"m{k}"].rank_high
        for k, own in enumerate(truth)
    )


@pytest.mark.parametrize("truth", [(0.5,) * 6, (0.9, 0.7, 0.7, 0.5, 0.5, 0.3)])
def test_rank_intervals_hold_together_in_clustered_data(truth):
    """In 1,000 studies of 60 prompts with three seeds each; taking the rows for independent falls far short."""
    rng = np.random.default_rng(7)
    clusters, rows = np.repeat(np.arange(60), 3), np.arange(180)
    held = np.zeros(2)
    for _ in range(1000):
        # a model's chance of success varies over the prompts, with its true rate as the mean
        rates = [rng.beta(t, 1 - t, 60) for t in truth]
        values = {f"m{k}": rng.random(180) < rate[clusters] for k, rate in enumerate(rates)}
        held += [holds_all(rank_models(values, unit), truth) for unit in (clusters, rows)]
    assert held[0] >= 940
    assert held[1] < 900


GOOD = {"a": [1.0, 2.0], "b": [2.0, 1.0]}


@pytest.mark.parametrize(
    ("values", "clusters", "message"),
    [
        ({}, [1, 2], "values: expected the numbers of at least one model by its name, got none"),
        ([[1, 2]], [1, 2], "values: expected the numbers of at least one model"),
        (GOOD, [], "clusters: expected at least one row, got none"),
        (GOOD, [1], r"values of 'a': expected 1 rows like the clusters, got 2"),
        (GOOD | {"b": [1]}, [1, 2], r"values of 'b': expected 2 rows like the clusters, got 1"),
        (GOOD | {"b": [1, float("nan")]}, [1, 2], r"values of 'b', row 1 \(counted from 0\): expected a finite number"),
        (GOOD | {"b": np.array([np.inf, 1])}, [1, 2], r"values of 'b', row 0 .* got inf"),
        (GOOD | {"b": ["x", 1]}, [1, 2], r"values of 'b', row 0 .* got 'x'"),
        (GOOD | {"b": 5}, [1, 2], "values of 'b': expected one value per row, got 5"),
        (GOOD | {"b": [None, None]}, [1, 2], "values of 'b': expected a number in at least one row, got none"),
        (GOOD, [1, None], r"clusters, row 1 \(counted from 0\): expected a non-empty name or a number, got None"),
    ],
)
def test_bad_input_is_named_in_one_sentence(values, clusters, message):
    for function in (rank_models, pairwise_p):
        with pytest.raises(ValueError, match=message) as caught:
            function(values, clusters)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("level", [0, 1, 95, "0.95", float("nan")])
def test_the_level_is_a_share(level):
    with pytest.raises(ValueError, match="confidence_level: expected a number between 0 and 1"):
        rank_models(GOOD, [1, 2], confidence_level=level)
