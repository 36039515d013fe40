"""Training of the dimension judge J: a LoRA of Qwen3-VL on annotated images, validated dimension by dimension."""

from __future__ import annotations

from .data import dimensions_of
from .folder import last_checkpoint
from .plan import BASE, Options
from .run import train_judge

__all__ = ["BASE", "Options", "dimensions_of", "last_checkpoint", "train_judge"]
