"""CLIP's image and text towers from a checkpoint in open_clip's, OpenAI's or transformers' names.

The architecture is read from the shapes of the tensors, so that reduced models load. Only the number of attention heads
leaves no trace there: a head has 64 channels, and 80 in the image tower of ViT-H; a `config.json` of transformers comes
first. Source: openai/CLIP, open_clip's model configurations, transformers' CLIPModel.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from widespectrum._compat import ensure_torchvision
from widespectrum.errors import InputError

from .checkpoints import Take, Weights, empty, fill

__all__ = ["CONTEXT", "Activation", "Towers", "build_towers", "check_tokens", "image_size", "tower_weights"]

CONTEXT = 77
"""Tokens that every CLIP here reads, start and end included."""

Activation = Literal["gelu", "quick_gelu"]

_HEAD_WIDTH = 64
_VIT_H_HEAD_WIDTH = 80

_OTHERS: Mapping[Activation, tuple[tuple[int, int, int], str, str]] = {
    "quick_gelu": ((1280, 32, 1024), "a CLIP ViT-H (hpsv2, hpsv2.1, pickscore, mps)", "ViT-L"),
    "gelu": ((1024, 24, 768), "a CLIP ViT-L (clip-l, hps)", "ViT-H"),
}
"""What can be taken for a family's checkpoint: width and layers of the image tower and width of the text tower, what
has them, and what is wanted. Reduced models have other sizes."""

_VISION, _TEXT = "vision_model", "text_model"
_PATCHES = f"{_VISION}.embeddings.patch_embedding.weight"
_VISION_PLACES = f"{_VISION}.embeddings.position_embedding.weight"
_TEXT_PLACES = f"{_TEXT}.embeddings.position_embedding.weight"
_TOKENS = f"{_TEXT}.embeddings.token_embedding.weight"

_TOP = {
    f"{_VISION}.embeddings.class_embedding": "visual.class_embedding",
    _PATCHES: "visual.conv1.weight",
    _VISION_PLACES: "visual.positional_embedding",
    f"{_VISION}.pre_layrnorm.weight": "visual.ln_pre.weight",
    f"{_VISION}.pre_layrnorm.bias": "visual.ln_pre.bias",
    f"{_VISION}.post_layernorm.weight": "visual.ln_post.weight",
    f"{_VISION}.post_layernorm.bias": "visual.ln_post.bias",
    "visual_projection.weight": "visual.proj",
    _TOKENS: "token_embedding.weight",
    _TEXT_PLACES: "positional_embedding",
    f"{_TEXT}.final_layer_norm.weight": "ln_final.weight",
    f"{_TEXT}.final_layer_norm.bias": "ln_final.bias",
    "text_projection.weight": "text_projection",
    "logit_scale": "logit_scale",
}
"""transformers' names outside the layers, and what open_clip and OpenAI call the same."""

_STEMS = {_VISION: "visual.transformer.resblocks", _TEXT: "transformer.resblocks"}
_IN_LAYER = {
    "self_attn.out_proj": "attn.out_proj",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}
_QKV = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")


class Towers:
    """Both towers on one device in one dtype, in eval mode, without gradients. Shapes: B rows, D the joint dimension.

    `scale` is exp(logit_scale) in float32, whatever the dtype of the towers.
    """

    def __init__(self, model: Any, *, scale: float) -> None:
        self.model, self.scale = model, scale

    def images(self, pixels: Any) -> Any:
        """(B, D): projected class tokens of `pixels` (B, 3, size, size), not normalized."""
        pooled = self.model.vision_model(pixel_values=pixels).pooler_output
        return self.model.visual_projection(pooled)

    def texts(self, ids: Any) -> Any:
        """(B, D): projected features at the first end token (the highest id) of `ids` (B, 77), not normalized."""
        import torch

        ends = ids.argmax(dim=-1)
        # No token sees a later one: what follows the last end token of the batch changes nothing.
        ids = ids[:, : int(ends.max()) + 1].to(self._device)
        hidden = self.model.text_model(input_ids=ids).last_hidden_state
        rows = torch.arange(len(ids), device=hidden.device)
        return self.model.text_projection(hidden[rows, ends.to(hidden.device)])

    def image_tokens(self, pixels: Any) -> Any:
        """(B, 1 + patches, D): every token of the last layer, projected without the final norm (as MPS reads them)."""
        return self.model.visual_projection(self.model.vision_model(pixel_values=pixels).last_hidden_state)

    def text_tokens(self, ids: Any) -> Any:
        """(B, 77, D): every token of `ids` (B, 77) after the final norm, projected (as MPS reads them)."""
        hidden = self.model.text_model(input_ids=ids.to(self._device)).last_hidden_state
        return self.model.text_projection(hidden)

    @property
    def _device(self) -> Any:
        return self.model.logit_scale.device


