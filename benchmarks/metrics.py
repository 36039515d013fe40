"""How fast the reward-bias kernel is, and how much memory it takes. Prints one table with the limits beside it.

python benchmarks/metrics.py [--quick]
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import resource
import time
from typing import NamedTuple

import numpy as np


class Case(NamedTuple):
    """One line of the table; limits are seconds and megabytes above the process's base."""

    what: str
    pairs: int
    models: int
    resamples: int
    verdicts: bool
    groups: int
    seconds: float | None
    megabytes: float | None


CASES = (
    Case("pooled", 3_000, 3, 10_000, False, 0, 1.0, 300),
    Case("verdicts, AUROC, 22 groups", 3_000, 3, 10_000, True, 22, 6.0, None),
    Case("large", 300_000, 9, 1_000, True, 0, 60.0, 2_000),
    *(Case(f"growth, 10^{k} rows", 10**k, 1, 200, True, 0, None, None) for k in (3, 4, 5, 6)),
)


def peak() -> float:
    """The largest memory of this process so far, in megabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(case: Case, answer: multiprocessing.Queue) -> None:
    """Seconds and megabytes of one case, in a process of its own."""
    from widespectrum.functional import reward_bias

    rng = np.random.default_rng(0)
    rewards = [rng.normal(size=(4, case.pairs)) for _ in range(case.models)]
    verdict = rng.choice([0.0, 0.5, 1.0], case.pairs, p=[0.1, 0.2, 0.7]) if case.verdicts else None
    group = np.arange(case.pairs) % case.groups if case.groups else None
    keys = {"prompt_id": np.arange(case.pairs) % max(300, case.pairs // 10), "image_seed": np.arange(case.pairs)}
    reward_bias(*np.ones((4, 2)), n_resamples=2)
    base, start = peak(), time.perf_counter()
    for columns in rewards:
        reward_bias(*columns, verdict=verdict, group=group, n_resamples=case.resamples, **keys)
    answer.put((time.perf_counter() - start, peak() - base))


def main() -> None:
    """Run every case and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="leave out the cases beyond 10^5 rows")
    quick = parser.parse_args().quick
    print(f"Python {platform.python_version()}, NumPy {np.__version__}, {platform.machine()}, {os.cpu_count()} cores\n")
    print(f"{'case':<28} {'pairs':>9} {'models':>6} {'resamples':>9} {'s':>7} {'limit':>6} {'MB':>6} {'limit':>6}")
    for case in CASES:
        if quick and case.pairs > 10**5:
            continue
        answer: multiprocessing.Queue = multiprocessing.get_context("spawn").Queue()
        process = multiprocessing.get_context("spawn").Process(target=measure, args=(case, answer))
        process.start()
        seconds, megabytes = answer.get()
        process.join()
        limits = ["" if limit is None else f"{limit:g}" for limit in (case.seconds, case.megabytes)]
        numbers = f"{seconds:7.2f} {limits[0]:>6} {megabytes:6.0f} {limits[1]:>6}"
        print(f"{case.what:<28} {case.pairs:>9,} {case.models:>6} {case.resamples:>9,} {numbers}")


if __name__ == "__main__":
    main()
