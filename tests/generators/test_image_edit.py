"""Image to image: what a pipeline is called with, what is drawn of it, and what is no edit at all."""

from __future__ import annotations

import json
import weakref
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import PIL.Image
import pytest
import torch

from tests.generators import made_flux, made_flux2_klein, made_sdxl
from widespectrum import columns, results, run_models, runs, stages, store, tables
from widespectrum.config import parse_run_file
from widespectrum.errors import InputError, MissingExtraError
from widespectrum.functional import image_to_image
from widespectrum.generators import load_generator
from widespectrum.generators.image_edit import fit_to
from widespectrum.protocols import Failure, NeuralGenerator
from widespectrum.types import ModelSpec, Prompt

EFFECTS = "photo-effects[size=48,strength=3]"
TINY = {"dtype": "float32", "width": 64, "height": 64, "steps": 4, "device": "cpu"}

OWN = Prompt(prompt_id="", text="a garden", pair_id="garden", role="original")
WIDE = [
    Prompt(prompt_id="", text=text, pair_id=pair_id, role="wide_spectrum", dimensions=("clarity",))
    for pair_id, text in (("garden", "a garden, all blurred"), ("cup", "a cup that nobody can see"), ("sky", "fog"))
]
PIXELS = np.random.default_rng(0).integers(0, 256, (4, 8, 10, 3), dtype=np.uint8)
INPUTS = [PIL.Image.fromarray(each).resize((100, 80), PIL.Image.Resampling.BICUBIC) for each in PIXELS]


def kontext(folder: Path) -> Path:
    """FLUX Kontext: the parts of a Flux under its own class."""
    made_flux.checkpoint(folder / "flux")
    parts = diffusers.FluxPipeline.from_pretrained(folder / "flux").components
    diffusers.FluxKontextPipeline(**parts).save_pretrained(folder / "kontext")
    return folder / "kontext"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {
        "flux": made_flux.checkpoint,
        "sdxl": made_sdxl.checkpoint,
        "klein": made_flux2_klein.checkpoint,
        "kontext": kontext,
    }
    return {name: make(tmp_path_factory.mktemp(name)) for name, make in made.items()}


def load(folder: Path, **options: Any) -> Any:
    return load_generator("image-edit", **{"checkpoint": folder, **TINY, **options})


def pixels(image: Any) -> Any:
    assert isinstance(image, PIL.Image.Image), image
    return np.asarray(image).astype(int)


KLEIN = {"guidance": 1.0}
DIRECT: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "flux": ("FluxImg2ImgPipeline", {}, {"strength": 0.5, "width": 64, "height": 64}),
    "sdxl": ("StableDiffusionXLImg2ImgPipeline", {}, {"strength": 0.5}),
    "klein": ("Flux2KleinPipeline", KLEIN, {"width": 64, "height": 64}),
    "kontext": ("FluxKontextPipeline", {}, {"width": 64, "height": 64, "max_area": 64 * 64, "_auto_resize": False}),
}


@pytest.mark.filterwarnings("ignore:.*upcast_vae:FutureWarning")
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("name", DIRECT)
def test_an_edit_is_what_diffusers_draws(folders: dict[str, Path], name: str) -> None:
    kind, options, arguments = DIRECT[name]
    generator = load(folders[name], **options)
    (edited,) = generator.generate(WIDE[:1], seeds=[3], images=INPUTS[:1])
    pipeline = getattr(diffusers, kind).from_pretrained(folders[name])
    pipeline.set_progress_bar_config(disable=True)
    # The middle 80 of the 100 columns.
    fitted = INPUTS[0].resize((64, 64), PIL.Image.Resampling.LANCZOS, box=(10, 0, 90, 80))
    direct = pipeline(
        prompt=WIDE[0].text,
        image=fitted,
        num_inference_steps=4,
        guidance_scale=generator.editor.guidance,
        generator=torch.Generator("cpu").manual_seed(generator.noise_seed(WIDE[0], 3)),
        **arguments,
    )
    assert np.array_equal(pixels(edited), pixels(direct.images[0]))
    assert not np.array_equal(pixels(edited), pixels(fitted))


def test_under_the_original_prompt_the_input_comes_back_and_nothing_is_loaded(folders: dict[str, Path]) -> None:
    generator = load(folders["flux"], batch_size=2)
    # Apart from the edits, of whose batches it takes no place.
    assert generator.batch_key(OWN) == (-1,)
    whole = INPUTS[1].resize((64, 64))
    whole.info["prompt"] = "left over"
    fitted, same = generator.generate([OWN, OWN], seeds=[0, 1], images=[INPUTS[0], whole])
    assert np.array_equal(pixels(same), pixels(whole))
    assert same.info == {}
    assert fitted.size == (64, 64)
    assert "pipeline" not in vars(generator.editor)


