"""Pipelines of the SDXL family with tiny seeded random weights, saved as SDXL and Playground v2.5 are released."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    EDMDPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from tests.generators.made_flux import clip_tokenizer

WIDTH = 16
POOLED = 24
OF_PLAYGROUND = {
    "scaling_factor": 0.5,
    "latents_mean": [-1.6574, 1.886, -1.383, 2.5155],
    "latents_std": [8.4927, 5.9022, 6.5498, 5.2299],
}


def second_tokenizer() -> CLIPTokenizer:
    """That of the second encoder, which pads with an exclamation mark where the first one pads with its end."""
    tokenizer = clip_tokenizer()
    tokenizer.pad_token = "!"
    return tokenizer


def text_config(tokenizer: CLIPTokenizer, **given: Any) -> CLIPTextConfig:
    """Three layers, so that the penultimate one is neither the first nor the last."""
    size = {"hidden_size": WIDTH, "intermediate_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2}
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    return CLIPTextConfig(**{**size, **ends, "vocab_size": len(tokenizer), "projection_dim": POOLED, **given})


def image_coder(**given: Any) -> AutoencoderKL:
    """Eight pixels to a side of one position of four channels; it overflows in float16, as it says."""
    return AutoencoderKL(
        block_out_channels=(4, 4, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        norm_num_groups=2,
        sample_size=64,
        **given,
    )


def drawing_net(**given: Any) -> UNet2DConditionModel:
    """A UNet of two levels, the second of which reads the prompt."""
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(2, 4),
        norm_num_groups=4,
        **given,
    )


def save(pipeline: Any, folder: Path) -> Path:
    """The pipeline by `save_pretrained`, its attention to the prompt made strong enough to show in 8 bits."""
    with torch.no_grad():
        for name, tensor in pipeline.unet.named_parameters():
            if "attn2" in name and name.endswith("weight"):
                tensor.mul_(8)
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval()
    pipeline.save_pretrained(folder)
    return folder


def _pipeline(seed: int, scheduler: Any, zeros: bool = True, **vae: Any) -> StableDiffusionXLPipeline:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        first, second = clip_tokenizer(), second_tokenizer()
        return StableDiffusionXLPipeline(
            vae=image_coder(force_upcast=True, **vae),
            text_encoder=CLIPTextModel(text_config(first)),
            text_encoder_2=CLIPTextModelWithProjection(text_config(second, hidden_size=2 * WIDTH, hidden_act="gelu")),
            tokenizer=first,
            tokenizer_2=second,
            unet=drawing_net(
                cross_attention_dim=3 * WIDTH,
                use_linear_projection=True,
                transformer_layers_per_block=(1, 2),
                addition_embed_type="text_time",
                addition_time_embed_dim=8,
                projection_class_embeddings_input_dim=6 * 8 + POOLED,
            ),
            scheduler=scheduler,
            force_zeros_for_empty_prompt=zeros,
            add_watermarker=False,
        )


def checkpoint(folder: Path, *, seed: int = 0, zeros: bool = True) -> Path:
    """SDXL in `folder`; without `zeros` it guides away from the empty prompt."""
    euler = EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1, timestep_spacing="leading"
    )
    return save(_pipeline(seed, euler, zeros, scaling_factor=0.13025), folder)


def playground(folder: Path, *, seed: int = 0) -> Path:
    """Playground v2.5 in `folder`: the same class with a scheduler and an image coder of its own."""
    return save(_pipeline(seed, EDMDPMSolverMultistepScheduler(), **OF_PLAYGROUND), folder)
