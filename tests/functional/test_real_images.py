"""`real_image_gap`: numpy, pandas, scipy and `reward_bias` as oracles, limiting models, invariances."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from widespectrum.functional import real_image_gap, reward_bias

ELEMENTS = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "reference" / "ava_elements_run1_3304.csv"
NAMES = ["analog_degradation", "exposure_extremes", "intentional_blur", "light_leak"]
UNDER_CLEAN = [
    "gap_under_clean_caption",
    "gap_change",
    "beaten_rate_under_clean_caption",
    "image_prior",
    "prompt_match",
    "match_positive_rate",
    "both_ways_accuracy",
    "gap_standardised",
    "prior_over_match",
]
RATES = ["beaten_rate", "beaten_rate_under_clean_caption", "match_positive_rate", "both_ways_accuracy"]


def photographs(n, seed=0, **extra):
    """Clean images that win under both captions, less clearly under the one that describes the photograph."""
    rng = np.random.default_rng(seed)
    shifts = {"r_io_po": 6.0, "r_io_pa": 5.0, "r_ia_po": 2.0, "r_ia_pa": 4.0}
    data = {name: rng.normal(shift, 2, n) for name, shift in shifts.items()}
    data["elements"] = [list(rng.choice(NAMES, rng.integers(1, 4), replace=False)) for _ in range(n)]
    return data | {"n_resamples": 100} | extra


def plain(data):
    return {name: value for name, value in data.items() if not name.endswith("_po")}


def numbers(result):
    return {name: value for name, value in result.items() if isinstance(value, float | int)}


def test_gap_names_are_all_there_and_no_others():
    result = real_image_gap(**photographs(90, prompt_id=np.arange(90) % 45, image_seed=np.arange(90)))
    expected = {f"{name}{end}" for name in ("gap", "beaten_rate", *UNDER_CLEAN) for end in ("", "_ci_low", "_ci_high")}
    expected |= {f"{name}_wilson_{end}" for name in RATES for end in ("low", "high")}
    expected |= {"n_pairs", "n_prompts", "n_tie", "notes", "cautions", "undefined_resamples"}
    assert set(result) == expected | {"coverage", "by_element"}
    assert list(result["by_element"]) == NAMES
    assert all(set(block) == expected for block in result["by_element"].values())
    assert result["notes"] == {}
    assert (result["n_pairs"], result["n_prompts"]) == (90, 45)
    assert "by_element" not in real_image_gap([1.0, 2.0], [0.0, 1.0], n_resamples=5)


@pytest.mark.parametrize("seed", range(3))
def test_gaps_and_rates_agree_with_pandas_per_element(seed):
    data = photographs(70, seed)
    for name in ("r_io_pa", "r_ia_pa"):
        data[name] = np.round(data[name])
    result = real_image_gap(**data)
    table = pd.DataFrame({name: value for name, value in data.items() if name.startswith("r_")})
    table["gap"], table["under"] = table["r_io_pa"] - table["r_ia_pa"], table["r_io_po"] - table["r_ia_po"]
    table["element"] = data["elements"]
    assert (table["gap"] == 0).any()
    own = dict(list(table.explode("element").groupby("element")))
    for name, block in {"": result, **result["by_element"]}.items():
        rows = own[name] if name else table
        assert block["n_pairs"] == len(rows)
        assert block["gap"] == pytest.approx(rows["gap"].mean())
        assert block["gap_under_clean_caption"] == pytest.approx(rows["under"].mean())
        assert block["gap_change"] == pytest.approx((rows["gap"] - rows["under"]).mean())
        assert block["gap_standardised"] == pytest.approx(rows["gap"].mean() / rows["r_io_po"].std())
        assert block["n_tie"] == (rows["gap"] == 0).sum()
        assert block["beaten_rate"] == pytest.approx((rows["gap"] > 0).mean())
        assert block["beaten_rate_under_clean_caption"] == pytest.approx((rows["under"] > 0).mean())
        assert block["both_ways_accuracy"] == pytest.approx(((rows["gap"] < 0) & (rows["under"] > 0)).mean())
        wilson = proportion_confint((rows["gap"] > 0).sum(), len(rows), method="wilson")
        assert (block["beaten_rate_wilson_low"], block["beaten_rate_wilson_high"]) == pytest.approx(wilson)


@pytest.mark.parametrize("interval", ["percentile", "bca"])
@pytest.mark.parametrize("decimals", [0, 8])
def test_the_figures_under_both_captions_are_those_of_reward_bias(interval, decimals):
    data = photographs(80, prompt_id=np.arange(80) % 40, image_seed=np.arange(80), interval=interval)
    # with no decimals many scores tie, under either caption
    data |= {name: np.round(value, decimals) for name, value in data.items() if name.startswith("r_")}
    result = real_image_gap(**data)
    oracle = reward_bias(**{name: value for name, value in data.items() if name != "elements"})
    same = {"image_prior", "prompt_match", "match_positive_rate", "both_ways_accuracy", "prior_over_match"}
    theirs = dict(zip(same, same, strict=True)) | {"beaten_rate_under_clean_caption": "accuracy_under_original"}
    for name, their_name in theirs.items():
        for end in ("", "_ci_low", "_ci_high"):
            assert result[name + end] == pytest.approx(oracle[their_name + end], abs=1e-12)
    standardised = oracle["image_prior_standardised"] + oracle["prompt_match_standardised"]
    assert result["gap_standardised"] == pytest.approx(-standardised)
    assert result["gap"] == pytest.approx(-(result["image_prior"] + result["prompt_match"]))
    for end, opposite in (("", ""), ("_ci_low", "_ci_high"), ("_ci_high", "_ci_low")):
        assert result[f"gap_change{end}"] == pytest.approx(-2 * result[f"prompt_match{opposite}"])


@pytest.mark.parametrize("name", ["gap", "gap_standardised"])
def test_intervals_of_gaps_agree_with_scipy(name):
    data = photographs(150) | {"n_resamples": 20_000, "elements": None}
    result = real_image_gap(**data)

    def statistic(gap, default, axis):
        return gap.mean(axis=axis) / (default.std(axis=axis, ddof=1) if name == "gap_standardised" else 1)

    oracle = stats.bootstrap(
        (data["r_io_pa"] - data["r_ia_pa"], data["r_io_po"]),
        statistic,
        n_resamples=20_000,
        method="percentile",
        paired=True,
        vectorized=True,
        rng=np.random.default_rng(5),
    )
    margin = 0.1 * oracle.standard_error
    assert result[f"{name}_ci_low"] == pytest.approx(oracle.confidence_interval.low, abs=margin)
    assert result[f"{name}_ci_high"] == pytest.approx(oracle.confidence_interval.high, abs=margin)


def test_taste_alone_gives_a_gap_that_does_not_change_with_the_caption():
    rng = np.random.default_rng(0)
    # on a grid, so that the two differences are exactly equal
    clean, real = np.round(rng.normal(8, 1, 60) * 64) / 64, np.round(rng.normal(2, 1, 60) * 64) / 64
    result = real_image_gap(clean, real, r_io_po=clean + 1, r_ia_po=real + 1, n_resamples=50)
    assert result["gap"] == result["gap_under_clean_caption"] > 5
    assert [result[f"gap_change{end}"] for end in ("", "_ci_low", "_ci_high")] == [0, 0, 0]
    assert (result["beaten_rate"], result["both_ways_accuracy"]) == (1, 0)
    assert result["notes"]["prior_over_match"] == "undefined: the mean prompt match is 0"


def test_the_ratio_is_withheld_where_the_match_with_the_caption_may_be_zero():
    rewards = np.random.default_rng(3).normal(size=(4, 40))
    result = real_image_gap(*rewards[:2], r_io_po=rewards[2], r_ia_po=rewards[3], n_resamples=100)
    assert result["gap_change_ci_low"] <= 0 <= result["gap_change_ci_high"]
    assert "prior_over_match" not in result
    assert "interval of prompt_match includes 0" in result["notes"]["prior_over_match"]


def test_a_model_that_reads_the_caption_turns_the_gap_round():
    one, zero = np.ones(40), np.zeros(40)
    result = real_image_gap(zero, one, r_io_po=one, r_ia_po=zero, n_resamples=50)
    expected = {"gap": -1, "gap_under_clean_caption": 1, "gap_change": -2, "beaten_rate": 0, "both_ways_accuracy": 1}
    assert {name: result[name] for name in expected} == expected
    assert "no spread" in result["notes"]["gap_standardised"]


def test_an_element_of_few_photographs_is_cautioned_against():
    result = real_image_gap(**photographs(40, elements=[["light_leak"]] * 3 + [["film_artifacts"]] * 37))
    assert "fewer than 30 prompts" in result["by_element"]["light_leak"]["cautions"]["n_prompts"]
    assert result["by_element"]["film_artifacts"]["cautions"] == {}


def test_photographs_without_an_element_count_in_the_whole_alone():
    result = real_image_gap([3.0, 4.0, 8.0], [1.0, 1.0, 1.0], elements=[["blur", "blur"], None, []], n_resamples=20)
    assert (result["gap"], result["by_element"]["blur"]["gap"]) == (4.0, 2.0)
    assert result["by_element"]["blur"]["n_pairs"] == 1
    assert result["coverage"]["elements"] == pytest.approx(1 / 3)
    none = real_image_gap([3.0, 4.0], [1.0, 1.0], elements=[[], None], n_resamples=20)
    assert (none["by_element"], none["coverage"]["elements"]) == ({}, 0)


def test_without_the_clean_caption_the_control_is_absent_with_a_reason():
    result = real_image_gap(**plain(photographs(40)))
    for block in (result, result["by_element"]["light_leak"]):
        assert not [name for name in block if name.startswith(tuple(UNDER_CLEAN))]
        assert block["notes"] == dict.fromkeys(UNDER_CLEAN, "not given: it needs r_io_po and r_ia_po")


def test_one_photograph_gives_estimates_without_intervals():
    result = real_image_gap([5.0], [2.0], r_io_po=[6.0], r_ia_po=[1.0])
    assert (result["gap"], result["gap_change"], result["beaten_rate"]) == (3, -2, 1)
    assert not [name for name in result if name.endswith(("_ci_low", "_ci_high"))]
    assert "one pair only" in result["notes"]["gap_standardised"]


def test_all_tied_beats_nothing():
    result = real_image_gap([2.0] * 6, [2.0] * 6, n_resamples=20)
    assert (result["gap"], result["beaten_rate"], result["n_tie"]) == (0, 0, 6)


def test_lists_arrays_and_both_float_widths_agree_on_gaps():
    data = photographs(12)
    for name in (name for name in data if name.startswith("r_")):
        data[name] = np.round(data[name] * 64) / 64
    expected = real_image_gap(**data)
    for kind in (lambda v: v.astype(np.float32), list, tuple):
        again = {name: kind(value) if name.startswith("r_") else value for name, value in data.items()}
        again["elements"] = [np.array(row) for row in data["elements"]]
        assert real_image_gap(**again) == expected


def test_the_elements_of_an_earlier_captioning_run_can_be_read():
    if not ELEMENTS.is_file():
        pytest.skip("the element labels are not at hand")
    table = pd.read_csv(ELEMENTS, keep_default_na=False, dtype=str)
    rows = [cell.split("|") if cell else [] for cell in table["elements"]]
    clean, real = np.random.default_rng(0).normal(size=(2, len(rows)))
    result = real_image_gap(clean, real, elements=rows, prompt_id=table["ava_id"], n_resamples=20)
    exploded = pd.DataFrame({"gap": clean - real, "element": [sorted(set(row)) for row in rows]}).explode("element")
    oracle = exploded.groupby("element")["gap"].agg(["mean", "size"])
    assert list(result["by_element"]) == list(oracle.index)
    assert [block["n_pairs"] for block in result["by_element"].values()] == list(oracle["size"])
    assert [block["gap"] for block in result["by_element"].values()] == pytest.approx(list(oracle["mean"]))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"elements": [["blur"], "blur", []]}, r"elements, row 1 .*list of non-empty names, or None, got 'blur'"),
        ({"elements": [["blur"], ["blur", ""], []]}, r"elements, row 1 .*got \['blur', ''\]"),
        ({"elements": [["blur"], ["blur", ["grain"]], []]}, r"elements, row 1 .*got \['blur', \['grain'\]\]"),
        ({"elements": [["blur"], [], 3]}, r"elements, row 2 .*got 3"),
        ({"elements": [["blur"], {"blur": 1}, []]}, r"elements, row 1 .*got {'blur': 1}"),
        ({"elements": [["blur"]]}, r"elements: expected 3 rows like the other columns, got 1; give one list per row"),
        ({"elements": "blur"}, r"elements: expected one value per row, got a str"),
        ({"r_io_pa": []}, r"r_io_pa: expected at least one row, got none"),
        ({"r_ia_pa": [1.0, np.nan, 2.0]}, r"r_ia_pa, row 1 .*finite number, got nan"),
        ({"r_ia_pa": [1.0, np.inf, 2.0]}, r"r_ia_pa, row 1 .*finite number, got inf"),
        ({"r_ia_pa": [1.0, 2.0]}, r"r_ia_pa: expected 3 rows like the other columns, got 2"),
        ({"r_ia_po": [1.0, 2.0, 3.0]}, r"r_io_po: .* like that of r_ia_po, got None; give both or neither"),
        ({"prompt_id": ["a", "b", "a"]}, r"row 2 .*repeats the key of row 0 \(prompt_id='a'\)"),
        ({"n_resamples": -1}, r"n_resamples: .*got -1"),
    ],
)
def test_real_image_gap_names_what_is_wrong(changes, sentence):
    good = {"r_io_pa": [1.0, 2.0, 3.0], "r_ia_pa": [2.0, 1.0, 3.0]}
    with pytest.raises(ValueError, match=sentence):
        real_image_gap(**(good | changes))


seeds = st.integers(0, 2**32 - 1)


@settings(max_examples=20, deadline=None)
@given(seeds)
def test_the_order_of_photographs_does_not_matter(seed):
    data = photographs(24, seed, prompt_id=np.arange(24) % 7, image_seed=np.arange(24))
    order = np.random.default_rng(seed).permutation(24)
    shuffled = {name: value[order] if isinstance(value, np.ndarray) else value for name, value in data.items()}
    shuffled["elements"] = [data["elements"][k] for k in order]
    one, other = real_image_gap(**data), real_image_gap(**shuffled)
    assert numbers(other) == pytest.approx(numbers(one), abs=1e-9)
    for name, block in one["by_element"].items():
        assert numbers(other["by_element"][name]) == pytest.approx(numbers(block), abs=1e-9)


@settings(max_examples=20, deadline=None)
@given(seeds)
def test_swapping_clean_and_real_flips_the_gap(seed):
    data = plain(photographs(24, seed))
    for name in ("r_io_pa", "r_ia_pa"):
        data[name] = np.round(data[name])
    one, other = (
        real_image_gap(**(data | dict(zip(("r_io_pa", "r_ia_pa"), (data[a], data[b]), strict=True))))
        for a, b in (("r_io_pa", "r_ia_pa"), ("r_ia_pa", "r_io_pa"))
    )
    assert other["gap"] == pytest.approx(-one["gap"])
    assert other["gap_ci_low"] == pytest.approx(-one["gap_ci_high"])
    assert other["beaten_rate"] == pytest.approx(1 - one["beaten_rate"] - one["n_tie"] / 24)


@settings(max_examples=20, deadline=None)
@given(seeds, st.integers(-3, 3), st.integers(-100, 100))
def test_another_scale_changes_only_figures_in_reward_units(seed, power, shift):
    data = photographs(24, seed)
    # scores on a grid and powers of two: the change of scale is exact
    for name in (name for name in data if name.startswith("r_")):
        data[name] = np.round(data[name] * 1024) / 1024
    moved = {name: value * 2.0**power + shift if name.startswith("r_") else value for name, value in data.items()}
    one, other = numbers(real_image_gap(**data)), numbers(real_image_gap(**moved))
    for name in list(one):
        if name.startswith(("gap", "image_prior", "prompt_match")) and "standardised" not in name:
            assert other.pop(name) == pytest.approx(one.pop(name) * 2.0**power)
    assert other == pytest.approx(one, abs=1e-9)


@settings(max_examples=10, deadline=None)
@given(seeds, st.integers(2, 4))
def test_repeating_every_photograph_narrows_nothing(seed, copies):
    data = photographs(24, seed, prompt_id=np.arange(24) % 9, image_seed=np.arange(24))
    again = {name: np.tile(value, copies) if isinstance(value, np.ndarray) else value for name, value in data.items()}
    again |= {"elements": data["elements"] * copies, "image_seed": np.arange(24 * copies)}
    one, other = real_image_gap(**data), real_image_gap(**again)
    names = [f"{name}{end}" for name in ("gap", "beaten_rate", "gap_change") for end in ("", "_ci_low", "_ci_high")]
    for own, repeated in ((one, other), (one["by_element"][NAMES[0]], other["by_element"][NAMES[0]])):
        assert {name: repeated.get(name) for name in names} == pytest.approx(
            {name: own.get(name) for name in names}, abs=1e-9
        )
