"""What drawing through widespectrum costs beside diffusers itself. Prints one table with its limit.

python benchmarks/generation.py [--case flux sdxl sd3.5-medium] [--images 4] [--steps 8] [--side 1024] [--repeats 3]
    [--folder /tmp] [--json benchmarks/results/NAME.json] [--tiny]
"""

from __future__ import annotations

import argparse
import datetime
import json
import multiprocessing
import platform
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

LIMIT = 0.02
LEGEND = """
ours: load_generator(NAME, checkpoint=...).generate, batch_size 1, from prompts to PIL images. diffusers: the same
pipeline called with the same arguments, output_type="pil". Images per second by the medians of {repeats} runs in turns,
after one of each that is not counted and whose pixels are compared. overhead: how much longer ours takes, at most
{limit:.0%}. peak: the most memory that torch had taken on the GPU. Networks of full size with random weights, unless
--tiny. {machine}
"""


def _measure(case: str, options: argparse.Namespace, folder: Path, results: Any) -> None:
    """One case, in a process of its own."""
    import numpy as np
    import torch

    from benchmarks.generation_made import MADE, checkpoint
    from widespectrum.generators import load_generator
    from widespectrum.generators.noise import noise
    from widespectrum.prompts import load_prompt_set

    device = "cuda" if torch.cuda.is_available() else "cpu"
    side = 64 if options.tiny else options.side
    made = checkpoint(case, folder / case, tiny=options.tiny, device=device)
    dtype = {"dtype": "float32"} if options.tiny else {}
    generator: Any = load_generator(
        MADE[case].generator, checkpoint=str(made), width=side, height=side, steps=options.steps, **dtype
    )
    generator.open()
    # diffusers cuts longer ones, which we do not.
    short = [each for each in load_prompt_set("authored").prompts if generator.count_tokens([each.text])[0] <= 60]
    prompts = short[: options.images]

    def ours() -> list[Any]:
        return list(generator.generate(prompts, seeds=[0] * len(prompts)))

    def theirs() -> list[Any]:
        return [
            generator.pipeline(
                prompt=prompt.text,
                guidance_scale=generator.guidance,
                width=side,
                height=side,
                num_inference_steps=options.steps,
                generator=noise(generator.noise_seed(prompt, 0)),
                **({"max_sequence_length": 256} if case == "sd3.5-medium" else {}),
            ).images[0]
            for prompt in prompts
        ]

    same = all(np.array_equal(one, other) for one, other in zip(ours(), theirs(), strict=True))
    times: dict[str, list[float]] = {"ours": [], "diffusers": []}
    peaks = {"ours": 0, "diffusers": 0}
    for _ in range(options.repeats):
        for name, draw in (("ours", ours), ("diffusers", theirs)):
            times[name].append(_timed(draw, device))
            if device == "cuda":
                peaks[name] = max(peaks[name], torch.cuda.max_memory_allocated())
    results.put({"case": case, "times": times, "peaks": peaks, "same": same, "images": len(prompts)})


def _timed(draw: Callable[[], object], device: str) -> float:
    import torch

    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    draw()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def _machine() -> str:
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else f"no GPU, {platform.processor() or 'CPU'}"
    return f"{gpu}, torch {torch.__version__}, Python {platform.python_version()}, {datetime.date.today()}"


def _print(rows: list[dict[str, Any]]) -> None:
    header = (
        f"{'case':<14}{'ours/s':>10}{'diffusers/s':>13}{'overhead':>10}{'limit':>7}{'peak':>9}{'theirs':>9}  pixels"
    )
    print(header)
    for row in rows:
        ours, theirs = (row["images"] / median(row["times"][name]) for name in ("ours", "diffusers"))
        peaks = [f"{row['peaks'][name] / 1e9:.2f} GB" if row["peaks"][name] else "–" for name in ("ours", "diffusers")]
        print(
            f"{row['case']:<14}{ours:>10.3f}{theirs:>13.3f}{theirs / ours - 1:>10.1%}{LIMIT:>7.0%}{peaks[0]:>9}"
            f"{peaks[1]:>9}  {'the same' if row['same'] else 'DIFFER'}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", nargs="+", default=["flux", "sdxl", "sd3.5-medium"])
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--tiny", action="store_true", help="Reduced networks at 64 pixels, in float32.")
    options = parser.parse_args()
    spawn = multiprocessing.get_context("spawn")
    rows = []
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for case in options.case:
            results = spawn.SimpleQueue()
            process = spawn.Process(target=_measure, args=(case, options, Path(folder), results))
            process.start()
            process.join()
            if process.exitcode:
                sys.exit(f"{case} failed")
            rows.append(results.get())
    _print(rows)
    machine = _machine()
    print(LEGEND.format(repeats=options.repeats, limit=LIMIT, machine=machine))
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        settings = {name: getattr(options, name) for name in ("images", "steps", "side", "repeats", "tiny")}
        options.json.write_text(json.dumps({"machine": machine, **settings, "cases": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
