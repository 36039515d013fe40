"""A reward model of open_clip with random weights; open_clip called directly, row by row, is the oracle."""

import json

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from widespectrum.errors import InputError
from widespectrum.rewards.any_clip import AnyClipReward

CONFIG = {
    "embed_dim": 12,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
}
PROMPTS = ["a cat", "", " \n ", "dog " * 75, "dog " * 76, "<end_of_text> a dog", "<|endoftext|>", "a&amp;b â€“ 日本 ü"]


def noise(*shape):
    return Image.fromarray(np.random.default_rng(len(shape)).integers(0, 256, shape, dtype=np.uint8))


PALETTE = noise(40, 60, 3).quantize(16)
PALETTE.info["transparency"] = bytes([0, 128])
IMAGES = [noise(40, 60, 3), noise(40, 50), noise(40, 50).convert("LA"), PALETTE, noise(30, 45, 4), noise(5, 7, 3)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    folder.mkdir()
    (folder / "tiny-reward.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    open_clip.add_model_config(folder / "tiny-reward.json")
    torch.manual_seed(0)
    config = {"model_cfg": CONFIG, "preprocess_cfg": {"interpolation": "bicubic"}}
    (folder / "open_clip_config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file(open_clip.create_model("tiny-reward").state_dict(), folder / "open_clip_model.safetensors")
    return folder


@pytest.fixture(scope="module")
def model(folder):
    return AnyClipReward(source=str(folder), device="cpu", batch_size=3)


@pytest.mark.filterwarnings("ignore:Palette images with Transparency")
def test_equals_open_clip_called_directly(model, folder):
    network, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    network.eval()
    tokenizer = open_clip.get_tokenizer("tiny-reward")
    rows = [(image, prompt) for image in IMAGES for prompt in PROMPTS]
    expected = []
    with torch.inference_mode():
        for image, prompt in rows:
            one = network.encode_image(preprocess(image)[None], normalize=True)[0]
            other = network.encode_text(tokenizer([prompt]), normalize=True)[0]
            expected.append(float(one @ other))
    found = model.score([image for image, _ in rows], [prompt for _, prompt in rows])
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert np.ptp(found) > 0.05


def test_tokens_and_spec(model, folder):
    assert model.window == 77
    assert model.count_tokens(["", "a cat", "dog " * 75, "dog " * 76]) == [2, 4, 77, 78]
    assert model.has_special(PROMPTS) == [prompt.startswith("<end_of_text>") for prompt in PROMPTS]
    assert str(model.spec).startswith("clip:tiny?dtype=%22float32%22&library=%22open_clip%22&sha256=%22")
    assert AnyClipReward(source="any label", checkpoint=folder).spec == model.spec


def test_a_folder_without_weights(folder, tmp_path):
    (tmp_path / "open_clip_config.json").write_bytes((folder / "open_clip_config.json").read_bytes())
    with pytest.raises(InputError, match=r"could not be loaded .*Required pretrained weights"):
        AnyClipReward(source=str(tmp_path), device="cpu").score(IMAGES[:1], PROMPTS[:1])
