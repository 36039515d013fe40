"""A network takes exactly the weights it needs, in portions, and says what it misses."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from widespectrum.errors import InputError
from widespectrum.rewards.checkpoints import Take, empty, fill, open_weights


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(6, 4)
        self.head = nn.Linear(4, 6)
        self.head.weight = self.embed.weight
        self.register_buffer("steps", torch.arange(3))
        self.register_buffer("angles", torch.linspace(0, 1, 5), persistent=False)
        self.register_buffer("scale", torch.ones(2))


SOURCE = {
    "token.weight": torch.randn(6, 4),
    "qkv": torch.randn(12, 3),
    "scale": torch.rand(2),
    "ids": torch.arange(5, 8),
}
NAMES = {
    "embed.weight": "token.weight",
    "head.bias": Take("qkv", rows=slice(2, 4), reshape=(6,)),
    "steps": "ids",
    "scale": "scale",
}


@pytest.fixture
def weights(tmp_path):
    torch.save({**SOURCE, "queue": torch.ones(99)}, tmp_path / "made.pt")
    return open_weights(tmp_path / "made.pt", wanted="HPSv2")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_everything_is_filled_tied_cast_and_frozen(weights, dtype):
    net = empty(Net).train()
    assert net.embed.weight.is_meta and not net.angles.is_meta
    fill(net, weights, NAMES, dtype=dtype, device="cpu")
    assert torch.equal(net.embed.weight, SOURCE["token.weight"].to(dtype))
    assert torch.equal(net.head.bias, SOURCE["qkv"][2:4].reshape(6).to(dtype))
    assert net.head.weight is net.embed.weight
    assert torch.equal(net.scale, SOURCE["scale"].to(dtype))
    assert net.steps.tolist() == [5, 6, 7]
    assert net.steps.dtype == torch.int64
    assert torch.equal(net.angles, torch.linspace(0, 1, 5))
    assert not any(each.requires_grad for each in net.parameters())
    assert not net.training
    assert isinstance(net.head(net.embed(torch.tensor([1]))), torch.Tensor)


@pytest.mark.parametrize("contiguous", [True, False])
@pytest.mark.parametrize(
    ("take", "expected"),
    [
        (Take("w"), lambda w: w),
        (Take("w", transpose=True), lambda w: w.T),
        (Take("w", rows=slice(1, 3)), lambda w: w[1:3]),
        (Take("w", rows=slice(-2, None), transpose=True), lambda w: w[-2:].T),
        (Take("w", rows=slice(0, 4, 2)), lambda w: w[::2]),
        (Take("w", reshape=(2, 10)), lambda w: w.reshape(2, 10)),
        (Take("w", transpose=True, reshape=(2, 1, 10)), lambda w: w.T.reshape(2, 1, 10)),
        (Take("w", rows=slice(1, 2), reshape=(5,)), lambda w: w[1]),
    ],
)
def test_what_a_take_takes(tmp_path, take, expected, contiguous):
    w = torch.randn(4, 5)
    torch.save({"w": w if contiguous else w.T.contiguous().T}, tmp_path / "x.pt")
    wanted = expected(w)
    module = nn.Module()
    module.p = nn.Parameter(torch.empty(wanted.shape, device="meta"))
    fill(module, open_weights(tmp_path / "x.pt", wanted="x"), {"p": take}, dtype=torch.float32, device="cpu")
    assert torch.equal(module.p, wanted)


def test_portions_of_a_large_tensor_are_put_together(tmp_path, monkeypatch):
    monkeypatch.setattr("widespectrum.rewards.weights._PORTION", 64)
    state = {
        "a": torch.randn(77, 3),
        "b": torch.randn(50, 4).half(),
        "c": torch.randn(9, 9).T,
        "d": torch.ones(7).bool(),
    }
    torch.save(state, tmp_path / "x.pt")
    found = open_weights(tmp_path / "x.pt", wanted="x").read(state)
    assert all(torch.equal(found[name], state[name]) for name in state)


def test_layers_are_counted_up_to_the_last_of_which_there_is_anything(tmp_path):
    names = ("blocks.0.w", "blocks.1.v", "blocks.10.w", "x.blocks.11.w", "blocks.9999999.w", "blocks.12")
    torch.save({name: torch.ones(1) for name in names}, tmp_path / "x.pt")
    weights = open_weights(tmp_path / "x.pt", wanted="x")
    assert (weights.depth("blocks.{}.w"), weights.depth("layers.{}.w")) == (11, 0)


def missing(tmp_path, count, names):
    save_file({"layers.0.weight": torch.ones(1), "layers.2.weight": torch.ones(1)}, tmp_path / "x.safetensors")
    weights = open_weights(tmp_path / "x.safetensors", wanted="HPSv2")
    with pytest.raises(InputError) as caught:
        weights.read(names)
    where = f"{tmp_path / 'x.safetensors'} lacks {count} weight{'s' if count > 1 else ''} of HPSv2, "
    end = "; it looks like a LAION aesthetic head (laion-aesthetic): give the checkpoint of HPSv2"
    assert str(caught.value).startswith(where)
    assert str(caught.value).endswith(end)
    return str(caught.value)[len(where) : -len(end)]


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ((3,), "visual.resblocks.3.* (12), logit_scale"),
        ((3, 4), "visual.resblocks.3.* (12), visual.resblocks.4.* (12), logit_scale"),
        (range(24), "visual.resblocks.* (288), logit_scale"),
    ],
)
def test_missing_weights_are_listed_by_prefix(tmp_path, layers, expected):
    names = [f"visual.resblocks.{n}.{part}" for n in layers for part in "abcdefghijkl"]
    assert missing(tmp_path, len(names) + 1, [*names, "logit_scale", "layers.0.weight"]) == expected


def test_a_few_missing_weights_are_listed_by_name_and_very_many_by_their_first_part(tmp_path):
    assert missing(tmp_path, 2, ["b.0.w", "a.0.w"]) == "a.0.w, b.0.w"
    many = [f"part{n}.x.{k}.w" for n in range(8) for k in range(3)]
    assert missing(tmp_path, 24, many).endswith("part4.* (3) and 3 more")


@pytest.mark.parametrize(
    ("wanted", "more", "message"),
    [
        ("imagereward", False, "lacks 2 weights of imagereward, a, b: it is incomplete, download it again"),
        ("imagereward", True, "lacks 2 or more weights of imagereward, a, b: it is incomplete, download it again"),
        (
            "blip-l",
            False,
            "lacks 2 weights of blip-l, a, b; it looks like ImageReward (imagereward): give the checkpoint of blip-l",
        ),
    ],
)
def test_a_file_of_the_model_itself_is_incomplete_and_another_is_another(tmp_path, wanted, more, message):
    state = {"blip.visual_encoder.patch_embed.proj.weight": torch.ones(1), "mlp.layers.0.weight": torch.ones(1)}
    torch.save(state, tmp_path / "x.pt")
    with pytest.raises(InputError) as caught:
        open_weights(tmp_path / "x.pt", wanted=wanted).require(["a", "b"], more=more)
    assert str(caught.value) == f"{tmp_path / 'x.pt'} {message}"


def test_names_without_a_point_are_listed_as_they_are(tmp_path):
    names = [f"part{n}.x{k}.w" for n in range(4) for k in range(3)]
    assert missing(tmp_path, 13, [*names, "logit_scale"]).endswith("part3.* (3), logit_scale")


def test_a_tensor_that_is_taken_in_parts_is_named_once(weights):
    net = empty(lambda: nn.ModuleList([nn.Linear(3, 5, bias=False) for _ in range(3)]))
    names = {f"{n}.weight": Take("qkv", rows=slice(4 * n, 4 * n + 4)) for n in range(3)}
    with pytest.raises(InputError, match=r"qkv has shape") as caught:
        fill(net, weights, names, dtype=torch.float32, device="cpu")
    assert str(caught.value).count("qkv") == 1


def test_what_cannot_be_filled_is_an_error(weights):
    def refused(names, match, optional=(), error=InputError):
        with pytest.raises(error, match=match):
            fill(empty(Net), weights, names, dtype=torch.float32, device="cpu", optional=optional)

    refused(
        {**NAMES, "embed.weight": "absent"}, r"lacks 1 weight of HPSv2, absent: it is incomplete, download it again$"
    )
    refused({k: v for k, v in NAMES.items() if k != "head.bias"}, "leaves 1 weight of HPSv2 unfilled: head.bias")
    refused({k: v for k, v in NAMES.items() if k != "scale"}, "leaves 1 weight of HPSv2 unfilled: scale")
    refused({**NAMES, "head.bias": "qkv"}, r"no checkpoint of HPSv2: qkv has shape \(12, 3\) where \(6,\) is expected$")
    refused({**NAMES, "steps": Take("ids", reshape=(2, 2))}, r"ids has shape \(3,\), expected one like \(2, 2\)")
    refused({**NAMES, "angles": "scale"}, "the network of HPSv2 has no angles", error=ValueError)


def test_what_is_optional_may_be_absent(weights):
    net = empty(Net)
    names = {**NAMES, "scale": "absent", "head.bias": "absent"}
    fill(net, weights, names, dtype=torch.float32, device="cpu", optional=("scale", "head.bias"))
    assert net.scale.tolist() == [1, 1]
    assert net.head.bias.is_meta


LOADING = """
import os, sys, torch, torch._dynamo
from pathlib import Path
from safetensors.torch import save_file
from widespectrum.rewards.checkpoints import empty, fill, open_weights

