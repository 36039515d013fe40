"""Another transformer replaces a pipeline's own, exactly, or an error says why it does not fit."""

import json
import re
import shutil

import pytest
import torch
from diffusers import FluxTransformer2DModel, SD3Transformer2DModel
from safetensors.torch import load_file, save_file

from tests.generators import made_flux, made_sd3
from widespectrum.errors import InputError
from widespectrum.generators.swap import load_transformer

FILE = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A Flux pipeline without the weights of its transformer: they are not to be read."""
    folder = made_flux.checkpoint(tmp_path_factory.mktemp("base"))
    (folder / "transformer" / FILE).unlink()
    return folder


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """The transformer of another seed."""
    return made_flux.checkpoint(tmp_path_factory.mktemp("other"), seed=1) / "transformer"


def prefixed(prefix):
    def write(other, folder):
        save_file({f"{prefix}{key}": each for key, each in load_file(other / FILE).items()}, folder / "any.safetensors")
        return folder / "any.safetensors"

    return write


def in_shards(other, folder):
    FluxTransformer2DModel.from_pretrained(other).save_pretrained(folder, max_shard_size="50KB")
    assert len(list(folder.glob("*.safetensors"))) > 2
    return folder


FORMS = {
    "folder": lambda other, folder: other,
    "pipeline": lambda other, folder: other.parent,
    "shards": in_shards,
    "file": lambda other, folder: other / FILE,
    "no config": lambda other, folder: shutil.copy(other / FILE, folder) and folder,
    "wrapped": prefixed("module."),
    "of a pipeline": prefixed("transformer."),
    "twice": prefixed("module.model."),
}


def equal(one, two):
    one, two = one.state_dict(), two.state_dict()
    return (
        one.keys() == two.keys()
        and all(one[key].dtype == two[key].dtype for key in one)
        and all(torch.equal(one[key], two[key]) for key in one)
    )


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_form_gives_what_diffusers_loads(base, other, tmp_path, form, dtype):
    loaded = load_transformer(base, FORMS[form](other, tmp_path), dtype=dtype, name="dance-flux")
    assert equal(loaded, FluxTransformer2DModel.from_pretrained(other, torch_dtype=dtype))
    assert not loaded.training
    assert not any(each.is_meta for each in [*loaded.parameters(), *loaded.buffers()])


def test_it_computes_what_the_other_computes(tmp_path):
    folders = [made_sd3.checkpoint(tmp_path / str(seed), seed=seed) for seed in (0, 1)]
    loaded = load_transformer(folders[0], folders[1] / "transformer" / FILE, dtype=torch.float32, name="x")
    direct = SD3Transformer2DModel.from_pretrained(folders[1] / "transformer")
    noise = torch.Generator().manual_seed(0)
    given = {
        "hidden_states": torch.randn(1, 4, 8, 8, generator=noise),
        "encoder_hidden_states": torch.randn(1, 5, 64, generator=noise),
        "pooled_projections": torch.randn(1, 64, generator=noise),
        "timestep": torch.tensor([500]),
    }
    with torch.inference_mode():
        assert torch.equal(loaded(**given).sample, direct(**given).sample)


ORIGINAL_NAMES = (
    (r"^pos_embed\.proj", "x_embedder.proj"),
    (r"^pos_embed\.pos_embed", "pos_embed"),
    (r"^time_text_embed\.timestep_embedder\.linear_(\d)", "t_embedder.mlp.{}"),
    (r"^time_text_embed\.text_embedder\.linear_(\d)", "y_embedder.mlp.{}"),
    (r"^norm_out\.linear", "final_layer.adaLN_modulation.1"),
    (r"^proj_out", "final_layer.linear"),
    (r"^transformer_blocks\.", "joint_blocks."),
    (r"attn\.norm_added_([qk])", "context_block.attn.ln_{}"),
    (r"(attn2?)\.norm_([qk])", "x_block.{}.ln_{}"),
    (r"attn\.to_add_out", "context_block.attn.proj"),
    (r"(attn2?)\.to_out\.0", "x_block.{}.proj"),
    (r"norm1_context\.linear", "context_block.adaLN_modulation.1"),
    (r"norm1\.linear", "x_block.adaLN_modulation.1"),
    (r"ff_context\.net", "context_block.mlp"),
    (r"ff\.net", "x_block.mlp"),
    (r"mlp\.0\.proj", "mlp.fc1"),
    (r"(block\.mlp)\.2", "{}.fc2"),
)


def originally(folder):
    """The transformer of Stable Diffusion 3 under the names that its authors gave."""
    own, last = load_file(folder / "transformer" / FILE), SD3Transformer2DModel.load_config(folder / "transformer")
    found, joined = {}, {}
    for key, each in own.items():
        if part := re.search(r"(attn2?)\.(to_|add_)([qkv])(_proj)?\.", key):
            block = "context_block" if part[2] == "add_" else "x_block"
            joined.setdefault(key.replace(part[0], f"{block}.{part[1]}.qkv."), {})[part[3]] = each
            continue
        # What comes last has shift and scale the other way round.
        if key.startswith(("norm_out", f"transformer_blocks.{last['num_layers'] - 1}.norm1_context")):
            each = torch.cat(each.chunk(2)[::-1])
        for pattern, name in ORIGINAL_NAMES:
            number = {"1": "0", "2": "2"} if "embedder" in name else {}
            key = re.sub(
                pattern, lambda m, n=name, d=number: n.format(*(d.get(each, each) for each in m.groups())), key, count=1
            )
        found[key] = each
    found |= {key: torch.cat([parts[name] for name in "qkv"]) for key, parts in joined.items()}
    return {
        f"model.diffusion_model.{key.replace('transformer_blocks', 'joint_blocks')}": each
        for key, each in found.items()
    }


def test_original_names_give_what_diffusers_has(tmp_path):
    folders = [made_sd3.checkpoint(tmp_path / str(seed), seed=seed) for seed in (0, 1)]
    tensors = {key: each.contiguous() for key, each in originally(folders[1]).items()}
    save_file(tensors, tmp_path / "whole.safetensors")
    loaded = load_transformer(folders[0], tmp_path / "whole.safetensors", dtype=torch.float32, name="x")
    assert equal(loaded, SD3Transformer2DModel.from_pretrained(folders[1] / "transformer"))
    save_file({**tensors, "model.diffusion_model.extra": torch.zeros(1)}, tmp_path / "more.safetensors")
    with pytest.raises(InputError, match=r"more.safetensors: of \d+ tensors 1 belong nowhere \(extra\): give another$"):
        load_transformer(folders[0], tmp_path / "more.safetensors", dtype=torch.float32, name="x")


def without(tensors):
    del tensors["x_embedder.weight"]
    return tensors


def one_more(tensors):
    return {**tensors, "extra.weight": torch.zeros(1)}


def wider(tensors):
    return {**tensors, "x_embedder.bias": torch.zeros(64)}


def a_lora(tensors):
    return {"transformer.transformer_blocks.0.attn.to_q.lora_A.weight": torch.zeros(2, 32)}


def a_part(tensors):
    return {"single_blocks.0.linear1.bias": torch.zeros(3), "double_blocks.0.img_mod.lin.bias": torch.zeros(3)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            without,
            r"does not fit: of the \d+ tensors of the network 1 missing \(x_embedder.weight\); it looks like",
        ),
        (one_more, r"1 unknown \(extra.weight\)"),
        (wider, r"1 of another shape \(x_embedder.bias has \(64,\), not \(32,\)\)"),
        (a_lora, r"\d+ missing .* 1 unknown .*; it looks like a LoRA \(give it as lora=...\)"),
        (a_part, r"original names of a FluxTransformer2DModel, but diffusers cannot convert it \(KeyError"),
    ],
)
def test_what_does_not_fit_is_counted(base, other, tmp_path, change, message):
    save_file(change(load_file(other / FILE)), tmp_path / FILE)
    with pytest.raises(InputError, match=rf"^dance-flux: .*{message}") as caught:
        load_transformer(base, tmp_path / FILE, dtype=torch.float32, name="dance-flux")
    assert "\n" not in str(caught.value)


def pickled(folder, other):
    (folder / "model.bin").write_bytes(b"\x80\x02.")
    return folder / "model.bin"


def a_pickle_by_another_name(folder, other):
    torch.save({"a": torch.zeros(2)}, folder / FILE)
    return folder / FILE


def cut(folder, other):
    (folder / FILE).write_bytes((other / FILE).read_bytes()[:-100])
    return folder


def two(folder, other):
    for name in "ab":
        shutil.copy(other / FILE, folder / f"{name}.safetensors")
    return folder


def without_a_shard(folder, other):
    in_shards(other, folder)
    sorted(folder.glob("*.safetensors"))[1].unlink()
    return folder


def other_build(folder, other):
    shutil.copytree(other, folder, dirs_exist_ok=True)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "axes_dims_rope": [8, 4, 4]}))
    return folder


def other_class(folder, other):
    return made_sd3.checkpoint(folder) / "transformer"


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (pickled, "is no safetensors file; others are pickled and never loaded"),
        (a_pickle_by_another_name, "is no safetensors file: others are pickled and never loaded"),
        (cut, "is cut short or damaged"),
        (two, r"expected one safetensors file, or shards with an index, in .*; it holds a.safetensors, b.safetensors"),
        (without_a_shard, r"incomplete download: .* lacks diffusion_pytorch_model-00002-of-\d+.safetensors"),
        (other_build, r"of another build: axes_dims_rope \[8, 4, 4\] where the pipeline has \[4, 6, 6\]"),
        (other_class, "holds a SD3Transformer2DModel, the pipeline has a FluxTransformer2DModel"),
        (lambda folder, other: folder, "expected one safetensors file, or shards with an index, in .*; it holds none"),
    ],
)
def test_what_is_no_transformer(base, other, tmp_path, write, message):
    with pytest.raises(InputError, match=message):
        load_transformer(base, write(tmp_path, other), dtype=torch.float32, name="dance-flux")


def test_a_pipeline_without_the_part(base, other):
    with pytest.raises(InputError, match=r"names no unet of diffusers, so none can be replaced"):
        load_transformer(base, other, dtype=torch.float32, name="dance-flux", backbone="unet")
