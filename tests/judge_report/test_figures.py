"""The figures of a run whose judges are known, against independent computations."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import cohen_kappa_score

from tests.judge_report.made_run import (
    FIRST,
    FLIPS,
    GENERATORS,
    HONEST,
    MAJORITY,
    ONE,
    REFUSED,
    TWO,
    bare_run,
    make_run,
    verdict,
)
from widespectrum import store
from widespectrum.annotate.items import Item
from widespectrum.annotate.log import start_log
from widespectrum.errors import InputError, RunFolderError
from widespectrum.functional import krippendorff_alpha, spearman
from widespectrum.judge_report import agreement_rows, read_figures
from widespectrum.types import AbstentionRecord

OPTIONS = {"n_resamples": 200, "seed": 0, "confidence_level": 0.95, "interval": "percentile"}
LABELS = ["people", HONEST, FLIPS, FIRST, MAJORITY, ONE, TWO]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("judged") / "run"
    make_run(folder)
    return folder


@pytest.fixture(scope="module")
def figures(run):
    return read_figures(run)


@pytest.fixture(scope="module")
def wide(run):
    """Outcome of every pair, a column per judge; generator, dimensions and caption beside it."""
    rows = store.read(run, "verdicts").to_pandas()
    chosen = rows[(rows["order"] == "both") & (rows["dimension"] == "overall")]
    table = chosen.pivot(index=["prompt_id", "image_id", "rival_id"], columns="judge", values="outcome").reset_index()
    images = store.read(run, "images", ("image_id", "generator")).to_pandas().set_index("image_id")["generator"]
    prompts = store.read(run, "prompts").to_pandas().set_index("prompt_id")
    return table.assign(
        generator=images.loc[table["image_id"]].tolist(),
        dimensions=prompts.loc[table["prompt_id"], "dimensions"].tolist(),
    )


def judge(figures, label):
    return next(each for each in figures.judges if each.label == label)


def test_the_judge_that_takes_the_first_image_has_only_ties_and_the_greatest_bias(figures):
    first = judge(figures, FIRST)
    assert (first.verdicts, first.ties, first.tie_rate.value, first.share_wide.value) == (80, 80, 1, 0)
    assert (first.order["position_bias_rate"], first.order["first_shown_rate"]) == (1, 1)
    assert judge(figures, HONEST).order["position_bias_rate"] == 0
    assert "first_shown_rate" not in judge(figures, HONEST).order


def test_of_people_who_saw_one_order_no_bias_is_said(figures):
    assert [judge(figures, label).order for label in (ONE, TWO, "people")] == [{}, {}, {}]
    assert [judge(figures, label).is_in_one_order for label in (ONE, TWO, "people")] == [True, True, False]


def test_every_pair_is_a_verdict_an_abstention_or_missing(figures, wide):
    assert [each.label for each in figures.judges] == LABELS
    for each in figures.judges:
        answers = wide[each.label].dropna()
        assert each.verdicts == len(answers)
        assert each.verdicts + sum(each.abstained.values()) + each.missing == 80
        assert each.share_wide.value == pytest.approx((answers == 1).mean())
        assert each.tie_rate.value == pytest.approx((answers == 0.5).mean())
        assert each.share_wide.low < each.share_wide.value < each.share_wide.high or each.label == FIRST
    assert judge(figures, FLIPS).abstained == {REFUSED: 1}
    assert judge(figures, FLIPS).missing == 0 < judge(figures, ONE).missing


def assert_agrees(values, verdicts, references):
    both = verdicts.notna() & references.notna()
    one, other = verdicts[both] * 2, references[both] * 2
    assert values["n_compared"] == both.sum() > 0
    assert values["accuracy"] == pytest.approx((one == other).mean())
    assert values["majority_baseline"] == pytest.approx(other.value_counts(normalize=True).max())
    expected = cohen_kappa_score(one, other, weights="quadratic", labels=[0, 1, 2])
    assert values["quadratic_kappa"] == pytest.approx(expected)
    assert values["quadratic_kappa_ci_low"] <= values["quadratic_kappa"] <= values["quadratic_kappa_ci_high"]


def test_agreement_is_that_of_scikit_learn(figures, wide):
    assert set(figures.agreement) == set(itertools.permutations(LABELS, 2))
    for (reference, label), values in figures.agreement.items():
        assert_agrees(values, wide[label], wide[reference])
        assert values["n_prompts"] == 20  # captions, not pairs of prompts


def test_a_tenth_of_flipped_verdicts_costs_what_it_should(figures):
    assert figures.agreement[HONEST, MAJORITY]["quadratic_kappa"] == 1
    assert 0.6 < figures.agreement[HONEST, FLIPS]["quadratic_kappa"] < 0.95
    assert figures.agreement[HONEST, FIRST]["quadratic_kappa"] == 0


def test_slices_hold_the_agreement_with_the_reference(figures, wide):
    assert figures.reference == "people"
    assert [part.name for part in figures.by_generator] == sorted(GENERATORS)
    for part in figures.by_generator:
        rows = wide[wide["generator"] == part.name]
        assert part.pairs == len(rows) == 40
        for label in LABELS[1:]:
            assert_agrees(part.by_judge[label], rows[label], rows["people"])
    assert len(figures.by_dimension) == 3
    for part in figures.by_dimension:
        rows = wide[[part.name in names for names in wide["dimensions"]]]
        assert part.pairs == len(rows)
        assert_agrees(part.by_judge[HONEST], rows[HONEST], rows["people"])


def test_the_reference_can_be_chosen(run, figures):
    chosen = read_figures(run, HONEST)
    assert chosen.reference == HONEST
    assert chosen.by_generator[0].by_judge[FLIPS] != figures.by_generator[0].by_judge[FLIPS]
    assert judge(chosen, HONEST).by_confidence == ()
    with pytest.raises(InputError, match=r"--reference 'nobody' is no judge of .* there are: people, honest, flips"):
        read_figures(run, "nobody")


def test_confidence_comes_in_thirds(run, figures, wide):
    rows = store.read(run, "verdicts").to_pandas()
    sure = rows[(rows["judge"] == HONEST) & (rows["order"] == "first")].set_index("image_id")["confidence"]
    assert judge(figures, HONEST).confidence == pytest.approx(sure.mean())
    both = wide[wide["people"].notna()]
    table = pd.DataFrame({"sure": sure.loc[both["image_id"]].to_numpy(), "same": (both[HONEST] == both["people"])})
    thirds = table.groupby(pd.qcut(table["sure"].to_numpy(), 3))["same"].agg(["size", "mean"])
    found = [(count, share) for _, count, share in judge(figures, HONEST).by_confidence]
    assert found == [pytest.approx(row) for row in thirds.itertuples(index=False, name=None)]
    assert math.isnan(judge(figures, FIRST).confidence)


def alpha_by_pairs(answers):
    """Krippendorff's alpha as observed over expected disagreement, one pair of answers at a time."""
    units = [row[~np.isnan(row)] for row in answers]
    units = [row for row in units if len(row) > 1]
    every = np.concatenate(units)
    counts = {value: (every == value).sum() for value in np.unique(every)}

    def distance(a, b):
        low, high = min(a, b), max(a, b)
        between = sum(count for value, count in counts.items() if low <= value <= high)
        return (between - (counts[a] + counts[b]) / 2) ** 2

    observed = sum(sum(distance(a, b) for a, b in itertools.permutations(row, 2)) / (len(row) - 1) for row in units)
    expected = sum(distance(a, b) for a, b in itertools.permutations(every, 2)) / (len(every) - 1)
    return 1 - observed / expected


