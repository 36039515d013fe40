"""MPS against a slow path written from its description: float64, one pair, one head and one layer at a time."""

from __future__ import annotations

import functools
import gzip
import io
import json
import math
import tempfile
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from safetensors.torch import save_file

from tests.rewards.made_mps import CLIP_FILE, checkpoint, network, save_module
from widespectrum.errors import InputError
from widespectrum.rewards.mps import CONDITION, MpsReward

pytestmark = pytest.mark.skipif(not CLIP_FILE.exists(), reason="CLIP's vocabulary is not on this machine")

CLOSE = 2e-4  # of scores that reach 100; the official code's own float32 is about this far from float64
PROMPTS = [
    "",
    "  \t ",
    "a dull gray photograph of a man, blurred and underexposed",
    " ".join(["dog"] * 75),
    "word " * 90 + "end",
    "a café, naïve Ünïcode, ﬁne, 中文字, 日本語 😀👍🏽 e\u0301",
    "cats &amp; dogs &lt;b&gt;",
    "donâ€™t schÃ¶n",
    "a <|startoftext|> b <|endoftext|> c",
    "<start_of_text> [SEP] <|image_pad|>",
]


def noise(height, width, channels, seed):
    rng = np.random.default_rng(seed)
    small = PIL.Image.fromarray(rng.integers(0, 256, (6, 6, 4), dtype=np.uint8)).resize((width, height))
    values = np.asarray(small, dtype=float)[..., :channels] + rng.normal(0, 12, (height, width, channels))
    return np.clip(values, 0, 255).astype(np.uint8).squeeze(-1 if channels == 1 else ())


def turned():
    image = PIL.Image.fromarray(noise(200, 330, 3, 9))
    exif, file = image.getexif(), io.BytesIO()
    exif[274] = 6
    image.save(file, "png", exif=exif)
    return PIL.Image.open(file)


IMAGES = {
    "gray": PIL.Image.fromarray(noise(300, 260, 1, 0)),
    "gray and alpha": PIL.Image.fromarray(noise(256, 256, 4, 1)).convert("LA"),
    "palette": PIL.Image.fromarray(noise(240, 320, 3, 2)).quantize(32),
    "alpha": PIL.Image.fromarray(noise(280, 301, 4, 3)),
    "7 x 5": PIL.Image.fromarray(noise(5, 7, 3, 4)),
    "1600 x 90": PIL.Image.fromarray(noise(90, 1600, 3, 5)),
    "60 x 700": PIL.Image.fromarray(noise(700, 60, 3, 6)),
    "224 x 224": PIL.Image.fromarray(noise(224, 224, 3, 7)),
    "224 x 150": PIL.Image.fromarray(noise(150, 224, 3, 8)),
    "turned": turned(),
    "fine": PIL.Image.fromarray(np.random.default_rng(10).integers(0, 256, (900, 900, 3), dtype=np.uint8)),
}


