"""A Stable Diffusion 3.5 pipeline with tiny seeded random weights, saved as a released one."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
from transformers import CLIPTextModelWithProjection

from tests.generators.made_flux import WIDTH, clip_config, clip_tokenizer, image_coder, save, t5_encoder, t5_tokenizer


def checkpoint(folder: Path, *, seed: int = 0) -> Path:
    """A StableDiffusion3Pipeline in `folder`, its first layer with two attentions as in SD3.5-medium."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        clip, t5 = clip_tokenizer(), t5_tokenizer()
        pipeline = StableDiffusion3Pipeline(
            transformer=SD3Transformer2DModel(
                sample_size=8,
                in_channels=4,
                out_channels=4,
                num_layers=3,
                attention_head_dim=16,
                num_attention_heads=2,
                joint_attention_dim=2 * WIDTH,
                caption_projection_dim=WIDTH,
                pooled_projection_dim=2 * WIDTH,
                pos_embed_max_size=16,
                dual_attention_layers=(0,),
                qk_norm="rms_norm",
            ),
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
            vae=image_coder(),
            text_encoder=CLIPTextModelWithProjection(clip_config(clip)),
            tokenizer=clip,
            text_encoder_2=CLIPTextModelWithProjection(clip_config(clip)),
            tokenizer_2=clip_tokenizer(),
            text_encoder_3=t5_encoder(t5, 2 * WIDTH),
            tokenizer_3=t5,
        )
    return save(pipeline, folder)
