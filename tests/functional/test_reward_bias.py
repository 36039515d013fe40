"""`reward_bias`: known controls, scikit-learn as oracle, invariances, undefined cases."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics

from widespectrum.functional import delong_interval, prior_and_match, reward_bias

NAMES = ("r_io_po", "r_io_pa", "r_ia_po", "r_ia_pa")
ESTIMATES = [
    "image_prior",
    "prompt_match",
    "prior_over_match",
    "match_positive_rate",
    "accuracy_under_original",
    "accuracy_under_wide_spectrum",
    "both_ways_accuracy",
    "accuracy",
    "f1",
    "f1_weighted",
    "auroc",
    "balanced_accuracy",
    "mcc",
    "always_wide_accuracy",
    "image_prior_standardised",
    "prompt_match_standardised",
]
COUNTS = ("n_positive", "n_negative", "n_tie")
PROPORTIONS = [
    "match_positive_rate",
    "accuracy_under_original",
    "accuracy_under_wide_spectrum",
    "both_ways_accuracy",
    "accuracy",
    "always_wide_accuracy",
]


def pairs(n, seed=0, **extra):
    """Rewards with a prior against I_a, a match with the prompt, and all three verdicts."""
    rng = np.random.default_rng(seed)
    columns = dict(zip(NAMES, rng.normal(size=(4, n)) + np.array([[1.0], [0.0], [-1.0], [0.5]]), strict=True))
    return columns | {"verdict": rng.choice([0.0, 0.5, 1.0], n, p=[0.3, 0.2, 0.5]), "n_resamples": 100} | extra


def test_public_names_are_all_there_and_no_others():
    result = reward_bias(**pairs(60), prompt_id=np.arange(60) % 20, group=np.arange(60) // 20)
    expected = {f"{name}{end}" for name in ESTIMATES for end in ("", "_ci_low", "_ci_high")}
    expected |= {f"{name}_wilson_{end}" for name in PROPORTIONS for end in ("low", "high")}
    expected |= {"auroc_delong_low", "auroc_delong_high", "n_pairs", "n_prompts", "n_positive", "n_negative", "n_tie"}
    expected |= {"notes", "undefined_resamples", "cautions"}
    assert set(result) == expected | {"coverage", "by_group", "macro", "verified"}
    assert result["notes"] == {}
    assert (result["n_pairs"], result["n_prompts"]) == (60, 20)
    assert list(result["by_group"]) == [0, 1, 2]
    assert set(result["by_group"][1]) >= {"image_prior", "auroc_ci_low", "accuracy_wilson_low", "n_pairs", "notes"}
    assert set(result["macro"]) >= {"image_prior_ci_low", "prior_over_match", "auroc", "n_groups"}


def test_prior_and_match_make_up_the_differences_and_have_the_metrics_means():
    cells = np.random.default_rng(5).normal(size=(4, 40))
    prior, match = prior_and_match(*cells)
    io_po, io_pa, ia_po, ia_pa = cells
    np.testing.assert_allclose(prior + match, ia_pa - io_pa)
    np.testing.assert_allclose(prior - match, ia_po - io_po)
    result = reward_bias(*cells, n_resamples=5)
    assert (result["image_prior"], result["prompt_match"]) == pytest.approx((prior.mean(), match.mean()))
    with pytest.raises(ValueError, match=r"r_ia_po, row 1 .*got None"):
        prior_and_match([1.0, 2.0], [1.0, 2.0], [1.0, None], [1.0, 2.0])


def test_a_prompt_blind_model_has_no_match_and_is_never_right_both_ways():
    rng = np.random.default_rng(1)
    r_io, r_ia = rng.normal(0.1, 1, 500) * 1e3, rng.normal(0, 1, 500)
    result = reward_bias(r_io, r_io, r_ia, r_ia, n_resamples=100)
    for name in ("prompt_match", "prompt_match_ci_low", "prompt_match_ci_high", "match_positive_rate"):
        assert result[name] == 0
    assert result["both_ways_accuracy"] == 0
    assert result["accuracy_under_original"] + result["accuracy_under_wide_spectrum"] == 1
    assert "prior_over_match" not in result
    assert "undefined" in result["notes"]["prior_over_match"]


def test_an_oracle_has_no_prior_and_is_always_right():
    one, zero = np.ones(50), np.zeros(50)
    result = reward_bias(one, zero, zero, one, n_resamples=100)
    expected = {"image_prior": 0, "prompt_match": 1, "prior_over_match": 0, "both_ways_accuracy": 1}
    expected |= {"accuracy_under_original": 1, "accuracy_under_wide_spectrum": 1, "match_positive_rate": 1}
    assert {name: result[name] for name in expected} == expected
    assert "no spread" in result["notes"]["image_prior_standardised"]


def test_a_random_model_is_right_both_ways_a_quarter_of_the_time():
    result = reward_bias(*np.random.default_rng(2).random((4, 20_000)), n_resamples=100)
    assert result["both_ways_accuracy"] == pytest.approx(0.25, abs=0.01)
    assert result["accuracy_under_original"] == pytest.approx(0.5, abs=0.012)
    assert "may have either sign" in result["notes"]["prior_over_match"]


def test_equal_scores_are_not_right_even_where_rounding_says_otherwise():
    # tied under p_a at 0.2, yet Q and X built from these scores come out as -0.04999999999999999 and 0.05
    result = reward_bias([0.2], [0.2], [0.1], [0.2])
    assert result["prompt_match"] > abs(result["image_prior"])
    assert result["accuracy_under_wide_spectrum"] == 0
    assert result["both_ways_accuracy"] == 0
    assert result["accuracy_under_original"] == 1


@pytest.mark.parametrize("seed", range(5))
def test_verdict_figures_agree_with_scikit_learn(seed):
    data = pairs(80, seed)
    for name in NAMES:
        data[name] = np.round(data[name])
    result = reward_bias(**data)
    decided = data["verdict"] != 0.5
    truth, margin = data["verdict"][decided], (data["r_ia_pa"] - data["r_io_pa"])[decided]
    answer = margin > 0
    expected = {
        "accuracy": metrics.accuracy_score(truth, answer),
        "f1": metrics.f1_score(truth, answer),
        "f1_weighted": metrics.f1_score(truth, answer, average="weighted"),
        "balanced_accuracy": metrics.balanced_accuracy_score(truth, answer),
        "mcc": metrics.matthews_corrcoef(truth, answer),
        "auroc": metrics.roc_auc_score(truth, margin),
        "always_wide_accuracy": metrics.accuracy_score(truth, np.ones(len(truth))),
    }
    assert {name: result[name] for name in expected} == pytest.approx(expected, abs=1e-12)
    delong = delong_interval(margin[truth == 1], margin[truth == 0], 0.95)
    assert (result["auroc_delong_low"], result["auroc_delong_high"]) == delong
    counts = [int((data["verdict"] == value).sum()) for value in (1, 0, 0.5)]
    assert [result["n_positive"], result["n_negative"], result["n_tie"]] == counts


def test_the_published_clip_row_follows_from_its_confusion_matrix():
    # published: accuracy .9127, balanced accuracy .6561, F1 .9541, from 2039, 179, 17 and 11 pairs
    verdict = np.repeat([1, 1, 0, 0], [2039, 179, 17, 11])
    r_ia_pa = np.repeat([1.0, -1.0, 1.0, -1.0], [2039, 179, 17, 11])
    zero = np.zeros(2246)
    result = reward_bias(zero, zero, zero, r_ia_pa, verdict=verdict, n_resamples=10)
    assert result["accuracy"] == pytest.approx(0.9127337488869101)
    assert result["balanced_accuracy"] == pytest.approx(0.6560769032590493)
    assert result["f1"] == pytest.approx(0.9541413196069256)
    assert result["always_wide_accuracy"] == pytest.approx(0.9875, abs=5e-5)


def test_standardised_forms_divide_by_the_spread_of_the_default():
    data = pairs(40)
    result = reward_bias(**data)
    spread = data["r_io_po"].std(ddof=1)
    assert result["image_prior_standardised"] == pytest.approx(result["image_prior"] / spread)
    assert result["prompt_match_standardised"] == pytest.approx(result["prompt_match"] / spread)


def test_groups_equal_calls_on_their_rows_and_macro_is_their_mean():
    data = pairs(90, prompt_id=np.tile(np.arange(30), 3), group=np.repeat(["c", "a", "b"], 30))
    result = reward_bias(**data)
    assert list(result["by_group"]) == ["a", "b", "c"]
    for name, block in result["by_group"].items():
        rows = data["group"] == name
        alone = reward_bias(**{key: values[rows] if np.ndim(values) else values for key, values in data.items()})
        # the same thirty prompts give the same resamples
        shared = {key: value for key, value in block.items() if isinstance(value, float)}
        assert shared == pytest.approx({key: alone[key] for key in shared}, abs=1e-12)
    for name in set(ESTIMATES) - {"prior_over_match"}:
        mean = np.mean([block[name] for block in result["by_group"].values()])
        assert result["macro"][name] == pytest.approx(mean)
    ratio = -result["macro"]["image_prior"] / result["macro"]["prompt_match"]
    assert result["macro"]["prior_over_match"] == pytest.approx(ratio)


def test_macro_says_which_group_has_no_value():
    data = pairs(40, group=np.repeat(["a", "b"], 20))
    data["verdict"][:20] = 1.0
    result = reward_bias(**data)
    assert "auroc" not in result["macro"]
    assert result["macro"]["notes"]["auroc"] == "undefined in 1 of 2 groups, the first being 'a'"
    assert "auroc" not in result["by_group"]["a"]


@pytest.mark.parametrize(
    ("verdict", "absent", "present"),
    [
        ([1, 1, 1], {"auroc", "balanced_accuracy", "mcc"}, {"accuracy", "f1", "f1_weighted"}),
        ([0, 0, 0.5], {"auroc", "balanced_accuracy", "mcc", "f1"}, {"accuracy", "f1_weighted"}),
        ([0.5, 0.5, None], {"accuracy", "f1", "f1_weighted", "auroc", "mcc", "always_wide_accuracy"}, {"image_prior"}),
        (None, {"accuracy", "f1", "f1_weighted", "auroc", "mcc", "always_wide_accuracy"}, {"image_prior"}),
        ([1, 0, 1], {"mcc"}, {"auroc", "balanced_accuracy"}),
    ],
)
def test_undefined_figures_are_absent_with_a_reason(verdict, absent, present):
    zero = np.zeros(3)
    result = reward_bias(zero, zero, zero, [1.0, 2.0, 3.0], verdict=verdict, n_resamples=20)
    assert not absent & set(result)
    assert absent <= set(result["notes"])
    assert present <= set(result)


def test_missing_verdicts_are_left_out_and_shown():
    with_gap = reward_bias([0] * 3, [0] * 3, [0] * 3, [1, -1, 1], verdict=[1, 0, None], n_resamples=20)
    assert with_gap["coverage"]["verdict"] == pytest.approx(2 / 3)
    assert with_gap["accuracy"] == 1
    assert (with_gap["n_pairs"], with_gap["n_positive"], with_gap["n_negative"], with_gap["n_tie"]) == (3, 1, 1, 0)


def test_one_pair_gives_estimates_without_intervals():
    result = reward_bias([4.0], [3.0], [1.0], [4.0], verdict=[1])
    assert (result["image_prior"], result["prompt_match"], result["accuracy"]) == (-1.0, 2.0, 1.0)
    assert not [name for name in result if name.endswith(("_ci_low", "_ci_high"))]
    assert "at least two prompts" in result["notes"]["image_prior_ci"]
    assert "prior_over_match" not in result


def test_one_prompt_with_many_seeds_is_one_cluster():
    data = pairs(8, prompt_id=["bus"] * 8, image_seed=range(8))
    result = reward_bias(**data)
    assert result["n_prompts"] == 1
    assert not [name for name in result if name.endswith("_ci_low")]


def test_few_negatives_are_undefined_in_some_resamples_and_counted():
    data = pairs(12)
    data["verdict"] = np.array([0.0, 0.0] + [1.0] * 10)
    result = reward_bias(**data)
    # both negatives are missed by (10/12)^12, about 11 %, of the resamples
    assert 2 <= result["undefined_resamples"]["auroc"] <= 25
    assert "image_prior" not in result["undefined_resamples"]


def test_the_ratio_is_withheld_where_the_match_may_be_zero():
    result = reward_bias([0, 0, 0, 0], [0, 0, 0, 0], [-1, 1, -1, 1], [0.1, -0.1, -2, 3])
    assert result["prompt_match_ci_low"] <= 0 <= result["prompt_match_ci_high"]
    assert not [name for name in result if name.startswith("prior_over_match")]
    assert "interval of prompt_match includes 0" in result["notes"]["prior_over_match"]


def numbers(result):
    return {name: value for name, value in result.items() if isinstance(value, float | int)}


seeds = st.integers(0, 2**32 - 1)


@settings(max_examples=25, deadline=None)
@given(seeds)
def test_the_order_of_rows_does_not_matter(seed):
    data = pairs(20, seed, prompt_id=np.arange(20) % 7, image_seed=np.arange(20))
    order = np.random.default_rng(seed).permutation(20)
    shuffled = {name: values[order] if np.ndim(values) else values for name, values in data.items()}
    assert numbers(reward_bias(**shuffled)) == pytest.approx(numbers(reward_bias(**data)), abs=1e-9)


@settings(max_examples=25, deadline=None)
@given(seeds)
def test_swapping_the_images_flips_the_signs(seed):
    data = pairs(20, seed)
    swapped = data | dict(
        zip(NAMES, (data[name] for name in ("r_ia_po", "r_ia_pa", "r_io_po", "r_io_pa")), strict=True)
    )
    swapped["verdict"] = 1 - data["verdict"]
    one, other = reward_bias(**data), reward_bias(**swapped)
    assert other["image_prior"] == pytest.approx(-one["image_prior"])
    assert other["prompt_match"] == pytest.approx(-one["prompt_match"])
    if "auroc" in one:
        assert other["auroc"] == pytest.approx(one["auroc"])
        assert other["balanced_accuracy"] == pytest.approx(one["balanced_accuracy"])


@settings(max_examples=25, deadline=None)
@given(seeds)
def test_swapping_images_and_prompts_together_keeps_the_match(seed):
    data = pairs(20, seed)
    swapped = dict(zip(NAMES, (data[name] for name in reversed(NAMES)), strict=True))
    one, other = reward_bias(**data), reward_bias(**swapped, n_resamples=100)
    assert other["image_prior"] == pytest.approx(-one["image_prior"])
    assert other["prompt_match"] == pytest.approx(one["prompt_match"])
    assert other["both_ways_accuracy"] == one["both_ways_accuracy"]
    assert other["accuracy_under_original"] == one["accuracy_under_wide_spectrum"]


@settings(max_examples=25, deadline=None)
@given(seeds, st.integers(-3, 3), st.integers(-100, 100))
def test_another_scale_changes_only_the_figures_in_reward_units(seed, power, shift):
    data = pairs(20, seed)
    # scores on a grid and powers of two: the change of scale is exact
    for name in NAMES:
        data[name] = np.round(data[name] * 1024) / 1024
    moved = data | {name: data[name] * 2.0**power + shift for name in NAMES}
    one, other = numbers(reward_bias(**data)), numbers(reward_bias(**moved))
    for name in list(one):
        if name.startswith(("image_prior", "prompt_match")) and "standardised" not in name:
            assert other.pop(name) == pytest.approx(one.pop(name) * 2.0**power)
    assert other == pytest.approx(one, abs=1e-9)


@settings(max_examples=15, deadline=None)
@given(seeds, st.integers(2, 4))
def test_repeating_every_row_of_a_prompt_narrows_nothing(seed, copies):
    data = pairs(20, seed, prompt_id=np.arange(20) % 9, image_seed=np.arange(20))
    again = {name: np.tile(values, copies) if np.ndim(values) else values for name, values in data.items()}
    again["image_seed"] = np.arange(20 * copies)
    one, other = reward_bias(**data), reward_bias(**again)
    for name in ESTIMATES:
        if f"{name}_ci_low" in one and "standardised" not in name:
            for end in ("", "_ci_low", "_ci_high"):
                assert other[name + end] == pytest.approx(one[name + end], abs=1e-9)


def test_the_seed_decides_the_intervals():
    data = pairs(50)
    assert reward_bias(**data, seed=3) == reward_bias(**data, seed=3)
    assert reward_bias(**data, seed=3)["image_prior_ci_low"] != reward_bias(**data, seed=4)["image_prior_ci_low"]
    narrow, wide = reward_bias(**data, confidence_level=0.5), reward_bias(**data, confidence_level=0.99)
    assert wide["image_prior_ci_low"] < narrow["image_prior_ci_low"] < narrow["image_prior"]
    assert wide["accuracy_wilson_low"] < narrow["accuracy_wilson_low"]


def test_bootstrapped_auroc_agrees_with_scikit_learn_per_resample():
    data = pairs(60, prompt_id=np.arange(60) % 25, image_seed=np.arange(60), n_resamples=400)
    result = reward_bias(**data)
    rng = np.random.default_rng(77)
    margin, values = data["r_ia_pa"] - data["r_io_pa"], []
    for _ in range(400):
        weights = np.bincount(rng.integers(25, size=25), minlength=25)[data["prompt_id"]] * (data["verdict"] != 0.5)
        keep = weights > 0
        values.append(metrics.roc_auc_score(data["verdict"][keep], margin[keep], sample_weight=weights[keep]))
    low, high = np.quantile(values, [0.025, 0.975])
    assert result["auroc_ci_low"] == pytest.approx(low, abs=0.3 * np.std(values))
    assert result["auroc_ci_high"] == pytest.approx(high, abs=0.3 * np.std(values))


def test_verified_and_controlled_pairs_equal_calls_on_their_rows():
    data = pairs(90, prompt_id=np.tile(np.arange(30), 3), group=np.repeat(["a", "b", "c"], 30))
    flags = np.arange(90) % 3 > 0
    result = reward_bias(**data, controlled=flags)
    for name, rows in (("verified", data["verdict"] == 1), ("controlled", flags)):
        chosen = {key: values[rows] if np.ndim(values) else values for key, values in data.items() if key != "verdict"}
        alone = reward_bias(**chosen)
        without = {key: value for key, value in numbers(alone).items() if key not in COUNTS}
        assert numbers(result[name]) == pytest.approx(without)
        assert result[name]["notes"] == {}
        assert numbers(result[name]["macro"]) == pytest.approx(numbers(alone["macro"]))
        assert list(result[name]["by_group"]) == ["a", "b", "c"]


def test_a_subset_without_pairs_is_named():
    result = reward_bias(**pairs(20) | {"verdict": np.zeros(20)}, controlled=[False] * 20)
    assert not {"verified", "controlled"} & set(result)
    assert result["notes"]["verified"] == "not given: no pair is verified"
    assert result["notes"]["controlled"] == "not given: no pair is controlled"


def test_cautions_name_what_is_to_be_read_with_care():
    data = pairs(100) | {"verdict": np.repeat([0.0, 1.0], [50, 50])}
    assert reward_bias(**data)["cautions"] == {}
    data["verdict"] = np.repeat([0.0, 1.0], [49, 51])
    assert set(reward_bias(**data)["cautions"]) == {"auroc", "balanced_accuracy", "mcc"}
    assert set(reward_bias(**data, prompt_id=np.arange(100) % 29, image_seed=range(100))["cautions"]) == {
        "auroc",
        "balanced_accuracy",
        "mcc",
        "n_prompts",
    }


def test_a_negative_match_keeps_its_ratio_with_a_caution():
    zero, one = np.zeros(40), np.ones(40)
    result = reward_bias(zero, one, one, zero + np.linspace(0, 0.1, 40))
    assert result["prompt_match_ci_high"] < 0
    assert result["prior_over_match"] == pytest.approx(-result["image_prior"] / result["prompt_match"])
    assert "wrong way" in result["cautions"]["prior_over_match"]


def test_bca_intervals_agree_with_scipy():
    rng = np.random.default_rng(8)
    prior = rng.exponential(size=80)
    result = reward_bias(np.zeros(80), np.zeros(80), prior, prior + 1, n_resamples=20_000, interval="bca")
    oracle = stats.bootstrap((prior + 0.5,), np.mean, n_resamples=20_000, method="BCa", rng=np.random.default_rng(1))
    margin = 0.1 * oracle.standard_error
    assert result["image_prior"] == pytest.approx(np.mean(prior + 0.5))
    assert result["image_prior_ci_low"] == pytest.approx(oracle.confidence_interval.low, abs=margin)
    assert result["image_prior_ci_high"] == pytest.approx(oracle.confidence_interval.high, abs=margin)
    percentile = reward_bias(np.zeros(80), np.zeros(80), prior, prior + 1, n_resamples=20_000)
    assert abs(percentile["image_prior_ci_high"] - result["image_prior_ci_high"]) > margin


@settings(max_examples=40, deadline=None)
@given(seeds)
def test_a_model_that_adds_up_image_and_prompt_has_no_match_whatever_rounding_leaves(seed):
    rng = np.random.default_rng(seed)
    r_io, r_ia, bonus = rng.normal(8, 2, 40).round(2), rng.normal(5, 2, 40).round(2), rng.normal(size=40)
    result = reward_bias(r_io, r_io + bonus, r_ia, r_ia + bonus, n_resamples=50)
    assert result["prompt_match"] == result["prompt_match_ci_high"] == result["match_positive_rate"] == 0
    assert "prior_over_match" not in result
