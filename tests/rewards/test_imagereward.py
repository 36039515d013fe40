"""ImageReward against a slow path written from its description: plain loops, one image, one prompt, all 35 tokens."""

import io
import json
import shutil
import urllib.request

import numpy as np
import pytest
import torch
from PIL import Image

from tests.rewards import made_blip, made_imagereward
from tests.rewards.test_blip import (
    AWKWARD_PROMPTS,
    awkward_images,
    in_double,
    read_vocabulary,
    slow_linear,
    slow_pixels,
    slow_text,
    slow_tokens,
    slow_vision,
    table,
)
from widespectrum.errors import InputError
from widespectrum.rewards import load_reward_model

GRID, SIZE = 6, 96


def slow_crop(image, size):
    """Shortest side `size` in the image's own mode, then the middle, then RGB."""
    width, height = image.size
    shortest = min(width, height)
    scaled = image.resize((int(size * width / shortest), int(size * height / shortest)), Image.Resampling.BICUBIC)
    left, top = round((scaled.width - size) / 2), round((scaled.height - size) / 2)
    return scaled.crop((left, top, left + size, top + size)).convert("RGB")


def slow_scores(images, prompts, *, grid, size, heads):
    """(images, prompts) rewards of the made model."""
    state = in_double(made_imagereward.model(grid=grid))
    blip = {name.removeprefix("blip."): tensor for name, tensor in state.items()}
    rewards = []
    for image in images:
        pixels = slow_pixels(slow_crop(image, size))
        tokens = slow_vision(blip, pixels, positions=blip["visual_encoder.pos_embed"][0])
        for prompt in prompts:
            x = slow_text(blip, slow_tokens(prompt, read_vocabulary()), tokens, heads=heads)
            for number in (0, 2, 4, 6, 7):
                x = slow_linear(state, f"mlp.layers.{number}", x)
            rewards.append((x.item() - 0.16717362830052426) / 1.0333394966054072)
    return np.array(rewards).reshape(len(images), -1)


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    return made_imagereward.checkpoint(tmp_path_factory.mktemp("imagereward"), grid=GRID)


@pytest.fixture(scope="module")
def expected():
    return slow_scores(awkward_images().values(), AWKWARD_PROMPTS, grid=GRID, size=SIZE, heads=1)


def test_awkward_images_and_prompts_get_the_numbers_of_the_description(given, expected):
    got = table(load_reward_model("imagereward", **given), list(awkward_images().values()), AWKWARD_PROMPTS)
    assert got.dtype == np.float64
    assert expected.std() > 1
    np.testing.assert_allclose(got, expected, rtol=0, atol=5e-5)


def test_images_of_the_official_size_and_heads_of_med_config(tmp_path):
    given = made_imagereward.checkpoint(tmp_path, grid=14, heads=4)
    images, prompts = [awkward_images()[name] for name in ("half", "palette")], AWKWARD_PROMPTS[:2]
    want = slow_scores(images, prompts, grid=14, size=224, heads=4)
    by_file = load_reward_model("imagereward", **given)
    by_folder = load_reward_model("imagereward", checkpoint=tmp_path)
    for model in (by_file, by_folder):
        assert model.prepare(images[0]).shape == (3, 224, 224)
        np.testing.assert_allclose(table(model, images, prompts), want, rtol=0, atol=5e-5)
    (tmp_path / "med_config.json").unlink()
    want = slow_scores(images, prompts, grid=14, size=224, heads=1)
    by_shapes = load_reward_model("imagereward", **given)
    np.testing.assert_allclose(table(by_shapes, images, prompts), want, rtol=0, atol=5e-5)


def test_batches_order_and_repetition_change_nothing(given, expected):
    images, prompts = list(awkward_images().values()), AWKWARD_PROMPTS
    model = load_reward_model("imagereward", **given)
    singles = np.concatenate([model.score([image], [text]) for image, text in zip(images, prompts, strict=True)])
    threes = np.concatenate([model.score(images[n : n + 3], prompts[n : n + 3]) for n in range(0, len(images), 3)])
    scale = np.abs(expected).max()
    np.testing.assert_allclose(threes, singles, rtol=0, atol=1e-6 * scale)
    together = model.score(images, prompts)
    np.testing.assert_allclose(model.score(images[::-1], prompts[::-1])[::-1], together, rtol=0, atol=2e-6 * scale)
    np.testing.assert_array_equal(model.score(images, prompts), together)


def test_an_image_is_encoded_once_for_all_its_prompts(given, monkeypatch):
    from widespectrum.rewards.imagereward import ImageReward

    encoded, encode = [], ImageReward._encode
    monkeypatch.setattr(
        ImageReward, "_encode", lambda self, pixels: encoded.append(len(pixels)) or encode(self, pixels)
    )
    images = [awkward_images()["tiny"], awkward_images()["gray"]]
    table(load_reward_model("imagereward", **given), images, AWKWARD_PROMPTS[:3])
    assert sum(encoded) == 2


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_near(given, expected, dtype):
    images = list(awkward_images().values())
    got = table(load_reward_model("imagereward", **given, dtype=dtype), images, AWKWARD_PROMPTS[:3])
    difference = np.abs(got - expected[:, :3]).max()
    assert 1e-4 < difference < 0.2 * expected.std()


