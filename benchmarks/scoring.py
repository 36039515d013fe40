"""How fast reward models score beside their bare networks, and how much memory they take. Prints one table with limits.

python benchmarks/scoring.py [--case clip-l blip-l] [--threads 2] [--images 16] [--dtypes float32 bfloat16]
    [--device cuda --batch-sizes 1,4,16,64] [--repeats 3] [--folder /tmp] [--json FILE] [--reduced]
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import json
import multiprocessing
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

# Python looks beside this file first, and would take datasets.py for the package `datasets`.
sys.path[:] = [place for place in sys.path if Path(place).resolve() != Path(__file__).resolve().parent]
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

LEGEND = """
All networks are of full size with random weights, but for hpsv3 (see scoring_made.py). Every image stands in two rows.
ours: seconds of load_reward_model(...).score on those rows, from PNG files of 768 and 1024 pixels on disk (in the page
  cache), the weights loaded before and no prompt known. forward: the same modules called on tensors that are ready,
  every image and every prompt encoded once; see scoring_forward.py:
    clip-l, hps, hpsv2.1, pickscore: image tower, text tower, cosine; laion-aesthetic: image tower and head
    blip-l, imagereward: image tower once, then the text tower over all images, one prompt after the other
    mps: image tower, text tower (the condition belongs to loading), then the cross model over all images by prompt
    hpsv3: per image the image tower and all that stands before the prompt, then what follows for each prompt
  ready: decoding and preparing the images alone, which is a part of ours. Medians of {repeats} runs in turns, after one
  call of each that is not counted, and whose scores are compared. ratio: the median of forward / ours; cpu: the same of
  processor time. Where others keep the cores busy the ratio is noise, and less so with --threads 1.
load: seconds to read the weights, and the greatest memory meanwhile, above what the process holds once everything is
  imported, beside 1.3 x the weights in the dtype. peak: the same of the first call of score, beside 1.15 x the weights
  and one batch: its images, decoded and as the network reads them. MB of {memory}.
deviation: the greatest and the mean difference from the scores of the first dtype at the first batch size, and the
  standard deviation of those scores.
busy: the mean number of processes that wanted a core in the minute before the case began, and in its last one.
"""

LOADING, SCORING = 1.3, 1.15


class Job(NamedTuple):
    """What one process measures."""

    name: str
    options: dict[str, Any]
    images: list[Path]
    dtype: str
    device: str
    threads: int
    batch_sizes: tuple[int, ...]
    repeats: int


class Loaded(NamedTuple):
    """Loading: seconds, bytes at the peak above the base, and bytes of the weights in the dtype."""

    seconds: float
    peak: int
    weights: int


class Scored(NamedTuple):
    """Scoring with one batch size: medians in seconds, of ratios, and bytes: the peak above the base, and one batch."""

    batch_size: int
    ours: float
    forward: float
    ready: float
    ratio: float
    of_cpu: float
    peak: int
    batch: int
    scores: list[float]


RATIOS = {
    **dict.fromkeys(("clip-l", "hps", "laion-aesthetic", "hpsv2.1", "pickscore"), 0.93),
    **dict.fromkeys(("imagereward", "blip-l", "mps", "hpsv3"), 0.9),
}
"""The least ratio of forward to ours."""

NETWORKS = {**dict.fromkeys(RATIOS, "clip"), "imagereward": "", "blip-l": "", "hpsv3": "qwen2_vl"}
"""What is imported of transformers before the memory is looked at; BLIP's towers are none of its."""


class Memory:
    """Bytes in use on the device now, and at most since `reset`; this process's where it computes on the CPU."""

    def __init__(self, device: str) -> None:
        self.cuda = device.startswith("cuda")
        self.base = self._read("VmRSS")

    def reset(self) -> None:
        import torch

        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
        else:
            Path("/proc/self/clear_refs").write_text("5")

    def peak(self) -> int:
        """Above what was held in the beginning."""
        return self._read("VmHWM") - self.base

    def _read(self, field: str) -> int:
        import torch

        if self.cuda:
            return torch.cuda.memory_allocated() if field == "VmRSS" else torch.cuda.max_memory_allocated()
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def numbers_in(network: Any) -> dict[int, int]:
    """How many numbers each parameter has that a network holds, itself or in its parts."""
    from torch.nn import Module

    if isinstance(network, Module):
        return {id(each): each.numel() for each in network.parameters()}
    names = getattr(network, "__dataclass_fields__", None) or getattr(network, "__dict__", {})
    return {key: count for name in names for key, count in numbers_in(getattr(network, name)).items()}


def make(name: str, folder: Path, images: int, reduced: bool) -> tuple[dict[str, Any], list[Path]]:
    """Write the checkpoint and the images of a case."""
    from benchmarks import scoring_made

    options = scoring_made.MAKERS[name](folder, scoring_made.TINY if reduced else scoring_made.FULL)
    return options, scoring_made.write_images(folder / "images", images)


