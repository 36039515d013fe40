"""Qwen2-VL with a reward head instead of its language head, as HPSv3 has it.

An image and the text before the prompt are read once; what follows is read against their keys and values, up to the
token whose hidden state the head turns into the reward. Tokens are counted 0, 1, 2, ... on all three axes of the rotary
embedding, image tokens too, as the official code does on the transformers it asks for; Qwen2-VL's own positions by
row and column give other scores. Shapes: L tokens, D the width of the text model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from widespectrum._compat import ensure_torchvision
from widespectrum.errors import InputError

from .checkpoints import Take, Weights, empty, fill

__all__ = ["QwenReader", "build_reader", "find_config"]

_VISION = ("visual.", "model.visual.")
_TEXT = ("model.", "model.language_model.")
"""The beginnings of names up to transformers 4.51, and from 4.52 on."""

_UNUSED = "lm_head.weight"
_HEAD = {f"{layer}.{kind}": f"rm_head.{layer}.{kind}" for layer in (0, 3, 5) for kind in ("weight", "bias")}
_VISION_SHAPES = ("patch_embed.proj.weight", "blocks.0.mlp.fc1.weight", "merger.mlp.0.weight")
_TEXT_SHAPES = (
    "embed_tokens.weight",
    "layers.0.self_attn.q_proj.weight",
    "layers.0.self_attn.k_proj.weight",
    "layers.0.mlp.gate_proj.weight",
)
_VISION_CONSTANTS = ("num_heads", "hidden_act")
_TEXT_CONSTANTS = ("num_attention_heads", "num_key_value_heads", "rms_norm_eps", "rope_theta", "hidden_act")
_DEFAULT_HEADS = 64
"""Of transformers' Qwen2VLConfig: what a `config.json` means that does not say."""

_HEAD_WIDTH, _VISION_HEAD_WIDTH = 128, 80
_LARGEST_CONFIG = 1 << 20


