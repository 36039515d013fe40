"""Tiny models with random weights; transformers called directly, row by row, is the oracle."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

from tests.rewards import made_any_clip
from widespectrum.errors import InputError, ModelError
from widespectrum.rewards import any_clip
from widespectrum.rewards.any_clip import AnyClipReward

# The tokenizer has one token per letter, lower case, and <unknown>; the text tower reads 20.
PROMPTS = [
    "a cat",
    "",
    "   ",
    "x" * 18,
    "x" * 19,
    "a long dog, " * 9,
    "日本 & ünïcode &amp; mâché",
    "a <end> of",
    "<start>",
]


def awkward_images():
    rng = np.random.default_rng(0)

    def noise(*shape):
        return Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8))

    photo = noise(40, 60, 3)
    rotated = photo.copy()
    exif = Image.Exif()
    exif[0x0112] = 6
    rotated.info["exif"] = exif.tobytes()
    palette = photo.quantize(16)
    palette.info["transparency"] = bytes([0, 128, 255])
    return {
        "rgb": photo,
        "gray": noise(40, 50),
        "gray and alpha": noise(40, 50).convert("LA"),
        "palette": photo.quantize(16),
        "palette with alpha": palette,
        "alpha": noise(30, 45, 4),
        "exact": noise(32, 32, 3),
        "7 x 5": noise(5, 7, 3),
        "3 rows": noise(3, 9, 3),
        "wide": noise(9, 160, 3),
        "high": noise(70, 6, 3),
        "rotated": rotated,
        "one bit": noise(20, 20).convert("1"),
    }


IMAGES = awkward_images()


@pytest.fixture(scope="module", params=["clip", "siglip"])
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def folder(kind, tmp_path_factory):
    return made_any_clip.checkpoint(tmp_path_factory.mktemp("models"), kind=kind)["checkpoint"]


@pytest.fixture(scope="module")
def model(folder):
    return AnyClipReward(source="tiny", checkpoint=folder, device="cpu", batch_size=4)


def direct(folder, image, prompt):
    """The cosine of one image and one prompt, by transformers alone; alpha is dropped by hand."""
    import transformers

    network = transformers.AutoModel.from_pretrained(folder)
    processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    if image.mode == "RGBA":
        image = Image.merge("RGB", image.split()[:3])
    elif image.mode == "P":
        image = Image.fromarray(np.array(image.getpalette(), dtype=np.uint8).reshape(-1, 3)[np.array(image)])
    elif image.mode != "RGB":
        gray = np.array(image.getchannel(0)).astype(np.uint8) * (255 if image.mode == "1" else 1)
        image = Image.fromarray(np.stack([gray] * 3, axis=-1))
    tokens = tokenizer([prompt], padding="max_length", truncation=True, max_length=20, return_tensors="pt")
    with torch.inference_mode():
        one = network.get_image_features(**processor([image], return_tensors="pt")).pooler_output[0].double()
        other = network.get_text_features(**tokens).pooler_output[0].double()
    return float(one @ other / torch.sqrt((one @ one) * (other @ other)))


@pytest.mark.parametrize("name", IMAGES)
def test_images_equal_transformers_called_directly(name, model, folder):
    expected = direct(folder, IMAGES[name], "a cat")
    assert model.score([IMAGES[name]], ["a cat"]) == pytest.approx([expected], abs=2e-6)


@pytest.mark.parametrize("prompt", PROMPTS)
def test_prompts_equal_transformers_called_directly(prompt, model, folder):
    expected = direct(folder, IMAGES["rgb"], prompt)
    assert model.score([IMAGES["rgb"]], [prompt]) == pytest.approx([expected], abs=2e-6)


def test_batches_order_and_repetition_change_nothing(model):
    images = list(IMAGES.values())[: len(PROMPTS)]
    scores = model.score(images, PROMPTS)
    assert (scores.dtype, scores.shape) == (np.float64, (len(PROMPTS),))
    assert np.ptp(scores) > 0.01
    alone = np.concatenate([model.score([image], [prompt]) for image, prompt in zip(images, PROMPTS, strict=True)])
    np.testing.assert_allclose(scores, alone, atol=1e-6)
    np.testing.assert_allclose(model.score(images[::-1], PROMPTS[::-1])[::-1], scores, atol=1e-6)
    np.testing.assert_array_equal(model.score(images, PROMPTS), scores)
    parts = model.combine(model.encode_images(images), model.encode_texts(PROMPTS))
    np.testing.assert_allclose(parts, scores, atol=1e-12)


def test_tokens_are_counted_before_the_cut(model):
    assert model.window == 20
    assert model.count_tokens(["", "a cat", "x" * 18, "x" * 19, "日"]) == [2, 7, 20, 21, 3]
    assert model.has_special(["a cat", "<end>", "a <start> b", "日", "<unknown>", "end"]) == [
        *(False, True, True, False, True, False)
    ]


def test_the_spec_is_the_weights_and_the_dtype(model, folder, kind, tmp_path):
    assert str(model.spec).startswith(f"clip:{kind}?dtype=%22float32%22&library=%22transformers%22&sha256=%22")
    moved = shutil.copytree(folder, tmp_path / "copy" / kind)
    assert AnyClipReward(source=str(moved), device="cpu", batch_size=1).spec == model.spec
    assert AnyClipReward(source=f"transformers:{moved}", device="cpu").spec == model.spec
    other = made_any_clip.checkpoint(tmp_path, seed=1, kind=kind)
    assert AnyClipReward(source="tiny", **other).spec != model.spec
    rough = AnyClipReward(source="tiny", checkpoint=folder, device="cpu", dtype="bfloat16")
    assert rough.spec != model.spec
    difference = rough.score([IMAGES["rgb"]], ["a cat"]) - model.score([IMAGES["rgb"]], ["a cat"])
    assert 0 < abs(difference[0]) < 0.05


def test_the_weights_are_loaded_late_and_once(folder, monkeypatch):
    loaded = []
    load_model = any_clip.load_model
    monkeypatch.setattr(
        any_clip, "load_model", lambda *given, **options: loaded.append(1) or load_model(*given, **options)
    )
    model = AnyClipReward(source="tiny", checkpoint=folder, device="cpu")
    assert loaded == []
    with ThreadPoolExecutor(4) as pool:
        towers = list(pool.map(lambda _: model._load(), range(8)))
    assert loaded == [1]
    assert len(set(map(id, towers))) == 1


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"source": "tiny"}, r"clip:tiny names neither a folder that is there nor a repository: expected clip:<repo>@"),
        ({"source": "/no/such"}, r"clip:/no/such names neither a folder"),
        (
            {"source": "x", "checkpoint": "/no/such"},
            r"clip:x: no folder at /no/such: expected one that transformers or",
        ),
        ({"source": "a/b", "tokenizer": "t"}, r"clip:a/b reads the tokenizer that lies beside its weights: leave"),
        ({"source": "a/b", "dtype": "int8"}, r"clip:a/b: expected a dtype of float32, bfloat16, float16; got 'int8'"),
        ({"source": "a/b", "batch_size": 0}, r"clip:a/b: batch_size must be a whole number of 1 or more; got 0"),
    ],
)
def test_options_that_cannot_be(options, expected):
    with pytest.raises(InputError, match=expected):
        AnyClipReward(**options)


def test_a_folder_without_a_model(tmp_path):
    model = AnyClipReward(source=str(tmp_path), device="cpu")
    with pytest.raises(InputError, match=rf"^{tmp_path} has no weights: expected model\*.safetensors or pytorch_model"):
        model.score([IMAGES["rgb"]], ["a cat"])


def test_images_that_cannot_be_scored(model):
    with pytest.raises(
        InputError, match=r"an image of 1 x 501 pixels is too narrow, clip:tiny reads images up to 1:500"
    ):
        model.score([Image.new("RGB", (1, 501))], ["a cat"])


def test_features_without_a_direction_are_an_error(folder, tmp_path, kind):
    import transformers

    broken = shutil.copytree(folder, tmp_path / kind)
    network = transformers.AutoModel.from_pretrained(broken)
    with torch.no_grad():
        for name, tensor in network.named_parameters():
            if "text_projection" in name or "text_model.head" in name:
                tensor.zero_()
    network.save_pretrained(broken)
    with pytest.raises(ModelError, match=r"in float32 gave nan for the prompt 'a cat'"):
        AnyClipReward(source="tiny", checkpoint=broken, device="cpu").score([IMAGES["rgb"]], ["a cat"])