def test_a_wide_and_a_tall_input_keep_their_shape() -> None:
    image = PIL.Image.new("RGB", (90, 30), "black")
    image.paste("white", (30, 0, 60, 30))
    assert np.asarray(fit_to(image, 16, 16)).min() > 200
    assert np.asarray(fit_to(image.transpose(PIL.Image.Transpose.ROTATE_90), 8, 8)).min() > 200
    transparent = PIL.Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    assert fit_to(transparent, 8, 8).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize(("strength", "steps"), [(0.25, 1), (0.5, 2), (1, 4)])
@pytest.mark.parametrize("name", ["flux", "sdxl"])
def test_the_strength_is_the_share_of_steps(folders: dict[str, Path], name: str, strength: float, steps: int) -> None:
    generator = load(folders[name], strength=strength, guidance=1.0)
    generator.open()
    backbone = generator.editor.pipeline.components["transformer" if name == "flux" else "unet"]
    calls = []
    backbone.register_forward_hook(lambda *_: calls.append(1))
    generator.generate(WIDE[:1], seeds=[0], images=INPUTS[:1])
    assert len(calls) == steps
    assert generator.spec.params["strength"] == strength


def test_noise_input_prompt_and_strength_all_show(folders: dict[str, Path]) -> None:
    generator = load(folders["flux"])

    def edit(generator: Any = generator, prompt: Prompt = WIDE[0], seed: int = 0, image: Any = INPUTS[0]) -> bytes:
        return generator.generate([prompt], seeds=[seed], images=[image])[0].tobytes()

    assert edit() == edit() == edit(load(folders["flux"]))
    others = [edit(seed=1), edit(image=INPUTS[1]), edit(prompt=WIDE[1]), edit(load(folders["flux"], strength=0.75))]
    assert len({edit(), *others}) == 5
    assert generator.noise_seed(OWN, 0) == generator.noise_seed(WIDE[0], 0) != generator.noise_seed(WIDE[1], 0)


@pytest.mark.parametrize("name", ["flux", "sdxl", "klein"])
def test_a_batch_is_its_singles(folders: dict[str, Path], name: str) -> None:
    options = KLEIN if name == "klein" else {}
    prompts, seeds = [OWN, *WIDE], [0, 0, 1, 2]
    generator = load(folders[name], **options, batch_size=3)
    assert isinstance(generator, NeuralGenerator)
    together = generator.generate(prompts, seeds=seeds, images=INPUTS)
    one_by_one = load(folders[name], **options)
    for prompt, seed, image, answer in zip(prompts, seeds, INPUTS, together, strict=True):
        (single,) = one_by_one.generate([prompt], seeds=[seed], images=[image])
        # Of a batch the last bits of float32 differ, which rounding to 8 bits may show.
        assert np.abs(pixels(single) - pixels(answer)).max() <= 1


def test_a_closed_pipeline_is_gone(folders: dict[str, Path]) -> None:
    editor = load(folders["sdxl"])
    editor.close()
    editor.open()
    held = weakref.ref(editor.editor.pipeline.unet)
    editor.close()
    assert held() is None


def test_a_prompt_that_is_too_long_is_a_failure_of_its_edit_alone(folders: dict[str, Path]) -> None:
    long = Prompt(prompt_id="", text="a " * 600 + "cup", pair_id="cup", role="wide_spectrum", dimensions=("clarity",))
    answers = load(folders["flux"]).generate([OWN, long, WIDE[2]], seeds=[0] * 3, images=INPUTS[:3])
    assert [isinstance(answer, Failure) for answer in answers] == [False, True, False]
    assert "the prompt of pair 'cup' (wide_spectrum) has " in answers[1].reason


def test_the_spec_says_how_the_edit_is_made(folders: dict[str, Path]) -> None:
    spec = load(folders["flux"]).spec
    said = {"edit": "FluxImg2ImgPipeline", "strength": 0.5, "fit": "center crop, Lanczos", "original": "the input"}
    assert said.items() <= spec.params.items()
    assert (spec.adapter, spec.name) == ("image-edit", "image-edit")
    assert ModelSpec.parse(str(spec)) == spec
    assert load(folders["klein"], **KLEIN).spec.params["strength"] == "not taken"
    published = load_generator("image-edit", checkpoint=folders["flux"], device="cpu")
    assert {"steps": 32, "guidance": 3.5, "strength": 0.5, "width": 1024}.items() <= published.spec.params.items()