class QwenReader:
    """The image tower, the text model and the reward head; in eval mode, without gradients."""

    def __init__(self, vision: Any, text: Any, head: Any) -> None:
        self.vision, self.text, self.head = vision, text, head

    def image_tokens(self, pixels: Any) -> Any:
        """(L, D): the tokens of one image (3, height, width), of which both sides are multiples of 28."""
        import torch

        config = self.vision.config
        channels, patch, merge = len(pixels), config.patch_size, config.spatial_merge_size
        rows, columns = pixels.shape[1] // patch, pixels.shape[2] // patch
        # Patches that become one token stand together, and a picture is a film of equal frames.
        cut = pixels.reshape(channels, rows // merge, merge, patch, columns // merge, merge, patch)
        cut = cut.permute(1, 4, 2, 5, 0, 3, 6).unsqueeze(5)
        cut = cut.expand(-1, -1, -1, -1, -1, config.temporal_patch_size, -1, -1)
        grid = torch.tensor([[1, rows, columns]], device=pixels.device)
        found = self.vision(cut.reshape(rows * columns, -1), grid_thw=grid)
        return getattr(found, "pooler_output", found)

    def read(self, before: list[int], image: Any, after: list[int]) -> Any:
        """The keys and values of the ids `before`, the image tokens (L, D) and the ids `after`."""
        import torch
        from transformers import DynamicCache

        cache = DynamicCache()
        embedded = torch.cat([self._embedded(before), image, self._embedded(after)])
        self._forward(embedded, cache)
        return cache

    def reward(self, cache: Any, tail: list[int]) -> Any:
        """(2,) in float32: mean and raw sigma at the last id of `tail`, which follows what `cache` holds.

        `cache` comes out as it went in.
        """
        hidden = self._forward(self._embedded(tail), cache)
        cache.crop(-len(tail))
        # The head is float32 whatever the dtype of the rest.
        return self.head(hidden[-1].float())

    def _embedded(self, ids: list[int]) -> Any:
        import torch

        embedding = self.text.embed_tokens
        return embedding(torch.tensor(ids, device=embedding.weight.device))

    def _forward(self, embedded: Any, cache: Any) -> Any:
        import torch

        start = cache.get_seq_length()
        places = torch.arange(start, start + len(embedded), device=embedded.device)
        read = self.text(
            inputs_embeds=embedded[None],
            position_ids=places.expand(3, 1, -1),
            past_key_values=cache,
            use_cache=True,
        )
        return read.last_hidden_state[0]


def find_config(folders: Sequence[Path]) -> Path | None:
    """The first `config.json` in the folders that is one of Qwen2-VL."""
    files = [folder / "config.json" for folder in folders]
    return next((file for file in files if file.is_file() and b'"qwen2_vl"' in file.read_bytes()), None)


def build_reader(weights: Weights, *, tokens: int, config: Path | None, dtype: Any, device: str) -> QwenReader:
    """The network in `weights`, the head in float32 and the rest in `dtype`; the language head is not read.

    There must be embeddings of at least `tokens` tokens.
    Sizes are those of the tensors. Heads and constants are those of `config`, a `config.json` of Qwen2-VL; without one
    those of Qwen2-VL-7B, whose heads have 128 channels in the text model and 80 in the image tower.
    InputError where tensors are missing or do not fit together.
    """
    import torch
    from torch import nn

    newer = f"{_TEXT[1]}embed_tokens.weight" in weights.shapes
    stems = (_VISION[newer], _TEXT[newer])
    wanted = [stem + name for stem, names in zip(stems, (_VISION_SHAPES, _TEXT_SHAPES), strict=True) for name in names]
    weights.require([*wanted, *_HEAD.values()])
    settings = _settings(weights, *stems, _read_config(config) if config else None)
    if settings["vocab_size"] < tokens:
        raise InputError(
            f"{weights.where} has embeddings of {settings['vocab_size']} tokens, HPSv3 has {tokens}, the last "
            "of them <|Reward|>: give HPSv3.safetensors as its authors publish it"
        )
    made = _configuration(weights, settings, config)
    towers = empty(lambda: nn.ModuleList(_towers(made)))
    names: dict[str, str | Take] = {name: stems[int(name[0])] + name[2:] for name in towers.state_dict()}
    patches = tuple(towers[0].patch_embed.weight.shape)
    names["0.patch_embed.weight"] = Take(stems[0] + _VISION_SHAPES[0], reshape=patches)
    _check_rest(weights, names)
    fill(towers, weights, names, dtype=dtype, device=device)
    head = empty(lambda: _head(weights, settings["hidden_size"]))
    fill(head, weights, _HEAD, dtype=torch.float32, device=device)
    vision, text = towers
    return QwenReader(vision, text, head)


def _check_rest(weights: Weights, names: Mapping[str, str | Take]) -> None:
    """InputError where tensors are left over: the first of a layer may be missing, and so the layer not be counted."""
    used = {take.source if isinstance(take, Take) else take for take in names.values()}
    if rest := weights.shapes.keys() - used - {*_HEAD.values(), _UNUSED}:
        raise InputError(
            f"{weights.where} holds {len(rest)} tensors that HPSv3 has no place for, first {min(rest)}: a layer before "
            "them is missing, or it is another model's"
        )


def _read_config(path: Path) -> dict[str, Any]:
    """A `config.json` of Qwen2-VL, its text part (nested from transformers 4.52 on) at the top."""
    try:
        if path.stat().st_size > _LARGEST_CONFIG:
            raise ValueError(f"it has more than {_LARGEST_CONFIG:,} bytes")
        config = json.loads(path.read_text(encoding="utf-8"))
        if config["model_type"] != "qwen2_vl":
            raise ValueError(f"it is one of {config['model_type']!r}")
        flat: dict[str, Any] = {**config, **(config.get("text_config") or {})}
        flat.update(flat.get("rope_scaling") or flat.get("rope_parameters") or {})
        flat["vision_config"] = dict(config.get("vision_config") or {})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"{path} is no configuration of Qwen2-VL ({error}): copy the base model's config.json"
        ) from None
    return flat


