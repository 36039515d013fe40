"""The prompts of another run, with its images under p_a as the input images of generators that edit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL.Image import Image

from . import runs, store
from .errors import InputError
from .images import ImageReader
from .pipeline import read_prompts
from .prompts import PromptSet
from .prompts.images import StoredImage

__all__ = ["prompts_of_run"]


def prompts_of_run(run: Path, *, generator: str = "", seed: int | None = None) -> PromptSet:
    """The pairs of which `run` holds I_a by `generator` with `seed`; I_a is the input image of both prompts of a pair.

    `generator` is a label of that run and may be empty where the run has one alone; `seed` is by default the lowest
    one. `notice` counts the pairs that are left out, because I_a was refused or is not made. RunFolderError where `run`
    is no run; InputError where it holds no such images, with those that it holds.
    """
    runs.read_manifest(run)
    prompts = read_prompts(run)
    wide = {prompt.prompt_id: prompt.pair_id for prompt in prompts if prompt.role == "wide_spectrum"}
    columns = ("prompt_id", "generator", "seed", "status", "image_id")
    rows = [row for row in store.read(run, "images", columns).to_pylist() if row["prompt_id"] in wide]
    label = _label(run, rows, generator)
    number = _seed(run, [row for row in rows if row["generator"] == label], label, seed)
    chosen = [row for row in rows if row["generator"] == label and row["seed"] == number]
    reader = ImageReader(run)

    def read(image_id: str) -> Image:
        return reader.read([image_id])[image_id]

    inputs = {wide[row["prompt_id"]]: StoredImage(row["image_id"], read) for row in chosen if row["status"] == "ok"}
    if not inputs:
        raise InputError(f"{run}: {label} refused every wide-spectrum prompt with seed {number}: nothing to start from")
    missing, refused = len(wide) - len(chosen), len(chosen) - len(inputs)
    notice = f"inputs: {len(inputs):,} images under p_a by {label}, seed {number}, of {run}"
    if missing or refused:
        notice += f"; left out {missing + refused:,} pairs without one ({refused:,} refused, {missing:,} not made)"
    kept = tuple(prompt for prompt in prompts if prompt.pair_id in inputs)
    return PromptSet(name=run.resolve().name, prompts=kept, photographs=inputs, notice=notice)


def _label(run: Path, rows: list[dict[str, Any]], generator: str) -> str:
    """The generator whose images are taken."""
    labels = sorted({row["generator"] for row in rows})
    if not labels:
        raise InputError(f"{run} holds no images under wide-spectrum prompts: run its generate stage first")
    known = ", ".join(labels)
    if generator and generator not in labels:
        raise InputError(f"[prompts] generator = {generator!r}: {run} holds no images by it; it has: {known}")
    if not generator and len(labels) > 1:
        raise InputError(
            f"{run} holds images by several generators: say whose to start from, by generator = NAME in [prompts] or "
            f"--input NAME; it has: {known}"
        )
    return generator or labels[0]


def _seed(run: Path, rows: list[dict[str, Any]], label: str, seed: int | None) -> int:
    """The seed whose images are taken."""
    seeds = sorted({row["seed"] for row in rows})
    if seed is not None and seed not in seeds:
        known = ", ".join(map(str, seeds))
        raise InputError(f"[prompts] seed = {seed}: {run} holds no images by {label} with it; it has: {known}")
    return int(seeds[0]) if seed is None else seed
