"""From image pairs to curves of dose and response: which pairs count, and what stands at strength 0."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from widespectrum.doses import doses, response_to_doses
from widespectrum.types import ModelSpec

OPTIONS = {"n_resamples": 20, "seed": 0, "confidence_level": 0.95}
STRENGTHS = (1, 2, 4)
CELLS = ("r_io_po", "r_io_pa", "r_ia_po", "r_ia_pa")


def generators(*strengths, size=64):
    params = [{"strength": k, "size": size} for k in strengths]
    specs = [ModelSpec(adapter="photo-effects", name="photo-effects", params=each) for each in params]
    return {f"s{spec.params['strength']}x{size}": spec for spec in specs}


SPECS = generators(*STRENGTHS) | {"identity": ModelSpec(adapter="identity", name="identity")}


@pytest.fixture
def pairs():
    """Two reward models on four pairs of two seeds at three strengths, and a generator without effects."""
    keys = [(f"p{k}", label, seed, model) for k in range(4) for label in SPECS for seed in (0, 1) for model in "mn"]
    table = pd.DataFrame(keys, columns=["pair_id", "generator", "image_seed", "reward_model"])
    rng = np.random.default_rng(0)
    table[list(CELLS)] = rng.normal(size=(len(table), 4))
    first = table.groupby(["pair_id", "reward_model"])[["r_io_po", "r_io_pa"]].transform("first")
    table[["r_io_po", "r_io_pa"]] = first
    table["image_io"] = "photograph of " + table["pair_id"]
    table["controlled"] = table["generator"] != "identity"
    table["cluster"] = table["pair_id"].map({"p0": "a cat", "p1": "a cat", "p2": "a bus", "p3": "a sea"})
    wanted = {"p0": ("clarity",), "p1": ("clarity", "richness"), "p2": ("richness",), "p3": ("clarity",)}
    table["dimensions"] = table["pair_id"].map(wanted)
    return table


def slopes(rows, cells):
    """Slope of each pair and seed by scipy, the photograph at strength 0."""
    found = []
    for _, part in rows.groupby(["pair_id", "image_seed"]):
        default, own = cells
        y = [part[default].iloc[0], *(part.set_index("generator").loc[f"s{k}x64", own] for k in STRENGTHS)]
        found.append(stats.linregress([0, *STRENGTHS], y).slope)
    return found


@pytest.mark.parametrize("model", ["m", "n"])
def test_p_a_requests_and_the_photograph_is_strength_0(pairs, model):
    rows = doses(pairs, SPECS)
    rows = rows[rows["reward_model"] == model]
    result = response_to_doses(rows, OPTIONS)
    assert result["slope_requested"] == pytest.approx(np.mean(slopes(rows, ("r_io_pa", "r_ia_pa"))))
    assert result["slope_unrequested"] == pytest.approx(np.mean(slopes(rows, ("r_io_po", "r_ia_po"))))
    photographs = rows.groupby(["pair_id", "image_seed"])["r_io_po"].first()
    assert result["reward_spread"] == pytest.approx(photographs.std())
    assert (result["n_pairs"], result["n_prompts"]) == (8, 3)
    by_dimension = result["by_dimension"]
    assert {name: block["n_pairs"] for name, block in by_dimension.items()} == {"clarity": 6, "richness": 4}
    part = rows[rows["pair_id"].isin(["p1", "p2"])]
    assert by_dimension["richness"]["slope_requested"] == pytest.approx(np.mean(slopes(part, ("r_io_pa", "r_ia_pa"))))


def test_prompts_that_name_no_dimensions_have_no_table_of_them(pairs):
    rows = doses(pairs, SPECS)
    rows = rows[rows["reward_model"] == "m"]
    rows["dimensions"] = [()] * len(rows)
    assert "by_dimension" not in response_to_doses(rows, OPTIONS)


def test_a_curve_that_lacks_a_strength_is_left_out_for_that_reward_model(pairs):
    lost = (pairs["pair_id"] == "p2") & (pairs["generator"] == "s2x64") & (pairs["reward_model"] == "m")
    rows = doses(pairs[~(lost & (pairs["image_seed"] == 1))], SPECS)
    assert rows.groupby("reward_model")["series"].nunique().to_dict() == {"m": 7, "n": 8}
    assert set(rows["generator"]) == {"s1x64", "s2x64", "s4x64"}


def test_where_the_effect_changed_nothing_there_is_no_dose(pairs):
    same = (pairs["pair_id"] == "p1") & (pairs["generator"] == "s1x64")
    rows = doses(pairs.assign(controlled=pairs["controlled"] & ~same), SPECS)
    assert set(rows["pair_id"]) == {"p0", "p2", "p3"}


@pytest.mark.parametrize("kept", [(), ("s2x64",)])
def test_one_strength_is_no_curve(pairs, kept):
    rows = doses(pairs.assign(controlled=pairs["generator"].isin(kept)), SPECS)
    assert rows.empty
    assert {"strength", "series"} <= set(rows.columns)


def test_photographs_of_two_sizes_are_two_curves_and_small_ones_one(pairs):
    large = pairs.assign(generator=pairs["generator"].str.replace("x64", "x512"))
    large = large[large["generator"] != "identity"]
    specs = SPECS | generators(*STRENGTHS, size=512)
    small = doses(pd.concat([pairs, large]), specs)
    assert small.groupby("reward_model")["series"].nunique().to_dict() == {"m": 8, "n": 8}
    assert len(small) == len(doses(pairs, SPECS))
    large["image_io"] += ", large"
    both = doses(pd.concat([pairs, large]), specs)
    assert both.groupby("reward_model")["series"].nunique().to_dict() == {"m": 16, "n": 16}