def _settings(weights: Weights, vision: str, text: str, config: Mapping[str, Any] | None) -> dict[str, Any]:
    """What transformers' Qwen2VLConfig takes: sizes of the shapes, the rest of `config` or else of the 7B model."""
    embeddings, queries, keys, gate = (weights.shapes[text + name] for name in _TEXT_SHAPES)
    patches, inner, merged = (weights.shapes[vision + name] for name in _VISION_SHAPES)
    if config is None:
        if queries[0] % _HEAD_WIDTH or keys[0] % _HEAD_WIDTH or patches[0] % _VISION_HEAD_WIDTH:
            raise InputError(
                f"{weights.where} has not the widths of Qwen2-VL-7B, so that its heads must be told: give the folder "
                "of its base model, with config.json, as base"
            )
        settings = {
            "num_attention_heads": queries[0] // _HEAD_WIDTH,
            "num_key_value_heads": keys[0] // _HEAD_WIDTH,
            "rms_norm_eps": 1e-6,
            "rope_theta": 1e6,
        }
        picture = {"num_heads": patches[0] // _VISION_HEAD_WIDTH}
    else:
        settings = {"num_attention_heads": _DEFAULT_HEADS}
        settings |= {name: config[name] for name in _TEXT_CONSTANTS if name in config}
        picture = {name: config["vision_config"][name] for name in _VISION_CONSTANTS if name in config["vision_config"]}
    picture |= {
        "embed_dim": patches[0],
        "hidden_size": embeddings[1],
        "depth": weights.depth(vision + "blocks.{}.norm1.weight"),
        "mlp_ratio": inner[0] // patches[0],
        "in_channels": patches[1],
        "temporal_patch_size": patches[2],
        "patch_size": patches[3],
        "spatial_merge_size": round((merged[1] / patches[0]) ** 0.5),
    }
    return {
        **settings,
        "hidden_size": embeddings[1],
        "intermediate_size": gate[0],
        "num_hidden_layers": weights.depth(text + "layers.{}.input_layernorm.weight"),
        "vocab_size": embeddings[0],
        "vision_config": picture,
    }


def _configuration(weights: Weights, settings: dict[str, Any], path: Path | None) -> Any:
    """The Qwen2VLConfig of transformers; InputError where its heads do not divide the tensors."""
    ensure_torchvision()
    from transformers import Qwen2VLConfig

    try:
        half = settings["hidden_size"] // settings["num_attention_heads"] // 2
        # A token has the same place on all three axes: how the channels are shared among them changes nothing.
        axes = {"type": "mrope", "mrope_section": [half - 2 * (half // 3), half // 3, half // 3]}
        config = Qwen2VLConfig(**settings, rope_scaling=axes)
        text, vision = getattr(config, "text_config", config), config.vision_config
        groups = text.num_attention_heads % text.num_key_value_heads
        if groups or text.hidden_size % text.num_attention_heads or vision.embed_dim % vision.num_heads:
            raise ValueError(
                f"{text.num_attention_heads} and {text.num_key_value_heads} heads for a width of {text.hidden_size}, "
                f"{vision.num_heads} for {vision.embed_dim}"
            )
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise InputError(f"{path or weights.where} belongs to another model than {weights.where}: {error}") from None
    return config


def _towers(config: Any) -> list[Any]:
    """The image tower and the text model, on any transformers from 4.50 on."""
    from torch import nn
    from transformers.models.qwen2_vl import modeling_qwen2_vl as modeling

    vision = modeling.Qwen2VisionTransformerPretrainedModel(config.vision_config)
    # A convolution whose steps are as long as its kernel is a product, which takes a tenth of the time.
    patches = vision.patch_embed.proj.weight
    vision.patch_embed = nn.Linear(patches[0].numel(), len(patches), bias=False)
    text = getattr(modeling, "Qwen2VLTextModel", None) or modeling.Qwen2VLModel
    return [vision, text(getattr(config, "text_config", config))]


def _head(weights: Weights, width: int) -> Any:
    """The reward head as HPSv3's code calls it "ranknet", for `width` channels."""
    from torch import nn

    first, second = (weights.shapes[_HEAD[f"{layer}.weight"]][0] for layer in (0, 3))
    layers = (nn.Linear(width, first), nn.ReLU(), nn.Dropout(), nn.Linear(first, second), nn.ReLU())
    return nn.Sequential(*layers, nn.Linear(second, 2))
