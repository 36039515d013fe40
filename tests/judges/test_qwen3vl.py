"""transformers' own model, asked about one unpadded conversation at a time, is the oracle."""

import json
import re
import shutil

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, Qwen3VLForConditionalGeneration

from tests.judges import made_qwen3vl as made
from widespectrum.errors import InputError, ModelError
from widespectrum.judges.qwen3vl import Qwen3VL, computing
from widespectrum.judges.qwen3vl_files import quiet
from widespectrum.judges.qwen3vl_shared import SharedReader

MAX_PIXELS = 128 * 128
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return made.checkpoint(tmp_path_factory.mktemp("qwen3vl"))


@pytest.fixture(scope="module")
def lora(folder, tmp_path_factory):
    return made.lora(tmp_path_factory.mktemp("lora"), folder)


def opened(folder, adapter=None, **options):
    return Qwen3VL.open(
        folder, **{"adapter": adapter, "device": "cpu", "dtype": "float32", "max_pixels": MAX_PIXELS, **options}
    )


@pytest.fixture(scope="module")
def model(folder):
    return opened(folder)


@pytest.fixture(scope="module", params=["base", "lora"])
def either(folder, lora, request):
    return opened(folder, lora if request.param == "lora" else None)


@pytest.fixture(scope="module")
def official(folder):
    with quiet():
        return Qwen3VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()


def noise(width, height, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


SIDES = st.integers(8, 200)
IMAGES = st.builds(noise, SIDES, SIDES, st.integers(0, 3))
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\U000f8000\U000f8001"), max_size=60)
PARTS = st.lists(TEXTS | IMAGES, min_size=1, max_size=4).filter(
    lambda parts: sum(not isinstance(part, str) for part in parts) <= 2
)
CONVERSATIONS = st.lists(st.tuples(TEXTS, PARTS), min_size=2, max_size=4)


def alone(network, encoded):
    """The official forward pass: one conversation, no padding, no mask."""
    ids = torch.tensor([encoded.ids])
    image = network.config.image_token_id
    extra = {"mm_token_type_ids": (ids == image).int()}
    if encoded.pictures:
        extra["pixel_values"] = torch.cat([torch.tensor(each.pixels) for each in encoded.pictures])
        extra["image_grid_thw"] = torch.tensor([each.grid for each in encoded.pictures])
    with torch.no_grad():
        return network(input_ids=ids, **extra).logits[0, -1]


@given(CONVERSATIONS)
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_batch_of_unequal_conversations_is_as_many_single_ones(model, official, conversations):
    encoded = [model.encode(system, parts) for system, parts in conversations]
    expected = torch.stack([alone(official, each) for each in encoded])
    found = model.next_logits(encoded, batch_size=len(encoded))
    torch.testing.assert_close(found, expected, **CLOSE)
    torch.testing.assert_close(model.next_logits(encoded, batch_size=1), expected, **CLOSE)
    with computing("test"):
        torch.testing.assert_close(model.last_logits(model.collate(encoded, "right")), expected, **CLOSE)
        torch.testing.assert_close(SharedReader(model).logits(encoded), expected, **CLOSE)
    assert (found.dtype, found.shape) == (torch.float32, (len(encoded), model.network.config.text_config.vocab_size))


def test_what_a_wrong_padding_would_give_is_far_off(model, official):
    """The published code reads the last place of right-padded prompts; the tests here would see that."""
    encoded = [model.encode("a", [noise(64, 64), text]) for text in ("short", "a good deal longer than the other")]
    expected = torch.stack([alone(official, each) for each in encoded])
    with torch.no_grad():
        wrong = model.network(**model.collate(encoded, "right")).logits[:, -1]
        right = model.network(**model.collate(encoded, "left")).logits[:, -1]
    assert (wrong - expected)[0].abs().max() > 0.1
    torch.testing.assert_close(right, expected, **CLOSE)


def test_many_questions_about_one_image_are_read_against_its_keys(either):
    images = [either.picture(noise(90, 60, seed)) for seed in range(2)]
    texts = ["x", "a longer question?", "and one that is longer still, by far\n\n"]
    encoded = [either.encode("system", [image, text]) for image in images for text in texts]
    expected = either.next_logits(encoded, batch_size=1)
    reader = SharedReader(either)
    with computing("test"):
        torch.testing.assert_close(reader.logits(encoded), expected, **CLOSE)
        mixed = [4, 0, 5, 1, 3, 2]
        torch.testing.assert_close(reader.logits([encoded[row] for row in mixed]), expected[mixed], **CLOSE)
    assert (expected[:3] - expected[3:]).abs().max() > 0.1


def test_generation_begins_with_the_likeliest_token(either):
    encoded = either.encode("be brief", [noise(70, 40), "what is it?", noise(40, 70)])
    batch = either.collate([encoded])
    with quiet(), torch.no_grad():
        said = either.model.generate(**batch, max_new_tokens=1, do_sample=False)
    assert said[0, -1] == either.next_logits([encoded], batch_size=1)[0].argmax()


def test_log_probabilities_are_those_of_the_whole_vocabulary(model):
    encoded = [model.encode("", [text]) for text in ("a", "bcd", "ef")]
    found = model.next_log_probabilities(encoded, [7, 3], batch_size=2)
    logits = model.next_logits(encoded, batch_size=3).double().numpy()
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(np.exp(found), shares[:, [7, 3]], rtol=1e-4)


@pytest.mark.parametrize("text", ["plain", "\n\nthe edges\n\n", "", " I in the\u0301 漢 🙂"])
def test_ids_are_those_of_the_official_tokenizer(folder, model, text):
    image = noise(100, 50)
    messages = [
        {"role": "system", "content": text},
        {
            "role": "user",
            "content": [{"type": "text", "text": text}, {"type": "image"}, {"type": "text", "text": text}],
        },
    ]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    written = tokenizer.apply_chat_template(
        messages if text else messages[1:], chat_template=made.TEMPLATE, tokenize=False, add_generation_prompt=True
    )
    count = model.picture(image).tokens
    expected = tokenizer(written.replace("<|image_pad|>", "<|image_pad|>" * count))["input_ids"]
    assert model.encode(text, [text, image, text]).ids == expected


@pytest.mark.parametrize("name", [*made.SPECIAL, *made.PLAIN_ADDED])
def test_what_looks_like_a_special_token_is_text(model, name):
    number = model.tokenizer.convert_tokens_to_ids(name)
    counts = [
        model.encode(f"s{text}s", [f"a {text}\n", noise(64, 64), f"{text}b"]).ids.count(number) for text in ("", name)
    ]
    assert counts[0] == counts[1]
    assert f"X{name}Y" in model.tokenizer.decode(model.encode("", [f"X{name}Y"]).ids)


@pytest.mark.parametrize(
    ("size", "grid"),
    [
        ((64, 96), (1, 6, 4)),
        ((60, 100), (1, 6, 4)),
        ((1000, 500), (1, 4, 10)),
        ((500, 1000), (1, 10, 4)),
        ((16, 16), (1, 4, 4)),
    ],
)
def test_aspect_ratio_is_kept_and_pixels_are_limited(model, size, grid):
    found = model.picture(noise(*size))
    assert found.grid == grid
    assert found.tokens == grid[1] * grid[2] // 4
    assert found.pixels.shape == (grid[1] * grid[2], 3 * 2 * 16 * 16)
    assert grid[1] * grid[2] * 256 <= MAX_PIXELS


def test_fewer_pixels_than_the_least_of_the_checkpoint(folder):
    assert opened(folder, max_pixels=40 * 40).picture(noise(300, 300)).grid == (1, 2, 2)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "1", "CMYK"])
