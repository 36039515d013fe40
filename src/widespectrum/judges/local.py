"""What the judges on Qwen3-VL share: options, lazy weights, images prepared once, answers that are one token."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image

from widespectrum.devices import usable_device
from widespectrum.engine.ahead import prepared_ahead
from widespectrum.errors import InputError, WideSpectrumError
from widespectrum.protocols import Abstention, Answer, Failure, Question
from widespectrum.rewards.checkpoints import Checkpoint, HubFiles
from widespectrum.types import ModelSpec, Parameter, digest

from .qwen3vl import DTYPES, Encoded, Picture, Qwen3VL, computing, log_probabilities

__all__ = ["HUB_PATTERNS", "LocalJudge", "Pictures", "checkpoint_of"]

HUB_PATTERNS = ("*.safetensors", "*.json", "*.txt", "*.jinja")
_PICTURES_KEPT = 16

Reply: TypeAlias = Answer | Abstention | Failure


class Pictures:
    """Images as the model reads them, each prepared once while it is asked about; for several threads."""

    def __init__(self) -> None:
        self._kept: OrderedDict[int, tuple[Image, Future[Picture]]] = OrderedDict()
        self._lock = Lock()

    def get(self, model: Qwen3VL, image: Image) -> Picture:
        """`model.picture(image)`, and its errors."""
        with self._lock:
            is_new = id(image) not in self._kept
            # The image is kept too, so that no other one gets its id.
            _, future = self._kept.setdefault(id(image), (image, Future()))
            self._kept.move_to_end(id(image))
            if len(self._kept) > _PICTURES_KEPT:
                self._kept.popitem(last=False)
        if is_new:
            try:
                future.set_result(model.picture(image))
            except BaseException as error:
                future.set_exception(error)
        return future.result()


class LocalJudge(ABC):
    """A judge that asks Qwen3-VL on this machine, and whose answer is one of a few tokens."""

    answers: tuple[str, ...] = ()
    """The words, each one token, of which one is the answer."""

    place = "checkpoint"
    """The option that names the folder of `checkpoint`, for messages."""

    usual_batch = (8, 4)
    """Questions that are computed together where nobody says how many: on a GPU, on a CPU."""

    def __init__(
        self,
        name: str,
        checkpoint: Checkpoint,
        *,
        device: str,
        dtype: str,
        batch_size: int | None,
        max_pixels: int,
    ) -> None:
        if dtype not in DTYPES:
            raise InputError(f"{name}: expected a dtype of {', '.join(DTYPES)}; got {dtype!r}")
        for option, value in (("batch_size", 1 if batch_size is None else batch_size), ("max_pixels", max_pixels)):
            if type(value) is not int or value < 1:
                raise InputError(f"{name}: {option} must be a whole number of 1 or more; got {value!r}")
        self.name, self.checkpoint, self.dtype, self.max_pixels = name, checkpoint, dtype, max_pixels
        self._batch_size = batch_size
        # "auto" and "cpu" are always there: torch is not imported to look.
        self._device = device if device in ("auto", "cpu") else usable_device(device)
        self._pictures = Pictures()

    @cached_property
    def device(self) -> str:
        """Where the model computes."""
        return usable_device(self._device)

    @cached_property
    def batch_size(self) -> int:
        """How many questions are computed together."""
        return self._batch_size or self.usual_batch[self.device == "cpu"]

    @property
    @abstractmethod
    def texts(self) -> tuple[str, Mapping[str, str]]:
        """(version of the instruction texts, their digests by name)."""

    @property
    def extra(self) -> Mapping[str, Parameter]:
        """What else changes the answers."""
        return {}

    @property
    def adapter(self) -> Path | None:
        """The folder of a LoRA."""
        return None

    @cached_property
    def spec(self) -> ModelSpec:
        """What identifies the answers; hashes a local checkpoint, or asks the Hub for the commit, on first use."""
        version, digests = self.texts
        with self._naming_place():
            pin = dict(self.checkpoint.pin)
            if "revision" in pin and self.checkpoint.hub is not None:
                pin = {"repo": self.checkpoint.hub.repo, "commit": pin["revision"]}
            elif (template := self.checkpoint.path / "chat_template.jinja").is_file():
                pin["template"] = digest(template.read_text(encoding="utf-8"))[:16]
        params = {"dtype": self.dtype, "max_pixels": self.max_pixels, **digests, **self.extra, **pin}
        return ModelSpec(adapter=self.name, name=self.name, revision=version, params=params)

    def keep_to(self, spec: ModelSpec) -> None:
        """Stay at the commit of a run that was begun before, where no folder is given; call it first."""
        hub = self.checkpoint.hub
        if hub is not None and spec.params.get("repo") == hub.repo:
            self.checkpoint.keep_to(str(spec.params.get("commit", "")))

    @contextmanager
    def _naming_place(self) -> Iterator[None]:
        """What fails at the Hub says which option can be given instead."""
        try:
            yield
        except WideSpectrumError as error:
            raise type(error)(str(error).replace("as checkpoint=", f"as {self.place}=")) from error

    @cached_property
    def model(self) -> Qwen3VL:
        """The loaded model."""
        with self._naming_place():
            folder = self.checkpoint.path
        return Qwen3VL.open(
            folder,
            adapter=self.adapter,
            device=self.device,
            dtype=self.dtype,
            max_pixels=self.max_pixels,
        )

    @cached_property
    def tokens(self) -> list[int]:
        """The ids of `answers`."""
        return self.model.token_ids(self.answers)

    def open(self) -> None:
        """Load the weights now. InputError where a file is not what it should be, ModelError for lack of memory."""
        _ = self.tokens

    def judge(self, questions: Sequence[Question]) -> list[Reply]:
        """One answer, abstention or failure per question; batches and order change nothing beyond rounding.

        An image that cannot be read is a Failure. ModelError for lack of memory, InputError for unfit weights.
        """
        self.open()
        found: list[Reply | None] = [None] * len(questions)
        rows = range(len(questions))
        batches = [rows[start : start + self.batch_size] for start in rows[:: self.batch_size]]
        for batch, made in prepared_ahead(lambda row: self._encoded(questions[row]), batches):
            asked = {row: each for row, each in zip(batch, made, strict=True) if isinstance(each, Encoded)}
            for row, each in zip(batch, made, strict=True):
                found[row] = None if isinstance(each, Encoded) else each
            if asked:
                with computing(self.name):
                    logs = log_probabilities(self._logits([*asked.values()]), self.tokens)
                for row, own in zip(asked, logs, strict=True):
                    found[row] = self._answer(questions[row], *_probabilities(own))
        return [each for each in found if each is not None]

    def _logits(self, asked: Sequence[Encoded]) -> Any:
        """(N, vocabulary) of a batch."""
        return self.model.last_logits(self.model.collate(asked))

    def _encoded(self, question: Question) -> Encoded | Abstention | Failure:
        try:
            conversation = self._conversation(question)
            if isinstance(conversation, Abstention):
                return conversation
            system, parts = conversation
            shown = [part if isinstance(part, str) else self._pictures.get(self.model, part) for part in parts]
            return self.model.encode(system, shown)
        except InputError as error:
            return Failure(f"{self.name}, pair {question.prompt.pair_id}: {error}", "input")

    @abstractmethod
    def _conversation(self, question: Question) -> tuple[str, Sequence[str | Image]] | Abstention:
        """(text of the system, texts and images of the user) that ask the question."""

    @abstractmethod
    def _answer(self, question: Question, probabilities: Sequence[float], mass: float) -> Answer:
        """What the probabilities of `answers`, which add up to 1, say; before, they added up to `mass`."""


def _probabilities(logs: NDArray[np.float64]) -> tuple[list[float], float]:
    """(shares that add up to 1, what they added up to before)."""
    # By way of the largest: all of them may be too small for a float.
    shares = np.exp(logs - logs.max())
    return [float(share) for share in shares / shares.sum()], float(np.exp(logs).sum())


def checkpoint_of(name: str, folder: Path | str | None, hub: HubFiles, option: str) -> Checkpoint:
    """The checkpoint in a folder, or on the Hub where none is given.

    InputError at once where the path is no folder with a Qwen3-VL; `option` names it.
    """
    from .qwen3vl_files import check_folder

    made = Checkpoint(name, folder, hub=hub)
    if folder is not None:
        try:
            check_folder(Path(folder).expanduser())
        except InputError as error:
            raise InputError(f"{name}, {option}: {error}") from None
    return made
