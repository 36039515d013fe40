"""A tiny model with random weights; open_clip called directly is the oracle."""

import json

import numpy as np
import open_clip
import PIL.Image
import pytest
import torch
from safetensors.torch import save_file

from widespectrum.ava.embedding import embed_images, embed_texts, load_model
from widespectrum.errors import InputError
from widespectrum.prompts.images import open_photograph

CONFIG = {
    "embed_dim": 12,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 16, "head_width": 8, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
}
TEXTS = ["a blurred photograph", "an ordinary street at night, " * 20]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What open_clip saves for the Hub, and the same weights as a state dict of torch."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    folder.mkdir()
    (folder / "tiny-clip.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    open_clip.add_model_config(folder / "tiny-clip.json")
    torch.manual_seed(0)
    model = open_clip.create_model("tiny-clip")
    hub = folder / "hub"
    hub.mkdir()
    config = {"model_cfg": CONFIG, "preprocess_cfg": {"interpolation": "bicubic"}}
    (hub / "open_clip_config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file(model.state_dict(), hub / "open_clip_model.safetensors")
    torch.save(model.state_dict(), folder / "weights.pt")
    return folder


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for number in range(5):
        pixels = rng.integers(0, 256, (40, 30 + 5 * number, 3), dtype=np.uint8)
        PIL.Image.fromarray(pixels).save(folder / f"{number}.png")
    return [(number, folder / f"{number}.png") for number in range(5)]


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize("form", ["open_clip:tiny-clip@{}/weights.pt", "open_clip:{}/hub"])
def test_equals_open_clip_called_directly(form, folder, files, tmp_path):
    direct, _, preprocess = open_clip.create_model_and_transforms("tiny-clip", pretrained=str(folder / "weights.pt"))
    direct.eval()
    with torch.inference_mode():
        images = direct.encode_image(torch.stack([preprocess(PIL.Image.open(path)) for _, path in files])).numpy()
        texts = direct.encode_text(open_clip.get_tokenizer("tiny-clip")(TEXTS)).numpy()

    model = load_model(form.format(folder), device="cpu")
    prepared = [model.prepare(open_photograph(path)) for _, path in files]
    np.testing.assert_allclose(unit(model.encode_images(prepared)), unit(images), atol=1e-6)
    np.testing.assert_allclose(embed_texts(model, TEXTS), unit(texts), atol=1e-6)
    for batch_size in (2, 5):
        embed_images(model, files, tmp_path / str(batch_size), batch_size=batch_size)
        stored = np.load(tmp_path / str(batch_size) / "embeddings.npy")
        np.testing.assert_allclose(stored.astype(np.float32), unit(images), atol=2**-12 + 1e-6)
    assert (model.spec.adapter, len(model.spec.params["sha256"])) == ("open_clip", 64)


class Danger:
    def __reduce__(self):
        return print, ("unpickled",)


def test_a_pickle_is_not_unpickled(folder, tmp_path, capfd):
    torch.save({"state_dict": Danger()}, tmp_path / "weights.pt")
    model = load_model(f"open_clip:tiny-clip@{tmp_path / 'weights.pt'}", device="cpu")
    with pytest.raises(InputError, match=r"open_clip:tiny-clip could not be loaded: it holds more than numbers"):
        model.load()
    assert "unpickled" not in capfd.readouterr().out


def test_folders_without_a_model(folder, tmp_path):
    with pytest.raises(InputError, match=r"holds no open_clip_config.json"):
        load_model(f"open_clip:{tmp_path}")
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": CONFIG}), encoding="utf-8")
    with pytest.raises(InputError, match=r"could not be loaded .*Required pretrained weights"):
        load_model(f"open_clip:{tmp_path}", device="cpu").load()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ViT-B-32", "open_clip:ViT-B-32 names no weights: expected transformers:"),
        ("ViT-Z-99@openai", r"open_clip has no architecture 'ViT-Z-99'"),
        (
            "ViT-B-32@lion2b",
            r"'lion2b' is neither a file nor a pretrained tag of ViT-B-32; its tags: openai, laion400m",
        ),
        ("ViT-B-32@openai", r"openai was trained with another activation .* use ViT-B-32-quickgelu@openai"),
        ("ViT-B-16-SigLIP@webli", r"its tokenizer from the Hub, unpinned: use open_clip:hf-hub:timm/ViT-B-16-SigLIP"),
        ("ViT-B-32@laion2b_s34b_b79k", r"could not be had from the Hub"),
        ("hf-hub:org/absent", r"'org/absent' is no folder here and could not be had from the Hub"),
    ],
)
def test_names_that_lead_nowhere(name, expected):
    with pytest.raises(InputError, match=expected):
        load_model(f"open_clip:{name}")
