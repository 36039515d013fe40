"""How fast data sets are made, and how much memory it takes. Prints one table with the limits.

python benchmarks/datasets.py [--quick] [--repeats 5] [--folder /tmp] [--only packing] [--captions FILE]
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import multiprocessing
import os
import platform
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
from PIL import Image

# Python looks beside this file first, and would take it for the package `datasets`.
sys.path[:] = [place for place in sys.path if Path(place).resolve() != Path(__file__).resolve().parent]

LEGEND = """
measured: the median of {repeats} runs, files in the page cache. MB: resident memory of the process and its children,
  sampled every 20 ms, above what the process holds once everything is imported. Every case has a process of its own.
  load: the mean number of processes that wanted a core in the minute before the case began, and in its last one.
packing: the time of a plain loop that reads, hashes (sha256) and writes the same bytes into one file, which is not
  synced, divided by the time of pack_images, which checks, syncs and renames besides; the median of pairs, as the two
  take turns. The plain loop needs one core and packing two: where others keep the cores busy, the figure falls. `cpu`
  is the same of processor time. The files are 40 made-up photographs of 1024 x 768 pixels, each made different by a
  comment.
selection: 60 queries of the package (85 texts with their negatives) over made-up embeddings as many as AVA has
  photographs, float16, opened in place; their pages in memory count as MB though the system may drop them at any time.
  One thread for matrix products: with two, on a busy machine, OpenBLAS's threads wait for one another and take twice
  the time.
coco: the builder with the template rewriter, from the caption file to Parquet and card; without --captions from made-up
  captions of about as many words as those of COCO.
"""

PAGE = os.sysconf("SC_PAGE_SIZE")
THREADS = "1"
IMAGES, DIMENSION = 255_530, 768
CAPTIONS = 25_014
ENDS = (*[""] * 7, " in the late afternoon", " while two people watch it", " next to a tall tree")
PLACES = (
    "street",
    "beach",
    "kitchen",
    "park",
    "field",
    "station",
    "garden",
    "river",
    "bridge",
    "harbor",
    "market",
    "hill",
)
KINDS = (
    "small",
    "large",
    "red",
    "old",
    "wooden",
    "white",
    "brown",
    "striped",
    "young",
    "quiet",
)
THINGS = (
    "dog",
    "cat",
    "horse",
    "bus",
    "train",
    "bench",
    "table",
    "clock",
    "kite",
    "boat",
    "bicycle",
    "pizza",
    "umbrella",
    "laptop",
    "vase",
    "sheep",
)


class Job(NamedTuple):
    """Where a case may write, how often it measures, whether it does a tenth of the work, and the user's captions."""

    folder: Path
    repeats: int
    quick: bool
    captions: Path | None


class Measured(NamedTuple):
    """What a case found: its figure, megabytes above the base, and what stands beside it in the table."""

    value: float
    megabytes: float
    note: str


class Case(NamedTuple):
    """One line of the table. `run` has a process of its own; `least` and `most` limit what it measures, `megabytes` its
    memory.
    """

    name: str
    run: Callable[[Job], Measured]
    unit: str
    least: float | None = None
    most: float | None = None
    megabytes: float | None = None


def resident() -> int:
    """Bytes of memory that this process and its children hold now."""
    total, waiting = 0, [str(os.getpid())]
    while waiting:
        process = Path("/proc", waiting.pop())
        try:
            total += int((process / "statm").read_text().split()[1]) * PAGE
            for children in process.glob("task/*/children"):
                waiting += children.read_text().split()
        except OSError:
            continue  # it has ended
    return total


class Memory:
    """The most memory held inside the `with`, in megabytes above that at its start."""

    def __enter__(self) -> Memory:
        self.base = self.most = resident()
        self.done = threading.Event()
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()
        return self

    def _watch(self) -> None:
        while not self.done.wait(0.02):
            self.most = max(self.most, resident())

    def __exit__(self, *error: object) -> None:
        self.done.set()
        self.thread.join()

    @property
    def megabytes(self) -> float:
        return (self.most - self.base) / 1e6