def measure(job: Job) -> tuple[Loaded, list[Scored]]:
    """Load a reward model and score with it, in a process of its own."""
    # Everything is imported before the memory is looked at.
    for name in ("torch", "transformers", "accelerate", "tokenizers", "safetensors.torch", "ftfy", "regex"):
        importlib.import_module(name)
    if module := NETWORKS[job.name]:
        importlib.import_module(f"transformers.models.{module}.modeling_{module}")
    import torch

    from benchmarks.scoring_made import instructed
    from widespectrum.rewards import load_reward_model

    torch.set_num_threads(job.threads)
    if job.device.startswith("cuda"):
        torch.zeros(1, device=job.device)
    memory = Memory(job.device)
    with instructed() if job.name == "hpsv3" else nullcontext():
        model = load_reward_model(job.name, device=job.device, dtype=job.dtype, **job.options)
    start = time.perf_counter()
    memory.reset()
    network = model.network
    seconds = time.perf_counter() - start
    weights = sum(numbers_in(network).values()) * model.torch_dtype.itemsize
    loaded = Loaded(seconds, memory.peak(), weights)
    return loaded, [scored(model, size, job, memory) for size in job.batch_sizes]


def scored(model: Any, batch_size: int, job: Job, memory: Memory) -> Scored:
    """Score with one batch size, in turns with the forward."""
    import torch
    from PIL import Image

    from benchmarks.scoring_forward import FORWARDS, forget
    from benchmarks.scoring_made import PROMPTS

    model.batch_size = batch_size

    def ours() -> Any:
        forget(model)
        images = [Image.open(path) for path in job.images]
        return model.score([each for each in images for _ in PROMPTS], [*PROMPTS] * len(images))

    memory.reset()
    scores = ours()
    peak = memory.peak()
    images = [Image.open(path) for path in job.images]
    prepared = get_ready(model, images)
    sizes = [image.width * image.height * 3 + each.nbytes for image, each in zip(images, prepared, strict=True)]
    del images
    own, bare, ready = [], [], []
    with torch.inference_mode():
        forward = FORWARDS[model.name](model, prepared, list(PROMPTS))
        check(model, scores, forward().double().cpu().numpy().ravel())
        for _ in range(job.repeats):
            own.append(timed(ours))
            bare.append(timed(lambda: forward().cpu()))
            ready.append(timed(lambda: get_ready(model, [Image.open(path) for path in job.images])))
    return Scored(
        batch_size,
        *(median(run[0] for run in runs) for runs in (own, bare, ready)),
        *(median(less[k] / more[k] for less, more in zip(bare, own, strict=True)) for k in (0, 1)),
        peak,
        sum(sizes[:batch_size]),
        scores.tolist(),
    )


def get_ready(model: Any, images: Sequence[Any]) -> list[Any]:
    """The images as the network reads them, made in the threads in which `score` makes them."""
    from widespectrum.engine.ahead import prepared_ahead

    return next(iter(prepared_ahead(model.prepare, [images])))[1]