@functools.cache
def tokenizer():
    """transformers' own fast tokenizer, from the published merges."""
    from transformers import CLIPTokenizerFast

    merges = gzip.decompress(CLIP_FILE.read_bytes()).decode().split("\n")[1 : 49152 - 256 - 2 + 1]
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = [*map(chr, visible), *(chr(256 + n) for n in range(256 - len(visible)))]
    tokens = [*letters, *(f"{each}</w>" for each in letters), *(each.replace(" ", "") for each in merges)]
    vocabulary = {token: n for n, token in enumerate([*tokens, "<|startoftext|>", "<|endoftext|>"])}
    with tempfile.TemporaryDirectory() as name:
        (folder := Path(name)).joinpath("vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
        folder.joinpath("merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")
        return CLIPTokenizerFast.from_pretrained(name)


def ids_of(text):
    found = tokenizer()(text, truncation=True, max_length=77)["input_ids"]
    return found + [49407] * (77 - len(found))


def pixels_of(image):
    image = image.convert("RGB")
    width, height = image.size
    side = 224 / min(width, height)
    image = image.resize((224, int(height * side)) if width <= height else (int(width * side), 224), 3)
    left, top = (image.width - 224) // 2, (image.height - 224) // 2
    values = np.asarray(image.crop((left, top, left + 224, top + 224))) / 255
    mean, deviation = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
    return torch.from_numpy((values - mean) / deviation).permute(2, 0, 1)


class Slow:
    """The official arithmetic from a module's tensors in float64; nothing of the package is used."""

    def __init__(self, module, threshold=0.3):
        buffers = {name: each for name, each in module.named_buffers() if each.is_floating_point()}
        self.tensors = {name: each.detach().double() for name, each in [*module.named_parameters(), *buffers.items()]}
        self.threshold = threshold
        self.condition = self.text(CONDITION)

    def linear(self, x, name):
        bias = self.tensors.get(f"{name}.bias")
        return x @ self.tensors[f"{name}.weight"].T + (0 if bias is None else bias)

    def norm(self, x, name):
        centered = x - x.mean(-1, keepdim=True)
        scaled = centered / (centered.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return scaled * self.tensors[f"{name}.weight"] + self.tensors[f"{name}.bias"]

    def tower(self, x, part, causal):
        for number in (0, 1):
            stem = f"model.{part}.encoder.layers.{number}"
            normed = self.norm(x, f"{stem}.layer_norm1")
            q, k, v = (self.linear(normed, f"{stem}.self_attn.{each}_proj") for each in "qkv")
            likeness = q @ k.T / math.sqrt(64)
            if causal:
                likeness = likeness + torch.full_like(likeness, -math.inf).triu(1)
            x = x + self.linear(likeness.softmax(-1) @ v, f"{stem}.self_attn.out_proj")
            inner = self.linear(self.norm(x, f"{stem}.layer_norm2"), f"{stem}.mlp.fc1")
            x = x + self.linear(inner * (1 + torch.erf(inner / math.sqrt(2))) / 2, f"{stem}.mlp.fc2")
        return x

    @functools.cache  # noqa: B019
    def text(self, text):
        stem = "model.text_model.embeddings"
        x = self.tensors[f"{stem}.token_embedding.weight"][ids_of(text)]
        x = self.tower(x + self.tensors[f"{stem}.position_embedding.weight"], "text_model", causal=True)
        return self.linear(self.norm(x, "model.text_model.final_layer_norm"), "model.text_projection")

    @functools.cache  # noqa: B019
    def image(self, name):
        stem = "model.vision_model.embeddings"
        kernel = self.tensors[f"{stem}.patch_embedding.weight"]
        pixels = pixels_of(IMAGES[name]).reshape(3, 8, 28, 8, 28).permute(1, 3, 0, 2, 4).reshape(64, -1)
        x = torch.cat((self.tensors[f"{stem}.class_embedding"][None], pixels @ kernel.flatten(1).T))
        x = self.norm(x + self.tensors[f"{stem}.position_embedding.weight"], "model.vision_model.pre_layrnorm")
        return self.linear(self.tower(x, "vision_model", causal=False), "model.visual_projection")

    def kept(self, prompt):
        best = [max(float(token @ other) for other in self.condition) for token in self.text(prompt)]
        return [each / max(best) > self.threshold for each in best]

    def gated(self, value, gate):
        return value * gate * torch.sigmoid(gate)

    def read(self, x, text, kept, stem):
        normed = self.norm(x, f"{stem}.norm")
        keys, values = self.linear(text, f"{stem}.to_kv")[kept].chunk(2, dim=-1)
        heads = self.linear(normed, f"{stem}.to_q").split(keys.shape[-1], dim=-1)
        read = [(head @ keys.T / math.sqrt(keys.shape[-1])).softmax(-1) @ values for head in heads]
        feed = self.linear(self.gated(*self.linear(normed, f"{stem}.ff.0").chunk(2, dim=-1)), f"{stem}.ff.2")
        return x + self.linear(torch.cat(read, dim=-1), f"{stem}.to_out") + feed

    def turn(self, x, stem):
        angles = self.tensors.get(f"{stem}.pos_emb")
        if angles is None:
            angles = torch.arange(len(x))[:, None] * self.tensors[f"{stem}.rotary_emb.inv_freq"]
        half = x.shape[-1] // 2
        turned = torch.complex(x[:, :half], x[:, half:]) * torch.exp(1j * angles[: len(x), :half])
        return torch.cat((turned.real, turned.imag), dim=-1)

    def mix(self, x, stem, head):
        normed = self.norm(x, f"{stem}.norm")
        sides = [2 * head, head, head, 2 * self.tensors[f"{stem}.ff_out.1.weight"].shape[1]]
        q, k, v, feed = self.linear(normed, f"{stem}.fused_attn_ff_proj").split(sides, dim=-1)
        keys = self.turn(k, stem)
        mixed = [(self.turn(part, stem) @ keys.T / math.sqrt(head)).softmax(-1) @ v for part in q.split(head, dim=-1)]
        feed = self.linear(self.gated(*feed.chunk(2, dim=-1)), f"{stem}.ff_out.1")
        return x + self.linear(torch.cat(mixed, dim=-1), f"{stem}.attn_out") + feed

    def score(self, name, prompt):
        x, text, kept = self.image(name), self.text(prompt), self.kept(prompt)
        number = 0
        while (stem := f"cross_model.layers.{number}") + ".0.fn.to_kv.weight" in self.tensors:
            x = self.read(x, text, kept, f"{stem}.0.fn")
            x = self.mix(x, f"{stem}.1.fn", self.tensors[f"{stem}.0.fn.to_kv.weight"].shape[0] // 2)
            number += 1
        end = text[ids_of(prompt).index(49407)]
        return float(self.tensors["model.logit_scale"].exp() * torch.cosine_similarity(x[0], end, dim=0))


PAIRS = [(name, prompt) for name in IMAGES for prompt in PROMPTS]
FEW = [(name, PROMPTS[n % len(PROMPTS)]) for n, name in enumerate(IMAGES)]


def scores(model, pairs):
    return model.score([IMAGES[name] for name, _ in pairs], [prompt for _, prompt in pairs])


def saved(folder, module, **options):
    save_module(module, folder / "MPS_overall_checkpoint.pth")
    options = {"checkpoint": folder / "MPS_overall_checkpoint.pth", "tokenizer": CLIP_FILE, "device": "cpu", **options}
    return MpsReward(**options)


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """What `checkpoint` wrote, and the module in it."""
    return checkpoint(tmp_path_factory.mktemp("mps")), network()


@pytest.fixture(scope="module")
def model(released):
    return MpsReward(**released[0], device="cpu")


@pytest.mark.parametrize(("threshold", "pairs"), [(0.3, PAIRS), (0.01, FEW), (0.6, FEW)])
def test_every_awkward_pair_has_the_official_score(released, threshold, pairs):
    arguments, module = released
    slow = Slow(module, threshold)
    expected = [slow.score(*pair) for pair in pairs]
    found = scores(MpsReward(**arguments, device="cpu", mask_threshold=threshold), pairs)
    np.testing.assert_allclose(found, expected, rtol=0, atol=CLOSE)
    assert np.std(expected) > 1


def test_the_condition_drops_tokens_of_most_prompts(released):
    kept = {threshold: [sum(Slow(released[1], threshold).kept(each)) for each in PROMPTS] for threshold in (0.01, 0.3)}
    assert sum(each < 77 for each in kept[0.3]) > len(PROMPTS) / 2
    assert kept[0.01] != kept[0.3]


@pytest.mark.parametrize("sizes", [{"head": 32, "layers": 3}, {"angles": 100}, {"angles": 64}])
def test_sizes_and_kept_angles_are_read_from_the_file(tmp_path, sizes):
    # 65 image tokens: 64 kept angles are too few and count for nothing, as in the official code
    module = network(1, **sizes)
    slow = Slow(network(1) if sizes == {"angles": 64} else module)
    expected = [slow.score(*pair) for pair in FEW]
    np.testing.assert_allclose(scores(saved(tmp_path, module), FEW), expected, rtol=0, atol=CLOSE)


def test_frequencies_are_read_not_made_anew(tmp_path, released):
    module = network()
    for layer in module.cross_model.layers:
        layer[1].fn.rotary_emb.inv_freq.mul_(1.5)
    slow = Slow(module)
    found = scores(saved(tmp_path, module), FEW)
    np.testing.assert_allclose(found, [slow.score(*pair) for pair in FEW], rtol=0, atol=CLOSE)
    assert np.abs(found - [Slow(released[1]).score(*pair) for pair in FEW]).max() > 10 * CLOSE


def test_the_state_dict_gives_what_the_module_gives(tmp_path, released, model):
    state = released[1].state_dict()
    torch.save(state, tmp_path / "mps.pth")
    save_file(state, tmp_path / "mps.safetensors")
    for file in ("mps.pth", "mps.safetensors"):
        other = MpsReward(checkpoint=tmp_path / file, tokenizer=CLIP_FILE, device="cpu")
        assert (scores(other, FEW) == scores(model, FEW)).all(), file


def test_a_score_depends_on_its_own_pair_alone(released, model):
    together = scores(model, FEW)
    alone = [float(scores(model, [pair])[0]) for pair in FEW]
    fresh = scores(MpsReward(**released[0], device="cpu", batch_size=2), FEW[::-1])[::-1]
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-4)
    np.testing.assert_allclose(together, fresh, rtol=0, atol=1e-4)
    assert (scores(model, FEW) == together).all()


def test_a_prompt_is_encoded_once_and_the_store_is_bounded(released, monkeypatch):
    model = MpsReward(**released[0], device="cpu")
    encode, rows = model.network.towers.text_tokens, []
    monkeypatch.setattr(model.network.towers, "text_tokens", lambda ids: rows.append(len(ids)) or encode(ids))
    pairs = [("gray", "one"), ("alpha", "one"), ("gray", "two")]
    first = scores(model, pairs)
    assert (scores(model, pairs) == first).all()
    assert sum(rows) == 2
    monkeypatch.setattr("widespectrum.rewards.mps._PROMPTS_KEPT", 1)
    scores(model, [("gray", "one"), ("gray", "three"), ("gray", "four")])
    assert sum(rows) == 4
    assert list(model._prompts) == ["four"]


@pytest.mark.parametrize(("dtype", "off"), [("bfloat16", 12), ("float16", 2)])
def test_half_precision_stays_near(released, model, dtype, off):
    half = MpsReward(**released[0], device="cpu", dtype=dtype)
    difference = np.abs(scores(half, FEW) - scores(model, FEW)).max()
    assert 0 < difference < off


def test_the_threshold_is_part_of_the_spec(released, model):
    other = MpsReward(**released[0], device="cpu", mask_threshold=0.01)
    assert (model.spec.params["mask_threshold"], other.spec.params["mask_threshold"]) == (0.3, 0.01)
    assert model.spec.key != other.spec.key


def test_tokens_are_counted_before_the_cut_and_special_ones_seen(model):
    assert model.window == 77
    assert model.count_tokens(["", "a dog", " ".join(["dog"] * 90)]) == [2, 4, 92]
    assert model.has_special(["a dog", "a <|endoftext|> dog", "<start_of_text>"]) == [False, True, False]


@pytest.mark.parametrize("threshold", [0, 1, -0.3, float("nan"), "0.3", True])
def test_a_threshold_is_between_0_and_1(threshold):
    with pytest.raises(InputError, match=r"mask_threshold must be a number between 0 and 1.*got"):
        MpsReward(mask_threshold=threshold)


def test_without_a_file_it_says_where_to_get_one():
    with pytest.raises(InputError, match=r"MPS_overall_checkpoint\.pth.*Kwai-Kolors/MPS"):
        MpsReward(tokenizer=CLIP_FILE, device="cpu").score([IMAGES["gray"]], ["a dog"])


def without(state, part):
    return {name: each for name, each in state.items() if part not in name}


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ("cross_model", r"lacks 13 or more weights of mps, cross_model\.layers.*looks like a CLIPModel"),
        (
            "layers.1.1.fn.attn_out",
            r"lacks 1 weight of mps, cross_model\.layers\.1\.1\.fn\.attn_out.*: it is incomplete",
        ),
        ("layers.0.1.", r"lacks 6 weights of mps, cross_model\.layers\.0\.\* \(6\)"),
        ("layers.1.0.fn.to_q", r"lacks 1 weight of mps, cross_model\.layers\.1\.0\.fn\.to_q"),
        ("text_model.encoder.layers.1.layer_norm1.weight", r"lacks 1 weight of mps, model\.text_model\.encoder"),
        ("rotary_emb", r"lacks 2 weights of mps, cross_model\.layers\.0\.1\.fn\.rotary_emb\.inv_freq"),
        ("layers.0.0.fn.to_kv", r"cross_model\.layers\.0\.0\.fn\.to_kv"),
        ("vision_model", r"lacks 23 or more weights of mps, model\."),
    ],
)
def test_what_a_file_lacks_is_said(tmp_path, released, part, message):
    save_file(without(released[1].state_dict(), part), tmp_path / "mps.safetensors")
    with pytest.raises(InputError, match=message) as caught:
        scores(MpsReward(checkpoint=tmp_path / "mps.safetensors", tokenizer=CLIP_FILE, device="cpu"), FEW)
    assert "mps.safetensors" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "cut", "message"),
    [
        ("model.text_model.embeddings.token_embedding.weight", 49407, r"49407 rows and the tokenizer 49408 tokens"),
        ("cross_model.layers.1.1.fn.fused_attn_ff_proj.weight", 500, r"ff_proj\.weight has shape \(500, 64\) where"),
    ],
)
def test_rows_that_are_cut_off(tmp_path, released, name, cut, message):
    state = released[1].state_dict()
    save_file({**state, name: state[name][:cut].clone()}, tmp_path / "mps.safetensors")
    with pytest.raises(InputError, match=message):
        scores(MpsReward(checkpoint=tmp_path / "mps.safetensors", tokenizer=CLIP_FILE, device="cpu"), FEW)


def test_a_damaged_file_is_refused(tmp_path, released):
    content = released[0]["checkpoint"].read_bytes()
    (tmp_path / "mps.pth").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"mps\.pth"):
        scores(MpsReward(checkpoint=tmp_path / "mps.pth", tokenizer=CLIP_FILE, device="cpu"), FEW)