def peak():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) * 1024

def build():
    return torch.nn.ModuleList([torch.nn.Embedding(20000, 1024), *(torch.nn.Linear(1024, 1024) for _ in range(20))])

for stored, wanted, save, file in (
    (torch.float16, torch.float32, torch.save, "a.pt"), (torch.float32, torch.bfloat16, save_file, "a.safetensors")
):
    net = empty(build)
    path = Path(sys.argv[1]) / file
    names = {name: name for name, _ in net.named_parameters()}
    # every step in a process of its own, which has no freed memory to fill
    if os.fork() == 0:
        save({name: torch.zeros(each.shape, dtype=stored) for name, each in net.named_parameters()}, path)
        os._exit(0)
    os.wait()
    if os.fork() == 0:
        Path("/proc/self/clear_refs").write_text("5")
        base = peak()
        fill(net, open_weights(path, wanted="x"), names, dtype=wanted, device="cpu")
        print((peak() - base) / sum(each.numel() * each.element_size() for each in net.parameters()), flush=True)
        os._exit(0)
    os.wait()
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak of memory is read from /proc")
def test_loading_takes_little_more_than_the_weights_take_in_the_end(tmp_path):
    done = subprocess.run([sys.executable, "-c", LOADING, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all(0.9 < float(line) < 1.3 for line in done.stdout.split()), done.stdout
    assert len(done.stdout.split()) == 2
