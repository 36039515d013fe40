"""A FLUX.2 Klein pipeline with tiny seeded random weights; its tokenizer serves all families that read with Qwen."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKLFlux2, FlowMatchEulerDiscreteScheduler, Flux2KleinPipeline, Flux2Transformer2DModel
from transformers import Qwen2Tokenizer, Qwen3Config, Qwen3ForCausalLM
from transformers.convert_slow_tokenizer import bytes_to_unicode

from tests.generators.made_flux import save

WIDTH = 16
SPECIAL = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>"),
    *("<|image_pad|>", "<|video_pad|>", "<think>", "</think>"),
)
CHAT = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)


def qwen_tokenizer() -> Qwen2Tokenizer:
    """One token per byte or per two or four letters a, with the chat of Qwen3."""
    vocabulary = [*bytes_to_unicode().values(), "aa", "aaaa", *SPECIAL]
    tokenizer = Qwen2Tokenizer(
        vocab={piece: number for number, piece in enumerate(vocabulary)},
        merges=[("a", "a"), ("aa", "aa")],
        additional_special_tokens=list(SPECIAL[1:]),
        model_max_length=131072,
    )
    tokenizer.chat_template = CHAT
    return tokenizer


def qwen3(layers: int) -> Qwen3ForCausalLM:
    """A language model that reads the tokens of `qwen_tokenizer`."""
    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(qwen_tokenizer()),
            hidden_size=WIDTH,
            intermediate_size=WIDTH,
            num_hidden_layers=layers,
            num_attention_heads=2,
            num_key_value_heads=2,
            head_dim=8,
            bos_token_id=258,
            eos_token_id=260,
        )
    )


def checkpoint(folder: Path, *, seed: int = 0, is_distilled: bool = True, layers: int = 28) -> Path:
    """A Flux2KleinPipeline in `folder`."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        pipeline = Flux2KleinPipeline(
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
            vae=AutoencoderKLFlux2(
                block_out_channels=(8, 8, 8, 8),
                layers_per_block=1,
                latent_channels=4,
                norm_num_groups=4,
                sample_size=64,
            ),
            text_encoder=qwen3(layers),
            tokenizer=qwen_tokenizer(),
            transformer=Flux2Transformer2DModel(
                in_channels=16,
                num_layers=1,
                num_single_layers=2,
                attention_head_dim=16,
                num_attention_heads=2,
                joint_attention_dim=3 * WIDTH,
                timestep_guidance_channels=16,
                axes_dims_rope=(4, 4, 4, 4),
                guidance_embeds=False,
            ),
            is_distilled=is_distilled,
        )
    return save(pipeline, folder)
