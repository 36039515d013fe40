"""What a checkpoint looks like by the names and shapes of its tensors, and lists of names that can be read."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

__all__ = ["FILES", "identify", "listed", "looks_like"]

Shapes = Mapping[str, tuple[int, ...]]

_SHOWN = 5

_OF_LAION = "the CLIP of laion-aesthetic"

_LOOKS: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    ("ImageReward", ("imagereward",), ("blip.visual_encoder.patch_embed.proj.weight", "mlp.layers.0.weight")),
    ("HPSv3", ("hpsv3",), ("rm_head.0.weight",)),
    ("MPS", ("mps",), ("cross_model.",)),
    (
        "BLIP's retrieval model in its official form",
        ("blip-l",),
        ("visual_encoder.patch_embed.proj.weight", "itm_head.weight"),
    ),
    ("BLIP's pretrained model", (), ("visual_encoder.patch_embed.proj.weight",)),
    ("BLIP's retrieval model in the form of transformers", ("blip-l",), ("text_encoder.", "itm_head.weight")),
    ("a SigLIP of transformers", (), ("vision_model.head.probe",)),
    (
        "a CLIPModel of transformers",
        ("pickscore", "clip-l", _OF_LAION),
        ("vision_model.embeddings.", "text_model.embeddings."),
    ),
    ("Qwen2-VL", (), ("visual.blocks.0.attn.qkv.weight",)),
    ("a LAION aesthetic head", ("laion-aesthetic",), ("layers.0.weight", "layers.2.weight")),
    (
        "a CLIP with OpenAI's names",
        ("clip-l", "hps", "hpsv2", "hpsv2.1", _OF_LAION),
        ("visual.conv1.", "visual.ln_pre."),
    ),
)
"""(what, reward models that it is of, names or beginnings of names that it has); the first that fits."""

_WIDTHS: Mapping[int, tuple[str, tuple[str, ...]]] = {
    1280: ("an open_clip ViT-H", ("hpsv2", "hpsv2.1")),
    1024: ("OpenAI's CLIP ViT-L/14", ("clip-l", "hps", _OF_LAION)),
}
"""The CLIPs with OpenAI's names by the width of their image tower; reduced ones have others."""

FILES: Mapping[str, str] = {
    "HPS_v2_compressed.pt": "hpsv2",
    "HPS_v2.1_compressed.pt": "hpsv2.1",
    "hpc.pt": "hps",
    "hpc.pth": "hps",
    "ViT-L-14.pt": "clip-l",
    "HPSv3.safetensors": "hpsv3",
    "ImageReward.pt": "imagereward",
    "MPS_overall_checkpoint.pth": "mps",
    "model_large_retrieval_coco.pth": "blip-l",
    "sac+logos+ava1-l14-linearMSE.pth": "laion-aesthetic",
}
"""The reward model to which a file with an official name belongs."""


def identify(shapes: Shapes) -> str | None:
    """Which model a checkpoint looks like, in words for a message, or None where that cannot be told."""
    what, models = _like(shapes)
    return f"{what} ({', '.join(models)})" if models else what


def looks_like(shapes: Shapes, model: str) -> bool:
    """Whether the checkpoint looks like one of the reward model `model`."""
    return model in _like(shapes)[1]


def _like(shapes: Shapes) -> tuple[str | None, tuple[str, ...]]:
    """(what it looks like, the reward models with such checkpoints)."""
    patches = shapes.get("visual.conv1.weight")
    if patches and patches[0] in _WIDTHS:
        return _WIDTHS[patches[0]]
    for what, models, marks in _LOOKS:
        if all(any(name.removeprefix("model.").startswith(mark) for name in shapes) for mark in marks):
            return what, models
    return None, ()


def listed(names: Iterable[str]) -> str:
    """Names in few words: by layer where that is short, else by all layers, else by what they begin with."""
    names = sorted(names)
    groupings: tuple[Callable[[str], str], ...] = (str, _layer, _layers, _first)
    for grouping in groupings:
        counts = Counter(map(grouping, names))
        if len(counts) <= _SHOWN:
            break
    shown = [group if group in names else f"{group} ({n})" for group, n in counts.most_common(_SHOWN)]
    return ", ".join(shown) + (f" and {len(counts) - _SHOWN} more" if len(counts) > _SHOWN else "")


def _first(name: str) -> str:
    """Down to the first point: `visual.*`."""
    start, point, _ = name.partition(".")
    return f"{start}.*" if point else name


def _layer(name: str) -> str:
    """Down to the first number: `visual.transformer.resblocks.3.*`."""
    match = re.match(r"(.*?\.\d+)\.", name)
    return f"{match[1]}.*" if match else name


def _layers(name: str) -> str:
    """Down to before the first number: `visual.transformer.resblocks.*`."""
    match = re.match(r"(.*?)\.\d+\.", name)
    return f"{match[1]}.*" if match else name
