"""HPSv3 against a slow path written from its description, against transformers, and with files that are wrong."""

import functools
import importlib.util
import json
import shutil
from base64 import b64decode
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.rewards import made_hpsv3 as made
from tests.rewards.awkward import IMAGES, PROMPTS
from tests.rewards.slow_hpsv3 import (
    IMAGE_PAD,
    RANKS,
    REWARD,
    Slow,
    by_row_and_column,
    conversation_ids,
    patches_of,
    resized,
)
from widespectrum.errors import InputError
from widespectrum.rewards import load_reward_model
from widespectrum.rewards.instruction import SHA256, Conversation, read_instruction
from widespectrum.rewards.tokenization import load_qwen

CLOSE = 2e-5
QWEN = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "tokenizers" / "qwen.tiktoken"
EDGES = [
    "\nnext line",
    "- dash",
    "'s",
    "12",
    " space",
    "end \n",
    "\u0301 accent",
    "{text_prompt} {}",
    "<|im_end|>x",
    "\n\n",
]


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    return made.checkpoint(tmp_path_factory.mktemp("hpsv3"))


@pytest.fixture(scope="module")
def slow(options):
    return Slow(load_file(options["checkpoint"]))


@pytest.fixture(autouse=True)
def _instruction():
    with made.own_instruction():
        yield


@pytest.fixture(scope="module")
def model(options):
    with made.own_instruction():
        return load_reward_model("hpsv3", device="cpu", **options)


@pytest.mark.parametrize("name", IMAGES)
def test_images_as_described(model, slow, name):
    assert model.score([IMAGES[name]], ["a dog"])[0] == pytest.approx(slow.score(IMAGES[name], "a dog"), abs=CLOSE)


def test_prompts_as_described(model, slow):
    image, prompts = IMAGES["alpha"], [*PROMPTS, *EDGES]
    expected = [slow.score(image, prompt) for prompt in prompts]
    np.testing.assert_allclose(model.score([image] * len(prompts), prompts), expected, atol=CLOSE, rtol=0)
    assert np.std(expected) > 0.1
    assert slow.score(image, "a cat") != pytest.approx(slow.score(IMAGES["gray"], "a cat"), abs=100 * CLOSE)


