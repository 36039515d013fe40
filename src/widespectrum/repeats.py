"""Images that are there more than once where they should differ: found by their hashes."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pandas as pd

from . import store
from .types import ModelSpec

__all__ = ["repeated_images"]

_FROM_PHOTOGRAPHS = ("identity", "photo-effects", "image-edit")
"""Adapters whose images may be equal as their inputs are."""


def repeated_images(run: Path, specs: dict[str, str]) -> list[str]:
    """One sentence for each generator that made the images of another, or one image for several prompts.

    Looked at are the images of wide-spectrum prompts, as some generators share their originals on purpose. `specs`
    are the specs of the generators by label.
    """
    images = store.read(run, "images", ("image_id", "prompt_id", "generator", "seed", "status")).to_pandas()
    prompts = store.read(run, "prompts", ("prompt_id", "role")).to_pandas()
    wide = prompts.loc[prompts["role"] == "wide_spectrum", "prompt_id"]
    images = images[(images["status"] == "ok") & images["prompt_id"].isin(wide)]
    labels = [label for label, text in specs.items() if ModelSpec.parse(text).adapter not in _FROM_PHOTOGRAPHS]
    by_label = {label: images[images["generator"] == label] for label in labels}
    return [*_of_another(by_label), *_of_several_prompts(by_label)]


def _of_another(by_label: dict[str, pd.DataFrame]) -> list[str]:
    found = []
    for one, other in combinations(by_label, 2):
        both = by_label[one].merge(by_label[other], on=["prompt_id", "seed"])
        same = int((both["image_id_x"] == both["image_id_y"]).sum())
        if same:
            found.append(
                f"{same:,} of {len(both):,} wide-spectrum images by {other} are the same, byte for byte, as those by "
                f"{one}: see whether two names stand for one model."
            )
    return found


def _of_several_prompts(by_label: dict[str, pd.DataFrame]) -> list[str]:
    found = []
    for label, images in by_label.items():
        repeated = int(images.duplicated("image_id", keep=False).sum())
        if repeated:
            found.append(
                f"{repeated:,} of {len(images):,} wide-spectrum images by {label} are there for more than one prompt "
                "or seed, byte for byte: see whether a block of them was made twice."
            )
    return found
