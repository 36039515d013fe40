"""HPSv3 as its description has it: plain steps in float64, the whole conversation at once, no cache."""

import math
import unicodedata
from itertools import pairwise

import numpy as np
import regex
import torch
from PIL import Image

from tests.rewards import made_hpsv3 as made

WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
IM_START, IM_END, VISION_START, VISION_END, IMAGE_PAD, REWARD = 151644, 151645, 151652, 151653, 151655, 151657


# The slow path: tokens.


def merged(word, ranks):
    """Byte pair encoding by the book."""
    if word in ranks:
        return [ranks[word]]
    parts = [word[place : place + 1] for place in range(len(word))]
    while True:
        pairs = [(ranks[a + b], n) for n, (a, b) in enumerate(pairwise(parts)) if a + b in ranks]
        if not pairs:
            return [ranks[part] for part in parts]
        n = min(pairs)[1]
        parts[n : n + 2] = [parts[n] + parts[n + 1]]


SPECIAL = [
    *("endoftext", "im_start", "im_end", "object_ref_start", "object_ref_end", "box_start", "box_end"),
    *("quad_start", "quad_end", "vision_start", "vision_end", "vision_pad", "-", "video_pad"),
]
"""In the order of their ids from 151643 on; in the place of the dash is the image, which a prompt cannot hold."""


def prompt_ids(text, ranks):
    """Text with special tokens in it."""
    places = sorted((text.find(f"<|{name}|>"), name) for name in SPECIAL if f"<|{name}|>" in text)
    if not places:
        return text_ids(text, ranks)
    start, name = places[0]
    rest = text[start + len(name) + 4 :]
    return [*text_ids(text[:start], ranks), 151643 + SPECIAL.index(name), *prompt_ids(rest, ranks)]


def text_ids(text, ranks):
    words = regex.findall(WORDS, unicodedata.normalize("NFC", text))
    return [number for word in words for number in merged(word.encode(), ranks)]


def conversation_ids(instruction, prompt, image_tokens, ranks):
    """Every id of the official conversation, what follows the reward token too."""
    ask = instruction.replace("{text_prompt}", prompt) + "\nPlease provide the overall ratings of this image: "
    parts = [
        *[IM_START, "system\nYou are a helpful assistant.", IM_END, "\n", IM_START, "user\n"],
        *[VISION_START, *[IMAGE_PAD] * image_tokens, VISION_END, ask, REWARD, "\n\nEND\n"],
        *[IM_END, "\n", IM_START, "assistant\n"],
    ]
    return [number for part in parts for number in ([part] if isinstance(part, int) else prompt_ids(part, ranks))]


RANKS = {token: rank for rank, token in enumerate(made.RANKS)}


# The slow path: image.


def resized(image):
    """RGB with sides that are multiples of 28 and about 200,704 pixels."""
    width, height = image.size
    budget = 256 * 28 * 28
    sides = [max(28, round(side / 28) * 28) for side in (height, width)]
    if sides[0] * sides[1] > budget:
        beta = math.sqrt(height * width / budget)
        sides = [math.floor(side / beta / 28) * 28 for side in (height, width)]
    elif sides[0] * sides[1] < budget:
        beta = math.sqrt(budget / (height * width))
        sides = [math.ceil(side * beta / 28) * 28 for side in (height, width)]
    return image.convert("RGB").resize((sides[1], sides[0]), Image.Resampling.BICUBIC)


def patches_of(image):
    """(patches, 3 * 2 * 14 * 14) in groups of 2 x 2, and where each patch lies."""
    mean, deviation = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    pixels = (np.asarray(image) / 255 - mean) / deviation
    rows, columns = image.height // 14, image.width // 14
    found, places = [], []
    for top in range(0, rows, 2):
        for left in range(0, columns, 2):
            for row, column in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
                patch = pixels[14 * row : 14 * row + 14, 14 * column : 14 * column + 14].transpose(2, 0, 1)
                found.append(np.stack([patch, patch], axis=1).ravel())
                places.append((row, column))
    return torch.from_numpy(np.array(found)), torch.tensor(places)


# The slow path: networks.


