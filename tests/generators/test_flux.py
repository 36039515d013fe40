"""Flux: what is its own; the rest is in test_negatives.py."""

import pytest

from tests.generators.made_flux import checkpoint
from widespectrum.generators.flux import Flux
from widespectrum.types import Prompt

PROMPT = Prompt(prompt_id="", text="a barn", pair_id="barn", role="original")


def schnell(folder, **options):
    small = {"dtype": "float32", "width": 64, "height": 64, "steps": 2, "window": 256, "checkpoint": folder}
    return Flux(**({"name": "flux-schnell", "guidance": 0.0} | small | options))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return checkpoint(tmp_path_factory.mktemp("schnell") / "pipeline", guidance_embeds=False)


def test_schnell_ignores_the_guidance(folder):
    [first], [second] = (schnell(folder, guidance=each).generate([PROMPT], seeds=[0]) for each in (0.0, 7.0))
    assert first.tobytes() == second.tobytes()


def test_schnell_reads_256_tokens(folder):
    [own], [longer] = (schnell(folder, window=each).generate([PROMPT], seeds=[0]) for each in (256, 512))
    assert own.tobytes() != longer.tobytes()
    text = "a " * 256
    [failure] = schnell(folder).generate(
        [Prompt(prompt_id="", text=text.strip(), pair_id="barn", role="original")], seeds=[0]
    )
    assert failure.cause == "input"
    assert "257 tokens, flux-schnell reads 256" in failure.reason
