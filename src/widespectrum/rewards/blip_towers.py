"""BLIP's two towers: a vision transformer, and a BERT whose layers also look at the image.

Shared by ImageReward and BLIP. The layers are written here, not taken from transformers: its classes changed masks and
wrappers between 4 and 5, have no fused attention, and read every token in the last layer where only [CLS] is wanted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from widespectrum._compat import ensure_torchvision
from widespectrum.errors import InputError

from .checkpoints import Weights, empty, fill
from .tokenization import TextTokenizer

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["WINDOW", "BlipTokens", "Layout", "Towers", "build_towers", "read_layout"]

WINDOW = 35
"""Tokens that BLIP and ImageReward read of a prompt, [CLS] and [SEP] included."""

_PROMPTS_KEPT = 16384
_HEAD = 64
_SETTINGS: Mapping[str, Any] = {
    **dict.fromkeys(
        ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "image_size"), int
    ),
    "layer_norm_eps": (int, float),
}
"""What is read of a configuration, and of which type it is."""

_EPS = {"vision": 1e-6, "text": 1e-12}

# The tensors of a tower: our name to that of the container; {} is the number of the layer.
_BLIP_VISION = {
    "cls": "visual_encoder.cls_token",
    "positions": "visual_encoder.pos_embed",
    "patches": "visual_encoder.patch_embed.proj",
    "norm": "visual_encoder.norm",
    "layers.{}.before": "visual_encoder.blocks.{}.norm1",
    "layers.{}.qkv": "visual_encoder.blocks.{}.attn.qkv",
    "layers.{}.out": "visual_encoder.blocks.{}.attn.proj",
    "layers.{}.between": "visual_encoder.blocks.{}.norm2",
    "layers.{}.up": "visual_encoder.blocks.{}.mlp.fc1",
    "layers.{}.down": "visual_encoder.blocks.{}.mlp.fc2",
}
_HUB_VISION = {
    "cls": "vision_model.embeddings.class_embedding",
    "positions": "vision_model.embeddings.position_embedding",
    "patches": "vision_model.embeddings.patch_embedding",
    "norm": "vision_model.post_layernorm",
    "layers.{}.before": "vision_model.encoder.layers.{}.layer_norm1",
    "layers.{}.qkv": "vision_model.encoder.layers.{}.self_attn.qkv",
    "layers.{}.out": "vision_model.encoder.layers.{}.self_attn.projection",
    "layers.{}.between": "vision_model.encoder.layers.{}.layer_norm2",
    "layers.{}.up": "vision_model.encoder.layers.{}.mlp.fc1",
    "layers.{}.down": "vision_model.encoder.layers.{}.mlp.fc2",
}
_TEXT = {
    "words": "text_encoder.embeddings.word_embeddings",
    "positions": "text_encoder.embeddings.position_embeddings",
    "norm": "text_encoder.embeddings.LayerNorm",
    **{
        f"layers.{{}}.{part}.{ours}": f"text_encoder.encoder.layer.{{}}.{theirs}.{name}"
        for part, theirs in (("own", "attention"), ("image", "crossattention"))
        for ours, name in (
            ("query", "self.query"),
            ("key", "self.key"),
            ("value", "self.value"),
            ("out", "output.dense"),
            ("norm", "output.LayerNorm"),
        )
    },
    "layers.{}.up": "text_encoder.encoder.layer.{}.intermediate.dense",
    "layers.{}.down": "text_encoder.encoder.layer.{}.output.dense",
    "layers.{}.norm": "text_encoder.encoder.layer.{}.output.LayerNorm",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What the container says of both towers: names of tensors, and what their shapes leave open."""

    vision: Mapping[str, str]
    text: Mapping[str, str]
    image_size: int
    vision_heads: int
    text_heads: int
    vision_eps: float
    text_eps: float


