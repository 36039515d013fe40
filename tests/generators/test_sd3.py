"""Stable Diffusion 3: what is its own; the rest is in test_negatives.py."""

import json

import pytest

from tests.generators.made_sd3 import checkpoint
from widespectrum.errors import InputError
from widespectrum.generators.sd3 import StableDiffusion3
from widespectrum.types import Prompt

PROMPT = Prompt(prompt_id="", text="a barn", pair_id="barn", role="original")


def make(folder, **options):
    small = {"dtype": "float32", "width": 64, "height": 64, "steps": 2, "guidance": 4.0, "checkpoint": folder}
    return StableDiffusion3(**({"name": "sd3.5-medium"} | small | options))


@pytest.fixture
def folder(tmp_path):
    return checkpoint(tmp_path / "pipeline")


def test_a_guidance_of_1_or_less_makes_one_pass(folder):
    [none], [one], [guided] = (make(folder, guidance=each).generate([PROMPT], seeds=[0]) for each in (0.0, 1.0, 1.5))
    assert none.tobytes() == one.tobytes() != guided.tobytes()


@pytest.mark.parametrize("attention", ["vsf", "nag"])
def test_a_method_replaces_the_second_pass(folder, attention):
    with pytest.raises(InputError, match=f"attention={attention} .* got 4: give guidance=0 and original_guidance=4"):
        make(folder, attention=attention)


def test_a_size_beyond_the_positions(folder):
    make(folder, width=256).open()
    with pytest.raises(InputError, match="up to 256 x 256 pixels; got 64 x 272"):
        make(folder, height=272).open()


def test_a_checkpoint_without_t5(folder):
    path = folder / "model_index.json"
    parts = json.loads(path.read_text())
    path.write_text(json.dumps(parts | {"text_encoder_3": [None, None], "tokenizer_3": [None, None]}))
    with pytest.raises(InputError, match="has no T5"):
        make(folder).open()
