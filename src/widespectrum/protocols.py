"""What a generator, a reward model and a judge must offer: one method each, batch in, batch out.

Every answer list has the length and order of its questions. `spec` says what the model is; two models with equal
`spec.key` give equal output.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image

from .types import Call, ModelSpec, Order, Prompt

__all__ = [
    "Abstention",
    "Answer",
    "EndpointJudge",
    "Failure",
    "Features",
    "Generator",
    "Judge",
    "NeuralGenerator",
    "PaidGenerator",
    "PreparingRewardModel",
    "Question",
    "Refusal",
    "RewardModel",
    "Spent",
    "Tokens",
    "TwoTowerRewardModel",
]

Features = NDArray[np.float64]
Asked = TypeVar("Asked")


@dataclass(frozen=True, slots=True)
class Refusal:
    """A generator's answer when it will not or cannot make the image: a finding, stored with its reason."""

    reason: str


@dataclass(frozen=True, slots=True)
class Failure:
    """What was not made, and whether the `input` is at fault or the `model`; the next run tries it again.

    `model` is the label of the model, where the work was not that of a single one.
    """

    reason: str
    cause: Literal["input", "model"]
    model: str = ""


@dataclass(frozen=True, slots=True)
class Abstention:
    """A judge's answer when it cannot tell; stored, never asked again, and shown as missing coverage.

    `raw` is what the model replied, as it came.
    """

    reason: str
    raw: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One question to a judge about `image`, which a generator made.

    With a `rival`: which of the two fits `prompt` better? `order` says whether `image` is shown first or second.
    Without one: how does `image` rate on `dimension`? `original` is the plain caption of the pair, where it is known.
    `rewards` holds, per reward model, its scores of (image, rival) under `prompt`; `verdicts` what other judges
    answered to the same question in the same `order`, None where they abstained.
    """

    prompt: Prompt
    image: Image
    rival: Image | None = None
    dimension: str = "overall"
    order: Order = "both"
    original: Prompt | None = None
    rewards: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    verdicts: Mapping[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    """`outcome` in [0, 1] and the other fields: see `widespectrum.types.Verdict`. `details` is a JSON object."""

    outcome: float
    rationale: str = ""
    raw: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)
    confidence: float | None = None


@dataclass(frozen=True, slots=True)
class Tokens:
    """What one request to a model takes, estimated beforehand or counted by the server."""

    input: int
    output: int


@dataclass(frozen=True, slots=True)
class Spent:
    """Requests that were sent, what servers counted, and US dollars (None: not known of all of them)."""

    calls: int
    tokens: Tokens
    cost: float | None


@runtime_checkable
class Generator(Protocol):
    """Makes images from prompts. `needs_images` says whether it starts from input images."""

    spec: ModelSpec
    needs_images: bool

    def generate(
        self, prompts: Sequence[Prompt], *, seeds: Sequence[int], images: Sequence[Image] | None = None
    ) -> list[Image | Refusal | Failure]:
        """One image, refusal or failure per prompt; `images` are input images for generators that edit.

        `seeds` are the seeds of the run, one per prompt. ModelError where nothing can be made at all.
        """
        ...


@runtime_checkable
class NeuralGenerator(Generator, Protocol):
    """A generator with weights on this machine."""

    batch_size: int
    """Images that are drawn together."""

    def open(self) -> None:
        """Load the weights now instead of with the first image. InputError where they are not what they should be."""
        ...

    def check(self, prompts: Sequence[Prompt]) -> None:
        """InputError where these prompts cannot be drawn at all, such as for want of negative prompts."""
        ...

    def batch_key(self, prompt: Prompt) -> tuple[int, ...]:
        """What batches are sorted by, such as the length of the prompt; opens the tokenizers.

        Prompts that differ in the first number are never drawn together.
        """
        ...

    def noise_seed(self, prompt: Prompt, seed: int) -> int:
        """The seed of the noise from which the image of `prompt` starts in a run with this seed."""
        ...

    def peak_memory(self) -> int:
        """Bytes: the most memory that was in use on the device since it was opened."""
        ...

    def close(self) -> None:
        """Give the memory back; what is asked next loads the weights again."""
        ...


@runtime_checkable
class PaidGenerator(Generator, Protocol):
    """A generator behind an API. `generate` may be called from `concurrency` threads at a time."""

    concurrency: int

    def open(self) -> None:
        """InputError where no image can be asked for, such as for want of a key; sends nothing."""
        ...

    @property
    def price(self) -> float | None:
        """US dollars for an image, as far as they are known: what the estimate and the limits count with."""
        ...

    def limit(self, budget: Any) -> None:
        """Ask `budget` (`widespectrum.budget.Budget`) before every call; several generators may share it."""
        ...

    def halt(self) -> None:
        """Have every `generate` that is under way send nothing more, such as after Ctrl-C."""
        ...

    def take_calls(self) -> list[Call]:
        """The calls made since this was last asked; `generator` is empty in them."""
        ...


@runtime_checkable
class RewardModel(Protocol):
    """Scores images under prompts."""

    spec: ModelSpec

    def score(self, images: Sequence[Image], prompts: Sequence[str]) -> NDArray[np.float64]:
        """Shape (N,), float64, higher = preferred: `images[i]` under `prompts[i]`."""
        ...


@runtime_checkable
class PreparingRewardModel(RewardModel, Protocol):
    """A reward model that says what it reads of an image, so that images are read ahead of it, and of a prompt."""

    window: int | None
    """Tokens that it reads of a prompt, start and end included; None where it reads all of it, or nothing."""

    def open(self) -> None:
        """Load now what is otherwise loaded with the first image. InputError where it is not what it should be."""
        ...

    def prepare(self, image: Image) -> Any:
        """The image as it is read; runs in threads. InputError for an image that cannot be scored."""
        ...

    def score_prepared(
        self,
        prepared: Sequence[Any],
        prompts: Sequence[str],
        image_rows: Sequence[int] | NDArray[np.int64],
        prompt_rows: Sequence[int] | NDArray[np.int64],
        shared: dict[Any, Any] | None = None,
    ) -> NDArray[np.float64]:
        """Shape (N,): `prepared[image_rows[i]]` under `prompts[prompt_rows[i]]`, every image encoded once.

        Reward models that score the same images get the same `shared`, in which they keep what serves the others.
        """
        ...

    def count_tokens(self, prompts: Sequence[str]) -> list[int]:
        """Tokens of every prompt, start and end included, before anything is cut off."""
        ...

    def has_special(self, prompts: Sequence[str]) -> list[bool]:
        """Whether a prompt holds text that stands for a special token."""
        ...


@runtime_checkable
class TwoTowerRewardModel(RewardModel, Protocol):
    """A reward model whose image part does not depend on the prompt, so that an image is encoded once."""

    def encode_images(self, images: Sequence[Image]) -> Features:
        """Shape (N, ...)."""
        ...

    def encode_texts(self, prompts: Sequence[str]) -> Features:
        """Shape (N, ...)."""
        ...

    def combine(self, image_features: Features, text_features: Features) -> NDArray[np.float64]:
        """Shape (N,): the scores of row i under row i."""
        ...


@runtime_checkable
class Judge(Protocol):
    """Answers questions about images."""

    spec: ModelSpec
    dimensions: tuple[str, ...]
    """What it can be asked: `overall` and the dimensions it rates. An attribute of the class."""

    def judge(self, questions: Sequence[Question]) -> list[Answer | Abstention | Failure]:
        """One answer, abstention or failure per question. ModelError where nothing can be answered at all."""
        ...


@runtime_checkable
class EndpointJudge(Judge, Protocol):
    """A judge behind an endpoint: it is asked many questions at a time, and every request may cost something."""

    def open(self) -> None:
        """InputError where nothing can be asked, such as for want of a key; sends nothing."""
        ...

    def keep(self, journal: Path) -> None:
        """Write requests and replies to this file, where the user named none. Call it before anything is asked."""
        ...

    def limit(self, budget: Any) -> None:
        """Ask `budget` (`widespectrum.budget.Budget`) before every request; several models may share it."""
        ...

    def estimate(self, prompt: Prompt, dimension: str, sizes: Sequence[tuple[int, int]]) -> Tokens | None:
        """What a question about images of these (width, height) takes; None where another question's request
        answers it too.
        """
        ...

    def price(self, tokens: Tokens) -> float | None:
        """US dollars; None where the price is not known."""
        ...

    def spent(self) -> Spent:
        """What was sent since the judge was made."""
        ...

    def ask(self, questions: Iterable[tuple[Asked, Question]]) -> Iterator[tuple[Asked, Answer | Abstention | Failure]]:
        """Ask several questions at a time; each comes back with its mark (anything) and its answer, as they come.

        Questions are taken as they are needed; those about one image stand side by side. Raises BudgetSpentError once
        what is on its way has come, InputError, and ModelError where the server answers nobody. When the caller stops,
        what is on its way is waited for.
        """
        ...

    def close(self) -> None:
        """Close the connections and the journal."""
        ...
