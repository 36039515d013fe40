"""Every official container gives the tensors that torch itself reads from it; anything else is one clear sentence."""

import hashlib
import json
import re
import zipfile

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from widespectrum.errors import InputError
from widespectrum.rewards.checkpoints import Checkpoint, HubFiles, identify, open_weights


def noted(tensor):
    """A tensor with an attribute of its own, which torch saves in another way."""
    tensor.note = "kept apart"
    return tensor


def tensors():
    torch.manual_seed(0)
    return {
        "visual.conv1.weight": torch.randn(8, 3, 4, 4),
        "visual.resblocks.0.weight": torch.randn(5, 7).half(),
        "visual.resblocks.1.weight": torch.randn(5, 7).bfloat16(),
        "text_projection": torch.randn(4, 6).t(),
        "logit_scale": torch.tensor(4.6),
        "token_embedding.weight": torch.randn(8, 3)[2:5],
        "position_ids": torch.arange(5)[None].expand(1, 5),
        "mask": torch.tensor([True, False]),
        "empty": torch.empty(0, 3),
        "weight": nn.Parameter(torch.randn(3, dtype=torch.float64)),
        "noted": noted(torch.randn(2)),
        "noted_parameter": noted(nn.Parameter(torch.randn(2), requires_grad=False)),
        "every_other": torch.randn(6, 4)[::2, 1:3],
    }


