"""The dimension judge J: Qwen3-VL with a LoRA rates an image on one dimension at a time, blind to the prompt."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL.Image import Image

from widespectrum.errors import InputError
from widespectrum.protocols import Abstention, Answer, Question
from widespectrum.rewards.checkpoints import Checkpoint, HubFiles
from widespectrum.types import DIMENSIONS, Parameter, digest

from .dimension_text import (
    ANSWERS,
    MAX_PIXELS,
    VERSION,
    dimension_conversation,
    dimensions_with_text,
    read_recipe,
    texts_digest,
)
from .local import HUB_PATTERNS, LocalJudge, checkpoint_of
from .qwen3vl import Encoded
from .qwen3vl_files import is_lora, read_config
from .qwen3vl_shared import SharedReader

__all__ = ["DimensionJudge", "dimension_conversation"]

_NAME = "dimension"
_REPO = "Qwen/Qwen3-VL-4B-Instruct"
_REPO_FORM = re.compile(r"[\w.-]+/[\w.-]+")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_PLACES = ("base_model_name_or_path", "revision", "auto_mapping", "inference_mode", "peft_version")
"""Settings of a LoRA that change no answer: where it was trained, and what it was saved with."""


class DimensionJudge(LocalJudge):
    """J(image, dimension): the expected value over the tokens 0, 1 and 2, their probabilities made to add up to 1.

    J is in [0, 2], 2 = conventionally good; the outcome is J / 2. `confidence` is the largest of the three
    probabilities; `details` has all three and their `mass` in the whole vocabulary. The prompt is not shown.

    `adapter` is the folder of a LoRA that peft saved (see `widespectrum train-judge`), or of a whole model. `base` is
    the model under the LoRA: a folder, or a repository of the Hub; by default the one that the LoRA names, else
    Qwen3-VL-4B-Instruct. An image keeps its aspect ratio and has `max_pixels` at most; by default as many as in
    training. It abstains on dimensions that it was not trained on, where a record of that lies beside its weights.
    """

    dimensions = DIMENSIONS
    answers = ANSWERS
    place = "base"
    # Those about one image share what comes before the question.
    usual_batch = (len(DIMENSIONS), len(DIMENSIONS))

    def __init__(
        self,
        *,
        adapter: Path | str,
        base: Path | str | None = None,
        device: str = "auto",
        dtype: str = "bfloat16",
        batch_size: int | None = None,
        max_pixels: int | None = None,
    ) -> None:
        self._folder = Path(adapter).expanduser()
        if not str(adapter).strip() or not self._folder.is_dir():
            raise InputError(f"{_NAME}: there is no folder {str(adapter)!r}: give that of a trained judge as adapter")
        recipe = read_recipe(self._folder) or {}
        self._taught = frozenset(recipe.get("dimensions", dimensions_with_text()))
        self._lora = is_lora(self._folder)
        super().__init__(
            _NAME,
            _base(self._folder, base) if self._lora else _whole(self._folder, base),
            device=device,
            dtype=dtype,
            batch_size=batch_size,
            max_pixels=recipe.get("max_pixels", MAX_PIXELS) if max_pixels is None else max_pixels,
        )

    @property
    def texts(self) -> tuple[str, Mapping[str, str]]:
        """Those of all dimensions, as one digest."""
        return VERSION, {"instruction": texts_digest()}

    @property
    def adapter(self) -> Path | None:
        """The folder of the LoRA, where it is one."""
        return self._folder if self._lora else None

    @cached_property
    def extra(self) -> Mapping[str, Parameter]:
        """What identifies the LoRA."""
        if not self._lora:
            return {}
        settings = read_config(self._folder / "adapter_config.json")
        weights = Checkpoint(_NAME, self._folder / "adapter_model.safetensors").pin
        kept = {key: value for key, value in settings.items() if key not in _PLACES}
        return {"adapter": digest([weights, kept])}

    @cached_property
    def _reader(self) -> SharedReader:
        return SharedReader(self.model)

    def _logits(self, asked: Sequence[Encoded]) -> Any:
        return self._reader.logits(asked)

    def _conversation(self, question: Question) -> tuple[str, Sequence[str | Image]] | Abstention:
        if question.rival is not None or question.dimension not in dimensions_with_text():
            return Abstention("the dimension judge only rates an image alone, on a dimension")
        if question.dimension not in self._taught:
            return Abstention(f"this judge was not trained on {question.dimension}")
        system, text = dimension_conversation(question.dimension)
        return system, [question.image, text]

    def _answer(self, question: Question, probabilities: Sequence[float], mass: float) -> Answer:
        value = sum(number * share for number, share in enumerate(probabilities))
        return Answer(
            # Rounding must not carry it out of the scale.
            outcome=min(value / 2, 1.0),
            rationale=f"J = {value:.3f}",
            raw=self.answers[max(range(3), key=probabilities.__getitem__)],
            details={"probabilities": list(probabilities), "mass": mass},
            confidence=max(probabilities),
        )


def _whole(folder: Path, base: Path | str | None) -> Checkpoint:
    if base is not None:
        raise InputError(f"{_NAME}: {folder} is a whole model and no LoRA: leave out base={base}")
    return checkpoint_of(_NAME, folder, HubFiles(_REPO, HUB_PATTERNS), "adapter")


def _base(folder: Path, base: Path | str | None) -> Checkpoint:
    """The model under a LoRA: what the option says, or the LoRA, or Qwen3-VL-4B-Instruct."""
    settings: Mapping[str, Any] = read_config(folder / "adapter_config.json") if base is None else {}
    wanted = str(settings.get("base_model_name_or_path") or _REPO) if base is None else str(base)
    revision = settings.get("revision")
    where = f"{folder / 'adapter_config.json'} names {wanted!r} as its base" if base is None else f"base is {wanted!r}"
    if Path(wanted).expanduser().is_dir():
        return checkpoint_of(_NAME, wanted, HubFiles(_REPO, HUB_PATTERNS), "base")
    if not _REPO_FORM.fullmatch(wanted):
        raise InputError(
            f"{_NAME}: {where}, and there is no such folder: give the folder of the model that was trained, or a "
            f"repository of the Hub such as {_REPO}, as base"
        )
    commit = str(revision) if revision and _COMMIT.fullmatch(str(revision)) else None
    return checkpoint_of(_NAME, None, HubFiles(wanted, HUB_PATTERNS, commit), "base")