def test_raters_agree_as_far_as_they_do(figures, wide):
    raters = figures.raters
    assert (raters.count, raters.compared) == (2, 1)
    assert raters.mean_kappa == figures.agreement[ONE, TWO]["quadratic_kappa"]
    assert raters.alpha["alpha"] == pytest.approx(alpha_by_pairs(wide[[ONE, TWO]].to_numpy()))
    assert raters.alpha["n_rows"] == wide[[ONE, TWO]].notna().all(axis=1).sum()
    assert raters.alpha["alpha_ci_low"] < raters.alpha["alpha"] < raters.alpha["alpha_ci_high"]


def test_alpha_is_that_of_the_published_example():
    # Krippendorff, Computing Krippendorff's Alpha-Reliability (2011), section C: four observers, twelve units
    observers = ("123321412...", "1233224125.3", ".3332342251.", "12332441251.")
    answers = np.array([[math.nan if each == "." else float(each) for each in row] for row in observers]).T
    found = krippendorff_alpha(answers, range(12), (1, 2, 3, 4, 5), **OPTIONS)
    assert found["alpha"] == pytest.approx(0.815, abs=0.0005)
    assert found["n_rows"] == 11


@pytest.mark.parametrize("answers", [[[1.0, math.nan], [math.nan, 0.5]], [[1.0, 1.0], [1.0, 1.0]]])
def test_alpha_says_why_it_is_undefined(answers):
    found = krippendorff_alpha(np.array(answers), ["a", "b"], (0, 0.5, 1), **OPTIONS)
    assert "alpha" not in found
    assert found["notes"]["alpha"].startswith("undefined: nothing was answered twice")


def test_spearman_is_that_of_scipy_on_every_resample():
    rng = np.random.default_rng(5)
    one = rng.integers(0, 6, 60).astype(float)
    other = one + rng.integers(0, 6, 60)
    clusters = np.repeat(np.arange(20), 3)
    found = spearman(one, other, clusters, **{**OPTIONS, "n_resamples": 300})
    assert found["rho"] == pytest.approx(stats.spearmanr(one, other).statistic)
    drawn = np.random.default_rng([0, 20])
    replicates = []
    for start in range(0, 300, 256):
        for chosen in drawn.integers(20, size=(min(256, 300 - start), 20), dtype=np.int64):
            rows = np.concatenate([np.flatnonzero(clusters == each) for each in chosen])
            replicates.append(stats.spearmanr(one[rows], other[rows]).statistic)
    ends = np.quantile(replicates, [0.025, 0.975])
    assert [found["rho_ci_low"], found["rho_ci_high"]] == pytest.approx(ends.tolist())
    assert "rho" not in spearman(np.ones(60), other, clusters, **OPTIONS)


