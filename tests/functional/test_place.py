"""`leaderboard_place`: the published place of the LAPIS paintings, numpy and scipy as oracles, invariances."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from widespectrum.functional import cluster_means, leaderboard_place

PUBLISHED = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "reference" / "published_numbers.json"
# HPSv3's own leaderboard as printed by Guo et al. (arXiv 2512.11883), less CoHP (12.84)
HPSV3 = {
    "SD2": -0.24,
    "SD3M": 5.31,
    "Hunyuan-DiT": 8.19,
    "SDXL": 8.20,
    "Gemini": 9.21,
    "PixArt": 9.37,
    "CogView4": 9.61,
    "Infinity": 10.26,
    "Playground": 10.27,
    "Flux-dev": 10.43,
    "Kolors": 10.55,
}


def test_the_published_place_of_lapis_leaves_cohp_out_and_counts_the_paintings_in():
    # published for HPSv3: mean 5.86, s = .57, rank 10/12
    paintings = np.array([5.86 - 3, 5.86 + 3] * 2000)
    result = leaderboard_place(paintings, leaderboard=HPSV3, n_resamples=200)
    assert result["mean_reward"] == pytest.approx(5.86)
    assert round(result["relative_place"], 2) == 0.57
    assert (result["rank"], result["n_places"], result["n_entries"]) == (10, 12, 11)
    assert (result["rank_low"], result["rank_high"]) == (10, 10)
    with_cohp = leaderboard_place(paintings, leaderboard=HPSV3 | {"CoHP": 12.84}, n_resamples=20)
    assert round(with_cohp["relative_place"], 2) == 0.47
    assert (with_cohp["rank"], with_cohp["n_places"]) == (11, 13)


def test_the_leaderboard_typed_in_here_is_the_published_one():
    if not PUBLISHED.is_file():
        pytest.skip("the published figures are not at hand")
    published = json.loads(PUBLISHED.read_text())
    assert published["hpsv3_leaderboard"] == HPSV3 | {"CoHP": 12.84}
    assert [published["lapis"][name] for name in ("hpsv3_mean", "s", "rank")] == [5.86, 0.57, "10/12"]


@pytest.mark.parametrize("seed", range(4))
def test_mean_place_and_rank_agree_with_numpy_and_scipy(seed):
    rng = np.random.default_rng(seed)
    rewards, board = rng.normal(5, 2, 40), {f"m{k}": mean for k, mean in enumerate(rng.normal(5, 1, 9))}
    result = leaderboard_place(rewards, leaderboard=board, n_resamples=300)
    means = np.array([*board.values()])
    assert result["mean_reward"] == pytest.approx(rewards.mean())
    assert result["relative_place"] == pytest.approx((rewards.mean() - means.min()) / (means.max() - means.min()))
    for rank, mean in (
        ("rank", "mean_reward"),
        ("rank_low", "mean_reward_ci_high"),
        ("rank_high", "mean_reward_ci_low"),
    ):
        assert result[rank] == stats.rankdata(-np.append(means, result[mean]), method="min")[-1]
    oracle = cluster_means(rewards[:, None], np.arange(40), n_resamples=300)
    assert (result["mean_reward_ci_low"], result["mean_reward_ci_high"]) == (
        pytest.approx(oracle.low[0]),
        pytest.approx(oracle.high[0]),
    )
    for end in ("low", "high"):
        place = (result[f"mean_reward_ci_{end}"] - means.min()) / np.ptp(means)
        assert result[f"relative_place_ci_{end}"] == pytest.approx(place)


def test_interval_of_the_mean_reward_agrees_with_scipy():
    rewards = np.random.default_rng(1).gumbel(5, 2, 200)
    result = leaderboard_place(rewards, leaderboard=HPSV3, n_resamples=20_000, interval="bca")
    oracle = stats.bootstrap((rewards,), np.mean, n_resamples=20_000, method="BCa", rng=np.random.default_rng(2))
    margin = 0.1 * oracle.standard_error
    assert result["mean_reward_ci_low"] == pytest.approx(oracle.confidence_interval.low, abs=margin)
    assert result["mean_reward_ci_high"] == pytest.approx(oracle.confidence_interval.high, abs=margin)


def test_prompts_are_the_clusters():
    rng = np.random.default_rng(2)
    prompt = np.repeat(np.arange(40), 10)
    rewards = rng.normal(5, 2, 40)[prompt] + rng.normal(0, 0.2, 400)
    clustered = leaderboard_place(rewards, leaderboard=HPSV3, prompt_id=prompt, image_seed=np.tile(np.arange(10), 40))
    plain = leaderboard_place(rewards, leaderboard=HPSV3)
    assert clustered["n_prompts"] == 40
    width = [block["mean_reward_ci_high"] - block["mean_reward_ci_low"] for block in (clustered, plain)]
    assert width[0] / width[1] == pytest.approx(np.sqrt(10), rel=0.15)


def test_place_names_are_all_there_and_no_others():
    result = leaderboard_place(np.arange(40.0), leaderboard=HPSV3, prompt_id=range(40), n_resamples=20)
    expected = {f"{name}{end}" for name in ("mean_reward", "relative_place") for end in ("", "_ci_low", "_ci_high")}
    expected |= {"rank", "rank_low", "rank_high", "n_entries", "n_places", "n_pairs", "n_prompts"}
    assert set(result) == expected | {"coverage", "notes", "cautions", "undefined_resamples"}
    assert result["notes"] == {}
    assert result["coverage"] == {"prompt_id": 1.0, "image_seed": 0.0}


def test_the_place_may_lie_outside_the_leaderboard():
    best = leaderboard_place([20.0, 22.0], leaderboard=HPSV3, n_resamples=20)
    worst = leaderboard_place([-5.0, -6.0], leaderboard=HPSV3, n_resamples=20)
    assert (best["relative_place"] > 1, best["rank"]) == (True, 1)
    assert (worst["relative_place"] < 0, worst["rank"]) == (True, 12)


def test_an_equal_mean_does_not_push_down_even_where_rounding_says_otherwise():
    # the mean of three times 0.7 comes out as 0.6999999999999998
    result = leaderboard_place([0.7] * 3, leaderboard={"a": 0.7, "b": 0.6, "c": 0.8}, n_resamples=20)
    assert result["mean_reward"] < 0.7
    assert [result[name] for name in ("rank", "rank_low", "rank_high")] == [2, 2, 2]


@pytest.mark.parametrize("board", [{"a": 3.0}, {"a": 3.0, "b": 3.0}])
def test_a_leaderboard_without_spread_gives_a_rank_alone(board):
    result = leaderboard_place([1.0, 2.0], leaderboard=board, n_resamples=20)
    assert "relative_place" not in result
    assert result["notes"]["relative_place"] == "undefined: all entries of the leaderboard have one mean"
    assert (result["rank"], result["rank_low"], result["n_places"]) == (len(board) + 1, len(board) + 1, len(board) + 1)


def test_one_image_has_a_rank_without_an_interval():
    result = leaderboard_place([6.0], leaderboard=HPSV3)
    assert (result["rank"], result["mean_reward"]) == (10, 6)
    assert not {"rank_low", "rank_high", "mean_reward_ci_low"} & set(result)
    assert "at least two prompts" in result["notes"]["mean_reward_ci"]
    assert "fewer than 30 prompts" in result["cautions"]["n_prompts"]


def test_lists_arrays_and_number_types_agree_on_the_place():
    expected = leaderboard_place([5.0, 7.5, 2.25], leaderboard={"a": 3.0, "b": 6.0}, n_resamples=50)
    for kind in (tuple, np.float32, np.float64):
        rewards = kind((5.0, 7.5, 2.25)) if kind is tuple else np.array([5.0, 7.5, 2.25], dtype=kind)
        board = {"a": 3, "b": np.float32(6)}
        assert leaderboard_place(rewards, leaderboard=board, n_resamples=50) == expected


@pytest.mark.parametrize(
    ("rewards", "options", "sentence"),
    [
        ([1.0], {"leaderboard": {}}, r"leaderboard: expected names with their published means, got {}"),
        ([1.0], {"leaderboard": [1.0, 2.0]}, r"leaderboard: expected names .*got \[1.0, 2.0\]; give a dictionary"),
        ([1.0], {"leaderboard": {"a": 1.0, "b": np.nan}}, r"leaderboard, entry 'b': expected a finite number, got nan"),
        ([1.0], {"leaderboard": {"a": "1.0"}}, r"leaderboard, entry 'a': expected a finite number, got '1.0'"),
        ([1.0], {"leaderboard": {"a": None}}, r"leaderboard, entry 'a': .*got None"),
        ([1.0], {"leaderboard": {"a": True}}, r"leaderboard, entry 'a': .*got True"),
        ([], {}, r"reward: expected at least one row, got none"),
        ([1.0, np.inf], {}, r"reward, row 1 .*finite number, got inf"),
        ([1.0, None], {}, r"reward, row 1 .*finite number, got None"),
        ([1.0, 2.0], {"prompt_id": [1]}, r"prompt_id: expected 2 rows"),
        ([1.0, 2.0], {"prompt_id": [1, 1]}, r"row 1 .*repeats the key of row 0 \(prompt_id=1\)"),
        ([1.0, 2.0], {"confidence_level": 95}, r"confidence_level: .*got 95"),
    ],
)
def test_leaderboard_place_names_what_is_wrong(rewards, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        leaderboard_place(rewards, **({"leaderboard": HPSV3} | options))


SHARED = ("relative_place", "relative_place_ci_low", "relative_place_ci_high", "rank", "rank_low", "rank_high")


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(-3, 3), st.integers(-50, 50))
def test_order_and_scale_change_neither_place_nor_rank(seed, power, shift):
    rng = np.random.default_rng(seed)
    # scores on a grid and powers of two: the change of scale is exact
    rewards, means = np.round(rng.normal(5, 2, 30) * 1024) / 1024, np.round(rng.normal(5, 1, 6) * 1024) / 1024
    one = leaderboard_place(rewards, leaderboard=dict(enumerate(means)), n_resamples=50)
    moved = {k: mean * 2.0**power + shift for k, mean in reversed([*enumerate(means)])}
    other = leaderboard_place(rewards * 2.0**power + shift, leaderboard=moved, n_resamples=50)
    assert {name: other[name] for name in SHARED} == pytest.approx({name: one[name] for name in SHARED}, abs=1e-9)
    prompt, order = np.arange(30) % 11, rng.permutation(30)
    keys = {"prompt_id": prompt, "image_seed": np.arange(30)}
    whole = leaderboard_place(rewards, leaderboard=HPSV3, **keys, n_resamples=50)
    shuffled = {name: values[order] for name, values in keys.items()}
    again = leaderboard_place(rewards[order], leaderboard=HPSV3, **shuffled, n_resamples=50)
    assert {name: again[name] for name in SHARED} == pytest.approx({name: whole[name] for name in SHARED})


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 4))
def test_repeating_the_images_of_every_prompt_narrows_nothing(seed, copies):
    rewards, prompt = np.random.default_rng(seed).normal(6, 3, 20), np.arange(20) % 9
    keys = {"leaderboard": HPSV3, "n_resamples": 50}
    one = leaderboard_place(rewards, prompt_id=prompt, image_seed=np.arange(20), **keys)
    again = leaderboard_place(
        np.tile(rewards, copies), prompt_id=np.tile(prompt, copies), image_seed=np.arange(20 * copies), **keys
    )
    assert {name: again[name] for name in SHARED} == pytest.approx({name: one[name] for name in SHARED}, abs=1e-9)
