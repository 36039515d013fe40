"""What a checkpoint looks like by the names and shapes of its tensors, and lists of names that can be read."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

__all__ = ["identify", "listed"]

Shapes = Mapping[str, tuple[int, ...]]

_SHOWN = 5

_LOOKS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("ImageReward", ("blip.visual_encoder.patch_embed.proj.weight", "mlp.layers.0.weight")),
    ("HPSv3", ("rm_head.0.weight",)),
    ("MPS", ("cross_model.", "logit_scale")),
    (
        "BLIP's retrieval model in its official form (blip-l)",
        ("visual_encoder.patch_embed.proj.weight", "itm_head.weight"),
    ),
    ("BLIP's pretrained model", ("visual_encoder.patch_embed.proj.weight",)),
    ("BLIP's retrieval model in the form of transformers (blip-l)", ("text_encoder.", "itm_head.weight")),
    ("a SigLIP of transformers", ("vision_model.head.probe",)),
    ("a CLIPModel of transformers (pickscore, clip-l)", ("vision_model.embeddings.", "text_model.embeddings.")),
    ("Qwen2-VL", ("visual.blocks.0.attn.qkv.weight",)),
    ("a LAION aesthetic head (laion-aesthetic)", ("layers.0.weight", "layers.2.weight")),
)
"""(what, names or beginnings of names that it has); the first that fits."""


def identify(shapes: Shapes) -> str | None:
    """Which model a checkpoint looks like, in words for a message, or None where that cannot be told."""
    for what, marks in _LOOKS:
        if all(any(name.removeprefix("model.").startswith(mark) for name in shapes) for mark in marks):
            return what
    patches = shapes.get("visual.conv1.weight")
    if patches and "token_embedding.weight" in shapes:
        if patches[0] >= 1280:
            return "an open_clip ViT-H (hpsv2, hpsv2.1)"
        return f"a CLIP with OpenAI's names and an image width of {patches[0]} (clip-l and hps have 1024)"
    return None


def listed(names: Iterable[str]) -> str:
    """Names in few words: by layer where that is short, else by all layers, else by what they begin with."""
    names = sorted(names)
    groupings: tuple[Callable[[str], str], ...] = (str, _layer, _layers, lambda name: name.partition(".")[0] + ".*")
    for grouping in groupings:
        counts = Counter(map(grouping, names))
        if len(counts) <= _SHOWN:
            break
    shown = [group if group in names else f"{group} ({n})" for group, n in counts.most_common(_SHOWN)]
    return ", ".join(shown) + (f" and {len(counts) - _SHOWN} more" if len(counts) > _SHOWN else "")


def _layer(name: str) -> str:
    """Down to the first number: `visual.transformer.resblocks.3.*`."""
    match = re.match(r"(.*?\.\d+)\.", name)
    return f"{match[1]}.*" if match else name


def _layers(name: str) -> str:
    """Down to before the first number: `visual.transformer.resblocks.*`."""
    match = re.match(r"(.*?)\.\d+\.", name)
    return f"{match[1]}.*" if match else name
