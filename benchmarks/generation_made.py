"""What generation.py draws with: pipelines of full size with random weights, saved as released ones.

Networks, text encoders and image coders have the shapes of the released checkpoints; the tokenizers are the small ones
of the tests, which changes nothing in the time.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from diffusers import (
    AutoencoderKL,
    DiffusionPipeline,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, T5Config, T5EncoderModel

from tests.generators import made_flux, made_sd3, made_sdxl

Part = Callable[[], torch.nn.Module]


class Made(NamedTuple):
    """A generator, its tiny checkpoint, the parts that replace the tiny ones, and the dtype in which it is released."""

    generator: str
    tiny: Callable[[Path], Path]
    parts: dict[str, Part]
    dtype: torch.dtype


def _coder(latent_channels: int, **more: Any) -> Part:
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    return lambda: AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        latent_channels=latent_channels,
        sample_size=1024,
        **blocks,
        **more,
    )


def _clip_l(kind: type[Any] = CLIPTextModel) -> torch.nn.Module:
    size = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
    return kind(CLIPTextConfig(**size, projection_dim=768, bos_token_id=0, eos_token_id=49407))


def _clip_g() -> torch.nn.Module:
    size = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20}
    config = CLIPTextConfig(**size, projection_dim=1280, hidden_act="gelu", bos_token_id=0, eos_token_id=49407)
    return CLIPTextModelWithProjection(config)


def _t5_xxl() -> torch.nn.Module:
    size = {"d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64}
    return T5EncoderModel(T5Config(vocab_size=32128, feed_forward_proj="gated-gelu", **size))


_SIXTEEN = {"use_quant_conv": False, "use_post_quant_conv": False, "shift_factor": 0.1, "scaling_factor": 1.0}

MADE = {
    "flux": Made(
        "flux-dev",
        made_flux.checkpoint,
        {
            "transformer": lambda: FluxTransformer2DModel(guidance_embeds=True),
            "text_encoder": _clip_l,
            "text_encoder_2": _t5_xxl,
            "vae": _coder(16, **_SIXTEEN),
        },
        torch.bfloat16,
    ),
    "sdxl": Made(
        "sdxl",
        made_sdxl.checkpoint,
        {
            "unet": lambda: UNet2DConditionModel(
                sample_size=128,
                block_out_channels=(320, 640, 1280),
                down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
                up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
                transformer_layers_per_block=(1, 2, 10),
                attention_head_dim=(5, 10, 20),
                cross_attention_dim=2048,
                use_linear_projection=True,
                addition_embed_type="text_time",
                addition_time_embed_dim=256,
                projection_class_embeddings_input_dim=2816,
            ),
            "text_encoder": _clip_l,
            "text_encoder_2": _clip_g,
            "vae": _coder(4, force_upcast=True, scaling_factor=0.13025),
        },
        torch.float16,
    ),
    "sd3.5-medium": Made(
        "sd3.5-medium",
        made_sd3.checkpoint,
        {
            "transformer": lambda: SD3Transformer2DModel(
                sample_size=128,
                in_channels=16,
                out_channels=16,
                num_layers=24,
                attention_head_dim=64,
                num_attention_heads=24,
                joint_attention_dim=4096,
                caption_projection_dim=1536,
                pooled_projection_dim=2048,
                pos_embed_max_size=384,
                dual_attention_layers=tuple(range(13)),
                qk_norm="rms_norm",
            ),
            "text_encoder": lambda: _clip_l(CLIPTextModelWithProjection),
            "text_encoder_2": _clip_g,
            "text_encoder_3": _t5_xxl,
            "vae": _coder(16, **_SIXTEEN),
        },
        torch.bfloat16,
    ),
}


def parameters(case: str) -> dict[str, int]:
    """The number of parameters of each part, without making them."""
    with torch.device("meta"):
        return {name: sum(each.numel() for each in make().parameters()) for name, make in MADE[case].parts.items()}


def checkpoint(case: str, folder: Path, *, tiny: bool, device: str) -> Path:
    """The pipeline in `folder`; made there where it is not yet."""
    made = MADE[case]
    if tiny:
        return made.tiny(folder)
    whole = folder / "full"
    if (whole / "model_index.json").is_file():
        return whole
    torch.manual_seed(0)
    pipeline = DiffusionPipeline.from_pretrained(made.tiny(folder / "tiny"))
    default = torch.get_default_dtype()
    torch.set_default_dtype(made.dtype)
    try:
        with torch.device(device):
            parts = {name: make().eval() for name, make in made.parts.items()}
    finally:
        torch.set_default_dtype(default)
    pipeline.register_modules(**parts)
    pipeline.save_pretrained(whole)
    return whole