def test_no_watermark_is_drawn_where_its_package_is_installed(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffusers.pipelines.stable_diffusion_xl import pipeline_stable_diffusion_xl_img2img as module

    monkeypatch.setattr(module, "is_invisible_watermark_available", lambda: True)
    monkeypatch.setattr(module, "StableDiffusionXLWatermarker", lambda: "a watermark", raising=False)
    assert load(folders["sdxl"]).editor.pipeline.watermark is None
    assert module.StableDiffusionXLImg2ImgPipeline.from_pretrained(folders["sdxl"]).watermark == "a watermark"


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        *(
            ("flux", {"strength": given}, "image-edit: strength must be a number above 0 and up to 1; got")
            for given in (0, -0.5, 1.01, float("nan"), "half", True)
        ),
        ("flux", {"strength": 0.2}, "strength 0.2 of 4 steps leaves no step to draw: give a higher strength or more"),
        ("klein", {"strength": 0.7}, "Flux2KleinPipeline takes no strength, it reads the input beside the prompt"),
        ("flux", {"width": 72}, "width and height must be multiples of 16 up to 4096 pixels; got 72 x 64"),
        ("sdxl", {"width": 60}, "multiples of 8"),
        ("flux", {"dtype": "int8"}, "dtype must be float32, bfloat16, float16; got 'int8'"),
        ("flux", {"checkpoint": "no/where"}, "there is nothing at 'no/where'"),
    ],
)
def test_bad_options(folders: dict[str, Path], name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load(folders[name], **options)


def test_without_a_checkpoint_the_options_are_checked_and_nothing_is_asked_of_the_hub() -> None:
    load_generator("image-edit", device="cpu")
    with pytest.raises(InputError, match="image-edit: steps must be a whole number of 1 or more; got 0"):
        load_generator("image-edit", steps=0)


def test_a_checkpoint_that_does_not_edit(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "ShapEPipeline"}))
    with pytest.raises(InputError, match=r"edits with checkpoints of FluxPipeline, .*; .* holds one of ShapEPipeline"):
        load(tmp_path)


def test_a_checkpoint_that_needs_more_than_is_installed(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "QwenImageEditPipeline"}))
    with pytest.raises(MissingExtraError, match=r"need torchvision, which is not installed: pip install .*open-clip"):
        load(tmp_path)


def test_a_run_of_edits_has_the_figures_of_image_to_image(
    folders: dict[str, Path], tiny_run: Path, tmp_path: Path
) -> None:
    """What `evaluate` says of the generator is the metric on the rewards of input and edit under p_o."""
    config = parse_run_file(
        f'[prompts]\nrun = "{tiny_run}"\ngenerator = "{EFFECTS}"\n'
        f'[[generators]]\nname = "image-edit"\ncheckpoint = "{folders["flux"]}"\ndtype = "float32"\n'
        'width = 32\nheight = 32\nsteps = 2\ndevice = "cpu"\n[[reward_models]]\nname = "colorfulness"\n'
        "[evaluate]\nn_resamples = 20\n"
    )
    models, inputs = run_models.load_models(config), stages.prompt_set_of(config)
    run = tmp_path / "run"
    with runs.locked(run):
        stages.start(run, config, models, inputs)
        assert not stages.generate(run, config, models, inputs, print)
        assert not stages.score(run, config, models, print)
        results.evaluate(run, config)
    rows = store.read(run, "scores").to_pylist()
    under_po = {
        role: {
            row["pair_id"]: row["value"]
            for row in rows
            if (row["image_role"], row["prompt_role"]) == (role, "original")
        }
        for role in ("original", "wide_spectrum")
    }
    pairs = sorted(under_po["original"])
    expected = image_to_image(*([under_po[role][pair] for pair in pairs] for role in under_po))
    found = results.read_results(run)
    figures = found[(found["subset"] == "all") & found["model"].str.startswith("image-edit")].set_index("metric")[
        "value"
    ]
    assert figures["delta_reward/colorfulness"] == pytest.approx(expected["delta_reward"], rel=1e-12)
    assert figures["reward_after/colorfulness"] == pytest.approx(expected["reward_after"], rel=1e-12)
    assert expected["n_pairs"] == len(inputs.photographs) == 12
    by_pair = columns.pair_table(run, columns.Judges())
    assert image_to_image(by_pair["r_io_po"], by_pair["r_ia_po"])["delta_reward"] == pytest.approx(
        expected["delta_reward"]
    )
    assert any("The pairs of image-edit are an input and its edit" in each for each in tables.cautions(run))


def test_inputs_are_needed(folders: dict[str, Path]) -> None:
    generator = load(folders["flux"])
    assert generator.needs_images
    with pytest.raises(InputError, match="image-edit starts from photographs and these prompts have none"):
        generator.generate(WIDE[:1], seeds=[0])
    with pytest.raises(InputError, match="got 1 prompts, 1 seeds, 2 photographs"):
        generator.generate(WIDE[:1], seeds=[0], images=INPUTS[:2])
