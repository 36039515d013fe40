"""What every reward model asks of the images and prompts that it is given."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from PIL.Image import Image

from widespectrum.errors import InputError
from widespectrum.protocols import Features

__all__ = ["check_images", "check_inputs", "check_prompts", "check_rows"]


def check_inputs(name: str, images: Iterable[Image], prompts: Iterable[str]) -> tuple[list[Image], list[str]]:
    """Both as lists; InputError unless there is at least one image, and one prompt for each."""
    all_images, all_prompts = _listed(name, images, "images"), _listed(name, prompts, "prompts")
    if len(all_images) != len(all_prompts):
        raise InputError(
            f"{name} scores images[i] under prompts[i]: got {len(all_images)} images and {len(all_prompts)} prompts"
        )
    return check_images(name, all_images), check_prompts(name, all_prompts)


def check_images(name: str, images: Iterable[Image]) -> list[Image]:
    """The images as a list; InputError for none, and for what is no image."""
    found = _listed(name, images, "images")
    if not found:
        raise InputError(f"{name} was given nothing to score: expected at least one image and one prompt, got none")
    for row, image in enumerate(found):
        if not isinstance(image, Image):
            raise InputError(f"{name}, row {row}: expected a PIL image, got {type(image).__name__}: open it first")
    return found


def check_prompts(name: str, prompts: Iterable[str]) -> list[str]:
    """The prompts as a list; InputError for none, and for what is no text."""
    found = _listed(name, prompts, "prompts")
    if not found:
        raise InputError(f"{name} was given no prompts: expected a list of at least one text")
    for row, prompt in enumerate(found):
        if not isinstance(prompt, str):
            raise InputError(f"{name}, row {row}: expected a text as prompt, got {type(prompt).__name__}")
    return found


def check_rows(name: str, image_features: Features, text_features: Features) -> None:
    """InputError unless there are as many images as texts."""
    if len(image_features) != len(text_features):
        raise InputError(
            f"{name} combines row i with row i: got the features of {len(image_features)} images and "
            f"{len(text_features)} texts"
        )


def _listed(name: str, values: Iterable[Any], what: str) -> list[Any]:
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise InputError(
            f'{name} takes a list of {what}, got {type(values).__name__}: write score([image], ["prompt"])'
        )
    return list(values)