def photograph(seed: int) -> bytes:
    """A JPEG file of about 200 kB: soft shapes of many sizes, and grain."""
    rng = np.random.default_rng(seed)
    width, height = 1024, 768
    light = np.zeros((height, width, 3))
    for step in (4, 8, 16, 32, 64, 128, 256):
        coarse = rng.normal(size=(3, height // step + 2, width // step + 2)).astype(np.float32)
        layers = [Image.fromarray(layer).resize((width, height), Image.Resampling.BICUBIC) for layer in coarse]
        light += np.stack([np.asarray(layer) for layer in layers], axis=-1) * step**0.6
    light = (light - light.min()) / np.ptp(light) * 255 + rng.normal(size=(height, width, 1)) * 4.5
    file = io.BytesIO()
    Image.fromarray(np.clip(light, 0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
    return file.getvalue()


def make_photographs(root: Path, count: int) -> list[Path]:
    pictures = [photograph(seed) for seed in range(40)]
    root.mkdir()
    paths = [root / f"{number:05d}.jpg" for number in range(count)]
    for number, path in enumerate(paths):
        content = pictures[number % len(pictures)]
        path.write_bytes(content[:2] + b"\xff\xfe\x00\x0a" + b"%08d" % number + content[2:])
    return paths


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds and processor seconds of this process."""
    start, used = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - start, time.process_time() - used


def plain_loop(paths: list[Path], out: Path) -> None:
    """Read, hash and write every file once."""
    with out.open("wb") as file:
        for path in paths:
            content = path.read_bytes()
            hashlib.sha256(content).hexdigest()
            file.write(content)


def packing(job: Job) -> Measured:
    """The speed of `pack_images` as a multiple of the plain loop's."""
    import datasets

    from widespectrum.publishing.images import Packing, pack_images

    root, out = job.folder / "images", job.folder / "out"
    paths = make_photographs(root, 1_000 if job.quick else 10_000)
    rows = [({"number": number}, path) for number, path in enumerate(paths)]
    options = {"features": {"number": datasets.Value("int64")}, "packing": Packing(key="number", root=root)}
    pack = partial(pack_images, rows, out, config="photos", split="train", **options)
    megabytes, plain, packed = 0.0, [], []
    for _ in range(job.repeats):
        plain.append(timed(partial(plain_loop, paths, job.folder / "plain")))
        (job.folder / "plain").unlink()
        with Memory() as memory:
            packed.append(timed(pack))
        megabytes = max(megabytes, memory.megabytes)
        shutil.rmtree(out)
    ratios, of_cpu = ([before[k] / after[k] for before, after in zip(plain, packed, strict=True)] for k in (0, 1))
    size = sum(path.stat().st_size for path in paths)
    seconds = [median(run[0] for run in runs) for runs in (packed, plain)]
    note = f"{len(paths):,} files, {size / 1e9:.2f} GB: {seconds[0]:.1f} s, plain loop {seconds[1]:.1f} s; pairs "
    return Measured(
        median(ratios), megabytes, note + " ".join(f"{each:.2f}" for each in ratios) + f"; cpu {median(of_cpu):.2f}"
    )


def make_embeddings(path: Path, rows: int) -> None:
    rng = np.random.default_rng(0)
    stored = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=(rows, DIMENSION))
    for start in range(0, rows, 20_000):
        part = stored[start : start + 20_000]
        part[:] = rng.standard_normal(part.shape, dtype=np.float32)
    stored.flush()


def selection(job: Job) -> Measured:
    """Seconds to select photographs by the queries of the package, at the cap of the builder."""
    from widespectrum.ava.queries import query_set, query_texts
    from widespectrum.ava.selection import select

    path, rows = job.folder / "embeddings.npy", IMAGES // 10 if job.quick else IMAGES
    make_embeddings(path, rows)
    rng, queries, ids = np.random.default_rng(1), query_set(), np.arange(rows)
    vectors = {text: rng.standard_normal(DIMENSION) for text in query_texts(queries)}
    select(np.eye(3, dtype=np.float16), ids[:3], queries[:1], {text: np.ones(3) for text in vectors})
    with Memory() as memory:
        stored = np.load(path, mmap_mode="r")
        runs = [timed(partial(select, stored, ids, queries, vectors, cap=0.05)) for _ in range(job.repeats)]
    note = f"{rows:,} x {DIMENSION}, {len(vectors)} texts: " + " ".join(f"{run[0]:.2f}" for run in runs)
    return Measured(median(run[0] for run in runs), memory.megabytes, f"{note}; cpu {median(r[1] for r in runs):.2f} s")


def make_captions(path: Path, count: int) -> None:
    """A caption file of COCO's shape: 9 to 14 words, 10.7 in the mean (COCO: 10.4); five captions an image."""
    rng, texts = np.random.default_rng(0), dict[str, None]()
    while len(texts) < count:
        one, two = rng.choice(THINGS, 2, replace=False)
        kind, place, end = (rng.choice(each) for each in (KINDS, PLACES, ENDS))
        texts[f"A {kind} {one} near a {two} at the {place}{end}."] = None
    annotations = [{"id": n, "image_id": n // 5, "caption": text} for n, text in enumerate(texts)]
    path.write_text(json.dumps({"annotations": annotations}), encoding="utf-8")


def coco(job: Job) -> Measured:
    """Seconds to build the config `coco`."""
    from widespectrum.published import load_module, published_path

    build = load_module(published_path("dataset_builders", "wide_spectrum_prompts") / "build.py").build
    captions, count = job.captions, CAPTIONS // 10 if job.quick else CAPTIONS
    if captions is None:
        captions = job.folder / "captions.json"
        make_captions(captions, count)
    runs, out, rows = [], job.folder / "out", 0
    with Memory() as memory:
        for _ in range(job.repeats):
            shutil.rmtree(out, ignore_errors=True)
            made = {}
            runs.append(timed(lambda made=made: made.update(build(out, config=["coco"], captions=captions))))
            rows = sum(len(table) for table in made.values())
    of = "the user's" if job.captions else "made-up"
    note = f"{rows:,} {of} captions: " + " ".join(f"{run[0]:.1f}" for run in runs)
    return Measured(median(run[0] for run in runs), memory.megabytes, f"{note}; cpu {median(r[1] for r in runs):.1f} s")


CASES = (
    Case("packing", packing, "x", least=0.6, megabytes=500),
    Case("selection", selection, "s", most=3, megabytes=1_000),
    Case("coco", coco, "s", most=60),
)


def line(case: Case, found: Measured) -> str:
    """The line of a case, with its limits."""
    limit = "" if case.least is None else f">= {case.least:g}"
    limit = limit if case.most is None else f"<= {case.most:g}"
    memory = "" if case.megabytes is None else f"<= {case.megabytes:,.0f}"
    measured = f"{found.value:.2f} {case.unit}"
    return f"{case.name:<12} {measured:>9} {limit:>8} {found.megabytes:>6,.0f} {memory:>8}  {found.note}"


def main() -> None:
    """Run every case and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the work")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where to work; packing takes 7 GB while it runs")
    parser.add_argument("--only", choices=[case.name for case in CASES])
    parser.add_argument("--captions", type=Path, help="COCO's captions_val2017.json, or it with .xz")
    options = parser.parse_args()
    # NumPy reads them when it is imported: they count in the processes of the cases.
    os.environ |= dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), THREADS)
    print(f"Python {platform.python_version()}, NumPy {np.__version__}, {platform.machine()}, {os.cpu_count()} cores")
    print(f"OPENBLAS_NUM_THREADS=OMP_NUM_THREADS=MKL_NUM_THREADS={THREADS}\n")
    print(f"{'case':<12} {'measured':>9} {'limit':>8} {'MB':>6} {'limit':>8}")
    for case in CASES:
        if options.only not in (None, case.name):
            continue
        with (
            tempfile.TemporaryDirectory(dir=options.folder) as folder,
            multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool,
        ):
            before = os.getloadavg()[0]
            found = pool.apply(case.run, (Job(Path(folder), options.repeats, options.quick, options.captions),))
        print(f"{line(case, found)}; load {before:.1f} {os.getloadavg()[0]:.1f}", flush=True)
    print(LEGEND.format(repeats=options.repeats))


if __name__ == "__main__":
    main()