TRAINING = {"optimizer": {"state": {0: torch.randn(3).double()}}, "epoch": 3, "module_names": ["a"]}
PACKED = {
    "at the top": lambda state: state,
    "state_dict": lambda state: {**TRAINING, "state_dict": state},
    "model": lambda state: {"model": state, **TRAINING},
    "module": lambda state: {"module": state},
    "twice": lambda state: {"model": {"state_dict": state}},
    "prefix": lambda state: {"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}},
}


def same(path, expected):
    weights = open_weights(path, wanted="HPSv2")
    assert weights.shapes == {name: tuple(tensor.shape) for name, tensor in expected.items()}
    found = weights.read(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        assert torch.equal(found[name], tensor), name
        assert weights.dtypes[name] == str(tensor.dtype).removeprefix("torch.")


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("packed", PACKED)
def test_state_dicts_of_torch_save(tmp_path, packed, zipped):
    path = tmp_path / "hpc.safetensors"
    torch.save(PACKED[packed](tensors()), path, _use_new_zipfile_serialization=zipped)
    same(path, tensors())


def test_safetensors_whatever_the_file_is_called(tmp_path):
    state = {name: tensor.detach().contiguous() for name, tensor in tensors().items()}
    save_file(state, tmp_path / "model.pt", metadata={"format": "pt"})
    same(tmp_path / "model.pt", state)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("half", [True, False])
def test_a_torchscript_archive(tmp_path, half):
    class Clip(nn.Module):
        def __init__(self):
            super().__init__()
            self.visual = nn.Sequential(nn.Conv2d(3, 4, 2), nn.ModuleDict({"ln": nn.LayerNorm(4)})["ln"])
            self.text_projection = nn.Parameter(torch.randn(3, 4))
            self.register_buffer("input_resolution", torch.tensor(224))
            self.register_buffer("context_length", torch.tensor(77))
            self.register_buffer("vocab_size", torch.tensor(49408))
            self.layers = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
            self.sizes = [1, 2]

        def forward(self, x):
            return self.visual(x) + self.input_resolution

    made = torch.jit.script(Clip())
    made = made.half() if half else made
    made.save(tmp_path / "ViT-L-14.pt")
    settings = ("input_resolution", "context_length", "vocab_size")
    same(tmp_path / "ViT-L-14.pt", {name: each for name, each in made.state_dict().items() if name not in settings})


@pytest.mark.parametrize("stem", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("sharded", [True, False])
def test_folders_of_transformers(tmp_path, stem, sharded):
    save = save_file if stem.endswith("safetensors") else torch.save
    state = {name: tensor.detach().contiguous() for name, tensor in tensors().items()}
    parts = [state]
    if sharded:
        names = sorted(state)
        parts = [{name: state[name] for name in names[:4]}, {name: state[name] for name in names[4:]}]
        files = {name: f"shard-{number}-{stem}" for number, part in enumerate(parts) for name in part}
        (tmp_path / f"{stem}.index.json").write_text(json.dumps({"weight_map": files}))
    for number, part in enumerate(parts):
        save(part, tmp_path / (f"shard-{number}-{stem}" if sharded else stem))
    same(tmp_path, state)


def test_of_a_folder_the_official_name_goes_first(tmp_path):
    save_file({"base": torch.ones(1)}, tmp_path / "model.safetensors")
    save_file({"head": torch.ones(1)}, tmp_path / "HPSv3.safetensors")
    (tmp_path / "config.json").write_text("{}")
    checkpoint = Checkpoint("hpsv3", tmp_path, weights=("HPSv3.safetensors",))
    assert set(checkpoint.open().shapes) == {"head"}
    assert checkpoint.file("absent", "conf*.json") == tmp_path / "config.json"
    assert checkpoint.file("*.txt") is None
    beside = Checkpoint("hpsv3", tmp_path / "HPSv3.safetensors")
    assert beside.file("config.json") == tmp_path / "config.json"
    assert set(beside.open().shapes) == {"head"}
    assert set(Checkpoint("qwen", tmp_path).open().shapes) == {"base"}


def zip_without_pickle(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("photograph.jpg", b"")


def compressed_zip(path):
    torch.save(tensors(), path)
    with zipfile.ZipFile(path) as old:
        content = {name: old.read(name) for name in old.namelist()}
    with zipfile.ZipFile(path, "w", compression=zipfile.ZIP_DEFLATED) as new:
        for name, each in content.items():
            new.writestr(name, each)


def truncated(save, keep):
    def write(path):
        save(tensors(), path)
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * keep)])

    return write


def flipped(path):
    state = {"weight": torch.ones(1000)}
    torch.save(state, path)
    content = bytearray(path.read_bytes())
    content[content.index(state["weight"].numpy().tobytes()) + 2000] ^= 1
    path.write_bytes(content)


def write(content):
    return lambda path: path.write_bytes(content)


def legacy(state, path):
    torch.save(state, path, _use_new_zipfile_serialization=False)


def safe(state, path):
    save_file({name: tensor.detach().contiguous() for name, tensor in state.items()}, path)


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 3942000000\n"
BAD = {
    "empty": (write(b""), "is an empty file: download it again"),
    "pointer": (write(POINTER), "is a Git LFS pointer, not the file it stands for: download it again"),
    "page": (write(b"\n<!DOCTYPE html>\n<html><body>Sign in"), "is an HTML page, saved in place of the file: download"),
    "text": (write("Über weights\n".encode()), "is a text file: expected weights in safetensors or as torch.save"),
    "noise": (write(b"\x01\x02\x03" * 99), "is of no known kind: expected weights in safetensors or as torch.save"),
    "gzip": (write(b"\x1f\x8b\x08\x00"), "is a packed archive: unpack it, and give the checkpoint inside"),
    "zip": (zip_without_pickle, "is a zip archive but no checkpoint: unpack it, and give the file inside"),
    "deflated": (compressed_zip, "is a compressed zip archive, which torch.save does not write: download it again"),
    "short zip": (truncated(torch.save, 0.6), "is cut short or damaged (File is not a zip file): download it again"),
    "short head": (truncated(torch.save, 0.01), "is cut short or damaged (File is not a zip file): download it again"),
    "short legacy": (truncated(legacy, 0.9), "is cut short: download it again"),
    "short legacy pickle": (truncated(legacy, 0.1), "is damaged or no checkpoint"),
    "short safetensors": (truncated(safe, 0.9), "is cut short or damaged"),
    "short safetensors header": (truncated(safe, 0.1), "is cut short or damaged"),
    "one bit": (flipped, "is damaged, a checksum in it does not match: download it again"),
    "plain pickle": (write(b"\x80\x04}."), "is a pickle, but not one of torch.save: convert it to safetensors"),
    "no weights": (lambda path: torch.save({"epoch": 3}, path), "holds no weights: expected a state dict"),
    "list": (lambda path: torch.save([torch.ones(2)], path), "holds no weights: expected a state dict"),
    "missing": (lambda path: None, "cannot be read (No such file or directory): check it and its permissions"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_checkpoint_is_told_in_one_sentence(tmp_path, kind):
    path = tmp_path / "HPS_v2_compressed.pt"
    make, message = BAD[kind]
    make(path)
    with pytest.raises(InputError, match=f"^{re.escape(f'{path} {message}')}") as caught:
        weights = open_weights(path, wanted="HPSv2")
        weights.read(weights.shapes)
    assert "\n" not in str(caught.value)


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    path = tmp_path / "model.pt"
    path.write_bytes(b"PK")
    path.chmod(0)
    try:
        path.open("rb").close()
        pytest.skip("this user may read everything")
    except PermissionError:
        with pytest.raises(InputError, match=r"cannot be read \(Permission denied\)"):
            open_weights(path, wanted="HPSv2")


def test_a_tensor_that_repeats_its_numbers_takes_no_memory_beyond_the_file(tmp_path):
    torch.save({"bomb": torch.ones(1).expand(2**40), "weight": torch.ones(2)}, tmp_path / "x.pt")
    weights = open_weights(tmp_path / "x.pt", wanted="HPSv2")
    assert weights.read(["weight"])["weight"].tolist() == [1, 1]
    with pytest.raises(InputError, match="bomb is larger than the file"):
        weights.read(["bomb"])


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, r"expected HPS_v2\.1_compressed\.pt of hpsv2\.1, the folder holds no weights"),
        ({"a.pt": b"", "b.pth": b""}, r"expected HPS_v2\.1_compressed\.pt of hpsv2\.1, the folder holds a\.pt, b\.pth"),
        (
            {"HPS_v2_compressed.pt": b""},
            r"expected HPS_v2\.1_compressed\.pt of hpsv2\.1, .* HPS_v2_compressed\.pt, which is the file of hpsv2",
        ),
        ({"hpc.pt": b""}, r"holds hpc\.pt, which is the file of hps: give another, or the file itself if it is meant"),
        ({"model.safetensors.index.json": b"[]"}, "is no index of weights"),
        ({"model.safetensors.index.json": b"{"}, "is no index of weights"),
        ({"model.safetensors.index.json": b'{"weight_map": {"a": "../x"}}'}, "names a file outside its folder"),
        ({"model.safetensors.index.json": b'{"weight_map": {"a": "x"}}'}, r"x cannot be read \(No such file"),
    ],
)
def test_folders_that_hold_no_weights(tmp_path, files, message):
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        Checkpoint("hpsv2.1", tmp_path, weights=("HPS_v2.1_compressed.pt",)).open()


