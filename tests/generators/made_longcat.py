"""A LongCat-Image pipeline with tiny seeded random weights, saved as a released one."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    LongCatImagePipeline,
    LongCatImageTransformer2DModel,
)

from tests.generators.made_flux import save
from tests.generators.made_flux2_klein import WIDTH, qwen_tokenizer
from tests.generators.made_qwen_image import qwen2_vl


def checkpoint(folder: Path, *, seed: int = 0) -> Path:
    """A LongCatImagePipeline in `folder`; its `text_processor`, which takes torchvision, is but a tokenizer."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        pipeline = LongCatImagePipeline(
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
            vae=AutoencoderKL(
                block_out_channels=(8, 8, 8, 8),
                down_block_types=("DownEncoderBlock2D",) * 4,
                up_block_types=("UpDecoderBlock2D",) * 4,
                latent_channels=16,
                norm_num_groups=4,
                use_quant_conv=False,
                use_post_quant_conv=False,
                shift_factor=0.06,
                scaling_factor=1.5,
                sample_size=64,
            ),
            text_encoder=qwen2_vl(),
            tokenizer=qwen_tokenizer(),
            text_processor=None,
            transformer=LongCatImageTransformer2DModel(
                in_channels=64,
                num_layers=1,
                num_single_layers=2,
                attention_head_dim=16,
                num_attention_heads=2,
                joint_attention_dim=WIDTH,
                pooled_projection_dim=WIDTH,
                axes_dims_rope=[4, 6, 6],
            ),
        )
    save(pipeline, folder)
    qwen_tokenizer().save_pretrained(folder / "text_processor")
    index = folder / "model_index.json"
    names = {**json.loads(index.read_text()), "text_processor": ["transformers", "Qwen2VLProcessor"]}
    index.write_text(json.dumps(names, indent=2))
    return folder
