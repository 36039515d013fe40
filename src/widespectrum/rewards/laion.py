"""LAION's aesthetic predictor: how well people would like the image, whatever the prompt (Schuhmann 2022).

A small head on the image features of CLIP ViT-L/14; github.com/christophschuhmann/improved-aesthetic-predictor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from widespectrum.errors import InputError
from widespectrum.protocols import Features
from widespectrum.types import ModelSpec

from .checkpoints import Checkpoint, Weights
from .clip_openai import OpenAIClip, clip_checkpoint
from .identity import FILES

__all__ = ["LaionAestheticReward"]

_HINT = (
    "the head is on no Hub of its authors: download sac+logos+ava1-l14-linearMSE.pth from "
    "github.com/christophschuhmann/improved-aesthetic-predictor and pass its path as checkpoint"
)
_HEADS = ("sac+logos+ava1-l14-linearMSE.pth", "*MSE*.pth", "*.pth")

_LAYOUTS: dict[tuple[int, ...], bool] = {(0, 2, 4, 6, 7): False, (0, 3, 6, 9, 11): True}
"""The places of the linear layers in a head, and whether there is a ReLU between them: linearMSE and reluMSE."""

Layer = tuple[NDArray[np.float64], NDArray[np.float64]]


class LaionAestheticReward(OpenAIClip):
    """How well people would like the image, about 1 to 10; higher is better. The prompt is not read.

    `checkpoint` is a head: sac+logos+ava1-l14-linearMSE.pth, or one of its siblings (a reluMSE head is told apart by
    its layers); or a folder that holds a head and a CLIP. `clip` is the CLIP: OpenAI's archive ViT-L-14.pt, its state
    dict or a folder of transformers; where none is given and the folder of the head holds none, it is downloaded: the
    Hub's openai/clip-vit-large-patch14. The head reads the
    feature of length 1 and computes in float64 whatever the dtype of CLIP. A
    `tokenizer` changes nothing, no prompt is read.
    """

    window = None
    text_tokenizer = None  # type: ignore[assignment]  # no prompt is read

    def __init__(
        self,
        *,
        checkpoint: Path | str | None = None,
        tokenizer: Path | str | None = None,
        device: str = "auto",
        dtype: str = "float32",
        batch_size: int | None = None,
        clip: Path | str | None = None,
    ) -> None:
        super().__init__(
            family="laion",
            name="laion-aesthetic",
            checkpoint=Checkpoint("laion-aesthetic", checkpoint, hub=None, hint=_HINT, weights=_HEADS),
            device=device,
            dtype=dtype,
            batch_size=batch_size,
        )
        if clip is None and checkpoint is not None:
            clip = _clip_beside(Path(checkpoint).expanduser())
        self._clip = clip_checkpoint("the CLIP of laion-aesthetic", clip)

    @property
    def container(self) -> Checkpoint:
        """Where the towers lie."""
        return self._clip

    @cached_property
    def spec(self) -> ModelSpec:
        """What identifies the scores: the head, and among the parameters the CLIP."""
        pin = next(iter(self._clip.pin.values()))
        made = super().spec
        return replace(made, params={**made.params, "clip": pin})

    def keep_to(self, spec: ModelSpec) -> None:
        """Stay at the commit of a run that was begun before; only the CLIP comes from the Hub."""
        clip = str(spec.params.get("clip", ""))
        # A local one is pinned by a sha256, which is longer.
        if len(clip) == 40:
            self._clip.keep_to(clip)

    @cached_property
    def head(self) -> tuple[list[Layer], bool]:
        """The linear layers in order, (out, in) and (out,), and whether there is a ReLU between them."""
        weights = self.checkpoint.open()
        places = sorted(int(name.split(".")[1]) for name in weights.shapes if _is_layer(name))
        with_relu = _LAYOUTS.get(tuple(places))
        if with_relu is None:
            raise InputError(
                f"{weights.where} is no head of LAION's aesthetic predictor{weights.looks}: expected the linear layers "
                f"{' or '.join(str(each) for each in _LAYOUTS)} of `layers`, got {tuple(places)}; {_HINT}"
            )
        names = [(f"layers.{place}.weight", f"layers.{place}.bias") for place in places]
        weights.require(sum(names, ()))
        _check_shapes(weights, names)
        arrays = {name: tensor.double().numpy() for name, tensor in weights.read(sum(names, ())).items()}
        return [(arrays[weight], arrays[bias]) for weight, bias in names], with_relu

    def encode_texts(self, prompts: Sequence[str]) -> Features:
        """Shape (N, 0): nothing is read."""
        return np.empty((len(prompts), 0))

    def combine(self, image_features: Features, text_features: Features) -> NDArray[np.float64]:
        """Shape (N,): what the head says of each image."""
        layers, with_relu = self.head
        if image_features.shape[1] != layers[0][0].shape[1]:
            raise InputError(
                f"{self.checkpoint.path} reads features of {layers[0][0].shape[1]} numbers and the CLIP at "
                f"{self._clip.path} gives {image_features.shape[1]}: expected a head and the CLIP it was trained on"
            )
        values = image_features
        for number, (weight, bias) in enumerate(layers):
            values = (np.maximum(values, 0) if with_relu and number else values) @ weight.T + bias
        return values[:, 0]


def _check_shapes(weights: Weights, names: Sequence[tuple[str, str]]) -> None:
    """InputError where the layers do not fit one another, from a feature of any width to one number."""
    shapes = [weights.shapes[weight] for weight, _ in names]
    widths = [*(shape[-1] if len(shape) == 2 else 1 for shape in shapes), 1]
    for (weight, bias), start, end in zip(names, widths, widths[1:], strict=False):
        weights.expect({weight: (end, start), bias: (end,)})


def _is_layer(name: str) -> bool:
    first, _, rest = name.partition(".")
    number, _, kind = rest.partition(".")
    return first == "layers" and number.isdecimal() and kind == "weight"


def _clip_beside(folder: Path) -> Path | None:
    """The CLIP in a folder that holds a head too: transformers' files, a file of weights, or a folder in it."""
    patterns = ("config.json", "*.pt", "*.safetensors", "*/config.json")
    found = [path for pattern in patterns for path in sorted(folder.glob(pattern))] if folder.is_dir() else []
    own = (path for path in found if FILES.get(path.name, "clip-l") == "clip-l")
    return next((path.parent if path.suffix == ".json" else path for path in own), None)
