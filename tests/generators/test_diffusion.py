"""What all families of pipelines share: options, spec, batches."""

import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL.Image import Image

from tests.generators import made_flux
from tests.generators.drawing import BARN, MANY, WEIGHTS, draw, load, prompt, sentence
from tests.generators.made import lora
from widespectrum.errors import InputError
from widespectrum.generators import load_generator
from widespectrum.generators.diffusion import DTYPES, OFFLOADS
from widespectrum.generators.noise import noise_seed
from widespectrum.protocols import Failure, NeuralGenerator
from widespectrum.types import ModelSpec


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return made_flux.checkpoint(tmp_path_factory.mktemp("flux") / "pipeline")


@pytest.fixture
def copy(folder, tmp_path):
    return Path(shutil.copytree(folder, tmp_path / "copy"))


@pytest.fixture(scope="module")
def flux(folder):
    return load(folder)


# the constructor


def test_the_constructor_loads_nothing_and_asks_nobody():
    code = """
import socket, sys
def refuse(*arguments): raise AssertionError("the network was asked")
socket.socket.connect = socket.getaddrinfo = refuse
from widespectrum.generators import load_generator
generator = load_generator("flux-dev", lora="org/lora", transformer="org/net/part@main")
assert generator.needs_images is False
print({"torch", "diffusers", "transformers", "peft", "safetensors"} & set(sys.modules))
"""
    environment = {**os.environ, "HF_HUB_OFFLINE": "0"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout.strip()) == (0, "set()"), done.stderr


NUMBER = "must be a number from"
SIDES = "width and height must be multiples of 16 up to 4096 pixels; got"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "int8"}, "dtype must be float32, bfloat16, float16; got 'int8'"),
        ({"dtype": torch.float32}, "dtype must be float32, bfloat16, float16; got torch.float32"),
        ({"offload": "disk"}, "offload must be none, model, sequential; got 'disk'"),
        ({"offload": True}, "offload must be none, model, sequential; got True"),
        *(({"steps": bad}, f"steps must be a whole number of 1 or more; got {bad!r}") for bad in (0, 2.0, "2", True)),
        *(
            ({"batch_size": bad}, f"batch_size must be a whole number of 1 or more; got {bad!r}")
            for bad in (0, -1, 1.5, None)
        ),
        *(
            ({"guidance": bad}, f"guidance {NUMBER} 0 to 1000; got {bad!r}")
            for bad in (math.nan, math.inf, -0.5, "high", "3.5", True, None, [3.5])
        ),
        *(
            ({"lora_weight": bad}, f"lora_weight {NUMBER} -100 to 100; got {bad!r}")
            for bad in (math.nan, -math.inf, "1", False)
        ),
        *(({"width": bad}, f"{SIDES} {bad} x 64") for bad in (0, -16, 72, 4112, 64.0, "64", None, True)),
        ({"height": 24}, f"{SIDES} 64 x 24"),
        (
            {"checkpoint": "/no/such/folder"},
            "there is nothing at '/no/such/folder': expected a folder with model_index",
        ),
        ({"lora": "/no/such/file"}, "there is nothing at '/no/such/file': expected a safetensors file"),
        ({"transformer": "./none"}, "there is nothing at './none': expected a safetensors file"),
    ],
)
def test_options_that_cannot_be(folder, options, message):
    with pytest.raises(InputError) as caught:
        load(folder, **options)
    assert sentence(caught).startswith(f"flux-dev: {message}")


@pytest.mark.parametrize("device", ["cuda:99", "gpu", "meta"])
def test_a_device_that_is_not_there(folder, device):
    with pytest.raises(InputError, match=rf"^device '{device}' cannot be used here \(.*\): expected \"auto\""):
        load(folder, device=device)


def test_edges_of_the_options(folder):
    for options in ({"guidance": 0}, {"guidance": 999.5, "lora_weight": -100}, {"width": 4096, "height": 16}):
        load(folder, **options)
    assert [load(folder, dtype=dtype, offload=each).dtype for dtype in DTYPES for each in OFFLOADS] == [
        dtype for dtype in DTYPES for _ in OFFLOADS
    ]


@pytest.mark.parametrize("offload", ["model", "sequential"])
def test_offload_needs_a_gpu(folder, offload):
    generator = load(folder, offload=offload)
    for attempt in (generator.open, lambda: draw(generator)):
        with pytest.raises(InputError) as caught:
            attempt()
        # Before anything is downloaded.
        assert "path" not in vars(generator.source)
        assert sentence(caught) == f"flux-dev: offload={offload} needs a GPU, there is none here: leave it away"


# the spec


def test_the_spec_of_a_local_folder(flux, folder):
    params = dict(flux.spec.params)
    assert len(params.pop("sha256")) == 64
    policy = params.pop("long_prompts")
    assert "512" in policy
    assert params == {"dtype": "float32", "steps": 2, "guidance": 3.5, "width": 64, "height": 64}
    assert (flux.spec.adapter, flux.spec.name, flux.spec.revision) == ("flux", "flux-dev", None)
    assert ModelSpec.parse(str(flux.spec)) == flux.spec
    assert isinstance(flux, NeuralGenerator)


def test_the_spec_of_a_commit_on_the_hub_asks_nobody():
    spec = load_generator("flux-dev").spec
    assert spec.revision == "3de623fc3c33e44ffbe2bad470d0f45bccf2eb21"
    wanted = {"repo": "black-forest-labs/FLUX.1-dev", "dtype": "bfloat16", "steps": 32, "guidance": 3.5, "width": 1024}
    assert wanted.items() <= spec.params.items()
    other = load_generator("flux-dev", repo=f"org/other@{'a' * 40}").spec
    assert (other.revision, other.params["repo"]) == ("a" * 40, "org/other")
    added = load_generator("flux-dev", lora=f"org/lora/one.safetensors@{'b' * 40}", lora_weight=0.5).spec
    assert added.params["lora"] == f"org/lora/one.safetensors@{'b' * 40}"
    assert added.params["lora_weight"] == 0.5
    assert ModelSpec.parse(str(added)) == added