def read_layout(
    weights: Weights,
    *,
    prefix: str = "",
    config: Path | None = None,
    sizes: Mapping[int, int] | None = None,
    heads: Sequence[str] = (),
    cross: bool = True,
) -> Layout:
    """The layout of the BLIP model in `weights`, whose names start with `prefix`.

    Sizes come from the shapes. Heads and epsilons come from `config` (a med_config.json, or the config.json of
    transformers, which also gives the image size); without it a head is 64 wide, and the epsilons are BLIP's. The image
    size is the one of the position embedding, unless `sizes` maps it to the one that the model runs at. InputError
    where tensors are missing, of both towers (attention to images only with `cross`) or of `heads`, the names of the
    others that the model needs; and where the configuration does not fit.
    """
    table = _HUB_VISION if _HUB_VISION["cls"] in weights.shapes else _BLIP_VISION
    vision = {ours: prefix + name for ours, name in table.items()}
    text = {ours: prefix + name for ours, name in _TEXT.items()}
    depths = [weights.depth(part["layers.{}.up"]) for part in (vision, text)]
    tensors = [*_tensors(vision, max(1, depths[0])), *_tensors(text, max(1, depths[1]), cross=cross)]
    weights.require([*tensors, *heads], more=0 in depths)
    _, tokens, width = weights.shapes[vision["positions"]]
    patch = weights.shapes[f"{vision['patches']}.weight"][-1]
    of_vision, of_text = _parts(config)
    _check_sizes(config, of_vision, weights, vision)
    _check_sizes(config, of_text, weights, text)
    size = round((tokens - 1) ** 0.5) * patch
    return Layout(
        vision=vision,
        text=text,
        image_size=of_vision.get("image_size") or (sizes or {}).get(size, size),
        vision_heads=_heads(width, of_vision, f"{weights.where}, vision tower"),
        text_heads=_heads(weights.shapes[f"{text['words']}.weight"][1], of_text, f"{weights.where}, text tower"),
        vision_eps=of_vision.get("layer_norm_eps", _EPS["vision"]),
        text_eps=of_text.get("layer_norm_eps", _EPS["text"]),
    )


def _tensors(table: Mapping[str, str], depth: int, *, cross: bool = True) -> Iterator[str]:
    """The container's names of all tensors of a tower with `depth` layers."""
    bare = {"cls"} | ({"positions"} if "cls" in table else set())
    for ours, name in table.items():
        kinds = ("",) if ours in bare else (".weight",) if ours in ("words", "positions") else (".weight", ".bias")
        if cross or ".image." not in ours:
            numbers = range(depth) if "{}" in name else (0,)
            yield from (name.format(number) + kind for number in numbers for kind in kinds)


def _check_sizes(path: Path | None, said: Mapping[str, Any], weights: Weights, table: Mapping[str, str]) -> None:
    """InputError where the configuration of a tower says other sizes than the shapes."""
    inner, width = weights.shapes[f"{table['layers.{}.up']}.weight".format(0)]
    depth = weights.depth(table["layers.{}.up"])
    for name, size in {"hidden_size": width, "intermediate_size": inner, "num_hidden_layers": depth}.items():
        if said.get(name, size) != size:
            tower = "vision" if "cls" in table else "text"
            raise InputError(
                f"{path} belongs to another checkpoint: of the {tower} tower it says {name} {said[name]}, and the "
                f"tensors of {weights.where} say {size}"
            )


def _heads(width: int, config: Mapping[str, Any], where: str) -> int:
    heads: int = config.get("num_attention_heads") or max(1, width // _HEAD)
    if width % heads:
        raise InputError(f"{where}: its width {width} cannot be divided into {heads} heads; see its config")
    return heads


def _parts(path: Path | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """(vision, text) configuration in a file: transformers' has both and leaves defaults out, BLIP's has text alone."""
    if path is None:
        return {}, {}
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        both = "vision_config" in config or config.get("model_type") == "blip"
        vision, text = _defaults(config) if both else ({}, dict(config))
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path}: expected the configuration of a BLIP model in JSON ({error}); get it again"
        ) from None
    for part in (vision, text):
        for name, kind in _SETTINGS.items():
            value = part.get(name, 1)
            if isinstance(value, bool) or not isinstance(value, kind) or value <= 0:
                what = "a whole number" if kind is int else "a number"
                raise InputError(f"{path}: expected {what} above 0 as {name}, got {value!r}; get it again")
        if part.get("hidden_act", "gelu") != "gelu":
            raise InputError(f"{path}: expected hidden_act gelu, as BLIP has; got {part['hidden_act']}")
    return vision, text


