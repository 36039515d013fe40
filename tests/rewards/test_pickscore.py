"""PickScore against the slow CLIP, its folder and its scale."""

import json

import pytest
import torch

from tests.rewards import clip_reference
from tests.rewards.awkward import IMAGES
from tests.rewards.clip_reference import SlowClip, cropped, gelu, grid, transformers_ids
from tests.rewards.made_clip import VOCABULARY, save_folder
from tests.rewards.made_pickscore import checkpoint, tensors
from widespectrum.errors import InputError
from widespectrum.rewards.pickscore import PickScoreReward

pytestmark = pytest.mark.skipif(not VOCABULARY.exists(), reason="CLIP's vocabulary is not on this machine")

SCALE = float(torch.tensor(4.6052).exp())


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return checkpoint(tmp_path_factory.mktemp("pickscore"))


@pytest.fixture(scope="module")
def expected():
    slow = SlowClip(tensors(), heads=(2, 2), activation=gelu)
    return SCALE * slow.cosines(lambda image: cropped(image, rgb_first=True), transformers_ids)


def test_awkward_images_and_prompts_as_in_the_official_code(files, expected):
    assert expected.std() > 5
    assert abs(grid(PickScoreReward(device="cpu", **files)) - expected).max() < 2e-4


def test_the_scale_is_exact_in_any_dtype(files):
    model = PickScoreReward(device="cpu", dtype="bfloat16", **files)
    assert model.scale == SCALE
    images, prompts = [IMAGES["gray"], IMAGES["fine"]], ["a dog", "a gray photograph"]
    cosines = (model.encode_images(images) * model.encode_texts(prompts)).sum(axis=1)
    assert model.score(images, prompts) == pytest.approx(SCALE * cosines, abs=1e-12)


def test_the_tokenizer_in_the_folder_is_read_where_none_is_given(files, expected):
    _, vocabulary, ranks = clip_reference.parts()
    folder = files["checkpoint"]
    ends = {word: 49406 + n for n, word in enumerate(clip_reference.OPENAI)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary | ends), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *map(" ".join, ranks)]), encoding="utf-8")
    model = PickScoreReward(device="cpu", checkpoint=folder)
    assert abs(grid(model, [IMAGES["gray"]]) - expected[:1]).max() < 2e-4


def test_config_says_heads_and_activation_and_must_fit_the_weights(tmp_path):
    save_folder(tensors(), tmp_path, activation="quick_gelu", head=40)
    slow = SlowClip(tensors(), heads=(4, 2), activation=clip_reference.quick_gelu)
    images, prompts = [IMAGES["gray"]], ["a dog"]
    wanted = SCALE * slow.cosines(lambda image: cropped(image, rgb_first=True), transformers_ids, images, prompts)
    found = grid(PickScoreReward(device="cpu", checkpoint=tmp_path, tokenizer=VOCABULARY), images, prompts)
    assert abs(found - wanted).max() < 2e-4
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    config["text_config"]["num_hidden_layers"] = 3
    path.write_text(json.dumps(config))
    message = (
        r"config\.json belongs to another checkpoint: .* text tower .*'num_hidden_layers': 3.*'num_hidden_layers': 2"
    )
    with pytest.raises(InputError, match=message):
        grid(PickScoreReward(device="cpu", checkpoint=tmp_path, tokenizer=VOCABULARY), images, prompts)
