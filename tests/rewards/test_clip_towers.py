"""CLIP's towers: architecture from shapes, names of three sources, tokens for MPS, and files that do not fit."""

import json
import re

import numpy as np
import PIL.Image
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.rewards.clip_reference import SlowClip, gelu, quick_gelu
from tests.rewards.made_clip import VOCABULARY, as_released, save_archive, save_folder, state
from widespectrum.errors import InputError
from widespectrum.rewards import load_reward_model
from widespectrum.rewards.checkpoints import open_weights
from widespectrum.rewards.clip_towers import build_towers, check_tokens, image_size

SMALL = {"layers": 1, "text_width": 64, "patch": 56}
IDS = torch.zeros(3, 77, dtype=torch.int64)
IDS[:, 0] = 49406
IDS[0, 1] = IDS[1, 40] = IDS[2, 76] = 49407
IDS[1, 1:40] = torch.arange(1, 40)
IDS[1, 41:] = 7
IDS[2, 1:76] = torch.arange(300, 375)


def towers(path, activation="quick_gelu", dtype=torch.float32, **options):
    weights = open_weights(path, wanted="a test")
    return build_towers(weights, dtype=dtype, device="cpu", activation=activation, **options)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "state.pt"
    torch.save(state(**SMALL), path)
    return path


