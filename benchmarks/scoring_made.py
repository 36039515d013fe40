"""What scoring.py measures: checkpoints of full size with random weights in the official containers, and images.

The names of the tensors and the containers are those of the tests, with the widths and depths of the real models.
HPSv3 alone is a reduced one: of full size it has 16 GB.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image

from tests.rewards import made_blip, made_clip, made_hpsv3, made_imagereward, made_laion, made_mps

PROMPTS = (
    "an underexposed photograph of a wooden boat on a quiet river, tilted, with a thumb over a corner of the lens",
    "a yellow bus on a street",
)

Tensors = dict[str, torch.Tensor]
Options = dict[str, Any]


class Clip(NamedTuple):
    """Width and layers of the image tower and of the text tower, the side of a patch, and the joint dimension."""

    width: int
    layers: int
    text_width: int
    text_layers: int
    patch: int
    dimension: int


class Blip(NamedTuple):
    """Width and layers of both towers, the width of BERT's feed-forward, and the entries of its vocabulary."""

    width: int
    layers: int
    text_width: int
    text_layers: int
    hidden: int
    vocabulary: int


class Qwen(NamedTuple):
    """Width, heads, key heads, layers, feed-forward width; width, heads and layers of the image tower."""

    width: int
    heads: int
    groups: int
    layers: int
    inner: int
    picture_width: int
    picture_heads: int
    picture_layers: int


class Sizes(NamedTuple):
    """The networks of all cases; `cross` is heads, feed-forward width and layers of the cross model of MPS."""

    vit_l: Clip
    vit_h: Clip
    blip: Blip
    cross: tuple[int, int, int]
    qwen: Qwen


FULL = Sizes(
    vit_l=Clip(1024, 24, 768, 12, 14, 768),
    vit_h=Clip(1280, 32, 1024, 24, 14, 1024),
    blip=Blip(1024, 24, 768, 12, 3072, 30522),
    cross=(16, 4096, 4),
    qwen=Qwen(256, 4, 2, 4, 768, 160, 2, 4),
)
TINY = Sizes(
    vit_l=Clip(128, 2, 128, 2, 32, 64),
    vit_h=Clip(160, 2, 128, 2, 28, 64),
    blip=Blip(128, 2, 64, 2, 160, 300),
    cross=(2, 128, 2),
    qwen=Qwen(64, 4, 2, 2, 96, 32, 2, 2),
)
"""To try the benchmark itself."""


def write_images(folder: Path, count: int) -> list[Path]:
    """PNG files of 768 and 1024 pixels by turns: soft shapes, and grain as a generator leaves it."""
    folder.mkdir()
    for number in range(count):
        rng, side = np.random.default_rng(number), (768, 1024)[number % 2]
        light = np.zeros((side, side, 3), dtype=np.float32)
        for cells in (4, 16, 64):
            coarse = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
            light += np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC)) / 3
        light += rng.normal(0, 2, light.shape)
        Image.fromarray(np.clip(light, 0, 255).astype(np.uint8)).save(folder / f"{number:03d}.png")
    return sorted(folder.iterdir())


def _shallower(tensors: Tensors, stem: str, layers: int) -> Tensors:
    """Without the layers from number `layers` on below `stem`."""
    found = {}
    for name, each in tensors.items():
        number = name.removeprefix(stem).partition(".")[0] if name.startswith(stem) else ""
        if not number or int(number) < layers:
            found[name] = each
    return found


def _clip(size: Clip) -> Tensors:
    """OpenAI's names, float32."""
    width, layers, text_width, text_layers, patch_side, dimension = size
    sizes = {"width": width, "text_width": text_width, "patch": patch_side, "dimension": dimension}
    tensors = made_clip.state(layers=max(layers, text_layers), **sizes)
    return _shallower(
        _shallower(tensors, "transformer.resblocks.", text_layers), "visual.transformer.resblocks.", layers
    )


def _in_half(tensors: Tensors) -> Tensors:
    """In float16, the float32 tensors given up one by one."""
    return {name: tensors.pop(name).half() for name in list(tensors)}


