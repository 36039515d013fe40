"""A tiny Flux checkpoint, and what the tests of DiffusionGenerator do with it."""

from PIL.Image import Image

from widespectrum.generators import load_generator
from widespectrum.types import Prompt

TINY = {"dtype": "float32", "width": 64, "height": 64, "steps": 2, "device": "cpu"}
WEIGHTS = {
    "transformer": "diffusion_pytorch_model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
    "text_encoder": "model.safetensors",
    "text_encoder_2": "model.safetensors",
}


def prompt(text, pair="barn"):
    return Prompt(prompt_id="", text=text, pair_id=pair, role="original")


BARN = prompt("a barn")
MANY = [prompt("word " * count + "end", f"pair {count}") for count in (9, 2, 30, 2, 5)]


def load(folder, **options):
    return load_generator("flux-dev", **{**TINY, "checkpoint": folder, **options})


def draw(generator, *prompts, seeds=None):
    return [
        answer.tobytes() if isinstance(answer, Image) else answer
        for answer in generator.generate(prompts or [BARN], seeds=seeds or [0] * (len(prompts) or 1))
    ]


def sentence(caught):
    """What an error says; one line and no more."""
    assert "\n" not in str(caught.value)
    return str(caught.value)


def failing(error):
    def forward(*arguments, **options):
        raise error

    return forward
