"""The page of `reward_bias`: `python app.py`."""

from __future__ import annotations

from pathlib import Path

import evaluate
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from page import build, forest

METRIC = evaluate.load(str(Path(__file__).with_name("reward_bias.py")), keep_in_memory=True)
KINDS = {"prompt_id": str, "group": str, "image_seed": str}
TEXT = """How far does a reward model's taste for an image outweigh what the prompt asks for? One row per prompt pair:
a generator made image *I_o* from the plain prompt *p_o* and *I_a* from the wide-spectrum prompt *p_a*; `r_io_pa` is the
reward of *I_o* under *p_a*, and so on. Optional columns: `verdict` (1: *I_a* fits *p_a* better, 0: *I_o*, 0.5: tie),
`prompt_id` (rows of one prompt are resampled together), `group` (a generator, say), `image_seed` and
`controlled` (1: *I_a* shows by construction what *p_a* asks for, 0: it may not). Only `verdict` may have empty cells,
which are missing values; a reward must be there in every row.
"""
EXAMPLE = pd.DataFrame(
    {
        "prompt_id": ["bus", "dog", "harbor", "market", "portrait", "tree"],
        "r_io_po": [8, 10, 7, 7, 6, 4],
        "r_io_pa": [3, 6, 7, 5, 8, 2],
        "r_ia_po": [2, 1, 4, 1, 2, 5],
        "r_ia_pa": [7, 5, 4, 5, 2, 5],
        "verdict": [1, 1, 0.5, 1, 0, 1],
    },
    dtype=object,
)
MEANINGS = {
    "image_prior": "mean Q: preference for I_a whatever the prompt; negative: taste for the polished image",
    "prompt_match": "mean X: what changing the prompt moves toward I_a; 0: the prompt is not read",
    "prior_over_match": "−mean Q / mean X; above 1: taste outweighs the request",
    "match_positive_rate": "share of pairs with X > 0",
    "accuracy_under_original": "share in which I_o is preferred under p_o",
    "accuracy_under_wide_spectrum": "share in which I_a is preferred under p_a",
    "both_ways_accuracy": "share in which both hold; at random ¼, blind to the prompt 0",
    "image_prior_standardised": "mean Q in standard deviations of r(I_o, p_o)",
    "prompt_match_standardised": "mean X in standard deviations of r(I_o, p_o)",
    "accuracy": "agreement with verdicts 1 and 0",
    "always_wide_accuracy": "the accuracy of always answering I_a",
    "f1": "F1 of verdict 1",
    "f1_weighted": "F1 weighted by class size",
}
SHARES = {
    "match_positive_rate": None,
    "accuracy_under_original": 0.5,
    "accuracy_under_wide_spectrum": 0.5,
    "both_ways_accuracy": 0.25,
    "accuracy": None,
    "always_wide_accuracy": None,
    "balanced_accuracy": 0.5,
    "auroc": 0.5,
}
SPREADS = {"image_prior_standardised": 0, "prompt_match_standardised": 0}
OUTCOMES = {
    "right both ways": "tab:green",
    "right under p_o alone": "tab:orange",
    "right under p_a alone": "tab:purple",
    "never right": "tab:red",
}


def draw(result, given):
    """Shares and standardised means with intervals; and each pair's prior and match."""
    figure = Figure(figsize=(5.5, 5), layout="constrained")
    shares, spreads = figure.subplots(2, height_ratios=[3, 1])
    forest(shares, result, SHARES)
    shares.set(xlim=(-0.02, 1.02), title="From 0 to 1 (gray: answers at random)")
    forest(spreads, result, SPREADS)
    spreads.set_title("In standard deviations of r(I_o, p_o)")
    return figure, scatter(given)


def scatter(given):
    """Prior and match of each pair, colored by what the raw scores decide."""
    io_po, io_pa, ia_po, ia_pa = (np.array(given[name]) for name in ("r_io_po", "r_io_pa", "r_ia_po", "r_ia_pa"))
    prior, match = 0.5 * (ia_po + ia_pa - io_po - io_pa), 0.5 * (ia_pa - io_pa - ia_po + io_po)
    original, wide = io_po > ia_po, ia_pa > io_pa
    figure = Figure(figsize=(5.5, 5), layout="constrained")
    axes = figure.subplots()
    reach = 1.15 * max(np.abs(prior).max(), np.abs(match).max()) or 1.0
    axes.plot([-reach, reach], [-reach, reach], "--", color="gray", linewidth=1)
    axes.plot([-reach, reach], [reach, -reach], "--", color="gray", linewidth=1)
    groups = (original & wide, original & ~wide, ~original & wide, ~original & ~wide)
    for (label, color), chosen in zip(OUTCOMES.items(), groups, strict=True):
        alpha = min(1, 0.2 + 30 / len(prior))
        axes.plot(prior[chosen], match[chosen], "o", color=color, alpha=alpha, label=f"{label}: {chosen.sum()}")
    for handle in figure.legend(loc="outside lower center", ncols=2, frameon=False).legend_handles:
        handle.set_alpha(1)
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", title="Each pair (dashed: X = Q, X = −Q)")
    axes.set(xlabel="prior Q: taste for I_a, whatever the prompt", ylabel="match X: what the prompt moves toward I_a")
    return figure


demo = build("Reward bias", TEXT, METRIC, KINDS, EXAMPLE, MEANINGS, draw)

if __name__ == "__main__":
    demo.launch()
