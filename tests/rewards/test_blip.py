"""BLIP-L against a slow path written from its description: plain loops, one image, one prompt, all 35 tokens."""

import json
import math
import re
import shutil
import string
import unicodedata

import numpy as np
import pytest
import torch
from PIL import Image

from tests.rewards import made_blip, made_imagereward
from widespectrum.errors import InputError
from widespectrum.rewards import load_reward_model

MEAN, DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def awkward_images():
    """Every mode and shape that has made an official pipeline stumble."""
    rng = np.random.default_rng(3)

    def pixels(width, height, channels):
        rows, columns = np.mgrid[:height, :width]
        smooth = np.stack([(7 * columns + 3 * rows + 50 * each) % 256 for each in range(channels)], axis=-1)
        return (smooth // 2 + rng.integers(0, 128, smooth.shape)).astype(np.uint8)

    rotated = Image.fromarray(pixels(200, 120, 3))
    rotated.getexif()[0x0112] = 6
    checkers = (np.indices((900, 900)).sum(axis=0) % 2 * 255).astype(np.uint8)
    return {
        "gray": Image.fromarray(pixels(300, 260, 1)[..., 0]),
        "gray+alpha": Image.fromarray(pixels(90, 110, 2), "LA"),
        "palette": Image.fromarray(pixels(256, 300, 3)).quantize(17),
        "alpha": Image.fromarray(pixels(310, 250, 4), "RGBA"),
        "bits": Image.fromarray(pixels(300, 200, 1)[..., 0]).convert("1"),
        "tiny": Image.fromarray(pixels(7, 5, 3)),
        "wide": Image.fromarray(pixels(1600, 90, 3)),
        "tall": Image.fromarray(pixels(60, 700, 3)),
        "exact": Image.fromarray(pixels(224, 224, 3)),
        "half": Image.fromarray(pixels(224, 150, 3)),
        "rotated": rotated,
        "checkers": Image.fromarray(np.stack([checkers] * 3, axis=-1)),
    }


AWKWARD_PROMPTS = [
    "a photo of the cat",
    "",
    "  \t ",
    "a b c d e f g h i j k l m n o p q r s t u v w x y z a b c d e f g",
    "a b c d e f g h i j k l m n o p q r s t u v w x y z a b c d e f g h",
    "horse " * 60,
    "x" * 150,
    "café É naïve 中文字日本 😀 “quotes” — dash…",
    "&lt;b&gt; cats &amp; dogs, cafÃ© itâ€™s",
    "[CLS] dog [SEP] cat [enc]",
    "a [ENC] dog[PAD] the [DEC] [MASK][UNK]",
    "<|endoftext|> A DOG\u00a0of\nthe\u200b photo\x00\ufffd",
]


def slow_tokens(text, vocabulary):
    """BERT's tokens of a text: at most 35 with [CLS] and [SEP]."""
    table = {word: number for number, word in enumerate([*vocabulary, "[DEC]", "[ENC]"])}
    ids = []
    for piece in re.split(r"(\[(?:PAD|UNK|CLS|SEP|MASK|DEC|ENC)\])", text):
        if piece in table and piece.startswith("[") and len(piece) > 1:
            ids.append(table[piece])
            continue
        spaced = ""
        for letter in unicodedata.normalize("NFD", piece.lower()):
            kind = unicodedata.category(letter)
            if letter in "\t\n\r" or kind == "Zs":
                spaced += " "
            elif kind == "Mn" or kind.startswith("C") or letter == "\ufffd":
                continue
            elif letter in string.punctuation or kind.startswith("P") or 0x4E00 <= ord(letter) <= 0x9FFF:
                spaced += f" {letter} "
            else:
                spaced += letter
        for word in spaced.split():
            ids += slow_pieces(word, table)
    return [table["[CLS]"], *ids[:33], table["[SEP]"]]


def slow_pieces(word, table):
    found, start = [], 0
    while start < len(word):
        parts = [(end, "##" * (start > 0) + word[start:end]) for end in range(len(word), start, -1)]
        known = [(end, part) for end, part in parts if part in table]
        if not known or len(word) > 100:
            return [table["[UNK]"]]
        start = known[0][0]
        found.append(table[known[0][1]])
    return found


def slow_linear(state, name, x):
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def slow_norm(state, name, x, epsilon):
    center = x - x.mean(dim=-1, keepdim=True)
    return (
        center / (center.square().mean(dim=-1, keepdim=True) + epsilon).sqrt() * state[f"{name}.weight"]
        + state[f"{name}.bias"]
    )


def slow_gelu(x):
    return x * (1 + torch.erf(x / math.sqrt(2))) / 2


def slow_attention(query, key, value, heads, seen=None):
    size = query.shape[-1] // heads
    out = []
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        weights = query[:, part] @ key[:, part].T / math.sqrt(size)
        if seen is not None:
            weights = weights.masked_fill(~seen, -math.inf)
        out.append(weights.softmax(dim=-1) @ value[:, part])
    return torch.cat(out, dim=-1)


def slow_vision(state, pixels, *, positions, heads=2):
    """All tokens of one image, pixels (3, size, size)."""
    patch, size = made_blip.PATCH, pixels.shape[-1]
    kernel = state["visual_encoder.patch_embed.proj.weight"].flatten(1)
    tokens = [state["visual_encoder.cls_token"][0, 0]]
    for top in range(0, size, patch):
        for left in range(0, size, patch):
            flat = pixels[:, top : top + patch, left : left + patch].flatten()
            tokens.append(kernel @ flat + state["visual_encoder.patch_embed.proj.bias"])
    x = torch.stack(tokens) + positions
    for number in range(made_blip.DEPTH):
        block = f"visual_encoder.blocks.{number}"
        qkv = slow_linear(state, f"{block}.attn.qkv", slow_norm(state, f"{block}.norm1", x, 1e-6))
        x = x + slow_linear(state, f"{block}.attn.proj", slow_attention(*qkv.split(x.shape[1], dim=1), heads))
        hidden = slow_linear(state, f"{block}.mlp.fc1", slow_norm(state, f"{block}.norm2", x, 1e-6))
        x = x + slow_linear(state, f"{block}.mlp.fc2", slow_gelu(hidden))
    return slow_norm(state, "visual_encoder.norm", x, 1e-6)


def slow_text(state, ids, image=None, *, heads=1):
    """The [CLS] state of one prompt, padded to 35 tokens; looks at the tokens of `image` where there is one."""
    seen = torch.arange(35) < len(ids)
    padded = torch.tensor([*ids, *[0] * (35 - len(ids))])
    embeddings = "text_encoder.embeddings"
    x = state[f"{embeddings}.word_embeddings.weight"][padded] + state[f"{embeddings}.position_embeddings.weight"][:35]
    x = slow_norm(state, f"{embeddings}.LayerNorm", x, 1e-12)
    for number in range(made_blip.DEPTH):
        layer = f"text_encoder.encoder.layer.{number}"
        looks = [("attention", x, seen), *([("crossattention", image, None)] if image is not None else [])]
        for part, source, mask in looks:
            source = x if part == "attention" else source
            query = slow_linear(state, f"{layer}.{part}.self.query", x)
            key, value = (slow_linear(state, f"{layer}.{part}.self.{name}", source) for name in ("key", "value"))
            out = slow_linear(state, f"{layer}.{part}.output.dense", slow_attention(query, key, value, heads, mask))
            x = slow_norm(state, f"{layer}.{part}.output.LayerNorm", x + out, 1e-12)
        hidden = slow_gelu(slow_linear(state, f"{layer}.intermediate.dense", x))
        x = slow_norm(
            state, f"{layer}.output.LayerNorm", x + slow_linear(state, f"{layer}.output.dense", hidden), 1e-12
        )
    return x[0]


def slow_pixels(image):
    """(3, height, width) in float64 of an RGB image."""
    numbers = torch.from_numpy(np.array(image)).double() / 255
    return ((numbers - torch.tensor(MEAN).double()) / torch.tensor(DEVIATION).double()).permute(2, 0, 1)


def slow_scores(state, images, prompts, size, positions):
    """(match probabilities, cosines), both (images, prompts), of a state in float64."""
    matches, cosines = [], []
    texts = [slow_tokens(prompt, read_vocabulary()) for prompt in prompts]
    reads = [slow_linear(state, "text_proj", slow_text(state, ids)) for ids in texts]
    for image in images:
        squashed = image.convert("RGB").resize((size, size), Image.Resampling.BICUBIC)
        tokens = slow_vision(state, slow_pixels(squashed), positions=positions)
        seen = slow_linear(state, "vision_proj", tokens[0])
        for ids, read in zip(texts, reads, strict=True):
            yes = slow_linear(state, "itm_head", slow_text(state, ids, tokens))
            matches.append((yes[1].exp() / yes.exp().sum()).item())
            cosines.append((seen @ read / seen.norm() / read.norm()).item())
    return np.array(matches).reshape(len(images), -1), np.array(cosines).reshape(len(images), -1)


def in_double(state):
    return {name: tensor.double() for name, tensor in state.items()}


def read_vocabulary():
    return list(dict.fromkeys(made_blip.VOCABULARY))


def table(model, images, prompts):
    """Scores of every image under every prompt."""
    rows = model.score([image for image in images for _ in prompts], [*prompts] * len(images))
    return rows.reshape(len(images), len(prompts))


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A model whose own images are 96 pixels wide."""
    return made_blip.checkpoint(tmp_path_factory.mktemp("small"), grid=6)


@pytest.fixture(scope="module")
def expected():
    state = in_double(made_blip.model(grid=6))
    positions = state["visual_encoder.pos_embed"][0]
    return slow_scores(state, awkward_images().values(), AWKWARD_PROMPTS, 96, positions)


@pytest.mark.parametrize("head", ["itm", "itc"])
def test_awkward_images_and_prompts_get_the_numbers_of_the_description(small, expected, head):
    got = table(load_reward_model("blip-l", **small, head=head), list(awkward_images().values()), AWKWARD_PROMPTS)
    want = expected[head == "itc"]
    assert got.dtype == np.float64
    assert want.std() > 0.05
    np.testing.assert_allclose(got, want, rtol=0, atol=5e-6)


def bicubic(grid, side):
    """(side x side, grid x grid): the weights of bicubic interpolation with a = -0.75, edges repeated."""
    matrix = np.zeros((side, grid))
    for row in range(side):
        place = (row + 0.5) * grid / side - 0.5
        for near in range(math.floor(place) - 1, math.floor(place) + 3):
            x = abs(place - near)
            inner = 1.25 * x**3 - 2.25 * x**2 + 1
            outer = -0.75 * (x**3 - 5 * x**2 + 8 * x - 4)
            matrix[row, min(max(near, 0), grid - 1)] += inner if x <= 1 else outer
    return torch.from_numpy(np.kron(matrix, matrix))


@pytest.mark.parametrize("grid", [14, 24])
def test_images_are_384_wide_and_the_grid_of_pretraining_is_interpolated(tmp_path, grid):
    given = made_blip.checkpoint(tmp_path, grid=grid)
    state = in_double(made_blip.model(grid=grid))
    own = state["visual_encoder.pos_embed"][0]
    square = bicubic(14, 24) @ own[1:] if grid == 14 else own[1:]
    images, prompts = [awkward_images()[name] for name in ("wide", "alpha")], AWKWARD_PROMPTS[:2]
    want, _ = slow_scores(state, images, prompts, 384, torch.cat([own[:1], square]))
    model = load_reward_model("blip-l", **given)
    assert model.prepare(images[0]).shape == (3, 384, 384)
    np.testing.assert_allclose(table(model, images, prompts), want, rtol=0, atol=5e-6)


@pytest.fixture(scope="module")
def of_transformers(tmp_path_factory):
    """(the network of transformers, its folder): 4 heads where BLIP's file would mean 2 and 1, epsilon 1e-5."""
    from transformers import BlipConfig, BlipForImageTextRetrieval

    layers = {"num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 160, "initializer_range": 0.2}
    rows = len(read_vocabulary()) + 2
    torch.manual_seed(0)
    config = BlipConfig(
        text_config={**layers, "hidden_size": 64, "vocab_size": rows, "encoder_hidden_size": 128},
        vision_config={**layers, "hidden_size": 128, "image_size": 64, "patch_size": 16},
        image_text_hidden_size=32,
    )
    network = BlipForImageTextRetrieval(config).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    folder = tmp_path_factory.mktemp("transformers")
    network.save_pretrained(folder)
    made_blip.write_vocabulary(folder / "vocab.txt")
    return network, folder


@pytest.mark.parametrize("head", ["itm", "itc"])
def test_a_folder_of_transformers_gives_the_numbers_of_its_own_class(of_transformers, head):
    network, folder = of_transformers
    model = load_reward_model("blip-l", checkpoint=folder, head=head)
    for image in [awkward_images()[name] for name in ("gray", "wide", "alpha")]:
        for prompt in AWKWARD_PROMPTS[:4]:
            ids = torch.tensor([slow_tokens(prompt, read_vocabulary())])
            pixels = torch.from_numpy(model.prepare(image))[None]
            with torch.no_grad():
                out = network(ids, pixels, attention_mask=torch.ones_like(ids), use_itm_head=head == "itm").itm_score
            want = out.softmax(dim=1)[0, 1].item() if head == "itm" else out.item()
            assert model.score([image], [prompt])[0] == pytest.approx(want, abs=2e-6)


def test_batches_order_and_repetition_change_nothing(small):
    images, prompts = list(awkward_images().values()), AWKWARD_PROMPTS
    model = load_reward_model("blip-l", **small)
    together = model.score(images, prompts)
    singles = np.concatenate([model.score([image], [text]) for image, text in zip(images, prompts, strict=True)])
    np.testing.assert_allclose(together, singles, rtol=0, atol=1e-6)
    np.testing.assert_allclose(model.score(images[::-1], prompts[::-1])[::-1], together, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(model.score(images, prompts), together)


def test_the_heads_are_two_models(small):
    match, cosine = (load_reward_model("blip-l", **small, head=head) for head in ("itm", "itc"))
    assert (match.spec.params["head"], cosine.spec.params["head"]) == ("itm", "itc")
    assert match.spec.key != cosine.spec.key


def test_half_precision_is_near(small):
    images, prompts = list(awkward_images().values()), AWKWARD_PROMPTS
    exact, near = (load_reward_model("blip-l", **small, dtype=dtype) for dtype in ("float32", "bfloat16"))
    difference = np.abs(exact.score(images, prompts) - near.score(images, prompts)).max()
    assert 0 < difference < 0.1


def test_tokens_are_counted_before_they_are_cut_and_special_ones_are_seen(small):
    model = load_reward_model("blip-l", **small)
    assert model.window == 35
    assert model.count_tokens(["", "a cat", AWKWARD_PROMPTS[3], AWKWARD_PROMPTS[4]]) == [2, 4, 35, 36]
    assert model.has_special(["a [ENC] cat", "a [enc] cat", "the [SEP]", ""]) == [True, False, True, False]


def broken(tmp_path, small, change):
    path = tmp_path / "model_large_retrieval_coco.pth"
    content = torch.load(small["checkpoint"])
    torch.save({"model": change(content["model"])}, path)
    return {**small, "checkpoint": path}


@pytest.mark.parametrize(
    ("without", "message"),
    [
        ("visual_encoder.pos_embed", r"lacks 1 weights? of blip-l, visual_encoder\.pos_embed"),
        ("text_encoder.encoder.layer.1.intermediate", r"lacks 2 weights of blip-l, text_encoder.encoder.layer.1."),
        ("text_encoder.encoder.layer.1.crossattention.self.query", r"lacks 2 weights of blip-l.*: it is incomplete"),
        ("visual_encoder.blocks.", r"lacks 12 or more weights of blip-l, visual_encoder\.blocks\.0\.\*"),
        ("visual_encoder.blocks.0.", r"lacks 12 weights of blip-l, visual_encoder\.blocks\.0\.\*"),
        ("itm_head", r"lacks 2 weights of blip-l, itm_head\.bias, itm_head\.weight"),
    ],
)
def test_missing_weights_are_listed(tmp_path, small, without, message):
    given = broken(tmp_path, small, lambda state: {n: each for n, each in state.items() if not n.startswith(without)})
    with pytest.raises(InputError, match=message):
        load_reward_model("blip-l", **given).score([Image.new("RGB", (9, 9))], ["a"])


def test_a_wrong_model_is_named(tmp_path, small):
    given = made_imagereward.checkpoint(tmp_path, grid=2)
    with pytest.raises(InputError, match=r"of blip-l, .*looks like ImageReward.*give the checkpoint of blip-l"):
        load_reward_model("blip-l", **given).score([Image.new("RGB", (9, 9))], ["a"])


def test_what_cannot_be_used_is_said_in_one_sentence(tmp_path, small, of_transformers):
    with pytest.raises(InputError, match=r"expected head itm .* or itc .*; got 'both'"):
        load_reward_model("blip-l", **small, head="both")
    with pytest.raises(InputError, match=r"there is nothing at .*nowhere\.pth"):
        load_reward_model("blip-l", checkpoint=tmp_path / "nowhere.pth")
    longer = tmp_path / "longer.txt"
    longer.write_text(small["tokenizer"].read_text(encoding="utf-8") + "zebra\n", encoding="utf-8")
    model = load_reward_model("blip-l", checkpoint=small["checkpoint"], tokenizer=longer)
    with pytest.raises(InputError, match=r"gives the token \d+, the checkpoint knows \d+ tokens; give the vocabulary"):
        model.score([Image.new("RGB", (9, 9))], ["an [ENC] cat"])
    folder = shutil.copytree(of_transformers[1], tmp_path / "folder")
    config = json.loads((folder / "config.json").read_text())
    for wrong, message in (
        ({**config, "text_config": {**config["text_config"], "hidden_act": "relu"}}, "hidden_act gelu.*; got relu"),
        ({**config, "text_config": {**config["text_config"], "num_attention_heads": 7}}, "width 64 .* into 7 heads"),
        (
            {**config, "vision_config": {**config["vision_config"], "hidden_size": 192}},
            r"config\.json belongs to another checkpoint: of the vision tower it says hidden_size 192, and the tensors "
            r"of .*folder.* say 128",
        ),
        ([], "expected the configuration of a BLIP model in JSON"),
    ):
        (folder / "config.json").write_text(json.dumps(wrong))
        with pytest.raises(InputError, match=message):
            load_reward_model("blip-l", checkpoint=folder).score([Image.new("RGB", (9, 9))], ["a"])
