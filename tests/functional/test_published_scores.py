"""Published figures that the authors' released scores reproduce; skipped where the scores are not at hand."""

import csv
from pathlib import Path

import numpy as np
import pytest

from widespectrum.functional import anti_aesthetic_adherence, reward_bias

SCORES = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "reference" / "scores_3300.csv"
REWARDS = {"r_io_po": "oiop", "r_io_pa": "oidp", "r_ia_po": "diop", "r_ia_pa": "didp"}


@pytest.fixture(scope="module")
def table():
    if not SCORES.is_file():
        pytest.skip("the released scores are not at hand")
    with SCORES.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["duplicate_block"] == "0"]
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def rewards(table, model, generator=None):
    rows = slice(None) if generator is None else table["paper_label"] == generator
    return {ours: table[f"{model}_{theirs}"][rows].astype(float) for ours, theirs in REWARDS.items()}


@pytest.mark.parametrize(
    ("aligned", "base", "r"),
    [("DanceFlux", "Flux Dev", -0.81), ("Playground", "SDXL", -0.59), ("SD3.5M-PickScore", "SD3.5M", -0.70)],
)
def test_wilcoxon_effect_sizes(table, aligned, base, r):
    own, other = rewards(table, "hpsv3", aligned), rewards(table, "hpsv3", base)
    result = anti_aesthetic_adherence(
        own["r_io_po"], own["r_ia_po"], r_io_po_base=other["r_io_po"], r_ia_po_base=other["r_ia_po"], n_resamples=200
    )
    assert round(result["wilcoxon_r"], 2) == r
    assert result["wilcoxon_p"] < 1e-10
    assert result["wilcoxon_r_ci_low"] < r < result["wilcoxon_r_ci_high"]


@pytest.mark.parametrize(
    ("generator", "delta", "after"),
    [
        ("Flux Dev", -3.165, 9.070),
        ("DanceFlux", -1.105, 12.782),
        ("SDXL", -4.041, 4.439),
        ("Nano Banana", -9.351, 2.742),
    ],
)
def test_hpsv3_columns_of_the_generator_table(table, generator, delta, after):
    own = rewards(table, "hpsv3", generator)
    result = anti_aesthetic_adherence(own["r_io_po"], own["r_ia_po"], n_resamples=50)
    assert (round(result["delta_reward"], 3), round(result["reward_after"], 3)) == (delta, after)


@pytest.mark.parametrize(("model", "above_one"), [("hpsv3", True), ("hpsv2", False), ("image_reward", False)])
def test_only_hpsv3_lets_taste_outweigh_the_prompt(table, model, above_one):
    result = reward_bias(
        **rewards(table, model), prompt_id=table["prompt_index"], group=table["paper_label"], n_resamples=500
    )
    assert (result["n_pairs"], result["n_prompts"]) == (3000, 300)
    assert (result["prior_over_match_ci_low"] > 1) == above_one
    assert (result["prior_over_match_ci_high"] < 1) != above_one
