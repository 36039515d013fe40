"""Where a generator's files lie, what pins them, and what is said where they are not whole."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.generators import made_flux
from widespectrum.errors import InputError
from widespectrum.generators import GENERATORS
from widespectrum.generators.sources import Source, check_pipeline, kind_of

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return made_flux.checkpoint(tmp_path_factory.mktemp("flux"))


@pytest.fixture
def folder(made, tmp_path):
    return Path(shutil.copytree(made, tmp_path / "flux"))


def edit_index(folder, **entries):
    file = folder / "model_index.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **entries}))


def test_a_whole_pipeline_is_taken_as_it_is(folder):
    check_pipeline(folder, "FluxPipeline", "flux-dev")
    source = Source("flux-dev", folder, repo="org/other", revision="main")
    assert (source.path, source.repo) == (folder, "")
    assert kind_of(folder) == "pipeline"
    assert source.pinned == f"sha256:{source.pin['sha256']}"


@pytest.mark.parametrize(
    ("change", "matters"),
    [
        (lambda f: (f / "README.md").write_text("x"), False),
        (lambda f: (f / "image.png").write_bytes(b"x"), False),
        (lambda f: ((f / ".git").mkdir(), (f / ".git" / "a.json").write_text("{}")), False),
        (lambda f: (f / "vae_old").mkdir() or shutil.copy(f / "vae" / WEIGHTS, f / "vae_old"), False),
        (lambda f: shutil.copy(f / "vae" / WEIGHTS, f / "vae" / "diffusion_pytorch_model.fp16.safetensors"), False),
        (lambda f: (f / "single.safetensors").write_bytes(b"x"), False),
        (lambda f: (f / "scheduler" / "scheduler_config.json").write_text("{}"), True),
        (lambda f: (f / "tokenizer" / "tokenizer.json").write_text("{}"), True),
        (lambda f: edit_index(f, force_zeros=True), True),
        (lambda f: save_file({"x": torch.zeros(1)}, f / "transformer" / WEIGHTS), True),
        (lambda f: (f / "vae").rename(f / "vae_2"), True),
        (lambda f: (f / "vae" / WEIGHTS).rename(f / "vae" / "diffusion_pytorch_other.safetensors"), True),
    ],
)
def test_the_pin_is_of_what_is_read(made, folder, change, matters):
    change(folder)
    assert (Source("x", folder).pin != Source("x", made).pin) is matters


def test_the_pin_leaves_out_weights_that_are_replaced(made, folder):
    (folder / "transformer" / WEIGHTS).unlink()
    pins = [Source("x", each, without=("transformer",)).pin for each in (made, folder)]
    assert pins[0] == pins[1] != Source("x", made).pin
    shutil.copy(folder / "vae" / "config.json", folder / "transformer" / "config.json")
    assert Source("x", folder, without=("transformer",)).pin != pins[0]


def test_the_pin_of_a_file_of_peft_is_that_of_its_folder(tmp_path):
    file = tmp_path / "adapter_model.safetensors"
    save_file({"x": torch.zeros(1)}, file)
    alone = Source("x", file, what="lora").pin
    for alpha in (2, 4):
        (tmp_path / "adapter_config.json").write_text(json.dumps({"lora_alpha": alpha}))
        pin = Source("x", file, what="lora").pin
        assert pin == Source("x", tmp_path, what="lora").pin != alone
        alone = pin


def drop(*names):
    def change(folder):
        for name in names:
            (folder / name).unlink()

    return change


def drop_folder(name):
    return lambda folder: shutil.rmtree(folder / name)


def in_shards(lost=None, emptied=False, place=""):
    """The transformer in three shards, of which one may be missing, hold nothing, or lie in another place."""

    def change(folder):
        part = folder / "transformer"
        tensors = load_file(part / WEIGHTS)
        names = sorted(tensors)
        (part / WEIGHTS).unlink()
        places = {}
        for number in (1, 2, 3):
            file = f"diffusion_pytorch_model-0000{number}-of-00003.safetensors"
            own = {name: tensors[name] for name in names[number - 1 :: 3]}
            places |= dict.fromkeys(own, place * (number == 2) + file)
            if number != lost:
                save_file(own if not (emptied and number == 2) else {"x": torch.zeros(1)}, part / file)
        index = {"metadata": {}, "weight_map": places}
        (part / f"{WEIGHTS}.index.json").write_text(json.dumps(index))

    return change


def pickled(folder):
    (folder / "vae" / WEIGHTS).rename(folder / "vae" / "diffusion_pytorch_model.bin")


def variant(folder):
    (folder / "vae" / WEIGHTS).rename(folder / "vae" / "diffusion_pytorch_model.fp16.safetensors")


def truncated(folder):
    file = folder / "text_encoder_2" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-9])


def pointer(folder):
    (folder / "vae" / WEIGHTS).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")


def a_lora_instead(folder):
    for part in ("scheduler", "transformer"):
        drop_folder(part)(folder)
    drop("model_index.json")(folder)
    save_file({"transformer.a.lora_A.weight": torch.zeros(1)}, folder / "pytorch_lora_weights.safetensors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop(f"transformer/{WEIGHTS}"), rf"^flux-dev: incomplete download: \S+ lacks transformer/{WEIGHTS}: download"),
        (
            in_shards(lost=2),
            r"lacks transformer/diffusion_pytorch_model-00002-of-00003.safetensors: download it again$",
        ),
        (in_shards(emptied=True), r"00002-of-00003.safetensors lacks .*, which .*index.json names: download it again$"),
        (
            in_shards(place="../vae/"),
            r"names a file outside its folder \('../vae/diffusion_\S+'\): download it again$",
        ),
        (drop("text_encoder/config.json"), r"lacks text_encoder/config.json: download it again$"),
        (drop_folder("vae"), rf"lacks vae/config.json, vae/{WEIGHTS}: download it again$"),
        (drop_folder("tokenizer_2"), r"lacks tokenizer_2/\(its files\): download it again$"),
        (drop_folder("scheduler"), r"lacks scheduler/scheduler_config.json: download it again$"),
        (pickled, rf"holds diffusion_pytorch_model.bin, which are pickled and never loaded: expected {WEIGHTS}"),
        (variant, rf"fp16.safetensors, another form of the weights: expected {WEIGHTS}"),
        (truncated, r"text_encoder_2/model.safetensors is cut short or damaged .*: download it again$"),
        (pointer, r"is a Git LFS pointer"),
        (
            drop("model_index.json"),
            r"^flux-dev: \S+ has no model_index.json: .*; the download is incomplete: download it",
        ),
        (a_lora_instead, r"; this is a LoRA: give it as lora=\.\.\.$"),
        (lambda folder: (folder / "model_index.json").write_text("["), r"model_index.json is damaged"),
        (lambda folder: (folder / "vae" / "config.json").write_text(""), r"vae/config.json is damaged"),
        (
            lambda folder: (folder / "scheduler" / "scheduler_config.json").write_text("[]"),
            r"scheduler/scheduler_config.json is damaged: expected a JSON object",
        ),
        (
            lambda folder: edit_index(folder, vae=["my_vae", "Mine"]),
            r"vae is my_vae.Mine, code of its own, .* never run",
        ),
        (lambda folder: edit_index(folder, vae=["os", "system"]), r"vae is os.system, code of its own"),
        (lambda folder: edit_index(folder, _class_name=["pipeline", "Mine"]), r"code of its own, which is never run"),
    ],
)
def test_what_is_not_whole(folder, change, message):
    change(folder)
    with pytest.raises(InputError, match=message) as caught:
        check_pipeline(folder, "FluxPipeline", "flux-dev")
    assert "\n" not in str(caught.value)


def test_shards_and_parts_that_need_no_weights(folder):
    in_shards()(folder)
    check_pipeline(folder, "FluxPipeline", "flux-dev")
    shutil.rmtree(folder / "vae")
    (folder / "transformer" / "diffusion_pytorch_model-00001-of-00003.safetensors").unlink()
    edit_index(folder, vae=[None, None], feature_extractor=[None, None])
    check_pipeline(folder, "FluxPipeline", "flux-dev", without={"transformer"})


def test_another_class_names_both_and_what_runs_it(folder):
    edit_index(folder, _class_name="StableDiffusionXLPipeline")
    message = r"^flux-dev runs checkpoints of FluxPipeline; \S+ holds one of StableDiffusionXLPipeline: it runs as sdxl"
    with pytest.raises(InputError, match=message):
        check_pipeline(folder, "FluxPipeline", "flux-dev")
    edit_index(folder, _class_name="NoSuchPipeline")
    with pytest.raises(InputError, match=r"holds one of NoSuchPipeline: give a checkpoint of FluxPipeline$"):
        check_pipeline(folder, "FluxPipeline", "flux-dev")
    assert "sdxl" in GENERATORS


@pytest.mark.parametrize("what", ["pipeline", "lora", "transformer"])
@pytest.mark.parametrize(
    "given", ["/no/such/folder", "./none", "~/none", "none.safetensors", "no/file.safetensors", ""]
)
def test_a_path_where_nothing_is(tmp_path, monkeypatch, what, given):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=rf"^x: there is nothing at '{given}': expected a "):
        Source("x", given, what=what)


def test_a_pipeline_that_is_given_is_local(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        InputError, match=r"^x: there is nothing at 'org/repo': expected a folder with model_index.json"
    ):
        Source("x", "org/repo")
    with pytest.raises(InputError, match=r"^x needs the option checkpoint: a folder with model_index.json"):
        Source("x", None)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"^x: \S+file has no model_index.json"):
        Source("x", tmp_path / "file")


@pytest.mark.parametrize(
    ("text", "revision", "expected"),
    [
        ("org/repo", None, ("org/repo", "", None)),
        ("org/repo@v1.0", None, ("org/repo", "", "v1.0")),
        ("org/re.po_2-x/checkpoint-ema-300-0", None, ("org/re.po_2-x", "checkpoint-ema-300-0", None)),
        ("org/repo/a/b.safetensors@refs/pr/1", None, ("org/repo", "a/b.safetensors", "refs/pr/1")),
        ("org/repo", "f" * 40, ("org/repo", "", "f" * 40)),
    ],
)
def test_names_on_the_hub(tmp_path, monkeypatch, text, revision, expected):
    monkeypatch.chdir(tmp_path)
    source = Source("x", text, revision=revision, what="transformer")
    assert (source.repo, source.inside, source._wanted) == expected
    if revision:
        assert source.pin == {"revision": revision}
        assert source.pinned == f"org/repo@{revision}"


@pytest.mark.parametrize("text", ["repo", "org/repo/../x", "org/repo@", "a b/c", "org/repo/sub"])
def test_what_is_no_name_on_the_hub(text):
    with pytest.raises(InputError, match=r"^x: '.*' is no repository of the Hub: expected org/repo"):
        Source("x", None, repo=text)
    with pytest.raises(InputError, match=r"two revisions are given, a and b: give one"):
        Source("x", None, repo="org/repo@a", revision="b")


def test_a_local_path_goes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org" / "repo").mkdir(parents=True)
    save_file({"x": torch.zeros(1)}, tmp_path / "org/repo/any.safetensors")
    source = Source("x", "org/repo", what="lora")
    assert (source.repo, str(source.path)) == ("", "org/repo")
    by_file, by_folder = Source("x", "org/repo/any.safetensors", what="lora").pin, source.pin
    assert by_file.keys() == by_folder.keys() == {"sha256"}


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (["transformer_blocks.0.attn.to_q.weight"], "transformer"),
        (["model.diffusion_model.double_blocks.0.img_mod.lin.bias"], "transformer"),
        (["transformer.transformer_blocks.0.attn.to_q.lora_A.weight"], "lora"),
        (["lora_unet_double_blocks_0_img_attn_proj.lora_down.weight"], "lora"),
    ],
)
def test_the_kind_is_told_by_the_content(tmp_path, names, kind):
    save_file({name: torch.zeros(1) for name in names}, tmp_path / "any.safetensors")
    assert kind_of(tmp_path) == kind_of(tmp_path / "any.safetensors") == kind


def test_the_kind_of_folders(made, tmp_path):
    assert kind_of(made / "transformer") == "transformer"
    save_file({"down_blocks.0.resnets.0.conv1.bias": torch.zeros(1)}, tmp_path / "unet.safetensors")
    assert kind_of(tmp_path) == "transformer"
    (tmp_path / "unet.safetensors").unlink()
    (tmp_path / "adapter_config.json").write_text("{}")
    assert kind_of(tmp_path) == "lora"
    (tmp_path / "adapter_config.json").unlink()
    with pytest.raises(InputError, match=r"expected a pipeline .*; it holds no safetensors weights"):
        kind_of(tmp_path)
    with pytest.raises(InputError, match=r"expected a pipeline .*; its tensors are "):
        kind_of(made / "vae")
