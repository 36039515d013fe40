"""A reduced HPSv2 with seeded random weights, in the official container."""

from pathlib import Path
from typing import Any

import torch

from tests.rewards.made_clip import VOCABULARY, state


def tensors(seed: int = 0) -> dict[str, torch.Tensor]:
    """Names of open_clip; heads of 80 channels in the image tower, as ViT-H has them."""
    return state(seed, width=160, patch=28)


def checkpoint(folder: Path, *, seed: int = 0, file: str = "HPS_v2.1_compressed.pt") -> dict[str, Any]:
    """The file under its official name, in float16, and what loads it."""
    halves = {name: each.half() for name, each in tensors(seed).items()}
    torch.save({"epoch": 1, "name": "x", "state_dict": halves}, folder / file)
    return {"checkpoint": folder / file, "tokenizer": VOCABULARY}
