"""`compare_reward_models`: the figures of each model, paired tests against scipy and brute force, invariances."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.regression.linear_model import OLS
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from widespectrum.functional import compare_reward_models, reward_bias
from widespectrum.functional._comparison import delong_test

NAMES = ("r_io_po", "r_io_pa", "r_ia_po", "r_ia_pa")
OPTIONS = {"n_resamples": 200}


def two(n, seed=0):
    """The scores of two models that agree in part, and verdicts."""
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=(4, n)) + np.array([[1.0], [0.0], [-1.0], [0.5]])
    own, rival = (shared + rng.normal(size=(4, n)) * scale for scale in (0.5, 1.5))
    columns = dict(zip(NAMES, own, strict=True)) | {f"{k}_rival": v for k, v in zip(NAMES, rival, strict=True)}
    return columns | {"verdict": rng.choice([0.0, 0.5, 1.0], n, p=[0.4, 0.1, 0.5])}


def of_one(data, suffix=""):
    return {name: data[name + suffix] for name in NAMES}


def test_each_model_has_the_figures_of_reward_bias():
    data, keys = two(60), {"prompt_id": np.arange(60) % 20, "image_seed": np.arange(60)}
    result = compare_reward_models(**data, **keys, **OPTIONS)
    for suffix in ("", "_rival"):
        alone = reward_bias(**of_one(data, suffix), verdict=data["verdict"], **keys, **OPTIONS)
        for name in ("image_prior", "prior_over_match", "both_ways_accuracy", "auroc", "mcc"):
            for end in ("", "_ci_low", "_ci_high"):
                assert result[f"{name}{suffix}{end}"] == alone[name + end]
    for name in ("prior_over_match", "both_ways_accuracy", "auroc", "prompt_match_standardised"):
        assert result[f"{name}_difference"] == pytest.approx(result[name] - result[f"{name}_rival"])
        assert result[f"{name}_difference_ci_low"] <= result[f"{name}_difference"]
    assert "image_prior_difference" not in result
    assert "always_wide_accuracy_difference" not in result


def test_the_interval_of_a_difference_is_that_of_the_paired_differences():
    data = two(150)
    result = compare_reward_models(**data, n_resamples=10_000)
    right = [data[f"r_ia_pa{end}"] > data[f"r_io_pa{end}"] for end in ("", "_rival")]
    oracle = stats.bootstrap(
        (right[0].astype(float) - right[1],),
        np.mean,
        n_resamples=10_000,
        method="percentile",
        rng=np.random.default_rng(1),
    )
    margin = 0.15 * oracle.standard_error
    name = "accuracy_under_wide_spectrum_difference"
    assert result[f"{name}_ci_low"] == pytest.approx(oracle.confidence_interval.low, abs=margin)
    assert result[f"{name}_ci_high"] == pytest.approx(oracle.confidence_interval.high, abs=margin)


def test_mcnemar_and_holm_agree_with_statsmodels():
    data = two(80)
    result = compare_reward_models(**data, **OPTIONS)
    decided = data["verdict"] != 0.5
    wide = [data[f"r_ia_pa{end}"] > data[f"r_io_pa{end}"] for end in ("", "_rival")]
    original = [data[f"r_io_po{end}"] > data[f"r_ia_po{end}"] for end in ("", "_rival")]
    right = {
        "accuracy_under_original": original,
        "accuracy_under_wide_spectrum": wide,
        "both_ways_accuracy": [a & b for a, b in zip(original, wide, strict=True)],
        "accuracy": [(flags == (data["verdict"] == 1))[decided] for flags in wide],
    }
    for name, (a, b) in right.items():
        table = [[(a & b).sum(), (a & ~b).sum()], [(~a & b).sum(), (~a & ~b).sum()]]
        assert result[f"{name}_mcnemar_p"] == pytest.approx(float(mcnemar(table, exact=True).pvalue))
    tests = [*(f"{name}_mcnemar_p" for name in right), "auroc_delong_p"]
    adjusted = multipletests([result[name] for name in tests], method="holm")[1]
    assert [result[f"{name}_holm"] for name in tests] == pytest.approx(adjusted)


def test_cluster_robust_tests_agree_with_statsmodels_and_without_repeats_with_scipy():
    data = two(90)
    right = [(data[f"r_ia_pa{end}"] > data[f"r_io_pa{end}"]).astype(float) for end in ("", "_rival")]
    name = "accuracy_under_wide_spectrum_cluster_p"
    alone = compare_reward_models(**data, **OPTIONS)
    assert alone[name] == pytest.approx(stats.ttest_rel(*right).pvalue)
    prompts = np.arange(90) % 30
    result = compare_reward_models(**data, prompt_id=prompts, image_seed=np.arange(90), **OPTIONS)
    fit = OLS(right[0] - right[1], np.ones(90)).fit(cov_type="cluster", cov_kwds={"groups": prompts}, use_t=True)
    assert result[name] == pytest.approx(fit.pvalues[0])
    tests = [key for key in result if key.endswith("_cluster_p")]
    assert len(tests) == 4
    adjusted = multipletests([result[key] for key in tests], method="holm")[1]
    assert [result[f"{key}_holm"] for key in tests] == pytest.approx(adjusted)


def brute_force_delong(first, second):
    """The definition: every pair of a positive and a negative, and the covariance of the two areas."""
    wins = [
        np.array([[(a > b) + 0.5 * (a == b) for b in negative] for a in positive])
        for positive, negative in (first, second)
    ]
    by_positive, by_negative = (np.array([win.mean(axis=axis) for win in wins]) for axis in (1, 0))
    covariance = np.cov(by_positive) / by_positive.shape[1] + np.cov(by_negative) / by_negative.shape[1]
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    return 2 * stats.norm.sf(abs(wins[0].mean() - wins[1].mean()) / np.sqrt(variance))


@pytest.mark.parametrize(("m", "n", "grid"), [(20, 30, False), (7, 4, True), (60, 5, True)])
def test_delong_agrees_with_the_definition(m, n, grid):
    rng = np.random.default_rng(m)
    scores = [(rng.normal(0.8, 1, m), rng.normal(size=n)) for _ in range(2)]
    if grid:
        scores = [(np.round(positive), np.round(negative)) for positive, negative in scores]
    assert delong_test(*scores) == pytest.approx(brute_force_delong(*scores))


def test_delong_holds_its_level_where_two_models_are_equally_good():
    rng = np.random.default_rng(0)
    p = [delong_test(*((rng.normal(1, 1, 60), rng.normal(0, 1, 60)) for _ in range(2))) for _ in range(1000)]
    assert np.mean(np.array(p) < 0.05) == pytest.approx(0.05, abs=0.02)


def test_a_model_against_itself():
    data = two(40)
    twin = of_one(data) | {f"{name}_rival": data[name] for name in NAMES}
    result = compare_reward_models(**twin, verdict=data["verdict"], **OPTIONS)
    for name in ("both_ways_accuracy", "accuracy", "auroc", "prior_over_match"):
        assert result[f"{name}_difference"] == result[f"{name}_difference_ci_high"] == 0
    assert result["both_ways_accuracy_mcnemar_p"] == 1
    assert "auroc_delong_p" not in result
    assert "no variance" in result["notes"]["auroc_delong_p"]


def test_without_verdicts_the_verdict_figures_are_absent_and_named():
    data = two(40)
    del data["verdict"]
    result = compare_reward_models(**data, **OPTIONS)
    assert not {"auroc_difference", "accuracy_mcnemar_p", "auroc_delong_p"} & set(result)
    for name in ("auroc", "auroc_rival", "auroc_difference"):
        assert result["notes"][name] == "not given: it needs `verdict`"
    assert "accuracy_mcnemar_p" in result["notes"]


def test_no_difference_of_ratios_where_one_ratio_is_not_given():
    data = two(40)
    blind = data | {"r_io_pa_rival": data["r_io_po_rival"], "r_ia_pa_rival": data["r_ia_po_rival"]}
    result = compare_reward_models(**blind, **OPTIONS)
    assert "prior_over_match" in result
    assert not {"prior_over_match_rival", "prior_over_match_difference"} & set(result)
    assert "one of the two" in result["notes"]["prior_over_match_difference"]


def test_groups_are_compared_alone():
    data, group = two(60), np.repeat(["x", "y"], 30)
    result = compare_reward_models(**data, group=group, prompt_id=np.arange(60) % 30, **OPTIONS)
    alone = compare_reward_models(**{name: values[:30] for name, values in data.items()}, **OPTIONS)
    block = result["by_group"]["x"]
    assert block["auroc_delong_p"] == alone["auroc_delong_p"]
    assert block["both_ways_accuracy_difference"] == alone["both_ways_accuracy_difference"]
    assert list(result["by_group"]) == ["x", "y"]


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_swapping_the_models_flips_the_differences(seed):
    data = two(20, seed)
    swapped = data | {name: data[f"{name}_rival"] for name in NAMES} | {f"{k}_rival": data[k] for k in NAMES}
    one, other = compare_reward_models(**data, **OPTIONS), compare_reward_models(**swapped, **OPTIONS)
    for name in ("both_ways_accuracy", "accuracy", "auroc"):
        assert other[f"{name}_difference"] == pytest.approx(-one[f"{name}_difference"])
        assert other[f"{name}_difference_ci_low"] == pytest.approx(-one[f"{name}_difference_ci_high"])
    assert other["accuracy_mcnemar_p"] == pytest.approx(one["accuracy_mcnemar_p"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"r_ia_pa_rival": [1.0] * 9}, r"r_ia_pa_rival: expected 10 rows like the other columns, got 9"),
        ({"r_io_po_rival": [1.0, None] * 5}, r"r_io_po_rival, row 1 .*got None"),
        ({"r_io_pa": [float("nan")] * 10}, r"r_io_pa, row 0 .*got nan"),
        ({"verdict": [2.0] * 10}, r"verdict, row 0 .*got 2.0"),
        ({"prompt_id": ["a"] * 10}, r"row 1 .*repeats the key of row 0"),
    ],
)
def test_bad_input_names_the_row(change, message):
    with pytest.raises(ValueError, match=message):
        compare_reward_models(**two(10) | change)
