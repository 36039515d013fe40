"""`judge_agreement`: scikit-learn, statsmodels and scipy as oracles, hand-worked orders and ties, invariances, gaps."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics
from statsmodels.stats.inter_rater import cohens_kappa
from statsmodels.stats.proportion import proportion_confint

from widespectrum.functional import judge_agreement

VERDICTS = (0.0, 0.5, 1.0)
RATES = ["accuracy", "accuracy_ties_dropped", "accuracy_ties_merged", "position_bias_rate", "first_shown_rate"]
ESTIMATES = [*RATES, "quadratic_kappa", "mae", "majority_baseline", "majority_baseline_mae"]
COUNTS = ["n_pairs", "n_prompts", "n_compared", "n_decided", "n_both_orders", "n_reversed"]
TABLES = ["categories", "confusion_matrix", "n_reference", "n_verdict", "majority_category"]
REMARKS = ["notes", "cautions", "undefined_resamples"]


def answers(n, seed=0, categories=VERDICTS, agree=0.6, **extra):
    """Two judges who say the same in `agree` of the rows and otherwise what they like, and both orders of the first."""
    rng = np.random.default_rng(seed)
    columns = rng.choice(categories, (4, n), p=np.arange(1, len(categories) + 1) / sum(range(len(categories) + 1)))
    names = ("verdict", "reference", "verdict_first", "verdict_second")
    given = dict(zip(names, np.where(rng.random((4, n)) < agree, columns[0], columns), strict=True))
    return given | {"n_resamples": 100} | extra


def by_name(result, names):
    return {name: result[name] for name in names}


def test_public_names_are_all_there_and_no_others():
    result = judge_agreement(**answers(90, agree=0.3), prompt_id=np.arange(90) % 30, group=np.arange(90) // 30)
    expected = {f"{name}{end}" for name in ESTIMATES for end in ("", "_ci_low", "_ci_high")}
    expected |= {f"{name}_wilson_{end}" for name in RATES for end in ("low", "high")}
    expected |= {*COUNTS, *TABLES, *REMARKS}
    assert set(result) == expected | {"coverage", "by_group"}
    assert result["notes"] == {}
    assert set(result["coverage"].values()) == {0.0, 1.0}
    assert (result["n_pairs"], result["n_prompts"]) == (90, 30)
    assert list(result["by_group"]) == [0, 1, 2]
    assert set(result["by_group"][1]) == expected


@pytest.mark.parametrize("categories", [VERDICTS, (0, 1, 2), (-2, -1, 0, 1, 2), (0, 1), (1, 10, 11, 50, 51, 52, 99)])
@pytest.mark.parametrize("seed", range(4))
def test_kappa_accuracy_and_mae_agree_with_scikit_learn(categories, seed):
    data = answers(50, seed, categories, agree=(0.0, 0.3, 0.9, 0.97)[seed])
    given = data | {"categories": categories, "tie": None}
    result = judge_agreement(**given)
    places = range(len(categories))
    i, j = (np.searchsorted(categories, data[name]) for name in ("verdict", "reference"))
    assert result["quadratic_kappa"] == pytest.approx(
        metrics.cohen_kappa_score(i, j, weights="quadratic", labels=list(places))
    )
    matrix = metrics.confusion_matrix(j, i, labels=list(places))
    assert result["quadratic_kappa"] == pytest.approx(cohens_kappa(matrix, wt="quadratic").kappa)
    np.testing.assert_array_equal(result["confusion_matrix"], matrix)
    assert (result["n_reference"], result["n_verdict"]) == (matrix.sum(1).tolist(), matrix.sum(0).tolist())
    assert result["accuracy"] == pytest.approx(metrics.accuracy_score(j, i))
    assert result["mae"] == pytest.approx(metrics.mean_absolute_error(j, i))


def test_the_majority_baseline_is_a_judge_that_always_says_the_commonest_category():
    data = answers(60, categories=(0, 1, 2, 3, 4), agree=0.2)
    scale = {"categories": (0, 1, 2, 3, 4), "tie": None, "n_resamples": 10}
    result = judge_agreement(data["verdict"], data["reference"], **scale)
    commonest = stats.mode(data["reference"]).mode
    constant = judge_agreement(np.full(60, commonest), data["reference"], **scale)
    assert result["majority_category"] == commonest
    assert result["majority_baseline"] == constant["accuracy"] == constant["majority_baseline"]
    assert result["majority_baseline_mae"] == constant["mae"]
    assert constant["quadratic_kappa"] == 0
    assert "no higher than majority_baseline" in constant["cautions"]["accuracy"]


def test_of_equally_common_categories_the_baseline_takes_the_lowest():
    result = judge_agreement([1, 1, 1, 1], [0, 0, 1, 1])
    assert (result["majority_category"], result["majority_baseline"], result["majority_baseline_mae"]) == (0, 0.5, 1)
    result = judge_agreement([1, 1, 1], [0, 0.5, 1])
    assert (result["majority_category"], result["majority_baseline_mae"]) == (0, 1)


def test_ties_by_hand():
    verdict, reference = [1, 1, 1, 0.5, 0.5, 0.5, 0, 0, 0], [1, 0.5, 0, 1, 0.5, 0, 1, 0.5, 0]
    result = judge_agreement(verdict, reference)
    assert result["accuracy"] == pytest.approx(3 / 9)
    # decided by both: (1, 1), (1, 0), (0, 1), (0, 0)
    assert (result["accuracy_ties_dropped"], result["n_decided"]) == (0.5, 4)
    # as I_a or not: (1, 1), and the four in which neither is 1
    assert result["accuracy_ties_merged"] == pytest.approx(5 / 9)
    assert result["mae"] == pytest.approx(8 / 9)
    # Σ d² = 12, and E = 2 · variance = 4/3 a row
    assert result["quadratic_kappa"] == 0
    binary = [np.equal(column, 1) for column in (reference, verdict)]
    assert result["accuracy_ties_merged"] == pytest.approx(metrics.accuracy_score(*binary))


def test_the_tie_of_five_levels_is_merged_with_the_level_below():
    levels = {"categories": (-2, -1, 0, 1, 2), "tie": 0}
    result = judge_agreement([0, 0, 0, -1, 2], [-1, 1, 0, 0, 2], **levels)
    assert (result["accuracy"], result["accuracy_ties_merged"], result["accuracy_ties_dropped"]) == (0.4, 0.8, 1)


@pytest.mark.parametrize(
    ("scale", "dropped", "merged"),
    [
        ({"categories": (0, 1), "tie": None}, "`tie` is None", "`tie` is None"),
        ({"categories": (0, 1), "tie": 0}, None, "the tie is the lowest category"),
    ],
)
def test_without_a_tie_to_drop_or_to_merge_the_figure_is_absent_with_its_reason(scale, dropped, merged):
    result = judge_agreement([0, 1, 1], [0, 1, 0], **scale)
    assert result["n_decided"] == (3 if scale["tie"] is None else 1)
    for name, reason in (("accuracy_ties_dropped", dropped), ("accuracy_ties_merged", merged)):
        assert (name in result) == (reason is None)
        assert reason is None or reason in result["notes"][name]


def test_the_orders_by_hand():
    # agrees, agrees on a tie, to the first image twice, to the second, from a tie, one order missing
    first = [1, 0.5, 1, 1, 0, 0.5, 1]
    second = [1, 0.5, 0, 0, 1, 1, None]
    result = judge_agreement([1] * 7, [1] * 7, verdict_first=first, verdict_second=second)
    assert (result["n_both_orders"], result["n_reversed"]) == (6, 3)
    assert result["position_bias_rate"] == pytest.approx(4 / 6)
    assert result["first_shown_rate"] == pytest.approx(2 / 3)
    assert result["coverage"]["verdict_second"] == pytest.approx(6 / 7)
    swapped = judge_agreement([1] * 7, [1] * 7, verdict_first=second, verdict_second=first)
    assert swapped["position_bias_rate"] == result["position_bias_rate"]
    assert swapped["first_shown_rate"] == pytest.approx(1 - result["first_shown_rate"])


@pytest.mark.parametrize(("first", "second", "bias", "to_first"), [(1, 0, 1, 1), (0, 1, 1, 0), (0, 0, 0, None)])
def test_judges_ruled_by_the_order_and_one_blind_to_it(first, second, bias, to_first):
    result = judge_agreement([0.5] * 40, [1, 0] * 20, verdict_first=[first] * 40, verdict_second=[second] * 40)
    assert (result["position_bias_rate"], result.get("first_shown_rate")) == (bias, to_first)
    assert "every resample gives the same value" in result["cautions"]["position_bias_rate"]
    assert ("first_shown_rate" in result["notes"]) == (to_first is None)


def test_orders_with_no_answers_are_not_orders_that_are_not_given():
    missing = judge_agreement([1, 0], [1, 0])
    empty = judge_agreement([1, 0], [1, 0], verdict_first=[None, None], verdict_second=[1, 0])
    for name in ("position_bias_rate", "first_shown_rate"):
        assert missing["notes"][name] == "not given: it needs verdict_first and verdict_second"
        assert "undefined: no row has" in empty["notes"][name]
    assert (missing["coverage"]["verdict_second"], empty["coverage"]["verdict_second"]) == (0, 1)


def test_wilson_agrees_with_statsmodels():
    result = judge_agreement(**answers(70), confidence_level=0.9)
    sizes = dict(zip(RATES, ("n_compared", "n_decided", "n_compared", "n_both_orders", "n_reversed"), strict=True))
    for name, size in sizes.items():
        n = result[size]
        expected = proportion_confint(round(result[name] * n), n, alpha=0.1, method="wilson")
        assert (result[f"{name}_wilson_low"], result[f"{name}_wilson_high"]) == pytest.approx(expected)


@pytest.mark.parametrize(("interval", "method"), [("percentile", "percentile"), ("bca", "BCa")])
def test_kappas_interval_agrees_with_scipy(interval, method):
    data = answers(80, agree=0.5)
    result = judge_agreement(data["verdict"], data["reference"], n_resamples=4000, interval=interval)

    def kappa(verdict, reference):
        return metrics.cohen_kappa_score(verdict * 2, reference * 2, weights="quadratic", labels=[0.0, 1.0, 2.0])

    samples = data["verdict"], data["reference"]
    options = {"n_resamples": 1000, "vectorized": False, "paired": True, "method": method, "rng": 0}
    low, high = stats.bootstrap(samples, kappa, **options).confidence_interval
    assert (result["quadratic_kappa_ci_low"], result["quadratic_kappa_ci_high"]) == pytest.approx((low, high), abs=0.03)


def test_kappas_interval_agrees_with_the_large_sample_one_of_statsmodels():
    data = answers(2000, agree=0.5)
    result = judge_agreement(data["verdict"], data["reference"], n_resamples=4000)
    large = cohens_kappa(np.array(result["confusion_matrix"]), wt="quadratic")
    ends = result["quadratic_kappa_ci_low"], result["quadratic_kappa_ci_high"]
    assert ends == pytest.approx((large.kappa_low, large.kappa_upp), abs=0.006)


def test_every_resample_is_the_metric_of_the_rows_drawn():
    """The estimates of weighted clusters equal those of the rows written out as often as their prompt is drawn."""
    data = answers(24) | {"prompt_id": np.arange(24) % 6, "image_seed": np.arange(24)}
    whole = judge_agreement(**data | {"n_resamples": 1, "seed": 5})
    drawn = np.bincount(np.random.default_rng([5, 6]).integers(6, size=(1, 6), dtype=np.int64)[0], minlength=6)
    rows = np.repeat(np.arange(24), drawn[np.arange(24) % 6])
    columns = ("verdict", "reference", "verdict_first", "verdict_second")
    written = judge_agreement(**{name: data[name][rows] for name in columns}, n_resamples=1)
    for name in ESTIMATES:
        # one replicate is both ends, but for the estimate itself
        ends = {whole[f"{name}_ci_low"], whole[f"{name}_ci_high"]}
        assert any(end == pytest.approx(written[name]) for end in ends), name


@given(st.integers(0, 10**6), st.integers(2, 40), st.sampled_from([VERDICTS, (0, 1, 2), (-2, -1, 0, 1, 2)]))
@settings(max_examples=60, deadline=None)
def test_invariances(seed, n, categories):
    data = answers(n, seed, categories)
    verdict, reference = data["verdict"], data["reference"]
    options = {"n_resamples": 5, "tie": categories[1], "categories": categories}
    result = judge_agreement(verdict, reference, **options)

    shuffled = np.random.default_rng(seed).permutation(n)
    moved = judge_agreement(verdict[shuffled], reference[shuffled], **options)
    defined = [name for name in ESTIMATES if name in result]
    assert by_name(moved, defined) == pytest.approx(by_name(result, defined))

    symmetric = [name for name in defined if not name.startswith("majority")]
    swapped = judge_agreement(reference, verdict, **options)
    assert by_name(swapped, symmetric) == pytest.approx(by_name(result, symmetric))
    np.testing.assert_array_equal(swapped["confusion_matrix"], np.transpose(result["confusion_matrix"]))

    # only the order of the categories counts
    stretched = options | {"categories": [10.0 + 3 * c**3 for c in categories], "tie": 10.0 + 3 * categories[1] ** 3}
    other = judge_agreement(10 + 3 * verdict**3, 10 + 3 * reference**3, **stretched)
    assert by_name(other, defined) == by_name(result, defined)

    # told backwards, but for what a tie is merged with and which of two commonest categories comes first
    backwards = options | {"categories": [-c for c in categories][::-1], "tie": -categories[1]}
    other = judge_agreement(-verdict, -reference, **backwards)
    kept = [name for name in symmetric if name != "accuracy_ties_merged"]
    assert by_name(other, kept) == pytest.approx(by_name(result, kept))


def test_duplicated_rows_of_a_prompt_narrow_nothing():
    data = answers(40, n_resamples=200)
    columns = {name: values for name, values in data.items() if name != "n_resamples"}
    once = judge_agreement(**data, prompt_id=np.arange(40))
    twice = judge_agreement(
        **{name: np.tile(values, 2) for name, values in columns.items()},
        prompt_id=np.tile(np.arange(40), 2),
        image_seed=np.repeat([0, 1], 40),
        n_resamples=200,
    )
    names = [f"{name}{end}" for name in ESTIMATES for end in ("", "_ci_low", "_ci_high")]
    assert by_name(twice, names) == pytest.approx(by_name(once, names))
    assert (twice["n_pairs"], twice["n_prompts"]) == (80, 40)


def test_a_group_has_the_figures_of_its_rows_alone():
    data = answers(60) | {"prompt_id": np.arange(60) % 20}
    group = np.array(["seed judge", "people", "people"])[np.arange(60) // 20]
    image_seed = np.arange(60)
    result = judge_agreement(**data, group=group, image_seed=image_seed)
    for name, part in result["by_group"].items():
        rows = group == name
        own = {key: values if key == "n_resamples" else values[rows] for key, values in data.items()}
        alone = judge_agreement(**own, image_seed=image_seed[rows])
        alone.pop("coverage")
        assert part == alone
    assert list(result["by_group"]) == ["people", "seed judge"]


@pytest.mark.parametrize("kind", [list, np.float32, np.float64, object])
def test_lists_and_arrays_of_any_width_give_the_same(kind):
    data = answers(30)
    convert = list if kind is list else lambda column: np.asarray(column, dtype=kind)
    names = ("verdict", "reference", "verdict_first", "verdict_second")
    assert judge_agreement(**data | {name: convert(data[name]) for name in names}) == judge_agreement(**data)


def test_a_row_without_an_answer_is_left_out_and_counted():
    data = answers(30)
    holes = {"verdict": [0, 3], "reference": [3, 7]}
    given = {name: [None if i in rows else data[name][i] for i in range(30)] for name, rows in holes.items()}
    result = judge_agreement(**given)
    kept = np.setdiff1d(np.arange(30), [0, 3, 7])
    whole = judge_agreement(data["verdict"][kept], data["reference"][kept])
    names = [name for name in (*ESTIMATES, *TABLES) if name in whole]
    assert by_name(result, names) == by_name(whole, names)
    assert (result["n_pairs"], result["n_compared"]) == (30, 27)
    assert by_name(result["coverage"], holes) == dict.fromkeys(holes, pytest.approx(28 / 30))


def test_without_any_pair_of_answers_everything_is_absent_with_a_reason():
    result = judge_agreement([None, 1], [1, None])
    assert not [name for name in ESTIMATES if name in result]
    assert set(result["notes"]) == set(ESTIMATES)
    assert (result["n_compared"], result["confusion_matrix"]) == (0, [[0, 0, 0]] * 3)
    assert "majority_category" not in result


def test_one_pair_gives_estimates_without_intervals():
    result = judge_agreement([1], [0.5])
    assert by_name(result, ["accuracy", "mae", "quadratic_kappa", "majority_baseline"]) == {
        "accuracy": 0,
        "mae": 1,
        "quadratic_kappa": 0,
        "majority_baseline": 1,
    }
    assert not [name for name in result if name.endswith("_ci_low")]
    assert "at least two prompts" in result["notes"]["quadratic_kappa_ci"]


def test_a_prompt_without_answers_makes_no_interval():
    result = judge_agreement([1, 0.5, None], [0.5, 1, 1], prompt_id=["a", "a", "b"], image_seed=[0, 1, 0])
    assert (result["n_prompts"], result["quadratic_kappa"]) == (2, -1)
    for name in ("quadratic_kappa", "accuracy", "majority_baseline", "majority_baseline_mae"):
        assert f"{name}_ci_low" not in result
        assert "at least two prompts" in result["notes"][f"{name}_ci"]


@pytest.mark.parametrize("value", VERDICTS)
def test_one_category_alone_in_both_has_no_kappa(value):
    result = judge_agreement([value] * 9, [value] * 9)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert np.isnan(metrics.cohen_kappa_score([value * 2] * 9, [value * 2] * 9, labels=[0.0, 1.0, 2.0]))
    assert "one category alone" in result["notes"]["quadratic_kappa"]
    assert (result["accuracy"], result["mae"], result["majority_baseline"]) == (1, 0, 1)
    assert ("accuracy_ties_dropped" in result) == (value != 0.5)


def test_two_constant_judges_who_differ_have_kappa_0_and_no_width():
    result = judge_agreement([1] * 9, [0] * 9)
    assert (result["quadratic_kappa"], result["quadratic_kappa_ci_low"], result["mae"]) == (0, 0, 2)
    assert "every resample gives the same value" in result["cautions"]["quadratic_kappa"]


def test_all_tied_and_perfect_and_opposite_judges():
    tied = judge_agreement([0.5] * 8, [0.5] * 7 + [1])
    assert "accuracy_ties_dropped" in tied["notes"]
    assert tied["accuracy_ties_merged"] == tied["accuracy"] == 7 / 8
    perfect = judge_agreement([0, 0.5, 1] * 20, [0, 0.5, 1] * 20)
    assert by_name(perfect, ["quadratic_kappa", "accuracy", "mae"]) == {"quadratic_kappa": 1, "accuracy": 1, "mae": 0}
    assert set(perfect["cautions"]) >= {"quadratic_kappa", "accuracy"}
    assert judge_agreement([0, 1] * 20, [1, 0] * 20)["quadratic_kappa"] == -1


def test_an_unbalanced_study_shows_its_kappa_beside_its_accuracy():
    """1 pair in 50 is I_o; a judge who always says I_a has accuracy .98 and learns nothing from it."""
    reference = ([0] + [1] * 49) * 6
    always = judge_agreement([1] * 300, reference)
    assert (always["accuracy"], always["majority_baseline"], always["quadratic_kappa"]) == (0.98, 0.98, 0)
    assert "accuracy" in always["cautions"]
    able = judge_agreement([0, 0.5] + [1] * 298, reference)
    assert able["quadratic_kappa"] == pytest.approx(
        metrics.cohen_kappa_score([0, 1] + [2] * 298, np.multiply(reference, 2), weights="quadratic", labels=[0, 1, 2])
    )


def test_few_prompts_behind_a_figure_are_said():
    few = judge_agreement(**answers(20))
    assert [name for name, text in few["cautions"].items() if "fewer than 30" in text] == ["n_prompts"]
    data = answers(100)
    data["verdict"][:80] = 0.5
    some = judge_agreement(**data)
    assert "n_prompts" not in some["cautions"]
    assert "fewer than 30 prompts" in some["cautions"]["accuracy_ties_dropped"]
    assert "accuracy_ties_merged" not in some["cautions"]


def test_undefined_resamples_are_counted():
    result = judge_agreement([1, 1, 1, 0.5], [1, 1, 1, 1], n_resamples=500)
    assert 0 < result["undefined_resamples"]["quadratic_kappa"] < 500


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"verdict": [1, 0.3]},
            r"verdict, row 1 \(counted from 0\): expected one of the categories 0, 0.5, 1, or None",
        ),
        ({"reference": [-1, 1]}, r"reference, row 0 .*or None, got -1; convert it, or give other `categories`"),
        ({"verdict_first": [1, 2], "verdict_second": [1, 0]}, r"verdict_first, row 1 .*got 2"),
        ({"verdict": [1, float("nan")]}, r"verdict, row 1 .*expected a finite number, got nan"),
        ({"verdict": [float("inf"), 1]}, r"verdict, row 0 .*expected a finite number, got inf"),
        ({"verdict": ["wide", 1]}, r"verdict, row 0 .*expected a finite number, got 'wide'"),
        ({"reference": [1]}, r"reference: expected 2 rows .*got 1"),
        ({"prompt_id": ["a"]}, r"prompt_id: expected 2 rows .*got 1"),
        ({"verdict": []}, "verdict: expected at least one row, got none"),
        ({"verdict_first": [1, 1]}, "verdict_first: expected verdict_second beside it, got none; give the verdicts of"),
        ({"verdict_second": [1, 1]}, "verdict_second: expected verdict_first beside it, got none"),
        (
            {"categories": (0, 1, 0.5)},
            "categories: expected at least two numbers, each above the one before, got 0, 1,",
        ),
        ({"categories": (0, 0, 1)}, "categories: expected at least two numbers, each above the one before"),
        ({"categories": (1,)}, "categories: expected at least two numbers, each above the one before, got 1"),
        ({"categories": ()}, "categories: expected at least one row, got none"),
        ({"categories": ("I_o", "I_a")}, r"categories, row 0 .*got 'I_o'"),
        ({"categories": (0, 1)}, "tie: expected one of the categories 0, 1, or None if none is, got 0.5"),
        ({"tie": "tie"}, "tie: expected one of the categories 0, 0.5, 1, or None if none is, got 'tie'"),
        ({"prompt_id": ["a", "a"]}, r"row 1 .*repeats the key of row 0 \(prompt_id='a'\)"),
        ({"prompt_id": ["a", "a"], "group": ["x", "x"]}, r"repeats the key of row 0 \(prompt_id='a', group='x'\)"),
        ({"n_resamples": 0}, "n_resamples: expected a whole number of at least 1"),
        ({"interval": "exact"}, "interval: expected one of percentile, bca, got 'exact'"),
    ],
)
def test_bad_input_is_one_sentence(given, message):
    with pytest.raises(ValueError, match=message):
        judge_agreement(**{"verdict": [1, 0], "reference": [1, 1]} | given)
