"""A small Qwen3-VL with random weights in the layout of the official repository, and LoRAs of it."""

import json
from pathlib import Path

import numpy as np
import torch
from tokenizers import pre_tokenizers
from transformers import (
    Qwen2Tokenizer,
    Qwen2VLImageProcessorPil,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

from widespectrum.judges.qwen3vl_files import quiet

SPECIAL = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>"),
    *("<|image_pad|>", "<|video_pad|>"),
)
PLAIN_ADDED = ("<tool_call>", "<think>", "</think>")
"""Tokens that are added to the vocabulary and not special, as Qwen3's tokenizer has them."""

MERGES = [("Ċ", "Ċ"), ("Ġ", "a"), ("t", "h"), ("th", "e"), ("Ġ", "the"), ("i", "n"), ("Ġ", "I"), ("e", "r")]

TEMPLATE = """
{%- macro show(content) -%}
    {%- if content is string -%}
        {{- content -}}
    {%- else -%}
        {%- for part in content -%}
            {%- if part.type == 'image' -%}
                {{- '<|vision_start|><|image_pad|><|vision_end|>' -}}
            {%- else -%}
                {{- part.text -}}
            {%- endif -%}
        {%- endfor -%}
    {%- endif -%}
{%- endmacro -%}
{%- for message in messages -%}
    {{- '<|im_start|>' + message.role + '\\n' + show(message.content) + '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<|im_start|>assistant\\n' -}}
{%- endif -%}
"""

WIDTH, PATCH, MERGE = 32, 16, 2
SIZE = {"shortest_edge": 4 * (PATCH * MERGE) ** 2, "longest_edge": 1 << 24}


def tokenizer() -> Qwen2Tokenizer:
    """One token per byte and the few of `MERGES`."""
    vocab = {letter: number for number, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    for one, two in MERGES:
        vocab[one + two] = len(vocab)
    made = Qwen2Tokenizer(vocab=vocab, merges=MERGES)
    made.add_special_tokens({"additional_special_tokens": list(SPECIAL)}, replace_extra_special_tokens=True)
    made.add_tokens(list(PLAIN_ADDED))
    return made


def config(words: Qwen2Tokenizer) -> Qwen3VLConfig:
    number = words.convert_tokens_to_ids
    return Qwen3VLConfig(
        text_config={
            "vocab_size": len(words) + 5,
            "hidden_size": WIDTH,
            "intermediate_size": 48,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 5e4,
                "mrope_section": [4, 2, 2],
                "mrope_interleaved": True,
            },
            "tie_word_embeddings": True,
        },
        vision_config={
            "depth": 3,
            "hidden_size": 16,
            "num_heads": 2,
            "intermediate_size": 24,
            "out_hidden_size": WIDTH,
            "patch_size": PATCH,
            "num_position_embeddings": 16,
            "deepstack_visual_indexes": [0, 1],
        },
        image_token_id=number("<|image_pad|>"),
        video_token_id=number("<|video_pad|>"),
        vision_start_token_id=number("<|vision_start|>"),
        vision_end_token_id=number("<|vision_end|>"),
        tie_word_embeddings=True,
    )


def checkpoint(folder: Path, *, seed: int = 0) -> Path:
    """The folder, with config, weights, tokenizer, chat template and the image processor's settings."""
    words = tokenizer()
    with torch.random.fork_rng(), quiet():
        torch.manual_seed(seed)
        model = Qwen3VLForConditionalGeneration(config(words))
        for name, each in model.named_parameters():
            # Large enough that what differs in a prompt shows in the answer.
            if "norm" not in name:
                each.data.normal_(std=1.5 * each.shape[-1] ** -0.5 if each.ndim > 1 else 0.2)
        model.model.language_model.embed_tokens.weight.data.normal_(std=0.5)
        model.save_pretrained(folder)
    words.save_pretrained(folder)
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": TEMPLATE}))
    Qwen2VLImageProcessorPil(
        size=SIZE, patch_size=PATCH, merge_size=MERGE, image_mean=[0.5] * 3, image_std=[0.5] * 3
    ).save_pretrained(folder)
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    # As the official file names it.
    settings |= {"image_processor_type": "Qwen2VLImageProcessorFast", "processor_class": "Qwen3VLProcessor"}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder


def lora(folder: Path, base: Path, *, seed: int = 1, rank: int = 4) -> Path:
    """A LoRA of `base` that changes its answers, as peft saves it."""
    from peft import LoraConfig, get_peft_model

    settings = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=["q_proj", "v_proj", "o_proj"])
    with torch.random.fork_rng(), quiet():
        torch.manual_seed(seed)
        made = get_peft_model(Qwen3VLForConditionalGeneration.from_pretrained(base), settings)
        for name, each in made.named_parameters():
            if "lora_" in name:
                each.data.normal_(std=0.3)
        made.save_pretrained(folder)
    return folder


def always(judge, **shares: float) -> None:
    """Let the loaded model of a judge give these tokens these probabilities, whatever it is shown; the rest is even."""
    network = judge.model.network
    old = network.lm_head
    network.lm_head = torch.nn.Linear(old.in_features, old.out_features, bias=True).requires_grad_(False)
    rest = (1 - sum(shares.values())) / (old.out_features - len(shares))
    network.lm_head.weight.zero_()
    network.lm_head.bias.fill_(np.log(rest))
    for word, share in shares.items():
        network.lm_head.bias[judge.model.token_ids([word.strip("_")])[0]] = np.log(share)