def test_the_spec_is_of_contents_and_not_of_places(flux, folder, copy):
    same = load(copy, batch_size=4, device="auto", lora_weight=0.3)
    assert same.spec == flux.spec
    weights = copy / "vae" / WEIGHTS["vae"]
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    changed = load(copy).spec
    assert changed != flux.spec
    assert {key for key, value in changed.params.items() if value != flux.spec.params[key]} == {"sha256"}


@pytest.mark.parametrize(
    "option",
    [{"steps": 3}, {"guidance": 3.0}, {"width": 80}, {"height": 80}, {"dtype": "bfloat16"}],
)
def test_every_setting_is_in_the_spec(flux, folder, option):
    (changed,) = option.items()
    spec = load(folder, **option).spec
    assert set(spec.params.items()) - set(flux.spec.params.items()) == {changed}


def test_a_lora_and_its_weight_are_in_the_spec(flux, folder, tmp_path):
    one, other = (lora(folder, tmp_path / str(seed), seed=seed) for seed in (0, 1))
    shutil.copytree(one, tmp_path / "again")
    specs = [load(folder, lora=str(each)).spec for each in (one, tmp_path / "again", other)]
    weaker = load(folder, lora=str(one), lora_weight=0.5).spec
    assert specs[0] == specs[1]
    assert len({flux.spec, specs[0], specs[2], weaker}) == 4
    assert specs[0].params["lora"].startswith("sha256:")


# batches


def test_a_batch_gives_what_single_images_give_in_the_order_asked(flux, folder):
    seeds = [0, 1, 2, 3, 4]
    single = flux.generate(MANY, seeds=seeds)
    for size in (2, 3, 9):
        together = load(folder, batch_size=size).generate(MANY, seeds=seeds)
        for one, other in zip(single, together, strict=True):
            # Padding and company change the order in which sums are rounded.
            off = np.abs(np.asarray(one, dtype=int) - np.asarray(other, dtype=int))
            assert off.max() <= 1
            assert (off > 0).mean() < 0.01
    assert len({image.tobytes() for image in single}) == 5


def test_batches_are_sorted_by_length_and_never_mix_keys(folder, monkeypatch):
    generator = load(folder, batch_size=2)
    drawn = []
    monkeypatch.setattr(
        generator, "_draw", lambda prompts, generators, images: drawn.append([p.text for p in prompts]) or prompts
    )
    answers = generator.generate(MANY, seeds=[0] * 5)
    assert answers == MANY
    assert [[len(text.split()) - 1 for text in batch] for batch in drawn] == [[2, 2], [5, 9], [30]]
    drawn.clear()
    monkeypatch.setattr(generator, "batch_key", lambda each: (each.text.count("word") > 4, -len(each.text)))
    assert generator.generate(MANY, seeds=[0] * 5) == MANY
    assert [[len(text.split()) - 1 for text in batch] for batch in drawn] == [[2, 2], [30, 9], [5]]


def test_alone_prompts_are_drawn_in_the_order_asked(folder, monkeypatch):
    generator = load(folder)
    drawn = []
    monkeypatch.setattr(generator, "_draw", lambda prompts, generators, images: drawn.append(prompts) or prompts)
    monkeypatch.setattr(generator, "batch_key", None)
    generator.generate(MANY, seeds=[0] * 5)
    assert drawn == [[each] for each in MANY]


def test_noise_of_every_image_is_that_of_its_pair_and_seed(folder, monkeypatch):
    generator = load(folder, batch_size=3)
    seen = {}

    def note(prompts, generators, images):
        seen.update({each.pair_id: made.initial_seed() for each, made in zip(prompts, generators, strict=True)})
        return prompts

    monkeypatch.setattr(generator, "_draw", note)
    apart = [prompt(each.text, f"{row}") for row, each in enumerate(MANY)]
    generator.generate(apart, seeds=[7, 8, 9, 10, 11])
    assert seen == {f"{row}": noise_seed(7 + row, f"{row}") for row in range(5)}


def test_only_the_prompt_that_is_too_long_fails(folder):
    generator = load(folder, batch_size=2)
    long = prompt("b " * 511 + "b", "long")
    fits = prompt("b " * 510 + "b", "fits")
    assert generator.count_tokens([fits.text]) == [512]
    image, failure, other = generator.generate([BARN, long, fits], seeds=[0, 0, 0])
    assert isinstance(image, Image) and isinstance(other, Image)
    assert failure == Failure(
        "the prompt of pair 'long' (original) has 513 tokens, flux-dev reads 512: shorten it", "input"
    )
    (alone,) = generator.generate([long], seeds=[0])
    assert alone == failure


@pytest.mark.parametrize(("prompts", "seeds", "images"), [(2, 1, None), (1, 2, None), (0, 1, None), (1, 1, 2)])
def test_lengths_that_do_not_agree(flux, prompts, seeds, images):
    given = images and [None] * images
    with pytest.raises(InputError) as caught:
        flux.generate([BARN] * prompts, seeds=[0] * seeds, images=given)
    assert sentence(caught).startswith(f"flux-dev needs one seed per prompt; got {prompts} prompts, {seeds} seeds")


def test_nothing_asked_loads_nothing(folder):
    generator = load(folder)
    assert generator.generate([], seeds=[]) == []
    assert "pipeline" not in vars(generator)
