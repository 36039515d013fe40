"""How often a 95 % interval holds the truth, on made-up scores whose truth is known. Prints one table.

python benchmarks/coverage.py [--runs 2000] [--prompts 300] [--processes 2] [--quick]

The scores resemble HPSv3's on ten generators: skewed, with effects that the ten rows of a prompt share, and with prior
and match of opposite sign. The truth of linear figures follows from the constants; that of the others is computed,
without this package, from 2 million rows of different prompts.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import time
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from scipy.special import ndtr
from scipy.stats import rankdata
from tqdm import tqdm

ROWS = 10  # of each prompt
LEVEL = 0.95
BAND = (93.0, 97.0)
PRIOR, MATCH, DEFAULT = -2.4, 1.8, 12.0
SPREAD = (1.7, 2.5)  # standard deviations of r(I_o,p_o): between prompts, within
KINDS = ("percentile", "bca", "ignoring clusters")
MODELS = 8
REWARDS = ("r_io_po", "r_io_pa", "r_ia_po", "r_ia_pa")
Found: TypeAlias = dict[str, tuple[dict[str, Any], str]]
"""Name in `Truth.values` to the result that holds the estimate, and its name there."""


class Truth(NamedTuple):
    """`values[name]` is what an interval should hold; `cuts[name]` are the verdict thresholds of a study."""

    values: dict[str, float]
    cuts: dict[str, tuple[float, float]]


def effects(rng: np.random.Generator, n: int, rows: int, shared: float, own: float) -> np.ndarray:
    """Centred effects of skewness 1 with these standard deviations: one of each prompt, one of each row; (n, rows)."""
    return shared * (rng.gamma(4, 0.5, (n, 1)) - 2) + own * (rng.gamma(4, 0.5, (n, rows)) - 2)


def population(rng: np.random.Generator, n: int, rows: int) -> dict[str, np.ndarray]:
    """Scores of `n` prompts with `rows` rows each, (n, rows)."""
    move = effects(rng, n, rows, 1.2, 1.5)
    match = MATCH + move
    prior = PRIOR - move + effects(rng, n, rows, 0.7, 2.4)
    io_po = DEFAULT - effects(rng, n, rows, *SPREAD)
    io_pa = io_po - 1 + effects(rng, n, rows, 1.0, 1.0)
    fit = effects(rng, n, rows, 0.7, 0.7) + 0.2 * (prior + match)
    content = 1 + effects(rng, n, rows, 0.6, 0.6)
    return {
        "r_io_po": io_po,
        "r_io_pa": io_pa,
        "r_ia_po": io_po + prior - match,
        "r_ia_pa": io_pa + prior + match,
        "fit": fit,
        "second_fit": fit + effects(rng, n, rows, 0.6, 0.6),
        "effect_io": 100 * ndtr(-1 + 0.3 * fit),
        "effect_ia": 100 * ndtr(0.5 + 0.7 * fit),
        "content_io": 100 * ndtr(content),
        "content_ia": 100 * ndtr(0.8 * content - 0.3 * fit),
    }


def verdicts(fit: np.ndarray, cuts: tuple[float, float]) -> np.ndarray:
    return np.where(fit > cuts[1], 1.0, np.where(fit < cuts[0], 0.0, 0.5))


def area(above: np.ndarray, below: np.ndarray) -> float:
    """P(above > below) + ½ P(equal), by the rank sum."""
    ranks = rankdata(np.concatenate([above, below]))[: len(above)]
    return float((ranks.mean() - (len(above) + 1) / 2) / len(below))


def truth(n: int) -> Truth:
    """What each estimate tends to with more and more prompts."""
    columns = {name: values.ravel() for name, values in population(np.random.default_rng(2026), n, 1).items()}
    io_po, io_pa, ia_po, ia_pa = (columns[name] for name in REWARDS)
    shares = {"common": (0.2, 0.4), "rare": (0.02, 0.22)}  # 25 % and 2.5 % negatives among the decided
    cuts = {name: tuple(np.quantile(columns["fit"], share)) for name, share in shares.items()}
    common, rare = (area_truth(ia_pa - io_pa, verdicts(columns["fit"], cut)) for cut in cuts.values())
    first, second = (verdicts(columns[name], cuts["common"]) for name in ("fit", "second_fit"))
    shuffled = sum((first - v) @ (first - v) / n * (second == v).mean() for v in (0, 0.5, 1))
    above = area(ia_po, io_po)
    values = {
        "image_prior": PRIOR,
        "prompt_match": MATCH,
        "prior_over_match": -PRIOR / MATCH,
        "match_positive_rate": (ia_pa - io_pa > ia_po - io_po).mean(),
        "accuracy_under_original": (io_po > ia_po).mean(),
        "accuracy_under_wide_spectrum": (ia_pa > io_pa).mean(),
        "both_ways_accuracy": ((io_po > ia_po) & (ia_pa > io_pa)).mean(),
        "image_prior_standardised": PRIOR / np.hypot(*SPREAD),
        "prompt_match_standardised": MATCH / np.hypot(*SPREAD),
        **verdict_truth(first, ia_pa > io_pa),
        "auroc": common,
        "auroc, 2.5 % negatives": rare,
        "auroc, one row a prompt": common,
        "auroc, one row, 2.5 % negatives": rare,
        "success_rate": (first == 1).mean(),
        "delta_reward": PRIOR - MATCH,
        "reward_after": DEFAULT + PRIOR - MATCH,
        "effect_gain": (columns["effect_ia"] - columns["effect_io"]).mean(),
        "content_preservation": columns["content_ia"].mean() / columns["content_io"].mean(),
        "escape_rate": (ia_po < np.quantile(io_po, 0.1)).mean(),
        "polish_overlap": 2 * min(above, 1 - above),
        "polish_overlap, I_a like I_o": 1.0,
        "quadratic_kappa": 1 - ((first - second) ** 2).mean() / shuffled,
        "accuracy of a judge": (first == second).mean(),
    }
    return Truth({name: float(value) for name, value in values.items()}, cuts)


def area_truth(margin: np.ndarray, verdict: np.ndarray) -> float:
    return area(margin[verdict == 1], margin[verdict == 0])


def verdict_truth(verdict: np.ndarray, wide: np.ndarray) -> dict[str, float]:
    """The figures of decisions against verdicts, from the shares of the four outcomes."""
    tp, fn = ((flags & (verdict == 1)).mean() for flags in (wide, ~wide))
    fp, tn = ((flags & (verdict == 0)).mean() for flags in (wide, ~wide))
    f1, f1_zero = 2 * tp / (2 * tp + fp + fn), 2 * tn / (2 * tn + fp + fn)
    decided = tp + fn + fp + tn
    return {
        "accuracy": (tp + tn) / decided,
        "f1": f1,
        "f1_weighted": ((tp + fn) * f1 + (fp + tn) * f1_zero) / decided,
        "balanced_accuracy": (tp / (tp + fn) + tn / (fp + tn)) / 2,
        "mcc": (tp * tn - fp * fn) / np.sqrt((tp + fn) * (fp + tn) * (tp + fp) * (tn + fn)),
    }


def pooled(columns: dict[str, np.ndarray], cuts: dict[str, Any], options: dict[str, Any], clusters: bool) -> Found:
    """The studies on all rows."""
    from widespectrum.functional import anti_aesthetic_adherence, judge_agreement, reward_bias

    n, rows = columns["fit"].shape
    flat = {name: values.ravel() for name, values in columns.items()}
    keys = {"prompt_id": np.repeat(np.arange(n), rows), "image_seed": np.tile(np.arange(rows), n)} if clusters else {}
    rewards, verdict = [flat[name] for name in REWARDS], verdicts(flat["fit"], cuts["common"])
    bias = reward_bias(*rewards, verdict=verdict, **keys, **options)
    names = ("r_io_po", "r_ia_po", "effect_io", "effect_ia", "content_io", "content_ia")
    adherence = anti_aesthetic_adherence(**{name: flat[name] for name in names}, verdict=verdict, **keys, **options)
    judges = judge_agreement(verdict, verdicts(flat["second_fit"], cuts["common"]), **keys, **options)
    found = {name: (result, name) for result in (judges, adherence, bias) for name in result}
    found["accuracy of a judge"] = (judges, "accuracy")
    if clusters:
        rare = reward_bias(*rewards, verdict=verdicts(flat["fit"], cuts["rare"]), **keys, **options)
        found["auroc, 2.5 % negatives"] = (rare, "auroc")
    return found


def one_row(columns: dict[str, np.ndarray], cuts: dict[str, Any], options: dict[str, Any]) -> Found:
    """The studies on the first row of each prompt."""
    from widespectrum.functional import anti_aesthetic_adherence, reward_bias

    rewards, fit = [columns[name][:, 0] for name in REWARDS], columns["fit"][:, 0]
    common, rare = (reward_bias(*rewards, verdict=verdicts(fit, cut), **options) for cut in cuts.values())
    like = anti_aesthetic_adherence(rewards[0], columns["r_io_po"][:, 1], **options)
    return {
        "auroc, one row a prompt": (common, "auroc"),
        "auroc, one row, 2.5 % negatives": (rare, "auroc"),
        "polish_overlap, I_a like I_o": (like, "polish_overlap"),
    }


def one_run(task: tuple[int, int, int, Truth]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One simulated study: whether each interval holds the truth, (estimates, kinds), and whether it carries a caution,
    (estimates,), NaN where there is none; what `ranks` says."""
    run, n_prompts, n_resamples, known = task
    rng = np.random.default_rng([7, run])
    columns = population(rng, n_prompts, ROWS)
    holds, flagged = np.full((len(known.values), len(KINDS)), np.nan), np.full(len(known.values), np.nan)
    for k, kind in enumerate(KINDS):
        options = {"n_resamples": n_resamples, "seed": run, "interval": "bca" if kind == "bca" else "percentile"}
        clusters = kind != "ignoring clusters"
        found = pooled(columns, known.cuts, options, clusters)
        found |= one_row(columns, known.cuts, options) if clusters else {}
        for row, (name, value) in enumerate(known.values.items()):
            result, key = found.get(name, ({}, name))
            if f"{key}_ci_low" in result:
                holds[row, k] = result[f"{key}_ci_low"] <= value <= result[f"{key}_ci_high"]
                if k == 0:
                    flagged[row] = bool({key, "n_prompts"} & set(result["cautions"]))
    return holds, flagged, ranks(rng, n_prompts)


