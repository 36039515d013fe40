"""What the generators that start from photographs share: checking a batch, and fitting a photograph to a size."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from widespectrum.errors import InputError
from widespectrum.prompts.images import to_rgb
from widespectrum.types import Parameter, Prompt

__all__ = ["check_size", "fit", "photographs_of"]

SMALLEST_SIZE, LARGEST_SIZE = 16, 8192


def check_size(name: str, size: Parameter) -> None:
    """InputError unless `size` is a whole number from 16 to 8192 pixels."""
    if type(size) is not int or not SMALLEST_SIZE <= size <= LARGEST_SIZE:
        raise InputError(
            f"{name}: size must be a whole number from {SMALLEST_SIZE} to {LARGEST_SIZE} pixels; got {size!r}"
        )


def photographs_of(
    name: str, prompts: Sequence[Prompt], seeds: Sequence[int], images: Sequence[Image.Image] | None
) -> Sequence[Image.Image]:
    """`images`, one per prompt; InputError where there are none or the lengths differ."""
    if images is None:
        raise InputError(
            f"{name} starts from photographs and these prompts have none; use a prompt set with photographs, "
            "or a generator that starts from text"
        )
    if not len(prompts) == len(seeds) == len(images):
        raise InputError(
            f"{name} needs one seed and one photograph per prompt; "
            f"got {len(prompts)} prompts, {len(seeds)} seeds, {len(images)} photographs"
        )
    return images


def fit(photograph: Image.Image, size: int) -> Image.Image:
    """A new RGB image without metadata whose long side is at most `size`; never enlarged."""
    scale = min(1.0, size / max(photograph.size))
    width, height = (max(1, round(side * scale)) for side in photograph.size)
    fitted = to_rgb(photograph).resize((width, height), Image.Resampling.LANCZOS)
    fitted.info = {}
    return fitted
