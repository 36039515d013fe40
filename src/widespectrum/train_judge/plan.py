"""What a training is asked to do, and what it takes: said before it starts."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from widespectrum.errors import InputError
from widespectrum.functional import DIMENSIONS
from widespectrum.judges.dimension_text import MAX_PIXELS

from .data import Annotated, Example, Material

__all__ = ["BASE", "Cost", "Options", "class_counts", "plan_lines", "steps_of"]

BASE = "Qwen/Qwen3-VL-4B-Instruct"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of a training. InputError for one out of range.

    `base` is a folder, or a repository of the Hub (`@` and a revision may follow). An optimizer step takes `batch_size`
    times `accumulation` examples; `warmup` is the share of the steps in which the learning rate rises, after which it
    falls by a cosine. `save_every` (steps) and `checkpointing` (compute twice, keep less in memory) do not change what
    is learned.
    """

    base: str = BASE
    dimensions: tuple[str, ...] = DIMENSIONS
    validation: int = 743
    max_pixels: int = MAX_PIXELS
    epochs: int = 1
    learning_rate: float = 1e-4
    batch_size: int = 8
    accumulation: int = 4
    warmup: float = 0.03
    seed: int = 0
    save_every: int = 200
    checkpointing: bool = True

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "accumulation", "save_every"):
            if getattr(self, name) < 1:
                raise InputError(f"--{name.replace('_', '-')} must be at least 1, got {getattr(self, name)}")
        if not 0 < self.learning_rate < 1:
            raise InputError(f"--learning-rate must be above 0 and below 1, got {self.learning_rate}")
        if not 0 <= self.warmup < 1:
            raise InputError(f"--warmup must be from 0 to below 1, a share of the steps; got {self.warmup}")
        if not 0 <= self.seed < 2**32:
            raise InputError(f"--seed must be from 0 to {2**32 - 1}, got {self.seed}")
        if self.max_pixels < 32 * 32:
            raise InputError(f"--max-pixels must be at least 1024, which is one token, got {self.max_pixels}")

    @property
    def identity(self) -> dict[str, Any]:
        """What decides on the weights that come out; the base is pinned beside it."""
        given = dataclasses.asdict(self) | {"dimensions": list(self.dimensions)}
        return {name: value for name, value in given.items() if name not in ("base", "save_every", "checkpointing")}


@dataclass(frozen=True, slots=True)
class Cost:
    """Of the network: its parameters, those that are trained, bytes of a parameter, tokens of the longest example,
    layers and width of its language model, and the width inside a layer.
    """

    parameters: int
    trained: int
    bytes: int
    tokens: int
    layers: int
    width: int
    inner: int

    def memory(self, options: Options) -> float:
        """Gigabytes, roughly: weights, LoRA with gradients and Adam's moments, and activations of one batch."""
        kept = 2 * self.width if options.checkpointing else 16 * self.width + 4 * self.inner
        at_once = 16 * self.width + 4 * self.inner
        activations = options.batch_size * self.tokens * (self.layers * kept + at_once) * self.bytes
        return (self.parameters * self.bytes + self.trained * 16 + activations) / 1e9


def steps_of(examples: int, options: Options) -> int:
    """Optimizer steps of a training; the last one of an epoch may be over fewer examples."""
    batches = math.ceil(examples / options.batch_size)
    return math.ceil(batches / options.accumulation) * options.epochs


def class_counts(examples: Sequence[Example]) -> Mapping[str, tuple[int, int, int]]:
    """By dimension, how many targets are 0, 1 and 2."""
    counts = Counter((example.dimension, example.target) for example in examples)
    names = dict.fromkeys(example.dimension for example in examples)
    return {name: (counts[name, 0], counts[name, 1], counts[name, 2]) for name in names}


def plan_lines(data: Annotated, material: Material, options: Options, cost: Cost) -> Iterator[str]:
    """What will be done, line by line."""
    at = f" at {data.revision}" if data.revision else ""
    trained, held = ({example.row for example in part} for part in (material.train, material.validation))
    steps = steps_of(len(material.train), options)
    yield f"data: {data.source}{at}, {len(data.table):,} rows, the last {options.validation:,} for validation"
    yield f"images: {len(trained):,} to learn from, {len(held):,} to validate on"
    for reason, count in material.left_out.items():
        yield f"left out: {count:,} {reason}"
    width = max(len(name) for name in (*options.dimensions, "examples by target"))
    learned, validated = class_counts(material.train), class_counts(material.validation)
    yield f"{'examples by target':<{width}}  {'training: 0 / 1 / 2':>24}  {'validation: 0 / 1 / 2':>21}"
    for name in options.dimensions:
        one, other = (" / ".join(f"{n:,}" for n in each.get(name, (0, 0, 0))) for each in (learned, validated))
        yield f"{name:<{width}}  {one:>24}  {other:>21}"
    yield (
        f"steps: {steps:,} of {options.batch_size} x {options.accumulation} examples, {options.epochs} "
        f"epoch{'s' * (options.epochs > 1)} of {len(material.train):,}; a checkpoint every {options.save_every:,}, the "
        "last 2 are kept"
    )
    yield (
        f"base: {options.base}, {cost.parameters:,} parameters, of which {cost.trained:,} are trained; up to "
        f"{cost.tokens:,} tokens an example, images of at most {options.max_pixels:,} pixels"
    )
    yield f"memory: about {cost.memory(options):,.1f} GB (a rough estimate)"
