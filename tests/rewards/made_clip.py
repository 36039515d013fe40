"""A reduced CLIP with seeded random weights, in every container in which OpenAI's is found."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

VOCABULARY = Path(sys.prefix) / "share" / "open_clip" / "open_clip" / "bpe_simple_vocab_16e6.txt.gz"
TOKENS, CONTEXT = 49408, 77


def state(
    seed: int = 0, *, width: int = 128, text_width: int = 128, layers: int = 2, patch: int = 32, dimension: int = 64
) -> dict[str, Tensor]:
    """The tensors under OpenAI's names, which open_clip has kept, in float32; images of 224 pixels."""
    source = torch.Generator().manual_seed(seed)

    def normal(*shape: int, deviation: float, mean: float = 0.0) -> Tensor:
        return torch.randn(*shape, generator=source) * deviation + mean

    def norm(name: str, size: int) -> dict[str, Tensor]:
        return {f"{name}.weight": normal(size, deviation=0.2, mean=1), f"{name}.bias": normal(size, deviation=0.2)}

    def block(name: str, size: int) -> dict[str, Tensor]:
        inner, made = 4 * size, norm(f"{name}.ln_1", size) | norm(f"{name}.ln_2", size)
        sides = {"attn.in_proj_": (3 * size, size), "attn.out_proj.": (size, size)}
        for part, shape in {**sides, "mlp.c_fc.": (inner, size), "mlp.c_proj.": (size, inner)}.items():
            made[f"{name}.{part}weight"] = normal(*shape, deviation=1.5 * shape[1] ** -0.5)
            made[f"{name}.{part}bias"] = normal(shape[0], deviation=0.2)
        return made

    made = {
        "positional_embedding": normal(CONTEXT, text_width, deviation=0.3),
        "text_projection": normal(text_width, dimension, deviation=text_width**-0.5),
        "logit_scale": torch.tensor(4.6052),
        "visual.class_embedding": normal(width, deviation=1),
        "visual.positional_embedding": normal((224 // patch) ** 2 + 1, width, deviation=0.5),
        "visual.proj": normal(width, dimension, deviation=width**-0.5),
        "visual.conv1.weight": normal(width, 3, patch, patch, deviation=1 / patch),
        "token_embedding.weight": normal(TOKENS, text_width, deviation=1),
        **norm("visual.ln_pre", width),
        **norm("visual.ln_post", width),
        **norm("ln_final", text_width),
    }
    for number in range(layers):
        made |= block(f"visual.transformer.resblocks.{number}", width)
        made |= block(f"transformer.resblocks.{number}", text_width)
    return made


def as_released(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Float16 where OpenAI's file has it: convolution, linear layers, attention and both projections."""
    kept = ("embedding", "ln_", "logit_scale")
    return {name: each if any(part in name for part in kept) else each.half() for name, each in tensors.items()}


def save_archive(tensors: dict[str, Tensor], path: Path) -> None:
    """OpenAI's container: a TorchScript archive with three numbers beside the weights."""
    root = nn.Module()
    for name, each in tensors.items():
        *parts, last = name.split(".")
        module = root
        for part in parts:
            if not hasattr(module, part):
                module.add_module(part, nn.Module())
            module = getattr(module, part)
        module.register_parameter(last, nn.Parameter(each.clone(), requires_grad=False))
    numbers = {"input_resolution": 224, "context_length": CONTEXT, "vocab_size": TOKENS}
    for name, number in numbers.items():
        root.register_buffer(name, torch.tensor(number))
    with warnings.catch_warnings():
        # torch calls TorchScript deprecated; OpenAI's file is what it is.
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(root), path)


def save_folder(tensors: dict[str, Tensor], folder: Path, *, activation: str, head: int = 64, shards: int = 1) -> None:
    """A folder of transformers: config.json and model.safetensors, or several files with an index.

    `head` is the width of the image tower's heads.
    """
    from safetensors.torch import save_file

    width, text_width = len(tensors["visual.ln_pre.weight"]), len(tensors["ln_final.weight"])
    patch = tensors["visual.conv1.weight"].shape[-1]
    config = {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": tensors["visual.proj"].shape[1],
        "vision_config": {**_config(tensors, "visual.", width), "num_attention_heads": width // head},
        "text_config": {**_config(tensors, "", text_width), "vocab_size": TOKENS},
    }
    config["vision_config"] |= {"image_size": 224, "patch_size": patch, "hidden_act": activation}
    config["text_config"] |= {"num_attention_heads": text_width // 64, "hidden_act": activation}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    renamed = _renamed(tensors)
    if shards == 1:
        save_file(renamed, folder / "model.safetensors", metadata={"format": "pt"})
        return
    places = {name: f"model-{1 + n % shards:05d}-of-{shards:05d}.safetensors" for n, name in enumerate(renamed)}
    for file in set(places.values()):
        save_file({name: each for name, each in renamed.items() if places[name] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))


def _config(tensors: dict[str, Tensor], stem: str, width: int) -> dict[str, int]:
    layers = sum(name.startswith(f"{stem}transformer.resblocks.") and name.endswith("ln_1.bias") for name in tensors)
    return {"hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": layers}


_WORDS = {
    "visual.transformer.resblocks.": "vision_model.encoder.layers.",
    "transformer.resblocks.": "text_model.encoder.layers.",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.conv1": "vision_model.embeddings.patch_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.ln_pre": "vision_model.pre_layrnorm",
    "visual.ln_post": "vision_model.post_layernorm",
    "visual.proj": "visual_projection.weight",
    "token_embedding": "text_model.embeddings.token_embedding",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final": "text_model.final_layer_norm",
    "text_projection": "text_projection.weight",
}
_PARTS = {"attn.": "self_attn.", "ln_1": "layer_norm1", "ln_2": "layer_norm2", "c_fc": "fc1", "c_proj": "fc2"}


def _renamed(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under transformers' names: attention in three parts, projections turned."""
    made = {}
    for name, each in tensors.items():
        old = next((word for word in _WORDS if name.startswith(word)), "")
        new = _WORDS.get(old, "") + name.removeprefix(old)
        for part, other in _PARTS.items() if "layers." in new else ():
            new = new.replace(part, other)
        if "in_proj_" in new:
            for letter, third in zip("qkv", each.chunk(3), strict=True):
                made[new.replace("in_proj_", f"{letter}_proj.")] = third.contiguous()
        else:
            made[new] = (each.T if "projection" in new else each).contiguous()
    return made


def checkpoint(folder: Path, *, seed: int = 0) -> dict[str, Any]:
    """OpenAI's archive, and what loads it as `clip-l`."""
    path = folder / "ViT-L-14.pt"
    save_archive(as_released(state(seed)), path)
    return {"checkpoint": path, "tokenizer": VOCABULARY}


def hps_checkpoint(folder: Path, *, seed: int = 0) -> dict[str, Any]:
    """hpc.pt, and what loads it as `hps`."""
    path = folder / "hpc.pt"
    torch.save({"state_dict": as_released(state(seed)), "epoch": 1}, path)
    return {"checkpoint": path, "tokenizer": VOCABULARY}
