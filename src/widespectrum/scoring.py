"""Image pairs → scores: every image is decoded once for all reward models of a run, ahead of them, in threads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeAlias, TypeGuard

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image

from . import store
from .engine import Failure
from .engine.local import salvage
from .errors import InputError, ModelError, RunFolderError
from .images import ImageReader, decode
from .pipeline import ROLES, Pair, Work, image_pairs
from .protocols import PreparingRewardModel, RewardModel, TwoTowerRewardModel
from .types import Prompt, Role, Score

__all__ = ["Reading", "opened", "prepares", "read_prompt", "read_text", "score_images", "scoring", "unscored"]

Key: TypeAlias = tuple[str, str, int]
"""(pair_id, generator, seed)."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a reward model's tokenizer makes of a prompt: see `widespectrum.types.Score`."""

    truncated: bool | None = None
    past_window: tuple[str, ...] = ()
    special: bool | None = None


@dataclass(frozen=True, slots=True)
class _Ready:
    """A pair with its images: by reward model what the model reads of both, or why it cannot.

    `unreadable` says why an image cannot be opened at all; `inputs` are empty then.
    """

    pair: Pair
    inputs: Mapping[str, tuple[Any, Any] | str]
    unreadable: str = ""


def prepares(model: RewardModel) -> TypeGuard[PreparingRewardModel]:
    """Whether `model` is a PreparingRewardModel; isinstance would read attributes, some of which load weights."""
    return callable(getattr(type(model), "score_prepared", None))


def opened(models: Mapping[str, RewardModel]) -> tuple[dict[str, RewardModel], list[Failure]]:
    """The models that can be loaded, loaded; and why the others cannot."""
    found, failures = {}, []
    for label, model in models.items():
        try:
            if prepares(model):
                model.open()
        except InputError as error:
            failures.append(Failure(str(error), "input", label))
        else:
            found[label] = model
    return found, failures


def read_text(model: RewardModel, text: str) -> Reading:
    """Whether `model` sees all of a text, and nothing but text in it."""
    if not prepares(model):
        return Reading()
    is_cut = model.window is not None and model.count_tokens([text])[0] > model.window
    return Reading(truncated=is_cut, special=model.has_special([text])[0])


def read_prompt(model: RewardModel, prompt: Prompt) -> Reading:
    """As `read_text`, and which requested dimensions the model does not see."""
    reading = read_text(model, prompt.text)
    if not reading.truncated:
        return reading
    lost = []
    for dimension, words in zip(prompt.dimensions, prompt.effects, strict=False):
        end = prompt.text.find(words) + len(words)
        if words and words in prompt.text and read_text(model, prompt.text[:end]).truncated:
            lost.append(dimension)
    return replace(reading, past_window=tuple(lost))


def unscored(run: Path, labels: Sequence[str]) -> dict[Key, tuple[Pair, tuple[str, ...]]]:
    """The pairs that a reward model has not scored under both prompts, each with the labels of those models."""
    by_key = {(pair.pair_id, pair.generator, pair.seed): pair for pair in image_pairs(run)}
    wanted = [(*key, image, prompt, label) for key in by_key for label in labels for image in ROLES for prompt in ROLES]
    todo: dict[Key, dict[str, None]] = {}
    for *key, _, _, label in store.missing(run, "scores", wanted):
        todo.setdefault((key[0], key[1], key[2]), {})[label] = None
    return {key: (by_key[key], tuple(lacking)) for key, lacking in todo.items()}


def scoring(run: Path, models: Mapping[str, RewardModel]) -> Work:
    """What the reward models (by label) still have to score of a run, as one piece of work."""
    todo = unscored(run, list(models))
    reader = ImageReader(run)
    readings = {label: cache(lambda prompt, model=model: read_prompt(model, prompt)) for label, model in models.items()}

    def prepare(item: tuple[Pair, tuple[str, ...]]) -> _Ready:
        pair, labels = item
        images = _open(reader, pair)
        if isinstance(images, str):
            return _Ready(pair, {}, images)
        return _Ready(pair, {label: _inputs(models[label], images) for label in labels})

    def make(batch: Sequence[_Ready]) -> list[Failure]:
        shared: dict[Any, Any] = {}
        rows: list[Score] = []
        failures = [Failure(f"{_name(each.pair)}: {each.unreadable}", "input") for each in batch if each.unreadable]
        opened = [ready for ready in batch if not ready.unreadable]
        for label in dict.fromkeys(label for ready in opened for label in ready.inputs):
            asked = [ready for ready in opened if label in ready.inputs]
            fit = [ready for ready in asked if not isinstance(ready.inputs[label], str)]
            unfit = [ready for ready in asked if isinstance(ready.inputs[label], str)]
            failures += [Failure(f"{_name(ready.pair)}: {ready.inputs[label]}", "input", label) for ready in unfit]
            made, failed = salvage(partial(_score_pairs, models[label], label, shared), fit)
            for ready, values in made:
                rows += _records(label, ready.pair, values, readings[label])
            failures += [Failure(f"{_names(which)}: {error}", "model", label) for which, error in failed]
        store.append(run, "scores", rows)
        return failures

    count = 4 * sum(len(labels) for _, labels in todo.values())
    return Work(", ".join(models), list(todo.values()), count, make, prepare=prepare)


