"""The page of `anti_aesthetic_adherence`: `python app.py`."""

from __future__ import annotations

import re
from pathlib import Path

import evaluate
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from page import build, forest

METRIC = evaluate.load(str(Path(__file__).with_name("anti_aesthetic_adherence.py")), keep_in_memory=True)
TEXT = """Does an image generator leave the mainstream look when asked to, with the content still there? One row per
prompt pair: the generator made image *I_o* from the plain prompt *p_o* and *I_a* from the wide-spectrum prompt *p_a*;
`r_io_po` and `r_ia_po` are the rewards of both images under *p_o*. Optional columns: `verdict` (1: *I_a* fits *p_a*
better, 0: *I_o*, 0.5: tie), `effect_io`, `effect_ia` and `content_io`, `content_ia` (0 to 100: how much of the
requested effects and of the main concept shows), `status` (ok, refused or failed), `dimensions` (names, separated by
semicolons), `j_io`, `j_ia` (eleven numbers from 0 to 2, separated by semicolons), `prompt_id`, `image_seed`, and
`r_ia_po_base` and the like of a base generator. An empty cell is a missing value in rewards, verdicts, effects,
contents, `j_io` and `j_ia`; in the other columns that you use, every row needs a value.
"""
EXAMPLE = pd.DataFrame(
    {
        "prompt_id": ["bus", "cafe", "dog", "harbor", "kitchen", "market", "portrait", "tree"],
        "r_io_po": [9.0, 8.5, 7.8, 9.4, 8.1, 8.8, 9.1, 7.5],
        "r_ia_po": [2.1, 6.9, 3.4, 8.9, 4.0, 1.5, "", 8.3],
        "verdict": [1, 1, 1, 0, 1, 1, "", 0.5],
        "effect_io": [5, 10, 0, 5, 0, 10, "", 5],
        "effect_ia": [85, 60, 80, 15, 75, 90, "", 30],
        "content_io": [95, 90, 100, 95, 90, 95, "", 100],
        "content_ia": [80, 85, 75, 95, 80, 60, "", 95],
        "status": ["ok", "ok", "ok", "ok", "ok", "ok", "refused", "ok"],
    },
    dtype=object,
)
MEANINGS = {
    "success_rate": "share of verdict 1; ties and refusals are no success, failed calls are left out",
    "delta_reward": "mean r(I_a, p_o) − r(I_o, p_o); it falls as images leave the mainstream look",
    "reward_after": "mean r(I_a, p_o)",
    "effect_gain": "mean effect(I_a) − effect(I_o)",
    "content_preservation": "mean content(I_a) / mean content(I_o); 1: kept as in I_o",
    "delta_j_all": "change of conventional quality, summed over eleven dimensions",
    "delta_j_selected": "the same, summed over the dimensions that the prompt selects",
    "effect_after": "mean effect(I_a)",
    "content_after": "mean content(I_a)",
    "j_after": "conventional quality of I_a, summed over eleven dimensions",
    "j_after_selected": "the same, summed over the dimensions that the prompt selects",
    "escape_rate": "share of I_a below the 10th percentile of the generator's own r(I_o, p_o)",
    "polish_overlap": "1: I_a scores as I_o does under p_o; 0: the two do not overlap",
    "refusal_rate": "share of rows refused",
    "failure_rate": "share of rows failed",
    "wilcoxon_r": "against the base, on r(I_a, p_o); negative: this generator scores higher",
    "wilcoxon_p": "one-sided p of that",
    "wilcoxon_j_r": "the same on the sum of J(I_a) over eleven dimensions",
    "wilcoxon_j_p": "one-sided p of that",
    "mcnemar_p": "exact, two-sided, on success against the base",
    "mcnemar_p_one_sided": "for: this generator succeeds less often",
}
SHARES = {
    "success_rate": None,
    "content_preservation": 1,
    "escape_rate": 0.1,
    "polish_overlap": 1,
    "refusal_rate": None,
    "failure_rate": None,
}


def numbers(text):
    """Numbers in one cell."""
    return [float(part) for part in re.split(r"[;,\s]+", text.strip("[]"))]


def names(text):
    """Names in one cell."""
    return [part.strip(" '\"") for part in re.split("[;,]", text.strip("[]"))]


KINDS = dict.fromkeys(("prompt_id", "image_seed", "status", "status_base"), str) | {"dimensions": names}
KINDS |= dict.fromkeys(("j_io", "j_ia", "j_io_base", "j_ia_base"), numbers)


def draw(result, given):
    """Rates with intervals; and the rewards of both images with the 10th percentile of the default."""
    figure = Figure(figsize=(5.5, 5), layout="constrained")
    axes = figure.subplots()
    forest(axes, result, SHARES)
    axes.set_title("Rates (gray: an I_a that scores as I_o does)")
    axes.set_xlim(left=-0.02)
    return figure, distributions(given)


def distributions(given):
    """The share of images below each reward under p_o; the escape rate is where I_a's line meets the threshold."""
    figure = Figure(figsize=(5.5, 5), layout="constrained")
    axes = figure.subplots()
    rows = zip(given["r_io_po"], given["r_ia_po"], given.get("status", ["ok"] * len(given["r_io_po"])), strict=True)
    pairs = np.array([(io, ia) for io, ia, status in rows if status == "ok" and None not in (io, ia)])
    if len(pairs):
        axes.ecdf(pairs[:, 0], label="I_o, the polished default")
        axes.ecdf(pairs[:, 1], label="I_a, asked for effects")
        axes.axvline(np.quantile(pairs[:, 0], 0.1), linestyle="--", color="gray", label="10th percentile of I_o")
        figure.legend(loc="outside lower center", ncols=2, frameon=False)
    axes.set(xlabel="reward under p_o", ylabel="share of images up to this reward", title="Polish pull")
    axes.grid(alpha=0.3)
    return figure


demo = build("Anti-aesthetic adherence", TEXT, METRIC, KINDS, EXAMPLE, MEANINGS, draw)

if __name__ == "__main__":
    demo.launch()
