"""How long a user waits: import, help, and the whole demo. Prints one table with the limits beside it.

python benchmarks/startup.py [--repeats 7]
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PYTHON = [sys.executable]
CASES = {
    # what: (command, limit in seconds, how often at most)
    "import widespectrum": ([*PYTHON, "-c", "import widespectrum"], 0.2, 99),
    "widespectrum --help": ([*PYTHON, "-m", "widespectrum", "--help"], 0.3, 99),
    "widespectrum models": ([*PYTHON, "-m", "widespectrum", "models"], None, 99),
    "widespectrum demo": ([*PYTHON, "-m", "widespectrum", "demo", "--out"], 60.0, 1),
}


def seconds(command: list[str]) -> float:
    """Wall time of one process. A demo gets a fresh folder each time."""
    with tempfile.TemporaryDirectory() as folder:
        folders = [str(Path(folder) / "run")] if command[-1] == "--out" else []
        start = time.perf_counter()
        subprocess.run([*command, *folders], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return time.perf_counter() - start


def main() -> None:
    """Time every case and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    repeats = parser.parse_args().repeats
    print(f"Python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} cores; wall seconds\n")
    print(f"{'what':<22} {'limit':>6} {'min':>7} {'median':>7} {'max':>7} {'runs':>5}")
    for what, (command, limit, most) in CASES.items():
        runs = min(repeats, most)
        times = [seconds(command) for _ in range(runs + (runs > 1))][-runs:]
        low, middle, high = min(times), statistics.median(times), max(times)
        shown = "" if limit is None else f"{limit:.1f}"
        print(f"{what:<22} {shown:>6} {low:7.2f} {middle:7.2f} {high:7.2f} {runs:>5}")


if __name__ == "__main__":
    main()