def _name(pair: Pair) -> str:
    return f"pair {pair.pair_id} of {pair.generator}"


def _names(batch: Sequence[_Ready]) -> str:
    """The first pairs of a batch, and how many more there are."""
    more = f" and {len(batch) - 3} more" if len(batch) > 3 else ""
    return ", ".join(_name(ready.pair) for ready in batch[:3]) + more


def _open(reader: ImageReader, pair: Pair) -> tuple[Image, Image] | str:
    """I_o and I_a, each with the prompt that made it in its `info`; a text says why they cannot be opened."""
    images = []
    for role in ROLES:
        image_id = pair.image_ids[role]
        try:
            image = decode(reader.content(image_id), f"the image {image_id[:12]} of the {role} prompt")
        except RunFolderError as error:
            return str(error)
        image.info["prompt"] = pair.prompts[role].text
        images.append(image)
    return images[0], images[1]


def _inputs(model: RewardModel, images: tuple[Image, Image]) -> tuple[Any, Any] | str:
    """What `model` reads of both images; a text says why it cannot."""
    if not prepares(model):
        return images
    try:
        return model.prepare(images[0]), model.prepare(images[1])
    except InputError as error:
        return str(error)


def _score_pairs(
    model: RewardModel, label: str, shared: dict[Any, Any], batch: Sequence[_Ready]
) -> list[NDArray[np.float64]]:
    """Of each pair shape (2, 2): image role, prompt role."""
    count = len(batch)
    inputs = [each for ready in batch for each in ready.inputs[label]]
    texts = [ready.pair.prompts[role].text for ready in batch for role in ROLES]
    image_rows = np.repeat(np.arange(2 * count), 2)
    prompt_rows = np.tile(np.arange(2 * count).reshape(count, 1, 2), (1, 2, 1)).ravel()
    values = score_images(model, inputs, texts, (image_rows, prompt_rows), shared)
    if values.shape != (4 * count,):
        raise ModelError(f"gave scores of shape {values.shape} for {4 * count} questions")
    if not np.isfinite(values).all():
        raise ModelError("gave a score that is not finite")
    return list(np.asarray(values, dtype=np.float64).reshape(count, 2, 2))


def score_images(
    model: RewardModel,
    inputs: Sequence[Any],
    prompts: Sequence[str],
    rows: tuple[NDArray[np.int64], NDArray[np.int64]],
    shared: dict[Any, Any],
) -> NDArray[np.float64]:
    """Shape (N,): `inputs[rows[0][i]]` under `prompts[rows[1][i]]`; each image and each prompt is encoded once.

    `inputs` are what `model.prepare` made, or images where the model prepares nothing.
    """
    image_rows, prompt_rows = rows
    if prepares(model):
        texts = list(dict.fromkeys(prompts))
        place = {text: number for number, text in enumerate(texts)}
        columns = [place[prompts[row]] for row in prompt_rows]
        return model.score_prepared(inputs, texts, image_rows, columns, shared)
    if isinstance(model, TwoTowerRewardModel):
        return model.combine(model.encode_images(inputs)[image_rows], model.encode_texts(prompts)[prompt_rows])
    return model.score([inputs[row] for row in image_rows], [prompts[row] for row in prompt_rows])


def _records(label: str, pair: Pair, values: NDArray[np.float64], reading: Any) -> list[Score]:
    found: dict[Role, Reading] = {role: reading(pair.prompts[role]) for role in ROLES}
    return [
        Score(
            pair_id=pair.pair_id,
            generator=pair.generator,
            image_seed=pair.seed,
            image_role=image_role,
            prompt_role=prompt_role,
            image_id=pair.image_ids[image_role],
            prompt_id=pair.prompts[prompt_role].prompt_id,
            reward_model=label,
            value=float(values[i, j]),
            truncated=found[prompt_role].truncated,
            past_window=found[prompt_role].past_window,
            special=found[prompt_role].special,
        )
        for i, image_role in enumerate(ROLES)
        for j, prompt_role in enumerate(ROLES)
    ]