def test_a_shard_without_a_tensor_that_the_index_names(tmp_path):
    save_file({"a": torch.ones(1)}, tmp_path / "x.safetensors")
    index = {"weight_map": {"a": "x.safetensors", "b": "x.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(
        InputError, match=r"x\.safetensors lacks b, which model\.safetensors\.index\.json says it holds"
    ):
        open_weights(tmp_path, wanted="PickScore")


def test_a_path_where_nothing_is():
    with pytest.raises(
        InputError, match=r"^hps: there is nothing at /no/hpc\.pt: expected hpc\.pt or hpc\.pth, or a folder with it$"
    ):
        Checkpoint("hps", "/no/hpc.pt", weights=("hpc.pt", "hpc.pth"))


def test_names_of_files_are_shown_and_patterns_are_not(tmp_path):
    names = ("x.pt", "*.pt")
    for use in (lambda: Checkpoint("x", "/no", weights=names), Checkpoint("x", tmp_path, weights=names).open):
        with pytest.raises(InputError, match=r"expected x\.pt(, or| of x,)"):
            use()


@pytest.mark.parametrize("path", ["", " "])
def test_a_path_that_is_empty(path):
    with pytest.raises(InputError, match=r"^hps: the path of the checkpoint is empty: give a file or a folder$"):
        Checkpoint("hps", path)


def test_without_a_path_and_a_repository_the_hint_says_what_to_do():
    checkpoint = Checkpoint("hps", None, hint="download hpc.pt from the authors' page and give it as checkpoint=...")
    for use in (lambda: checkpoint.path, lambda: checkpoint.pin, checkpoint.open, lambda: checkpoint.file("x")):
        with pytest.raises(InputError, match=r"^hps needs its checkpoint: download hpc\.pt from the authors' page"):
            use()


def test_a_local_checkpoint_is_pinned_by_its_content(tmp_path):
    (tmp_path / "model.pt").write_bytes(b"weights")
    assert Checkpoint("x", str(tmp_path / "model.pt")).pin == {"sha256": hashlib.sha256(b"weights").hexdigest()}
    (tmp_path / "config.json").write_bytes(b"{}")
    pins = [Checkpoint("x", tmp_path).pin["sha256"]]
    for name, content in (("notes.md", b"a"), ("config.json", b"[]"), ("vocab.txt", b"a"), ("model.pt", b"other")):
        (tmp_path / name).write_bytes(content)
        pins.append(Checkpoint("x", tmp_path).pin["sha256"])
    assert pins[0] == pins[1]
    assert len(set(pins[1:])) == 4
    assert all(re.fullmatch("[0-9a-f]{64}", pin) for pin in pins)


def test_a_given_path_is_taken_before_the_hub_and_a_pinned_revision_without_asking(tmp_path):
    files = HubFiles("acme/model", ("*.pt",), revision="0" * 40)
    assert Checkpoint("x", None, hub=files).pin == {"revision": "0" * 40}
    assert Checkpoint("x", tmp_path, hub=files).path == tmp_path


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ({"visual.conv1.weight": (1280, 3, 14, 14), "token_embedding.weight": (9, 9)}, "an open_clip ViT-H"),
        (
            {"visual.conv1.weight": (1024, 3, 14, 14), "token_embedding.weight": (9, 9)},
            "OpenAI's CLIP ViT-L/14 (clip-l",
        ),
        (
            {"visual.conv1.weight": (160, 3, 28, 28), "visual.ln_pre.weight": (160,)},
            "a CLIP with OpenAI's names (clip-l, hps, hpsv2, hpsv2.1, the CLIP of laion-aesthetic)",
        ),
        (["vision_model.embeddings.class_embedding", "text_model.embeddings.x"], "a CLIPModel of transformers"),
        (
            ["model.text_model.embeddings.x", "model.vision_model.embeddings.x", "cross_model.x", "model.logit_scale"],
            "MPS",
        ),
        (["blip.visual_encoder.patch_embed.proj.weight", "mlp.layers.0.weight"], "ImageReward"),
        (["visual_encoder.patch_embed.proj.weight", "itm_head.weight"], "BLIP's retrieval model in its official form"),
        (
            ["vision_model.embeddings.x", "text_encoder.x", "itm_head.weight"],
            "BLIP's retrieval model in the form of tr",
        ),
        (["model.visual.blocks.0.attn.qkv.weight", "rm_head.0.weight"], "HPSv3"),
        (["visual.blocks.0.attn.qkv.weight", "model.layers.0.x"], "Qwen2-VL"),
        (["layers.0.weight", "layers.2.weight"], "a LAION aesthetic head"),
        (["encoder.weight"], None),
    ],
)
def test_which_model_a_checkpoint_looks_like(names, expected):
    shapes = names if isinstance(names, dict) else dict.fromkeys(names, (1,))
    found = identify(shapes)
    assert found is expected is None or found.startswith(expected)


def test_safetensors_of_any_header_length_are_told_from_pickles(tmp_path):
    for length in range(100):
        path = tmp_path / f"{length}.safetensors"
        save_file({"weight": torch.ones(2)}, path, metadata={"note": "x" * 8 * length})
        assert open_weights(path, wanted="x").shapes == {"weight": (2,)}
    first = {path.read_bytes()[0] for path in tmp_path.glob("*.safetensors")}
    assert 0x80 in first


@pytest.mark.parametrize("save", [save_file, torch.save])
def test_what_a_wrapper_puts_around_the_names_is_taken_off(tmp_path, save):
    state = {"module.a.weight": torch.ones(2), "module.b": torch.ones(3), "n_averaged": torch.ones(1)}
    save(state, tmp_path / "x.pt")
    assert open_weights(tmp_path / "x.pt", wanted="x").shapes == {"a.weight": (2,), "b": (3,)}
