"""HPSv2 against the slow CLIP, and its options."""

import pytest
import torch

from tests.rewards.awkward import IMAGES
from tests.rewards.clip_reference import HPSV2, SlowClip, barred, gelu, grid, openai_ids
from tests.rewards.made_clip import VOCABULARY
from tests.rewards.made_hpsv2 import checkpoint, tensors
from widespectrum.errors import InputError
from widespectrum.rewards.hpsv2 import HpsV2Reward

pytestmark = pytest.mark.skipif(not VOCABULARY.exists(), reason="CLIP's vocabulary is not on this machine")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return checkpoint(tmp_path_factory.mktemp("hpsv2"))


@pytest.fixture(scope="module")
def slow():
    released = {name: each.half() for name, each in tensors().items()}
    return SlowClip(released, heads=(2, 2), activation=gelu)


@pytest.mark.parametrize("antialias", [True, False])
def test_awkward_images_and_prompts_as_in_the_official_code(files, slow, antialias):
    model = HpsV2Reward(version="v2.1", device="cpu", antialias=antialias, **files)
    expected = slow.cosines(lambda image: barred(image, antialias=antialias), lambda text: openai_ids(text, HPSV2))
    assert expected.std() > 0.05
    assert abs(grid(model) - expected).max() < 2e-6


def test_antialias_changes_scores_and_the_spec(files):
    models = [HpsV2Reward(version="v2.1", device="cpu", antialias=antialias, **files) for antialias in (True, False)]
    first, second = (model.score([IMAGES["fine"]], ["a dog"]) for model in models)
    assert abs(first - second).max() > 1e-3
    assert [model.spec.params["antialias"] for model in models] == [True, False]
    assert models[0].spec.key != models[1].spec.key


def test_both_versions_read_their_own_file_of_a_folder(tmp_path):
    for seed, file in enumerate(("HPS_v2_compressed.pt", "HPS_v2.1_compressed.pt")):
        checkpoint(tmp_path, seed=seed, file=file)
    scores = {}
    for version, name in (("v2.0", "hpsv2"), ("v2.1", "hpsv2.1")):
        model = HpsV2Reward(version=version, device="cpu", checkpoint=tmp_path, tokenizer=VOCABULARY)
        assert (model.spec.name, model.window) == (name, 77)
        scores[version] = float(model.score([IMAGES["gray"]], ["a dog"])[0])
    alone = HpsV2Reward(version="v2.1", device="cpu", checkpoint=tmp_path / file, tokenizer=VOCABULARY)
    assert alone.score([IMAGES["gray"]], ["a dog"])[0] == scores["v2.1"] != scores["v2.0"]


def test_a_folder_with_the_other_version_alone_is_refused_and_the_file_itself_is_taken(tmp_path):
    path = checkpoint(tmp_path, file="HPS_v2_compressed.pt")["checkpoint"]
    options = {"version": "v2.1", "device": "cpu", "tokenizer": VOCABULARY}
    with pytest.raises(InputError, match=r"holds HPS_v2_compressed\.pt, which is the file of hpsv2: give another"):
        HpsV2Reward(checkpoint=tmp_path, **options).score([IMAGES["gray"]], ["a dog"])
    assert HpsV2Reward(checkpoint=path, **options).score([IMAGES["gray"]], ["a dog"]).shape == (1,)


def test_embeddings_of_fewer_tokens_than_the_tokenizer_has(tmp_path):
    state = tensors() | {"token_embedding.weight": tensors()["token_embedding.weight"][:49000].clone()}
    torch.save({"state_dict": state}, tmp_path / "x.pt")
    model = HpsV2Reward(version="v2.1", device="cpu", checkpoint=tmp_path / "x.pt", tokenizer=VOCABULARY)
    with pytest.raises(InputError, match=r"token_embedding\.weight has 49000 rows and the tokenizer 49408 tokens"):
        model.score([IMAGES["gray"]], ["a dog"])


def test_the_special_words_are_its_own(files):
    model = HpsV2Reward(version="v2.1", device="cpu", **files)
    assert model.has_special(["a <end_of_text>", "a <|endoftext|>"]) == [True, False]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"version": "v3"}, "expected version v2.0 or v2.1; got 'v3'"),
        ({"version": "v2.1", "antialias": "no"}, "hpsv2.1: antialias must be true or false; got 'no'"),
        ({"version": "v2.1", "checkpoint": "nowhere.pt"}, r"nothing at nowhere\.pt: expected HPS_v2\.1_compressed\.pt"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(InputError, match=message):
        HpsV2Reward(**options)


def test_a_file_of_state_without_a_dictionary_around_it(files, tmp_path):
    torch.save(torch.load(files["checkpoint"])["state_dict"], tmp_path / "flat.pt")
    flat = HpsV2Reward(version="v2.1", device="cpu", checkpoint=tmp_path / "flat.pt", tokenizer=VOCABULARY)
    whole = HpsV2Reward(version="v2.1", device="cpu", **files)
    assert flat.score([IMAGES["gray"]], ["a dog"]) == whole.score([IMAGES["gray"]], ["a dog"])
