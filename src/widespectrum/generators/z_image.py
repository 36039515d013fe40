"""Z-Image and Z-Image-Turbo: one stream for text and image; prompts are read by Qwen3."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from widespectrum.types import Prompt

from .diffusion import DiffusionGenerator
from .flux2_klein import chat_lengths

__all__ = ["ZImage"]


class ZImage(DiffusionGenerator):
    """`ZImagePipeline` of diffusers.

    Prompts of 512 tokens are read, chat template included. With `guidance` 0, as Turbo wants it, the transformer runs
    once per step; any guidance above 0 guides the image away from the empty prompt and computes twice as much. It is
    counted from 0: 3.5 here is what other pipelines call 4.5.
    """

    family = "z-image"
    pipeline_class = "ZImagePipeline"
    multiple = 16
    window = 512
    long_prompts = "fail above 512 tokens"

    def count_tokens(self, prompts: Sequence[str]) -> list[int]:
        """Tokens of the whole chat that the text encoder reads."""
        return chat_lengths(self.pipeline.tokenizer, prompts, thinking=True)

    def _arguments(self, prompts: list[Prompt]) -> dict[str, Any]:
        return {**super()._arguments(prompts), "max_sequence_length": self.window}
