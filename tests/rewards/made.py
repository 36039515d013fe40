"""A reduced checkpoint of every reward model with weights: seeded random numbers in the official container."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tests.rewards import (
    made_blip,
    made_clip,
    made_hpsv2,
    made_hpsv3,
    made_imagereward,
    made_laion,
    made_mps,
    made_pickscore,
)

__all__ = ["MADE"]

MADE: dict[str, Callable[[Path], dict[str, Any]]] = {
    "hps": made_clip.hps_checkpoint,
    "hpsv2": partial(made_hpsv2.checkpoint, file="HPS_v2_compressed.pt"),
    "hpsv2.1": made_hpsv2.checkpoint,
    "hpsv3": made_hpsv3.checkpoint,
    "pickscore": made_pickscore.checkpoint,
    "imagereward": made_imagereward.checkpoint,
    "mps": made_mps.checkpoint,
    "clip-l": made_clip.checkpoint,
    "blip-l": made_blip.checkpoint,
    "laion-aesthetic": made_laion.checkpoint,
}
"""Name → what load_reward_model takes to load what was written into a folder."""
