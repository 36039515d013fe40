"""A small ImageReward with random weights, in the official container."""

import json
from pathlib import Path
from typing import Any

import torch

from tests.rewards.made_blip import DEPTH, HIDDEN, TEXT_WIDTH, VOCABULARY, Random, towers, write_vocabulary

HEAD = {0: (1024, TEXT_WIDTH), 2: (128, 1024), 4: (64, 128), 6: (16, 64), 7: (1, 16)}


def model(*, grid: int = 14, seed: int = 0) -> dict[str, torch.Tensor]:
    """The tensors of ImageReward.pt."""
    random = Random(seed)
    tokens = len(dict.fromkeys(VOCABULARY)) + 2  # [DEC] and [ENC]
    both = {**towers(random, grid=grid, tokens=tokens), **random.linear("vision_proj", 8, 128)}
    made = {f"blip.{name}": tensor for name, tensor in both.items()}
    for number, (output, size) in HEAD.items():
        made |= random.linear(f"mlp.layers.{number}", output, size)
    return made


def config(tokens: int, *, heads: int = 1) -> dict[str, Any]:
    """med_config.json."""
    return {
        "hidden_act": "gelu",
        "hidden_size": TEXT_WIDTH,
        "intermediate_size": HIDDEN,
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": 64,
        "num_attention_heads": heads,
        "num_hidden_layers": DEPTH,
        "pad_token_id": 0,
        "add_type_embeddings": False,
        "vocab_size": tokens,
        "encoder_width": 768,
        "add_cross_attention": True,
    }


def checkpoint(folder: Path, *, seed: int = 0, grid: int = 14, heads: int = 1) -> dict[str, Any]:
    """ImageReward.pt and med_config.json of a reduced model, and a vocabulary: keywords of `load_reward_model`."""
    state = model(grid=grid, seed=seed)
    torch.save(state, folder / "ImageReward.pt")
    tokens = len(state["blip.text_encoder.embeddings.word_embeddings.weight"])
    (folder / "med_config.json").write_text(json.dumps(config(tokens, heads=heads)))
    return {"checkpoint": folder / "ImageReward.pt", "tokenizer": write_vocabulary(folder / "vocab.txt")}
