"""What every reward model asks of the images and prompts that it is given."""

from __future__ import annotations

from collections.abc import Sequence

from PIL.Image import Image

from widespectrum.errors import InputError

__all__ = ["check_inputs"]


def check_inputs(name: str, images: Sequence[Image], prompts: Sequence[str]) -> None:
    """InputError unless there is at least one image, and one prompt for each."""
    if isinstance(prompts, str) or not (isinstance(images, Sequence) and isinstance(prompts, Sequence)):
        raise InputError(
            f"{name} takes lists, got {type(images).__name__} and {type(prompts).__name__}: "
            'write score([image], ["prompt"])'
        )
    if len(images) != len(prompts):
        raise InputError(
            f"{name} scores images[i] under prompts[i]: got {len(images)} images and {len(prompts)} prompts"
        )
    if not prompts:
        raise InputError(f"{name} was given nothing to score: expected at least one image and one prompt, got none")
    for row, (image, prompt) in enumerate(zip(images, prompts, strict=True)):
        if not isinstance(image, Image):
            raise InputError(f"{name}, row {row}: expected a PIL image, got {type(image).__name__}: open it first")
        if not isinstance(prompt, str):
            raise InputError(f"{name}, row {row}: expected a text as prompt, got {type(prompt).__name__}")
