"""What every neural reward model does alike: specs, batches, and what it says of odd input."""

import io
import json
import shutil

import numpy as np
import PIL.Image
import pytest

from tests.rewards import made_imagereward, made_pickscore
from widespectrum.errors import InputError
from widespectrum.rewards import load_reward_model


@pytest.fixture(scope="module")
def pickscore(tmp_path_factory):
    return load_reward_model("pickscore", **made_pickscore.checkpoint(tmp_path_factory.mktemp("pickscore")))


def picture(seed=0):
    return PIL.Image.fromarray(np.random.default_rng(seed).integers(0, 256, (30, 40, 3), dtype=np.uint8))


def test_the_spec_knows_the_vocabulary_by_its_tokens(tmp_path):
    made = made_imagereward.checkpoint(tmp_path)
    tokens = made["tokenizer"].read_text().splitlines()
    for name, content in (("same.txt", tokens), ("other.txt", [*tokens[:-1], "another"])):
        (tmp_path / name).write_text("\n".join(content) + "\n")
    keys = [
        load_reward_model("imagereward", **{**made, "tokenizer": path}).spec.key
        for path in (made["tokenizer"], tmp_path / "same.txt", tmp_path / "other.txt")
    ]
    assert keys[0] == keys[1] != keys[2]


def test_the_spec_knows_the_settings_beside_a_file(tmp_path):
    made = made_imagereward.checkpoint(tmp_path)
    settings = made["checkpoint"].with_name("med_config.json")
    content = json.loads(settings.read_text())
    found = [load_reward_model("imagereward", **made).spec]
    settings.write_text(json.dumps({**content, "layer_norm_eps": 1e-3}))
    found.append(load_reward_model("imagereward", **made).spec)
    settings.unlink()
    found.append(load_reward_model("imagereward", **made).spec)
    assert len({spec.key for spec in found}) == 3


def test_the_same_checkpoint_elsewhere_is_the_same_model(tmp_path, pickscore):
    moved = tmp_path / "elsewhere"
    shutil.copytree(pickscore.checkpoint.path, moved)
    other = load_reward_model("pickscore", checkpoint=moved, tokenizer=pickscore.tokenizer_path, device="cpu")
    assert other.spec == pickscore.spec
    keys = {
        load_reward_model("pickscore", checkpoint=moved, tokenizer=pickscore.tokenizer_path, dtype=dtype).spec.key
        for dtype in ("float32", "bfloat16", "float16")
    }
    assert len(keys) == 3


def test_any_iterables_are_taken(pickscore):
    images, prompts = [picture(0), picture(1), picture(0)], ["a", "b", "a"]
    expected = pickscore.score(images, prompts)
    assert expected[0] == expected[2]
    for make in (tuple, iter, np.array):
        assert np.array_equal(pickscore.score(iter(images), make(prompts)), expected)
        assert np.array_equal(pickscore.encode_texts(make(prompts)), pickscore.encode_texts(prompts))


@pytest.mark.parametrize(
    ("images", "prompts", "message"),
    [
        ([], [], "expected at least one image and one prompt, got none"),
        ([picture()], [], "got 1 images and 0 prompts"),
        (picture(), "a", "takes a list of images, got Image"),
        ([picture()], "a", "takes a list of prompts, got str"),
        ([picture(), "x.png"], ["a", "b"], "row 1: expected a PIL image, got str: open it first"),
        ([picture()] * 2, ["a", None], "row 1: expected a text as prompt, got NoneType"),
    ],
)
def test_what_cannot_be_scored_is_said(pickscore, images, prompts, message):
    with pytest.raises(InputError, match=message):
        pickscore.score(images, prompts)


def test_features_are_combined_row_by_row(pickscore):
    images, texts = pickscore.encode_images([picture()]), pickscore.encode_texts(["a", "b"])
    with pytest.raises(InputError, match="the features of 1 images and 2 texts"):
        pickscore.combine(images, texts)
    with pytest.raises(InputError, match="was given no prompts"):
        pickscore.encode_texts([])


def test_a_damaged_image_is_named_by_row_and_file(pickscore, tmp_path):
    buffer = io.BytesIO()
    picture().save(buffer, "PNG")
    (tmp_path / "cut.png").write_bytes(buffer.getvalue()[:-200])
    with PIL.Image.open(tmp_path / "cut.png") as cut:
        with pytest.raises(InputError, match=r"pickscore, row 1 \(.*cut\.png\): the image cannot be decoded"):
            pickscore.score([picture(), cut], ["a", "b"])
        with pytest.raises(InputError, match=r"row 1 \(.*cut\.png\)"):
            pickscore.encode_images([picture(), cut])


def test_a_device_that_is_not_there_is_refused_at_once(tmp_path):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(InputError, match=r"^device 'cuda' cannot be used here \(.{1,120}\): expected \"auto\""):
        load_reward_model("pickscore", device="cuda")