def clip_l(folder: Path, sizes: Sizes) -> Options:
    path = folder / "ViT-L-14.pt"
    made_clip.save_archive(made_clip.as_released(_clip(sizes.vit_l)), path)
    return {"checkpoint": path, "tokenizer": made_clip.VOCABULARY}


def hps(folder: Path, sizes: Sizes) -> Options:
    path = folder / "hpc.pt"
    torch.save({"state_dict": made_clip.as_released(_clip(sizes.vit_l))}, path)
    return {"checkpoint": path, "tokenizer": made_clip.VOCABULARY}


def laion(folder: Path, sizes: Sizes) -> Options:
    path = folder / "sac+logos+ava1-l14-linearMSE.pth"
    with patch.object(made_laion, "SIZES", (sizes.vit_l.dimension, 1024, 128, 64, 16, 1)):
        torch.save(made_laion.head(), path)
    return {"checkpoint": path, "clip": clip_l(folder, sizes)["checkpoint"]}


def hpsv2(folder: Path, sizes: Sizes) -> Options:
    path = folder / "HPS_v2.1_compressed.pt"
    torch.save({"state_dict": _in_half(_clip(sizes.vit_h))}, path)
    return {"checkpoint": path, "tokenizer": made_clip.VOCABULARY}


def pickscore(folder: Path, sizes: Sizes) -> Options:
    path = folder / "PickScore_v1"
    made_clip.save_folder(_clip(sizes.vit_h), path, activation="gelu", head=80)
    return {"checkpoint": path, "tokenizer": made_clip.VOCABULARY}


def mps(folder: Path, sizes: Sizes) -> Options:
    """The pickled module in float16."""
    path, random = folder / "MPS_overall_checkpoint.pth", made_blip.Random(0)
    heads, hidden, layers = sizes.cross
    tensors = {f"model.{name}": each for name, each in made_clip._renamed(_clip(sizes.vit_h)).items()}
    width, inner = sizes.vit_h.dimension, heads * 64

    def weight(name: str, output: int, size: int) -> Tensors:
        return {f"{name}.weight": random.linear("", output, size)[".weight"]}

    for number in range(layers):
        read, mix = (f"cross_model.layers.{number}.{part}.fn." for part in (0, 1))
        tensors |= random.norm(f"{read}norm", width) | random.norm(f"{mix}norm", width)
        tensors |= weight(f"{read}to_q", inner, width) | weight(f"{read}to_kv", 128, width)
        tensors |= weight(f"{read}ff.0", 2 * hidden, width) | weight(f"{read}ff.2", width, hidden)
        tensors |= weight(f"{read}to_out", width, inner) | weight(f"{mix}attn_out", width, inner)
        tensors |= weight(f"{mix}fused_attn_ff_proj", inner + 128 + 2 * hidden, width)
        tensors |= weight(f"{mix}ff_out.1", width, hidden)
        tensors[f"{mix}rotary_emb.inv_freq"] = 10000.0 ** -(torch.arange(0, 64, 2) / 64)
    made_mps.save_module(_tree(_in_half(tensors)), path)
    return {"checkpoint": path, "tokenizer": made_clip.VOCABULARY}


def _tree(tensors: Tensors) -> torch.nn.Module:
    """Modules within modules with these tensors as parameters."""
    root = torch.nn.Module()
    for name, each in tensors.items():
        *parts, last = name.split(".")
        module = root
        for part in parts:
            if part not in module._modules:
                module.add_module(part, torch.nn.Module())
            module = module._modules[part]
        module.register_parameter(last, torch.nn.Parameter(each, requires_grad=False))
    return root


