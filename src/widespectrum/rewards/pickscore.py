"""PickScore: ViT-H fine-tuned on the choices of users of Pick-a-Pic (Kirstain et al. 2023, arXiv 2305.01569)."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from PIL.Image import Image

from .base import Prepared
from .checkpoints import Checkpoint, HubFiles
from .clip_reward import ClipReward
from .clip_towers import Activation
from .preprocessing import clip_crop
from .tokenization import Style

__all__ = ["PickScoreReward"]


class PickScoreReward(ClipReward):
    """exp(logit_scale) times the cosine, at most -100 to 100; higher is better.

    The softmax over several images of one prompt gives the probabilities of the paper. `checkpoint` is the folder
    PickScore_v1 (config.json, model.safetensors); a tokenizer in it is used where no `tokenizer` is given. Alpha is
    dropped. A prompt is cut to 77 tokens.
    """

    style: Style = "transformers"
    activation: Activation = "gelu"

    def __init__(
        self,
        *,
        checkpoint: Path | str | None = None,
        tokenizer: Path | str | None = None,
        device: str = "auto",
        dtype: str = "float32",
        batch_size: int | None = None,
    ) -> None:
        super().__init__(
            family="pickscore",
            name="pickscore",
            checkpoint=Checkpoint(
                "pickscore",
                checkpoint,
                hub=HubFiles(
                    "yuvalkirstain/PickScore_v1",
                    ("config.json", "model.safetensors", "tokenizer.json", "vocab.json", "merges.txt"),
                ),
                hint="give the folder PickScore_v1 with config.json and model.safetensors as checkpoint",
                weights=("model.safetensors",),
            ),
            device=device,
            dtype=dtype,
            batch_size=batch_size,
            tokenizer=tokenizer,
        )

    @cached_property
    def scale(self) -> float:  # type: ignore[override]  # a number of the checkpoint
        """exp(logit_scale) of the checkpoint."""
        return float(self.network.scale)

    def prepare(self, image: Image) -> Prepared:
        """RGB, shortest side 224 (bicubic), center crop, CLIP's mean and deviation."""
        return clip_crop(image, self.image_size, rgb_first=True)
