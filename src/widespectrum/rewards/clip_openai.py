"""OpenAI's CLIP ViT-L/14 and what others made of it with the same architecture, images and tokens: HPS v1.

Radford et al. 2021, arXiv 2103.00020; Wu et al. 2023, "Human Preference Score", arXiv 2303.14420.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args
from weakref import WeakValueDictionary

from PIL.Image import Image

from widespectrum.errors import InputError
from widespectrum.types import canonical_json

from .base import Prepared
from .checkpoints import Checkpoint, HubFiles
from .clip_reward import ClipReward, load_towers
from .clip_towers import Activation, Towers
from .preprocessing import clip_crop
from .tokenization import Style

__all__ = ["ClipOpenAIReward", "OpenAIClip", "clip_checkpoint"]

Model = Literal["clip-l", "hps"]

_TOWERS: WeakValueDictionary[tuple[str, int, str, str, bool], Towers] = WeakValueDictionary()
"""Networks in use, by file, time of its last change, dtype and device."""


def clip_checkpoint(name: str, path: Path | str | None) -> Checkpoint:
    """OpenAI's ViT-L/14 for the model `name`, at `path` or on the Hub."""
    return Checkpoint(
        name,
        path,
        hub=HubFiles(
            "openai/clip-vit-large-patch14",
            ("model.safetensors", "config.json", "tokenizer.json", "vocab.json", "merges.txt"),
        ),
        hint="give OpenAI's ViT-L-14.pt, its state dict, or a folder of transformers",
        weights=("ViT-L-14.pt", "model.safetensors"),
    )


class OpenAIClip(ClipReward):
    """The images, tokens and network of OpenAI's CLIP. Reward models with one checkpoint, dtype and device share it."""

    style: Style = "openai"
    activation: Activation = "quick_gelu"
    halved: bool = True
    """Whether weights under OpenAI's names are rounded to float16, as OpenAI's loader does on a CPU, too."""

    @property
    def image_key(self) -> str:  # type: ignore[override]  # known once the checkpoint has been hashed
        """One for all reward models that share the network."""
        return f"openai-clip {canonical_json(dict(self.container.pin))} {self.dtype} {self.device} {self.halved}"

    def prepare(self, image: Image) -> Prepared:
        """Shortest side 224 (bicubic) and center crop in the mode of the image, then RGB, CLIP's mean and deviation."""
        return clip_crop(image, self.image_size, rgb_first=False)

    def _towers(self) -> Towers:
        path = self.container.path
        key = (str(path.resolve()), path.stat().st_mtime_ns, self.dtype, self.device, self.halved)
        towers = _TOWERS.get(key)
        if towers is None:
            towers = load_towers(
                self.container,
                dtype=self.torch_dtype,
                device=self.device,
                activation=self.activation,
                halved=self.halved,
            )
            _TOWERS[key] = towers
        return towers


class ClipOpenAIReward(OpenAIClip):
    """Cosine, -1 to 1, without a scale; higher is better. `model` is clip-l (CLIP ViT-L/14) or hps (HPS v1).

    `checkpoint` of clip-l: OpenAI's TorchScript archive ViT-L-14.pt, its state dict, or a folder of transformers; of
    hps: hpc.pt ({"state_dict": OpenAI's names}). A prompt is cut to 77 tokens.
    """

    def __init__(
        self,
        *,
        model: Model,
        checkpoint: Path | str | None = None,
        tokenizer: Path | str | None = None,
        device: str = "auto",
        dtype: str = "float32",
        batch_size: int | None = None,
    ) -> None:
        if model not in get_args(Model):
            raise InputError(f"CLIP: expected the model clip-l or hps; got {model!r}")
        super().__init__(
            family="openai-clip",
            name=model,
            checkpoint=clip_checkpoint(model, checkpoint) if model == "clip-l" else _hps_checkpoint(checkpoint),
            device=device,
            dtype=dtype,
            batch_size=batch_size,
            tokenizer=tokenizer,
        )
        # HPS v1 is loaded over the network that OpenAI's loader has made, number by number.
        self.halved = model == "clip-l"


def _hps_checkpoint(path: Path | str | None) -> Checkpoint:
    return Checkpoint(
        "hps",
        path,
        hub=None,
        hint="HPS v1 is on no Hub of its authors: download hpc.pt by the link in the README of "
        "github.com/tgxs002/align_sd and pass its path as checkpoint",
        weights=("hpc.pt", "hpc.pth"),
    )
