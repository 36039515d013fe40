"""The cross model of MPS: the tokens of an image read the kept tokens of a prompt, layer after layer.

A layer has two parts, each added to what came in. The first: the image tokens, normalized, read the prompt by attention
of many query heads to one key and value head, beside a gated feed-forward of the same input. The second: the image
tokens, normalized, attend to one another in the same way, with rotary positions, beside such a feed-forward. The prompt
is not normalized, nothing is normalized at the end, and only the first image token is read out.
Source: Zhang et al., "Learning Multi-Dimensional Human Preference for Text-to-Image Generation", 2024.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .checkpoints import Take, Weights

__all__ = ["CrossSize", "attend", "build", "cross_size", "cross_weights", "names", "read_angles", "read_prompts"]


_LAYERS = "cross_model.layers.{}"


@dataclass(frozen=True, slots=True)
class CrossSize:
    """`width` of a token, `heads` query heads of width `head`, feed-forward of width `hidden`, number of `layers`."""

    width: int
    heads: int
    head: int
    hidden: int
    layers: int


def cross_size(weights: Weights) -> CrossSize:
    """The sizes that the shapes tell, where there are all `cross_weights`. InputError where they do not fit."""
    query, keys, down = (f"{_LAYERS.format(0)}.0.fn.{name}.weight" for name in ("to_q", "to_kv", "ff.2"))
    inner, width = weights.shapes[query]
    head = weights.shapes[keys][0] // 2
    hidden = weights.shapes[down][1]
    size = CrossSize(width=width, heads=inner // head, head=head, hidden=hidden, layers=weights.depth(_LAYERS))
    fused = {take.source for take in names(size).values() if isinstance(take, Take)}
    weights.expect(dict.fromkeys(fused, (inner + 2 * head + 2 * hidden, width)))
    return size


def cross_weights(weights: Weights) -> tuple[list[str], bool]:
    """(names of all tensors of the cross model, whether there are more: where it has no layer, those of one)."""
    found = weights.depth(_LAYERS)
    size = CrossSize(width=0, heads=0, head=0, hidden=0, layers=max(1, found))
    needed = {take.source if isinstance(take, Take) else take for take in names(size).values()}
    angles = {f"{_LAYERS.format(number)}.1.fn." for number in range(size.layers)}
    needed |= {f"{part}rotary_emb.inv_freq" for part in angles if f"{part}pos_emb" not in weights.shapes}
    return sorted(needed), found == 0


def build(size: CrossSize) -> Any:
    """The modules of the layers, a ModuleList of ModuleDicts, with whatever weights torch starts from."""
    from torch import nn

    inner = size.heads * size.head

    def layer() -> Any:
        part = {
            "query": (size.width, inner),
            "keys": (size.width, 2 * size.head),
            "up": (size.width, 2 * size.hidden),
            "out": (inner, size.width),
            "down": (size.hidden, size.width),
        }
        modules = {
            f"{place}_{name}": nn.Linear(*sides, bias=False)
            for place in ("read", "mix")
            for name, sides in part.items()
        }
        norms = {f"{place}_norm": nn.LayerNorm(size.width) for place in ("read", "mix")}
        return nn.ModuleDict(modules | norms)

    return nn.ModuleList([layer() for _ in range(size.layers)])


def names(size: CrossSize) -> dict[str, str | Take]:
    """Of which weight of the official checkpoint each parameter of `build` is made."""
    inner, both = size.heads * size.head, 2 * size.head
    found: dict[str, str | Take] = {}
    for number in range(size.layers):
        read, mix = f"cross_model.layers.{number}.0.fn.", f"cross_model.layers.{number}.1.fn."
        # One matrix holds the rows of three: they are kept apart because the last layer needs not all for every token.
        fused = f"{mix}fused_attn_ff_proj.weight"
        layer: dict[str, str | Take] = {
            "read_norm.weight": f"{read}norm.weight",
            "read_norm.bias": f"{read}norm.bias",
            "read_query.weight": f"{read}to_q.weight",
            "read_keys.weight": f"{read}to_kv.weight",
            "read_up.weight": f"{read}ff.0.weight",
            "read_out.weight": f"{read}to_out.weight",
            "read_down.weight": f"{read}ff.2.weight",
            "mix_norm.weight": f"{mix}norm.weight",
            "mix_norm.bias": f"{mix}norm.bias",
            "mix_query.weight": Take(fused, rows=slice(0, inner)),
            "mix_keys.weight": Take(fused, rows=slice(inner, inner + both)),
            "mix_up.weight": Take(fused, rows=slice(inner + both, inner + both + 2 * size.hidden)),
            "mix_out.weight": f"{mix}attn_out.weight",
            "mix_down.weight": f"{mix}ff_out.1.weight",
        }
        found |= {f"{number}.{name}": source for name, source in layer.items()}
    return found


def read_angles(weights: Weights, size: CrossSize, tokens: int) -> Any:
    """The angles of the rotary positions, float32 (layers, tokens, head / 2), from what the checkpoint holds.

    The released file holds its frequencies in float16, and they must be read, not made anew. A module that was saved
    after use holds the angles as well, and its own code then takes those.
    """
    import torch

    found = []
    for number in range(size.layers):
        part = f"cross_model.layers.{number}.1.fn."
        kept = weights.shapes.get(f"{part}pos_emb", (0,))
        if kept[0] >= tokens:
            angles = weights.read([f"{part}pos_emb"])[f"{part}pos_emb"][:tokens, : size.head // 2].float()
        else:
            name = f"{part}rotary_emb.inv_freq"
            angles = torch.outer(torch.arange(tokens, dtype=torch.float32), weights.read([name])[name].float())
        found.append(angles)
    return torch.stack(found)


def read_prompts(layers: Any, tokens: Any) -> Any:
    """Keys and values of every layer for prompt tokens (B, M, width): (B, layers, M, 2 x head)."""
    import torch

    return torch.stack([layer["read_keys"](tokens) for layer in layers], dim=1)


def attend(layers: Any, angles: Any, images: Any, prompts: Any, kept: Any) -> Any:
    """The first image token after all layers, (B, width).

    `images` (B, N, width) are image tokens, `prompts` what `read_prompts` gave, `kept` (B, M) which tokens of the
    prompt can be read, `angles` (layers, N, head / 2) the rotary positions.
    """
    for number, layer in enumerate(layers):
        images = _read(layer, images, prompts[:, number], kept)
        images = _mix(layer, images, angles[number], 1 if number == len(layers) - 1 else images.shape[1])
    return images[:, 0]


def _read(layer: Any, tokens: Any, keys: Any, kept: Any) -> Any:
    """The first part of a layer."""
    normed = layer["read_norm"](tokens)
    own, values = keys.chunk(2, dim=-1)
    read = _attention(layer["read_query"](normed), own, values, kept[:, None, None])
    return tokens + (layer["read_out"](read) + _feed(layer, "read", normed))


def _mix(layer: Any, tokens: Any, angles: Any, wanted: int) -> Any:
    """The second part of a layer, for the first `wanted` tokens, which attend to all."""
    normed = layer["mix_norm"](tokens)
    keys, values = layer["mix_keys"](normed).chunk(2, dim=-1)
    first = normed[:, :wanted]
    query = layer["mix_query"](first).unflatten(-1, (-1, keys.shape[-1]))
    query = _rotated(query, angles[:wanted, None]).flatten(-2)
    mixed = _attention(query, _rotated(keys, angles), values, None)
    return tokens[:, :wanted] + (layer["mix_out"](mixed) + _feed(layer, "mix", first))


def _attention(query: Any, keys: Any, values: Any, kept: Any) -> Any:
    """Attention of queries (B, N, heads x head) to one head of keys and values (B, M, head); same shape as `query`."""
    from torch.nn.functional import scaled_dot_product_attention

    batch, count, inner = query.shape
    # All heads read the same keys, so that heads are no more than further queries.
    flat = query.reshape(batch, 1, count * inner // keys.shape[-1], keys.shape[-1])
    return scaled_dot_product_attention(flat, keys[:, None], values[:, None], attn_mask=kept).reshape(
        batch, count, inner
    )


def _feed(layer: Any, part: str, tokens: Any) -> Any:
    """The gated feed-forward of a part."""
    from torch.nn.functional import silu

    value, gate = layer[f"{part}_up"](tokens).chunk(2, dim=-1)
    return layer[f"{part}_down"](silu(gate) * value)


def _rotated(vectors: Any, angles: Any) -> Any:
    """Each pair (i, i + half) of the last axis turned by its angle; the angles stay in float32 up to here."""
    import torch

    cosine, sine = angles.cos().to(vectors.dtype), angles.sin().to(vectors.dtype)
    one, two = vectors.chunk(2, dim=-1)
    return torch.cat((one * cosine - two * sine, two * cosine + one * sine), dim=-1)
