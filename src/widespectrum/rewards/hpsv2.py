"""HPS v2 and v2.1: ViT-H fine-tuned on human choices (Wu et al. 2023, arXiv 2306.09341)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

from PIL.Image import Image

from widespectrum.errors import InputError

from .base import Prepared
from .checkpoints import Checkpoint, HubFiles
from .clip_reward import ClipReward
from .clip_towers import Activation
from .preprocessing import longest_side
from .tokenization import Style

__all__ = ["HpsV2Reward"]

Version = Literal["v2.0", "v2.1"]

_FILES: dict[Version, str] = {"v2.0": "HPS_v2_compressed.pt", "v2.1": "HPS_v2.1_compressed.pt"}
_NAMES: dict[Version, str] = {"v2.0": "hpsv2", "v2.1": "hpsv2.1"}


class HpsV2Reward(ClipReward):
    """Cosine, -1 to 1, without a scale (the published tables show it times 100); higher is better.

    `version` v2.0 and v2.1 have one architecture and different weights; their scores are not comparable. `checkpoint`
    is the official file ({"state_dict": names of open_clip}) or a folder with it. `antialias` belongs to the resizing
    of the image: True is what the official package does with torchvision 0.17 or later, False what the models were
    trained with and what the tables of the paper were made with. A prompt is cut to 77 tokens.
    """

    style: Style = "hpsv2"
    activation: Activation = "gelu"

    def __init__(
        self,
        *,
        version: Version,
        checkpoint: Path | str | None = None,
        tokenizer: Path | str | None = None,
        device: str = "auto",
        dtype: str = "float32",
        batch_size: int | None = None,
        antialias: bool = True,
    ) -> None:
        if version not in get_args(Version):
            raise InputError(f"HPSv2: expected version v2.0 or v2.1; got {version!r}")
        name, file = _NAMES[version], _FILES[version]
        if not isinstance(antialias, bool):
            raise InputError(f"{name}: antialias must be true or false; got {antialias!r}")
        super().__init__(
            family="hpsv2",
            name=name,
            checkpoint=Checkpoint(
                name,
                checkpoint,
                hub=HubFiles("xswu/HPSv2", (file,)),
                hint=f"give {file} of xswu/HPSv2 as checkpoint",
                weights=(file,),
            ),
            device=device,
            dtype=dtype,
            batch_size=batch_size,
            tokenizer=tokenizer,
            params={"antialias": antialias},
        )
        self.antialias = antialias

    def prepare(self, image: Image) -> Prepared:
        """RGB, float, longest side 224 (bicubic, not clamped), black bars, then CLIP's mean and deviation."""
        return longest_side(image, self.image_size, antialias=self.antialias)
