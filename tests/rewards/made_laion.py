"""A reduced LAION aesthetic predictor with seeded random weights, in the official container."""

from pathlib import Path
from typing import Any

import torch

from tests.rewards import made_clip

LINEAR, RELU = (0, 2, 4, 6, 7), (0, 3, 6, 9, 11)
SIZES = (64, 48, 32, 16, 8, 1)


def head(seed: int = 0, places: tuple[int, ...] = LINEAR) -> dict[str, torch.Tensor]:
    """The tensors of a head on features of 64 numbers."""
    source, made = torch.Generator().manual_seed(seed), {}
    for place, start, end in zip(places, SIZES, SIZES[1:], strict=False):
        made[f"layers.{place}.weight"] = torch.randn(end, start, generator=source) * 2 * start**-0.5
        made[f"layers.{place}.bias"] = torch.randn(end, generator=source)
    return made


def checkpoint(folder: Path, *, seed: int = 0) -> dict[str, Any]:
    """The head and CLIP, and what loads them."""
    path = folder / "sac+logos+ava1-l14-linearMSE.pth"
    torch.save(head(seed), path)
    return {"checkpoint": path, "clip": made_clip.checkpoint(folder, seed=seed)["checkpoint"]}
