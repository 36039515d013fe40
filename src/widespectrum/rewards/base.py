"""What every neural reward model has in common: lazy weights, every image encoded once, batches that change nothing."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image

from widespectrum.devices import is_out_of_memory, usable_device
from widespectrum.engine.ahead import prepared_ahead
from widespectrum.errors import InputError, ModelError
from widespectrum.protocols import Features
from widespectrum.types import ModelSpec, Parameter

from .checkpoints import Checkpoint
from .inputs import check_images, check_inputs, check_prompts, check_rows
from .tokenization import TextTokenizer

__all__ = [
    "DTYPES",
    "NeuralReward",
    "Prepared",
    "Rows",
    "TwoTowerReward",
    "computing",
    "distinct_images",
]

DTYPES = ("float32", "bfloat16", "float16")

Prepared: TypeAlias = NDArray[Any]
"""One image as a network reads it, shape (3, height, width)."""

Rows: TypeAlias = Sequence[int] | NDArray[np.int64]
"""Numbers of images or prompts, one for each score."""

_TEXTS_KEPT = 16384
_BATCH, _BATCH_ON_CPU = 16, 4


@contextmanager
def computing(name: str) -> Iterator[None]:
    """No gradients; a lack of memory is a ModelError that says what helps."""
    import torch

    try:
        with torch.inference_mode():
            yield
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise ModelError(f"{name} ran out of memory: give a smaller batch_size, or score with it alone") from error
        raise


class NeuralReward(ABC):
    """A reward model with weights, which are loaded when they are first needed.

    A family says how the network is made (`_load`), how an image becomes its input (`prepare`), what is computed of an
    image alone (`_encode`) and what of an image and a prompt (`_compare`). Scores are computed in `dtype`; batches,
    order and repetition change nothing beyond rounding.
    """

    window: int | None = None
    """Tokens that the text encoder reads, start and end included; None where nothing is cut off."""

    image_key: str = ""
    """Reward models with equal keys prepare and encode an image alike, so that one pass serves them; empty: none."""

    def __init__(
        self,
        *,
        family: str,
        name: str,
        checkpoint: Checkpoint,
        device: str = "auto",
        dtype: str = "float32",
        batch_size: int | None = None,
        tokenizer: Path | str | None = None,
        params: Mapping[str, Parameter] | None = None,
    ) -> None:
        if dtype not in DTYPES:
            raise InputError(f"{name}: expected a dtype of {', '.join(DTYPES)}; got {dtype!r}")
        if batch_size is not None and (type(batch_size) is not int or batch_size < 1):
            raise InputError(f"{name}: batch_size must be a whole number of 1 or more; got {batch_size!r}")
        self.family, self.name, self.checkpoint = family, name, checkpoint
        self.dtype, self._batch_size = dtype, batch_size
        self.params = dict(params or {})
        self.tokenizer_path = Path(tokenizer).expanduser() if tokenizer is not None else None
        if self.tokenizer_path is not None and not self.tokenizer_path.exists():
            raise InputError(f"{name}: no tokenizer at {tokenizer}: expected a vocabulary file or a folder with one")
        # "auto" and "cpu" are always there: torch is not imported to look.
        self._device = device if device in ("auto", "cpu") else usable_device(device)

    @cached_property
    def device(self) -> str:
        """Where the network computes."""
        return usable_device(self._device)

    @cached_property
    def batch_size(self) -> int:
        """How many images, and how many rows, are computed together: a CPU gains nothing by more, but needs memory."""
        return self._batch_size or (_BATCH_ON_CPU if self.device == "cpu" else _BATCH)

    @cached_property
    def torch_dtype(self) -> Any:
        """The torch dtype in which the network computes."""
        import torch

        return getattr(torch, self.dtype)

    @cached_property
    def spec(self) -> ModelSpec:
        """What identifies the scores; hashes a local checkpoint, or asks the Hub for the revision, on first use."""
        pin = dict(self.checkpoint.pin)
        if self.text_tokenizer is not None:
            pin["vocabulary"] = self.text_tokenizer.vocabulary
        if self.settings is not None:
            pin["settings"] = hashlib.sha256(self.settings.read_bytes()).hexdigest()[:16]
        revision = pin.pop("revision", None)
        params = {"dtype": self.dtype, **self.params, **pin}
        return ModelSpec(adapter=self.family, name=self.name, revision=revision, params=params)

    def keep_to(self, spec: ModelSpec) -> None:
        """Stay at the commit of a run that was begun before, where no revision is given; call it first."""
        self.checkpoint.keep_to(spec.revision or "")

    @property
    def text_tokenizer(self) -> TextTokenizer | None:
        """What reads the prompts; None where they are not read, or in a way that belongs to the checkpoint."""
        return None

    @property
    def settings(self) -> Path | None:
        """The file beside the weights that says more of the network than they do, where one was found."""
        return None

    @cached_property
    def network(self) -> Any:
        """The loaded network."""
        return self._load()

    def open(self) -> None:
        """Load vocabulary and weights now. InputError where a file is not what it should be."""
        _ = self.text_tokenizer, self.network

    @abstractmethod
    def _load(self) -> Any:
        """The network on `device` in `torch_dtype`, in eval mode."""

    @abstractmethod
    def prepare(self, image: Image) -> Prepared:
        """The image as the network reads it; runs in threads. InputError where it cannot be scored."""

    def count_tokens(self, prompts: Sequence[str]) -> list[int]:
        """Tokens of every prompt, start and end included, before anything is cut off; 0 where none is read."""
        return [0] * len(prompts) if self.text_tokenizer is None else self.text_tokenizer.count(prompts)

    def has_special(self, prompts: Sequence[str]) -> list[bool]:
        """Whether a prompt holds text that stands for a special token of the tokenizer."""
        return [False] * len(prompts) if self.text_tokenizer is None else self.text_tokenizer.has_special(prompts)

    def _encode(self, pixels: Any) -> Any:
        """What is computed of images alone: a tensor with one row for each of `pixels` (B, 3, height, width)."""
        raise TypeError(f"{type(self).__name__} defines neither _encode nor score_prepared")

    def _compare(self, features: Any, prompts: list[str]) -> Any:
        """Scores (B,) of row i of `features` under prompt i."""
        raise TypeError(f"{type(self).__name__} defines neither _compare nor score_prepared")

    def _pixels(self, prepared: Sequence[Prepared]) -> Any:
        import torch

        return torch.from_numpy(np.stack(prepared)).to(self.device, self.torch_dtype)

    def _prepare(self, image: Image, row: int) -> Prepared:
        """As `prepare`; its errors name the row and the file."""
        file = getattr(image, "filename", "")
        where = f"{self.name}, row {row}{f' ({file})' if file else ''}"
        try:
            return self.prepare(image)
        except InputError as error:
            raise InputError(f"{where}: {error}") from error
        # Pillow decodes when the pixels are first read, and raises these for damaged files and closed images.
        except (OSError, SyntaxError, ValueError) as error:
            raise InputError(
                f"{where}: the image cannot be decoded ({error}): copy it again, or leave it out"
            ) from error

    def score(self, images: Sequence[Image], prompts: Sequence[str]) -> NDArray[np.float64]:
        """Shape (N,): `images[i]` under `prompts[i]`; an image that stands in several rows is encoded once.

        InputError for lists of unequal length or none, and for an image that this model cannot score.
        """
        images, prompts = check_inputs(self.name, images, prompts)
        # Not in the threads that prepare: they would each look for the same files, and could not be interrupted.
        self.open()
        distinct = {id(image): image for image in images}
        rows_of: dict[int, list[int]] = {}
        for row, image in enumerate(images):
            rows_of.setdefault(id(image), []).append(row)
        values = np.empty(len(prompts), dtype=np.float64)
        keys = list(distinct)
        batches = [keys[start : start + self.batch_size] for start in range(0, len(keys), self.batch_size)]
        for batch, prepared in prepared_ahead(lambda key: self._prepare(distinct[key], rows_of[key][0]), batches):
            rows = [(number, row) for number, key in enumerate(batch) for row in rows_of[key]]
            image_rows, own = [number for number, _ in rows], [row for _, row in rows]
            # The prompts of this batch alone: all of them may be more than are kept.
            place = {text: number for number, text in enumerate(dict.fromkeys(prompts[row] for row in own))}
            values[own] = self.score_prepared(prepared, list(place), image_rows, [place[prompts[row]] for row in own])
        return values

    def score_prepared(
        self,
        prepared: Sequence[Prepared],
        prompts: Sequence[str],
        image_rows: Rows,
        prompt_rows: Rows,
        shared: dict[Any, Any] | None = None,
    ) -> NDArray[np.float64]:
        """Shape (N,): `prepared[image_rows[i]]` under `prompts[prompt_rows[i]]`.

        Every image is encoded once, equal ones together. `shared` is a dictionary that several reward models fill and
        read while they score the same images: see `image_key`.
        """
        import torch

        originals, place = distinct_images(prepared)
        values = torch.empty(len(image_rows), dtype=torch.float64)
        with computing(self.name):
            for start in range(0, len(originals), self.batch_size):
                part = originals[start : start + self.batch_size]
                features = self._encode(self._pixels([prepared[number] for number in part]))
                chosen = [row for row, image in enumerate(image_rows) if start <= place[image] < start + len(part)]
                for first in range(0, len(chosen), self.batch_size):
                    rows = chosen[first : first + self.batch_size]
                    own = features[[place[image_rows[row]] - start for row in rows]]
                    values[rows] = self._compare(own, [prompts[prompt_rows[row]] for row in rows]).double().cpu()
        return self._finite(values.numpy(), prompt_rows, prompts)

    def _finite(self, values: NDArray[np.float64], prompt_rows: Rows, prompts: Sequence[str]) -> NDArray[np.float64]:
        if not np.isfinite(values).all():
            row = int(np.flatnonzero(~np.isfinite(values))[0])
            raise ModelError(
                f"{self.name} in {self.dtype} gave {values[row]} for the prompt {prompts[prompt_rows[row]][:60]!r}: "
                "try dtype float32, and see whether the checkpoint is whole"
            )
        return values


def distinct_images(prepared: Sequence[Prepared]) -> tuple[list[int], list[int]]:
    """(numbers of the images that differ, for each image its place among them)."""
    first: dict[bytes, int] = {}
    numbers: list[int] = []
    place = []
    for number, key in enumerate(map(_digest, prepared)):
        if key not in first:
            first[key] = len(numbers)
            numbers.append(number)
        place.append(first[key])
    return numbers, place


def _digest(pixels: Prepared) -> bytes:
    return hashlib.blake2b(pixels.tobytes(), digest_size=16).digest() + repr(pixels.shape).encode()


class TwoTowerReward(NeuralReward):
    """A reward model of which image and prompt meet only in a dot product, scaled by `scale`.

    A family gives `_encode` and `_encode_texts`: rows of length 1, in float32 whatever the dtype of the network.
    """

    scale: float = 1.0
    """By what the cosine is multiplied."""

    @cached_property
    def _texts(self) -> OrderedDict[str, Features]:
        """Text features by prompt, those used longest ago first."""
        return OrderedDict()

    @abstractmethod
    def _encode_texts(self, prompts: list[str]) -> Any:
        """Text features, a tensor (B, D)."""

    def encode_images(self, images: Sequence[Image]) -> Features:
        """Shape (N, D), rows of length 1; equal images are encoded once."""
        images = check_images(self.name, images)
        self.open()
        rows = range(len(images))
        batches = [rows[start : start + self.batch_size] for start in rows[:: self.batch_size]]
        ahead = prepared_ahead(lambda row: self._prepare(images[row], row), batches)
        return np.concatenate([self._image_features(made) for _, made in ahead])

    def encode_texts(self, prompts: Sequence[str]) -> Features:
        """Shape (N, D), rows of length 1; each distinct prompt is encoded once and kept."""
        prompts = check_prompts(self.name, prompts)
        distinct = dict.fromkeys(prompts)
        missing = [prompt for prompt in distinct if prompt not in self._texts]
        found = {prompt: self._texts.pop(prompt) for prompt in distinct if prompt in self._texts}
        with computing(self.name):
            for start in range(0, len(missing), self.batch_size):
                part = missing[start : start + self.batch_size]
                found |= dict(zip(part, _array(self._encode_texts(part)), strict=True))
        self._texts |= found
        while len(self._texts) > _TEXTS_KEPT:
            self._texts.popitem(last=False)
        return np.stack([found[prompt] for prompt in prompts])

    def combine(self, image_features: Features, text_features: Features) -> NDArray[np.float64]:
        """Shape (N,): `scale` times the dot product of row i and row i."""
        check_rows(self.name, image_features, text_features)
        values: Features = self.scale * np.einsum("nd,nd->n", image_features, text_features)
        return values

    def _image_features(self, prepared: Sequence[Prepared], shared: dict[Any, Any] | None = None) -> Features:
        """Shape (N, D); what `shared` holds is not computed again."""
        known = shared if shared is not None and self.image_key else {}
        # The key may rest on the hash of a checkpoint, which is not made where nobody shares.
        kind = self.image_key if shared is not None else ""
        keys = [(kind, _digest(pixels)) for pixels in prepared]
        missing = {key: pixels for key, pixels in zip(keys, prepared, strict=True) if key not in known}
        items = list(missing.items())
        with computing(self.name):
            for start in range(0, len(items), self.batch_size):
                part = items[start : start + self.batch_size]
                rows = _array(self._encode(self._pixels([pixels for _, pixels in part])))
                known |= {key: row for (key, _), row in zip(part, rows, strict=True)}
        return np.stack([known[key] for key in keys])

    def score_prepared(
        self,
        prepared: Sequence[Prepared],
        prompts: Sequence[str],
        image_rows: Rows,
        prompt_rows: Rows,
        shared: dict[Any, Any] | None = None,
    ) -> NDArray[np.float64]:
        """As `NeuralReward.score_prepared`."""
        features = self._image_features(prepared, shared)
        texts = self.encode_texts(prompts)
        values = self.combine(features[np.asarray(image_rows)], texts[np.asarray(prompt_rows)])
        return self._finite(values, prompt_rows, prompts)


def _array(tensor: Any) -> Features:
    found: Features = tensor.double().cpu().numpy()
    return found
