"""CLIP once more, slowly: float64, one head at a time, from the published description; tensors by OpenAI's names."""

import functools
import gzip
import html
import itertools
import math

import numpy as np
import PIL.Image
import torch

from tests.rewards.awkward import IMAGES, PROMPTS
from tests.rewards.made_clip import VOCABULARY

MEAN = np.array([0.48145466, 0.4578275, 0.40821073])
STD = np.array([0.26862954, 0.26130258, 0.27577711])
ALL_IMAGES, ALL_PROMPTS = tuple(IMAGES.values()), tuple(PROMPTS)
OPENAI, HPSV2 = ("<|startoftext|>", "<|endoftext|>"), ("<start_of_text>", "<end_of_text>")


def standardized(values):
    """(H, W, 3) from 0 to 1 as (3, H, W) around 0."""
    return torch.from_numpy((np.asarray(values, dtype=np.float64) - MEAN) / STD).permute(2, 0, 1)


def cropped(image, *, rgb_first):
    """The middle of the image at 224 pixels: PickScore's way with `rgb_first`, else OpenAI's."""
    image = image.convert("RGB") if rgb_first else image
    short, long = min(image.size), max(image.size)
    sides = [224 if side == short else int(224 * long / short) for side in image.size]
    image = image.resize(sides, PIL.Image.Resampling.BICUBIC)
    left, top = ((side - 224) // 2 if rgb_first else round((side - 224) / 2) for side in image.size)
    return standardized(np.asarray(image.crop((left, top, left + 224, top + 224)).convert("RGB")) / 255)


def barred(image, *, antialias):
    """The whole image at 224 pixels between black bars, scaled as numbers and not as pixels: HPSv2's way."""
    pixels = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)[None] / 255
    scale = 224 / max(pixels.shape[2:])
    sides = [round(side * scale) for side in pixels.shape[2:]]
    if scale != 1:
        pixels = torch.nn.functional.interpolate(pixels, sides, mode="bicubic", antialias=antialias)
    canvas = np.zeros((224, 224, 3))
    top, left = ((224 - side) // 2 for side in sides)
    canvas[top : top + sides[0], left : left + sides[1]] = pixels[0].permute(1, 2, 0)
    return standardized(canvas)


@functools.cache
def parts():
    """(letter of every byte, id of every token, rank of every pair) of CLIP's vocabulary."""
    merges = gzip.decompress(VOCABULARY.read_bytes()).decode().split("\n")[1 : 49152 - 256 - 2 + 1]
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in visible]
    letters = {byte: chr(byte) for byte in visible} | {byte: chr(256 + n) for n, byte in enumerate(hidden)}
    tokens = [*letters.values(), *(f"{each}</w>" for each in letters.values()), *(m.replace(" ", "") for m in merges)]
    pairs = [tuple(each.split()) for each in merges]
    return letters, {token: n for n, token in enumerate(tokens)}, {pair: n for n, pair in enumerate(pairs)}


def _merged(word):
    letters, _, ranks = parts()
    pieces = [letters[byte] for byte in word.encode()]
    pieces[-1] += "</w>"
    while len(pieces) > 1:
        pairs = list(itertools.pairwise(pieces))
        best = min(pairs, key=lambda pair: ranks.get(pair, math.inf))
        if best not in ranks:
            break
        joined, n = [], 0
        while n < len(pieces):
            both = tuple(pieces[n : n + 2]) == best
            joined.append("".join(best) if both else pieces[n])
            n += 2 if both else 1
        pieces = joined
    return pieces


def openai_ids(text, special=OPENAI):
    """Every id of a text, start and end included, as OpenAI's tokenizer and the one in hpsv2 read it."""
    import ftfy
    import regex

    _, vocabulary, _ = parts()
    text = " ".join(html.unescape(html.unescape(ftfy.fix_text(text))).split()).lower()
    words = "|".join(map(regex.escape, special)) + r"|'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"
    ids = [49406]
    for word in regex.findall(words, text):
        ids += [49406 + special.index(word)] if word in special else [vocabulary[part] for part in _merged(word)]
    return [*ids, 49407]


@functools.cache
def _transformers():
    from transformers import CLIPTokenizer

    _, vocabulary, ranks = parts()
    ends = {word: 49406 + n for n, word in enumerate(OPENAI)}
    return CLIPTokenizer(vocab=vocabulary | ends, merges=list(ranks))


