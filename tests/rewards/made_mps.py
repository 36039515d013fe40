"""A reduced MPS with seeded random weights in the container of the released file: the pickled module in float16."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import torch
from torch import nn

CLIP_FILE = Path(sys.prefix) / "share" / "open_clip" / "open_clip" / "bpe_simple_vocab_16e6.txt.gz"
VOCABULARY = 49408
CLIP, CROSS = "trainer.models.clip_model", "trainer.models.cross_modeling"


def checkpoint(folder: Path, *, seed: int = 0) -> dict[str, Any]:
    """The file under its official name, and what loads it."""
    path = folder / "MPS_overall_checkpoint.pth"
    save_module(network(seed), path)
    return {"checkpoint": path, "tokenizer": CLIP_FILE}


def network(seed: int = 0, *, width: int = 64, head: int = 64, layers: int = 2, angles: int = 0) -> nn.Module:
    """The released module's tree of names, with `angles` rotary positions kept as a module that was used has them."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = _made(CLIP, "CLIPModel", model=_clip(width), cross_model=_cross(width, 2, head, layers, angles))
        for name, parameter in model.named_parameters():
            _fill(name, parameter)
    return model.half().eval()


def save_module(module: nn.Module, path: Path) -> None:
    """Pickle a module whose classes can be imported only while it is saved."""
    classes = {type(part) for part in module.modules() if type(part).__module__.startswith("trainer.")}
    names = ["trainer", "trainer.models", CLIP, CROSS]
    try:
        for name in names:
            sys.modules[name] = types.ModuleType(name)
        for each in classes:
            setattr(sys.modules[each.__module__], each.__name__, each)
        torch.save(module, path)
    finally:
        for name in names:
            del sys.modules[name]


CLASSES: dict[str, type] = {}


def _made(place: str, name: str, **parts: Any) -> nn.Module:
    """A module of the class `name`, one class for each name, with these submodules."""
    module = CLASSES.setdefault(name, type(name, (nn.Module,), {"__module__": place}))()
    for key, part in parts.items():
        setattr(module, key, part)
    return module


def _clip(width: int) -> nn.Module:
    from transformers import CLIPConfig, CLIPModel

    tower = {"hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": 2, "num_attention_heads": 1}
    vision = {**tower, "image_size": 224, "patch_size": 28, "hidden_act": "gelu"}
    text = {**tower, "vocab_size": VOCABULARY, "hidden_act": "gelu"}
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=width))


def _cross(width: int, heads: int, head: int, layers: int, angles: int) -> nn.Module:
    inner, hidden = heads * head, 2 * width

    def linear(start: int, end: int) -> nn.Module:
        return nn.Linear(start, end, bias=False)

    def norm() -> nn.Module:
        found = _made(CROSS, "LayerNorm")
        found.weight = nn.Parameter(torch.ones(width))
        found.register_buffer("bias", torch.zeros(width))
        return found

    def gate() -> nn.Module:
        return _made(CROSS, "SwiGLU")

    def first() -> nn.Module:
        sides = {"to_q": linear(width, inner), "to_kv": linear(width, 2 * head), "to_out": linear(inner, width)}
        feed = nn.Sequential(linear(width, 2 * hidden), gate(), linear(hidden, width))
        return _made(CROSS, "CrossAttention", norm=norm(), context_norm=nn.Identity(), **sides, ff=feed)

    def second() -> nn.Module:
        rotary = _made(CROSS, "RotaryEmbedding")
        rotary.register_buffer("inv_freq", 10000.0 ** -(torch.arange(0, head, 2) / head))
        sides = {
            "fused_attn_ff_proj": linear(width, inner + 2 * head + 2 * hidden),
            "attn_out": linear(inner, width),
            "ff_out": nn.Sequential(gate(), linear(hidden, width)),
        }
        found = _made(CROSS, "ParallelTransformerBlock", norm=norm(), rotary_emb=rotary, **sides)
        # As after use in half precision, where an angle of 100 has steps of 1/16.
        steps = torch.outer(torch.arange(angles).half(), rotary.inv_freq.half())
        found.register_buffer("pos_emb", torch.cat((steps, steps), dim=1) if angles else None, persistent=False)
        return found

    parts = [nn.ModuleList([_made(CROSS, "Residual", fn=made()) for made in (first, second)]) for _ in range(layers)]
    return _made(CROSS, "Cross_model", layers=nn.ModuleList(parts))


def _fill(name: str, parameter: nn.Parameter) -> None:
    """Weights with which prompts and images differ, and the condition keeps some tokens of a prompt but not all."""
    with torch.no_grad():
        if name.endswith("logit_scale"):
            parameter.fill_(4.6052)
        elif "norm" in name and name.endswith("weight"):
            parameter.normal_(1, 0.2)
        elif parameter.ndim == 1:
            parameter.normal_(0, 0.1)
        elif "patch_embedding" in name:
            parameter.normal_(0, 0.05)
        elif "embedding" in name:
            parameter.normal_(0, 0.5)
        else:
            parameter.normal_(0, 1.2 / parameter.shape[-1] ** 0.5)
        if name.endswith("text_projection.weight"):
            # One direction that outweighs the others: tokens then differ much in their greatest product.
            parameter[0] *= 15
