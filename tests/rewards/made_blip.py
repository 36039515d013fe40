"""A small BLIP with random weights, in the official file; ImageReward's has the same two towers."""

import string
from pathlib import Path
from typing import Any

import torch

VOCABULARY = [
    *["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"],
    *string.ascii_lowercase,
    *string.digits,
    *string.punctuation,
    *(f"##{letter}" for letter in string.ascii_lowercase + string.digits),
    *["cat", "dog", "horse", "photo", "a", "of", "the", "##s", "##ing", "é", "中", "日", "—", "…"],
]
WIDTH, TEXT_WIDTH, HIDDEN, DEPTH, PATCH, PROJECTION = 128, 64, 160, 2, 16, 32


def write_vocabulary(path: Path) -> Path:
    path.write_text("\n".join(dict.fromkeys(VOCABULARY)) + "\n", encoding="utf-8")
    return path


class Random:
    """Random tensors that keep numbers near 1 through any depth."""

    def __init__(self, seed: int) -> None:
        self.source = torch.Generator().manual_seed(seed)

    def normal(self, *shape: int, deviation: float = 1.0) -> torch.Tensor:
        return torch.randn(*shape, generator=self.source) * deviation

    def linear(self, name: str, output: int, size: int) -> dict[str, torch.Tensor]:
        weight = self.normal(output, size, deviation=1.5 * size**-0.5)
        return {f"{name}.weight": weight, f"{name}.bias": self.normal(output, deviation=0.2)}

    def norm(self, name: str, size: int) -> dict[str, torch.Tensor]:
        weight = 1 + self.normal(size, deviation=0.2)
        return {f"{name}.weight": weight, f"{name}.bias": self.normal(size, deviation=0.2)}


def towers(random: Random, *, grid: int, tokens: int) -> dict[str, torch.Tensor]:
    """The tensors of both towers, under BLIP's names; `tokens` rows of the word embedding."""
    made = {
        "visual_encoder.cls_token": random.normal(1, 1, WIDTH),
        "visual_encoder.pos_embed": random.normal(1, grid * grid + 1, WIDTH, deviation=0.5),
        "visual_encoder.patch_embed.proj.weight": random.normal(WIDTH, 3, PATCH, PATCH, deviation=1 / PATCH),
        "visual_encoder.patch_embed.proj.bias": random.normal(WIDTH, deviation=0.2),
        **random.norm("visual_encoder.norm", WIDTH),
        "text_encoder.embeddings.position_ids": torch.arange(64)[None],
        "text_encoder.embeddings.word_embeddings.weight": random.normal(tokens, TEXT_WIDTH),
        "text_encoder.embeddings.position_embeddings.weight": random.normal(64, TEXT_WIDTH),
        **random.norm("text_encoder.embeddings.LayerNorm", TEXT_WIDTH),
    }
    for number in range(DEPTH):
        block = f"visual_encoder.blocks.{number}"
        made |= random.norm(f"{block}.norm1", WIDTH) | random.norm(f"{block}.norm2", WIDTH)
        made |= random.linear(f"{block}.attn.qkv", 3 * WIDTH, WIDTH) | random.linear(f"{block}.attn.proj", WIDTH, WIDTH)
        made |= random.linear(f"{block}.mlp.fc1", 4 * WIDTH, WIDTH) | random.linear(
            f"{block}.mlp.fc2", WIDTH, 4 * WIDTH
        )
        layer = f"text_encoder.encoder.layer.{number}"
        for part, source in (("attention", TEXT_WIDTH), ("crossattention", WIDTH)):
            made |= random.linear(f"{layer}.{part}.self.query", TEXT_WIDTH, TEXT_WIDTH)
            made |= random.linear(f"{layer}.{part}.self.key", TEXT_WIDTH, source)
            made |= random.linear(f"{layer}.{part}.self.value", TEXT_WIDTH, source)
            made |= random.linear(f"{layer}.{part}.output.dense", TEXT_WIDTH, TEXT_WIDTH)
            made |= random.norm(f"{layer}.{part}.output.LayerNorm", TEXT_WIDTH)
        made |= random.linear(f"{layer}.intermediate.dense", HIDDEN, TEXT_WIDTH)
        made |= random.linear(f"{layer}.output.dense", TEXT_WIDTH, HIDDEN)
        made |= random.norm(f"{layer}.output.LayerNorm", TEXT_WIDTH)
    return made


def model(*, grid: int = 24, seed: int = 0) -> dict[str, torch.Tensor]:
    """The tensors of BLIP for retrieval, without momentum encoders and queues."""
    random = Random(seed)
    tokens = len(dict.fromkeys(VOCABULARY)) + 2  # [DEC] and [ENC]
    return {
        **towers(random, grid=grid, tokens=tokens),
        **random.linear("vision_proj", PROJECTION, WIDTH),
        **random.linear("text_proj", PROJECTION, TEXT_WIDTH),
        **random.linear("itm_head", 2, TEXT_WIDTH),
    }


def checkpoint(folder: Path, *, seed: int = 0, grid: int = 24) -> dict[str, Any]:
    """BLIP's file of a reduced model, and a vocabulary: keywords of `load_reward_model("blip-l", ...)`."""
    state = model(grid=grid, seed=seed)
    extra = {
        "temp": torch.tensor(0.07),
        "visual_encoder_m.cls_token": torch.zeros(1, 1, WIDTH),
        "text_proj_m.weight": torch.zeros(PROJECTION, TEXT_WIDTH),
        "image_queue": torch.zeros(PROJECTION, 8),
        "ptr_queue": torch.zeros(1, dtype=torch.int64),
    }
    path = folder / "model_large_retrieval_coco.pth"
    torch.save({"model": {**state, **extra}, "epoch": 5}, path)
    return {"checkpoint": path, "tokenizer": write_vocabulary(folder / "vocab.txt")}
