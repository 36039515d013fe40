"""Flux and Stable Diffusion 3 against diffusers called directly; the originals of a pair know of no negative prompt."""

from functools import cache

import diffusers
import numpy as np
import pytest
import torch

from tests.generators import made_flux, made_sd3
from widespectrum.errors import InputError
from widespectrum.generators import nag, vsf
from widespectrum.generators.flux import Flux
from widespectrum.generators.noise import noise_seed
from widespectrum.generators.sd3 import StableDiffusion3
from widespectrum.protocols import Failure
from widespectrum.types import Prompt

FAMILIES = {"flux": (Flux, made_flux, 3.5, 512), "sd3": (StableDiffusion3, made_sd3, 4.0, 256)}
METHODS = {"vsf": (vsf, {"alpha": 3.0, "offset": 0.5}), "nag": (nag, {"scale": 10.0, "tau": 4.0, "blend": 0.5})}
LONG = "a barn " * 300


def original(pair="barn", text="a barn in a field, " * 6):
    """Beyond CLIP's 77 tokens."""
    return Prompt(prompt_id="", text=text.strip(), pair_id=pair, role="original")


def wide(pair="barn", text="a barn, dark and out of focus", negative="bright, sharp"):
    return Prompt(
        prompt_id="",
        text=text.strip(),
        pair_id=pair,
        role="wide_spectrum",
        dimensions=("clarity",),
        negative_prompt=negative,
    )


PROMPTS = [original(), wide(), wide("pier", "a pier with no light at all, badly framed", "light")]


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def folder(family, tmp_path_factory):
    return FAMILIES[family][1].checkpoint(tmp_path_factory.mktemp(family) / "pipeline")


@pytest.fixture(scope="module")
def make(family, folder):
    # A pipeline is loaded once for every set of options.
    @cache
    def made(**options):
        constructor, _, guidance, _ = FAMILIES[family]
        small = {"dtype": "float32", "width": 64, "height": 64, "steps": 2, "guidance": guidance, "checkpoint": folder}
        return constructor(**({"name": family} | small | options))

    return made


@pytest.fixture(scope="module")
def plain(make):
    return make(batch_size=3)


@pytest.fixture(scope="module")
def direct(family, folder):
    """The pipeline without this package: prompts, seed and arguments to images."""
    pipeline = getattr(diffusers, FAMILIES[family][0].pipeline_class).from_pretrained(folder, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)

    def draw(prompts, seed, **arguments):
        generators = [torch.Generator("cpu").manual_seed(noise_seed(seed, each.pair_id)) for each in prompts]
        size = {"width": 64, "height": 64, "num_inference_steps": 2}
        return pipeline([each.text for each in prompts], **size, generator=generators, **arguments).images

    return draw


def same(first, second):
    return [image.tobytes() for image in first] == [image.tobytes() for image in second]


def near(first, second):
    """Equal but for rounding, which a batch does differently: at most 1 of 255 in a thousandth of the numbers."""
    apart = np.abs([np.asarray(one, int) - np.asarray(other, int) for one, other in zip(first, second, strict=True)])
    return apart.max() <= 1 and apart.mean() < 1e-3


def save_lora(pipeline, folder):
    """A LoRA of rank 2 with random weights on the attention of the transformer, as diffusers saves it."""
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    pipeline.transformer.add_adapter(LoraConfig(r=2, lora_alpha=2, target_modules=["to_q", "to_v"]))
    source = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, each in pipeline.transformer.named_parameters():
            if "lora_" in name:
                each.copy_(torch.randn(each.shape, generator=source))
    type(pipeline).save_lora_weights(folder, get_peft_model_state_dict(pipeline.transformer))
    pipeline.transformer.delete_adapters("default")


def test_pixels_are_those_of_diffusers(family, make, plain, direct):
    guidance, window = FAMILIES[family][2:]
    expected = [direct([each], 7, guidance_scale=guidance, max_sequence_length=window)[0] for each in PROMPTS]
    assert same(make().generate(PROMPTS, seeds=[7] * 3), expected)
    assert len({image.tobytes() for image in expected}) == 3
    batch = sorted(PROMPTS, key=plain.batch_key)
    together = direct(batch, 7, guidance_scale=guidance, max_sequence_length=window)
    assert same(plain.generate(batch, seeds=[7] * 3), together)


