"""Stable Diffusion XL and what shares its pipeline: Playground v2.5 differs by weights and the scheduler it ships.

Both are drawn in float16, as their model cards say; the image decoder computes in float32 there, because its
checkpoint asks for it (`force_upcast`).
"""

from __future__ import annotations

from typing import Any

from widespectrum.types import Prompt

from .clip_prompts import ClipPromptGenerator, join, read

__all__ = ["StableDiffusionXL"]


class StableDiffusionXL(ClipPromptGenerator):
    """A checkpoint of the SDXL family; scheduler and image decoder are the checkpoint's own."""

    family = "sdxl"
    pipeline_class = "StableDiffusionXLPipeline"
    tokenizers = ("tokenizer", "tokenizer_2")

    def _components(self) -> dict[str, Any]:
        # Where the package invisible-watermark happens to be installed, diffusers would change every image.
        return {"add_watermarker": False}

    def _embed(self, text: str, count: int) -> tuple[Any, Any]:
        """The penultimate layers of both encoders, (1, 77 * count, channels), and the pooled first piece."""
        import torch

        pipeline = self.pipeline
        parts = ((pipeline.tokenizer, pipeline.text_encoder), (pipeline.tokenizer_2, pipeline.text_encoder_2))
        first, second = (read(*part, text, count, self.device) for part in parts)
        layers = [join([piece.hidden_states[-2] for piece in pieces]) for pieces in (first, second)]
        return torch.cat(layers, dim=-1), second[0].text_embeds

    def _arguments(self, prompts: list[Prompt]) -> dict[str, Any]:
        import torch

        count = self.count_pieces(prompts)
        embeddings, pooled = (
            torch.cat(parts) for parts in zip(*(self._embed(p.text, count) for p in prompts), strict=True)
        )
        if self.pipeline.config.force_zeros_for_empty_prompt:
            negative, negative_pooled = torch.zeros_like(embeddings), torch.zeros_like(pooled)
        else:
            empty, empty_pooled = self._embed("", 1)
            negative, negative_pooled = empty.repeat(len(prompts), count, 1), empty_pooled.repeat(len(prompts), 1)
        return {
            "prompt_embeds": embeddings,
            "pooled_prompt_embeds": pooled,
            "negative_prompt_embeds": negative,
            "negative_pooled_prompt_embeds": negative_pooled,
            "guidance_scale": self.guidance,
        }
