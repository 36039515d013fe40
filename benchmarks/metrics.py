"""How fast `reward_bias` is beside a plain loop, and how much memory it takes. Prints one table with the limits.

python benchmarks/metrics.py [--quick] [--repeats 3]
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import resource
import time
import warnings
from typing import NamedTuple

import numpy as np

LEGEND = """
s: the fastest of {repeats} runs, with checks of the input. MB: above the process once everything is imported.
plain loop: the same figures by scipy.stats.bootstrap over prompts, with NumPy and scikit-learn on the rows of each
  resample, extrapolated from one model and the number of resamples under `of`; BCa adds one resample per prompt.
ns: nanoseconds per row, resample and model. Up to 10^5 rows it falls, as fixed costs spread, and at 10^6 it rises:
  AUROC, DeLong's variance and the counts of prompts take about 15 times as long as at 10^5, for one resample's
  arrays (7 MB each) and the weights of 10^5 prompts no longer fit into a core's cache (1 MB here), and the rest,
  half of the time, about 10 times: checks of the input, draws and sums over prompts.
On a busy machine the threads of NumPy's matrix products wait for one another: set OPENBLAS_NUM_THREADS=1 there.
"""


class Case(NamedTuple):
    """One line of the table: limits in seconds and megabytes above the process's base, and how many resamples the plain
    loop does (0: it is left out)."""

    what: str
    pairs: int
    models: int
    resamples: int
    verdicts: bool = True
    groups: int = 0
    interval: str = "percentile"
    seconds: float | None = None
    megabytes: float | None = None
    of: int = 0


CASES = (
    Case("pooled", 3_000, 3, 10_000, False, seconds=1.0, megabytes=300, of=200),
    Case("pooled, BCa", 3_000, 3, 10_000, False, interval="bca", of=200),
    Case("verdicts, AUROC, 22 groups", 3_000, 3, 10_000, groups=22, seconds=6.0, of=5),
    Case("the same, BCa", 3_000, 3, 10_000, groups=22, interval="bca", of=5),
    Case("large", 300_000, 9, 1_000, seconds=60.0, megabytes=2_000, of=2),
    *(Case(f"growth, 10^{k} rows", 10**k, 1, 200) for k in (3, 4, 5, 6)),
)


def columns(case: Case, seed: int) -> dict[str, np.ndarray]:
    """Made-up rows of one reward model, ten a prompt where there are enough."""
    rng = np.random.default_rng(seed)
    found = dict(zip(("r_io_po", "r_io_pa", "r_ia_po", "r_ia_pa"), rng.normal(size=(4, case.pairs)), strict=True))
    found["prompt_id"] = np.arange(case.pairs) % prompts(case)
    found["image_seed"] = np.arange(case.pairs)
    if case.verdicts:
        found["verdict"] = rng.choice([0.0, 0.5, 1.0], case.pairs, p=[0.1, 0.2, 0.7])
    if case.groups:
        found["group"] = np.arange(case.pairs) % case.groups
    return found


def prompts(case: Case) -> int:
    return max(300, case.pairs // 10)


def peak() -> float:
    """The largest memory of this process so far, in megabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(case: Case, repeats: int) -> tuple[float, float]:
    """Seconds and megabytes of one case, in a process of its own."""
    from widespectrum.functional import reward_bias

    models = [columns(case, seed) for seed in range(case.models)]
    reward_bias(*np.ones((4, 2)), n_resamples=2)
    base, times = peak(), []
    for _ in range(repeats):
        start = time.perf_counter()
        for model in models:
            reward_bias(**model, n_resamples=case.resamples, interval=case.interval)
        times.append(time.perf_counter() - start)
    return min(times), peak() - base


def plain(case: Case) -> float:
    """Seconds that the plain loop would take, in a process of its own."""
    from scipy.stats import bootstrap

    rows = columns(case, 0)
    of_prompt = np.split(np.argsort(rows["prompt_id"], kind="stable"), np.cumsum(np.bincount(rows["prompt_id"]))[:-1])
    slices = [np.ones(case.pairs, dtype=bool), *(rows["group"] == k for k in range(case.groups))]

    def statistic(drawn: np.ndarray) -> np.ndarray:
        chosen = np.concatenate([of_prompt[prompt] for prompt in drawn])
        return np.concatenate([figures({k: v[chosen[flags[chosen]]] for k, v in rows.items()}) for flags in slices])

    n, warm = prompts(case), np.arange(prompts(case))
    warnings.simplefilter("ignore")
    statistic(warm)
    start = time.perf_counter()
    bootstrap((warm,), statistic, n_resamples=case.of, vectorized=False, method="percentile", rng=0)
    each = (time.perf_counter() - start) / case.of
    return each * case.models * (case.resamples + (n if case.interval == "bca" else 0))


def figures(rows: dict[str, np.ndarray]) -> list[float]:
    """The figures of one slice of one resample, as one would write them down."""
    from sklearn import metrics

    io_po, io_pa, ia_po, ia_pa = (rows[name] for name in ("r_io_po", "r_io_pa", "r_ia_po", "r_ia_pa"))
    prior, match = ((ia_po + ia_pa) - (io_po + io_pa)) / 2, ((ia_pa - io_pa) - (ia_po - io_po)) / 2
    q, x, spread = prior.mean(), match.mean(), io_po.std(ddof=1)
    right, wide = io_po > ia_po, ia_pa > io_pa
    found = [q, x, -q / x, (match > 0).mean(), right.mean(), wide.mean(), (right & wide).mean(), q / spread, x / spread]
    if "verdict" in rows:
        decided = rows["verdict"] != 0.5
        truth, answer, score = rows["verdict"][decided] == 1, wide[decided], (ia_pa - io_pa)[decided]
        found += [metrics.accuracy_score(truth, answer), truth.mean(), metrics.f1_score(truth, answer)]
        found += [metrics.f1_score(truth, answer, average="weighted"), metrics.balanced_accuracy_score(truth, answer)]
        found += [metrics.matthews_corrcoef(truth, answer), metrics.roc_auc_score(truth, score)]
    return found


def main() -> None:
    """Run every case and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="leave out the cases beyond 10^5 rows")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    print(f"Python {platform.python_version()}, NumPy {np.__version__}, {platform.machine()}, {os.cpu_count()} cores\n")
    print(f"{'case':<27} {'pairs':>9} {'models':>6} {'resamples':>9} ", end="")
    print(f"{'s':>6} {'limit':>5} {'MB':>5} {'limit':>5} {'ns':>5} {'plain loop, s':>13} {'of':>4} {'times':>5}")
    for case in CASES:
        if options.quick and case.pairs > 10**5:
            continue
        # a process each: the peak of memory is a process's own, and never falls
        with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
            seconds, megabytes = pool.apply(measure, (case, options.repeats))
            loop = pool.apply(plain, (case,)) if case.of else None
        limits = ["" if limit is None else f"{limit:g}" for limit in (case.seconds, case.megabytes)]
        each = 1e9 * seconds / (case.pairs * case.models * case.resamples)
        beside = "" if loop is None else f" {loop:13,.0f} {case.of:>4} {loop / seconds:5,.0f}"
        print(f"{case.what:<27} {case.pairs:>9,} {case.models:>6} {case.resamples:>9,} ", end="")
        print(f"{seconds:6.2f} {limits[0]:>5} {megabytes:5.0f} {limits[1]:>5} {each:5.1f}{beside}", flush=True)
    print(LEGEND.format(repeats=options.repeats))


if __name__ == "__main__":
    main()
