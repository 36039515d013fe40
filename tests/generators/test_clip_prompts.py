"""Every family that reads prompts by CLIP alone: equal to diffusers where that cuts nothing, complete where it does."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL.Image import Image
from safetensors.torch import load_file, save_file

from tests.generators import made_sd1, made_sdxl
from widespectrum.errors import InputError
from widespectrum.generators import load_generator
from widespectrum.protocols import Failure
from widespectrum.types import Prompt

TINY = {"dtype": "float32", "width": 64, "height": 64, "steps": 2, "device": "cpu"}
SHORT = "a garden with a bench under a tree"
LONG = SHORT + " , x" * 60


def prompt(text, pair="garden"):
    return Prompt(prompt_id="", text=text, pair_id=pair, role="original")


@dataclass
class Case:
    """A checkpoint, the name it runs under, and the names of its tokenizers and encoders."""

    name: str
    folder: Any
    parts: tuple[tuple[str, str], ...]
    guidance: float

    def generator(self, **given):
        return load_generator(self.name, checkpoint=self.folder, **(TINY | given))


ONE = (("tokenizer", "text_encoder"),)
TWO = (*ONE, ("tokenizer_2", "text_encoder_2"))


@pytest.fixture(scope="module", params=["sdxl", "playground-v2.5", "sd1.5"])
def case(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    return {
        "sdxl": lambda: Case("sdxl", made_sdxl.checkpoint(folder), TWO, 5.0),
        "playground-v2.5": lambda: Case("playground-v2.5", made_sdxl.playground(folder), TWO, 3.0),
        "sd1.5": lambda: Case("sd1.5", made_sd1.checkpoint(folder), ONE, 7.5),
    }[request.param]()


@pytest.fixture(scope="module")
def generator(case):
    return case.generator()


@pytest.fixture(scope="module")
def pipeline(case):
    """The same checkpoint as diffusers loads it."""
    loaded = diffusers.DiffusionPipeline.from_pretrained(case.folder)
    loaded.set_progress_bar_config(disable=True)
    return loaded


def pixels(image):
    assert isinstance(image, Image), image
    return np.asarray(image).astype(int)


def draw(generator, *texts, seed=0):
    prompts = [prompt(text, f"pair {number}") for number, text in enumerate(texts)]
    return [pixels(image) for image in generator.generate(prompts, seeds=[seed] * len(texts))]


def by_hand(pipeline, case, text):
    """Embeddings of `text`, and the pooled ones of SDXL: every piece and encoder by a plain call of transformers."""
    per_encoder, pooled = [], None
    for tokenizer_name, encoder_name in case.parts:
        tokenizer, encoder = getattr(pipeline, tokenizer_name), getattr(pipeline, encoder_name)
        rest = tokenizer.convert_tokens_to_ids(tokenizer.tokenize(text))
        rows, first = [], True
        while rest or first:
            ids = [tokenizer.bos_token_id, *rest[:75], tokenizer.eos_token_id]
            ids += [tokenizer.pad_token_id] * (77 - len(ids))
            rest, was_first, first = rest[75:], first, False
            with torch.no_grad():
                answer = encoder(input_ids=torch.tensor([ids]), output_hidden_states=True)
            if encoder_name == "text_encoder_2" and was_first:
                pooled = answer.text_embeds
            rows.append(answer.hidden_states[-2] if len(case.parts) == 2 else answer.last_hidden_state)
        per_encoder.append(torch.cat(rows, dim=1))
    return torch.cat(per_encoder, dim=2), pooled


def of_diffusers(pipeline, case, texts):
    if case.parts == ONE:
        embeddings, negative = pipeline.encode_prompt(texts, "cpu", 1, True)
        return {"prompt_embeds": embeddings, "negative_prompt_embeds": negative}
    names = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds")
    return dict(zip(names, pipeline.encode_prompt(texts, device="cpu"), strict=True))


def words(tokenizer, count):
    """A text of `count` tokens."""
    text = "x " * count
    assert len(tokenizer.tokenize(text)) == count
    return text.strip()


@pytest.mark.parametrize("text", [SHORT, "x " * 74 + "x", "weird <|endoftext|> ünïcode !!! 🌫"])
def test_a_prompt_of_one_piece_has_the_embeddings_of_diffusers(case, generator, pipeline, text):
    expected = of_diffusers(pipeline, case, [text])
    got = generator._arguments([prompt(text)])
    assert got.pop("guidance_scale") == case.guidance
    assert set(got) == set(expected)
    for name, tensor in expected.items():
        assert torch.equal(got[name], tensor), name


@pytest.mark.parametrize("text", [SHORT, LONG, "x " * 75 + "fog", "x " * 150 + "fog", "fog, " * 150 + "x"])
def test_embeddings_of_every_length_are_those_made_by_hand(case, generator, pipeline, text):
    expected, pooled = by_hand(pipeline, case, text)
    got = generator._arguments([prompt(text)])
    assert torch.equal(got["prompt_embeds"], expected)
    pieces = expected.shape[1] // 77
    assert expected.shape[1] == 77 * pieces and generator.batch_key(prompt(text))[0] == pieces
    empty, empty_pooled = by_hand(pipeline, case, "")
    zeros = case.parts == TWO and pipeline.config.force_zeros_for_empty_prompt
    negative = torch.zeros_like(expected) if zeros else torch.cat([empty] * pieces, dim=1)
    assert torch.equal(got["negative_prompt_embeds"], negative)
    if case.parts == TWO:
        assert torch.equal(got["pooled_prompt_embeds"], pooled)
        expected_pooled = torch.zeros_like(pooled) if zeros else empty_pooled
        assert torch.equal(got["negative_pooled_prompt_embeds"], expected_pooled)


def test_embeddings_do_not_depend_on_the_other_prompts(generator):
    texts = [SHORT, "fog", "a dark, joyless street"]
    together = generator._arguments([prompt(text) for text in texts])
    for row, text in enumerate(texts):
        for name, tensor in generator._arguments([prompt(text)]).items():
            if name != "guidance_scale":
                assert torch.equal(together[name][row : row + 1], tensor), name


def test_images_are_those_of_diffusers(case, generator, pipeline):
    own = prompt(SHORT)
    noise = torch.Generator("cpu").manual_seed(generator.noise_seed(own, 7))
    size = {"num_inference_steps": 2, "width": 64, "height": 64}
    with warnings.catch_warnings():
        # numpy's, of how diffusers' Euler scheduler converts tensors
        warnings.simplefilter("ignore", DeprecationWarning)
        direct = pipeline([SHORT], guidance_scale=case.guidance, generator=[noise], **size).images[0]
    (image,) = generator.generate([own], seeds=[7])
    assert pixels(image).std() > 5
    assert np.array_equal(pixels(image), pixels(direct))


def test_images_follow_the_seed_and_the_prompt(generator):
    first, again, other = draw(generator, SHORT)[0], draw(generator, SHORT)[0], draw(generator, SHORT, seed=1)[0]
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert not np.array_equal(first, draw(generator, "fog")[0])


def test_a_wish_after_the_77th_token_changes_the_image(case, generator, pipeline):
    dark, bright = (f"{LONG} {wish}" for wish in ("dark", "bright"))
    cut = [of_diffusers(pipeline, case, [text])["prompt_embeds"] for text in (dark, bright)]
    assert torch.equal(*cut)
    assert (draw(generator, dark)[0] != draw(generator, bright)[0]).mean() > 0.1


def test_a_batch_equals_its_images_alone(case, generator):
    texts = [SHORT, "fog", f"{LONG} dark", "a dark street"]
    together = draw(case.generator(batch_size=3), *texts)
    for got, alone in zip(together, draw(generator, *texts), strict=True):
        # Larger matrices are summed in another order.
        assert np.abs(got - alone).max() <= 1
        assert (got != alone).mean() < 0.01


def calls_of(generator, monkeypatch):
    """The arguments of every call of the pipeline, which still draws."""
    calls = []
    kind = type(generator.pipeline)
    real = kind.__call__
    monkeypatch.setattr(kind, "__call__", lambda self, **given: calls.append(given) or real(self, **given))
    return calls


def test_prompts_of_another_number_of_pieces_are_drawn_apart(case, monkeypatch):
    generator = case.generator(batch_size=4)
    calls = calls_of(generator, monkeypatch)
    draw(generator, *(words(generator.pipeline.tokenizer, count) for count in (75, 151, 3, 76, 150)))
    shapes = [tuple(call["prompt_embeds"].shape[:2]) for call in calls]
    assert shapes == [(2, 77), (2, 154), (1, 231)]
    assert all(call["negative_prompt_embeds"].shape == call["prompt_embeds"].shape for call in calls)


def test_both_prompts_of_a_pair_are_drawn_alike(case, generator, monkeypatch):
    calls = calls_of(generator, monkeypatch)
    wide = Prompt(
        prompt_id="",
        text=f"{SHORT}, dark",
        pair_id="garden",
        role="wide_spectrum",
        dimensions=("color brightness",),
        negative_prompt="bright",
    )
    generator.generate([prompt(SHORT), wide], seeds=[0, 0])
    first, second = calls
    assert first.keys() == second.keys()
    for name in first.keys() - {"prompt_embeds", "pooled_prompt_embeds", "generator"}:
        same = torch.equal if isinstance(first[name], torch.Tensor) else (lambda a, b: a == b)
        assert same(first[name], second[name]), name
    seeds = [[each.initial_seed() for each in call["generator"]] for call in calls]
    assert seeds[0] == seeds[1]


def test_a_lora_on_the_unet_changes_the_image(case, generator, tmp_path):
    from peft import LoraConfig

    unet = diffusers.UNet2DConditionModel.from_pretrained(case.folder / "unet")
    unet.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False))
    unet.save_lora_adapter(tmp_path / "adapter", weight_name="lora.safetensors")
    file = tmp_path / "lora.safetensors"
    tensors = load_file(tmp_path / "adapter" / "lora.safetensors")
    save_file({f"unet.{name}": tensor for name, tensor in tensors.items()}, file)
    plain, whole, none = (
        draw(each, SHORT)[0]
        for each in (generator, case.generator(lora=str(file)), case.generator(lora=str(file), lora_weight=0.0))
    )
    assert np.array_equal(plain, none)
    assert (plain != whole).mean() > 0.1


def test_a_saved_pipeline_draws_the_same(case, generator, tmp_path):
    generator.pipeline.save_pretrained(tmp_path)
    again = load_generator(case.name, checkpoint=tmp_path, **TINY)
    assert np.array_equal(draw(generator, LONG)[0], draw(again, LONG)[0])


def test_ten_pieces_are_read_and_no_more(generator):
    fits, too_long = (prompt(words(generator.pipeline.tokenizer, count)) for count in (750, 751))
    image, failure = generator.generate([fits, too_long], seeds=[0, 0])
    assert isinstance(image, Image)
    name = generator.name
    assert failure == Failure(
        f"the prompt of pair 'garden' (original) has 753 tokens, {name} reads 752: shorten it", "input"
    )


def test_numbers_that_are_not_finite_are_a_failure_and_no_image(case):
    generator = case.generator()
    with torch.no_grad():
        generator.pipeline.vae.decoder.conv_out.bias.fill_(float("nan"))
    (failure,) = generator.generate([prompt(SHORT)], seeds=[0])
    assert isinstance(failure, Failure) and failure.cause == "model"


def test_the_spec_names_the_policy(generator):
    assert generator.spec.params["long_prompts"] == "CLIP in pieces of 75 tokens"


def test_a_size_the_family_cannot_draw(case):
    with pytest.raises(InputError, match=r"width and height must be multiples of 8 up to 4096 pixels; got 60 x 64"):
        case.generator(width=60)


def test_a_checkpoint_of_another_family(case, tmp_path):
    folder = made_sd1.checkpoint(tmp_path) if case.parts == TWO else made_sdxl.checkpoint(tmp_path)
    with pytest.raises(InputError, match="StableDiffusion"):
        load_generator(case.name, checkpoint=folder, **TINY).open()