def test_images_depend_on_nothing_but_prompt_seed_and_options(make, plain):
    together, single = plain.generate(PROMPTS, seeds=[0, 1, 2]), make()
    alone = [single.generate([each], seeds=[seed])[0] for seed, each in enumerate(PROMPTS)]
    assert near(together, alone)
    assert same(together, plain.generate(PROMPTS, seeds=[0, 1, 2]))
    assert same(alone[::-1], single.generate(PROMPTS[::-1], seeds=[2, 1, 0]))
    assert not near(together, plain.generate(PROMPTS, seeds=[3, 4, 5]))
    assert not near(alone[1:2], make(guidance=6.0).generate(PROMPTS[1:2], seeds=[1]))


def test_a_saved_pipeline_draws_the_same(plain, make, tmp_path):
    plain.pipeline.save_pretrained(tmp_path)
    again = make(checkpoint=tmp_path, batch_size=3)
    assert same(again.generate(PROMPTS, seeds=[0] * 3), plain.generate(PROMPTS, seeds=[0] * 3))


def test_both_prompts_of_a_pair_are_drawn_with_the_same_settings(plain, monkeypatch):
    calls, call = [], type(plain.pipeline).__call__

    def recorded(self, **arguments):
        arguments["generator"], texts = arguments["generator"][0].initial_seed(), arguments.pop("prompt")
        calls.append(arguments)
        arguments = arguments | {"generator": torch.Generator().manual_seed(arguments["generator"])}
        return call(self, prompt=texts, **arguments)

    monkeypatch.setattr(type(plain.pipeline), "__call__", recorded)
    for prompt in PROMPTS[:2]:
        plain.generate([prompt], seeds=[0])
    assert calls[0] == calls[1]
    assert "negative_prompt" not in calls[0]


def test_prompts_beyond_the_window_fail(family, plain):
    window = FAMILIES[family][3]
    tokens = plain.count_tokens([LONG.strip()])[0]
    fitting = "a " * (window - 1)
    assert plain.count_tokens([fitting.strip(), fitting + "b"]) == [window, window + 1]
    answers = plain.generate([original(text=LONG), original(text=fitting), PROMPTS[1]], seeds=[0] * 3)
    [expected] = plain.generate(PROMPTS[1:2], seeds=[0])
    assert isinstance(answers[0], Failure)
    assert answers[0].cause == "input"
    assert f"'barn' (original) has {tokens:,} tokens, {family} reads {window}" in answers[0].reason
    assert answers[1].size == (64, 64)
    assert near(answers[2:], [expected])


def test_the_policy_for_long_prompts_is_in_the_spec(family, make):
    window = FAMILIES[family][3]
    policy = f"fail above {window} tokens of T5; CLIP reads 77"
    assert make().spec.params["long_prompts"] == policy
    assert make(window=128).spec.params["long_prompts"].startswith("fail above 128 tokens")
    assert "attention" not in make().spec.params


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 72}, "multiples of 16"),
        ({"window": 0}, "window must be a whole number of tokens from 1 to 512; got 0"),
        ({"window": 513}, "got 513"),
        ({"attention": "cfg"}, "attention must be vsf, nag or empty; got 'cfg'"),
        ({"alpha": 3.0}, "alpha belongs to attention=vsf"),
        ({"attention": "vsf", "guidance": 0, "tau": 3.0}, "tau belongs to attention=nag"),
        ({"attention": "vsf", "guidance": 0, "alpha": 0.0}, "alpha must be a number above 0"),
        ({"attention": "vsf", "guidance": 0, "offset": float("inf")}, "offset must be a number of 0 or more"),
        ({"attention": "nag", "guidance": 0, "blend": 1.5}, "blend must be a number from 0 .* got 1.5"),
        ({"attention": "vsf", "guidance": 0, "alpha": "strong"}, "alpha must be a number; got 'strong'"),
        ({"original_guidance": 2.0}, "original_guidance belongs to attention=vsf and nag"),
        ({"attention": "vsf", "guidance": 0, "original_guidance": -1.0}, "original_guidance must be 0 or more"),
    ],
)
def test_options_that_cannot_be(make, options, message):
    with pytest.raises(InputError, match=message):
        make(**options)


