"""`emotion_bias` and `generated_emotion`: scipy, statsmodels and pandas as oracles, published figures, invariances."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from widespectrum.functional import emotion_bias, reward_bias

PUBLISHED = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "reference" / "published_numbers.json"
EMOTIONS = ["angry", "fearful", "sad"]
UNDER_HAPPY = [
    "accuracy_under_happy",
    "mean_gap_under_happy",
    "image_prior",
    "prompt_match",
    "match_positive_rate",
    "both_ways_accuracy",
    "prior_over_match",
]
RATES = ["accuracy", "accuracy_under_happy", "match_positive_rate", "both_ways_accuracy"]


def edits(n, seed=0, **extra):
    """Faces scored under both prompts: a taste for the happy one, and a match with the prompt that does not undo it."""
    rng = np.random.default_rng(seed)
    shifts = {"r_io_po": 1.5, "r_io_pa": 0.8, "r_ia_po": -0.5, "r_ia_pa": 0.5}
    data = {name: rng.normal(shift, 1, n) for name, shift in shifts.items()}
    return data | {"emotion": np.resize(EMOTIONS, n), "n_resamples": 100} | extra


def without_control(data):
    return {name: value for name, value in data.items() if not name.endswith("_po")}


def numbers(result):
    return {name: value for name, value in result.items() if isinstance(value, float | int)}


def test_emotion_names_are_all_there_and_no_others():
    result = emotion_bias(**edits(90, prompt_id=np.repeat(np.arange(30), 3)))
    estimates = ["accuracy", "mean_gap", *UNDER_HAPPY]
    intervals = {f"{name}{end}" for name in estimates for end in ("", "_ci_low", "_ci_high")}
    wilson = {f"{name}_wilson_{end}" for name in RATES for end in ("low", "high")}
    block = {"n_pairs", "n_prompts", "n_tie", "notes", "cautions", "undefined_resamples", "binomial_p"}
    assert set(result) == intervals | wilson | block | {"coverage", "by_emotion", "macro"}
    assert list(result["by_emotion"]) == EMOTIONS
    assert set(result["by_emotion"]["sad"]) == intervals | wilson | block | {"binomial_p_holm"}
    assert set(result["macro"]) == intervals | (block - {"n_tie", "binomial_p"}) | {"n_groups"}
    assert result["notes"] == result["macro"]["notes"] == {}
    assert (result["n_pairs"], result["n_prompts"], result["by_emotion"]["sad"]["n_prompts"]) == (90, 30, 30)
    assert result["coverage"] == {"r_io_po": 1.0, "r_ia_po": 1.0, "prompt_id": 1.0, "image_seed": 0.0}


@pytest.mark.parametrize("seed", range(3))
def test_accuracy_tests_and_intervals_agree_with_scipy_and_statsmodels(seed):
    data = edits(67, seed)
    for name in ("r_io_pa", "r_ia_pa"):
        data[name] = np.round(data[name])
    result = emotion_bias(**data)
    gap = data["r_ia_pa"] - data["r_io_pa"]
    assert (gap == 0).any()
    p_values = []
    for name, block in {"": result, **result["by_emotion"]}.items():
        own = gap[data["emotion"] == name] if name else gap
        right = int((own > 0).sum())
        assert block["accuracy"] == pytest.approx(right / len(own))
        assert block["mean_gap"] == pytest.approx(own.mean())
        assert block["n_tie"] == (own == 0).sum()
        assert block["binomial_p"] == pytest.approx(stats.binomtest(right, len(own), 0.5).pvalue, rel=1e-9)
        oracle = proportion_confint(right, len(own), method="wilson")
        assert (block["accuracy_wilson_low"], block["accuracy_wilson_high"]) == pytest.approx(oracle)
        assert block["cautions"]["binomial_p"] == f"{block['n_tie']} of {len(own)} rows are ties and count as wrong"
        p_values += [block["binomial_p"]] if name else []
    adjusted = [block["binomial_p_holm"] for block in result["by_emotion"].values()]
    assert adjusted == pytest.approx(list(multipletests(p_values, method="holm")[1]))


@pytest.mark.parametrize(("right", "n"), [(0, 1), (1, 1), (1, 2), (0, 40), (40, 40), (20, 40), (3, 1000), (501, 1000)])
def test_the_binomial_test_agrees_with_scipy(right, n):
    gap = np.repeat([1.0, -1.0], [right, n - right])
    result = emotion_bias(np.zeros(n), gap, emotion=["sad"] * n, n_resamples=5)
    assert result["binomial_p"] == pytest.approx(stats.binomtest(right, n, 0.5).pvalue, rel=1e-9, abs=1e-300)
    assert result["by_emotion"]["sad"]["binomial_p_holm"] == result["binomial_p"]
    assert "binomial_p" not in result["cautions"]


def test_interval_of_the_mean_gap_agrees_with_scipy():
    data = without_control(edits(150)) | {"n_resamples": 20_000}
    result = emotion_bias(**data)
    gap = data["r_ia_pa"] - data["r_io_pa"]
    oracle = stats.bootstrap((gap,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(7))
    margin = 0.1 * oracle.standard_error
    assert result["mean_gap_ci_low"] == pytest.approx(oracle.confidence_interval.low, abs=margin)
    assert result["mean_gap_ci_high"] == pytest.approx(oracle.confidence_interval.high, abs=margin)


@pytest.mark.parametrize("interval", ["percentile", "bca"])
@pytest.mark.parametrize("decimals", [0, 8])
def test_the_design_figures_are_those_of_reward_bias(interval, decimals):
    data = edits(90, prompt_id=np.repeat(np.arange(30), 3), interval=interval)
    # with no decimals many scores tie, under either prompt
    data |= {name: np.round(value, decimals) for name, value in data.items() if name.startswith("r_")}
    result = emotion_bias(**data)
    oracle = reward_bias(**{("group" if name == "emotion" else name): value for name, value in data.items()})
    theirs = {name: name for name in UNDER_HAPPY if "happy" not in name}
    theirs |= {"accuracy": "accuracy_under_wide_spectrum", "accuracy_under_happy": "accuracy_under_original"}
    blocks = [(result, oracle), (result["macro"], oracle["macro"])]
    blocks += [(result["by_emotion"][name], oracle["by_group"][name]) for name in EMOTIONS]
    for own, other in blocks:
        for name, their_name in theirs.items():
            for end in ("", "_ci_low", "_ci_high", "_wilson_low", "_wilson_high"):
                if their_name + end in other:
                    assert own[name + end] == pytest.approx(other[their_name + end], abs=1e-12)
        assert own["mean_gap"] == pytest.approx(other["image_prior"] + other["prompt_match"])
        assert own["mean_gap_under_happy"] == pytest.approx(other["image_prior"] - other["prompt_match"])


def test_macro_weighs_emotions_alike_and_has_an_interval_of_its_own():
    data = without_control(edits(40, emotion=["angry"] * 30 + ["sad"] * 10))
    result = emotion_bias(**data)
    for name in ("accuracy", "mean_gap"):
        mean = np.mean([block[name] for block in result["by_emotion"].values()])
        assert result["macro"][name] == pytest.approx(mean)
        assert result["macro"][name] != pytest.approx(result[name])
        assert result["macro"][f"{name}_ci_low"] < mean < result["macro"][f"{name}_ci_high"]
    assert result["macro"]["n_groups"] == 2
    # the average is as weak as its weakest part
    assert "fewer than 30 prompts" in result["macro"]["cautions"]["n_prompts"]
    assert result["cautions"] == {}


@pytest.mark.parametrize(
    ("model", "shares", "below", "above"),
    [
        ("BLIP", {"anger": 0.96, "fear": 0.79, "sad": 0.95}, [], ["anger", "fear", "sad"]),
        ("HPSv2", {"anger": 0.70, "fear": 0.64, "sad": 0.88}, [], ["anger", "fear", "sad"]),
        ("HPSv3", {"anger": 0.19, "fear": 0.32, "sad": 0.44}, ["anger", "fear"], []),
        ("ImageReward", {"anger": 0.55, "fear": 0.49, "sad": 0.77}, [], ["sad"]),
    ],
)
def test_what_the_published_accuracies_say_over_a_hundred_faces(model, shares, below, above):
    # Guo et al., emotion classification; the number of edits of each emotion is taken to be the paper's 100
    if PUBLISHED.is_file():
        assert json.loads(PUBLISHED.read_text())["emotion_classification"][model] == shares
    gap = np.concatenate([np.where(np.arange(100) < round(100 * share), 1.0, -1.0) for share in shares.values()])
    result = emotion_bias(np.zeros(300), gap, emotion=np.repeat(list(shares), 100), n_resamples=200)
    blocks = result["by_emotion"]
    assert {name: round(block["accuracy"], 2) for name, block in blocks.items()} == shares
    apart = {name: block["accuracy"] for name, block in blocks.items() if block["binomial_p_holm"] < 0.05}
    assert [name for name, share in apart.items() if share < 0.5] == below
    assert [name for name, share in apart.items() if share > 0.5] == above
    assert result["macro"]["accuracy"] == pytest.approx(np.mean(list(shares.values())))


def test_without_the_happy_prompt_the_control_is_absent_with_a_reason():
    result = emotion_bias(**without_control(edits(60)))
    for block in (result, result["by_emotion"]["sad"], result["macro"]):
        assert not [name for name in block if name.startswith(tuple(UNDER_HAPPY))]
        assert dict.fromkeys(UNDER_HAPPY, "not given: it needs r_io_po and r_ia_po") == block["notes"]
    assert result["coverage"]["r_io_po"] == 0


def test_a_model_blind_to_the_prompt_is_never_right_both_ways():
    rng = np.random.default_rng(0)
    happy, edit = rng.normal(1, 1, 60), rng.normal(0, 1, 60)
    result = emotion_bias(happy, edit, emotion=["sad"] * 60, r_io_po=happy, r_ia_po=edit, n_resamples=50)
    assert (result["both_ways_accuracy"], result["prompt_match"]) == (0, 0)
    assert result["accuracy"] + result["accuracy_under_happy"] == 1
    assert result["notes"]["prior_over_match"] == "undefined: the mean prompt match is 0"


def test_a_prompt_that_moves_the_wrong_way_is_cautioned_against():
    rng = np.random.default_rng(0)
    data = {name: rng.normal(shift, 0.1, 40) for name, shift in (("r_io_pa", 2), ("r_ia_pa", 0), ("r_ia_po", 1))}
    result = emotion_bias(**data, r_io_po=np.ones(40), emotion=["sad"] * 40, n_resamples=50)
    assert result["prior_over_match"] < 0
    assert "moves this model the wrong way" in result["cautions"]["prior_over_match"]


def test_the_ratio_is_withheld_where_the_prompt_match_may_be_zero():
    rewards = np.random.default_rng(3).normal(size=(4, 40))
    result = emotion_bias(*rewards[:2], r_io_po=rewards[2], r_ia_po=rewards[3], emotion=["sad"] * 40, n_resamples=100)
    assert result["prompt_match_ci_low"] <= 0 <= result["prompt_match_ci_high"]
    for block in (result, result["macro"], result["by_emotion"]["sad"]):
        assert not [name for name in block if name.startswith("prior_over_match")]
        assert "interval of prompt_match includes 0" in block["notes"]["prior_over_match"]


def test_all_tied_is_all_wrong_and_says_so():
    result = emotion_bias([2.0] * 12, [2.0] * 12, emotion=["sad"] * 12, n_resamples=20)
    assert (result["accuracy"], result["mean_gap"], result["n_tie"]) == (0, 0, 12)
    assert result["binomial_p"] == pytest.approx(2 * 0.5**12)
    assert result["cautions"]["binomial_p"] == "12 of 12 rows are ties and count as wrong"


def test_one_edit_gives_estimates_without_intervals():
    result = emotion_bias([1.0], [3.0], emotion=["sad"])
    assert (result["accuracy"], result["mean_gap"], result["binomial_p"]) == (1, 2, 1)
    assert not [name for name in result if name.endswith(("_ci_low", "_ci_high"))]
    assert "at least two prompts" in result["notes"]["accuracy_ci"]
    assert result["macro"]["accuracy"] == 1


def test_repeated_prompts_make_the_binomial_test_doubtful():
    data = without_control(edits(60, prompt_id=np.repeat(np.arange(20), 3)))
    result = emotion_bias(**data)
    assert "prompts repeat" in result["cautions"]["binomial_p"]
    assert "binomial_p" not in result["by_emotion"]["sad"]["cautions"]


def test_lists_arrays_and_both_float_widths_agree_on_emotion():
    data = edits(12)
    grid = {name: np.round(value * 64) / 64 if name.startswith("r_") else value for name, value in data.items()}
    expected = emotion_bias(**grid)
    for kind in (lambda v: v.astype(np.float32), list, tuple):
        again = {name: kind(value) if name.startswith("r_") else value for name, value in grid.items()}
        assert emotion_bias(**(again | {"emotion": list(grid["emotion"])})) == expected


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"emotion": ["sad", "angry"]}, r"emotion: expected 3 rows like the other columns, got 2"),
        ({"emotion": ["sad", None, "sad"]}, r"emotion, row 1 .*non-empty name or a number, got None"),
        ({"emotion": ["sad", "macro", "sad"]}, r"no label 'macro', the name of an average"),
        ({"r_io_pa": []}, r"r_io_pa: expected at least one row, got none"),
        ({"r_ia_pa": [1.0, np.nan, 2.0]}, r"r_ia_pa, row 1 .*finite number, got nan"),
        ({"r_ia_pa": [1.0, 2.0, None]}, r"r_ia_pa, row 2 .*finite number, got None"),
        ({"r_ia_pa": [1.0, 2.0]}, r"r_ia_pa: expected 3 rows like the other columns, got 2"),
        (
            {"r_io_po": [1.0, 2.0, 3.0]},
            r"r_ia_po: .* like that of r_io_po, got None; give both or neither",
        ),
        (
            {"r_ia_po": [1.0, 2.0, 3.0]},
            r"r_io_po: .* like that of r_ia_po, got None; give both or neither",
        ),
        ({"r_io_po": [1, 2, 3], "r_ia_po": [1, -np.inf, 3]}, r"r_ia_po, row 1 .*finite number, got -inf"),
        ({"prompt_id": [1, 2, 1]}, r"row 2 .*repeats the key of row 0 \(prompt_id=1, emotion='sad'\)"),
        ({"n_resamples": 0}, r"n_resamples: .*got 0"),
        ({"interval": "t"}, r"interval: expected one of percentile, bca, got 't'"),
    ],
)
def test_emotion_bias_names_what_is_wrong(changes, sentence):
    good = {"r_io_pa": [1.0, 2.0, 3.0], "r_ia_pa": [2.0, 1.0, 3.0], "emotion": ["sad", "angry", "sad"]}
    with pytest.raises(ValueError, match=sentence):
        emotion_bias(**(good | changes))


seeds = st.integers(0, 2**32 - 1)


@settings(max_examples=20, deadline=None)
@given(seeds)
def test_the_order_of_edits_does_not_matter(seed):
    data = edits(24, seed, prompt_id=np.arange(24) % 7, image_seed=np.arange(24))
    order = np.random.default_rng(seed).permutation(24)
    shuffled = {name: value[order] if np.ndim(value) else value for name, value in data.items()}
    one, other = emotion_bias(**data), emotion_bias(**shuffled)
    assert numbers(other) == pytest.approx(numbers(one), abs=1e-9)
    assert numbers(other["macro"]) == pytest.approx(numbers(one["macro"]), abs=1e-9)


@settings(max_examples=20, deadline=None)
@given(seeds)
def test_swapping_the_faces_flips_the_gap_and_the_decisions(seed):
    data = without_control(edits(24, seed))
    for name in ("r_io_pa", "r_ia_pa"):
        data[name] = np.round(data[name])
    one = emotion_bias(**data)
    other = emotion_bias(**(data | {"r_io_pa": data["r_ia_pa"], "r_ia_pa": data["r_io_pa"]}))
    assert other["mean_gap"] == pytest.approx(-one["mean_gap"])
    assert other["mean_gap_ci_low"] == pytest.approx(-one["mean_gap_ci_high"])
    assert other["accuracy"] == pytest.approx(1 - one["accuracy"] - one["n_tie"] / 24)
    assert other["n_tie"] == one["n_tie"]


@settings(max_examples=20, deadline=None)
@given(seeds, st.integers(-3, 3), st.integers(-100, 100))
def test_another_scale_changes_only_gaps(seed, power, shift):
    data = edits(24, seed)
    # scores on a grid and powers of two: the change of scale is exact
    for name in (name for name in data if name.startswith("r_")):
        data[name] = np.round(data[name] * 1024) / 1024
    moved = {name: value * 2.0**power + shift if name.startswith("r_") else value for name, value in data.items()}
    one, other = numbers(emotion_bias(**data)), numbers(emotion_bias(**moved))
    for name in list(one):
        if name.startswith(("mean_gap", "image_prior", "prompt_match")):
            assert other.pop(name) == pytest.approx(one.pop(name) * 2.0**power)
    assert other == pytest.approx(one, abs=1e-9)


@settings(max_examples=10, deadline=None)
@given(seeds, st.integers(2, 4))
def test_repeating_the_edits_of_every_prompt_narrows_nothing(seed, copies):
    data = edits(24, seed, prompt_id=np.arange(24) % 9, image_seed=np.arange(24))
    again = {name: np.tile(value, copies) if np.ndim(value) else value for name, value in data.items()}
    again["image_seed"] = np.arange(24 * copies)
    one, other = emotion_bias(**data), emotion_bias(**again)
    names = [f"{name}{end}" for name in ("accuracy", "mean_gap", "both_ways_accuracy") for end in ("", "_ci_low")]
    for own, repeated in ((one, other), (one["macro"], other["macro"])):
        assert {name: repeated[name] for name in names} == pytest.approx({name: own[name] for name in names}, abs=1e-9)