def build_towers(
    weights: Weights,
    *,
    dtype: Any,
    device: str,
    activation: Activation,
    prefix: str = "",
    config: Path | None = None,
    halved: bool = False,
) -> Towers:
    """The towers in `weights`, where every name starts with `prefix`; `halved` rounds products to float16 numbers.

    `activation` stands for the family: `gelu` for ViT-H (heads of 80 channels in an image tower whose width allows
    it), `quick_gelu` for OpenAI CLIP. Heads, activation and epsilon of `config`, a `config.json` of transformers, come
    first. InputError where tensors are missing or do not fit together.
    """
    names = _Names(weights, prefix)
    vision, text = _towers(names, activation)
    _refuse_other(weights, (vision.hidden_size, vision.num_hidden_layers, text.hidden_size), activation)
    if config is not None:
        vision, text = _configured(config, vision, text)
    settings = _settings(names, vision, text)
    if config is not None:
        _check_images(config, settings["vision_config"])
    weights.expect(dict(names.packed(vision, text)))
    model = empty(lambda: _clip(settings))
    fill(model, weights, dict(names.pairs(vision, text)), dtype=dtype, device=device)
    if halved:
        _halve(model)
    logarithm = names.top("logit_scale")
    return Towers(model.eval(), scale=float(weights.read([logarithm])[logarithm].float().exp()))


def _halve(model: Any) -> None:
    """Round convolution, linear layers and projections to the numbers of float16, as OpenAI's loader does."""
    from torch import nn

    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            for parameter in module.parameters(recurse=False):
                parameter.data.copy_(parameter.data.half())


def image_size(weights: Weights, *, prefix: str = "") -> int:
    """Pixels of the side of the square that the image tower in `weights` reads; InputError where there is none."""
    return _grid(_Names(weights, prefix)) * _Names(weights, prefix).shape(_PATCHES)[-1]


def check_tokens(weights: Weights, tokens: int, *, prefix: str = "") -> None:
    """InputError where the text tower in `weights` has embeddings of fewer than `tokens` tokens."""
    names = _Names(weights, prefix)
    if (rows := names.shape(_TOKENS)[0]) < tokens:
        raise InputError(
            f"{weights.where}: {names.top(_TOKENS)} has {rows} rows and the tokenizer {tokens} tokens: give the "
            "vocabulary of this checkpoint as tokenizer, or download the checkpoint again"
        )