def test_tokens_are_counted_before_they_are_cut_and_special_ones_are_seen(given):
    model = load_reward_model("imagereward", **given)
    assert model.window == 35
    assert model.count_tokens(["", "a cat", AWKWARD_PROMPTS[3], AWKWARD_PROMPTS[4]]) == [2, 4, 35, 36]
    assert model.has_special(["a [DEC] cat", "a [dec] cat", "the [SEP]", ""]) == [True, False, True, False]


def test_a_head_of_other_shapes_is_refused(tmp_path, given):
    state = made_imagereward.model(grid=GRID)
    torch.save({**state, "mlp.layers.4.weight": torch.zeros(64, 127)}, tmp_path / "ImageReward.pt")
    model = load_reward_model("imagereward", checkpoint=tmp_path / "ImageReward.pt", tokenizer=given["tokenizer"])
    with pytest.raises(InputError, match=r"expected five layers of a head from 64 numbers to 1, got .*\(64, 127\)"):
        model.score([Image.new("RGB", (9, 9))], ["a"])


@pytest.mark.parametrize(
    ("without", "message"),
    [
        (
            "mlp.layers.4",
            r"lacks 2 weights of imagereward, mlp\.layers\.4\.bias.*: it is incomplete, download it again",
        ),
        ("blip.", r"lacks \d{2} or more weights of imagereward, blip\."),
        ("mlp.", r"lacks 10 weights of imagereward, mlp"),
        ("blip.visual_encoder.patch_embed", r"lacks 2 weights of imagereward, blip\.visual_encoder\.patch_embed"),
        ("blip.text_encoder.encoder.layer.0.", r"lacks 26 weights of imagereward, blip\.text_encoder"),
    ],
)
def test_missing_weights_are_listed(tmp_path, given, without, message):
    state = made_imagereward.model(grid=GRID)
    path = tmp_path / "ImageReward.pt"
    torch.save({name: tensor for name, tensor in state.items() if not name.startswith(without)}, path)
    model = load_reward_model("imagereward", checkpoint=path, tokenizer=given["tokenizer"])
    with pytest.raises(InputError, match=message):
        model.score([Image.new("RGB", (9, 9))], ["a"])


def test_what_cannot_be_used_is_said_in_one_sentence(tmp_path, given):
    image = [Image.new("RGB", (9, 9))]
    other = made_blip.checkpoint(tmp_path, grid=2)
    with pytest.raises(InputError, match=r"of imagereward, .*looks like BLIP.*give the checkpoint of imagereward"):
        load_reward_model("imagereward", **other).score(image, ["a"])
    (tmp_path / "cut").mkdir()
    for name in ("ImageReward.pt", "med_config.json"):
        shutil.copy(given["checkpoint"].parent / name, tmp_path / "cut")
    (tmp_path / "cut" / "med_config.json").write_text("{")
    with pytest.raises(InputError, match=r"med_config\.json: expected the configuration of a BLIP model in JSON"):
        load_reward_model("imagereward", checkpoint=tmp_path / "cut", tokenizer=other["tokenizer"]).score(image, ["a"])
    whole = given["checkpoint"].read_bytes()
    (tmp_path / "cut" / "ImageReward.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"ImageReward\.pt"):
        load_reward_model("imagereward", checkpoint=tmp_path / "cut", tokenizer=other["tokenizer"]).score(image, ["a"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_hidden_layers": "x"}, r"expected a whole number above 0 as num_hidden_layers, got 'x'; get it again"),
        ({"num_attention_heads": True}, r"expected a whole number above 0 as num_attention_heads, got True"),
        ({"layer_norm_eps": "x"}, r"expected a number above 0 as layer_norm_eps, got 'x'"),
        ({"num_hidden_layers": 3}, r"it says num_hidden_layers 3, and the tensors of .*ImageReward\.pt say 2"),
        ({"intermediate_size": 99}, r"of the text tower it says intermediate_size 99, and the tensors of"),
    ],
)
def test_a_configuration_that_does_not_fit(tmp_path, change, message):
    given = made_imagereward.checkpoint(tmp_path, grid=2)
    path = tmp_path / "med_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(InputError, match=rf"med_config\.json.*{message}"):
        load_reward_model("imagereward", **given).score([Image.new("RGB", (9, 9))], ["a"])


@pytest.mark.network
def test_the_published_scores_of_the_example_images():
    """The README's four images and its prompt; downloads 1.8 GB."""
    folder = "https://raw.githubusercontent.com/THUDM/ImageReward/main/assets/images"
    images = []
    for number in range(1, 5):
        with urllib.request.urlopen(f"{folder}/{number}.webp") as reply:
            images.append(Image.open(io.BytesIO(reply.read())))
    prompt = "a painting of an ocean with clouds and birds, day time, low depth field effect"
    got = load_reward_model("imagereward", device="cpu").score(images, [prompt] * 4)
    published = [0.5811622738838196, 0.2745276093482971, -1.4131819009780884, -2.029569625854492]
    # They were computed on a GPU of unknown kind.
    np.testing.assert_allclose(got, published, rtol=0, atol=5e-4)
