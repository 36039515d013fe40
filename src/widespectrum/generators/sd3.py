"""Stable Diffusion 3 and 3.5, and their fine-tunes."""

from __future__ import annotations

from typing import Any

from widespectrum.errors import InputError

from .layout import INDEX, components, read_json
from .negatives import NegativeGenerator

__all__ = ["StableDiffusion3"]

_T5 = {"text_encoder_3", "tokenizer_3"}


class StableDiffusion3(NegativeGenerator):
    """A checkpoint for diffusers' StableDiffusion3Pipeline.

    A `guidance` above 1 is classifier-free guidance against the empty prompt. T5 reads 256 tokens, both CLIPs 77.
    """

    family = "sd3"
    pipeline_class = "StableDiffusion3Pipeline"
    window = 256
    tokenizer = "tokenizer_3"
    two_passes = True

    def _components(self) -> dict[str, Any]:
        index = read_json(self.source.path / INDEX)
        if index.get("_class_name") == self.pipeline_class and not components(self.source.path).keys() >= _T5:
            raise InputError(
                f"{self.name}: {self.source.path} has no T5 (text_encoder_3 and tokenizer_3), which reads the prompt "
                f"to {self.window} tokens: give a checkpoint with it"
            )
        return {}

    def _prepare(self, pipeline: Any) -> None:
        config = pipeline.transformer.config
        largest = config.pos_embed_max_size * config.patch_size * pipeline.vae_scale_factor
        if max(self.width, self.height) > largest:
            raise InputError(
                f"{self.name} draws up to {largest} x {largest} pixels; got {self.width} x {self.height}: "
                "give a smaller width and height"
            )