@pytest.mark.parametrize("method", ["vsf", "nag"])
def test_a_method_draws_every_step_once(family, make, method):
    make(attention=method, guidance=1.0)
    if family == "sd3":
        with pytest.raises(InputError, match=r"at most 1, got 1\.5: give guidance=0 and original_guidance=1\.5$"):
            make(attention=method, guidance=1.5)
    else:
        make(attention=method, guidance=1.5)


def test_a_checkpoint_of_another_class(family, make, tmp_path_factory):
    other = FAMILIES["sd3" if family == "flux" else "flux"]
    folder = other[1].checkpoint(tmp_path_factory.mktemp("other") / "pipeline")
    with pytest.raises(InputError, match=other[0].pipeline_class):
        make(checkpoint=folder).open()


def test_a_lora_changes_the_images_by_its_weight(make, folder, plain, tmp_path):
    trained = type(plain.pipeline).from_pretrained(folder, dtype=torch.float32)
    save_lora(trained, tmp_path)
    trained.load_lora_weights(str(tmp_path))
    trained.set_progress_bar_config(disable=True)
    settings = plain._arguments(PROMPTS[1:2]) | {"width": 64, "height": 64, "num_inference_steps": 2}
    generator = torch.Generator("cpu").manual_seed(noise_seed(0, "barn"))
    expected = trained(**settings, generator=generator).images
    [without] = plain.generate(PROMPTS[1:2], seeds=[0])
    weighed = {
        weight: make(lora=str(tmp_path), lora_weight=weight).generate(PROMPTS[1:2], seeds=[0]) for weight in (0, 0.5, 1)
    }
    assert same(weighed[0], [without])
    assert near(weighed[1], expected)
    assert not near(weighed[0.5], [without])
    assert not near(weighed[0.5], expected)


def test_another_transformer(family, make, plain, tmp_path):
    other = FAMILIES[family][1].checkpoint(tmp_path / "other", seed=1)
    swapped = make(transformer=str(other / "transformer" / "diffusion_pytorch_model.safetensors"))
    pipeline = type(plain.pipeline).from_pretrained(
        plain.source.path,
        dtype=torch.float32,
        transformer=type(plain.pipeline.transformer).from_pretrained(other / "transformer", dtype=torch.float32),
    )
    pipeline.set_progress_bar_config(disable=True)
    settings = plain._arguments(PROMPTS[1:2]) | {"width": 64, "height": 64, "num_inference_steps": 2}
    generator = torch.Generator("cpu").manual_seed(noise_seed(0, "barn"))
    drawn = swapped.generate(PROMPTS[1:2], seeds=[0])
    assert same(drawn, pipeline(**settings, generator=generator).images)
    assert not near(drawn, plain.generate(PROMPTS[1:2], seeds=[0]))
    assert swapped.spec.key != plain.spec.key


# ---- with a negative prompt


@pytest.fixture(scope="module", params=METHODS)
def method(request):
    return request.param


@pytest.fixture(scope="module")
def changed(family, make, method):
    settings = {"attention": method, "guidance": 0.0, "original_guidance": FAMILIES[family][2]}
    return make(name=f"{family}-{method}", batch_size=3, **settings, **METHODS[method][1])


def test_an_original_is_the_base_generators_own(plain, changed):
    assert same(changed.generate(PROMPTS, seeds=[0] * 3)[:1], plain.generate(PROMPTS[:1], seeds=[0]))
    assert same(changed.generate(PROMPTS[:1], seeds=[0]), plain.generate(PROMPTS[:1], seeds=[0]))


