"""A small CLIP or SigLIP with random weights, in a folder as transformers saves it."""

from pathlib import Path
from typing import Any

from tests.image_text_models import save_model


def checkpoint(folder: Path, *, seed: int = 0, kind: str = "clip") -> dict[str, Any]:
    """What load_reward_model takes beside a name such as `clip:tiny`."""
    return {"checkpoint": save_model(folder / kind, kind, seed)}
