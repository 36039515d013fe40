"""`image_to_image`: numpy, scipy and statsmodels as oracles, gaps, invariances."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests

from widespectrum.functional import anti_aesthetic_adherence, image_to_image, wilson_interval

ESTIMATES = (
    "delta_reward",
    "reward_after",
    "polished_rate",
    "tie_rate",
    "delta_j",
    "content_before",
    "content_after",
    "content_preservation",
    "wilcoxon_r",
)
P_VALUES = ("wilcoxon_p", "wilcoxon_p_two_sided")
COLUMNS = ("r_input_po", "r_output_po", "j_input", "j_output", "content_input", "content_output")


def study(n=40, seed=0, **extra):
    """Every input: a generator that raises the reward by about one, at the cost of content."""
    rng = np.random.default_rng(seed)
    eighths = np.round(rng.normal(0, 2, n) * 8) / 8, np.round(rng.normal(1, 1, n) * 8) / 8  # their sums are exact
    data = {"r_input_po": eighths[0], "content_input": rng.uniform(50, 100, n)}
    data |= {"r_output_po": eighths[0] + eighths[1]}
    data |= {"content_output": rng.uniform(0, 100, n)}
    return data | {name: rng.uniform(0, 2, (n, 11)) for name in ("j_input", "j_output")} | {"n_resamples": 100} | extra


def flat(result):
    return {name: value for name, value in result.items() if isinstance(value, float | int)}


def test_public_names_are_all_there_and_no_others():
    result = image_to_image(**study(group=["a", "b"] * 20))
    expected = {f"{name}{end}" for name in ESTIMATES for end in ("", "_ci_low", "_ci_high")} | set(P_VALUES)
    expected |= {f"{name}_wilson_{end}" for name in ("polished_rate", "tie_rate") for end in ("low", "high")}
    expected |= {"n_pairs", "n_prompts", "coverage", "notes", "undefined_resamples", "cautions", "by_group"}
    assert set(result) == expected
    assert (result["notes"], set(result["cautions"])) == ({}, {"tie_rate"})
    assert result["coverage"] == dict.fromkeys(COLUMNS, 1.0)
    assert set(result["by_group"]["a"]) == expected - {"coverage", "by_group"} | {f"{name}_holm" for name in P_VALUES}


def test_figures_agree_with_numpy_and_scipy():
    data = study(70)
    result = image_to_image(**data)
    delta = data["r_output_po"] - data["r_input_po"]
    expected = {
        "delta_reward": delta.mean(),
        "reward_after": data["r_output_po"].mean(),
        "polished_rate": np.mean(delta > 0),
        "tie_rate": np.mean(delta == 0),
        "delta_j": (data["j_output"] - data["j_input"]).sum(axis=1).mean(),
        "content_preservation": data["content_output"].mean() / data["content_input"].mean(),
        "wilcoxon_r": -stats.wilcoxon(delta, alternative="greater", method="approx").zstatistic / np.sqrt(70),
        "wilcoxon_p": stats.wilcoxon(delta, alternative="greater", method="approx").pvalue,
        "wilcoxon_p_two_sided": stats.wilcoxon(delta, method="approx").pvalue,
    }
    assert {name: result[name] for name in expected} == pytest.approx(expected)
    ends = result["polished_rate_wilson_low"], result["polished_rate_wilson_high"]
    assert ends == pytest.approx(wilson_interval(int((delta > 0).sum()), 70))


def test_shared_figures_are_those_of_adherence():
    data = study()
    result = image_to_image(**data)
    names = {"r_io_po": "r_input_po", "r_ia_po": "r_output_po", "content_io": "content_input"}
    names |= {"content_ia": "content_output", "j_io": "j_input", "j_ia": "j_output"}
    other = anti_aesthetic_adherence(**{ours: data[theirs] for ours, theirs in names.items()}, n_resamples=100)
    same = {"delta_reward": "delta_reward", "reward_after": "reward_after", "delta_j": "delta_j_all"}
    same |= {"content_preservation": "content_preservation"}
    for ours, theirs in same.items():
        for end in ("", "_ci_low", "_ci_high"):
            assert result[ours + end] == pytest.approx(other[theirs + end])


def test_the_interval_agrees_with_scipy():
    data = study(150)
    result = image_to_image(**data | {"n_resamples": 10_000})
    oracle = stats.bootstrap(
        (data["content_input"], data["content_output"]),
        lambda a, b, axis: b.mean(axis=axis) / a.mean(axis=axis),
        n_resamples=10_000,
        method="percentile",
        paired=True,
        vectorized=True,
        rng=np.random.default_rng(5),
    )
    margin = 0.15 * oracle.standard_error
    assert result["content_preservation_ci_low"] == pytest.approx(oracle.confidence_interval.low, abs=margin)
    assert result["content_preservation_ci_high"] == pytest.approx(oracle.confidence_interval.high, abs=margin)


def test_groups_are_the_figures_of_their_own_rows_and_holm_spans_them():
    groups = np.array(["a", "b", "c", "b"] * 10)
    data = study(group=groups)
    result = image_to_image(**data)
    for name, block in result["by_group"].items():
        alone = image_to_image(**{key: data[key][groups == name] for key in COLUMNS}, n_resamples=10)
        names = (*ESTIMATES, *P_VALUES, "n_pairs")
        assert {key: block[key] for key in names} == pytest.approx({key: alone[key] for key in names})
    for name in P_VALUES:
        adjusted = multipletests([block[name] for block in result["by_group"].values()], method="holm")[1]
        assert [block[f"{name}_holm"] for block in result["by_group"].values()] == pytest.approx(list(adjusted))


def test_what_is_not_given_is_absent_and_named():
    result = image_to_image([1.0, 2.0], [2.0, 4.0], n_resamples=10)
    absent = {"delta_j", "content_before", "content_after", "content_preservation"}
    assert set(result["notes"]) == absent
    assert not absent & set(result)
    assert result["coverage"] == dict.fromkeys(COLUMNS, 0.0) | {"r_input_po": 1.0, "r_output_po": 1.0}


def test_missing_values_are_left_out_row_by_row():
    ones = [1.0] * 11
    result = image_to_image(
        [1.0, 2.0, None, 4.0],
        [2.0, None, 6.0, 4.0],
        content_input=[100, None, 20, 0],
        content_output=[50, 90, None, 0],
        j_input=[ones, ones, None, [None, *ones[1:]]],
        j_output=[[1.5] * 11, [0.5] * 11, ones, ones],
        n_resamples=50,
    )
    assert (result["delta_reward"], result["reward_after"], result["polished_rate"]) == (0.5, 4, 0.5)
    assert (result["content_before"], result["content_after"], result["content_preservation"]) == (50, 25, 0.5)
    assert result["delta_j"] == 0
    assert result["coverage"] == {
        "r_input_po": 0.75,
        "r_output_po": 0.75,
        "j_input": 0.5,
        "j_output": 1,
        "content_input": 0.75,
        "content_output": 0.75,
    }
    assert (result["wilcoxon_r"], result["wilcoxon_p"]) == (pytest.approx(-(0.5**0.5)), 0.5)


def test_a_figure_that_rests_on_one_prompt_has_no_interval():
    result = image_to_image(
        [1.0, None, None], [3.0, 1.0, 2.0], content_input=[50, 60, None], content_output=[40, None, 1], n_resamples=20
    )
    for name in ("delta_reward", "polished_rate", "wilcoxon_r", "content_preservation"):
        assert name in result
        assert f"{name}_ci_low" not in result
    assert "reward_after_ci_low" in result


def test_an_input_without_content_has_no_preservation():
    result = image_to_image([1.0, 2.0], [2.0, 4.0], content_input=[0, 0], content_output=[10, 20], n_resamples=10)
    assert "content_preservation" not in result
    assert "content_input (above 0 on average)" in result["notes"]["content_preservation"]
    assert result["content_after"] == 15


def test_an_unchanged_image_is_not_polished():
    values = np.arange(30.0)
    result = image_to_image(values, values, n_resamples=20)
    assert (result["delta_reward"], result["polished_rate"], result["tie_rate"]) == (0, 0, 1)
    for name in ("wilcoxon_r", *P_VALUES):
        assert name not in result
        assert "difference other than 0" in result["notes"][name]


def test_no_reward_at_all():
    result = image_to_image([None, None], [None, None], content_input=[50, 50], content_output=[25, 25], n_resamples=10)
    assert result["content_preservation"] == 0.5
    assert not {"delta_reward", "reward_after", "polished_rate", "wilcoxon_r", "wilcoxon_p"} & set(result)


def test_one_pair():
    result = image_to_image([1.0], [2.0])
    assert (result["delta_reward"], result["polished_rate"], result["wilcoxon_p"]) == (1, 1, 0.5)
    assert not [name for name in result if name.endswith("_ci_low")]


def test_a_prompt_with_several_images_counts_once_in_the_test():
    before, after = np.zeros(6), np.array([3.0, -1.0, 2.0, 2.0, 4.0, 1.0])
    result = image_to_image(before, after, prompt_id=[0, 0, 1, 1, 2, 2], image_seed=[0, 1] * 3, n_resamples=10)
    assert (result["n_pairs"], result["n_prompts"], result["wilcoxon_p"]) == (6, 3, 0.125)


@pytest.mark.parametrize("kind", [list, lambda values: np.array(values, dtype=np.float32)])
def test_lists_and_arrays_give_the_same(kind):
    data = study(16)
    data |= {name: np.round(data[name] * 8) / 8 for name in COLUMNS}
    assert image_to_image(**data | {name: kind(data[name]) for name in COLUMNS}) == image_to_image(**data)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_order_of_rows_does_not_matter(seed):
    data = study(16, seed, prompt_id=np.arange(16) // 2, image_seed=np.arange(16), group=np.arange(16) % 2)
    order = np.random.default_rng(seed).permutation(16)
    shuffled = {name: values if name == "n_resamples" else values[order] for name, values in data.items()}
    one, other = image_to_image(**data), image_to_image(**shuffled)
    assert flat(other) == pytest.approx(flat(one), abs=1e-9)
    assert flat(other["by_group"]["0"]) == pytest.approx(flat(one["by_group"]["0"]), abs=1e-9)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_swapping_input_and_output_flips_the_signs(seed):
    data = study(20, seed)
    swapped = data | {
        name: data[name.replace("input", "output") if "input" in name else name.replace("output", "input")]
        for name in COLUMNS
    }
    one, other = image_to_image(**data), image_to_image(**swapped)
    for name in ("delta_reward", "delta_j", "wilcoxon_r"):
        assert other[name] == pytest.approx(-one[name])
        assert other[f"{name}_ci_low"] == pytest.approx(-one[f"{name}_ci_high"])
    assert other["polished_rate"] == pytest.approx(1 - one["polished_rate"] - one["tie_rate"])
    assert other["content_preservation"] == pytest.approx(1 / one["content_preservation"])


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(-3, 3), st.integers(-50, 50))
def test_scale_and_shift_of_the_rewards(seed, power, shift):
    data = study(20, seed)
    names = ("r_input_po", "r_output_po")
    data |= {name: np.round(data[name] * 1024) / 1024 for name in names}
    moved = data | {name: data[name] * 2.0**power + shift for name in names}
    one, other = image_to_image(**data), image_to_image(**moved)
    assert other["delta_reward"] == pytest.approx(one["delta_reward"] * 2.0**power)
    for name in ("polished_rate", "tie_rate", "wilcoxon_r", "wilcoxon_p"):
        assert other[name] == pytest.approx(one[name], abs=1e-12)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 4))
def test_repeating_every_row_of_a_prompt_narrows_nothing(seed, copies):
    data = study(16, seed, prompt_id=np.arange(16), image_seed=np.arange(16))
    again = {name: values if name == "n_resamples" else list(values) * copies for name, values in data.items()}
    again["image_seed"] = np.arange(16 * copies)
    one, other = flat(image_to_image(**data)), flat(image_to_image(**again))
    same = [name for name in one if "wilson" not in name and name != "n_pairs"]
    assert {name: other[name] for name in same} == pytest.approx({name: one[name] for name in same}, abs=1e-9)


GOOD = {"r_input_po": [2.0, 3.0], "r_output_po": [1.0, 1.0], "n_resamples": 5}


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"r_input_po": [], "r_output_po": []}, "r_input_po: expected at least one row, got none"),
        ({"r_output_po": [1.0]}, "r_output_po: expected 2 rows like the other columns, got 1"),
        ({"r_output_po": [1.0, float("nan")]}, r"r_output_po, row 1 \(counted from 0\): .* finite number, got nan"),
        ({"r_input_po": [float("inf"), 1.0]}, r"r_input_po, row 0 .* got inf"),
        ({"content_input": [101, 0]}, r"content_input, row 0 .*from 0 to 100, or None, got 101"),
        ({"j_output": [[1.0] * 11, [1.0] * 10]}, r"j_output, row 1 .*a list of 11 numbers"),
        ({"j_input": [[3.0] * 11, None]}, r"j_input, row 0 .*numbers from 0 to 2"),
        ({"group": ["a", None]}, r"group, row 1 .*non-empty name"),
        ({"prompt_id": [1, 1]}, r"row 1 .*repeats the key of row 0 \(prompt_id=1\)"),
        ({"prompt_id": [1, 1], "group": [1, 1], "image_seed": [0, 0]}, r"repeats .*group=1, image_seed=0"),
        ({"n_resamples": 0}, "n_resamples: expected a whole number of at least 1"),
    ],
)
def test_bad_input_gives_one_sentence(bad, message):
    with pytest.raises(ValueError, match=message) as caught:
        image_to_image(**GOOD | bad)
    assert "\n" not in str(caught.value)