def test_a_wide_spectrum_prompt_is_drawn_with_the_method(make, method, changed, plain):
    drawn = changed.generate(PROMPTS, seeds=[0] * 3)
    assert not near(drawn[1:], plain.generate(PROMPTS[1:], seeds=[0] * 2))
    assert not near(drawn[1:2], changed.generate([wide(negative="people, a crowd, cars and trees")], seeds=[0]))
    weaker = {"vsf": {"alpha": 0.5}, "nag": {"scale": 2.0}}[method]
    other = make(attention=method, guidance=0.0, **weaker)
    assert not near(drawn[1:2], other.generate(PROMPTS[1:2], seeds=[0]))


def test_what_the_pipeline_is_called_with(family, method, changed, monkeypatch):
    calls, call = [], type(changed.pipeline).__call__

    def recorded(self, **arguments):
        calls.append(arguments)
        return call(self, **arguments)

    monkeypatch.setattr(type(changed.pipeline), "__call__", recorded)
    changed.generate(PROMPTS[:2], seeds=[0, 0])
    first, second = calls
    guidance, window = FAMILIES[family][2:]
    assert (first["guidance_scale"], first["max_sequence_length"], second["guidance_scale"]) == (guidance, window, 0)
    assert not {"prompt_embeds", "negative_prompt", "negative_prompt_embeds"} & first.keys()
    clip = 77 if family == "sd3" else 0
    negative = sum(vsf.token_counts(changed.pipeline, PROMPTS[1].negative_prompt))
    tokens = {"vsf": clip + 256 + negative, "nag": 2 * (clip + window)}[method]
    assert second["prompt_embeds"].shape[:2] == (1, tokens)
    for name in ("width", "height", "num_inference_steps", "output_type"):
        assert first[name] == second[name]


def test_images_of_a_method_depend_on_no_other(make, method, changed):
    three = [*PROMPTS, wide("dune", "a dune", "a very long list of things that are not wanted at all")]
    single = make(attention=method, guidance=0.0, original_guidance=changed.original_guidance, **METHODS[method][1])
    alone = [single.generate([each], seeds=[0])[0] for each in three]
    assert near(changed.generate(three, seeds=[0] * 4), alone)
    assert near(changed.generate(three[::-1], seeds=[0] * 4), alone[::-1])


def test_the_pipeline_is_left_as_it_was(changed, plain):
    before = {name: type(each) for name, each in changed.pipeline.transformer.attn_processors.items()}
    changed.generate(PROMPTS, seeds=[0] * 3)
    after = {name: type(each) for name, each in changed.pipeline.transformer.attn_processors.items()}
    assert before == after == {name: type(each) for name, each in plain.pipeline.transformer.attn_processors.items()}


def test_prompts_without_a_negative_prompt(changed):
    lacking = [*PROMPTS, wide("dune", negative=""), wide("road", negative="")]
    message = "2 of 5 prompts lack it, the first of pair 'dune'; a prompt table takes a column negative_prompt"
    with pytest.raises(InputError, match=message):
        changed.check(lacking)
    with pytest.raises(InputError, match=message):
        changed.generate(lacking, seeds=[0] * 5)
    changed.check(PROMPTS)


def test_the_methods_own_window(family, method, changed):
    window = min(FAMILIES[family][3], 256) if method == "vsf" else FAMILIES[family][3]
    text = "a " * window
    rows = [wide(text=text), wide("pier", negative=text.strip()), PROMPTS[1]]
    long, negative, drawn = changed.generate(rows, seeds=[0] * 3)
    assert long.cause == negative.cause == "input"
    assert f"has {window + 1} tokens" in long.reason
    assert f"the negative prompt of pair 'pier' (wide_spectrum) has {window + 1} tokens" in negative.reason
    assert same([drawn], changed.generate(PROMPTS[1:2], seeds=[0]))


def test_the_method_is_in_the_spec(family, method, changed):
    params = changed.spec.params
    assert params["attention"] == method
    assert params["guidance"] == 0
    assert params["original_guidance"] == FAMILIES[family][2]
    assert {name: params[name] for name in METHODS[method][1]} == METHODS[method][1]
    assert ("256 with vsf" in params["long_prompts"]) == (family == "flux" and method == "vsf")


def test_images_are_finite_where_the_negative_is_extreme(changed):
    [image] = changed.generate([wide(negative="x" * 200)], seeds=[0])
    assert np.asarray(image).std() > 0