def pixels(count=2):
    return torch.randn(count, 3, 224, 224, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize(
    ("width", "text_width", "activation", "heads"),
    [
        (160, 64, "gelu", (2, 1)),  # ViT-H: 80 channels to a head
        (320, 128, "gelu", (4, 2)),  # 80 before 64, where both would do
        (128, 64, "gelu", (2, 1)),
        (320, 64, "quick_gelu", (5, 1)),  # OpenAI: always 64
        (64, 192, "quick_gelu", (1, 3)),
    ],
)
def test_heads_by_width_and_family(tmp_path, width, text_width, activation, heads):
    tensors = state(layers=1, width=width, text_width=text_width, patch=56)
    torch.save(tensors, tmp_path / "state.pt")
    slow = SlowClip(tensors, heads=heads, activation=gelu if activation == "gelu" else quick_gelu)
    made = towers(tmp_path / "state.pt", activation)
    with torch.inference_mode():
        image, text = made.images(pixels(1))[0], made.texts(IDS[1:2])[0]
    assert torch.allclose((image / image.norm()).double(), slow.image(pixels(1)[0].double()), atol=2e-6)
    assert torch.allclose((text / text.norm()).double(), slow.text(IDS[1].tolist()), atol=2e-6)


def test_texts_are_pooled_at_their_own_first_end_and_see_nothing_behind_it(file):
    made = towers(file)
    other = IDS.clone()
    other[1, 41:] = 49407
    with torch.inference_mode():
        together, alone = made.texts(IDS), torch.cat([made.texts(IDS[row : row + 1]) for row in range(3)])
        tokens = made.text_tokens(IDS)
        assert torch.allclose(together, alone, atol=1e-5)
        assert torch.allclose(together, made.texts(other), atol=1e-5)
    assert tokens.shape == (3, 77, 64)
    assert torch.allclose(together, tokens[torch.arange(3), torch.tensor([1, 40, 76])], atol=1e-5)


def test_image_tokens_are_projected_without_the_final_norm(file):
    slow = SlowClip(state(**SMALL), heads=(2, 1), activation=quick_gelu)
    expected = slow.patches(pixels(1)[0].double()) @ slow.tensors["visual.proj"]
    with torch.inference_mode():
        tokens = towers(file).image_tokens(pixels(1))[0]
    assert tokens.shape == expected.shape == (1 + 4 * 4, 64)
    assert torch.allclose(tokens.double(), expected, atol=2e-4)


def test_a_prefix_before_every_name(tmp_path, file):
    torch.save({f"clip.{name}": each for name, each in state(**SMALL).items()}, tmp_path / "state.pt")
    made = towers(tmp_path / "state.pt", prefix="clip.")
    with torch.inference_mode():
        assert torch.equal(made.images(pixels()), towers(file).images(pixels()))
    assert image_size(open_weights(tmp_path / "state.pt", wanted="a test"), prefix="clip.") == 224


def test_what_is_loaded_is_frozen_in_its_dtype_and_the_scale_is_not_rounded(file):
    made = towers(file, dtype=torch.bfloat16)
    assert {each.dtype for each in made.model.parameters()} == {torch.bfloat16}
    assert not any(each.requires_grad or each.is_meta for each in made.model.parameters())
    assert not made.model.training
    assert made.scale == float(torch.tensor(4.6052).exp())


def test_an_archive_in_half_precision_is_read_in_float32(tmp_path):
    save_archive(as_released(state(**SMALL)), tmp_path / "ViT-L-14.pt")
    made = towers(tmp_path / "ViT-L-14.pt")
    weight = state(**SMALL)["visual.conv1.weight"].half().float()
    assert torch.equal(made.model.vision_model.embeddings.patch_embedding.weight, weight)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_quick_gelu_in_place_gives_the_bits_of_transformers(file, dtype):
    from transformers.activations import ACT2FN

    hidden = 5 * torch.randn(3, 70, 130, generator=torch.Generator().manual_seed(6)).to(dtype)
    expected = ACT2FN["quick_gelu"](hidden)
    for layers in (made.encoder.layers for made in (towers(file).model.vision_model, towers(file).model.text_model)):
        assert torch.equal(layers[0].mlp.activation_fn(hidden.clone()), expected)


@pytest.mark.parametrize("container", ["openai", "transformers"])
@pytest.mark.parametrize("tower", ["visual.transformer", "transformer"])
def test_a_layer_that_is_not_whole_is_missed(tmp_path, container, tower):
    """Its first tensor alone is gone: the layer must not be left out."""
    tensors = state(**SMALL | {"layers": 3})
    gone = f"{tower}.resblocks.1.ln_1.weight"
    if container == "openai":
        torch.save({name: each for name, each in tensors.items() if name != gone}, tmp_path / "state.pt")
    else:
        part = "vision_model" if tower.startswith("visual") else "text_model"
        gone = f"{part}.encoder.layers.1.layer_norm1.weight"
        save_folder(tensors, tmp_path, activation="quick_gelu")
        whole = load_file(tmp_path / "model.safetensors")
        save_file({name: each for name, each in whole.items() if name != gone}, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=rf"lacks 1 weight of a test, {re.escape(gone)}"):
        towers(tmp_path / "state.pt" if container == "openai" else tmp_path)


def full(width, layers, text_width):
    """The tensors of a CLIP of these sizes, without memory or room in a file; of 64 channels, so many are made."""
    made = {}
    for name, each in state(width=64, text_width=64, layers=1, patch=56).items():
        own = width if name.startswith("visual.") else text_width
        kept = (49408, 77, 17, 56, 3)
        shape = [side if side in kept else own * side // 64 for side in each.shape]
        for number in range(layers if name.startswith("visual.transformer") else 1):
            made[name.replace("resblocks.0", f"resblocks.{number}")] = torch.zeros(()).expand(shape)
    return made


@pytest.mark.parametrize(
    ("activation", "sizes", "message"),
    [
        ("quick_gelu", (1280, 32, 1024), r"is no checkpoint of a test, which is a ViT-L; it looks like a CLIP ViT-H"),
        ("gelu", (1024, 24, 768), r"is no checkpoint of a test, which is a ViT-H; it looks like a CLIP ViT-L"),
    ],
)
def test_a_clip_of_full_size_that_is_not_the_family_s(tmp_path, activation, sizes, message):
    torch.save(full(*sizes), tmp_path / "state.pt")
    with pytest.raises(InputError, match=message):
        towers(tmp_path / "state.pt", activation)
    # With a layer less it is a reduced model, refused here for another reason, and before it takes memory.
    reduced = full(sizes[0], sizes[1] - 1, sizes[2])
    torch.save({**reduced, "positional_embedding": torch.zeros(32, sizes[2])}, tmp_path / "state.pt")
    with pytest.raises(InputError, match="expected a text tower of 77 positions, got 32"):
        towers(tmp_path / "state.pt", activation)


def test_embeddings_of_fewer_tokens_than_the_tokenizer_has(file):
    weights = open_weights(file, wanted="a test")
    check_tokens(weights, 49408)
    with pytest.raises(
        InputError, match=r"token_embedding\.weight has 49408 rows and the tokenizer 49409 tokens: give"
    ):
        check_tokens(weights, 49409)


def spoiled(**changes):
    """The tensors, without those that are changed to None."""
    tensors = {**state(**SMALL), **{name.replace("__", "."): each for name, each in changes.items()}}
    return {name: each for name, each in tensors.items() if each is not None}


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"layers.0.weight": torch.zeros(2, 768)}, r"lacks 38 or more weights of a test, visual\.\* \(20\)"),
        (spoiled(visual__proj=None), r"lacks 1 weight of a test, visual\.proj"),
        (
            spoiled(**{"transformer.resblocks.0.attn.out_proj.bias": None}),
            r"lacks 1 weight of a test, transformer\.resblocks\.0\.attn\.out_proj\.bias",
        ),
        (spoiled(positional_embedding=torch.zeros(32, 64)), r"expected a text tower of 77 positions, got 32"),
        (
            spoiled(visual__positional_embedding=torch.zeros(16, 128)),
            r"16 image positions are not 1 \+ the patches of a square image",
        ),
        (state(**SMALL | {"width": 200}), r"the image tower of width 200 cannot be divided among 3 heads"),
        (spoiled(ln_final__bias=torch.zeros(63)), r"ln_final\.bias"),
        (
            spoiled(**{"transformer.resblocks.0.attn.in_proj_bias": torch.zeros(256)}),
            r"a test: transformer\.resblocks\.0\.attn\.in_proj_bias has shape \(256,\) where \(192,\) is expected;",
        ),
        (spoiled(visual__conv1__weight=None), r"lacks 1 weight of a test, visual\.conv1\.weight"),
        (
            {name: each for name, each in state(**SMALL).items() if not name.startswith("visual.transformer")},
            r"lacks 12 or more weights of a test, visual\.transformer\.resblocks\.0\.\* \(12\)",
        ),
    ],
    ids=["other", "tensor", "of a layer", "context", "positions", "heads", "shape", "packed", "patches", "no layers"],
)
def test_a_file_that_does_not_fit(tmp_path, tensors, message):
    torch.save(tensors, tmp_path / "state.pt")
    with pytest.raises(InputError, match=message) as caught:
        towers(tmp_path / "state.pt")
    assert str(tmp_path / "state.pt") in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("{", "is no configuration of a transformers CLIPModel"),
        ("[]", "is no configuration of a transformers CLIPModel"),
        ({"hidden_act": "none"}, "transformers knows no activation 'none'"),
        ({"patch_size": 28}, r"belongs to another checkpoint: it says patch_size 28, and the tensors say \d+"),
        ({"hidden_size": 256}, r"belongs to another checkpoint: in the image tower it says .*256"),
        (
            {"num_attention_heads": 3},
            r"the image tower of width 128 cannot be divided among 3 heads|attention heads \(3\)",
        ),
    ],
)
def test_a_configuration_that_does_not_fit(tmp_path, change, message):
    save_folder(state(**SMALL), tmp_path, activation="quick_gelu")
    path = tmp_path / "config.json"
    if isinstance(change, dict):
        config = json.loads(path.read_text())
        config["vision_config"] |= change
        change = json.dumps(config)
    path.write_text(change)
    with pytest.raises(InputError, match=message):
        towers(tmp_path, config=path)


@pytest.mark.parametrize("model", ["clip-l", "hps"])
def test_weights_in_float32_are_rounded_as_openai_does_and_not_for_hps(tmp_path, model):
    tensors = state(3)
    files = {}
    for name, each in (("exact", tensors), ("rounded", as_released(tensors))):
        files[name] = tmp_path / f"{name}.pt"
        torch.save({"state_dict": each}, files[name])
    image = PIL.Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 50, 3), dtype=np.uint8))
    exact, rounded = (
        load_reward_model(model, checkpoint=file, tokenizer=VOCABULARY).score([image], ["a dog"])
        for file in files.values()
    )
    assert (exact == rounded) == (model == "clip-l")
