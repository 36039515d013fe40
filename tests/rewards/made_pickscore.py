"""A reduced PickScore with seeded random weights, in the official container: a folder of transformers."""

from pathlib import Path
from typing import Any

import torch

from tests.rewards.made_clip import VOCABULARY, save_folder, state


def tensors(seed: int = 0) -> dict[str, torch.Tensor]:
    """OpenAI's names; heads of 80 channels in the image tower, as ViT-H has them."""
    return state(seed, width=160, patch=28)


def checkpoint(folder: Path, *, seed: int = 0) -> dict[str, Any]:
    """The folder, and what loads it."""
    save_folder(tensors(seed), folder / "PickScore_v1", activation="gelu", head=80)
    return {"checkpoint": folder / "PickScore_v1", "tokenizer": VOCABULARY}
