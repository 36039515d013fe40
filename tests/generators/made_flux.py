"""A Flux pipeline with tiny seeded random weights, saved as a released one; its parts serve SD3 as well."""

from __future__ import annotations

import string
from itertools import product
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, T5Config, T5EncoderModel, T5Tokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

WIDTH = 32


def clip_tokenizer() -> CLIPTokenizer:
    """CLIP's, reading bytes and pairs of letters."""
    single = list(bytes_to_unicode().values())
    pairs = ["".join(pair) for pair in product(string.ascii_lowercase, repeat=2)]
    ends = [f"{piece}</w>" for piece in single + pairs]
    vocabulary = [*single, *pairs, *ends, "<|startoftext|>", "<|endoftext|>"]
    merges = [(pair[0], f"{pair[1]}{end}") for end in ("", "</w>") for pair in pairs]
    return CLIPTokenizer(
        vocab={piece: number for number, piece in enumerate(vocabulary)}, merges=merges, model_max_length=77
    )


def t5_tokenizer(limit: int = 512) -> T5Tokenizer:
    """T5's, reading printable characters and pairs of letters, so that a prompt of 600 letters fits into 512."""
    pairs = ["".join(pair) for pair in product(["▁", *string.ascii_lowercase], string.ascii_letters)]
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((pair, -1.0) for pair in pairs), ("▁", -2.0)]
    pieces += [(character, -2.0) for character in string.printable if not character.isspace()]
    return T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=limit)


def clip_config(tokenizer: CLIPTokenizer) -> CLIPTextConfig:
    """Two layers."""
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=WIDTH,
        projection_dim=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def t5_encoder(tokenizer: T5Tokenizer, width: int = WIDTH) -> T5EncoderModel:
    """Two layers."""
    size = {"d_model": width, "d_kv": 16, "d_ff": WIDTH, "num_layers": 2, "num_heads": 2}
    return T5EncoderModel(T5Config(vocab_size=len(tokenizer), pad_token_id=0, eos_token_id=1, **size))


def image_coder() -> AutoencoderKL:
    """Eight pixels to a side of one position of four channels, as Flux and SD3 code images but for the channels."""
    return AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        norm_num_groups=4,
        use_quant_conv=False,
        use_post_quant_conv=False,
        shift_factor=0.06,
        scaling_factor=1.5,
        sample_size=64,
    )


def save(pipeline: Any, folder: Path) -> Path:
    """The pipeline by `save_pretrained`, its random weights made strong enough that every input shows in the image."""
    with torch.no_grad():
        for name, tensor in pipeline.transformer.named_parameters():
            if tensor.ndim > 1 and "pos_embed" not in name:
                tensor.mul_(3)
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval()
    pipeline.save_pretrained(folder)
    return folder


def checkpoint(folder: Path, *, seed: int = 0, guidance_embeds: bool = True) -> Path:
    """A FluxPipeline in `folder`; without `guidance_embeds` as FLUX.1-schnell's, which reads 256 tokens."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        clip, t5 = clip_tokenizer(), t5_tokenizer(512 if guidance_embeds else 256)
        pipeline = FluxPipeline(
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=guidance_embeds),
            vae=image_coder(),
            text_encoder=CLIPTextModel(clip_config(clip)),
            tokenizer=clip,
            text_encoder_2=t5_encoder(t5),
            tokenizer_2=t5,
            transformer=FluxTransformer2DModel(
                in_channels=16,
                num_layers=2,
                num_single_layers=2,
                attention_head_dim=16,
                num_attention_heads=2,
                joint_attention_dim=WIDTH,
                pooled_projection_dim=WIDTH,
                guidance_embeds=guidance_embeds,
                axes_dims_rope=(4, 6, 6),
            ),
        )
    return save(pipeline, folder)
