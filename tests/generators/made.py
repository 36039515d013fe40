"""A reduced checkpoint for every generator with weights: name → what `load_generator` needs beside the name.

The checkpoints are `save_pretrained` folders of tiny pipelines of the real classes, the LoRA is in the format of peft.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model

from tests.generators import (
    made_flux,
    made_flux2_klein,
    made_glm_image,
    made_longcat,
    made_qwen_image,
    made_sd1,
    made_sd3,
    made_sdxl,
    made_z_image,
)
from widespectrum._compat import ensure_torchvision

SETTINGS: Mapping[str, Any] = {"dtype": "float32", "width": 64, "height": 64, "steps": 2, "device": "cpu"}

Options = dict[str, Any]


def _plain(make: Callable[[Path], Path], folder: Path) -> Options:
    return {**SETTINGS, "checkpoint": str(make(folder / "pipeline"))}


def _swapped(make: Callable[..., Path], part: str, folder: Path) -> Options:
    """With the network of a second pipeline in the place of the first one's."""
    other = make(folder / "other", seed=1)
    shutil.copytree(other / part, folder / "transformer")
    return {**_plain(make, folder), "transformer": str(folder / "transformer")}


def lora(pipeline: Path, folder: Path, *, seed: int = 0) -> Path:
    """A LoRA of rank 2 for the transformer of a pipeline, as peft saves it."""
    from diffusers import DiffusionPipeline

    ensure_torchvision()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        transformer = DiffusionPipeline.from_pretrained(pipeline, local_files_only=True).transformer
        config = LoraConfig(r=2, lora_alpha=4, target_modules=["to_q", "to_v"], init_lora_weights=False)
        get_peft_model(transformer, config).save_pretrained(folder, save_embedding_layers=False)
    return folder


def _with_lora(make: Callable[[Path], Path], folder: Path) -> Options:
    options = _plain(make, folder)
    return {**options, "lora": str(lora(Path(options["checkpoint"]), folder / "lora"))}


_FLUX, _SD3 = made_flux.checkpoint, made_sd3.checkpoint

MADE: dict[str, Callable[[Path], Options]] = {
    "flux-dev": partial(_plain, _FLUX),
    "flux-krea": partial(_plain, partial(_FLUX, seed=2)),
    "dance-flux": partial(_swapped, _FLUX, "transformer"),
    "pref-flux": partial(_plain, partial(_FLUX, seed=3)),
    "flux-dev-lora": partial(_with_lora, _FLUX),
    "flux-dev-vsf": partial(_plain, _FLUX),
    "flux-dev-nag": partial(_plain, _FLUX),
    "flux-krea-nag": partial(_plain, partial(_FLUX, seed=2)),
    "flux-schnell": partial(_plain, partial(_FLUX, guidance_embeds=False)),
    "sdxl": partial(_plain, made_sdxl.checkpoint),
    "playground-v2.5": partial(_plain, made_sdxl.playground),
    "sd3.5-medium": partial(_plain, _SD3),
    "sd3.5m-geneval": partial(_with_lora, _SD3),
    "sd3.5m-pickscore": partial(_with_lora, partial(_SD3, seed=1)),
    "sd3.5-large": partial(_plain, partial(_SD3, seed=2)),
    "alchemist": partial(_plain, partial(_SD3, seed=3)),
    "qwen-image": partial(_plain, made_qwen_image.checkpoint),
    "flux2-klein-9b": partial(_plain, made_flux2_klein.checkpoint),
    "z-image": partial(_plain, made_z_image.checkpoint),
    "z-image-turbo": partial(_plain, partial(made_z_image.checkpoint, seed=1)),
    "glm-image": partial(_plain, made_glm_image.checkpoint),
    "longcat-image": partial(_plain, made_longcat.checkpoint),
    "sd1.5": partial(_plain, partial(made_sd1.checkpoint, checker=False)),
    "sd1.5-dpo": partial(_swapped, partial(made_sd1.checkpoint, checker=False), "unet"),
    "image-edit": partial(_plain, _FLUX),
}