@contextmanager
def _blip_of(size: Blip) -> Iterator[None]:
    """The makers of BLIP and ImageReward at this size; the vocabulary knows the words of the prompts."""
    words = [*made_blip.VOCABULARY, *" ".join(PROMPTS).replace(",", " ").split()]
    words = list(dict.fromkeys(words))
    words += [f"[unused{number}]" for number in range(size.vocabulary - len(words))]
    text = {"TEXT_WIDTH": size.text_width, "HIDDEN": size.hidden, "VOCABULARY": words}
    with ExitStack() as stack:
        both = {"WIDTH": size.width, "DEPTH": max(size.layers, size.text_layers), "PATCH": 16, "PROJECTION": 256}
        stack.enter_context(patch.multiple(made_blip, **both, **text))
        stack.enter_context(patch.multiple(made_imagereward, DEPTH=size.text_layers, **text))
        stack.enter_context(patch.dict(made_imagereward.HEAD, {0: (1024, size.text_width)}))
        yield


def blip_l(folder: Path, sizes: Sizes) -> Options:
    path, size = folder / "model_large_retrieval_coco.pth", sizes.blip
    with _blip_of(size):
        tensors = made_blip.model(grid=24)
        vocabulary = made_blip.write_vocabulary(folder / "vocab.txt")
    torch.save({"model": _shallower(tensors, "text_encoder.encoder.layer.", size.text_layers)}, path)
    return {"checkpoint": path, "tokenizer": vocabulary}


def imagereward(folder: Path, sizes: Sizes) -> Options:
    path, size = folder / "ImageReward.pt", sizes.blip
    with _blip_of(size):
        tensors = made_imagereward.model(grid=14)
        vocabulary = made_blip.write_vocabulary(folder / "vocab.txt")
    torch.save(_shallower(tensors, "blip.text_encoder.encoder.layer.", size.text_layers), path)
    return {"checkpoint": path, "tokenizer": vocabulary}


INSTRUCTION = "".join(f"\nStep {step}: look at the image and the text, and " + "say what there is and " * 14
                      for step in "abcdefg") + "\nTextual prompt - {text_prompt}\n\n\n"  # fmt: skip
"""About as many tokens as the official one, 510, which is not a part of this repository."""


@contextmanager
def instructed() -> Iterator[None]:
    """HPSv3 takes `INSTRUCTION` in place of the official one."""
    with patch.object(made_hpsv3, "INSTRUCTION", INSTRUCTION), made_hpsv3.own_instruction():
        yield


def hpsv3(folder: Path, sizes: Sizes) -> Options:
    size = sizes.qwen
    # Every beginning of a word is a token, so that a word becomes one.
    words = {f" {word}".encode() for word in f"{INSTRUCTION} {' '.join(PROMPTS)}".replace(",", " ").split()}
    beginnings = {word[:end] for word in words for end in range(2, len(word) + 1)}
    ranks = [*made_hpsv3.RANKS, *sorted(beginnings - set(made_hpsv3.RANKS), key=lambda each: (len(each), each))]
    vision = {"depth": size.picture_layers, "embed_dim": size.picture_width, "num_heads": size.picture_heads}
    config = {
        **made_hpsv3.CONFIG,
        "hidden_size": size.width,
        "intermediate_size": size.inner,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "num_key_value_heads": size.groups,
        "vision_config": {**made_hpsv3.CONFIG["vision_config"], **vision, "hidden_size": size.width},
    }
    names = ("WIDTH", "HEADS", "GROUPS", "DEPTH", "INNER", "PICTURE_WIDTH", "PICTURE_HEADS", "PICTURE_DEPTH")
    with patch.multiple(made_hpsv3, **dict(zip(names, size, strict=True)), CONFIG=config, RANKS=ranks), instructed():
        return made_hpsv3.checkpoint(folder)


MAKERS: dict[str, Callable[[Path, Sizes], Options]] = {
    "clip-l": clip_l,
    "hps": hps,
    "laion-aesthetic": laion,
    "hpsv2.1": hpsv2,
    "pickscore": pickscore,
    "mps": mps,
    "imagereward": imagereward,
    "blip-l": blip_l,
    "hpsv3": hpsv3,
}
"""Name of a reward model → writes its checkpoint into a folder; what `load_reward_model` takes."""
