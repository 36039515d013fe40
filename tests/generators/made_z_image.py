"""A Z-Image pipeline with tiny seeded random weights, saved as a released one."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, ZImagePipeline, ZImageTransformer2DModel

from tests.generators.made_flux import image_coder, save
from tests.generators.made_flux2_klein import WIDTH, qwen3, qwen_tokenizer


def checkpoint(folder: Path, *, seed: int = 0) -> Path:
    """A ZImagePipeline in `folder`; Turbo's parts are the same."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        pipeline = ZImagePipeline(
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
            vae=image_coder(),
            text_encoder=qwen3(2),
            tokenizer=qwen_tokenizer(),
            transformer=ZImageTransformer2DModel(
                in_channels=4,
                dim=32,
                n_layers=2,
                n_refiner_layers=1,
                n_heads=2,
                n_kv_heads=2,
                cap_feat_dim=WIDTH,
                axes_dims=[8, 4, 4],
                axes_lens=[1024, 64, 64],
            ),
        )
    return save(pipeline, folder)
