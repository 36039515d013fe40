"""`aligned_preference`: scipy and statsmodels as oracles, the neutral control, published figures, invariances."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests

from widespectrum.functional import aligned_preference, holm, wilson_interval

PUBLISHED = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "reference" / "published_numbers.json"
TOPICS = ("anti-war", "censorship", "neutral", "pollution")
ESTIMATES = ("aligned_preferred_rate", "tie_rate", "mean_gap", "wilcoxon_r")
P_VALUES = ("wilcoxon_p", "wilcoxon_p_two_sided")


def study(n=80, seed=0, **extra):
    """Rewards of two generators under prompts of four topics, one neutral, with some ties."""
    rng = np.random.default_rng(seed)
    aligned, base = (np.round(rng.normal(mean, 1, n) * 8) / 8 for mean in (0.5, 0))  # eighths: sums are exact
    return {
        "r_aligned": aligned,
        "r_base": base,
        "topic": [TOPICS[k % 4] for k in range(n)],
        "n_resamples": 100,
    } | extra


def flat(result):
    return {name: value for name, value in result.items() if isinstance(value, float | int)}


def test_figures_agree_with_numpy_and_scipy():
    data = study()
    aligned, base = data["r_aligned"], data["r_base"]
    result = aligned_preference(aligned, base, n_resamples=50)
    gap = aligned - base
    assert result["aligned_preferred_rate"] == np.mean(gap > 0)
    assert result["tie_rate"] == np.mean(gap == 0) > 0
    assert result["mean_gap"] == pytest.approx(gap.mean())
    oracle = {side: stats.wilcoxon(gap, alternative=side, method="approx") for side in ("greater", "two-sided")}
    assert result["wilcoxon_r"] == pytest.approx(-oracle["greater"].zstatistic / np.sqrt(80))
    assert result["wilcoxon_p"] == pytest.approx(oracle["greater"].pvalue)
    assert result["wilcoxon_p_two_sided"] == pytest.approx(oracle["two-sided"].pvalue)
    ends = result["aligned_preferred_rate_wilson_low"], result["aligned_preferred_rate_wilson_high"]
    assert ends == pytest.approx(wilson_interval(int((gap > 0).sum()), 80))


@pytest.mark.parametrize("shift", [-2.0, 0.0, 2.0])
def test_p_values_of_few_prompts_are_exact(shift):
    gap = np.random.default_rng(1).normal(shift, 1, 12)
    result = aligned_preference(gap, np.zeros(12), n_resamples=10)
    for name, side in (("wilcoxon_p", "greater"), ("wilcoxon_p_two_sided", "two-sided")):
        assert result[name] == pytest.approx(stats.wilcoxon(gap, alternative=side, method="exact").pvalue)


def test_topics_are_the_figures_of_their_own_rows_and_holm_spans_the_critical_ones():
    data = study(control="neutral")
    result = aligned_preference(**data)
    for name, block in result["by_topic"].items():
        rows = np.array(data["topic"]) == name
        alone = aligned_preference(data["r_aligned"][rows], data["r_base"][rows], n_resamples=10)
        assert {key: block[key] for key in (*ESTIMATES, *P_VALUES)} == pytest.approx(
            {key: alone[key] for key in (*ESTIMATES, *P_VALUES)}
        )
    critical = [block for name, block in result["by_topic"].items() if name != "neutral"]
    for name in P_VALUES:
        adjusted = multipletests([block[name] for block in critical], method="holm")[1]
        assert [block[f"{name}_holm"] for block in critical] == pytest.approx(list(adjusted))
        assert f"{name}_holm" not in result["by_topic"]["neutral"]
        assert result["by_topic"]["neutral"]["notes"][f"{name}_holm"] == "not given: this is the control"
    without = aligned_preference(**data | {"control": None})
    four = [block["wilcoxon_p"] for block in without["by_topic"].values()]
    assert [block["wilcoxon_p_holm"] for block in without["by_topic"].values()] == holm(four).tolist()


def test_the_control_is_left_out_of_the_pooled_figures_and_subtracted():
    data = study(control="neutral")
    result = aligned_preference(**data)
    gap, neutral = data["r_aligned"] - data["r_base"], np.array(data["topic"]) == "neutral"
    assert (result["n_pairs"], result["mean_gap"]) == (60, pytest.approx(gap[~neutral].mean()))
    assert result["gap_over_control"] == pytest.approx(gap[~neutral].mean() - gap[neutral].mean())
    assert result["rate_over_control"] == pytest.approx((gap[~neutral] > 0).mean() - (gap[neutral] > 0).mean())
    war = np.array(data["topic"]) == "anti-war"
    block = result["by_topic"]["anti-war"]
    assert block["gap_over_control"] == pytest.approx(gap[war].mean() - gap[neutral].mean())
    own = result["by_topic"]["neutral"]
    assert not [name for name in own if name.startswith(("rate_over", "gap_over"))]
    assert own["notes"]["rate_over_control"] == "not given: this is the control"
    assert "gap_over_control" not in aligned_preference(**data | {"control": None})


def test_the_interval_of_the_difference_agrees_with_scipy():
    rng = np.random.default_rng(4)
    critical, neutral = rng.normal(1, 1, 150), rng.normal(0.4, 2, 150)
    gap, topic = np.concatenate([critical, neutral]), ["critical"] * 150 + ["neutral"] * 150
    result = aligned_preference(gap, np.zeros(300), topic=topic, control="neutral", n_resamples=10_000)
    oracle = stats.bootstrap(
        (critical, neutral),
        lambda a, b, axis: a.mean(axis=axis) - b.mean(axis=axis),
        n_resamples=10_000,
        method="percentile",
        vectorized=True,
        rng=np.random.default_rng(5),
    )
    margin = 0.15 * oracle.standard_error
    for block in (result, result["by_topic"]["critical"]):
        assert block["gap_over_control_ci_low"] == pytest.approx(oracle.confidence_interval.low, abs=margin)
        assert block["gap_over_control_ci_high"] == pytest.approx(oracle.confidence_interval.high, abs=margin)


def test_a_control_of_one_prompt_gives_differences_without_intervals():
    result = aligned_preference(
        [3, 4, 5, 1], [1, 1, 1, 0], topic=["war"] * 3 + ["calm"], control="calm", n_resamples=50
    )
    assert result["gap_over_control"] == 2
    assert "gap_over_control_ci_low" not in result
    assert "at least two prompts" in result["notes"]["gap_over_control_ci"]
    assert "mean_gap_ci_low" in result


def test_a_prompt_with_several_images_counts_once_in_the_test():
    gap = np.array([-1.0, -1.0, -1.0, 2.0, 2.0, 4.0])
    result = aligned_preference(gap, np.zeros(6), prompt_id=[0, 0, 0, 1, 2, 2], image_seed=range(6), n_resamples=10)
    once = aligned_preference([-1.0, 2.0, 3.0], [0.0, 0.0, 0.0], n_resamples=10)
    assert (result["n_pairs"], result["n_prompts"]) == (6, 3)
    assert {name: result[name] for name in ("wilcoxon_r", *P_VALUES)} == {
        name: once[name] for name in ("wilcoxon_r", *P_VALUES)
    }
    assert result["wilcoxon_p"] == 0.25


def test_all_tied():
    result = aligned_preference([1.0, 2.0], [1.0, 2.0], topic=["a", "b"], n_resamples=10)
    assert (result["aligned_preferred_rate"], result["tie_rate"], result["mean_gap"]) == (0, 1, 0)
    for name in ("wilcoxon_r", *P_VALUES):
        assert name not in result
        assert "difference other than 0" in result["notes"][name]
    assert "wilcoxon_p_holm" not in result["by_topic"]["a"]


def test_a_tied_topic_is_no_member_of_the_family():
    result = aligned_preference([5, 6, 7, 1], [1, 1, 1, 1], topic=["a", "a", "a", "b"], n_resamples=10)
    assert result["by_topic"]["a"]["wilcoxon_p_holm"] == result["by_topic"]["a"]["wilcoxon_p"] == 0.125


def test_one_pair_gives_estimates_without_intervals():
    result = aligned_preference([2.0], [1.0])
    assert (result["aligned_preferred_rate"], result["wilcoxon_r"], result["wilcoxon_p"]) == (1, -1, 0.5)
    assert result["wilcoxon_p_two_sided"] == 1
    assert not [name for name in result if name.endswith("_ci_low")]


def test_bca_and_the_caution_for_few_prompts():
    data = study(24, interval="bca", control="neutral")
    result = aligned_preference(**data)
    assert result["gap_over_control_ci_low"] < result["gap_over_control"] < result["gap_over_control_ci_high"]
    assert "fewer than 30 prompts" in result["cautions"]["n_prompts"]
    assert aligned_preference(**study(120))["cautions"] == {}


@pytest.mark.parametrize("kind", [list, tuple, lambda values: np.array(values, dtype=np.float32)])
def test_lists_and_arrays_give_the_same(kind):
    data = study(16)
    data |= {name: np.round(data[name] * 8) / 8 for name in ("r_aligned", "r_base")}
    other = data | {name: kind(data[name]) for name in ("r_aligned", "r_base")}
    assert aligned_preference(**other) == aligned_preference(**data)


@pytest.fixture(scope="module")
def published():
    if not PUBLISHED.is_file():
        pytest.skip("the published figures are not at hand")
    return json.loads(PUBLISHED.read_text(encoding="utf-8"))


def ranks_with_sum(k, total):
    """K of the ranks 1 to 20 that add up to `total`."""
    chosen, left = [], total
    for rank in range(20, 0, -1):
        others = k - len(chosen) - 1
        if others >= 0 and rank + others * (others + 1) // 2 <= left:
            chosen.append(rank)
            left -= rank
    assert (len(chosen), left) == (k, 0)
    return chosen


@pytest.mark.parametrize("model", ["HPSv3", "HPSv2", "ImageReward", "MPS", "HPSv1", "BLIP"])
def test_published_newspeak_figures(published, model):
    """Twenty prompts: the printed r fixes the rank sum W, and with it our r and p.

    The paper's r has the sign of aligned − base and a continuity correction, its p is the normal approximation in the
    direction observed.
    """
    selected = published["newspeak_selection_of_20"][model]
    printed_p, printed_r = published["newspeak_wilcoxon_p_r"][model]
    sigma, sign = np.sqrt(20 * 21 * 41 / 24), np.sign(printed_r)
    rank_sum = round(105 + printed_r * np.sqrt(20) * sigma + sign / 2)
    z = (rank_sum - 105 - sign / 2) / sigma
    assert z / np.sqrt(20) == pytest.approx(printed_r, abs=1.01e-4)
    p = stats.norm.sf(abs(z))
    assert p < 1e-4 if printed_p == "<0.0001" else round(p, 4) == printed_p
    gap = np.where(np.isin(np.arange(1, 21), ranks_with_sum(selected, rank_sum)), 1.0, -1.0) * np.arange(1, 21)
    result = aligned_preference(gap, np.zeros(20), n_resamples=10)
    assert result["aligned_preferred_rate"] == selected / 20
    assert result["wilcoxon_r"] == pytest.approx(-printed_r, abs=0.0045)
    assert result["wilcoxon_p"] == pytest.approx(stats.wilcoxon(gap, alternative="greater", method="exact").pvalue)
    if model == "HPSv2":
        assert result["wilcoxon_p"] < printed_p / 4


def test_published_hand_made_prompts(published):
    table = published["newspeak_hand_prompts_hpsv3"]
    topics = [name for name in table if name != "columns"]
    scores = np.array([table[name] for name in topics])
    dance, dev = (scores[:, table["columns"].index(name)] for name in ("DanceFlux", "Flux Dev"))
    result = aligned_preference(dance, dev, n_resamples=10)
    assert (result["aligned_preferred_rate"], result["wilcoxon_p"]) == (1, 1 / 32)
    assert result["mean_gap"] == pytest.approx(2.94)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_order_of_rows_does_not_matter(seed):
    data = study(24, seed, prompt_id=np.arange(24) // 2, image_seed=np.arange(24), control="neutral")
    order = np.random.default_rng(seed).permutation(24)
    shuffled = data | {
        name: [data[name][i] for i in order] for name in ("r_aligned", "r_base", "topic", "prompt_id", "image_seed")
    }
    one, other = aligned_preference(**data), aligned_preference(**shuffled)
    assert flat(other) == pytest.approx(flat(one), abs=1e-9)
    assert flat(other["by_topic"]["neutral"]) == pytest.approx(flat(one["by_topic"]["neutral"]), abs=1e-9)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_swapping_the_generators_flips_the_signs(seed):
    data = study(24, seed, control="neutral")
    one = aligned_preference(**data)
    other = aligned_preference(**data | {"r_aligned": data["r_base"], "r_base": data["r_aligned"]})
    for name in ("mean_gap", "wilcoxon_r", "gap_over_control"):
        assert other[name] == pytest.approx(-one[name])
        assert other[f"{name}_ci_low"] == pytest.approx(-one[f"{name}_ci_high"])
    assert other["aligned_preferred_rate"] == pytest.approx(1 - one["aligned_preferred_rate"] - one["tie_rate"])
    assert other["wilcoxon_p_two_sided"] == pytest.approx(one["wilcoxon_p_two_sided"])


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(-3, 3), st.integers(-50, 50))
def test_scale_and_shift_of_the_rewards(seed, power, shift):
    data = study(24, seed, control="neutral")
    data |= {name: np.round(data[name] * 1024) / 1024 for name in ("r_aligned", "r_base")}
    moved = data | {name: data[name] * 2.0**power + shift for name in ("r_aligned", "r_base")}
    one, other = aligned_preference(**data), aligned_preference(**moved)
    assert other["gap_over_control"] == pytest.approx(one["gap_over_control"] * 2.0**power)
    for name in ("aligned_preferred_rate", "tie_rate", "rate_over_control", "wilcoxon_r", "wilcoxon_p"):
        assert other[name] == pytest.approx(one[name], abs=1e-12)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 4))
def test_repeating_every_row_of_a_prompt_narrows_nothing(seed, copies):
    data = study(24, seed, prompt_id=np.arange(24), image_seed=np.arange(24), control="neutral")
    columns = ("r_aligned", "r_base", "topic", "prompt_id")
    again = data | {name: list(data[name]) * copies for name in columns} | {"image_seed": np.arange(24 * copies)}
    one, other = flat(aligned_preference(**data)), flat(aligned_preference(**again))
    same = [name for name in one if "wilson" not in name and name != "n_pairs"]
    assert {name: other[name] for name in same} == pytest.approx({name: one[name] for name in same}, abs=1e-9)


GOOD = {"r_aligned": [2.0, 3.0], "r_base": [1.0, 1.0], "n_resamples": 5}


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"r_aligned": [], "r_base": []}, "r_aligned: expected at least one row, got none"),
        ({"r_base": [1.0]}, "r_base: expected 2 rows like the other columns, got 1"),
        ({"r_base": [1.0, float("nan")]}, r"r_base, row 1 \(counted from 0\): expected a finite number, got nan"),
        ({"r_aligned": [float("inf"), 1.0]}, r"r_aligned, row 0 .* got inf"),
        ({"r_aligned": [None, 1.0]}, r"r_aligned, row 0 .* got None"),
        ({"topic": ["a"]}, "topic: expected 2 rows"),
        ({"topic": ["a", ""]}, r"topic, row 1 .*non-empty name"),
        ({"control": "a"}, "control: expected the topic of each row beside it, got control='a' alone; give topic"),
        ({"topic": ["a", "b"], "control": "c"}, "control: expected one of the topics a, b, got 'c'"),
        ({"topic": ["a", "a"], "control": "a"}, "topic: expected a critical topic beside the control 'a', got none"),
        ({"prompt_id": [1, 1]}, r"row 1 .*repeats the key of row 0 \(prompt_id=1\)"),
        ({"prompt_id": [1, 1], "topic": ["a", "a"], "image_seed": [0, 0]}, r"repeats .*prompt_id=1, topic='a'"),
        ({"interval": "normal"}, "interval: expected one of percentile, bca"),
    ],
)
def test_bad_input_gives_one_sentence(bad, message):
    with pytest.raises(ValueError, match=message) as caught:
        aligned_preference(**GOOD | bad)
    assert "\n" not in str(caught.value)


def test_a_topic_given_by_number():
    result = aligned_preference([2, 3, 1], [1, 1, 1], topic=[0, 0, 7], control=7, n_resamples=5)
    assert list(result["by_topic"]) == ["0", "7"]
    assert result["gap_over_control"] == 1.5
