"""A LoRA is merged as its own library merges it, in full, or an error says how much of it fits."""

import json
import shutil
from copy import deepcopy
from functools import cache

import peft
import pytest
import torch
from diffusers import FluxPipeline, StableDiffusion3Pipeline, StableDiffusionXLPipeline
from safetensors.torch import load_file, save_file

from tests.generators import made_flux, made_sd3, made_sdxl
from widespectrum.errors import InputError
from widespectrum.generators.lora import merge_lora

FAMILIES = {
    "flux": (made_flux, FluxPipeline, "transformer"),
    "sd3": (made_sd3, StableDiffusion3Pipeline, "transformer"),
    "sdxl": (made_sdxl, StableDiffusionXLPipeline, "unet"),
}
LAYERS = ["to_q", "to_out.0"]
PEFT, DIFFUSERS = "adapter_model.safetensors", "pytorch_lora_weights.safetensors"

pytestmark = pytest.mark.filterwarnings("ignore:.*torch_dtype.*is deprecated")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {family: made.checkpoint(tmp_path_factory.mktemp(family)) for family, (made, _, _) in FAMILIES.items()}


@cache
def loaded(kind, folder):
    """What a LoRA can touch; loading it anew for every test would take minutes."""
    return kind.from_pretrained(folder, vae=None, tokenizer=None, tokenizer_2=None)


def opened(folders, family):
    return deepcopy(loaded(FAMILIES[family][1], folders[family]))


def strong(model):
    """Make a fresh adapter, whose second half is zero, one that changes something."""
    with torch.no_grad():
        for number, (name, each) in enumerate(model.named_parameters()):
            if "lora_" in name:
                each.normal_(generator=torch.Generator().manual_seed(number))
    return model


def as_peft(folders, family, folder, **given):
    """What `save_pretrained` of peft writes; alpha is not the rank, so that it counts."""
    backbone = getattr(opened(folders, family), FAMILIES[family][2])
    config = peft.LoraConfig(r=2, lora_alpha=6, target_modules=LAYERS, **given)
    strong(peft.get_peft_model(backbone, config)).save_pretrained(folder)
    return folder


def as_diffusers(folders, family, folder, *, text=False):
    """What diffusers writes, for the text encoder as well."""
    pipeline, backbone = opened(folders, family), FAMILIES[family][2]
    parts = {backbone: LAYERS, **({"text_encoder": ["q_proj"]} if text else {})}
    layers = {}
    for part, names in parts.items():
        module = getattr(pipeline, part)
        module.add_adapter(peft.LoraConfig(r=2, lora_alpha=2, target_modules=names))
        layers[f"{part}_lora_layers"] = peft.get_peft_model_state_dict(strong(module), adapter_name="default")
    pipeline.save_lora_weights(folder, **layers)
    return folder


def as_kohya(folders, family, folder):
    """A file of kohya for one layer of a Flux transformer."""
    name = "lora_unet_double_blocks_0_img_attn_proj"
    noise = torch.Generator().manual_seed(0)
    down, up = torch.randn(2, 32, generator=noise), torch.randn(32, 2, generator=noise)
    tensors = {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up, f"{name}.alpha": torch.tensor(4.0)}
    save_file(tensors, folder / "mine.safetensors")
    return folder / "mine.safetensors"


def weights(pipeline):
    parts = {key: each for key, each in pipeline.components.items() if isinstance(each, torch.nn.Module)}
    return {f"{part}.{key}": each.clone() for part, own in parts.items() for key, each in own.state_dict().items()}


def changed(one, two):
    assert one.keys() == two.keys()
    return {key for key in one if not torch.equal(one[key], two[key])}


@pytest.mark.parametrize("family", FAMILIES)
def test_peft_at_weights_of_none_half_and_one(folders, tmp_path, family):
    folder, backbone = as_peft(folders, family, tmp_path), FAMILIES[family][2]
    plain, direct = opened(folders, family), opened(folders, family)
    model = peft.PeftModel.from_pretrained(getattr(direct, backbone), folder)
    delta = {
        f"{backbone}.{name.removeprefix('base_model.model.')}.weight": each.get_delta_weight("default").detach()
        for name, each in model.named_modules()
        if isinstance(each, peft.tuners.lora.LoraLayer)
    }
    setattr(direct, backbone, model.merge_and_unload())
    at = {}
    for weight in (0.0, 0.5, 1.0, -1.0):
        pipeline = opened(folders, family)
        merge_lora(pipeline, folder, weight, name="x", backbone=backbone)
        at[weight] = weights(pipeline)
        assert type(getattr(pipeline, backbone)) is type(getattr(plain, backbone))
    before = weights(plain)
    assert changed(at[0.0], before) == changed(at[1.0], weights(direct)) == set()
    assert changed(at[0.5], before) == changed(at[-1.0], before) == delta.keys()
    for key, each in delta.items():
        torch.testing.assert_close(at[0.5][key], before[key] + 0.5 * each)
        torch.testing.assert_close(at[-1.0][key], before[key] - each)


