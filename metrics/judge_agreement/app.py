"""The page of `judge_agreement`: `python app.py`."""

from __future__ import annotations

from pathlib import Path

import evaluate
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from page import build, forest

METRIC = evaluate.load(str(Path(__file__).with_name("judge_agreement.py")), keep_in_memory=True)
KINDS = {"prompt_id": str, "group": str, "image_seed": str}
TEXT = """How well do a judge's verdicts agree with those of another judge or of people, and does the order of showing
sway it? One row per image pair: `verdict` and `reference` are both answers, 1 (*I_a* fits the prompt better), 0 (*I_o*)
or 0.5 (tie). Optional columns: `verdict_first` and `verdict_second`, the judge's verdicts with *I_a* shown first and
second; `prompt_id` (rows of one prompt are resampled together), `group` (a generator, a dimension or a person, say) and
`image_seed`. Whole numbers up to 2 or more are read as levels 0, 1, 2, … without a tie; a tie written as −1 must become
0.5 first. An empty cell is a missing value in the four columns of answers; in the others that you use, every row
needs a value.
"""
EXAMPLE = pd.DataFrame(
    {
        "prompt_id": ["bus", "cafe", "dog", "harbor", "kitchen", "market", "portrait", "river", "street", "tree"],
        "verdict": [1, 1, 0.5, 1, 0.5, 1, 0, 1, 0.5, 1],
        "reference": [1, 1, 0.5, 1, 0, 0.5, 0, 1, 1, 1],
        "verdict_first": [1, 1, 1, 1, 1, 1, 0, 1, 0.5, 1],
        "verdict_second": [1, 1, 0, 1, 0, 1, 0, 1, 1, 1],
    },
    dtype=object,
)
MEANINGS = {
    "quadratic_kappa": "agreement beyond chance, larger disagreements weighing more; 1: full, 0: chance",
    "accuracy": "share of equal answers, a tie being equal to a tie alone",
    "accuracy_ties_dropped": "the same over the pairs in which neither side says tie",
    "accuracy_ties_merged": "the same with every tie taken for the category below it (for verdicts I_o)",
    "mae": "mean distance, in steps from a category to the next",
    "majority_baseline": "accuracy of always giving the reference's commonest category; its kappa is 0",
    "majority_baseline_mae": "mean distance of always giving it",
    "majority_category": "the reference's commonest category",
    "position_bias_rate": "share of pairs in which the verdict changes with the order of the images",
    "first_shown_rate": "of those in which neither order says tie, share that goes to the image shown first",
    "n_compared": "rows with both answers",
    "n_decided": "those in which neither side says tie",
    "n_both_orders": "rows with the verdicts of both orders",
    "n_reversed": "those in which they differ and neither is a tie",
}


class Levels:
    """The metric with its categories read off the answers: verdicts, or else levels 0, 1, 2, … up to the highest."""

    _compute = staticmethod(METRIC._compute)

    def compute(self, **given):
        """`METRIC.compute` on the columns of the table."""
        answers = {answer for name in given if name not in KINDS for answer in given[name] if answer is not None}
        if all(answer in range(101) for answer in answers) and max(answers, default=0) > 1:
            given |= {"categories": list(range(int(max(answers)) + 1)), "tie": None}
        return METRIC.compute(**given)


def draw(result, given):
    """Estimates with intervals, and the counts of both sides' answers."""
    figure = Figure(figsize=(5.5, 5), layout="constrained")
    shares, steps = figure.subplots(2, height_ratios=[5, 1])
    baseline = result.get("majority_baseline")
    references = {"quadratic_kappa": 0, "accuracy": baseline, "accuracy_ties_dropped": None}
    forest(
        shares,
        result,
        references | {"accuracy_ties_merged": None, "position_bias_rate": 0, "first_shown_rate": 0.5},
    )
    shares.set_title("Gray: without skill or bias")
    forest(steps, result, {"mae": result.get("majority_baseline_mae")})
    steps.set_title("In steps from a category to the next")
    steps.set_xlim(left=-0.02)
    return figure, heat_map(result)


def heat_map(result):
    """How often each answer of the reference met each of the judge."""
    counts = np.array(result["confusion_matrix"])
    labels = [f"{category:g}" for category in result["categories"]]
    if labels == ["0", "0.5", "1"]:
        labels = ["0: I_o", "0.5: tie", "1: I_a"]
    figure = Figure(figsize=(5.5, 5), layout="constrained")
    axes = figure.subplots()
    axes.imshow(counts, cmap="Blues", vmin=0, vmax=max(1, 1.4 * counts.max()))
    if len(labels) <= 12:
        for (row, column), count in np.ndenumerate(counts):
            axes.text(column, row, count, ha="center", va="center")
        axes.set_xticks(range(len(labels)), labels)
        axes.set_yticks(range(len(labels)), labels)
    axes.set(xlabel="verdict", ylabel="reference", title=f"Answers in {counts.sum()} pairs (diagonal: they agree)")
    return figure


demo = build("Judge agreement", TEXT, Levels(), KINDS, EXAMPLE, MEANINGS, draw)

if __name__ == "__main__":
    demo.launch()
