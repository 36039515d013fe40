"""`anti_aesthetic_adherence`: hand-worked values, numpy and scipy as oracles, gaps, invariances."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests

from widespectrum import types
from widespectrum.functional import (
    DIMENSIONS,
    anti_aesthetic_adherence,
    mcnemar_exact,
    wilcoxon_signed_rank,
    wilson_interval,
)
from widespectrum.functional._adherence_rows import ALL_DIMENSIONS

ESTIMATES = [
    "success_rate",
    "delta_reward",
    "reward_after",
    "effect_gain",
    "content_preservation",
    "delta_j_all",
    "delta_j_selected",
    "effect_after",
    "content_after",
    "j_after",
    "j_after_selected",
    "escape_rate",
    "polish_overlap",
    "refusal_rate",
    "failure_rate",
    "wilcoxon_r",
    "wilcoxon_j_r",
]
TESTS = ["wilcoxon_p", "wilcoxon_j_p", "mcnemar_p"]
P_VALUES = [*TESTS, "mcnemar_p_one_sided", *(f"{name}_holm" for name in TESTS)]


def study(n, seed=0, **extra):
    """Every input: a generator that follows half of its prompts, and a base that follows more."""
    rng = np.random.default_rng(seed)
    data = {}
    for end, shift in (("", 0.0), ("_base", -1.0)):
        data |= {f"r_io_po{end}": rng.normal(5, 1, n), f"r_ia_po{end}": rng.normal(4 + shift, 2, n)}
        data |= {f"verdict{end}": rng.choice([0.0, 0.5, 1.0], n), f"status{end}": ["ok"] * n}
        for name in ("effect_io", "effect_ia", "content_io", "content_ia"):
            data[name + end] = rng.uniform(1, 100, n)
        data |= {f"j_io{end}": rng.uniform(0, 2, (n, 11)), f"j_ia{end}": rng.uniform(0, 2, (n, 11))}
    data["dimensions"] = [list(rng.choice(DIMENSIONS, 3, replace=False)) for _ in range(n)]
    return data | {"n_resamples": 100} | extra


def test_the_dimensions_are_those_of_the_records():
    assert DIMENSIONS == types.DIMENSIONS
    assert DIMENSIONS + types.OPTIONAL_DIMENSIONS == ALL_DIMENSIONS


def test_public_names_are_all_there_and_no_others():
    result = anti_aesthetic_adherence(**study(60))
    expected = {f"{name}{end}" for name in ESTIMATES for end in ("", "_ci_low", "_ci_high")} | set(P_VALUES)
    rates = ("success_rate", "refusal_rate", "failure_rate")
    expected |= {f"{name}_wilson_{end}" for name in rates for end in ("low", "high")}
    expected |= {"n_pairs", "n_prompts", "coverage", "notes", "undefined_resamples", "cautions", "by_dimension", "base"}
    assert set(result) == expected
    assert result["notes"] == {}
    assert set(result["coverage"].values()) == {1.0}
    assert list(result["by_dimension"]) == list(DIMENSIONS)
    assert "delta_j_ci_low" in result["by_dimension"]["clarity"]
    assert "wilcoxon_r" not in result["base"]


def test_means_agree_with_numpy():
    data = study(50)
    result = anti_aesthetic_adherence(**data)
    chosen = np.array([[name in row for name in DIMENSIONS] for row in data["dimensions"]])
    delta_j = data["j_ia"] - data["j_io"]
    expected = {
        "success_rate": np.mean(data["verdict"] == 1),
        "delta_reward": np.mean(data["r_ia_po"] - data["r_io_po"]),
        "reward_after": np.mean(data["r_ia_po"]),
        "effect_gain": np.mean(data["effect_ia"] - data["effect_io"]),
        "content_preservation": np.mean(data["content_ia"]) / np.mean(data["content_io"]),
        "delta_j_all": np.mean(delta_j.sum(axis=1)),
        "delta_j_selected": np.mean((delta_j * chosen).sum(axis=1)),
        "escape_rate": np.mean(data["r_ia_po"] < np.percentile(data["r_io_po"], 10)),
        "effect_after": np.mean(data["effect_ia"]),
        "content_after": np.mean(data["content_ia"]),
        "j_after": np.mean(data["j_ia"].sum(axis=1)),
        "j_after_selected": np.mean((data["j_ia"] * chosen).sum(axis=1)),
        "refusal_rate": 0.0,
        "failure_rate": 0.0,
    }
    above = stats.mannwhitneyu(data["r_ia_po"], data["r_io_po"]).statistic / 50**2
    expected["polish_overlap"] = 2 * min(above, 1 - above)
    assert {name: result[name] for name in expected} == pytest.approx(expected, abs=1e-12)
    emotion = DIMENSIONS.index("emotion")
    by_emotion = result["by_dimension"]["emotion"]
    assert by_emotion["delta_j"] == pytest.approx(delta_j[chosen[:, emotion], emotion].mean())
    assert by_emotion["n_pairs"] == chosen[:, emotion].sum()
    assert by_emotion["delta_reward"] == pytest.approx((data["r_ia_po"] - data["r_io_po"])[chosen[:, emotion]].mean())


def test_comparison_with_a_base():
    data = study(50)
    result = anti_aesthetic_adherence(**data)
    assert (result["wilcoxon_r"], result["wilcoxon_p"]) == wilcoxon_signed_rank(data["r_ia_po"], data["r_ia_po_base"])
    sums = data["j_ia"].sum(axis=1), data["j_ia_base"].sum(axis=1)
    assert (result["wilcoxon_j_r"], result["wilcoxon_j_p"]) == pytest.approx(wilcoxon_signed_rank(*sums))
    mcnemar = mcnemar_exact(data["verdict"] == 1, data["verdict_base"] == 1)
    assert (result["mcnemar_p"], result["mcnemar_p_one_sided"]) == mcnemar
    family = [result[name] for name in TESTS]
    assert [result[f"{name}_holm"] for name in TESTS] == pytest.approx(multipletests(family, method="holm")[1])
    blocks = result["by_dimension"].values()
    family = [block[name] for block in blocks for name in TESTS]
    adjusted = [block[f"{name}_holm"] for block in blocks for name in TESTS]
    assert adjusted == pytest.approx(multipletests(family, method="holm")[1])
    base = {name.removesuffix("_base"): values for name, values in data.items() if name.endswith("_base")}
    alone = anti_aesthetic_adherence(**base, dimensions=data["dimensions"], n_resamples=100)
    assert result["base"] == alone


def test_a_generator_that_ignores_the_prompt_stays_in_its_default():
    r = np.random.default_rng(0).normal(size=300)
    result = anti_aesthetic_adherence(r, r)
    assert result["delta_reward"] == result["delta_reward_ci_low"] == result["delta_reward_ci_high"] == 0
    assert result["escape_rate"] == pytest.approx(0.1)
    assert result["polish_overlap"] == 1


@pytest.mark.parametrize(("default", "rate"), [([5.0] * 20, 0), ([1.0] * 5 + [2.0] * 15, 0), (range(4), 0.25)])
def test_an_equal_default_escapes_less_where_rewards_tie(default, rate):
    assert anti_aesthetic_adherence(list(default), list(default), n_resamples=5)["escape_rate"] == rate


def test_a_generator_that_leaves_its_default_escapes_wholly():
    r = np.random.default_rng(0).normal(size=300)
    result = anti_aesthetic_adherence(r, r - 100, verdict=np.ones(300))
    assert (result["escape_rate"], result["polish_overlap"], result["success_rate"]) == (1, 0, 1)


def test_a_refused_row_is_no_success_and_a_failed_row_is_no_result():
    result = anti_aesthetic_adherence(
        [4.0, 6.0, None, float("nan")],
        [3.0, 1.0, None, 7.0],
        status=["ok", "ok", "refused", "failed"],
        verdict=[1, 1, None, 1],
        effect_io=[0, 0, 0, 0],
        effect_ia=[50, 70, 0, 0],
        n_resamples=50,
    )
    assert (result["refusal_rate"], result["failure_rate"]) == (0.25, 0.25)
    assert result["success_rate"] == pytest.approx(2 / 3)
    ends = result["success_rate_wilson_low"], result["success_rate_wilson_high"]
    assert ends == pytest.approx(wilson_interval(2, 3))
    assert (result["delta_reward"], result["reward_after"], result["effect_gain"]) == (-3, 2, 60)
    assert result["coverage"]["r_ia_po"] == 0.5
    assert result["n_pairs"] == 4


def test_a_generator_that_refuses_everything_has_rates_alone():
    result = anti_aesthetic_adherence([None, None], [None, None], status=["refused"] * 2, verdict=[None, None])
    assert (result["refusal_rate"], result["success_rate"]) == (1, 0)
    for name in ("delta_reward", "reward_after", "escape_rate", "polish_overlap"):
        assert name not in result
        assert "no row has" in result["notes"][name]


def test_a_generator_whose_calls_all_failed_has_no_success_rate():
    result = anti_aesthetic_adherence([1.0, 2.0], [0.0, 1.0], status=["failed"] * 2, verdict=[1, 0])
    assert (result["failure_rate"], result["refusal_rate"], result["n_pairs"]) == (1, 0, 2)
    assert not {"success_rate", "delta_reward"} & set(result)
    assert result["notes"]["success_rate"] == "not given: no row has verdict"


def test_a_failed_row_of_either_generator_is_left_out_of_the_tests():
    data = study(12)
    data["status"] = ["failed"] + ["ok"] * 11
    data["status_base"] = ["ok", "failed"] + ["ok"] * 10
    result = anti_aesthetic_adherence(**data)
    kept = slice(2, None)
    assert result["mcnemar_p"] == mcnemar_exact(data["verdict"][kept] == 1, data["verdict_base"][kept] == 1).p
    assert result["wilcoxon_r"] == wilcoxon_signed_rank(data["r_ia_po"][kept], data["r_ia_po_base"][kept]).r


def test_a_missing_reward_is_left_out_of_the_reward_figures_alone():
    result = anti_aesthetic_adherence(
        [9.0, None, 7.0, 9.0],
        [2.0, 9.0, None, 4.0],
        verdict=[1, 1, 1, 0],
        r_io_po_base=[None] * 4,
        r_ia_po_base=[5.0, 6.0, 7.0, None],
        verdict_base=[0, 0, 1, 0],
        n_resamples=50,
    )
    assert (result["delta_reward"], result["reward_after"], result["success_rate"]) == (-6, 5, 0.75)
    assert (result["escape_rate"], result["polish_overlap"]) == (1, 0)
    assert (result["coverage"]["r_io_po"], result["coverage"]["r_ia_po"]) == (0.75, 0.75)
    assert (result["wilcoxon_r"], result["wilcoxon_p"]) == wilcoxon_signed_rank([2.0, 9.0], [5.0, 6.0])
    assert result["mcnemar_p"] == 0.5
    assert (result["base"]["reward_after"], result["base"]["coverage"]["r_io_po"]) == (6, 0)


def test_without_any_reward_the_verdicts_still_count():
    data = study(40)
    rewards = {name: [None] * 40 for name in data if name.startswith("r_")}
    whole, bare = anti_aesthetic_adherence(**data), anti_aesthetic_adherence(**data | rewards)
    of_rewards = ("delta_reward", "reward_after", "escape_rate", "polish_overlap", "wilcoxon_r", "wilcoxon_p")
    for name in of_rewards:
        assert "no row has" in bare["notes"][name]
        assert "no row has" in bare["by_dimension"]["clarity"]["notes"][name]
    kept = {name for name in numbers(whole) if not name.startswith(of_rewards)}
    assert numbers(bare) == {name: whole[name] for name in kept}


def test_what_is_not_given_is_absent_and_named():
    result = anti_aesthetic_adherence([1.0, 2.0], [0.0, 1.0])
    optional = {"verdict", "effect_io", "effect_ia", "content_io", "content_ia", "j_io", "j_ia", "status", "dimensions"}
    assert {name for name, share in result["coverage"].items() if share == 0} == optional
    absent = {"success_rate", "effect_gain", "content_preservation", "delta_j_all", "delta_j_selected", "refusal_rate"}
    assert absent <= set(result["notes"])
    assert not absent & set(result)
    assert not {"by_dimension", "base", "wilcoxon_r"} & set(result)


def test_missing_values_are_left_out_row_by_row():
    full = [1.0] * 11
    holed = [None, *full[1:]]
    result = anti_aesthetic_adherence(
        [1.0] * 3,
        [0.0] * 3,
        verdict=[1, None, 0],
        content_io=[80, 100, None],
        content_ia=[40, None, 90],
        j_io=[full, full, None],
        j_ia=[[2.0] * 11, holed, full],
        dimensions=[["clarity"], ["clarity", "emotion"], ["symmetry"]],
        n_resamples=50,
    )
    assert result["success_rate"] == 0.5
    assert result["content_preservation"] == 0.5
    assert result["delta_j_all"] == 11
    assert result["delta_j_selected"] == 0.5
    assert result["coverage"]["verdict"] == pytest.approx(2 / 3)
    assert result["coverage"]["j_ia"] == pytest.approx(32 / 33)
    # the optional dimensions have no score
    assert "delta_j" in result["by_dimension"]["symmetry"]["notes"]


def test_equal_generators_have_no_effect_size():
    result = anti_aesthetic_adherence([1.0, 2.0], [0.0, 1.0], r_ia_po_base=[0.0, 1.0], r_io_po_base=[3.0, 3.0])
    assert not {"wilcoxon_r", "wilcoxon_p", "mcnemar_p"} & set(result)
    assert {"wilcoxon_r", "wilcoxon_p", "mcnemar_p", "mcnemar_p_one_sided"} <= set(result["notes"])


def test_one_pair_gives_estimates_without_intervals():
    result = anti_aesthetic_adherence([2.0], [1.0], verdict=[1], r_ia_po_base=[0.5])
    assert (result["delta_reward"], result["success_rate"], result["escape_rate"]) == (-1, 1, 1)
    assert (result["wilcoxon_r"], result["wilcoxon_p"]) == (-1, 0.5)
    assert not [name for name in result if name.endswith("_ci_low")]


def test_escape_interval_agrees_with_scipy():
    rng = np.random.default_rng(3)
    r_io, r_ia = rng.normal(size=120), rng.normal(-1, 1.5, 120)
    result = anti_aesthetic_adherence(r_io, r_ia, n_resamples=10_000)
    oracle = stats.bootstrap(
        (r_io, r_ia),
        lambda a, b, axis: (b < np.percentile(a, 10, axis=axis, keepdims=True)).mean(axis=axis),
        n_resamples=10_000,
        method="percentile",
        paired=True,
        vectorized=True,
        rng=np.random.default_rng(5),
    )
    margin = 0.15 * oracle.standard_error
    assert result["escape_rate_ci_low"] == pytest.approx(oracle.confidence_interval.low, abs=margin)
    assert result["escape_rate_ci_high"] == pytest.approx(oracle.confidence_interval.high, abs=margin)


def numbers(result):
    return {name: value for name, value in result.items() if isinstance(value, float | int)}


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_order_of_rows_does_not_matter(seed):
    data = study(14, seed, prompt_id=np.arange(14) % 5, image_seed=np.arange(14))
    order = np.random.default_rng(seed).permutation(14)
    shuffled = {name: [values[i] for i in order] if name != "n_resamples" else values for name, values in data.items()}
    one, other = anti_aesthetic_adherence(**data), anti_aesthetic_adherence(**shuffled)
    assert numbers(other) == pytest.approx(numbers(one), abs=1e-9)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 4))
def test_repeating_every_row_of_a_prompt_narrows_nothing(seed, copies):
    data = study(14, seed, prompt_id=np.arange(14) % 5, image_seed=np.arange(14))
    again = {name: list(values) * copies if name != "n_resamples" else values for name, values in data.items()}
    again["image_seed"] = np.arange(14 * copies)
    one, other = anti_aesthetic_adherence(**data), anti_aesthetic_adherence(**again)
    # the escape rate's percentile lies between two values, and between others once the rows repeat
    for name in set(ESTIMATES) - {"escape_rate", "wilcoxon_r", "wilcoxon_j_r"}:
        for end in ("", "_ci_low", "_ci_high"):
            assert other[name + end] == pytest.approx(one[name + end], abs=1e-9)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(-3, 3), st.integers(-50, 50))
def test_polish_pull_and_tests_do_not_depend_on_the_scale_of_rewards(seed, power, shift):
    data = study(20, seed)
    names = ("r_io_po", "r_ia_po", "r_io_po_base", "r_ia_po_base")
    for name in names:
        data[name] = np.round(data[name] * 1024) / 1024
    moved = data | {name: data[name] * 2.0**power + shift for name in names}
    one, other = anti_aesthetic_adherence(**data), anti_aesthetic_adherence(**moved)
    assert other["delta_reward"] == pytest.approx(one["delta_reward"] * 2.0**power)
    for name in ("escape_rate", "polish_overlap", "polish_overlap_ci_low", "wilcoxon_r", "wilcoxon_p"):
        assert other[name] == pytest.approx(one[name], abs=1e-12)


def test_swapping_generator_and_base_flips_the_effect_size():
    data = study(30)
    swap = {name: name.removesuffix("_base") if name.endswith("_base") else f"{name}_base" for name in data}
    swap |= {"dimensions": "dimensions", "n_resamples": "n_resamples"}
    one = anti_aesthetic_adherence(**data)
    other = anti_aesthetic_adherence(**{swap[name]: values for name, values in data.items()})
    assert other["wilcoxon_r"] == pytest.approx(-one["wilcoxon_r"])
    assert other["mcnemar_p"] == pytest.approx(one["mcnemar_p"])


def test_the_interval_of_the_overlap_is_that_of_the_share_above():
    rng = np.random.default_rng(4)
    r_io, r_ia = rng.normal(size=100), rng.normal(-1, 1, 100)
    ends = {}
    for name, after in (("apart", r_ia), ("mirrored", -r_ia), ("alike", np.roll(r_io, 1))):
        before = -r_io if name == "mirrored" else r_io
        result = anti_aesthetic_adherence(before, after, n_resamples=4000)
        oracle = stats.bootstrap(
            (before, after),
            lambda a, b, axis=-1: stats.mannwhitneyu(b, a, axis=axis).statistic / 100**2,
            n_resamples=4000,
            method="percentile",
            paired=True,
            vectorized=True,
            rng=np.random.default_rng(1),
        )
        low, high = oracle.confidence_interval
        folded = sorted(2 * min(end, 1 - end) for end in (low, high))
        margin = 0.3 * oracle.standard_error
        ends[name] = result["polish_overlap_ci_low"], result["polish_overlap_ci_high"]
        assert ends[name][0] == pytest.approx(folded[0], abs=margin)
        assert ends[name][1] == (1 if low <= 0.5 <= high else pytest.approx(folded[1], abs=margin))
    assert ends["alike"][1] == 1 > ends["apart"][1]
    assert ends["mirrored"] == pytest.approx(ends["apart"])


def test_repeated_prompts_make_the_tests_no_surer():
    data = study(20, prompt_id=list("abcdefghijklmnopqrst"), image_seed=[0] * 20)
    copies = {name: list(values) * 5 if name != "n_resamples" else values for name, values in data.items()}
    copies["image_seed"] = np.repeat(np.arange(5), 20)
    one, other = anti_aesthetic_adherence(**data), anti_aesthetic_adherence(**copies)
    for name in ("wilcoxon_r", "wilcoxon_p", "wilcoxon_j_r", "wilcoxon_j_p"):
        assert other[name] == pytest.approx(one[name])
    assert other["mcnemar_p"] < one["mcnemar_p"]
    assert {"mcnemar_p", "mcnemar_p_one_sided"} <= set(other["cautions"])
    assert "mcnemar_p" not in one["cautions"]