def ranks(rng: np.random.Generator, n_prompts: int) -> np.ndarray:
    """Flags (equal models told apart, some rank interval misses its rank), with clusters and without."""
    from widespectrum.functional import rank_models

    base = effects(rng, n_prompts, ROWS, 1.0, 1.0)
    models = {k: (base + effects(rng, n_prompts, ROWS, 0.5, 1.0)).ravel() for k in range(MODELS)}
    spaced = {k: values - 0.1 * k for k, values in models.items()}
    flags = []
    for clusters in (np.repeat(np.arange(n_prompts), ROWS), np.arange(n_prompts * ROWS)):
        flags.append(any(place.tie_group > 1 or place.rank_low > 1 for place in rank_models(models, clusters)))
        places = rank_models(spaced, clusters)
        flags.append(not all(place.rank_low <= place.name + 1 <= place.rank_high for place in places))
    return np.array(flags, dtype=float)


def show(known: Truth, holds: np.ndarray, flagged: np.ndarray, told: np.ndarray) -> None:
    """Prints the tables."""
    runs, absent = len(holds), np.isnan(holds).sum(axis=0)
    print(f"{'estimate':<32} {'truth':>7} {'percentile':>10} {'BCa':>5} {'ignoring':>8} {'93-97 %':>10} {'flagged':>7}")
    for row, (name, value) in enumerate(known.values.items()):
        shares = [100 * np.nanmean(holds[:, row, k]) if absent[row, k] < runs else np.nan for k in range(len(KINDS))]
        inside = [kind for kind, share in zip(KINDS[:2], shares, strict=False) if BAND[0] <= share <= BAND[1]]
        percentile, bca, ignoring = (f"{share:.1f}".replace("nan", "-") for share in shares)
        verdict = "both" if len(inside) == 2 else (*inside, "neither")[0]
        without = f"  {max(absent[row, :2])} runs without" if absent[row, :2].any() else ""
        numbers = f"{value:7.3f} {percentile:>10} {bca:>5} {ignoring:>8} {verdict:>10}"
        print(f"{name:<32} {numbers} {100 * np.nanmean(flagged[:, row]):6.0f}%{without}")
    error = 100 * np.sqrt(LEVEL * (1 - LEVEL) / runs)
    print(f"\nper cent of {runs:,} runs; Monte Carlo standard error {error:.1f} where the share is 95\n")
    print(f"{f'ranks of {MODELS} models, per cent of runs':<48} {'clusters':>8} {'ignoring':>8} {'limit':>6}")
    shares = 100 * told.mean(axis=0)
    for k, what in enumerate(("equal models, some told apart", "different models, some interval misses its rank")):
        print(f"{what:<48} {shares[k]:8.1f} {shares[k + 2]:8.1f} {100 - 100 * LEVEL:6.0f}")


def main() -> None:
    """Simulate and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--prompts", type=int, default=300)
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="100 runs, and a rougher truth")
    options = parser.parse_args()
    runs = 100 if options.quick else options.runs
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # read by the processes to come: one core each
    start = time.perf_counter()
    known = truth(200_000 if options.quick else 2_000_000)
    tasks = [(run, options.prompts, options.resamples, known) for run in range(runs)]
    with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
        found = list(tqdm(pool.imap(one_run, tasks, chunksize=5), total=runs, unit="run"))
    machine = f"{platform.machine()}, {os.cpu_count()} cores, {time.perf_counter() - start:.0f} s"
    print(f"Python {platform.python_version()}, NumPy {np.__version__}, {machine}")
    print(f"{runs:,} runs of {options.prompts} prompts with {ROWS} rows each, {options.resamples:,} resamples\n")
    show(known, *(np.array(part) for part in zip(*found, strict=True)))


if __name__ == "__main__":
    main()
