"""What SDXL and Playground v2.5 have of their own: schedulers, half precision, one policy for both."""

from __future__ import annotations

import warnings

import diffusers
import numpy as np
import pytest
import torch

from tests.generators import made_sdxl
from widespectrum.generators import load_generator
from widespectrum.types import Prompt

TINY = {"width": 64, "height": 64, "steps": 2, "device": "cpu"}
OWN = Prompt(prompt_id="", text="a garden with a bench", pair_id="garden", role="original")
LONG = Prompt(prompt_id="", text="a garden with a bench " + "x " * 90 + "in fog", pair_id="garden", role="original")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {
        "sdxl": made_sdxl.checkpoint(tmp_path_factory.mktemp("sdxl")),
        "playground-v2.5": made_sdxl.playground(tmp_path_factory.mktemp("playground")),
    }


def test_both_are_treated_alike(folders):
    sdxl, playground = (load_generator(name, checkpoint=folder, **TINY) for name, folder in folders.items())
    assert (sdxl.dtype, sdxl.long_prompts, sdxl.window) == (playground.dtype, playground.long_prompts, 752)
    first, second = (generator._arguments([LONG]) for generator in (sdxl, playground))
    # The two were made with the same text encoders.
    assert all(torch.equal(first[name], second[name]) for name in first if name != "guidance_scale")
    assert (first["guidance_scale"], second["guidance_scale"]) == (5.0, 3.0)


def test_without_zeros_it_guides_away_from_the_empty_prompt_repeated_for_every_piece(tmp_path):
    generator = load_generator("sdxl", checkpoint=made_sdxl.checkpoint(tmp_path, zeros=False), dtype="float32", **TINY)
    short, long = (generator._arguments([each]) for each in (OWN, LONG))
    _, empty, _, pooled = generator.pipeline.encode_prompt([OWN.text], device="cpu")
    assert empty.abs().max() > 0
    assert torch.equal(short["negative_prompt_embeds"], empty)
    assert torch.equal(long["negative_prompt_embeds"], torch.cat([empty, empty], dim=1))
    assert all(torch.equal(each["negative_pooled_prompt_embeds"], pooled) for each in (short, long))


def test_published_settings(folders):
    settings = [
        load_generator(name, checkpoint=folder, device="cpu").spec.params | {"sha256": ""}
        for name, folder in folders.items()
    ]
    common = {"dtype": "float16", "steps": 50, "width": 1024, "height": 1024, "sha256": ""}
    common["long_prompts"] = "CLIP in pieces of 75 tokens"
    assert settings == [common | {"guidance": 5.0}, common | {"guidance": 3.0}]


@pytest.mark.parametrize(
    ("name", "scheduler"), [("sdxl", "EulerDiscreteScheduler"), ("playground-v2.5", "EDMDPMSolverMultistepScheduler")]
)
def test_the_scheduler_is_the_one_of_the_checkpoint(folders, name, scheduler):
    generator = load_generator(name, checkpoint=folders[name], dtype="float32", **TINY)
    assert type(generator.pipeline.scheduler).__name__ == scheduler
    (before,) = generator.generate([OWN], seeds=[0])
    generator.pipeline.scheduler = diffusers.DDIMScheduler()
    (after,) = generator.generate([OWN], seeds=[0])
    assert not np.array_equal(np.asarray(before), np.asarray(after))


@pytest.mark.parametrize("name", ["sdxl", "playground-v2.5"])
def test_half_precision_decodes_in_full_as_diffusers_does_and_without_its_warning(folders, name):
    generator = load_generator(name, checkpoint=folders[name], **TINY)
    decoded_in = []
    decode = generator.pipeline.vae.decode
    generator.pipeline.vae.decode = lambda latents, **given: (
        decoded_in.append(latents.dtype) or decode(latents, **given)
    )
    (image,) = generator.generate([OWN], seeds=[0])
    assert decoded_in == [torch.float32]
    pipeline = diffusers.StableDiffusionXLPipeline.from_pretrained(folders[name], dtype=torch.float16)
    noise = torch.Generator("cpu").manual_seed(generator.noise_seed(OWN, 0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        direct = pipeline(
            OWN.text,
            guidance_scale=generator.guidance,
            num_inference_steps=2,
            width=64,
            height=64,
            generator=noise,
        )
    assert np.array_equal(np.asarray(image), np.asarray(direct.images[0]))


def test_no_watermark_is_drawn_where_its_package_is_installed(folders, monkeypatch):
    from diffusers.pipelines.stable_diffusion_xl import pipeline_stable_diffusion_xl as module

    monkeypatch.setattr(module, "is_invisible_watermark_available", lambda: True)
    monkeypatch.setattr(module, "StableDiffusionXLWatermarker", lambda: "a watermark", raising=False)
    assert load_generator("sdxl", checkpoint=folders["sdxl"], **TINY).pipeline.watermark is None
    assert module.StableDiffusionXLPipeline.from_pretrained(folders["sdxl"]).watermark == "a watermark"
