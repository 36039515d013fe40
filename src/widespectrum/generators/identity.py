"""The generator that ignores its prompt: what a benchmark must put at the floor."""

from __future__ import annotations

from collections.abc import Sequence

from PIL.Image import Image

from widespectrum.protocols import Refusal
from widespectrum.types import ModelSpec, Prompt

from .photographs import check_size, fit, photographs_of

__all__ = ["Identity"]


class Identity:
    """Gives back the photograph under both prompts, its long side at most `size` pixels."""

    needs_images = True

    def __init__(self, *, size: int = 256) -> None:
        check_size("identity", size)
        self._size = size
        self.spec = ModelSpec(adapter="identity", name="identity", revision="v1", params={"size": size})

    def generate(
        self, prompts: Sequence[Prompt], *, seeds: Sequence[int], images: Sequence[Image] | None = None
    ) -> list[Image | Refusal]:
        """The photographs in `images`, one per prompt."""
        return [fit(photograph, self._size) for photograph in photographs_of("identity", prompts, seeds, images)]
