"""FLUX.2 Klein: distilled to a few steps and without guidance; prompts are read by Qwen3."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from widespectrum.errors import InputError
from widespectrum.types import Prompt

from .diffusion import DiffusionGenerator

__all__ = ["Flux2Klein", "chat_lengths"]

READ_LAYERS = (9, 18, 27)
"""The layers of the text encoder that the pipeline reads."""


def chat_lengths(tokenizer: Any, prompts: Sequence[str], *, thinking: bool) -> list[int]:
    """Tokens of every prompt as a chat with one question, the start of an answer included; nothing is cut off."""
    chats = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}],
            tokenize=False,
            add_generation_prompt=True,
            enable_thinking=thinking,
        )
        for prompt in prompts
    ]
    return [len(ids) for ids in tokenizer(chats, verbose=False)["input_ids"]]


class Flux2Klein(DiffusionGenerator):
    """`Flux2KleinPipeline` of diffusers.

    All checkpoints read 512 tokens, chat template included. A distilled one takes no guidance (1 or less): InputError
    when it is opened with more, because the pipeline would ignore it. Another, such as FLUX.2-klein-base, is guided
    away from the empty prompt where `guidance` is above 1.
    """

    family = "flux2-klein"
    pipeline_class = "Flux2KleinPipeline"
    multiple = 16
    window = 512
    long_prompts = "fail above 512 tokens"

    def _prepare(self, pipeline: Any) -> None:
        if pipeline.config.is_distilled and self.guidance > 1:
            raise InputError(
                f"{self.name}: the checkpoint is distilled and takes no guidance; got guidance={self.guidance:g}, "
                "give guidance=1"
            )
        layers = pipeline.text_encoder.config.num_hidden_layers
        if layers < READ_LAYERS[-1]:
            raise InputError(
                f"{self.name}: the pipeline reads layer {READ_LAYERS[-1]} of its text encoder, that of this checkpoint "
                f"has {layers}: give a checkpoint of FLUX.2 Klein"
            )

    def count_tokens(self, prompts: Sequence[str]) -> list[int]:
        """Tokens of the whole chat that the text encoder reads."""
        return chat_lengths(self.pipeline.tokenizer, prompts, thinking=False)

    def _arguments(self, prompts: list[Prompt]) -> dict[str, Any]:
        return {**super()._arguments(prompts), "max_sequence_length": self.window}