def test_images_of_all_modes(model, mode):
    assert np.isfinite(model.picture(noise(64, 64).convert(mode)).pixels).all()


def test_other_layouts_of_the_same_checkpoint(folder, model, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(folder, other, ignore=shutil.ignore_patterns("*.safetensors", "chat_template.json"))
    (other / "chat_template.jinja").write_text(made.TEMPLATE)
    with quiet():
        model.network.save_pretrained(other, max_shard_size="60KB")
    assert len(list(other.glob("model-*.safetensors"))) > 1
    parts = ["a", noise(90, 50), "b"]
    found = opened(other)
    assert torch.equal(
        found.next_logits([found.encode("s", parts)], batch_size=1),
        model.next_logits([model.encode("s", parts)], batch_size=1),
    )


def test_a_lora_changes_what_it_should(folder, model, lora):
    with_lora = opened(folder, lora)
    encoded = [model.encode("s", [noise(90, 50), "b"])]
    found = with_lora.next_logits(encoded, batch_size=1)
    assert (found - model.next_logits(encoded, batch_size=1)).abs().max() > 0.1
    with quiet():
        merged = with_lora.model.merge_and_unload()
    torch.testing.assert_close(found[0], alone(merged, encoded[0]), rtol=1e-4, atol=1e-4)


def test_bfloat16(folder):
    model = opened(folder, dtype="bfloat16")
    assert {each.dtype for each in model.model.parameters()} == {torch.bfloat16}
    assert model.next_logits([model.encode("s", [noise(90, 50), "b"])], batch_size=1).dtype == torch.float32


def test_words_of_one_token(model):
    assert model.tokenizer.convert_ids_to_tokens(model.token_ids(["0", "2", " the"])) == ["0", "2", "Ġthe"]
    with pytest.raises(InputError, match="does not read '12', '' as one token each"):
        model.token_ids(["1", "12", ""])


def test_surrogates(model):
    with pytest.raises(InputError, match="half of a surrogate pair"):
        model.encode("", ["a \ud83d b"])


def test_images_that_cannot_be_read(model, tmp_path):
    with pytest.raises(InputError, match=r"the image cannot be read \(absolute aspect ratio must be smaller than 200"):
        model.picture(noise(402, 2))
    file = tmp_path / "cut.png"
    noise(64, 64).save(file)
    file.write_bytes(file.read_bytes()[:2000])
    with (
        pytest.raises(InputError, match=r"the image .*cut\.png cannot be read \(.*\): copy it again, or leave it out"),
        Image.open(file) as image,
    ):
        model.picture(image)


def edit(file, **changes):
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def without(name):
    return lambda folder: (folder / name).unlink()


def lose_a_weight(folder):
    weights = load_file(folder / "model.safetensors")
    del weights["model.language_model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def widen_a_weight(folder):
    weights = load_file(folder / "model.safetensors")
    weights["model.visual.pos_embed.weight"] = torch.zeros(25, 16)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


BROKEN = [
    (shutil.rmtree, "there is no folder .*: expected a checkpoint of Qwen3-VL"),
    (without("config.json"), r"config\.json cannot be read \(.*No such file"),
    (without("model.safetensors"), r"cannot be loaded \(OSError: .*no file named model.safetensors"),
    (without("tokenizer.json"), r"holds no tokenizer\.json or vocab\.json: copy the tokenizer of Qwen3-VL there"),
    (without("preprocessor_config.json"), r"holds no preprocessor_config\.json: copy that of Qwen3-VL there"),
    (without("chat_template.json"), r"holds no chat template: copy chat_template\.jinja or chat_template\.json"),
    (lambda folder: edit(folder / "chat_template.json", chat_template=5), "holds no chat template"),
    (
        lambda folder: (folder / "chat_template.jinja").write_text("{{ messages[0].content }}"),
        "chat template does not show every text and image once",
    ),
    (lambda folder: (folder / "chat_template.jinja").write_text("{% if %}"), r"chat template fails \(.*\): copy"),
    (lambda folder: edit(folder / "config.json", model_type="qwen2_vl"), "model of type 'qwen2_vl': expected one of"),
    (lambda folder: edit(folder / "config.json", image_token_id=3), r"the id of <\|image_pad\|> should be 3 by"),
    (lambda folder: edit(folder / "preprocessor_config.json", patch_size=14), "patch, frames and merge of an image"),
    (lose_a_weight, r"lacks 1 weights .* the first is model\.language_model\.layers\.1\.mlp\.up_proj\.weight"),
    (widen_a_weight, r"in another shape, the first is model\.visual\.pos_embed\.weight: copy it again"),
    (lambda folder: (folder / "model.safetensors").write_bytes(b"12345678"), r"cannot be loaded \(SafetensorError"),
    (lambda folder: (folder / "tokenizer.json").write_text("{"), "cannot be loaded"),
    (lambda folder: (folder / "config.json").write_text("[]"), "is no JSON object"),
]


@pytest.mark.parametrize(("damage", "message"), BROKEN, ids=[message[:30] for _, message in BROKEN])
def test_broken_checkpoints(folder, tmp_path, damage, message):
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    damage(broken)
    with pytest.raises(InputError, match=message) as caught:
        opened(broken)
    assert re.search("copy|give|expected", str(caught.value))
    assert "\n" not in str(caught.value)


def test_loras_of_another_base(folder, lora, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(lora, other)
    weights = load_file(other / "adapter_model.safetensors")
    name = sorted(weights)[0]
    save_file({key: each for key, each in weights.items() if key != name}, other / "adapter_model.safetensors")
    with pytest.raises(InputError, match=rf"no LoRA of this base: 1 weights are missing .* {re.escape(name)}; give"):
        opened(folder, other)
    save_file({**weights, name: torch.zeros(2, 2)}, other / "adapter_model.safetensors")
    with pytest.raises(InputError, match="size mismatch"):
        opened(folder, other)


def test_a_lack_of_memory(model, monkeypatch):
    def lacking(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    encoded = [model.encode("", ["a"])]
    monkeypatch.setattr(model.network.model, "forward", lacking)
    with pytest.raises(ModelError, match=r"^Qwen3-VL ran out of memory: give a smaller batch_size or max_pixels$"):
        model.next_logits(encoded, batch_size=1)
