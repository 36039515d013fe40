"""Stable Diffusion 1.5 and what shares its pipeline; a DPO-aligned UNet is given as `transformer`."""

from __future__ import annotations

from typing import Any

from PIL.Image import Image

from widespectrum.protocols import Failure, Refusal
from widespectrum.types import Prompt

from .clip_prompts import ClipPromptGenerator, join, read

__all__ = ["StableDiffusion1"]


class StableDiffusion1(ClipPromptGenerator):
    """A checkpoint of the Stable Diffusion 1 family.

    A picture that the checkpoint's safety checker holds back is a refusal; a checkpoint without one refuses nothing.
    """

    family = "sd1"
    pipeline_class = "StableDiffusionPipeline"
    tokenizers = ("tokenizer",)

    def _embed(self, text: str, count: int) -> Any:
        """The last layer of the encoder, (1, 77 * count, channels)."""
        pipeline = self.pipeline
        pieces = read(pipeline.tokenizer, pipeline.text_encoder, text, count, self.device)
        return join([piece.last_hidden_state for piece in pieces])

    def _arguments(self, prompts: list[Prompt]) -> dict[str, Any]:
        import torch

        count = self.count_pieces(prompts)
        return {
            "prompt_embeds": torch.cat([self._embed(prompt.text, count) for prompt in prompts]),
            "negative_prompt_embeds": self._embed("", 1).repeat(len(prompts), count, 1),
            "guidance_scale": self.guidance,
        }

    def _draw(self, prompts: list[Prompt], generators: list[Any], images: list[Any]) -> list[Image | Refusal | Failure]:
        drawn = self._call(generators, **self._arguments(prompts))
        unsafe = drawn.nsfw_content_detected or [False] * len(prompts)
        refusal = Refusal(f"the safety checker of {self.name} held the picture back as not safe for work")
        pictures = self._pictures(prompts, drawn.images)
        return [refusal if held else picture for held, picture in zip(unsafe, pictures, strict=True)]
