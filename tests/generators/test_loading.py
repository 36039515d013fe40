"""Checkpoints that are not what they should be."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from tests.generators import made_flux, made_sdxl
from tests.generators.drawing import WEIGHTS, draw, failing, load, sentence
from widespectrum.errors import InputError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return made_flux.checkpoint(tmp_path_factory.mktemp("flux") / "pipeline")


@pytest.fixture
def copy(folder, tmp_path):
    return Path(shutil.copytree(folder, tmp_path / "copy"))


@pytest.fixture(scope="module")
def flux(folder):
    return load(folder)


def test_code_and_pickles_of_a_checkpoint_are_never_run(copy, tmp_path):
    trace = tmp_path / "was here"
    code = f"import pathlib\npathlib.Path({str(trace)!r}).touch()\nclass Mine:\n    pass\n"
    index = json.loads((copy / "model_index.json").read_text())
    for file in ("pipeline.py", "mine.py", "vae/mine.py", "transformer/mine.py"):
        (copy / file).write_text(code)
    for changed in (
        {"_class_name": ["pipeline", "Mine"]},
        {"vae": ["mine", "Mine"]},
        {"transformer": ["transformer.mine", "Mine"]},
        {"text_encoder": ["os", "system"]},
    ):
        (copy / "model_index.json").write_text(json.dumps(index | changed))
        with pytest.raises(InputError, match="code of its own, which is never run"):
            draw(load(copy))
    (copy / "model_index.json").write_text(json.dumps(index))
    config = copy / "text_encoder_2" / "config.json"
    wanted = {"auto_map": {"AutoModel": "mine.Mine", "T5EncoderModel": "mine.Mine"}}
    config.write_text(json.dumps(json.loads(config.read_text()) | wanted))
    (copy / "text_encoder_2" / "mine.py").write_text(code)
    draw(load(copy))
    assert not trace.exists()


@pytest.mark.parametrize("part", WEIGHTS)
def test_pickled_weights_are_never_opened(copy, tmp_path, part):
    trace = tmp_path / "was here"

    class Bomb:
        def __reduce__(self):
            return (Path.touch, (trace,))

    file = copy / part / WEIGHTS[part]
    torch.save({"weight": Bomb()}, file.with_name("diffusion_pytorch_model.bin"))
    shutil.copy(file.with_name("diffusion_pytorch_model.bin"), file.with_name("pytorch_model.bin"))
    before = draw(load(copy))
    file.unlink()
    with pytest.raises(InputError, match="which are pickled and never loaded") as caught:
        draw(load(copy))
    sentence(caught)
    assert isinstance(before[0], bytes)
    assert not trace.exists()


def test_a_checkpoint_of_another_class(tmp_path):
    other = made_sdxl.checkpoint(tmp_path / "sdxl")
    with pytest.raises(InputError, match=r"^flux-dev runs checkpoints of FluxPipeline; .* StableDiffusionXLPipeline"):
        load(other).open()


def change_weights(change):
    def changed(folder, part):
        file = folder / part / WEIGHTS[part]
        weights = load_file(file)
        # None that another one stands in for, as in the embeddings of T5.
        change(weights, sorted(key for key in weights if "mbed" not in key and "shared" not in key)[-1])
        save_file(weights, file, {"format": "pt"})

    return changed


def drop(weights, key):
    del weights[key]


def reshape(weights, key):
    weights[key] = torch.zeros(*weights[key].shape, 2)


def add_a_layer(folder, part):
    file = folder / part / "config.json"
    config = json.loads(file.read_text())
    layers = next(key for key in ("num_layers", "num_hidden_layers", "layers_per_block") if key in config)
    file.write_text(json.dumps(config | {layers: config[layers] + 1}))


def cut_config(folder, part):
    file = folder / part / "config.json"
    file.write_text(file.read_text()[:-5])


@pytest.mark.parametrize("part", WEIGHTS)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (change_weights(drop), r"lacks weights: \S+: download it again, or give another$"),
        (change_weights(reshape), r"(holds weights of another shape: |cannot be loaded \(ValueError: .* shape )"),
        (add_a_layer, r"lacks weights: "),
        (cut_config, r"is damaged: expected a JSON object: download it again$"),
    ],
)
def test_weights_that_do_not_fill_the_networks(copy, part, change, message):
    change(copy, part)
    with pytest.raises(InputError, match=rf"^(flux-dev: )?\S+ {message}") as caught:
        draw(load(copy))
    sentence(caught)


@pytest.mark.parametrize("part", ["tokenizer", "tokenizer_2"])
def test_a_tokenizer_without_its_vocabulary(copy, part):
    (copy / part / "tokenizer.json").unlink()
    with pytest.raises(InputError) as caught:
        draw(load(copy))
    assert "tokenizer" in sentence(caught)
    (copy / part / "tokenizer.json").write_text("{")
    with pytest.raises(InputError, match=r"^flux-dev: .*: download it again"):
        draw(load(copy))


def test_a_tokenizer_in_the_older_files_is_read(flux, copy):
    whole = json.loads((copy / "tokenizer" / "tokenizer.json").read_text())["model"]
    (copy / "tokenizer" / "vocab.json").write_text(json.dumps(whole["vocab"]))
    merges = "\n".join(["#version: 0.2", *(" ".join(pair) for pair in whole["merges"])])
    (copy / "tokenizer" / "merges.txt").write_text(merges + "\n")
    (copy / "tokenizer" / "tokenizer.json").unlink()
    assert draw(load(copy)) == draw(flux)


def test_a_package_that_is_missing_is_named(folder, monkeypatch):
    missing = ImportError("T5Tokenizer requires\nthe tensorpipe library.")
    monkeypatch.setattr(transformers.T5Tokenizer, "from_pretrained", failing(missing))
    with pytest.raises(InputError, match=r"needs a package .* \(ImportError: T5Tokenizer requires the tensorpipe"):
        load(folder).open()