@pytest.mark.parametrize(("family", "text"), [("flux", False), ("flux", True), ("sd3", False), ("sdxl", True)])
def test_diffusers_at_weights_of_none_half_and_one(folders, tmp_path, family, text):
    folder, backbone = as_diffusers(folders, family, tmp_path, text=text), FAMILIES[family][2]
    before, at = weights(opened(folders, family)), {}
    for weight in (0.0, 0.5, 1.0):
        direct, pipeline = opened(folders, family), opened(folders, family)
        direct.load_lora_weights(folder, weight_name=DIFFUSERS)
        parts = [backbone, *(["text_encoder"] if text else [])]
        direct.fuse_lora(components=parts, lora_scale=weight)
        direct.unload_lora_weights()
        merge_lora(pipeline, folder, weight, name="x", backbone=backbone)
        at[weight] = weights(pipeline)
        assert changed(at[weight], weights(direct)) == set()
    assert changed(at[0.0], before) == set()
    touched = changed(at[1.0], before)
    assert {key.partition(".")[0] for key in touched} == set(parts)
    for key in touched:
        torch.testing.assert_close(at[0.5][key], (before[key] + at[1.0][key]) / 2)


def test_both_forms_of_one_lora_are_one(folders, tmp_path):
    """The same tensors, written by peft and by diffusers, change the pipeline alike."""
    folder = as_peft(folders, "flux", tmp_path / "peft")
    tensors = load_file(folder / PEFT)
    renamed = {key.replace("base_model.model.", "transformer."): each for key, each in tensors.items()}
    alphas = {key.replace("lora_A.weight", "alpha"): torch.tensor(6.0) for key in renamed if "lora_A" in key}
    save_file({**renamed, **alphas}, tmp_path / "any.safetensors")
    merged = []
    for path in (folder, folder / PEFT, tmp_path / "any.safetensors"):
        pipeline = opened(folders, "flux")
        merge_lora(pipeline, path, 0.7, name="x", backbone="transformer")
        merged.append(weights(pipeline))
    assert changed(merged[0], merged[1]) == set()
    for key, each in merged[0].items():
        torch.testing.assert_close(merged[2][key], each)


def test_kohya(folders, tmp_path):
    file, pipeline = as_kohya(folders, "flux", tmp_path), opened(folders, "flux")
    before = weights(pipeline)
    merge_lora(pipeline, file, 0.5, name="x", backbone="transformer")
    key = "transformer.transformer_blocks.0.attn.to_out.0.weight"
    tensors = {name.rpartition("proj.")[2]: each for name, each in load_file(file).items()}
    # alpha over rank, times the weight
    expected = before[key] + 0.5 * (4 / 2) * tensors["lora_up.weight"] @ tensors["lora_down.weight"]
    torch.testing.assert_close(weights(pipeline)[key], expected)
    assert changed(weights(pipeline), before) == {key}


def test_kohya_with_an_alpha_of_its_own_in_every_layer(folders, tmp_path):
    pipeline, noise, expected, tensors = opened(folders, "sdxl"), torch.Generator().manual_seed(0), {}, {}
    before = weights(pipeline)
    names = {"unet": ("attn1.to_q", "attn2.to_v", "ff.net.2"), "text_encoder": ("q_proj", "out_proj", "fc1")}
    for part, prefix in (("unet", "lora_unet_"), ("text_encoder", "lora_te1_text_model_")):
        for name, each in getattr(pipeline, part).named_modules():
            if name.endswith(names[part]):
                key = prefix + name.removeprefix("text_model.").replace(".", "_")
                down = torch.randn(2, each.in_features, generator=noise)
                up = torch.randn(each.out_features, 2, generator=noise)
                tensors |= {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up}
                alpha = len(expected) % 4
                # without an alpha it is the rank
                tensors |= {f"{key}.alpha": torch.tensor(float(alpha))} if alpha else {}
                weight = f"{part}.{name}.weight"
                expected[weight] = before[weight] + 0.5 * (alpha or 2) / 2 * up @ down
    save_file(tensors, tmp_path / "mine.safetensors")
    merge_lora(pipeline, tmp_path / "mine.safetensors", 0.5, name="x", backbone="unet")
    after = weights(pipeline)
    assert changed(after, before) == expected.keys()
    for weight, each in expected.items():
        torch.testing.assert_close(after[weight], each)


