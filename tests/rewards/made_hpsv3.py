"""A small HPSv3 with random weights in the official file, a base folder, and an instruction of its own.

The official instruction is not a part of this repository: wrap what loads the model in `own_instruction()`.
"""

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from safetensors.torch import save_file

INSTRUCTION = "\nRate what you see; 10 is best.  \n- Clarity: is it clear?\nTextual prompt - {text_prompt}\n\n\n"
ROWS = 151658
WIDTH, HEADS, GROUPS, DEPTH, INNER = 64, 4, 2, 2, 96
PICTURE_WIDTH, PICTURE_HEADS, PICTURE_DEPTH = 32, 2, 2
CONFIG = {
    "model_type": "qwen2_vl",
    "hidden_size": WIDTH,
    "intermediate_size": INNER,
    "num_hidden_layers": DEPTH,
    "num_attention_heads": HEADS,
    "num_key_value_heads": GROUPS,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "rope_theta": 5e5,
    "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]},
    "vocab_size": 152064,
    "image_token_id": 151655,
    "vision_config": {
        "model_type": "qwen2_vl",
        "depth": PICTURE_DEPTH,
        "embed_dim": PICTURE_WIDTH,
        "hidden_size": WIDTH,
        "num_heads": PICTURE_HEADS,
    },
}
"""As transformers 4.45 writes it: the vocabulary is the larger one of the base model; two constants are no defaults."""

RANKS = [bytes([byte]) for byte in range(256)]
RANKS += [b" -", b"\n\n", b"\n\n\n\n", b" a", b"do", b"dog", b" do", b" dog", b"pt", b"mpt", b": ", b"- "]


def checkpoint(folder: Path, *, seed: int = 0) -> dict[str, Any]:
    """HPSv3.safetensors in a folder, the base model's files in another, and what loads them."""
    base = folder / "base"
    base.mkdir(parents=True, exist_ok=True)
    save_file(tensors(seed), folder / "HPSv3.safetensors")
    (base / "config.json").write_text(json.dumps(CONFIG))
    lines = (b"%s %d\n" % (base64.b64encode(token), rank) for rank, token in enumerate(RANKS))
    (base / "qwen.tiktoken").write_bytes(b"".join(lines))
    (folder / "instruction.txt").write_text(INSTRUCTION)
    return {
        "checkpoint": folder / "HPSv3.safetensors",
        "tokenizer": base / "qwen.tiktoken",
        "base": base,
        "instruction_file": folder / "instruction.txt",
    }


@contextmanager
def own_instruction() -> Iterator[None]:
    """Accept `INSTRUCTION` in place of the official one."""
    digest = hashlib.sha256(INSTRUCTION.encode()).hexdigest()
    with patch("widespectrum.rewards.instruction.SHA256", digest):
        yield


def tensors(seed: int = 0) -> dict[str, torch.Tensor]:
    """The state dict: the head in float32, the rest in bfloat16; a language head that would spoil every number."""
    source = torch.Generator().manual_seed(seed)

    def normal(*shape: int, deviation: float, mean: float = 0.0) -> torch.Tensor:
        return (torch.randn(shape, generator=source) * deviation + mean).bfloat16()

    def linear(name: str, output: int, size: int, bias: bool = True) -> dict[str, torch.Tensor]:
        made = {f"{name}.weight": normal(output, size, deviation=1.5 * size**-0.5)}
        return made | ({f"{name}.bias": normal(output, deviation=0.2)} if bias else {})

    def norm(name: str, size: int, bias: bool = False) -> dict[str, torch.Tensor]:
        made = {f"{name}.weight": normal(size, deviation=0.2, mean=1.0)}
        return made | ({f"{name}.bias": normal(size, deviation=0.2)} if bias else {})

    patches = normal(PICTURE_WIDTH, 3, 2, 14, 14, deviation=1176**-0.5)
    found = {"visual.patch_embed.proj.weight": patches, "model.embed_tokens.weight": normal(ROWS, WIDTH, deviation=1.0)}
    for number in range(PICTURE_DEPTH):
        stem = f"visual.blocks.{number}"
        for name in ("norm1", "norm2"):
            found |= norm(f"{stem}.{name}", PICTURE_WIDTH, bias=True)
        found |= linear(f"{stem}.attn.qkv", 3 * PICTURE_WIDTH, PICTURE_WIDTH)
        found |= linear(f"{stem}.attn.proj", PICTURE_WIDTH, PICTURE_WIDTH)
        found |= linear(f"{stem}.mlp.fc1", 4 * PICTURE_WIDTH, PICTURE_WIDTH)
        found |= linear(f"{stem}.mlp.fc2", PICTURE_WIDTH, 4 * PICTURE_WIDTH)
    found |= norm("visual.merger.ln_q", PICTURE_WIDTH, bias=True)
    found |= linear("visual.merger.mlp.0", 4 * PICTURE_WIDTH, 4 * PICTURE_WIDTH)
    found |= linear("visual.merger.mlp.2", WIDTH, 4 * PICTURE_WIDTH)
    channels = WIDTH // HEADS
    for number in range(DEPTH):
        stem = f"model.layers.{number}"
        for name in ("input_layernorm", "post_attention_layernorm"):
            found |= norm(f"{stem}.{name}", WIDTH)
        found |= linear(f"{stem}.self_attn.q_proj", WIDTH, WIDTH)
        for name in ("k_proj", "v_proj"):
            found |= linear(f"{stem}.self_attn.{name}", GROUPS * channels, WIDTH)
        found |= linear(f"{stem}.self_attn.o_proj", WIDTH, WIDTH, bias=False)
        for name in ("gate_proj", "up_proj"):
            found |= linear(f"{stem}.mlp.{name}", INNER, WIDTH, bias=False)
        found |= linear(f"{stem}.mlp.down_proj", WIDTH, INNER, bias=False)
    found |= norm("model.norm", WIDTH)
    found["lm_head.weight"] = torch.full((ROWS, WIDTH), torch.nan, dtype=torch.bfloat16)
    for layer, output, size in ((0, 1024, WIDTH), (3, 16, 1024), (5, 2, 16)):
        found |= {name: each.float() for name, each in linear(f"rm_head.{layer}", output, size).items()}
    return found
