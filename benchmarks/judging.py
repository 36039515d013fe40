"""How many verdicts per second come from an endpoint that needs as long for each. Prints one table with its limit.

python benchmarks/judging.py [--case chat stage] [--requests 1920] [--concurrency 32] [--delay 0.2] [--kilobytes 60]
    [--stored JPEG] [--repeats 3] [--folder /tmp] [--json benchmarks/results/NAME.json]
"""

from __future__ import annotations

import argparse
import datetime
import json
import multiprocessing
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

# Python looks beside this file first, and would take datasets.py for the package `datasets`.
sys.path[:] = [place for place in sys.path if Path(place).resolve() != Path(__file__).resolve().parent]
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

LIMIT = 0.9
LEGEND = """
An endpoint on loopback, in a process of its own, answers every request {delay:g} s after it came whole; {concurrency}
requests are on their way at a time, so that no client gets more than {ideal:.0f} answers per second. Every request
shows two images of about {kilobytes:g} kB; every pair is asked about in both orders. verdicts/s: median of {repeats}
runs. reached: its share of {ideal:.0f}; at least {limit:.0%}. cpu: processor time of the client per request, of all its
threads. load: the mean number of processes that wanted a core in the minute before the end; above the number of cores
the rate is noise.
  chat: Chat.stream, from Pillow images to replies that fit the schema and stand in the journal.
  stage: what `widespectrum judge` does for one verdict judge, from a run folder (images as {stored}) to stored
    verdicts; the SDK is imported before. Decoding a PNG of this size takes more than all the rest.
{machine}
"""


def _new_journal(folder: Path) -> Path:
    journal = folder / "journal.jsonl"
    journal.unlink(missing_ok=True)
    return journal


def _chat(port: int, options: argparse.Namespace, folder: Path) -> tuple[Callable[[], int], Callable[[], None]]:
    from benchmarks.judging_made import SCHEMA, photographs
    from widespectrum.chat import Chat, Endpoint, Question, Shown

    images = photographs(options.requests, options.kilobytes)
    chat = Chat(
        Endpoint("made", f"http://127.0.0.1:{port}/v1"),
        _new_journal(folder),
        temperature=0,
        concurrency=options.concurrency,
    )

    def questions() -> Any:
        for number in range(options.requests // 2):
            pair = [Shown(image, 1024) for image in images[2 * number : 2 * number + 2]]
            for order, shown in (("first", pair), ("second", pair[::-1])):
                messages = [
                    {"role": "system", "content": "Say which of two images fits the prompt better. " * 20},
                    {"role": "user", "content": f"Prompt {number}, {order}: a blurred and dark bus"},
                ]
                yield Question(f"{number} {order}", messages, SCHEMA, shown)

    return lambda: sum(1 for _ in chat.stream(questions())), chat.close


def _stage(port: int, options: argparse.Namespace, folder: Path) -> tuple[Callable[[], int], Callable[[], None]]:
    from benchmarks.judging_made import made_run
    from widespectrum import judging
    from widespectrum.judges import load_judge

    run = folder / "run"
    if not run.exists():
        made_run(run, options.requests // 2, options.kilobytes, options.stored)
    shutil.rmtree(run / "verdicts", ignore_errors=True)
    judge: Any = load_judge(
        "vlm", model="made", base_url=f"http://127.0.0.1:{port}/v1", concurrency=options.concurrency
    )
    judge.keep(_new_journal(folder))
    # Importing the SDK takes a second, once.
    judge.open()
    work = judging.planned(run, "vlm", judge)

    def verdicts() -> int:
        judged = judging.judge_all(work, batch_size=1, description="vlm")
        if judged.trouble is not None or judged.failures:
            raise RuntimeError(judged.trouble or judged.failures[0].reason)
        return 2 * judged.answered

    return verdicts, judge.close


CASES = {"chat": _chat, "stage": _stage}


def _measure(case: str, port: int, options: argparse.Namespace, folder: Path, results: Any) -> None:
    """One run of one case, in a process of its own."""
    work, close = CASES[case](port, options, folder)
    started, busy = time.perf_counter(), time.process_time()
    count = work()
    seconds, cpu = time.perf_counter() - started, time.process_time() - busy
    close()
    if count != options.requests:
        raise RuntimeError(f"{count} verdicts of {options.requests}")
    results.put({"seconds": seconds, "cpu": cpu / count, "load": os.getloadavg()[0]})


def _runs(case: str, options: argparse.Namespace) -> dict[str, Any]:
    from benchmarks.judging_made import VERDICT, serve

    spawn = multiprocessing.get_context("spawn")
    results, place = spawn.SimpleQueue(), spawn.SimpleQueue()
    server = spawn.Process(target=serve, args=(options.delay, VERDICT, place), daemon=True)
    server.start()
    port, runs = place.get(), []
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for _ in range(options.repeats):
            process = spawn.Process(target=_measure, args=(case, port, options, Path(folder), results))
            process.start()
            process.join()
            if process.exitcode:
                sys.exit(f"{case} failed")
            runs.append(results.get())
    server.terminate()
    return {"case": case, "runs": runs}


def _print(rows: list[dict[str, Any]], options: argparse.Namespace) -> None:
    print(f"{'case':<8}{'verdicts/s':>12}{'reached':>9}{'limit':>7}{'cpu':>10}{'load':>7}")
    ideal = options.concurrency / options.delay
    for row in rows:
        rate = options.requests / median(run["seconds"] for run in row["runs"])
        cpu, load = (median(run[name] for run in row["runs"]) for name in ("cpu", "load"))
        print(f"{row['case']:<8}{rate:>12.1f}{rate / ideal:>9.1%}{LIMIT:>7.0%}{f'{cpu * 1000:.2f} ms':>10}{load:>7.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--requests", type=int, default=1920)
    parser.add_argument("--concurrency", type=int, default=32)
    parser.add_argument("--delay", type=float, default=0.2)
    parser.add_argument("--kilobytes", type=float, default=60)
    parser.add_argument("--stored", choices=("JPEG", "PNG"), default="JPEG")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = [_runs(case, options) for case in options.case]
    _print(rows, options)
    machine = (
        f"{os.cpu_count()} cores, {platform.processor() or platform.machine()}, Python {platform.python_version()}"
    )
    machine = f"{machine}, {datetime.date.today()}"
    names = ("requests", "concurrency", "delay", "kilobytes", "stored", "repeats")
    settings = {name: getattr(options, name) for name in names}
    print(LEGEND.format(**settings, ideal=options.concurrency / options.delay, limit=LIMIT, machine=machine))
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps({"machine": machine, **settings, "cases": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