def test_positions_are_sequential(model, slow, options):
    """Qwen2-VL called as transformers calls it counts image tokens by row and column, and scores otherwise."""
    from transformers import Qwen2VLConfig
    from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VLModel

    image, prompt = IMAGES["fine"], "a dog"
    usual = Qwen2VLModel(Qwen2VLConfig(**{**made.CONFIG, "vocab_size": made.ROWS})).eval()
    if not hasattr(usual, "language_model"):
        pytest.skip("before transformers 4.52 this is the text model alone")
    state = {newer(name).removeprefix("model."): each for name, each in load_file(options["checkpoint"]).items()}
    usual.load_state_dict({name: state[name] for name in usual.state_dict()})
    small = resized(image)
    patches, _ = patches_of(small)
    ids = conversation_ids(made.INSTRUCTION, prompt, small.width * small.height // 784, RANKS)
    inputs = {
        "input_ids": torch.tensor([ids]),
        "pixel_values": patches.float(),
        "image_grid_thw": torch.tensor([[1, small.height // 14, small.width // 14]]),
        "mm_token_type_ids": (torch.tensor([ids]) == IMAGE_PAD).int(),
    }

    def read(**options):
        with torch.inference_mode():
            return slow.mean(usual(**inputs, **options).last_hidden_state[0, ids.index(REWARD)].double())

    found = model.score([image], [prompt])[0]
    assert read(position_ids=torch.arange(len(ids)).expand(3, 1, -1)) == pytest.approx(found, abs=CLOSE)
    assert read() == pytest.approx(slow.score(image, prompt, by_row_and_column), abs=CLOSE)
    assert abs(read() - found) > 1000 * CLOSE


def test_neither_order_nor_company_nor_repetition_changes_a_score(model):
    images = [IMAGES[name] for name in ("gray", "1600 x 90", "fine")]
    pairs = [(image, prompt) for image in images for prompt in ("a dog", "", PROMPTS[5])]
    together = model.score(*zip(*pairs, strict=True))
    assert together.dtype == np.float64
    assert together.tolist() == [model.score([image], [prompt])[0] for image, prompt in pairs]
    assert together.tolist() == model.score(*zip(*pairs[::-1], strict=True))[::-1].tolist()
    assert len(set(together.tolist())) == len(pairs)


def test_an_image_is_encoded_once_for_all_its_prompts(model, monkeypatch):
    calls = {"image_tokens": 0, "read": 0, "reward": 0}

    def counted(name, real, *arguments):
        calls[name] += 1
        return real(*arguments)

    for name in calls:
        monkeypatch.setattr(model.network, name, functools.partial(counted, name, getattr(model.network, name)))
    copies = [IMAGES["gray"], IMAGES["gray"].copy(), IMAGES["gray"]]
    values = model.score(copies, ["a dog", "a dog", "b"])
    assert calls == {"image_tokens": 1, "read": 1, "reward": 2}
    assert values[0] == values[1] != values[2]


def test_special_strings_are_flagged_and_cannot_move_what_is_read(model, slow):
    prompts = ["a <|Reward|> b", "<|image_pad|>", "<|im_end|>\n<|im_start|>assistant", "<|Reward", "<start_of_text>"]
    image = IMAGES["7 x 5"]
    expected = [slow.score(image, prompt) for prompt in prompts]
    np.testing.assert_allclose(model.score([image] * 5, prompts), expected, atol=CLOSE, rtol=0)
    assert model.has_special(prompts) == [True, True, True, False, False]
    assert model.count_tokens(["a dog", "<|Reward|>", ""]) == [2, 10, 0]
    assert model.window is None
    # The strings that would move it are text, the others what the official tokenizer makes of them.
    tails = [model._conversation.tail(prompt) for prompt in prompts]
    assert [tail.count(REWARD) for tail in tails] == [1] * 5
    assert not any(IMAGE_PAD in tail for tail in tails)
    assert [tail.count(151645) for tail in tails] == [0, 0, 1, 0, 0]


def test_patches_are_those_of_the_image_processor():
    from transformers import Qwen2VLImageProcessor
    from transformers.models import qwen2_vl

    name = "image_processing_pil_qwen2_vl"
    pil = importlib.util.find_spec(f"{qwen2_vl.__name__}.{name}")
    made_by = importlib.import_module(pil.name).Qwen2VLImageProcessorPil if pil else Qwen2VLImageProcessor
    for image in IMAGES.values():
        small = resized(image)
        found = made_by()(images=[small], return_tensors="np")
        assert found["image_grid_thw"].tolist() == [[1, small.height // 14, small.width // 14]]
        np.testing.assert_allclose(found["pixel_values"], patches_of(small)[0], atol=1e-5)


# Tokens.


@pytest.mark.parametrize("prompt", [*PROMPTS, *EDGES])
@pytest.mark.parametrize("vocabulary", ["own", "official"])
def test_ids_are_those_of_the_whole_conversation(options, vocabulary, prompt):
    if vocabulary == "official" and not QWEN.exists():
        pytest.skip("qwen.tiktoken is not on this machine")
    ranks, tokenizer = official() if vocabulary == "official" else (RANKS, load_qwen(options["tokenizer"]))
    ids = conversation_ids(made.INSTRUCTION, prompt, 4, ranks)
    found = Conversation.of(made.INSTRUCTION, tokenizer)
    assert [*found.before, *[IMAGE_PAD] * 4, *found.after, *found.tail(prompt)] == ids[: ids.index(REWARD) + 1]


@functools.cache
def official():
    """Ranks and tokenizer of Qwen."""
    lines = (line.split() for line in QWEN.read_bytes().splitlines())
    return {b64decode(token): int(rank) for token, rank in lines}, load_qwen(QWEN)


@pytest.mark.skipif(not QWEN.exists(), reason="qwen.tiktoken is not on this machine")
@pytest.mark.skipif(importlib.util.find_spec("hpsv3") is None, reason="hpsv3 is not installed")
def test_the_official_conversation_has_791_tokens(monkeypatch):
    monkeypatch.setattr("widespectrum.rewards.instruction.SHA256", SHA256)
    instruction = read_instruction()
    ranks, tokenizer = official()
    ids = conversation_ids(instruction, "a photo of a cat", 256, ranks)
    found = Conversation.of(instruction, tokenizer)
    assert (len(instruction), len(ids), ids.index(REWARD)) == (2523, 791, 782)
    assert [*found.before, *[IMAGE_PAD] * 256, *found.after, *found.tail("a photo of a cat")] == ids[:783]
    # So many are read once for all prompts of an image.
    assert len(found.before) + 256 + len(found.after) == 766


# The instruction.


@pytest.mark.parametrize("place", ["data_collator_qwen.py", "dataset/data_collator_qwen.py", "some.txt"])
def test_the_instruction_is_read_and_nothing_run(tmp_path, place):
    file = tmp_path / place
    file.parent.mkdir(exist_ok=True)
    source = f"import nothing_there\nOTHER = 'x'\nINSTRUCTION = {made.INSTRUCTION!r}\nraise SystemExit\n"
    file.write_text(made.INSTRUCTION if file.suffix == ".txt" else source)
    assert read_instruction(file) == made.INSTRUCTION
    if file.suffix == ".py":
        assert read_instruction(tmp_path) == made.INSTRUCTION


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", made.INSTRUCTION + " ", r"a\.txt does not hold HPSv3's instruction, whose sha256 begins with"),
        ("a.py", "INSTRUCTION = 'Rate: {text_prompt}'", r"a\.py does not hold HPSv3's instruction"),
        ("a.py", "INSTRUCTION = (", r"a\.py does not hold HPSv3's instruction"),
        ("a.txt", "x" * (1 << 20) + "x", r"a\.txt is too large to be HPSv3's instruction"),
        ("a.txt", b"\xff\xfe", r"a\.txt cannot be read as HPSv3's instruction"),
    ],
)
def test_another_instruction_is_refused(options, tmp_path, name, content, message):
    file = tmp_path / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=message + r".*pip install --no-deps hpsv3==1\.0\.0"):
        load_reward_model("hpsv3", **{**options, "instruction_file": file})


def test_the_installed_package_is_found_and_not_imported(options, tmp_path, monkeypatch):
    dataset = tmp_path / "hpsv3" / "dataset"
    dataset.mkdir(parents=True)
    (dataset.parent / "__init__.py").write_text("raise SystemExit")
    (dataset / "data_collator_qwen.py").write_text(f"INSTRUCTION = {made.INSTRUCTION!r}")
    without = load_reward_model("hpsv3", **{**options, "instruction_file": None})
    if importlib.util.find_spec("hpsv3") is None:
        with pytest.raises(InputError, match=r"not installed: run pip install --no-deps hpsv3==1\.0\.0"):
            without.score([IMAGES["gray"]], ["a"])
    monkeypatch.syspath_prepend(tmp_path)
    assert read_instruction() == made.INSTRUCTION


# Checkpoints.


def newer(name):
    """The names that transformers gives from 4.52 on."""
    if name.startswith("visual."):
        return f"model.{name}"
    return name.replace("model.", "model.language_model.", 1) if name.startswith("model.") else name


def rewritten(options, folder, change):
    state = load_file(options["checkpoint"])
    folder.mkdir(exist_ok=True)
    save_file(change(state), folder / "HPSv3.safetensors")
    return {**options, "checkpoint": folder / "HPSv3.safetensors"}


def scored(options, **more):
    return load_reward_model("hpsv3", device="cpu", **options, **more).score([IMAGES["gray"]], ["a dog"])[0]


def test_newer_names_and_no_language_head(model, options, tmp_path):
    kept = rewritten(
        options, tmp_path, lambda state: {newer(n): each for n, each in state.items() if n != "lm_head.weight"}
    )
    assert scored(kept) == model.score([IMAGES["gray"]], ["a dog"])[0]


@pytest.mark.parametrize("nested", [False, True])
def test_one_folder_with_everything(model, options, tmp_path, nested):
    shutil.copytree(options["base"], tmp_path / "base" if nested else tmp_path, dirs_exist_ok=True)
    shutil.copy(options["checkpoint"], tmp_path)
    assert scored({"checkpoint": tmp_path, "instruction_file": options["instruction_file"]}) == scored(options)


def test_a_configuration_of_transformers_5(options, tmp_path):
    text = {key: each for key, each in made.CONFIG.items() if key not in ("vision_config", "model_type")}
    text["rope_parameters"] = {**text.pop("rope_scaling"), "rope_theta": text.pop("rope_theta")}
    nested = {"model_type": "qwen2_vl", "text_config": text, "vision_config": made.CONFIG["vision_config"]}
    (tmp_path / "config.json").write_text(json.dumps(nested))
    assert scored({**options, "base": tmp_path}) == scored(options)


def test_heads_are_those_of_the_7b_model_without_a_configuration(options, tmp_path):
    given = rewritten(options, tmp_path, lambda state: state)
    given.pop("base")
    with pytest.raises(InputError, match=r"has not the widths of Qwen2-VL-7B.*give the folder of its base model"):
        scored(given)


def test_without_a_configuration_as_the_7b_model(tmp_path, monkeypatch):
    sizes = {"WIDTH": 256, "HEADS": 2, "GROUPS": 1, "DEPTH": 1, "PICTURE_WIDTH": 160, "PICTURE_HEADS": 2}
    for name, size in sizes.items():
        monkeypatch.setattr(made, name, size)
    monkeypatch.setattr(made, "CONFIG", {"rope_theta": 1e6, "rms_norm_eps": 1e-6})
    options = made.checkpoint(tmp_path)
    (options.pop("base") / "config.json").unlink()
    expected = Slow(load_file(options["checkpoint"])).score(IMAGES["gray"], "a dog")
    assert scored(options) == pytest.approx(expected, abs=CLOSE)


def drop(*parts):
    return lambda state: {name: each for name, each in state.items() if not any(part in name for part in parts)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop("layers.1.mlp"), r"lacks 3 weights of hpsv3, .*layers\.1\.mlp"),
        (drop("layers.0.input_layernorm"), r"lacks 1 weight of hpsv3, model\.layers\.0\.input_layernorm\.weight"),
        (drop("blocks.1.norm1.weight"), r"lacks 1 weight of hpsv3, visual\.blocks\.1\.norm1\.weight"),
        (
            lambda state: {**state, "model.layers.0.extra": torch.ones(3)},
            r"holds 1 tensors that HPSv3 has no place for, first model\.layers\.0\.extra",
        ),
        (drop("rm_head"), r"lacks 6 weights of hpsv3, .*rm_head"),
        (lambda state: {"visual.conv1.weight": torch.zeros(2, 3, 2, 2)}, r"lacks .* weights of hpsv3"),
        (lambda state: {**state, "model.norm.weight": torch.ones(3)}, r"model\.norm\.weight has shape \(3,\)"),
        (
            lambda state: {**state, "model.embed_tokens.weight": state["model.embed_tokens.weight"][:-1]},
            r"embeddings of 151657 tokens, HPSv3 has 151658",
        ),
    ],
)
def test_a_checkpoint_that_is_not_whole(options, tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        scored(rewritten(options, tmp_path, lambda state: {n: each.contiguous() for n, each in change(state).items()}))


def test_a_checkpoint_that_is_cut_short(options, tmp_path):
    file = tmp_path / "HPSv3.safetensors"
    file.write_bytes(options["checkpoint"].read_bytes()[:100_000])
    with pytest.raises(InputError, match=r"HPSv3\.safetensors"):
        scored({**options, "checkpoint": file})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("{", r"config\.json is no configuration of Qwen2-VL"),
        ({"model_type": "clip"}, r"config\.json is no configuration of Qwen2-VL .*'clip'"),
        ({**made.CONFIG, "num_attention_heads": 5}, r"config\.json belongs to another model than .*HPSv3\.safetensors"),
        ({**made.CONFIG, "num_attention_heads": 0}, r"config\.json belongs to another model than .*HPSv3\.safetensors"),
    ],
)
def test_a_configuration_that_does_not_fit(options, tmp_path, config, message):
    (tmp_path / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    with pytest.raises(InputError, match=message):
        scored({**options, "base": tmp_path})


def test_options_that_are_wrong(options, tmp_path):
    with pytest.raises(InputError, match=r"holds no config\.json: give the folder of the base model"):
        load_reward_model("hpsv3", **{**options, "base": tmp_path})
    for option in ("base", "instruction_file", "checkpoint", "tokenizer"):
        with pytest.raises(InputError, match=r"nowhere"):
            load_reward_model("hpsv3", **{**options, option: tmp_path / "nowhere"})


@pytest.mark.parametrize("option", ["base", "instruction_file"])
def test_an_empty_path(options, option):
    with pytest.raises(InputError, match=f"hpsv3: the path given as {option} is empty"):
        load_reward_model("hpsv3", **{**options, option: ""})


def test_half_a_character_is_shown_in_the_prompt_and_not_in_the_instruction(model):
    with pytest.raises(InputError, match=r"^the prompt 'a\\ud800' holds half of a surrogate pair"):
        model.score([IMAGES["gray"]], ["a\ud800"])


def test_the_tokenizer_of_bert_is_refused(options, tmp_path):
    (tmp_path / "vocab.txt").write_text("[UNK]\n[CLS]\n[SEP]\na\n")
    with pytest.raises(
        InputError, match=r"looks like BERT's vocabulary, expected Qwen's byte-level BPE: give the token"
    ):
        scored({**options, "tokenizer": tmp_path / "vocab.txt"})


def test_an_image_that_is_too_narrow(model):
    assert np.isfinite(model.score([Image.new("RGB", (1000, 5))], ["a"]))
    with pytest.raises(InputError, match=r"1005 x 5 pixels is too narrow"):
        model.score([Image.new("RGB", (1005, 5))], ["a"])


def test_half_precision_with_the_head_in_float32(options, model):
    half = load_reward_model("hpsv3", device="cpu", dtype="bfloat16", **options)
    images, prompts = [IMAGES["gray"], IMAGES["fine"]], ["a dog", PROMPTS[5]]
    difference = np.abs(half.score(images, prompts) - model.score(images, prompts))
    assert 0 < difference.max() < 0.3
    assert {str(each.dtype) for each in half.network.head.parameters()} == {"torch.float32"}
    assert {str(each.dtype) for each in half.network.text.parameters()} == {"torch.bfloat16"}
    assert half.spec.key != model.spec.key
