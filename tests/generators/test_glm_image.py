from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.generators.made_glm_image import CODES, checkpoint
from tests.generators.modern import FAMILIES, ORIGINAL, OTHER, WIDE, counted, draw, load, pipeline_of, pixels, quiet
from widespectrum.errors import InputError
from widespectrum.generators.glm_image import GlmImage
from widespectrum.protocols import Failure
from widespectrum.types import Prompt

GLM = FAMILIES["glm-image"]


def quoting(text: str, pair: str = "sign") -> Prompt:
    return Prompt(prompt_id="", text=f'A sign that says "{text}".', pair_id=pair, role="original")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with quiet():
        return checkpoint(tmp_path_factory.mktemp("glm") / "pipeline")


@pytest.fixture(scope="module")
def generator(folder: Path) -> GlmImage:
    made: Any = load(GLM, folder)
    return made  # type: ignore[no-any-return]


def test_the_language_model_writes_every_image(generator: GlmImage, monkeypatch: pytest.MonkeyPatch) -> None:
    written = []
    write = generator.pipeline.generate_prior_tokens

    def recorded(**arguments: Any) -> Any:
        written.append(write(**arguments))
        return written[-1]

    monkeypatch.setattr(generator.pipeline, "generate_prior_tokens", recorded)
    passes = counted(generator.pipeline.transformer)
    generator.generate([ORIGINAL, WIDE], seeds=[0, 0])
    (first, *_), (second, *_) = written
    assert first.shape == second.shape == (1, 16)
    assert set(first.flatten().tolist()) <= set(range(CODES))
    assert len(set(first.flatten().tolist())) > 1
    # Both are sampled with the noise seed of the pair and differ by the prompt.
    assert not torch.equal(first, second)
    assert torch.equal(passes[0]["prior_token_id"], first)


def test_what_is_written_depends_on_the_seed_of_the_pair_alone(folder: Path) -> None:
    batch = load(GLM, folder, batch_size=3)
    passes = counted(batch.pipeline.transformer)
    torch.manual_seed(1)
    batch.generate([ORIGINAL, WIDE, OTHER], seeds=[0, 0, 0])
    torch.manual_seed(2)
    batch.generate([OTHER], seeds=[0])
    together, (alone,) = passes[0]["prior_token_id"], passes[-1]["prior_token_id"]
    assert sum(torch.equal(row, alone) for row in together) == 1


def test_prompts_with_quoted_texts_share_a_batch_only_when_equally_long(folder: Path) -> None:
    prompts = [quoting("OPEN", "a"), quoting("DOOR", "b"), quoting("CLOSED", "c"), ORIGINAL]
    batch = load(GLM, folder, batch_size=4)
    passes = counted(batch.pipeline.transformer)
    together = batch.generate(prompts, seeds=[0] * 4)
    assert sorted({len(each["hidden_states"]) for each in passes}) == [1, 2]
    single = load(GLM, folder).generate(prompts, seeds=[0] * 4)
    for one, other in zip(single, together, strict=True):
        assert np.abs(pixels(one) - pixels(other)).max() <= 1


def test_quoted_texts_count_in_letters(generator: GlmImage) -> None:
    assert generator._quoted_tokens("no text") == [1]
    assert generator._quoted_tokens(f"two: '{'a' * 2047}' and \"b\"") == [2048, 2]


def test_a_quoted_text_longer_than_its_encoder_reads_is_refused(generator: GlmImage) -> None:
    # The language model reads four of these letters as one token.
    answers = generator.generate([quoting("a" * 2047), quoting("a" * 2048)], seeds=[0, 0])
    pixels(answers[0])
    assert isinstance(answers[1], Failure)
    assert "has 2,049 tokens, glm-image reads 2,048" in answers[1].reason


def test_quoted_texts_are_cut_at_the_window(generator: GlmImage, folder: Path) -> None:
    pipeline = pipeline_of(GLM, folder)
    seen = counted(pipeline.text_encoder)
    read = []
    for letters in (2046, 2047, 2048):
        pipeline.encode_prompt(f'"{"a" * letters}"', do_classifier_free_guidance=False, device=torch.device("cpu"))
        read.append(seen[-1]["args"][0].shape[1])
        assert generator._quoted_tokens(f'"{"a" * letters}"') == [letters + 1]
    assert read == [2047, 2048, 2048]


def test_what_the_language_model_reads_is_counted(generator: GlmImage) -> None:
    seen = counted(generator.pipeline.vision_language_encoder)
    generator.generate([WIDE], seeds=[0])
    assert seen[0]["input_ids"].shape[1] == generator.count_tokens([WIDE.text])[0]


def test_an_image_that_is_not_written_to_its_end_fails_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = load(GLM, folder, batch_size=2)
    writer, short = batch.pipeline.vision_language_encoder, batch.count_tokens([ORIGINAL.text])[0]
    write = writer.generate

    def stopped(input_ids: Any, **arguments: Any) -> Any:
        written = write(input_ids=input_ids, **arguments)
        return written[:, : short + 258] if input_ids.shape[1] == short else written

    monkeypatch.setattr(writer, "generate", stopped)
    failure, image = batch.generate([ORIGINAL, WIDE], seeds=[0, 0])
    assert failure == Failure(
        "the language model of glm-image stopped before the image of pair 'cat' (original) was complete: "
        "another seed may help",
        "model",
    )
    (alone,) = load(GLM, folder).generate([WIDE], seeds=[0])
    assert np.array_equal(pixels(image), pixels(alone))


def test_a_prompt_that_names_an_image_token_is_refused(folder: Path) -> None:
    with pytest.raises(InputError, match=r"the prompt of pair 'sign' \(original\) contains <\|image\|>"):
        load(GLM, folder).generate([quoting("<|image|>")], seeds=[0])


def test_the_pipeline_itself_is_seeded_alike(generator: GlmImage, folder: Path) -> None:
    pipeline = pipeline_of(GLM, folder)
    for prompt in (quoting("OPEN"), OTHER):
        (image,) = generator.generate([prompt], seeds=[1])
        direct = draw(GLM, pipeline, prompt.text, generator.noise_seed(prompt, 1))
        assert np.array_equal(pixels(image), pixels(direct))
