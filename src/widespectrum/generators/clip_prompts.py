"""Prompts of any length for pipelines that read them by CLIP alone: nothing is cut off at its 77 tokens.

The tokens of a prompt are read in pieces of 75, each framed and padded as the pipeline's tokenizer frames and pads a
prompt of its own; the embeddings of the pieces follow one another. A prompt of one piece has the embeddings that
diffusers gives it, bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

from widespectrum.types import Prompt

from .diffusion import DiffusionGenerator

__all__ = ["PIECE", "PIECES", "ClipPromptGenerator", "join", "read"]

PIECE = 75
"""Tokens of a prompt that CLIP reads at once, between start and end."""
PIECES = 10
"""The most pieces of a prompt."""


def _ids(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, verbose=False).input_ids
    return ids


def _pieces(tokenizer: Any, text: str, count: int) -> list[list[int]]:
    """The ids of `text` in `count` framed and padded pieces; those that it does not fill are empty prompts."""
    start, *tokens, end = _ids(tokenizer, text)
    pieces = [tokens[first : first + PIECE] for first in range(0, count * PIECE, PIECE)]
    return [[start, *piece, end, *[tokenizer.pad_token_id] * (PIECE - len(piece))] for piece in pieces]


def read(tokenizer: Any, encoder: Any, text: str, count: int, device: Any) -> list[Any]:
    """What the text encoder gives for every one of the `count` pieces of `text`, with all hidden states.

    Every piece is read alone, so that its embedding does not depend on what else is drawn.
    """
    import torch

    with torch.no_grad():
        return [
            encoder(torch.tensor([piece], device=device), output_hidden_states=True)
            for piece in _pieces(tokenizer, text, count)
        ]


def join(embeddings: Sequence[Any]) -> Any:
    """The embeddings (1, 77, channels) of the pieces of one prompt as (1, 77 * pieces, channels)."""
    import torch

    return torch.cat(list(embeddings), dim=1)


class ClipPromptGenerator(DiffusionGenerator):
    """A family with a UNet that reads prompts by CLIP. Only prompts of as many pieces are drawn together."""

    multiple = 8
    window = PIECES * PIECE + 2
    long_prompts = f"CLIP in pieces of {PIECE} tokens"
    backbone = "unet"
    tokenizers: ClassVar[tuple[str, ...]]
    """The tokenizers of the pipeline."""

    def count_tokens(self, prompts: Sequence[str]) -> list[int]:
        """Tokens of every prompt, start and end included, by the tokenizer that makes the most of it."""
        tokenizers = [getattr(self.pipeline, name) for name in self.tokenizers]
        return [max(len(_ids(tokenizer, text)) for tokenizer in tokenizers) for text in prompts]

    def count_pieces(self, prompts: Sequence[Prompt]) -> int:
        """Pieces of the longest of `prompts`."""
        return max(1, math.ceil((max(self.count_tokens([prompt.text for prompt in prompts])) - 2) / PIECE))

    def batch_key(self, prompt: Prompt) -> tuple[int, ...]:
        """Pieces first: prompts of unequal number are never drawn together."""
        return (self.count_pieces([prompt]), *self.count_tokens([prompt.text]))