def transformers_ids(text):
    """Every id of a text, start and end included, by transformers' own tokenizer."""
    return _transformers()(text)["input_ids"]


def cut(ids):
    """77 ids: too long a row is cut and ends with the end."""
    return ids if len(ids) <= 77 else [*ids[:76], 49407]


def gelu(x):
    return x / 2 * (1 + torch.erf(x / math.sqrt(2)))


def quick_gelu(x):
    return x * torch.sigmoid(1.702 * x)


class SlowClip:
    """Features of length 1 of one image or one row of ids; `heads` of the image and of the text tower."""

    def __init__(self, tensors, *, heads, activation):
        self.tensors = {name: each.double() for name, each in tensors.items()}
        self.heads, self.activation = heads, activation

    def image(self, pixels):
        return self._unit(self._norm("visual.ln_post", self.patches(pixels)[0]) @ self.tensors["visual.proj"])

    def patches(self, pixels):
        """Class token and patches as the last layer leaves them."""
        t = self.tensors
        size = t["visual.conv1.weight"].shape[-1]
        patches = pixels.unfold(1, size, size).unfold(2, size, size).permute(1, 2, 0, 3, 4).flatten(2).flatten(0, 1)
        x = torch.cat([t["visual.class_embedding"][None], patches @ t["visual.conv1.weight"].flatten(1).T])
        x = self._norm("visual.ln_pre", x + t["visual.positional_embedding"])
        return self._blocks("visual.transformer", x, self.heads[0], causal=False)

    def text(self, ids):
        t = self.tensors
        x = t["token_embedding.weight"][ids] + t["positional_embedding"][: len(ids)]
        x = self._norm("ln_final", self._blocks("transformer", x, self.heads[1], causal=True))
        return self._unit(x[ids.index(49407)] @ t["text_projection"])

    def cosines(self, prepare, ids_of, images=ALL_IMAGES, prompts=ALL_PROMPTS):
        """One row for each image, one column for each prompt."""
        texts = torch.stack([self.text(cut(ids_of(prompt))) for prompt in prompts])
        return (torch.stack([self.image(prepare(image)) for image in images]) @ texts.T).numpy()

    def _blocks(self, stem, x, heads, *, causal):
        number, t = 0, self.tensors
        while f"{stem}.resblocks.{number}.ln_1.weight" in t:
            name = f"{stem}.resblocks.{number}"
            x = x + self._attention(name, self._norm(f"{name}.ln_1", x), heads, causal=causal)
            inner = self.activation(self._linear(f"{name}.mlp.c_fc.", self._norm(f"{name}.ln_2", x)))
            x = x + self._linear(f"{name}.mlp.c_proj.", inner)
            number += 1
        return x

    def _attention(self, name, x, heads, *, causal):
        queries, keys, values = self._linear(f"{name}.attn.in_proj_", x).chunk(3, dim=-1)
        size, found = x.shape[1] // heads, []
        hidden = torch.ones(len(x), len(x), dtype=torch.bool).triu(1) & causal
        for head in range(heads):
            part = slice(head * size, (head + 1) * size)
            likeness = (queries[:, part] @ keys[:, part].T / math.sqrt(size)).masked_fill(hidden, -math.inf)
            found.append(likeness.softmax(dim=-1) @ values[:, part])
        return self._linear(f"{name}.attn.out_proj.", torch.cat(found, dim=1))

    def _linear(self, name, x):
        return x @ self.tensors[f"{name}weight"].T + self.tensors[f"{name}bias"]

    def _norm(self, name, x):
        x = x - x.mean(dim=-1, keepdim=True)
        x = x / (x.square().mean(dim=-1, keepdim=True) + 1e-5).sqrt()
        return x * self.tensors[f"{name}.weight"] + self.tensors[f"{name}.bias"]

    def _unit(self, x):
        return x / x.square().sum().sqrt()


def grid(model, images=ALL_IMAGES, prompts=ALL_PROMPTS):
    """The scores of every image under every prompt, one row for each image, in one call."""
    rows = [(image, prompt) for image in images for prompt in prompts]
    return model.score(*zip(*rows, strict=True)).reshape(len(images), len(prompts))
