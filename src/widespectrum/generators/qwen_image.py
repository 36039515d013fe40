"""Qwen-Image: prompts are read by Qwen2.5-VL."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from widespectrum.types import ModelSpec, Prompt

from .diffusion import DiffusionGenerator

__all__ = ["QwenImage"]

BLANK = " "
"""What images are guided away from, as its authors do: without a negative prompt the pipeline does not guide at all."""


class QwenImage(DiffusionGenerator):
    """`QwenImagePipeline` of diffusers.

    `guidance` is its `true_cfg_scale`: above 1 the image is guided away from a blank prompt (`negative_prompt` in the
    spec), with 1 or less it is not guided. Prompts of 1,024 tokens are read, the most that the pipeline allows (it cuts
    at 512 unless it is told so); its instruction before the prompt does not count, what follows the prompt does.
    """

    family = "qwen-image"
    pipeline_class = "QwenImagePipeline"
    multiple = 16
    window = 1024
    long_prompts = "fail above 1024 tokens"

    @cached_property
    def spec(self) -> ModelSpec:
        """What identifies the images; hashes local files, or asks the Hub for commits, on first use."""
        self._configure({"negative_prompt": BLANK} if self._guided else {})
        return super().spec

    @property
    def _guided(self) -> bool:
        return self.guidance > 1

    def count_tokens(self, prompts: Sequence[str]) -> list[int]:
        """Tokens from where the text encoder's output is kept to its end."""
        pipeline = self.pipeline
        texts = [pipeline.prompt_template_encode.format(prompt) for prompt in prompts]
        rows = pipeline.tokenizer(texts, verbose=False)["input_ids"]
        return [len(ids) - pipeline.prompt_template_encode_start_idx for ids in rows]

    def _arguments(self, prompts: list[Prompt]) -> dict[str, Any]:
        return {
            "prompt": [prompt.text for prompt in prompts],
            "negative_prompt": [BLANK] * len(prompts) if self._guided else None,
            "true_cfg_scale": self.guidance,
            "max_sequence_length": self.window,
        }
