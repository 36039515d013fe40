"""What a generator is asked, and its answers in the form in which they are stored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TypeAlias

from PIL.Image import Image

from widespectrum.errors import GeneratorStoppedError, ModelError
from widespectrum.images import encode
from widespectrum.protocols import Failure, Generator, Refusal
from widespectrum.types import Prompt

__all__ = ["Answer", "Ask", "Batch", "Encoded", "Take", "Task", "ask", "encoded"]


@dataclass(frozen=True, slots=True)
class Task:
    """One image to make: of `prompt`, in a run with `seed`."""

    prompt: Prompt
    seed: int


@dataclass(frozen=True, slots=True)
class Encoded:
    """An image as it is stored: `image_id` is the sha256 of `content`, a PNG."""

    image_id: str
    content: bytes
    width: int
    height: int


Batch: TypeAlias = Sequence[Task]
Answer: TypeAlias = Encoded | Refusal | Failure
Ask: TypeAlias = Callable[[Batch], Sequence[Image | Refusal | Failure] | Failure]
"""Asks the generator for a batch: an answer for each task, or why there is none for any."""
Take: TypeAlias = Callable[[Batch, Sequence[Answer | Future[Answer]] | Failure], None]
"""Takes what came of a batch, as soon as it is there."""


def ask(
    generator: Generator, label: str, tasks: Batch, images: Sequence[Image] | None
) -> list[Image | Refusal | Failure] | Failure:
    """One answer per task; a Failure where the generator can make none of them, or its answers are none.

    What is not the fault of this batch is raised: InputError, HubError, BudgetSpentError, GeneratorStoppedError.
    """
    try:
        answers = generator.generate(
            [task.prompt for task in tasks], seeds=[task.seed for task in tasks], images=images
        )
    except GeneratorStoppedError:
        raise
    except ModelError as error:
        return Failure(str(error), "model")
    if len(answers) != len(tasks):
        return Failure(f"{label} gave {len(answers)} answers to {len(tasks)} prompts", "model")
    for task, answer in zip(tasks, answers, strict=True):
        if not (answer.reason if isinstance(answer, Refusal | Failure) else isinstance(answer, Image)):
            expected = "neither image nor reasoned refusal"
            return Failure(f"{label} gave {answer!r} for {task.prompt.prompt_id}: {expected}", "model")
    return list(answers)


def encoded(answer: Image | Refusal | Failure) -> Answer:
    """The answer with its image as PNG; a Failure where it cannot be written as PNG."""
    if not isinstance(answer, Image):
        return answer
    try:
        return Encoded(*encode(answer), answer.width, answer.height)
    except (OSError, ValueError) as error:
        return Failure(f"its image ({answer.mode}, {answer.width}x{answer.height}) is no PNG: {error}", "model")
