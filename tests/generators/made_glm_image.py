"""A GLM-Image pipeline with tiny seeded random weights, both its stages and all tokenizers, saved as a released one."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, GlmImagePipeline, GlmImageTransformer2DModel
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    ByT5Tokenizer,
    GlmImageConfig,
    GlmImageForConditionalGeneration,
    GlmImageImageProcessorPil,
    GlmImageProcessor,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)
from transformers.convert_slow_tokenizer import bytes_to_unicode

from tests.generators.made_flux import save

WIDTH = 32
CODES = 16
START, END = "<|image_start|>", "<|image_end|>"
SPECIAL = ("<|endoftext|>", "<|image|>", "<sop>", "<eop>", "<|user|>")
CHAT = (
    "{% for message in messages %}<|user|>{% for part in message['content'] %}"
    "{{ '<|image|>' if part['type'] == 'image' else part['text'] }}{% endfor %}{% endfor %}"
)


def glm_tokenizer() -> PreTrainedTokenizerFast:
    """Codes of the image first, then one token per byte or per two or four letters a."""
    codes = [f"<|code_{number}|>" for number in range(CODES)]
    vocabulary = [*codes, START, END, *bytes_to_unicode().values(), "aa", "aaaa", *SPECIAL]
    merges = [("a", "a"), ("aa", "aa")]
    tokenizer = Tokenizer(models.BPE({piece: number for number, piece in enumerate(vocabulary)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=START,
        eos_token=END,
        pad_token="<|endoftext|>",
        padding_side="left",
        extra_special_tokens={"image_token": "<|image|>", "grid_bos_token": "<sop>", "grid_eos_token": "<eop>"},
    )


def image_writer(tokenizer: PreTrainedTokenizerFast) -> GlmImageForConditionalGeneration:
    """The language model, which samples codes."""
    number = tokenizer.convert_tokens_to_ids
    model = GlmImageForConditionalGeneration(
        GlmImageConfig(
            text_config={
                "vocab_size": len(tokenizer),
                "hidden_size": WIDTH,
                "intermediate_size": WIDTH,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "num_key_value_heads": 2,
                "max_position_embeddings": 4096,
                "vision_vocab_size": CODES,
                "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [4, 2, 2]},
                "pad_token_id": tokenizer.pad_token_id,
                "eos_token_id": number(END),
            },
            vision_config={
                "depth": 1,
                "hidden_size": WIDTH,
                "num_heads": 2,
                "image_size": 32,
                "patch_size": 8,
                "intermediate_size": WIDTH,
            },
            vq_config={"embed_dim": WIDTH, "num_embeddings": CODES, "latent_channels": WIDTH},
            image_token_id=number("<|image|>"),
            image_start_token_id=number(START),
            image_end_token_id=number(END),
        )
    )
    with torch.no_grad():
        for tensor in model.parameters():
            # So that what is written depends on what was read.
            tensor.mul_(20 if tensor.ndim > 1 else 1)
    return model


def checkpoint(folder: Path, *, seed: int = 0) -> Path:
    """A GlmImagePipeline in `folder`."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        tokenizer = glm_tokenizer()
        letters = ByT5Tokenizer()
        pipeline = GlmImagePipeline(
            tokenizer=letters,
            processor=GlmImageProcessor(
                image_processor=GlmImageImageProcessorPil(), tokenizer=tokenizer, chat_template=CHAT
            ),
            text_encoder=T5EncoderModel(
                T5Config(
                    vocab_size=len(letters),
                    d_model=WIDTH,
                    d_kv=16,
                    d_ff=WIDTH,
                    num_layers=2,
                    num_heads=2,
                    pad_token_id=0,
                )
            ),
            vision_language_encoder=image_writer(tokenizer),
            vae=AutoencoderKL(
                block_out_channels=(8, 8, 8, 8),
                down_block_types=("DownEncoderBlock2D",) * 4,
                up_block_types=("UpDecoderBlock2D",) * 4,
                latent_channels=4,
                norm_num_groups=4,
                sample_size=64,
                latents_mean=[0.0] * 4,
                latents_std=[1.0] * 4,
            ),
            transformer=GlmImageTransformer2DModel(
                in_channels=4,
                out_channels=4,
                num_layers=2,
                attention_head_dim=16,
                num_attention_heads=2,
                text_embed_dim=WIDTH,
                time_embed_dim=16,
                condition_dim=8,
                prior_vq_quantizer_codebook_size=CODES,
            ),
            scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        )
    return save(pipeline, folder)