def test_ratings_are_means_on_their_own_scale(run, figures):
    rows = store.read(run, "verdicts").to_pandas()
    images = store.read(run, "images", ("image_id", "prompt_id")).to_pandas()
    roles = store.read(run, "prompts").to_pandas().set_index("prompt_id")["role"]
    role = dict(zip(images["image_id"], roles.loc[images["prompt_id"]], strict=True))
    assert [(each.dimension, each.judge, each.scale) for each in figures.ratings] == [
        ("main concept", HONEST, 100),
        ("main concept", FLIPS, 100),
        ("clarity", HONEST, 2),
    ]
    for each in figures.ratings:
        own = rows[(rows["judge"] == each.judge) & (rows["dimension"] == each.dimension)]
        means = own.groupby(own["image_id"].map(role))["outcome"].mean() * each.scale
        assert each.n == 80
        assert each.original.value == pytest.approx(means["original"])
        assert each.wide.value == pytest.approx(means["wide_spectrum"])
        assert each.difference.value == pytest.approx(means["wide_spectrum"] - means["original"])
        assert each.difference.high < 0
    (common,) = figures.correlations
    table = rows[rows["dimension"] == "main concept"].pivot(index="image_id", columns="judge", values="outcome")
    assert common.values["rho"] == pytest.approx(stats.spearmanr(table[HONEST], table[FLIPS]).statistic)


def test_agreement_rows_hold_every_two_judges_both_ways(run, figures):
    rows = agreement_rows(run, {**OPTIONS, "n_resamples": 50})
    assert {(judge, rival) for judge, rival, _ in rows} == set(itertools.permutations(LABELS, 2))
    values = {(judge, rival): found for judge, rival, found in rows}
    for (reference, label), found in figures.agreement.items():
        assert values[label, reference]["quadratic_kappa"] == found["quadratic_kappa"]
    # the orders are those of the judge, whoever it is compared with
    assert values[FIRST, HONEST]["position_bias_rate"] == 1
    assert values[HONEST, FIRST]["position_bias_rate"] == 0


def test_attention_checks_come_from_the_logs(tmp_path):
    keys = make_run(tmp_path / "run")
    (prompt, image, rival), kinds = keys[0], ("other", "pair", "other", "same", "same")
    items = [Item(kind, prompt, image, image if kind == "same" else rival, "first") for kind in kinds]
    log = start_log(tmp_path / "run", "k7", items, "v1")
    for choice in ("first", "second", "second", "tie"):
        log.answer(choice)
    start_log(tmp_path / "run", "new", items, "v1")
    assert read_figures(tmp_path / "run").checks == {ONE: (2, 3)}


def test_without_a_verdict_on_a_pair_it_says_what_to_do(tmp_path):
    keys = bare_run(tmp_path / "run")
    expected = r"holds no verdict of any judge on a pair of images: run `widespectrum judge .*` with a judge"
    with pytest.raises(InputError, match=expected):
        read_figures(tmp_path / "run")
    prompt, image, _ = keys[0]
    store.append(tmp_path / "run", "verdicts", [verdict((prompt, image, ""), HONEST, "both", 1, dimension="clarity")])
    with pytest.raises(InputError, match=expected):
        read_figures(tmp_path / "run")
    with pytest.raises(RunFolderError, match="is no run folder"):
        read_figures(tmp_path)


def test_a_single_judge_with_one_verdict_is_enough(tmp_path):
    keys = bare_run(tmp_path / "run")
    rows = [verdict(keys[0], HONEST, order, 1) for order in ("first", "second", "both")]
    store.append(tmp_path / "run", "verdicts", rows)
    found = read_figures(tmp_path / "run")
    (only,) = found.judges
    assert (only.verdicts, only.missing, only.share_wide.value) == (1, 79, 1)
    assert math.isnan(only.share_wide.low)
    assert (found.agreement, found.raters, found.costs) == ({}, None, [])


def test_what_shares_no_pair_or_one_category_is_undefined_and_not_zero(tmp_path):
    keys = bare_run(tmp_path / "run")
    rows = [verdict(key, HONEST, order, 1) for key in keys[:4] for order in ("first", "second", "both")]
    rows += [verdict(key, FLIPS, order, 1) for key in keys[2:4] for order in ("first", "second", "both")]
    rows += [verdict(keys[9], FIRST, order, 1) for order in ("first", "second", "both")]
    store.append(tmp_path / "run", "verdicts", rows)
    prompt, image, rival = keys[0]
    names = {"prompt_id": prompt, "image_id": image, "rival_id": rival, "dimension": "overall"}
    store.append(tmp_path / "run", "abstentions", [AbstentionRecord(**names, judge=MAJORITY, reason="few")])
    found = read_figures(tmp_path / "run").agreement
    assert "quadratic_kappa" not in found[HONEST, FLIPS]
    assert found[HONEST, FLIPS]["accuracy"] == 1
    assert found[HONEST, FIRST]["n_compared"] == found[HONEST, MAJORITY]["n_compared"] == 0