def check(model: Any, scores: Any, expected: Any) -> None:
    """RuntimeError where the forward computes something else."""
    import numpy as np

    most = np.abs(scores - expected).max()
    if most > (1e-4 if model.dtype == "float32" else 0.1) * max(1, np.abs(expected).max()):
        raise RuntimeError(f"{model.name}: the scores and the forward differ by {most:g}: the benchmark is out of date")


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds and processor seconds of this process."""
    start, used = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - start, time.process_time() - used


def deviation(scores: Sequence[float], others: Sequence[float]) -> tuple[float, float, float]:
    """The greatest and the mean difference, and the standard deviation of the others."""
    import numpy as np

    apart = np.abs(np.subtract(scores, others))
    return float(apart.max()), float(apart.mean()), float(np.std(others))


HEADER = (
    f"{'case':<15} {'dtype':<8} {'batch':>5} {'ours s':>8} {'forward s':>9} {'ready s':>7} {'ratio':>6} {'limit':>6} "
    f"{'cpu':>6} {'images/s':>8} {'load s':>6} {'MB':>6} {'limit':>7} {'peak MB':>7} {'limit':>7}  deviation"
)


def line(job: Job, loaded: Loaded, found: Scored, apart: tuple[float, float, float] | None) -> str:
    """The line of the table for one batch size."""
    most = (LOADING * loaded.weights / 1e6, (SCORING * loaded.weights + found.batch) / 1e6)
    compared = f"{apart[0]:.2g} mean {apart[1]:.2g} of {apart[2]:.2g}" if apart else ""
    return (
        f"{job.name:<15} {job.dtype:<8} {found.batch_size:>5} {found.ours:>8.3f} {found.forward:>9.3f} "
        f"{found.ready:>7.3f} {found.ratio:>6.3f} {f'>={RATIOS[job.name]:g}':>6} {found.of_cpu:>6.3f} "
        f"{len(job.images) / found.ours:>8.2f} "
        f"{loaded.seconds:>6.1f} {loaded.peak / 1e6:>6,.0f} {f'<={most[0]:,.0f}':>7} "
        f"{found.peak / 1e6:>7,.0f} {f'<={most[1]:,.0f}':>7}  {compared}"
    )


Groups = dict[str, dict[str, str]]


def figures(job: Job, loaded: Loaded, found: Scored, apart: tuple[float, float, float] | None, small: bool) -> Groups:
    """What a card says of one batch size: group to label to text."""
    where = f"batches of {found.batch_size}, {job.dtype}" + (", reduced network" if small else "")
    rate, own = len(job.images) / found.ours, loaded.weights
    speed = (
        f"{found.ours:.3g} s for {len(job.images)} images x 2 prompts, {rate:.3g} images/s; the bare network takes "
        f"{found.forward:.3g} s, ratio {found.ratio:.2f} (asked for: {RATIOS[job.name]:g})"
    )
    share = f"{loaded.peak / own:.2f} x the weights (at most {LOADING})"
    limit = (SCORING * own + found.batch) / 1e6
    made: Groups = {
        "speed": {where: speed},
        "memory": {
            f"while loading, {job.dtype}": f"{loaded.peak / 1e6:,.0f} MB, {share}; {loaded.seconds:.1f} s",
            f"while scoring, {where}": f"{found.peak / 1e6:,.0f} MB (at most {limit:,.0f})",
        },
    }
    if apart and job.dtype == "bfloat16":
        label = f"{len(found.scores)} scores, {where}"
        made["bf16"] = {
            label: f"at most {apart[0]:.2g}, in the mean {apart[1]:.2g}; the scores spread by {apart[2]:.2g}"
        }
    return made


def write_json(path: Path, name: str, groups: Groups, machine: str) -> None:
    """Put the figures of a reward model into a file such as cards/reward_models/measured.json."""
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    known[name] = {**known.get(name, {}), **groups, "machine": machine, "date": date}
    path.write_text(json.dumps(known, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def alone(work: Callable[..., Any], *arguments: Any) -> Any:
    """The result of a function in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        return pool.apply(work, arguments)


def run(name: str, options: argparse.Namespace) -> Groups:
    """Measure a case in every dtype and print its lines; the files are gone afterwards."""
    groups: Groups = {}
    first: list[float] = []
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        given, images = alone(make, name, Path(folder), options.images, options.reduced)
        for dtype in options.dtypes:
            before = os.getloadavg()[0]
            sizes, device = options.batch_sizes, options.device
            job = Job(name, given, images, dtype, device, options.threads, sizes, options.repeats)
            loaded, rows = alone(measure, job)
            for found in rows:
                apart = deviation(found.scores, first) if first else None
                first = first or found.scores
                print(f"{line(job, loaded, found, apart)}  busy {before:.1f} {os.getloadavg()[0]:.1f}", flush=True)
                small = options.reduced or name == "hpsv3"
                for group, texts in figures(job, loaded, found, apart, small).items():
                    groups.setdefault(group, {}).update(texts)
    return groups


def machine_of(options: argparse.Namespace) -> str:
    """What the figures were measured on."""
    import torch

    with Path("/proc/cpuinfo").open(encoding="utf-8") as file:
        model = next((text.partition(":")[2].strip() for text in file if text.startswith("model name")), "")
    where = f"{options.threads} threads of {model or platform.machine()}"
    if options.device.startswith("cuda"):
        where = f"{torch.cuda.get_device_name(options.device)}, {where}"
    return f"{where}, torch {torch.__version__}, Python {platform.python_version()}"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", nargs="+", choices=list(RATIOS), default=list(RATIOS), metavar="NAME")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--images", type=int, default=16, help="each stands in two rows")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--batch-sizes", default="4", help="such as 1,4,16,64; take as many images as the greatest")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where to work; a checkpoint takes up to 4 GB while it is used")
    parser.add_argument("--json", type=Path, help="put the figures into this file, which the cards are made with")
    parser.add_argument("--reduced", action="store_true", help="tiny networks, to try the benchmark itself")
    options = parser.parse_args()
    options.batch_sizes = tuple(int(size) for size in options.batch_sizes.split(","))
    return options


def main() -> None:
    """Run every case and print the table."""
    options = arguments()
    # Libraries read it when they are imported: it counts in the processes of the cases.
    os.environ |= dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(options.threads))
    machine = machine_of(options)
    print(f"{machine}; {options.images} images x 2 prompts{', tiny networks' if options.reduced else ''}\n\n{HEADER}")
    for name in options.case:
        groups = run(name, options)
        if options.json:
            write_json(options.json, name, groups, machine)
    memory = "the GPU, as torch allocates it" if options.device.startswith("cuda") else "the process, resident"
    print(LEGEND.format(repeats=options.repeats, memory=memory))


if __name__ == "__main__":
    main()
