"""What all families of pipelines share: numbers and memory that fail, and what stays as it was."""

import errno
import logging
import math
import shutil
import warnings
import weakref
from pathlib import Path

import diffusers
import huggingface_hub
import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from tests.generators import made_flux, made_glm_image, made_sdxl
from tests.generators.drawing import BARN, MANY, TINY, WEIGHTS, draw, failing, load, sentence
from widespectrum import generation, store
from widespectrum.errors import InputError, ModelError
from widespectrum.generators import load_generator
from widespectrum.generators.diffusion import DiffusionGenerator
from widespectrum.protocols import Failure


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return made_flux.checkpoint(tmp_path_factory.mktemp("flux") / "pipeline")


@pytest.fixture
def copy(folder, tmp_path):
    return Path(shutil.copytree(folder, tmp_path / "copy"))


@pytest.fixture(scope="module")
def flux(folder):
    return load(folder)


# numbers that are not finite


@pytest.mark.parametrize(
    ("dtype", "advice"),
    [
        ("float32", "the checkpoint may be damaged"),
        ("bfloat16", "give dtype=float32"),
        ("float16", "give dtype=bfloat16 or float32"),
    ],
)
def test_an_image_that_is_not_finite_is_a_failure(copy, dtype, advice):
    file = copy / "vae" / WEIGHTS["vae"]
    weights = load_file(file)
    weights["decoder.conv_out.bias"][1] = math.nan
    save_file(weights, file, {"format": "pt"})
    assert draw(load(copy, dtype=dtype)) == [
        Failure(f"flux-dev made no finite pixels for pair 'barn' (original) in {dtype}: {advice}", "model")
    ]


def test_one_image_of_a_batch_that_is_not_finite_spares_the_others(flux):
    pixels = np.full((3, 2, 2, 3), 0.5)
    pixels[1, 0, 0, 0] = np.inf
    first, second, third = flux._pictures(MANY[:3], pixels)
    assert isinstance(second, Failure)
    assert first.getpixel((0, 0)) == third.getpixel((1, 1)) == (128, 128, 128)


# memory


OOM = (
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: not enough memory: you tried to allocate 9."
    ),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
    MemoryError(),
)


@pytest.mark.parametrize("error", OOM)
def test_out_of_memory_on_the_machine(folder, monkeypatch, error):
    for size, advice in ((1, "a smaller width and height"), (2, "a smaller batch_size or a smaller width and height")):
        generator = load(folder, batch_size=size)
        with monkeypatch.context() as patch:
            patch.setattr(generator.pipeline.transformer, "forward", failing(error))
            with pytest.raises(ModelError) as caught:
                draw(generator)
        assert sentence(caught) == f"flux-dev ran out of memory on the machine: give {advice}"
        assert caught.value.__cause__ is error
        assert isinstance(draw(generator)[0], bytes)


@pytest.mark.parametrize(
    ("offload", "options"),
    [
        ("none", "offload=model or a smaller width and height"),
        ("model", "offload=sequential or a smaller width and height"),
        ("sequential", "a smaller width and height"),
    ],
)
def test_out_of_memory_on_a_gpu_names_the_next_offload(folder, monkeypatch, offload, options):
    generator = load(folder)
    monkeypatch.setattr(generator.pipeline.transformer, "forward", failing(OOM[0]))
    # There is none here; only what is said depends on it.
    monkeypatch.setattr(generator, "device", "cuda:1")
    generator.offload = offload
    for size, more in ((1, ""), (2, "a smaller batch_size or ")):
        generator.batch_size = size
        with pytest.raises(ModelError) as caught:
            draw(generator)
        assert sentence(caught) == f"flux-dev ran out of memory on the GPU: give {more}{options}"


