"""What holds for every family whose prompts a language model reads, on tiny pipelines with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.generators import made_flux2_klein, made_z_image
from tests.generators.modern import (
    FAMILIES,
    ORIGINAL,
    OTHER,
    WIDE,
    Family,
    calls,
    counted,
    draw,
    load,
    long_text,
    pipeline_of,
    pixels,
    quiet,
)
from widespectrum.errors import InputError
from widespectrum.generators import load_generator
from widespectrum.prompts import load_prompt_set
from widespectrum.protocols import Failure
from widespectrum.types import Prompt

Made = tuple[Family, Path, Any]


@pytest.fixture(scope="module", params=FAMILIES)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A family, the folder of its pipeline, and its generator with one image per batch."""
    family = FAMILIES[request.param]
    with quiet():
        folder = family.checkpoint(tmp_path_factory.mktemp(family.name) / "pipeline")
    return family, folder, load(family, folder)


def test_images_are_those_of_the_pipeline(made: Made) -> None:
    family, folder, generator = made
    pipeline = pipeline_of(family, folder)
    for prompt in (ORIGINAL, WIDE):
        (image,) = generator.generate([prompt], seeds=[3])
        direct = draw(family, pipeline, prompt.text, generator.noise_seed(prompt, 3))
        assert np.array_equal(pixels(image), pixels(direct))
        assert pixels(image).std() > 5


def test_images_follow_prompt_pair_and_seed_and_nothing_else(made: Made) -> None:
    _, _, generator = made
    torch.manual_seed(11)
    before = torch.random.get_rng_state()
    images = generator.generate([ORIGINAL, WIDE, OTHER, ORIGINAL, ORIGINAL], seeds=[0, 0, 0, 1, 0])
    assert torch.equal(torch.random.get_rng_state(), before)
    first, *others, again = map(pixels, images)
    assert np.array_equal(first, again)
    for other in others:
        assert np.abs(first - other).mean() > 0.5


def test_a_batch_equals_single_images(made: Made) -> None:
    family, folder, generator = made
    prompts = [ORIGINAL, WIDE, OTHER]
    together = load(family, folder, batch_size=3)
    for one, other in zip(
        generator.generate(prompts, seeds=[0] * 3), together.generate(prompts, seeds=[0] * 3), strict=True
    ):
        # Prompts of other lengths are padded: sums are rounded in another order.
        off = np.abs(pixels(one) - pixels(other))
        assert off.max() <= 1
        assert (off > 0).mean() < 0.01


def test_both_prompts_of_a_pair_are_drawn_alike(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    _, _, generator = made
    seen = calls(generator.pipeline, monkeypatch)
    generator.generate([ORIGINAL, WIDE], seeds=[5, 5])
    first, second = seen
    assert (first.pop("prompt"), second.pop("prompt")) == ([ORIGINAL.text], [WIDE.text])
    if "prior_token_ids" in first:
        assert first.pop("prior_token_ids").shape == second.pop("prior_token_ids").shape
    assert first == second
    assert first["generator"] == [generator.noise_seed(ORIGINAL, 5)]


def test_a_saved_pipeline_draws_the_same(made: Made, tmp_path: Path) -> None:
    family, folder, generator = made
    with quiet():
        pipeline_of(family, folder).save_pretrained(tmp_path / "again")
    (image,) = generator.generate([WIDE], seeds=[0])
    (again,) = load(family, tmp_path / "again").generate([WIDE], seeds=[0])
    assert np.array_equal(pixels(image), pixels(again))


def test_prompts_are_read_up_to_the_window(made: Made) -> None:
    family, _, generator = made
    assert generator.window == family.window
    assert str(family.window) in generator.spec.params["long_prompts"]
    texts = [long_text(family.window + more, generator) for more in (0, 1)]
    assert generator.count_tokens(texts) == [family.window, family.window + 1]
    prompts = [Prompt(prompt_id="", text=text, pair_id="long", role="original") for text in texts]
    image, failure = generator.generate(prompts, seeds=[0, 0])
    pixels(image)
    assert failure == Failure(
        f"the prompt of pair 'long' (original) has {family.window + 1:,} tokens, {family.name} reads "
        f"{family.window:,}: shorten it",
        "input",
    )


# The language model of GLM-Image has no limit; for its other encoder see test_glm_image.py.
@pytest.mark.parametrize("made", [name for name in FAMILIES if name != "glm-image"], indirect=True)
def test_the_window_is_where_the_pipeline_cuts(made: Made) -> None:
    family, folder, generator = made
    pipeline = pipeline_of(family, folder)
    seen = counted(pipeline.text_encoder)
    read = []
    for more in (-1, 0, 1):
        seen.clear()
        draw(family, pipeline, long_text(family.window + more, generator), 0)
        read.append(int(seen[0]["attention_mask"].sum()))
    assert read[1] == read[0] + 1 == read[2]


def test_authored_prompts_fit(made: Made) -> None:
    _, _, generator = made
    counts = generator.count_tokens([prompt.text for prompt in load_prompt_set("authored").prompts])
    assert len(counts) == 600
    assert max(counts) < generator.window


def test_another_transformer_and_a_lora_change_the_image(made: Made, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    family, folder, generator = made
    (plain,) = generator.generate([ORIGINAL], seeds=[0])
    with quiet():
        other = family.checkpoint(tmp_path / "other", seed=1)
    (swapped,) = load(family, folder, transformer=str(other / "transformer")).generate([ORIGINAL], seeds=[0])
    assert np.abs(pixels(plain) - pixels(swapped)).mean() > 1

    transformer = pipeline_of(family, folder).transformer
    model = get_peft_model(transformer, LoraConfig(r=2, target_modules=["to_q", "to_v"]))
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if "lora_B" in name:
                tensor.normal_(generator=torch.Generator().manual_seed(0))
    model.save_pretrained(tmp_path / "lora")
    images = {}
    for weight in (0.0, 1.0):
        merged = load(family, folder, lora=str(tmp_path / "lora"), lora_weight=weight)
        (images[weight],) = merged.generate([ORIGINAL], seeds=[0])
    assert np.array_equal(pixels(images[0.0]), pixels(plain))
    assert np.abs(pixels(images[1.0]) - pixels(plain)).mean() > 1


def test_the_spec_holds_what_changes_images(made: Made) -> None:
    family, folder, generator = made
    spec = generator.spec
    assert (spec.name, spec.params["dtype"], spec.params["width"]) == (family.name, "float32", 64)
    assert load(family, folder, batch_size=4).spec.key == spec.key
    keys = {load(family, folder, **option).spec.key for option in ({"guidance": 0.5}, {"steps": 3}, {"height": 128})}
    assert len(keys | {spec.key}) == 4


@pytest.mark.parametrize("name", FAMILIES)
def test_sizes_that_the_pipeline_would_change_are_refused(name: str) -> None:
    size = 48 if name == "glm-image" else 72
    with pytest.raises(InputError, match=f"{name}: width and height must be multiples of"):
        load_generator(name, width=size)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_checkpoint_of_another_family_is_refused(name: str, tmp_path: Path) -> None:
    make = made_flux2_klein if "z-image" in name else made_z_image
    with quiet():
        folder = make.checkpoint(tmp_path / "other")
    with pytest.raises(
        InputError, match=f"{name} runs checkpoints of {FAMILIES[name].pipeline_class}; .* holds one of"
    ):
        load(FAMILIES[name], folder).open()
