"""AUROC against scikit-learn, DeLong's variance against its definition as sums over pairs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import roc_auc_score

from widespectrum.functional import auroc, delong_interval
from widespectrum.functional._auroc import score_order, weighted_auroc

scores = st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=12).map(np.array)


def sklearn_auroc(positive, negative, weights=None):
    truth = np.repeat([1, 0], [len(positive), len(negative)])
    return roc_auc_score(truth, np.concatenate([positive, negative]), sample_weight=weights)


@given(scores, scores)
def test_auroc_agrees_with_scikit_learn_over_ties(positive, negative):
    assert auroc(positive, negative) == pytest.approx(sklearn_auroc(positive, negative), abs=1e-12)
    assert auroc(positive, negative) == pytest.approx(1 - auroc(negative, positive), abs=1e-12)


@settings(max_examples=50)
@given(scores, scores, st.integers(0, 2**32 - 1))
def test_weighted_auroc_agrees_with_scikit_learn(positive, negative, seed):
    rng = np.random.default_rng(seed)
    clusters = rng.integers(5, size=len(positive) + len(negative))
    weights = rng.integers(1, 4, size=(3, 5)).astype(float)
    order = score_order(positive, negative, clusters[: len(positive)], clusters[len(positive) :])
    expected = [sklearn_auroc(positive, negative, row[clusters]) for row in weights]
    np.testing.assert_allclose(weighted_auroc(order, weights), expected, atol=1e-12)


def test_weighted_auroc_is_undefined_where_a_class_is_not_drawn():
    order = score_order(np.array([1.0]), np.array([0.0]), np.array([0]), np.array([1]))
    np.testing.assert_array_equal(weighted_auroc(order, np.array([[2.0, 0.0], [1.0, 1.0]])), [np.nan, 1.0])


def pairwise_delong(positive, negative, level):
    """The interval with the variance written as in the paper, over the matrix of all pairs."""
    psi = (positive[:, None] > negative) + 0.5 * (positive[:, None] == negative)
    area = psi.mean()
    over_positive = ((psi.mean(axis=1) - area) ** 2).sum() / (len(positive) - 1)
    over_negative = ((psi.mean(axis=0) - area) ** 2).sum() / (len(negative) - 1)
    error = np.sqrt(over_positive / len(positive) + over_negative / len(negative))
    return np.clip(stats.norm.interval(level, area, error), 0, 1)


@pytest.mark.parametrize(("m", "n"), [(2, 3), (30, 25), (500, 6)])
def test_delong_agrees_with_its_definition(m, n):
    rng = np.random.default_rng(m)
    positive, negative = rng.integers(0, 9, m) + 1.0, rng.integers(0, 9, n).astype(float)
    np.testing.assert_allclose(
        delong_interval(positive, negative, 0.9), pairwise_delong(positive, negative, 0.9), atol=1e-12
    )


def test_delong_needs_two_of_each_class_and_some_variance():
    assert delong_interval(np.array([1.0]), np.array([0.0, 2.0])) is None
    assert delong_interval(np.array([3.0, 4.0]), np.array([0.0, 2.0])) is None


def test_auroc_of_one_class_is_an_error():
    with pytest.raises(ValueError, match="1 positives and 0 negatives"):
        auroc(np.array([1.0]), np.empty(0))
