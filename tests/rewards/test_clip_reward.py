"""What holds for every reward model that is the two towers of a CLIP."""

import numpy as np
import pytest
import torch

from tests.rewards import made_clip, made_hpsv2, made_laion, made_pickscore
from tests.rewards.awkward import IMAGES, PROMPTS
from widespectrum.errors import InputError
from widespectrum.rewards.clip_openai import ClipOpenAIReward
from widespectrum.rewards.hpsv2 import HpsV2Reward
from widespectrum.rewards.laion import LaionAestheticReward
from widespectrum.rewards.pickscore import PickScoreReward

pytestmark = pytest.mark.skipif(not made_clip.VOCABULARY.exists(), reason="CLIP's vocabulary is not on this machine")

MODELS = {
    "hpsv2": (HpsV2Reward, {"version": "v2.0"}, made_hpsv2.checkpoint, 1),
    "clip-l": (ClipOpenAIReward, {"model": "clip-l"}, made_clip.checkpoint, 1),
    "hps": (ClipOpenAIReward, {"model": "hps"}, made_clip.hps_checkpoint, 1),
    "pickscore": (PickScoreReward, {}, made_pickscore.checkpoint, 100),
    "laion-aesthetic": (LaionAestheticReward, {}, made_laion.checkpoint, 25),
}
ROWS = [(IMAGES[name], prompt) for name, prompt in zip(IMAGES, PROMPTS, strict=False)]


@pytest.fixture(scope="module", params=MODELS)
def made(request, tmp_path_factory):
    """(a function that makes the model with further options, its scale)."""
    kind, options, checkpoint, scale = MODELS[request.param]
    files = checkpoint(tmp_path_factory.mktemp(request.param))
    return lambda **more: kind(**{"device": "cpu", **options, **files, **more}), scale


def scores(model, rows):
    return model.score(*zip(*rows, strict=True))


def test_batch_order_and_repetition_change_nothing(made):
    make, scale = made
    model = make(batch_size=3)
    together = scores(model, ROWS)
    assert together.dtype == np.float64
    assert np.array_equal(scores(model, ROWS), together)
    assert np.array_equal(scores(make(batch_size=3), ROWS), together)
    alone = np.concatenate([scores(make(batch_size=1), [row]) for row in ROWS[:4]])
    assert abs(alone - together[:4]).max() < 1e-6 * scale
    assert abs(scores(make(), ROWS[::-1])[::-1] - together).max() < 1e-6 * scale


def test_score_is_combine_of_both_features(made):
    make, scale = made
    model, (images, prompts) = make(), zip(*ROWS, strict=True)
    found = model.combine(model.encode_images(images), model.encode_texts(prompts))
    assert abs(found - model.score(images, prompts)).max() < 1e-6 * scale
    lengths = np.linalg.norm(model.encode_images(images), axis=1)
    assert abs(lengths - 1).max() < 1e-6


def test_half_precision_is_near_and_another_model(made):
    make, scale = made
    half, full = make(dtype="bfloat16"), make()
    difference = abs(scores(half, ROWS) - scores(full, ROWS)).max()
    assert 0 < difference < 0.02 * scale
    assert half.spec.key != full.spec.key


def test_nothing_is_read_before_it_is_needed(made, monkeypatch):
    make, _ = made
    monkeypatch.setattr("widespectrum.rewards.checkpoints.stored_tensors", None)
    make()


def test_tokens_are_counted_before_the_cut(made):
    make, _ = made
    model = make()
    counts = model.count_tokens(["", "a dog", " ".join(["dog"] * 76)])
    assert counts == ([2, 4, 78] if model.window else [0, 0, 0])


def test_another_models_checkpoint_and_a_damaged_one(made, tmp_path):
    make, _ = made
    torch.save(
        {"blip.visual_encoder.patch_embed.proj.weight": torch.zeros(2), "mlp.layers.0.weight": torch.zeros(2)},
        tmp_path / "x.pt",
    )
    option = "clip" if isinstance(make(), LaionAestheticReward) else "checkpoint"
    with pytest.raises(InputError, match=r"x\.pt lacks \d+ or more weights .*; it looks like ImageReward"):
        scores(make(**{option: tmp_path / "x.pt"}), ROWS[:1])
    (tmp_path / "x.pt").write_bytes(b"PK\x03\x04 and nothing more")
    with pytest.raises(InputError, match=r"x\.pt"):
        scores(make(**{option: tmp_path / "x.pt"}), ROWS[:1])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no weights"):
        scores(make(**{option: tmp_path / "empty"}), ROWS[:1])