def tower_weights(weights: Weights, *, prefix: str = "") -> tuple[list[str], bool]:
    """(names of all tensors of both towers, whether there are more: of a tower without any layer one is listed)."""
    names = _Names(weights, prefix, check=False)
    return names.sources(), 0 in map(names.depth, _STEMS)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tower:
    """One transformer; `inner` is the width of its feed-forward layers. Fields as transformers calls them."""

    num_hidden_layers: int
    hidden_size: int = 0
    intermediate_size: int = 0
    num_attention_heads: int = 1
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-5

    @property
    def settings(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


class _Names:
    """What the tensors of a CLIP are called in one file, and what their shapes are."""

    def __init__(self, weights: Weights, prefix: str, *, check: bool = True) -> None:
        self.weights, self.prefix = weights, prefix
        # Of MPS and of files that are none of CLIP, too: what is missing is listed in the names of the file that came.
        parts = (f"{_VISION}.", f"{_TEXT}.")
        self.openai = prefix != "model." and not any(part in name for name in weights.shapes for part in parts)
        if check:
            weights.require(self.sources(), more=0 in map(self.depth, _STEMS))

    def top(self, name: str) -> str:
        """The name of a tensor outside the layers."""
        return self.prefix + (_TOP[name] if self.openai else name)

    def layer(self, tower: str, number: int | str, name: str) -> str:
        """The name of a tensor of layer `number`; `name` ends in .weight or .bias."""
        if not self.openai:
            return f"{self.prefix}{tower}.encoder.layers.{number}.{name}"
        module, _, kind = name.rpartition(".")
        return f"{self.prefix}{_STEMS[tower]}.{number}.{_IN_LAYER[module]}.{kind}"

    def depth(self, tower: str) -> int:
        """The number of layers, of those of which there is anything."""
        return self.weights.depth(self.layer(tower, "{}", "layer_norm1.weight"))

    def sources(self) -> list[str]:
        """The names of all tensors."""
        towers = (_Tower(num_hidden_layers=max(1, self.depth(part))) for part in _STEMS)
        return [take.source if isinstance(take, Take) else take for _, take in self.pairs(*towers)]

    def packed(self, *towers: _Tower) -> Iterator[tuple[str, tuple[int, ...]]]:
        """(name, shape) of the tensors of which attention takes three parts."""
        for part, tower in zip(_STEMS, towers, strict=True):
            for number in range(tower.num_hidden_layers if self.openai else 0):
                stem, width = f"{self.prefix}{_STEMS[part]}.{number}.attn.in_proj_", tower.hidden_size
                yield from ((f"{stem}weight", (3 * width, width)), (f"{stem}bias", (3 * width,)))

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor outside the layers."""
        return self.weights.shapes[self.top(name)]

    def pairs(self, vision: _Tower, text: _Tower) -> Iterator[tuple[str, str | Take]]:
        """(name in transformers' CLIPModel, what of the file it takes) of every tensor."""
        for name in _TOP:
            turned = self.openai and name in ("visual_projection.weight", "text_projection.weight")
            yield name, Take(self.top(name), transpose=True) if turned else self.top(name)
        for part, tower in ((_VISION, vision), (_TEXT, text)):
            for number in range(tower.num_hidden_layers):
                stem = f"{part}.encoder.layers.{number}"
                for name in (f"{module}.{kind}" for module in _IN_LAYER for kind in ("weight", "bias")):
                    yield f"{stem}.{name}", self.layer(part, number, name)
                yield from self._attention(part, number, tower.hidden_size)

    def _attention(self, part: str, number: int, width: int) -> Iterator[tuple[str, str | Take]]:
        stem = f"{part}.encoder.layers.{number}"
        for place, module in enumerate(_QKV):
            for kind in ("weight", "bias"):
                name = f"{stem}.{module}.{kind}"
                packed = f"{self.prefix}{_STEMS[part]}.{number}.attn.in_proj_{kind}"
                rows = slice(place * width, (place + 1) * width)
                yield name, Take(packed, rows=rows) if self.openai else self.prefix + name


def _towers(names: _Names, activation: Activation) -> tuple[_Tower, _Tower]:
    """Both towers as the shapes tell them."""
    made = []
    for part, norm in ((_VISION, "pre_layrnorm"), (_TEXT, "final_layer_norm")):
        width = names.shape(f"{part}.{norm}.weight")[0]
        wide = part == _VISION and activation == "gelu" and width % _VIT_H_HEAD_WIDTH == 0
        made.append(
            _Tower(
                hidden_size=width,
                num_hidden_layers=names.depth(part),
                intermediate_size=names.weights.shapes[names.layer(part, 0, "mlp.fc1.weight")][0],
                num_attention_heads=max(1, width // (_VIT_H_HEAD_WIDTH if wide else _HEAD_WIDTH)),
                hidden_act=activation,
            )
        )
    return made[0], made[1]


def _refuse_other(weights: Weights, sizes: tuple[int, int, int], activation: Activation) -> None:
    """InputError for a CLIP of full size that is not the family's: it would load, and score with the wrong heads."""
    other, what, own = _OTHERS[activation]
    if sizes == other:
        raise InputError(
            f"{weights.where} is no checkpoint of {weights.wanted}, which is a {own}; it looks like {what}: give the "
            f"checkpoint of {weights.wanted}"
        )


def _check_images(path: Path, seen: dict[str, Any]) -> None:
    """InputError where a `config.json`, which has been read before, contradicts the shapes about images."""
    said = json.loads(path.read_text(encoding="utf-8")).get("vision_config") or {}
    for name in ("image_size", "patch_size"):
        if said.get(name, seen[name]) != seen[name]:
            raise InputError(
                f"{path} belongs to another checkpoint: it says {name} {said[name]!r}, and the tensors say {seen[name]}"
            )


def _configured(path: Path, vision: _Tower, text: _Tower) -> tuple[_Tower, _Tower]:
    """The towers with the heads, activation and epsilon of a `config.json`, which must agree with the shapes."""
    ensure_torchvision()
    from transformers import CLIPConfig
    from transformers.activations import ACT2FN

    try:
        config = CLIPConfig.from_dict(json.loads(path.read_text(encoding="utf-8")))
        parts = (config.vision_config, config.text_config)
        found = [_Tower(**{name: getattr(part, name) for name in _Tower.__slots__}) for part in parts]
    # what transformers raises for a malformed configuration changes with its version
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path} is no configuration of a transformers CLIPModel ({reason}): copy it again") from error
    for part, said, seen in (("image", found[0], vision), ("text", found[1], text)):
        free = {name: getattr(said, name) for name in ("num_attention_heads", "hidden_act", "layer_norm_eps")}
        if said != replace(seen, **free):
            raise InputError(
                f"{path} belongs to another checkpoint: in the {part} tower it says {said.settings}, and the tensors "
                f"say {seen.settings}"
            )
        if said.hidden_act not in ACT2FN:
            raise InputError(f"{path}: transformers knows no activation {said.hidden_act!r}")
    return found[0], found[1]


def _grid(names: _Names) -> int:
    """Patches along a side of the image."""
    places = names.shape(_VISION_PLACES)[0]
    side = math.isqrt(max(places - 1, 0))
    if side * side + 1 != places:
        raise InputError(f"{names.weights.where}: {places} image positions are not 1 + the patches of a square image")
    return side


def _settings(names: _Names, vision: _Tower, text: _Tower) -> dict[str, Any]:
    """The configuration of transformers' CLIPModel; InputError where the shapes make no CLIP."""
    patch, side = names.shape(_PATCHES)[-1], _grid(names)
    context, where = names.shape(_TEXT_PLACES)[0], names.weights.where
    if context != CONTEXT:
        raise InputError(f"{where}: expected a text tower of {CONTEXT} positions, got {context}")
    for part, tower in (("image", vision), ("text", text)):
        if tower.hidden_size % tower.num_attention_heads:
            width, heads = tower.hidden_size, tower.num_attention_heads
            raise InputError(f"{where}: the {part} tower of width {width} cannot be divided among {heads} heads")
    return {
        "projection_dim": names.shape("visual_projection.weight")[-1 if names.openai else 0],
        "vision_config": {**vision.settings, "patch_size": patch, "image_size": side * patch},
        "text_config": {**text.settings, "vocab_size": names.shape(_TOKENS)[0], "max_position_embeddings": context},
    }


def _clip(settings: dict[str, Any]) -> Any:
    ensure_torchvision()
    from transformers import CLIPConfig, CLIPModel

    model = CLIPModel(CLIPConfig.from_dict(settings))
    for tower, part in ((model.vision_model, "vision_config"), (model.text_model, "text_config")):
        if settings[part]["hidden_act"] == "quick_gelu":
            for layer in tower.encoder.layers:
                # A module cannot be replaced by a function while it is registered.
                del layer.mlp.activation_fn
                layer.mlp.activation_fn = _quick_gelu
    return model


def _quick_gelu(hidden: Any) -> Any:
    """The activation of transformers to the bit, in place: a tenth less time and a fifth less memory for the towers."""
    return hidden.mul_((hidden * 1.702).sigmoid_())
