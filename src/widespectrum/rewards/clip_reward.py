"""What the reward models have in common that are the two towers of a CLIP and nothing else."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from .base import TwoTowerReward
from .checkpoints import Checkpoint
from .clip_towers import CONTEXT, Activation, Towers, build_towers, check_tokens, image_size
from .tokenization import Style, TextTokenizer, load_clip_bpe

__all__ = ["ClipReward", "load_towers", "normalized", "vocabulary"]


def load_towers(
    checkpoint: Checkpoint, *, dtype: Any, device: str, activation: Activation, halved: bool = False
) -> Towers:
    """The towers of `checkpoint`; where they have transformers' names, its `config.json` is obeyed.

    `halved`: where they have OpenAI's, they are rounded as OpenAI's loader does; its own file is already.
    """
    weights = checkpoint.open()
    of_hub = "visual_projection.weight" in weights.shapes
    return build_towers(
        weights,
        dtype=dtype,
        device=device,
        activation=activation,
        config=checkpoint.file("config.json") if of_hub else None,
        halved=halved and not of_hub,
    )


def vocabulary(checkpoint: Checkpoint) -> Path | None:
    """The folder of `checkpoint` where it holds the files of a tokenizer."""
    if not checkpoint.path.is_dir():
        return None
    whole = checkpoint.file("tokenizer.json") or (checkpoint.file("vocab.json") and checkpoint.file("merges.txt"))
    return checkpoint.path if whole else None


def normalized(features: Any) -> Any:
    """Rows of length 1 in float32, whatever the dtype of `features` (B, D)."""
    # Not torch's normalize: it would make a zero of what has no direction.
    features = features.float()
    return features / features.norm(dim=-1, keepdim=True)


class ClipReward(TwoTowerReward):
    """The cosine of image and prompt in a CLIP, times `scale`; higher is better.

    A family says how its images are prepared and which tokenizer and activation it has.
    """

    window: int | None = CONTEXT
    style: Style
    activation: Activation

    @property
    def container(self) -> Checkpoint:
        """Where the towers lie."""
        return self.checkpoint

    @cached_property
    def image_size(self) -> int:
        """Pixels of the side of the square that the image tower reads."""
        return image_size(self.container.open())

    @cached_property
    def text_tokenizer(self) -> TextTokenizer:
        """The official tokenizer, with the vocabulary of the checkpoint's folder where none was given."""
        return load_clip_bpe(self.tokenizer_path or vocabulary(self.checkpoint), self.style)

    def _load(self) -> Towers:
        if self.text_tokenizer is not None:
            check_tokens(self.container.open(), self.text_tokenizer.size)
        return self._towers()

    def _towers(self) -> Towers:
        return load_towers(self.container, dtype=self.torch_dtype, device=self.device, activation=self.activation)

    def _encode(self, pixels: Any) -> Any:
        return normalized(self.network.images(pixels))

    def _encode_texts(self, prompts: list[str]) -> Any:
        import torch

        return normalized(self.network.texts(torch.from_numpy(self.text_tokenizer.batch(prompts, CONTEXT))))
