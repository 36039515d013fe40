"""Prompts → images: what a generator still has to make in a run, in which batches, and how it is made and stored."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, TypeGuard

from PIL.Image import Image

from . import store
from .engine import local, processes, threads
from .engine.answers import Batch, Encoded, Take, Task, ask
from .engine.collecting import Collector
from .engine.processes import Spread
from .errors import BudgetSpentError, HubError, InputError, ModelError, WideSpectrumError
from .pipeline import read_prompts
from .protocols import Failure, Generator, NeuralGenerator, PaidGenerator, Refusal
from .types import Call, ImageRecord

__all__ = ["Generation", "Made", "batches", "is_neural", "is_paid", "make", "make_images", "planned", "unmade"]

OpenInput = Callable[[str], Image]


def is_neural(generator: Generator) -> TypeGuard[NeuralGenerator]:
    """Whether it has weights on this machine; isinstance would read attributes, some of which load them."""
    return callable(getattr(type(generator), "batch_key", None))


def is_paid(generator: Generator) -> TypeGuard[PaidGenerator]:
    """Whether it is behind an API."""
    return callable(getattr(type(generator), "take_calls", None))


@dataclass(frozen=True, slots=True)
class Generation:
    """What one generator has to make in a run: of the images `wanted`, in the order of seeds and pairs, the `missing`.

    `open_input(pair_id)` gives the image to start from.
    """

    run: Path
    label: str
    generator: Generator
    wanted: Sequence[Task]
    missing: Sequence[Task]
    open_input: OpenInput | None


@dataclass(slots=True)
class Made:
    """What came of it. `trouble` is why it ended early, `peak` the bytes that were in use at most (0: unknown)."""

    images: int = 0
    refused: int = 0
    failed: int = 0
    seconds: float = 0.0
    peak: int = 0
    failures: list[Failure] = field(default_factory=list)
    trouble: WideSpectrumError | None = None


def _wanted(run: Path, label: str, seeds: Sequence[int]) -> dict[tuple[str, str, int], Task]:
    """Every image of one generator by its key."""
    # The two prompts of a pair stand side by side, so that their images share a part.
    prompts = sorted(read_prompts(run), key=lambda prompt: (prompt.pair_id, prompt.role))
    return {(prompt.prompt_id, label, seed): Task(prompt, seed) for seed in seeds for prompt in prompts}


def unmade(run: Path, label: str, seeds: Sequence[int]) -> list[tuple[Any, ...]]:
    """The keys (prompt_id, generator, seed) of the images that one generator still lacks."""
    return store.missing(run, "images", _wanted(run, label, seeds))


def planned(
    run: Path, label: str, generator: Generator, *, seeds: Sequence[int], open_input: OpenInput | None
) -> Generation:
    """What `generator` lacks in `run`."""
    wanted = _wanted(run, label, seeds)
    missing = [wanted[key[0], key[1], key[2]] for key in store.missing(run, "images", wanted)]
    return Generation(run, label, generator, list(wanted.values()), missing, open_input)


def batches(work: Generation, size: int, keys: Mapping[str, tuple[int, ...]]) -> list[Batch]:
    """What is missing, `size` at a time.

    With `keys` (prompt_id → batch key) batches are cut from all that is wanted, by key, and what is there already is
    left out, so that a resumed run draws in the same company as one that was never stopped.
    """
    if not keys:
        return [work.missing[start : start + size] for start in range(0, len(work.missing), size)]
    missing, cut = set(work.missing), []
    for _, tasks in groupby(work.wanted, key=lambda task: task.seed):
        ordered = sorted(tasks, key=lambda task: keys[task.prompt.prompt_id])
        # Prompts that differ in the first number of their keys are never drawn together.
        for _, group in groupby(ordered, key=lambda task: keys[task.prompt.prompt_id][:1]):
            members = list(group)
            cut += [members[start : start + size] for start in range(0, len(members), size)]
    left = ([task for task in batch if task in missing] for batch in cut)
    return [batch for batch in left if batch]


def make(work: Generation, *, group: int, description: str, spread: Spread | None = None) -> Made:
    """Make what is missing and store it, `group` rows or more at a time; `spread` says over which devices.

    What fails is listed and left for the next run; what is finished is stored, also on Ctrl-C and on an error.
    """
    made, shelf = Made(), _Shelf(work)
    started = time.monotonic()
    # What is paid is stored at once, but not in thousands of parts where it comes fast.
    every = 1.0 if is_paid(work.generator) else 60.0
    total = len(work.missing)
    with Collector(shelf.store, total=total, group=group, description=description, seconds=every) as collector:
        try:
            found = _draw(work, collector.take, group, spread)
            made.peak, made.failures = found
        except (BudgetSpentError, HubError, InputError, ModelError) as error:
            # The frames of its traceback hold what was loaded, and the next generator needs the memory.
            made.trouble = error.with_traceback(None)
            made.trouble.__cause__ = made.trouble.__context__ = None
    made.seconds = time.monotonic() - started
    made.images, made.refused, made.failed = collector.made, collector.refused, collector.failed
    made.failures += collector.failures
    return made


def make_images(work: Generation, *, group: int, description: str) -> list[Failure]:
    """As `make`; raises what it ended early for. What failed."""
    made = make(work, group=group, description=description)
    if made.trouble is not None:
        raise made.trouble
    return made.failures


def _draw(work: Generation, take: Take, group: int, spread: Spread | None) -> tuple[int, list[Failure]]:
    """Work it off in the way that suits the generator: bytes in use at most, and what failed beside images."""
    generator = work.generator

    def ask_for(batch: Batch) -> Any:
        return ask(generator, work.label, batch, _inputs(work, batch))

    if is_paid(generator):
        # Here and once, rather than in every thread: a missing key is one failure.
        generator.open()
        threads.draw(ask_for, batches(work, 1, {}), take, count=generator.concurrency, halt=generator.halt)
        return 0, []
    if not is_neural(generator):
        local.draw(ask_for, batches(work, group, {}), take)
        return 0, []
    prompts = [task.prompt for task in work.wanted if task.seed == work.wanted[0].seed]
    prompts = prompts if generator.batch_size > 1 else []
    plan = partial(batches, work, generator.batch_size)
    if spread is not None and len(spread.devices) > 1:
        needed = -(-len(work.missing) // generator.batch_size)
        return processes.draw(
            plan,
            spread._replace(devices=spread.devices[:needed]),
            take,
            label=work.label,
            prompts=prompts,
            images_of=partial(_inputs, work),
        )
    generator.open()
    local.draw(ask_for, plan({prompt.prompt_id: generator.batch_key(prompt) for prompt in prompts}), take)
    return generator.peak_memory(), []


def _inputs(work: Generation, batch: Batch) -> list[Image] | None:
    return None if work.open_input is None else [work.open_input(task.prompt.pair_id) for task in batch]


class _Shelf:
    """Writes the rows of one generator: images and refusals, and the calls that were paid."""

    def __init__(self, work: Generation) -> None:
        self._run, self._label, self._generator = work.run, work.label, work.generator
        self._calls: list[Call] = []

    def store(self, rows: Sequence[tuple[Task, Encoded | Refusal]], unsure: bool) -> None:
        """Append the rows as one part; where an earlier try was interrupted (`unsure`), those that are missing."""
        if is_paid(self._generator):
            self._calls += self._generator.take_calls()
            self._append("calls", [(replace(call, generator=self._label), None) for call in self._calls], unsure)
            self._calls = []
        self._append("images", [self._row(task, answer) for task, answer in rows], unsure)

    def _append(self, table: str, rows: Sequence[tuple[Any, Any]], unsure: bool) -> None:
        if unsure and rows:
            names = store.KEYS[table]
            by_key = {tuple(getattr(record, name) for name in names): (record, image) for record, image in rows}
            rows = [by_key[key] for key in store.missing(self._run, table, by_key)]
        images = [image for _, image in rows]
        store.append(self._run, table, [record for record, _ in rows], payload=images if table == "images" else None)

    def _row(self, task: Task, answer: Encoded | Refusal) -> tuple[ImageRecord, dict[str, Any] | None]:
        """The row of one answer and, for an image, its bytes."""
        noise_seed = getattr(self._generator, "noise_seed", None)
        record = partial(
            ImageRecord,
            prompt_id=task.prompt.prompt_id,
            generator=self._label,
            seed=task.seed,
            noise_seed=noise_seed(task.prompt, task.seed) if noise_seed else None,
        )
        if isinstance(answer, Refusal):
            return record(image_id="", status="refused", detail=answer.reason, width=0, height=0, path=""), None
        path = f"{answer.image_id[:16]}.png"
        made = record(
            image_id=answer.image_id, status="ok", detail="", width=answer.width, height=answer.height, path=path
        )
        return made, {"bytes": answer.content, "path": path}
