"""CLIP-L and HPS v1 against the slow CLIP, in every container."""

import pytest
import torch
from safetensors.torch import save_file

from tests.rewards.awkward import IMAGES
from tests.rewards.clip_reference import SlowClip, cropped, grid, openai_ids, quick_gelu
from tests.rewards.made_clip import VOCABULARY, as_released, checkpoint, hps_checkpoint, save_folder, state
from widespectrum.errors import InputError
from widespectrum.rewards.clip_openai import ClipOpenAIReward

pytestmark = pytest.mark.skipif(not VOCABULARY.exists(), reason="CLIP's vocabulary is not on this machine")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return checkpoint(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def expected():
    slow = SlowClip(as_released(state()), heads=(2, 2), activation=quick_gelu)
    return slow.cosines(lambda image: cropped(image, rgb_first=False), openai_ids)


def test_awkward_images_and_prompts_as_in_the_official_code(files, expected):
    assert expected.std() > 0.05
    assert abs(grid(ClipOpenAIReward(model="clip-l", device="cpu", **files)) - expected).max() < 2e-6


def test_hps_is_the_same_network_in_its_own_file(tmp_path, expected):
    model = ClipOpenAIReward(model="hps", device="cpu", **hps_checkpoint(tmp_path))
    few = list(IMAGES.values())[:2]
    assert abs(grid(model, few) - expected[:2]).max() < 2e-6
    assert (model.spec.name, model.window) == ("hps", 77)


@pytest.mark.parametrize("container", ["folder with the archive", "plain", "safetensors", "transformers", "sharded"])
def test_every_container_gives_the_same_scores(files, tmp_path, container):
    tensors = as_released(state())
    path = tmp_path / "weights"
    if container == "folder with the archive":
        path = files["checkpoint"].parent
    elif container == "plain":
        torch.save(tensors, path)
    elif container == "safetensors":
        save_file(tensors, path)
    else:
        save_folder(tensors, path, activation="quick_gelu", shards=2 if container == "sharded" else 1)
    images, prompts = [IMAGES["alpha"], IMAGES["60 x 700"]], ["a dog", "a gray photograph"]
    found, wanted = (
        ClipOpenAIReward(model="clip-l", device="cpu", checkpoint=each, tokenizer=VOCABULARY).score(images, prompts)
        for each in (path, files["checkpoint"])
    )
    assert found.tolist() == wanted.tolist()


def test_the_network_is_shared_while_it_is_used_and_read_anew_when_the_file_changes(tmp_path):
    files = checkpoint(tmp_path)
    first, second = (ClipOpenAIReward(model="clip-l", device="cpu", **files) for _ in range(2))
    assert first.network is second.network
    assert first.image_key == second.image_key
    other = ClipOpenAIReward(model="clip-l", device="cpu", dtype="bfloat16", **files)
    assert other.network is not first.network
    assert other.image_key != first.image_key
    checkpoint(tmp_path, seed=1)
    changed = ClipOpenAIReward(model="clip-l", device="cpu", **files)
    assert changed.network is not first.network
    assert changed.image_key != first.image_key


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "clip-b"}, "expected the model clip-l or hps; got 'clip-b'"),
        ({"model": "clip-l", "checkpoint": "nowhere.pt"}, r"nothing at nowhere\.pt: expected ViT-L-14\.pt"),
        ({"model": "hps", "checkpoint": "nowhere.pt"}, r"nothing at nowhere\.pt: expected hpc\.pt"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(InputError, match=message):
        ClipOpenAIReward(**options)


def test_hps_says_where_its_file_is_found():
    with pytest.raises(InputError, match=r"hps needs its checkpoint: .*github\.com/tgxs002/align_sd"):
        ClipOpenAIReward(model="hps", device="cpu", tokenizer=VOCABULARY).score([IMAGES["gray"]], ["a dog"])