def _defaults(config: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    ensure_torchvision()
    from transformers import BlipConfig

    whole = BlipConfig.from_dict(config)
    return whole.vision_config.to_dict(), whole.text_config.to_dict()


@dataclass(frozen=True, slots=True, kw_only=True)
class Towers:
    """Both towers, loaded."""

    vision: Any
    text: Any
    layout: Layout

    @property
    def rows(self) -> int:
        """Rows of the word embedding: token ids are below."""
        rows: int = self.text["words"].num_embeddings
        return rows

    def images(self, pixels: Any) -> Any:
        """The states of all tokens, (B, tokens, width), [CLS] first, of pixels (B, 3, size, size)."""
        import torch

        tower = self.vision
        states = tower["patches"](pixels).flatten(2).transpose(1, 2)
        states = torch.cat([tower.cls.expand(len(states), -1, -1), states], dim=1) + tower.positions
        for layer in tower["layers"]:
            query, key, value = layer["qkv"](layer["before"](states)).chunk(3, dim=-1)
            states = states + layer["out"](_attend(query, key, value, self.layout.vision_heads))
            states = states + layer["down"](_gelu(layer["up"](layer["between"](states))))
        return tower["norm"](states)

    def texts(self, ids: Any, mask: Any, images: Any = None) -> Any:
        """The last state of [CLS], (B, width), of token ids (B, L) where mask (B, L) is true.

        With `images`, states as `images()` gives them, row i also looks at image i; without, the text stands alone.
        """
        tower, heads = self.text, self.layout.text_heads
        states = tower["norm"](tower["words"](ids) + tower["positions"].weight[: ids.shape[1]])
        last = len(tower["layers"]) - 1
        for number, layer in enumerate(tower["layers"]):
            # Nothing else of the last layer is read.
            asking = states[:, :1] if number == last else states
            asking = _look(layer["own"], asking, states, heads, mask[:, None, None, :])
            if images is not None:
                asking = _look(layer["image"], asking, images, heads, None)
            states = layer["norm"](asking + layer["down"](_gelu(layer["up"](asking))))
        return states[:, 0]


def _gelu(states: Any) -> Any:
    import torch

    return torch.nn.functional.gelu(states)


def _attend(query: Any, key: Any, value: Any, heads: int, mask: Any = None) -> Any:
    import torch

    apart = [states.unflatten(-1, (heads, -1)).transpose(1, 2) for states in (query, key, value)]
    return torch.nn.functional.scaled_dot_product_attention(*apart, attn_mask=mask).transpose(1, 2).flatten(2)


def _look(part: Any, asking: Any, states: Any, heads: int, mask: Any) -> Any:
    """BERT's attention: `asking` looks at `states`; residual, then norm."""
    found = _attend(part["query"](asking), part["key"](states), part["value"](states), heads, mask)
    return part["norm"](asking + part["out"](found))


def build_towers(weights: Weights, layout: Layout, *, cross: bool, dtype: Any, device: str) -> Towers:
    """Both towers of `weights`; the text tower looks at images only with `cross`."""
    vision = empty(lambda: _vision(weights, layout))
    text = empty(lambda: _text(weights, layout, cross))
    fill(vision, weights, _names(vision, layout.vision), dtype=dtype, device=device)
    fill(text, weights, _names(text, layout.text), dtype=dtype, device=device)
    _interpolate(vision, weights, layout)
    return Towers(vision=vision, text=text, layout=layout)


def _names(module: Any, table: Mapping[str, str]) -> dict[str, str]:
    """The container's name of every parameter of `module`."""
    names = {}
    for name, _ in module.named_parameters():
        if name in table:
            names[name] = table[name]
            continue
        stem, _, leaf = name.rpartition(".")
        number = re.search(r"\d+", stem)
        names[name] = f"{table[re.sub(r'[0-9]+', '{}', stem)].format(number and number.group())}.{leaf}"
    return names


def _vision(weights: Weights, layout: Layout) -> Any:
    import torch
    from torch.nn import Conv2d, LayerNorm, Linear, ModuleDict, ModuleList, Parameter

    names, shapes = layout.vision, weights.shapes
    width, _, patch, _ = shapes[f"{names['patches']}.weight"]
    hidden = shapes[f"{names['layers.{}.up']}.weight".format(0)][0]

    def layer() -> Any:
        return ModuleDict(
            {
                "before": LayerNorm(width, eps=layout.vision_eps),
                "qkv": Linear(width, 3 * width),
                "out": Linear(width, width),
                "between": LayerNorm(width, eps=layout.vision_eps),
                "up": Linear(width, hidden),
                "down": Linear(hidden, width),
            }
        )

    tower = ModuleDict(
        {
            "patches": Conv2d(3, width, patch, stride=patch),
            "layers": ModuleList([layer() for _ in range(weights.depth(names["layers.{}.up"]))]),
            "norm": LayerNorm(width, eps=layout.vision_eps),
        }
    )
    tower.register_parameter("cls", Parameter(torch.empty(1, 1, width)))
    tower.register_parameter("positions", Parameter(torch.empty(*shapes[names["positions"]])))
    return tower


def _text(weights: Weights, layout: Layout, cross: bool) -> Any:
    import torch
    from torch.nn import Embedding, LayerNorm, Linear, ModuleDict, ModuleList

    names, shapes = layout.text, weights.shapes
    vocabulary, width = shapes[f"{names['words']}.weight"]
    positions = shapes[f"{names['positions']}.weight"][0]
    hidden = shapes[f"{names['layers.{}.up']}.weight".format(0)][0]
    of_images = shapes[f"{layout.vision['patches']}.weight"][0]

    def attention(source: int) -> Any:
        parts = {"query": Linear(width, width), "key": Linear(source, width), "value": Linear(source, width)}
        return ModuleDict({**parts, "out": Linear(width, width), "norm": LayerNorm(width, eps=layout.text_eps)})

    def layer() -> Any:
        looks = {"own": attention(width), **({"image": attention(of_images)} if cross else {})}
        rest = {"up": Linear(width, hidden), "down": Linear(hidden, width)}
        return ModuleDict({**looks, **rest, "norm": LayerNorm(width, eps=layout.text_eps)})

    def embedding(rows: int) -> Any:
        # Without weights of its own torch would make random ones, which on the meta device takes seconds of imports.
        return Embedding(rows, width, _weight=torch.empty(rows, width, device="meta"))

    return ModuleDict(
        {
            "words": embedding(vocabulary),
            "positions": embedding(positions),
            "norm": LayerNorm(width, eps=layout.text_eps),
            "layers": ModuleList([layer() for _ in range(weights.depth(names["layers.{}.up"]))]),
        }
    )


def _interpolate(vision: Any, weights: Weights, layout: Layout) -> None:
    """Resize the grid of the position embedding to the image size, as BLIP does: bicubic, in float32."""
    import torch

    name = layout.vision["positions"]
    side = layout.image_size // vision["patches"].kernel_size[0]
    if vision.positions.shape[1] == side * side + 1:
        return
    positions = weights.read([name])[name].float()
    grid = round((positions.shape[1] - 1) ** 0.5)
    square = positions[:, 1:].unflatten(1, (grid, grid)).permute(0, 3, 1, 2)
    square = torch.nn.functional.interpolate(square, size=(side, side), mode="bicubic", align_corners=False)
    resized = torch.cat([positions[:, :1], square.flatten(2).transpose(1, 2)], dim=1)
    vision.positions = torch.nn.Parameter(resized.to(vision.cls), requires_grad=False)


class BlipTokens:
    """Prompts as BERT tokens, each distinct prompt read once: at most `WINDOW`, then padded to the longest of a batch.

    BLIP pads to 35; a pad is masked everywhere, so that fewer of them change nothing.
    """

    def __init__(self, tokenizer: TextTokenizer) -> None:
        self.tokenizer = tokenizer
        self._ids = lru_cache(_PROMPTS_KEPT)(self._read)

    def batch(self, prompts: Sequence[str], *, rows: int, where: str) -> tuple[Any, Any]:
        """(ids, mask), both (B, L); InputError where an id is not among the `rows` of the model's embedding."""
        import torch

        found = [self._ids(prompt) for prompt in prompts]
        if (largest := max(map(max, found))) >= rows:
            raise InputError(
                f"{where}: the vocabulary gives the token {largest}, the checkpoint knows {rows} tokens; give the "
                "vocabulary of this checkpoint as tokenizer"
            )
        ids = torch.zeros(len(found), max(map(len, found)), dtype=torch.int64)
        mask = torch.zeros(ids.shape, dtype=torch.bool)
        for row, tokens in enumerate(found):
            ids[row, : len(tokens)] = torch.tensor(tokens)
            mask[row, : len(tokens)] = True
        return ids, mask

    def _read(self, prompt: str) -> list[int]:
        ids = self.tokenizer.ids(prompt)
        return ids if len(ids) <= WINDOW else [*ids[: WINDOW - 1], ids[-1]]