def turned(x, angles):
    """Rotary embedding: x (heads, L, d), angles (L, d / 2)."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * angles.cos() - b * angles.sin(), b * angles.cos() + a * angles.sin()], dim=-1)


def attended(queries, keys, values, causal):
    weights = queries @ keys.transpose(-1, -2) / math.sqrt(queries.shape[-1])
    if causal:
        weights = weights.masked_fill(torch.ones(weights.shape[-2:]).triu(1).bool(), -math.inf)
    return (weights.softmax(dim=-1) @ values).transpose(0, 1).flatten(1)


class Slow:
    def __init__(self, state):
        self.state = {name: tensor.double() for name, tensor in state.items() if name != "lm_head.weight"}
        self.seen = {}

    def linear(self, name, x):
        return torch.nn.functional.linear(x, self.state[f"{name}.weight"], self.state.get(f"{name}.bias"))

    def layer_norm(self, name, x):
        x = x - x.mean(dim=-1, keepdim=True)
        x = x / (x.square().mean(dim=-1, keepdim=True) + 1e-6).sqrt()
        return x * self.state[f"{name}.weight"] + self.state[f"{name}.bias"]

    def rms_norm(self, name, x):
        square = x.square().mean(dim=-1, keepdim=True)
        return x / (square + made.CONFIG["rms_norm_eps"]).sqrt() * self.state[f"{name}.weight"]

    def image_tokens(self, image):
        patches, places = patches_of(image)
        x = patches @ self.state["visual.patch_embed.proj.weight"].flatten(1).T
        quarter = made.PICTURE_WIDTH // made.PICTURE_HEADS // 4
        steps = 10000.0 ** -(torch.arange(quarter, dtype=torch.float64) / quarter)
        angles = (places[:, :, None] * steps).flatten(1)
        for number in range(made.PICTURE_DEPTH):
            stem = f"visual.blocks.{number}"
            packed = self.linear(f"{stem}.attn.qkv", self.layer_norm(f"{stem}.norm1", x))
            q, k, v = packed.unflatten(1, (3, made.PICTURE_HEADS, -1)).permute(1, 2, 0, 3)
            x = x + self.linear(f"{stem}.attn.proj", attended(turned(q, angles), turned(k, angles), v, causal=False))
            y = self.linear(f"{stem}.mlp.fc1", self.layer_norm(f"{stem}.norm2", x))
            x = x + self.linear(f"{stem}.mlp.fc2", y * (1.702 * y).sigmoid())
        x = self.layer_norm("visual.merger.ln_q", x).reshape(len(x) // 4, -1)
        return self.linear("visual.merger.mlp.2", torch.nn.functional.gelu(self.linear("visual.merger.mlp.0", x)))

    def hidden(self, ids, image, places=None):
        """(L, D): the normed hidden states; `places` (3, L) are 0, 1, 2, ... on all three axes unless given."""
        ids = torch.tensor(ids)
        x = self.state["model.embed_tokens.weight"][ids]
        if (key := image.tobytes()) not in self.seen:
            self.seen[key] = self.image_tokens(image)
        x[ids == IMAGE_PAD] = self.seen[key]
        channels = made.WIDTH // made.HEADS
        axis = torch.tensor([0, 0, 1, 1, 1, 2, 2, 2]).repeat_interleave(channels // 16)
        places = torch.arange(len(ids)).expand(3, -1) if places is None else places
        angles = places[axis].T * made.CONFIG["rope_theta"] ** -(
            torch.arange(0, channels, 2, dtype=torch.float64) / channels
        )
        for number in range(made.DEPTH):
            stem = f"model.layers.{number}"
            y = self.rms_norm(f"{stem}.input_layernorm", x)
            q, k, v = (
                self.linear(f"{stem}.self_attn.{name}_proj", y).unflatten(1, (-1, channels)).transpose(0, 1)
                for name in "qkv"
            )
            k, v = (each.repeat_interleave(made.HEADS // made.GROUPS, dim=0) for each in (turned(k, angles), v))
            x = x + self.linear(f"{stem}.self_attn.o_proj", attended(turned(q, angles), k, v, causal=True))
            y = self.rms_norm(f"{stem}.post_attention_layernorm", x)
            gate = torch.nn.functional.silu(self.linear(f"{stem}.mlp.gate_proj", y))
            x = x + self.linear(f"{stem}.mlp.down_proj", gate * self.linear(f"{stem}.mlp.up_proj", y))
        return self.rms_norm("model.norm", x)

    def mean(self, hidden):
        x = self.linear("rm_head.0", hidden).relu()
        return float(self.linear("rm_head.5", self.linear("rm_head.3", x).relu())[0])

    def score(self, image, prompt, places=None):
        small = resized(image)
        ids = conversation_ids(made.INSTRUCTION, prompt, small.width * small.height // 784, RANKS)
        given = None if places is None else places(ids, small)
        return self.mean(self.hidden(ids, small, given)[ids.index(REWARD)])


def by_row_and_column(ids, image):
    """Qwen2-VL's own positions, which HPSv3's official code does not use."""
    start, rows, columns = ids.index(IMAGE_PAD), image.height // 28, image.width // 28
    places = torch.arange(len(ids)).repeat(3, 1)
    for n in range(rows * columns):
        places[:, start + n] = start + torch.tensor([0, n // columns, n % columns])
    places[:, start + rows * columns :] += max(rows, columns) - rows * columns
    return places