def edit(file, change):
    save_file(change(load_file(file)), file)


def drop(count):
    return lambda tensors: dict(sorted(tensors.items())[count:])


def rename(tensors):
    return {key.replace("blocks.0.", "blocks.9."): each for key, each in tensors.items()}


def widen(tensors):
    return {key: torch.zeros(2, 48) if "lora_A" in key else each for key, each in tensors.items()}


def deepen(tensors):
    return {key: torch.zeros(3, 32) if "lora_A" in key else each for key, each in tensors.items()}


def unprefix(tensors):
    return {key.removeprefix("transformer."): each for key, each in tensors.items()}


def dora(tensors):
    return {**tensors, "transformer.transformer_blocks.0.attn.to_q.dora_scale": torch.zeros(32)}


def nan(tensors):
    return {key: each / 0 - each / 0 for key, each in tensors.items()}


def add(tensors):
    return {**tensors, "transformer.extra.weight": torch.zeros(2)}


def second_encoder(tensors):
    return {**tensors, "text_encoder_2.layer.lora_A.weight": torch.zeros(2, 2)}


@pytest.mark.parametrize(
    ("form", "change", "message"),
    [
        (PEFT, drop(1), r"\d+ of its \d+ tensors find their place, 1 are missing \(.*lora_A.weight\); it says"),
        (
            PEFT,
            rename,
            r"\d+ of its \d+ tensors .*blocks\.9\..* belongs to no layer that is here; layers of transformer",
        ),
        (PEFT, widen, r"lora_A.weight is made for a width of 48, the layer has 32; .*it says that it is for some/base"),
        (PEFT, deepen, r"\d+ of its \d+ tensors find their place, \d+ have another shape"),
        (PEFT, nan, r"is damaged, .* holds numbers that are not finite"),
        (DIFFUSERS, drop(1), r"1 are missing"),
        (DIFFUSERS, rename, r"belongs to no layer that is here"),
        (DIFFUSERS, widen, r"is made for a width of 48, the layer has 32"),
        (DIFFUSERS, unprefix, r"0 of its \d+ tensors find their place; .* is of no part that can take a LoRA"),
        (DIFFUSERS, dora, r"is a DoRA"),
        (DIFFUSERS, add, r"does not fit|cannot be merged"),
        (DIFFUSERS, second_encoder, r"text_encoder_2\S* is of no part that can take a LoRA"),
    ],
)
def test_what_does_not_fit_in_full(folders, tmp_path, form, change, message):
    (as_peft if form == PEFT else as_diffusers)(folders, "flux", tmp_path)
    edit(tmp_path / form, change)
    if form == PEFT:
        config = json.loads((tmp_path / "adapter_config.json").read_text())
        (tmp_path / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": "some/base"}))
    with pytest.raises(InputError, match=message) as caught:
        merge_lora(opened(folders, "flux"), tmp_path, 1.0, name="flux-dev-lora", backbone="transformer")
    assert str(caught.value).startswith("flux-dev-lora: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("write", [as_peft, as_diffusers])
def test_one_for_another_family(folders, tmp_path, write):
    write(folders, "sd3", tmp_path)
    with pytest.raises(InputError, match=r"does not fit: \d+ of its \d+ tensors find their place"):
        merge_lora(opened(folders, "sdxl"), tmp_path, 1.0, name="sdxl", backbone="unet")


def only_pickled(folder):
    (folder / PEFT).rename(folder / "adapter_model.bin")


def without_config(folder):
    (folder / "adapter_config.json").unlink()


def two_files(folder):
    without_config(folder)
    shutil.move(folder / PEFT, folder / "a.safetensors")
    shutil.copy(folder / "a.safetensors", folder / "b.safetensors")


def of_another_kind(folder):
    (folder / "adapter_config.json").write_text('{"peft_type": "IA3"}')


def no_json(folder):
    (folder / "adapter_config.json").write_text("{")


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (only_pickled, r"adapter_model.bin, which is pickled and never loaded: convert it"),
        (without_config, r"has no adapter_config.json beside it"),
        (two_files, r"holds several files \(a.safetensors, b.safetensors\): name one of them"),
        (of_another_kind, r"holds 'IA3', expected a LoRA"),
        (no_json, r"adapter_config.json is damaged: expected a JSON object"),
    ],
)
def test_what_is_no_lora(folders, tmp_path, break_it, message):
    break_it(as_peft(folders, "flux", tmp_path))
    with pytest.raises(InputError, match=message):
        merge_lora(opened(folders, "flux"), tmp_path, 1.0, name="x", backbone="transformer")
