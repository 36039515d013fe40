"""LAION's aesthetic predictor: the head, its layouts, and one image pass for it and CLIP-L."""

import numpy as np
import pytest
import torch

from tests.rewards import made_imagereward
from tests.rewards.awkward import IMAGES
from tests.rewards.clip_reference import SlowClip, cropped, quick_gelu
from tests.rewards.made_clip import VOCABULARY, as_released, checkpoint, save_folder, state
from tests.rewards.made_laion import LINEAR, RELU, head
from widespectrum.errors import InputError
from widespectrum.rewards.clip_openai import ClipOpenAIReward
from widespectrum.rewards.laion import LaionAestheticReward, _clip_beside


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return checkpoint(tmp_path_factory.mktemp("clip"))["checkpoint"]


@pytest.fixture(scope="module")
def features():
    slow = SlowClip(as_released(state()), heads=(2, 2), activation=quick_gelu)
    return [slow.image(cropped(image, rgb_first=False)) for image in IMAGES.values()]


def slow_head(feature, places):
    tensors = head(3, places)
    for place in places:
        feature = tensors[f"layers.{place}.weight"].double() @ feature + tensors[f"layers.{place}.bias"].double()
        if places == RELU and place != places[-1]:
            feature = feature.clamp(min=0)
    return float(feature[0])


def made(folder, clip, places=LINEAR, **options):
    torch.save(head(3, places), folder / "head.pth")
    return LaionAestheticReward(checkpoint=folder / "head.pth", clip=clip, device="cpu", **options)


@pytest.mark.parametrize("places", [LINEAR, RELU])
def test_awkward_images_as_in_the_official_code(tmp_path, clip, features, places):
    expected = np.array([slow_head(feature, places) for feature in features])
    found = made(tmp_path, clip, places).score(list(IMAGES.values()), ["any"] * len(IMAGES))
    assert expected.std() > 0.05
    assert abs(found - expected).max() < 2e-5


def test_the_prompt_is_not_read(tmp_path, clip):
    model = made(tmp_path, clip)
    prompts = ["a dog", "", "<|endoftext|> " * 100]
    assert len(set(model.score([IMAGES["gray"]] * 3, prompts))) == 1
    assert (model.window, model.count_tokens(prompts), model.has_special(prompts)) == (None, [0] * 3, [False] * 3)
    assert model.encode_texts(prompts).shape == (3, 0)


@pytest.mark.skipif(not VOCABULARY.exists(), reason="CLIP's vocabulary is not on this machine")
def test_one_image_pass_serves_clip_l_too(tmp_path, clip):
    models = [
        made(tmp_path, clip),
        ClipOpenAIReward(model="clip-l", checkpoint=clip, tokenizer=VOCABULARY, device="cpu"),
    ]
    assert models[0].network is models[1].network
    assert models[0].image_key == models[1].image_key
    image, prompts, shared = IMAGES["fine"], ["a dog"], {}
    together = [model.score_prepared([models[0].prepare(image)], prompts, [0], [0], shared) for model in models]
    assert len(shared) == 1
    assert together == [model.score([image], prompts) for model in models]


@pytest.mark.parametrize("place", ["archive", "transformers", "subfolder"])
def test_a_folder_with_head_and_clip(tmp_path, clip, place):
    folder = tmp_path / "both"
    folder.mkdir()
    torch.save(head(3), folder / "sac+logos+ava1-l14-linearMSE.pth")
    if place == "archive":
        (folder / "ViT-L-14.pt").write_bytes(clip.read_bytes())
    else:
        inside = folder if place == "transformers" else folder / "clip-vit-large-patch14"
        save_folder(as_released(state()), inside, activation="quick_gelu")
    model = LaionAestheticReward(checkpoint=folder, device="cpu")
    assert model.score([IMAGES["gray"]], [""]) == made(tmp_path, clip).score([IMAGES["gray"]], [""])


def test_the_spec_names_the_head_and_the_clip(tmp_path, clip):
    one = made(tmp_path, clip).spec
    save_folder(state(1), tmp_path / "clip", activation="quick_gelu")
    two = made(tmp_path, tmp_path / "clip").spec
    assert len({one.params["clip"], two.params["clip"], one.params["sha256"]}) == 3
    assert one.params["sha256"] == two.params["sha256"]
    assert one.key != two.key


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({f"layers.{n}.weight": torch.zeros(1, 1) for n in (0, 1)}, r"expected the linear layers .* got \(0, 1\)"),
        ({"weight": torch.zeros(1, 768)}, r"is no head of LAION's aesthetic predictor"),
        (head(places=(0, 2, 4, 6, 7)) | {"layers.0.weight": torch.zeros(48, 32)}, r"reads features of 32 numbers"),
        ({k: v for k, v in head().items() if k != "layers.4.bias"}, r"lacks 1 weight of laion-aesthetic, layers\.4"),
        (made_imagereward.model(grid=2), r"looks like ImageReward \(imagereward\): expected the linear layers"),
        (
            head() | {"layers.2.weight": torch.zeros(31, 48)},
            r"layers\.2\.weight has shape \(31, 48\) where \(32, 48\) is expected",
        ),
        (
            head() | {"layers.4.bias": torch.zeros(2, 8)},
            r"layers\.4\.bias has shape \(2, 8\) where \(16,\) is expected",
        ),
        (head() | {"layers.7.weight": torch.zeros(0, 8)}, r"layers\.7\.weight has shape \(0, 8\) where \(1, 8\) is"),
        (head() | {"layers.0.weight": torch.zeros(48)}, r"layers\.0\.weight has shape \(48,\)"),
    ],
)
def test_a_wrong_head(tmp_path, clip, tensors, message):
    torch.save(tensors, tmp_path / "head.pth")
    model = LaionAestheticReward(checkpoint=tmp_path / "head.pth", clip=clip, device="cpu")
    with pytest.raises(InputError, match=message):
        model.score([IMAGES["gray"]], [""])


def test_the_file_of_another_model_beside_the_head_is_not_its_clip(tmp_path, clip):
    (tmp_path / "hpc.pt").write_bytes(b"")
    torch.save(head(3), tmp_path / "sac+logos+ava1-l14-linearMSE.pth")
    assert _clip_beside(tmp_path) is None
    (tmp_path / "ViT-L-14.pt").write_bytes(b"")
    assert _clip_beside(tmp_path) == tmp_path / "ViT-L-14.pt"


def test_without_a_head(clip):
    with pytest.raises(InputError, match=r"needs its checkpoint: .*sac\+logos\+ava1-l14-linearMSE\.pth"):
        LaionAestheticReward(clip=clip, device="cpu").score([IMAGES["gray"]], [""])
    with pytest.raises(InputError, match=r"the CLIP of laion-aesthetic: there is nothing at nowhere\.pt"):
        LaionAestheticReward(clip="nowhere.pt", device="cpu")
