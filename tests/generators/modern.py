"""The families whose prompts a language model reads: what their tests need of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from diffusers.utils import logging as of_diffusers
from numpy.typing import NDArray
from PIL.Image import Image
from transformers.utils import logging as of_transformers

from tests.generators import made_flux2_klein, made_glm_image, made_longcat, made_qwen_image, made_z_image
from widespectrum.generators import load_generator
from widespectrum.types import Prompt

SETTINGS: dict[str, Any] = {"dtype": "float32", "width": 64, "height": 64, "steps": 2, "device": "cpu"}
ORIGINAL = Prompt(prompt_id="", text="A cat on a wooden chair.", pair_id="cat", role="original")
WIDE = Prompt(
    prompt_id="",
    text="A cat on a wooden chair, out of focus, in dim and sickly light, its fur a muddy smear.",
    pair_id="cat",
    role="wide_spectrum",
    dimensions=("clarity",),
)
OTHER = Prompt(prompt_id="", text="Two dogs in the rain by night.", pair_id="dogs", role="original")


@dataclass(frozen=True)
class Family:
    """`arguments` are what the pipeline is called with for so many prompts, beside prompt, size, steps and noise."""

    name: str
    checkpoint: Callable[..., Path]
    pipeline_class: str
    arguments: Callable[[int], dict[str, Any]]
    window: int
    parts: tuple[tuple[str, None], ...] = ()


FAMILIES = {
    family.name: family
    for family in (
        Family(
            "flux2-klein-9b",
            made_flux2_klein.checkpoint,
            "Flux2KleinPipeline",
            lambda count: {"guidance_scale": 1.0},
            512,
        ),
        Family("z-image", made_z_image.checkpoint, "ZImagePipeline", lambda count: {"guidance_scale": 3.5}, 512),
        Family("z-image-turbo", made_z_image.checkpoint, "ZImagePipeline", lambda count: {"guidance_scale": 0.0}, 512),
        Family(
            "qwen-image",
            made_qwen_image.checkpoint,
            "QwenImagePipeline",
            lambda count: {"true_cfg_scale": 4.0, "negative_prompt": [" "] * count, "max_sequence_length": 1024},
            1024,
        ),
        Family("glm-image", made_glm_image.checkpoint, "GlmImagePipeline", lambda count: {"guidance_scale": 5.0}, 2048),
        Family(
            "longcat-image",
            made_longcat.checkpoint,
            "LongCatImagePipeline",
            lambda count: {"guidance_scale": 4.0, "enable_prompt_rewrite": False},
            512,
            (("text_processor", None),),
        ),
    )
}


@contextmanager
def quiet() -> Iterator[None]:
    """Without the notices of diffusers and transformers."""
    for log in (of_diffusers, of_transformers):
        log.set_verbosity_error()
        log.disable_progress_bar()
    yield


def load(family: Family, folder: Path, **options: Any) -> Any:
    """The generator by its name in the table."""
    return load_generator(family.name, checkpoint=str(folder), **SETTINGS | options)


def pipeline_of(family: Family, folder: Path) -> Any:
    """The pipeline as diffusers loads it."""
    with quiet():
        pipeline = getattr(diffusers, family.pipeline_class).from_pretrained(
            folder, dtype=torch.float32, **dict(family.parts)
        )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def draw(family: Family, pipeline: Any, text: str, seed: int, **more: Any) -> Image:
    """One image of a pipeline that is called directly."""
    with quiet(), torch.random.fork_rng():
        called = {"width": 64, "height": 64, "num_inference_steps": 2, **family.arguments(1), **more}
        generator = torch.Generator("cpu").manual_seed(seed)
        image: Image = pipeline(prompt=text, generator=generator, **called).images[0]
    return image


def pixels(image: Any) -> NDArray[np.int64]:
    """Of an image; fails for a refusal or a failure."""
    assert isinstance(image, Image), image
    return np.asarray(image).astype(np.int64)


def calls(pipeline: Any, monkeypatch: Any) -> list[dict[str, Any]]:
    """A list that the arguments of every call of the pipeline are appended to, as they were before it."""
    seen: list[dict[str, Any]] = []
    call = type(pipeline).__call__

    def recorded(self: Any, *args: Any, **arguments: Any) -> Any:
        assert not args
        noises = [generator.initial_seed() for generator in arguments["generator"]]
        seen.append({**arguments, "prompt": [*arguments["prompt"]], "generator": noises})
        return call(self, **arguments)

    monkeypatch.setattr(type(pipeline), "__call__", recorded)
    return seen


def counted(module: Any) -> list[dict[str, Any]]:
    """A list that the keyword arguments of every forward pass of `module` are appended to, `args` among them."""
    seen: list[dict[str, Any]] = []
    module.register_forward_pre_hook(
        lambda module, args, arguments: seen.append({"args": args, **arguments}), with_kwargs=True
    )
    return seen


def long_text(tokens: int, generator: Any) -> str:
    """A text of exactly so many tokens, as the generator counts; every letter is one."""
    used = generator.count_tokens(["b"])[0] - 1
    return "b" * (tokens - used)