@pytest.mark.parametrize("error", [*OOM, OSError(errno.ENOMEM, "Cannot allocate memory")])
def test_out_of_memory_while_weights_are_loaded(folder, monkeypatch, error):
    lack = "flux-dev ran out of memory on the machine when its weights were loaded: "
    with monkeypatch.context() as patch:
        patch.setattr(diffusers.AutoencoderKL, "from_pretrained", failing(error))
        for dtype, advice in (("float32", "give dtype=bfloat16"), ("bfloat16", "make some of it free, or take one")):
            generator = load(folder, dtype=dtype)
            with pytest.raises(ModelError) as caught:
                generator.open()
            assert sentence(caught).startswith(lack + advice)
    generator.open()


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("shapes cannot be multiplied"), KeyError("x")])
def test_other_errors_pass_as_they_are(folder, monkeypatch, error):
    generator = load(folder)
    with monkeypatch.context() as patch:
        patch.setattr(generator.pipeline.transformer, "forward", failing(error))
        with pytest.raises(type(error)) as caught:
            draw(generator)
    assert caught.value is error
    assert isinstance(draw(generator)[0], bytes)


def test_an_interruption_while_loading_passes(folder, monkeypatch):
    generator = load(folder)
    with monkeypatch.context() as patch:
        patch.setattr(diffusers.FluxPipeline, "from_pretrained", failing(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            generator.open()
    assert isinstance(draw(generator)[0], bytes)


def test_peak_memory(flux):
    flux.open()
    assert 100e6 < flux.peak_memory() < 100e9


def test_a_closed_pipeline_is_gone_and_the_next_image_loads_it_again(folder):
    generator = load(folder)
    first = draw(generator)
    held = weakref.ref(generator.pipeline.transformer)
    generator.close()
    assert held() is None
    assert draw(generator) == first


@pytest.mark.parametrize("kind", [MemoryError, InputError])
def test_of_what_could_not_be_opened_nothing_stays(folder, tmp_path, monkeypatch, kind):
    held = []

    def place(self, pipeline):
        held.append(weakref.ref(pipeline.transformer))
        raise kind("it does not fit")

    monkeypatch.setattr(DiffusionGenerator, "_place", place)
    generator = load(folder)
    store.append(tmp_path, "prompts", [BARN])
    work = generation.planned(tmp_path, "g", generator, seeds=(0,), open_input=None)
    made = generation.make(work, group=1, description="generate")
    # It is listed at the end, when others have been made.
    generator.close()
    assert isinstance(made.trouble, ModelError | InputError)
    assert [each() for each in held] == [None]


# what else goes on in the process


def test_nothing_is_left_changed(folder, capfd):
    logs = (diffusers.utils.logging, transformers.utils.logging)
    before = [log.get_verbosity() for log in logs]
    try:
        for log in logs:
            log.set_verbosity(logging.WARNING + 3)
            log.enable_progress_bar()
        filters = list(warnings.filters)
        for attempt in range(2):
            generator = load(folder)
            if attempt:
                generator.pipeline.transformer.forward = failing(KeyError("x"))
                with pytest.raises(KeyError):
                    draw(generator)
            else:
                draw(generator)
            assert [log.get_verbosity() for log in logs] == [logging.WARNING + 3] * 2
            assert all(log.is_progress_bar_enabled() for log in logs)
            assert not huggingface_hub.utils.are_progress_bars_disabled()
            assert list(warnings.filters) == filters
        for log in logs:
            log.disable_progress_bar()
        draw(load(folder))
        assert not any(log.is_progress_bar_enabled() for log in logs)
    finally:
        for log, verbosity in zip(logs, before, strict=True):
            log.set_verbosity(verbosity)
            log.enable_progress_bar()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("flux-dev", made_flux.checkpoint),
        ("sdxl", made_sdxl.checkpoint),
        ("glm-image", made_glm_image.checkpoint),
    ],
)
def test_two_generators_do_not_disturb_one_another(tmp_path, name, make):
    checkpoint = make(tmp_path / "pipeline")
    one, other = (load_generator(name, **TINY, checkpoint=checkpoint) for _ in range(2))
    one.open()
    other.open()
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002 - what a careless library would use
    before, of_numpy = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    (alone,) = draw(one, BARN, seeds=[3])
    draw(other, MANY[0], seeds=[4])
    torch.rand(3)
    (again,) = draw(one, BARN, seeds=[3])
    assert alone == again == draw(other, BARN, seeds=[3])[0]
    torch.set_rng_state(before)
    draw(one, BARN, MANY[1])
    assert torch.equal(torch.get_rng_state(), before)
    assert np.random.get_state()[1].tolist() == of_numpy  # noqa: NPY002
