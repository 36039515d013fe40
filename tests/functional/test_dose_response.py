"""Dose and response against scipy's regression and rank correlation, one series at a time."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from widespectrum.functional import cluster_means, dose_response

KINDS = ("slope", "spearman")
SLOPES = ("slope_requested", "slope_unrequested", "slope_difference")
RHOS = ("spearman_requested", "spearman_unrequested", "spearman_difference")
STANDARDISED = tuple(f"{name}_standardised" for name in SLOPES)


def sample(seed, n_series=12, n_prompts=5, strengths=(0, 1, 2, 3, 4), digits=None):
    """Rows of series that fall with strength, less so when requested; with few digits there are ties."""
    rng = np.random.default_rng(seed)
    own = rng.normal(0, 2, n_series)
    rows = [(k, asked, s) for k in range(n_series) for asked in (1, 0) for s in strengths]
    series, requested, strength = np.array(rows, dtype=float).T
    trend = np.where(requested == 1, 0.1, -0.6) + rng.normal(0, 0.3, n_series)[series.astype(int)]
    reward = own[series.astype(int)] + trend * strength + rng.normal(0, 0.5, len(rows))
    return {
        "reward": reward if digits is None else np.round(reward, digits),
        "strength": strength,
        "requested": requested,
        "series": series.astype(int),
        "prompt_id": (series % n_prompts).astype(int),
    }


def take(rows, chosen):
    return {name: np.asarray(column)[chosen] for name, column in rows.items()}


def rho(strength, reward):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.ConstantInputWarning)
        return stats.spearmanr(strength, reward).statistic if len(reward) > 1 else np.nan


def by_hand(rows):
    """Per series the slopes, the rhos and the unrequested reward at strength 0, each NaN where there is none."""
    found = []
    for name in np.unique(rows["series"]):
        own = {}
        for asked, word in ((1, "requested"), (0, "unrequested")):
            part = take(rows, (rows["series"] == name) & (rows["requested"] == asked))
            x, y = part["strength"], part["reward"]
            own[f"slope_{word}"] = stats.linregress(x, y).slope if len(x) > 1 else np.nan
            own[f"spearman_{word}"] = rho(x, y)
            own["unedited"] = y[x == 0][0] if (x == 0).any() else np.nan  # the last one is the unrequested
        own |= {f"{kind}_difference": own[f"{kind}_requested"] - own[f"{kind}_unrequested"] for kind in KINDS}
        found.append(own)
    return {name: np.array([own[name] for own in found]) for name in found[0]}


def estimates(columns):
    """The estimates that follow from the columns of `by_hand`."""
    known = {name: column[~np.isnan(column)] for name, column in columns.items()}
    values = {name: known[name].mean() for name in (*SLOPES, *RHOS) if len(known[name])}
    if len(known["slope_requested"]):
        values["respects_request_rate"] = np.mean(known["slope_requested"] >= -1e-12)
    if len(known["unedited"]) > 1:
        values["reward_spread"] = spread = np.std(known["unedited"], ddof=1)
        values |= {f"{name}_standardised": values[name] / spread for name in SLOPES if spread > 0 and name in values}
    return values


def assert_equals(result, expected):
    names = {*SLOPES, *RHOS, *STANDARDISED, "respects_request_rate", "reward_spread"}
    assert {name for name in names if name in result} == set(expected)
    assert names - set(expected) == names & set(result["notes"])
    for name, value in expected.items():
        assert result[name] == pytest.approx(value, rel=1e-9, abs=1e-12), name


def gappy(rows, seed):
    """The rows without a third of them: series of all lengths, some without a prompt or without strength 0."""
    return take(rows, np.random.default_rng(seed).random(len(rows["reward"])) < 0.67)


@pytest.mark.parametrize("digits", [None, 0])
@pytest.mark.parametrize("seed", range(4))
def test_it_is_scipy_in_a_loop(seed, digits):
    for rows in (whole := sample(seed, digits=digits), gappy(whole, seed)):
        assert_equals(dose_response(**rows, n_resamples=20), estimates(by_hand(rows)))


@pytest.mark.parametrize(
    "reward",
    [
        [1, 2, 3, 3, 2, 1],
        [5, 5, 5, 5, 5, 5],
        [0.1, 0.1, 0.1, 0.3, 0.2, 0.2],
        [1e9, 1e9 + 1e-4, 1e9 + 3e-4, 1, 2, 4],
        [-1e-9, 0, 1e-9, 0, 0, 1],
    ],
)
def test_one_series_has_everything_but_a_spread_and_intervals(reward):
    rows = {"reward": np.array(reward, dtype=float), "strength": np.array([0, 1, 2] * 2)}
    rows |= {"requested": np.array([1, 1, 1, 0, 0, 0]), "series": np.array(["one"] * 6)}
    result = dose_response(**rows, n_resamples=10)
    assert_equals(result, estimates(by_hand(rows)))
    assert (result["n_pairs"], result["n_prompts"]) == (1, 1)
    assert not any(key.endswith(("_ci_low", "_ci_high")) for key in result)
    assert result["notes"]["slope_requested_ci"].startswith("no interval")


def test_a_single_row_has_no_estimate_and_every_reason():
    result = dose_response([1.0], [0], [1], series=["one"], n_resamples=10)
    assert_equals(result, {})
    assert all(result["notes"][name].startswith("undefined: it needs") for name in (*SLOPES, *RHOS, *STANDARDISED))


def test_uneven_steps_unsorted_rows_and_negative_rewards():
    rows = {"reward": np.array([-3.0, -7, -1, -2.5, -2.5, -9]), "strength": np.array([0.5, 0, 4, 4, 0, 0.5])}
    rows |= {"requested": np.array([1, 1, 1, 0, 0, 0]), "series": np.zeros(6, dtype=int)}
    assert_equals(dose_response(**rows, n_resamples=10), estimates(by_hand(rows)))


def constant(rows, value=0.1):
    return rows | {"reward": np.full(len(rows["reward"]), value)}


def test_a_constant_model_respects_nothing_but_is_not_blamed():
    result = dose_response(**constant(sample(0)), n_resamples=50)
    assert [result[name] for name in SLOPES] == [0, 0, 0]
    assert result["respects_request_rate"] == 1
    assert result["reward_spread"] == 0
    assert not {*RHOS, *STANDARDISED} & set(result)
    assert "12 of 12 series have slope 0 when requested" in result["cautions"]["respects_request_rate"]


def blind(rows):
    """The same rewards with and without the request."""
    reward = rows["reward"].reshape(-1, 2, 5)
    return rows | {"reward": np.repeat(reward[:, :1], 2, axis=1).ravel()}


@pytest.mark.parametrize("seed", range(5))
def test_a_blind_model_has_no_difference_at_all_in_any_order_of_its_rows(seed):
    rows = blind(sample(seed))
    shuffled = take(rows, np.random.default_rng(seed).permutation(len(rows["reward"])))
    result = dose_response(**shuffled, n_resamples=50)
    for name in ("slope_difference", "spearman_difference", "slope_difference_standardised"):
        assert [result[f"{name}{end}"] for end in ("", "_ci_low", "_ci_high")] == [0, 0, 0]
    assert result["slope_requested"] == result["slope_unrequested"] != 0


@pytest.mark.parametrize("strength", [[0, 1, 2], [0.1, 0.2, 0.3], [0.3, 0.6, 0.9], [1e-3, 2e-3, 3e-3]])
@pytest.mark.parametrize("reward", [[0.1, 0.7, 0.1], [0.7, 0.1, 0.7], [-0.3, -0.1, -0.3]])
def test_up_and_down_again_is_a_slope_of_exactly_0(strength, reward):
    result = dose_response(reward, strength, [1] * 3, series=["one"] * 3, n_resamples=2)
    assert (result["slope_requested"], result["spearman_requested"], result["respects_request_rate"]) == (0, 0, 1)
    assert "1 of 1 series have slope 0" in result["cautions"]["respects_request_rate"]


def test_a_large_offset_costs_no_digits():
    rows = sample(7)
    moved = rows | {"reward": np.round(rows["reward"] * 2**10) / 2**10}
    near, far = (dose_response(**moved | {"reward": moved["reward"] + shift}, n_resamples=20) for shift in (0, 2**40))
    for name in (*SLOPES, *RHOS, *STANDARDISED, "reward_spread"):
        for end in ("", "_ci_low", "_ci_high"):
            assert far[f"{name}{end}"] == pytest.approx(near[f"{name}{end}"], rel=1e-9)


def test_a_resample_without_a_spread_is_counted_and_left_out():
    rows = sample(8, n_series=6, n_prompts=2)
    rows["reward"][(rows["strength"] == 0) & (rows["requested"] == 0)] = [0.1, 0.7] * 3
    drawn = np.random.default_rng([0, 2]).integers(2, size=(50, 2))
    alike = int((drawn[:, 0] == drawn[:, 1]).sum())
    assert 10 < alike < 40
    undefined = dose_response(**rows, n_resamples=50)["undefined_resamples"]
    assert undefined == dict.fromkeys(STANDARDISED, alike)


def test_what_an_oracle_looks_like():
    """1 where the prompt made the image: without effects under the plain prompt, with them under the request."""
    strength = np.tile([0, 1, 2, 3, 4], 6)
    requested = np.repeat([1, 0] * 3, 5)
    reward = ((strength > 0) == (requested == 1)).astype(float)
    result = dose_response(reward, strength, requested, series=np.repeat([0, 1, 2], 10), n_resamples=20)
    assert [result[name] for name in SLOPES] == pytest.approx([0.2, -0.2, 0.4])
    assert result["respects_request_rate"] == 1
    assert "slope_difference_standardised" in result["notes"]


def test_a_random_model_is_near_zero():
    rng = np.random.default_rng(0)
    rows = sample(0, n_series=400, n_prompts=400)
    result = dose_response(**rows | {"reward": rng.random(len(rows["reward"]))}, n_resamples=200)
    for name in (*SLOPES, *RHOS):
        assert result[f"{name}_ci_low"] < 0 < result[f"{name}_ci_high"]
    assert result["respects_request_rate"] == pytest.approx(0.5, abs=0.1)  # four standard errors


def test_what_is_left_out_is_counted():
    rows = sample(1, n_series=4)
    rows["reward"][rows["series"] == 0] = 2.0
    lost = (rows["series"] == 1) & (rows["requested"] == 0) & (rows["strength"] > 0)
    result = dose_response(**take(rows, ~lost), n_resamples=20)
    assert_equals(result, estimates(by_hand(take(rows, ~lost))))
    cautions = result["cautions"]
    assert "slope_requested" not in cautions
    assert cautions["slope_unrequested"] == "1 of 4 series left out: one needs rewards at two strengths, unrequested"
    assert cautions["spearman_requested"].startswith("1 of 4 series left out: one needs rewards at two strengths that")
    assert cautions["spearman_difference"].startswith("2 of 4 series")
    assert cautions["respects_request_rate"].startswith("1 of 4 series have slope 0")
    assert "n_prompts" in cautions


def test_intervals_resample_the_prompts():
    rows = sample(3, n_series=40, n_prompts=11)
    result = dose_response(**rows, n_resamples=300, seed=5, confidence_level=0.9)
    columns = by_hand(rows)
    prompts = rows["prompt_id"][:: len(rows["reward"]) // 40]
    for name in (*SLOPES, *RHOS):
        means = cluster_means(columns[name][:, None], prompts, n_resamples=300, seed=5, confidence_level=0.9)
        assert result[f"{name}_ci_low"] == pytest.approx(means.low[0], rel=1e-9)
        assert result[f"{name}_ci_high"] == pytest.approx(means.high[0], rel=1e-9)
    assert (result["n_pairs"], result["n_prompts"]) == (40, 11)


def test_the_spread_is_resampled_with_the_slope():
    n, rng = 15, np.random.default_rng([5, 15])
    rows = sample(3, n_series=n, n_prompts=n)
    columns = by_hand(rows)
    drawn = [rng.integers(n, size=(1, n))[0] for _ in range(100)]
    ratios = [columns["slope_requested"][k].mean() / np.std(columns["unedited"][k], ddof=1) for k in drawn]
    result = dose_response(**rows, n_resamples=100, seed=5)
    ends = [result[f"slope_requested_standardised_ci_{end}"] for end in ("low", "high")]
    assert ends == pytest.approx(np.quantile(ratios, [0.025, 0.975]), rel=1e-9)
    bca = dose_response(**rows, n_resamples=100, seed=5, interval="bca")
    assert bca["slope_requested_standardised_ci_low"] != ends[0]


def test_every_dimension_has_its_series():
    rows = sample(4)
    names = {0: ["blur", "dark"], 1: "blur", 2: ("dark",)}
    dimension = [names[k % 3] for k in rows["series"]]
    result = dose_response(**rows, dimension=dimension, n_resamples=30)
    for name, members in (("blur", (0, 1)), ("dark", (0, 2))):
        part = take(rows, np.isin(rows["series"] % 3, members))
        block = result["by_dimension"][name]
        assert_equals(block, estimates(by_hand(part)))
        assert block["n_pairs"] == 8
        assert block["slope_requested_ci_low"] <= block["slope_requested"] <= block["slope_requested_ci_high"]
    assert list(result["by_dimension"]) == ["blur", "dark"]
    del result["by_dimension"]
    assert result == dose_response(**rows, n_resamples=30)


def test_lists_arrays_float32_and_booleans_give_the_same():
    rows = sample(5, digits=1)
    rows["reward"] = rows["reward"].astype(np.float32).astype(np.float64)
    expected = dose_response(**rows, n_resamples=30)
    assert dose_response(**{name: list(column) for name, column in rows.items()}, n_resamples=30) == expected
    other = {"reward": rows["reward"].astype(np.float32), "requested": rows["requested"] == 1}
    other["strength"] = rows["strength"].astype(int)
    assert dose_response(**rows | other, n_resamples=30) == expected


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_invariances(seed, with_ties):
    rng = np.random.default_rng(seed)
    rows = gappy(sample(seed, n_series=6, digits=0 if with_ties else None), seed)
    if not len(rows["reward"]):
        return
    base = dose_response(**rows, n_resamples=25)
    assert dose_response(**take(rows, rng.permutation(len(rows["reward"]))), n_resamples=25) == base
    swapped = dose_response(**rows | {"requested": 1 - rows["requested"]}, n_resamples=25)
    moved = dose_response(**rows | {"reward": 4 * rows["reward"] - 3}, n_resamples=25)
    steeper = dose_response(**rows | {"strength": rows["strength"] / 2}, n_resamples=25)
    for kind in KINDS:
        for one, other, sign in (("requested", "unrequested", 1), ("difference", "difference", -1)):
            value = base.get(f"{kind}_{one}")
            assert swapped.get(f"{kind}_{other}") == (None if value is None else pytest.approx(sign * value))
    for name in (*SLOPES, *RHOS, *STANDARDISED, "respects_request_rate"):
        value = base.get(name, np.nan)
        assert moved.get(name, np.nan) == pytest.approx(value * (4 if name in SLOPES else 1), rel=1e-9, nan_ok=True)
        times = 2 if name.startswith("slope") else 1
        assert steeper.get(name, np.nan) == pytest.approx(value * times, rel=1e-9, nan_ok=True)


def test_a_second_copy_of_every_series_narrows_nothing():
    rows = sample(6)
    twice = {name: np.concatenate([column, column]) for name, column in rows.items()}
    twice["series"] = np.concatenate([rows["series"], rows["series"] + 100])
    one, two = dose_response(**rows, n_resamples=50), dose_response(**twice, n_resamples=50)
    for name in (*SLOPES, *RHOS, "respects_request_rate"):
        for end in ("", "_ci_low", "_ci_high"):
            assert two[f"{name}{end}"] == pytest.approx(one[f"{name}{end}"], rel=1e-12, abs=1e-15)


GOOD = {"reward": [1.0, 2, 3, 4], "strength": [0, 1, 0, 1], "requested": [1, 1, 0, 0], "series": ["a"] * 4}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reward": []}, "reward: expected at least one row, got none"),
        ({"reward": [1, 2, np.nan, 4]}, r"reward, row 2 \(counted from 0\): expected a finite number, got nan"),
        ({"reward": [1, np.inf, 3, 4]}, r"reward, row 1 .*: expected a finite number, got inf"),
        ({"reward": [1, 2, 3, None]}, "reward, row 3 .*: expected a finite number, got None"),
        ({"strength": [0, 1, 2]}, "strength: expected 4 rows like the other columns, got 3"),
        ({"strength": [0, "1", 0, 1]}, "strength, row 1 .*: expected a finite number, got '1'"),
        ({"requested": [1, 1, 0, 2]}, r"requested, row 3 .*: expected true or false, or 1 or 0, got 2.0"),
        ({"series": ["a", "a", "", "a"]}, "series, row 2 .*: expected a non-empty name"),
        ({"strength": [0, 1, 1, 1]}, r"row 3 .* repeats the key of row 2 \(series='a', requested=0, strength=1.0\)"),
        ({"prompt_id": [1, 1, 1, 2]}, "prompt_id, row 3 .*: expected 1 as in row 0 of the same series 'a', got 2"),
        ({"dimension": ["x", "x", "y", "x"]}, r"dimension, row 2 .*: expected \('x',\) as in row 0 .*, got \('y',\)"),
        ({"dimension": ["x", [], "x", "x"]}, "dimension, row 1 .*: expected a name or a non-empty list .*, got \\[\\]"),
        ({"dimension": ["x", 3, "x", "x"]}, "dimension, row 1 .*: expected a name or a non-empty list of names, got 3"),
        ({"dimension": [["x", ""]] * 4}, "dimension, row 0 .*: expected a name or a non-empty list"),
        ({"dimension": ["x"] * 3}, "dimension: expected 4 rows like the other columns, got 3"),
        ({"n_resamples": 0}, "n_resamples: expected a whole number of at least 1"),
        ({"interval": "normal"}, "interval: expected one of percentile, bca"),
    ],
)
def test_bad_input_is_named_in_one_sentence(change, message):
    with pytest.raises(ValueError, match=message) as caught:
        dose_response(**GOOD | change)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("order", [["y", "x"], ("x", "y", "x"), np.array(["x", "y"])])
def test_the_order_of_the_names_of_dimensions_does_not_matter(order):
    result = dose_response(**GOOD, dimension=[["x", "y"], order, ["x", "y"], order], n_resamples=5)
    assert list(result["by_dimension"]) == ["x", "y"]
