"""The dose and response curves of a report, on scores made up here."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from widespectrum.report.curves import responses
from widespectrum.types import ModelSpec

PAIRS = ("a", "b", "c", "d", "e")
CAPTIONS = dict(zip(PAIRS, ("bus", "bus", "cat", "dog", "sea"), strict=True))
STRENGTHS = (1, 3)


def material(pairs):
    """What `responses` reads of a run's material."""
    specs = {f"s{k}": ModelSpec(adapter="photo-effects", name="x", params={"strength": k}) for k in (0, *STRENGTHS)}
    evaluate = SimpleNamespace(n_resamples=100)
    return SimpleNamespace(pairs=pairs, specs=lambda kind: specs, config=SimpleNamespace(evaluate=evaluate), level=0.95)


@pytest.fixture
def scores():
    """Two reward models on five pairs at two strengths, and one generator without a strength."""
    rng = np.random.default_rng(0)
    keys = [(pair, generator, model) for pair in PAIRS for generator in ("s1", "s3", "other") for model in "mn"]
    table = pd.DataFrame(keys, columns=["pair_id", "generator", "reward_model"])
    table["cluster"] = table["pair_id"].map(CAPTIONS)
    table["image_io"], table["image_seed"] = table["pair_id"], 0
    table["controlled"] = table["generator"] != "other"
    default = {(pair, model): rng.normal(size=2) for pair in PAIRS for model in "mn"}
    before = [default[key] for key in zip(table["pair_id"], table["reward_model"], strict=True)]
    table[["r_io_po", "r_io_pa"]] = np.array(before)
    table[["r_ia_po", "r_ia_pa"]] = rng.normal(size=(len(table), 2))
    return table


def by_model(pairs):
    return {response.reward_model: response for response in responses(material(pairs))}


def test_the_curve_is_the_mean_change_in_spreads(scores):
    response = by_model(scores)["m"]
    assert response.strengths == [0, 1, 3]
    rows = scores[scores["reward_model"] == "m"].set_index(["generator", "pair_id"])
    spread = rows.loc["s1", "r_io_po"].std()
    for curve, prompt in ((response.under_original, "po"), (response.under_wide_spectrum, "pa")):
        images = [rows.loc["s1", f"r_io_{prompt}"], *(rows.loc[f"s{k}", f"r_ia_{prompt}"] for k in STRENGTHS)]
        changes = [(image - rows.loc["s1", "r_io_po"]).mean() / spread for image in images]
        assert curve.mean == pytest.approx(changes)
        assert np.all(curve.low <= curve.mean)
        assert np.all(curve.high >= curve.mean)


def test_pairs_that_share_a_caption_are_one_cluster(scores):
    (alone,) = [part for part in responses(material(scores[scores["cluster"] == "bus"])) if part.reward_model == "m"]
    assert np.isnan(alone.under_wide_spectrum.low).all()
    assert np.isfinite(alone.under_wide_spectrum.mean).all()


def test_pairs_that_lack_a_strength_are_left_out(scores):
    less = scores[(scores["pair_id"] != "c") | (scores["generator"] != "s3")]
    without = scores[scores["pair_id"] != "c"]
    for name, response in by_model(less).items():
        assert np.array_equal(response.under_wide_spectrum, by_model(without)[name].under_wide_spectrum)
    assert responses(material(scores[scores["generator"] != "s3"])) == []


def test_a_score_that_one_reward_model_lacks_leaves_the_other_its_curve(scores):
    lost = (scores["pair_id"] == "c") & (scores["generator"] == "s3") & (scores["reward_model"] == "m")
    less = by_model(scores[~lost])
    assert np.array_equal(less["m"].under_original, by_model(scores[scores["pair_id"] != "c"])["m"].under_original)
    assert np.array_equal(less["n"].under_original, by_model(scores)["n"].under_original)
