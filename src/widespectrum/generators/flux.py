"""FLUX.1: flux-dev, flux-krea, flux-schnell and their fine-tunes."""

from __future__ import annotations

from .negatives import NegativeGenerator

__all__ = ["Flux"]


class Flux(NegativeGenerator):
    """A checkpoint for diffusers' FluxPipeline.

    `guidance` is what a guidance-distilled checkpoint takes as an input; flux-schnell has no such input and ignores it.
    T5 reads 512 tokens, 256 with flux-schnell; CLIP gives a summary of the first 77 only.
    """

    family = "flux"
    pipeline_class = "FluxPipeline"
    window = 512
    tokenizer = "tokenizer_2"
