from __future__ import annotations

import random
import re
from pathlib import Path

import numpy as np
import pytest
from diffusers.pipelines.longcat_image.pipeline_longcat_image import split_quotation

from tests.generators.made_longcat import checkpoint
from tests.generators.modern import FAMILIES, ORIGINAL, counted, draw, load, pipeline_of, pixels, quiet
from widespectrum.errors import InputError
from widespectrum.generators.longcat import split_quoted
from widespectrum.prompts import load_prompt_set
from widespectrum.types import Prompt

LONGCAT = FAMILIES["longcat-image"]
TWO = "The dog's bowl; it's red and says 'EAT'."


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with quiet():
        return checkpoint(tmp_path_factory.mktemp("longcat") / "pipeline")


def contractions(text: str) -> int:
    return len(set(re.findall("[a-zA-Z]+'[a-zA-Z]+", text)))


def test_prompts_with_one_apostrophe_are_split_as_the_pipeline_does() -> None:
    rng = random.Random(0)
    pieces = ["it's", "rock'n'roll", "a'", "'", '"', "“", "”", "‘", "’", " ", "b", "B1", "\n", "dogs' toys"]
    texts = ["".join(rng.choices(pieces, k=rng.randint(1, 12))) for _ in range(3000)]
    texts += [prompt.text for prompt in load_prompt_set("authored").prompts]
    plain = [text for text in texts if contractions(text) < 2]
    assert len(plain) > 1500
    for text in plain:
        assert split_quoted(text) == split_quotation(text)


def test_prompts_with_two_apostrophes_are_kept_whole() -> None:
    assert "".join(part for part, _ in split_quotation(TWO)) != TWO
    assert split_quoted(TWO) == [("The dog's bowl; it's red and says ", False), ("'EAT'", True), (".", False)]


def test_the_pipeline_reads_two_apostrophes_as_written(folder: Path) -> None:
    generator = load(LONGCAT, folder)
    seen = counted(generator.pipeline.text_encoder)
    generator.generate([Prompt(prompt_id="", text=TWO, pair_id="dog", role="original")], seeds=[0])
    assert TWO in generator.pipeline.tokenizer.decode(seen[0]["input_ids"][0])
    assert generator.spec.params["apostrophes"] == "as written"


def test_quoted_letters_count_one_by_one(folder: Path) -> None:
    generator = load(LONGCAT, folder)
    texts = ["aaaa", "'aaaa'"]
    assert generator.count_tokens(texts) == [1, 6]
    seen = counted(generator.pipeline.text_encoder)
    generator.pipeline.encode_prompt(texts)
    one, six = seen[0]["attention_mask"].sum(dim=1).tolist()
    assert six - one == 5


def test_the_prompt_is_never_rewritten(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = load(LONGCAT, folder)
    monkeypatch.setattr(type(generator.pipeline), "rewire_prompt", lambda *_: pytest.fail("it was rewritten"))
    generator.generate([ORIGINAL], seeds=[0])
    assert generator.spec.params["prompt_rewrite"] is False


def test_guided_steps_are_rescaled(folder: Path) -> None:
    generator = load(LONGCAT, folder)
    passes = counted(generator.pipeline.transformer)
    (image,) = generator.generate([ORIGINAL], seeds=[0])
    assert len(passes) == 2 * 2
    seed = generator.noise_seed(ORIGINAL, 0)
    direct = draw(LONGCAT, pipeline_of(LONGCAT, folder), ORIGINAL.text, seed, enable_cfg_renorm=False)
    assert not np.array_equal(pixels(image), pixels(direct))
    assert generator.spec.params["cfg_renorm"] is True


def test_offloading_by_layer_is_refused(folder: Path) -> None:
    with pytest.raises(InputError, match="longcat-image: its pipeline cannot be offloaded layer by layer"):
        load(LONGCAT, folder, offload="sequential")
