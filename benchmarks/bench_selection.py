"""How long it takes to select photographs by text queries, and how much memory. Prints one line with the limits.

python benchmarks/bench_selection.py [--repeats 3]

The embeddings are made up and as large as AVA's: 255,530 × 768 in float16, on disk, opened in place. The queries are
the 60 of the package with their negatives (85 texts in all), at the share and the cap that the builder uses.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

IMAGES, DIMENSION = 255_530, 768
SECONDS, MEGABYTES = 3.0, 1_000


class Measured(NamedTuple):
    """Seconds of the fastest run, the least processor seconds, seconds of all runs, and megabytes above the process
    once everything is imported.

    The pages of the embeddings that the system keeps in memory count in `megabytes`, though it may drop them at any
    time; `own` is without them.
    """

    seconds: float
    processor: float
    runs: list[float]
    megabytes: float
    own: float


def _make_embeddings(path: Path) -> None:
    rng = np.random.default_rng(0)
    stored = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=(IMAGES, DIMENSION))
    for start in range(0, IMAGES, 20_000):
        part = stored[start : start + 20_000]
        part[:] = rng.standard_normal(part.shape, dtype=np.float32)
    stored.flush()


def _status(key: str) -> float:
    """A line of /proc/self/status, in megabytes."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) / 1024
    return float("nan")


def _measure(path: str, repeats: int) -> Measured:
    from widespectrum.ava.queries import query_set, query_texts
    from widespectrum.ava.selection import select

    rng, queries = np.random.default_rng(1), query_set()
    vectors = {text: rng.standard_normal(DIMENSION) for text in query_texts(queries)}
    ids = np.arange(IMAGES)
    select(np.eye(3, dtype=np.float16), ids[:3], queries[:1], {text: np.ones(3) for text in vectors})
    # Not ru_maxrss, which a process takes over from the one that started it.
    base, files, runs, spent = _status("VmHWM"), _status("RssFile"), [], []
    stored = np.load(path, mmap_mode="r")
    for _ in range(repeats):
        start, used = time.perf_counter(), time.process_time()
        found = select(stored, ids, queries, vectors, cap=0.05)
        runs.append(time.perf_counter() - start)
        spent.append(time.process_time() - used)
    assert found.pool > 20_000
    peak = _status("VmHWM") - base
    return Measured(min(runs), min(spent), runs, peak, peak - (_status("RssFile") - files))


def bench_selection(repeats: int = 3) -> Measured:
    """Measure in a process of its own: the peak of memory is a process's, and never falls."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "embeddings.npy"
        _make_embeddings(path)
        with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
            return pool.apply(_measure, (str(path), repeats))


def main() -> None:
    """Print the line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    measured = bench_selection(parser.parse_args().repeats)
    runs = ", ".join(f"{each:.2f}" for each in measured.runs)
    print(f"selection, {IMAGES:,} × {DIMENSION} float16, 85 texts, {os.cpu_count()} cores: {measured.seconds:.2f} s")
    print(f"(runs: {runs}; processor time {measured.processor:.2f}; limit {SECONDS:g})")
    print(f"{measured.megabytes:.0f} MB, {measured.own:.0f} without the pages of the file (limit {MEGABYTES:,})")


if __name__ == "__main__":
    main()
