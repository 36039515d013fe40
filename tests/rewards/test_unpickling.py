"""Pickles are read as data: nothing that one names is called, and what has no place in a checkpoint is refused."""

import copyreg
import io
import operator
import os
import pickle
import struct
import subprocess
import sys
import types
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch

from widespectrum.errors import InputError
from widespectrum.rewards.checkpoints import open_weights
from widespectrum.rewards.unpickling import Recorded, read_pickle


def read(content):
    return read_pickle(io.BytesIO(content), "x.pt")


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


class Calls:
    """An object whose pickle calls a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    ("function", "arguments", "named"),
    [
        (os.system, ("touch {}",), f"{os.name}.system"),
        (eval, ("open({!r}, 'w')",), "(builtins|__builtin__).eval"),
        (exec, ("open({!r}, 'w')",), "(builtins|__builtin__).exec"),
        (open, ("{}", "w"), "(_io|io|__builtin__).open"),
        (__import__, ("os",), "(builtins|__builtin__).__import__"),
        (getattr, ("a", "upper"), "(builtins|__builtin__).getattr"),
        (subprocess.Popen, (["touch", "{}"],), "(subprocess|commands).Popen"),
        (operator.attrgetter("system"), (), "operator.attrgetter"),
        (np.frombuffer, (b"abcd", "f4"), "numpy.frombuffer"),
        (bytearray, (10**15,), "(builtins|__builtin__).bytearray"),
        (pickle.loads, (b"N.",), "c?_?[pP]ickle.loads"),
        (io.BytesIO, (), "(_io.BytesIO|io.BytesIO)"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_that_would_call_something_is_refused_and_calls_nothing(
    tmp_path, function, arguments, named, protocol
):
    canary = tmp_path / "ran"
    made = [each.format(canary) if isinstance(each, str) else each for each in arguments]
    content = pickle.dumps({"state_dict": {}, "also": Calls(function, *made)}, protocol)
    refusal = (
        rf"^x\.pt: this checkpoint would have to run '{named}' to load, which is refused; convert it to safetensors"
    )
    with pytest.raises(InputError, match=refusal) as caught:
        read(content)
    assert "\n" not in str(caught.value)
    assert not canary.exists()


@pytest.mark.parametrize(
    "name", ["os.system", "_utils.os.system", "load", "hub.load", "_C._nn.__class__.__base__", "nn.Module.__init__"]
)
def test_names_of_torch_and_below_are_records_that_do_nothing(tmp_path, monkeypatch, name):
    monkeypatch.setattr(torch, "load", lambda *_: pytest.fail("called"))
    command = text(f"touch {tmp_path / 'ran'}")
    made = read(b"\x80\x04" + text("torch") + text(name) + b"\x93" + command + b"\x85R.")
    assert isinstance(made, Recorded)
    assert (made.name, made.args) == (f"torch.{name}", (f"touch {tmp_path / 'ran'}",))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "content",
    {
        "INST": b"(" + text("true") + b"iposix\nsystem\n.",
        "OBJ": b"(cposix\nsystem\n" + text("true") + b"o.",
        "NEWOBJ": b"csubprocess\nPopen\n" + text("true") + b"\x85\x81.",
        "protocol 0 names of Python 2": b"c__builtin__\neval\n(S'1'\ntR.",
        "memoized": b"cposix\nsystem\nq\x01h\x01" + text("true") + b"\x85R.",
        "name with a dot": b"\x80\x04" + text("collections") + text("OrderedDict.__init__.__globals__") + b"\x93.",
        "a module that begins like one that is allowed": b"ctorchvision_of_mine\nrun\n)R.",
    }.items(),
    ids=lambda item: item[0],
)
def test_every_way_to_name_something_is_refused(content):
    with pytest.raises(InputError, match="would have to run"):
        read(content[1])


SET_ATTRIBUTE = b"N}" + text("args") + b"K\x01s\x86b"
"""BUILD with a state that sets attributes without asking the class."""


@pytest.mark.parametrize(
    "content",
    {
        "attribute of a class": b"ctorch\nload\n" + SET_ATTRIBUTE + b".",
        "attribute of a container's class": b"ccollections\nOrderedDict\n" + SET_ATTRIBUTE + b".",
        "attribute of a builtin": b"cbuiltins\ndict\n" + SET_ATTRIBUTE + b".",
        "attribute of a storage": b"("
        + text("storage")
        + b"ctorch\nFloatStorage\n"
        + text("0")
        + text("cpu")
        + b"K\x01tQ"
        + SET_ATTRIBUTE
        + b".",
        "call of a record": b"ctorch\nload\n)R)R.",
        "a container of everything": b"cbuiltins\nlist\nctorch\nload\n)R\x85R.",
        "no storage": text("storage") + b"Q.",
        "unknown persistent id": b"(" + text("file") + text("/etc/passwd") + b"tQ.",
        "memo far beyond the file": b"Nr\xff\xff\xff\x7f.",
        "text beyond the file": b"\x8d" + struct.pack("<Q", 2**40) + b"a.",
        "unhashable key": b"}]Ns.",
        "stopped early": b"(((",
        "pops too much": b"000.",
        "no pickle": b"\x80\x04\xff\xff",
        "nothing": b"",
    }.items(),
    ids=lambda item: item[0],
)
def test_malformed_pickles_are_said_to_be_damaged(content):
    with pytest.raises(InputError, match=r"^x\.pt is damaged or no checkpoint \([^\n]+\): download it again$"):
        read(content[1])
    assert not hasattr(Recorded, "args") or not isinstance(Recorded.args, int)
    assert not hasattr(OrderedDict, "args")


def test_registered_extensions_are_refused():
    copyreg.add_extension("os", "system", 240)
    try:
        copyreg._extension_cache[240] = os.system
        with pytest.raises(InputError, match="extension registry"):
            read(b"\x82\xf0" + text("true") + b"\x85R.")
    finally:
        copyreg.remove_extension("os", "system", 240)
        copyreg._extension_cache.clear()


def test_attributes_that_a_pickle_gives_an_ordered_dict_are_dropped():
    entries, attributes = text("a") + b"K\x01s", b"}" + text("items") + b"K\x02s" + text("_metadata") + b"K\x03s"
    found = read(b"ccollections\nOrderedDict\n)R" + entries + attributes + b"b.")
    assert list(found.items()) == [("a", 1)]
    assert not hasattr(found, "_metadata")


def test_plain_data_comes_as_it_is():
    data = {"a": [1, 2.5, None, True], "b": ("x", b"y", {1, 2}), "c": frozenset({3}), "d": OrderedDict(e=2**70)}
    assert read(pickle.dumps(data, 4)) == data


def test_deep_nesting_and_cycles_end(tmp_path):
    nested = read(b"(" * 200_000 + b"l" * 200_000 + b".")
    assert isinstance(nested, list)
    with pytest.raises(InputError, match="no weights"):
        open_weights(saved(tmp_path, b"\x80\x02" + b"(" * 10_000 + b"l" * 10_000 + b"."), wanted="MPS")
    module = b"ctorch.nn\nModule\n)\x81q\x01}"
    cycle = b"\x80\x02" + module + text("_modules") + b"}" + text("a") + b"h\x01ss" + b"b."
    # every module holds the one before it twice: 2**60 ways to the first
    diamond = b"\x80\x02ctorch.nn\nModule\n)\x81"
    for n in range(60):
        twice = text("a") + b"h%cs" % n + text("b") + b"h%cs" % n
        diamond += b"q%c0ctorch.nn\nModule\n)\x81}" % n + text("_modules") + b"}" + twice + b"sb"
    for content in (cycle, diamond + b"."):
        with pytest.raises(InputError, match=r"holds over \d+ modules and tensors, or modules over \d+ deep"):
            open_weights(saved(tmp_path, content), wanted="MPS")


def saved(folder, content):
    """A torch.save archive around a pickle."""
    with zipfile.ZipFile(folder / "made.pt", "w") as archive:
        archive.writestr("made/data.pkl", content)
    return folder / "made.pt"


@pytest.fixture
def official(monkeypatch):
    """A network of classes of `trainer` and `transformers`, packages that exist only while it is saved."""
    modules = {name: types.ModuleType(name) for name in ("trainer", "trainer.models", "trainer.models.clip_model")}
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)

    def class_of(name, base):
        made = type(name, (base,), {"__module__": "trainer.models.clip_model"})
        setattr(modules["trainer.models.clip_model"], name, made)
        return made

    torch.manual_seed(0)
    network = class_of("CLIPModel", torch.nn.Module)()
    network.config = class_of("CLIPConfig", object)()
    network.config.hidden_act, network.config.torch_dtype = "gelu", torch.float16
    network.model = torch.nn.Sequential(OrderedDict(conv=torch.nn.Conv2d(3, 4, 2), norm=torch.nn.LayerNorm(4)))
    network.activation = torch.nn.functional.gelu
    network.logit_scale = torch.nn.Parameter(torch.tensor(4.6))
    network.rotary = torch.nn.Module()
    network.rotary.register_buffer("inv_freq", 1 / 10000 ** (torch.arange(0, 8, 2) / 8))
    network.rotary.register_buffer("pos_emb", torch.arange(6.0).view(2, 3), persistent=False)
    network.rotary.register_buffer("nothing", None)
    network.tied = network.model.norm
    network.device = torch.device("cpu")
    return network.half().eval()


# the older form also keeps the source of classes, and says where it finds none
@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code:UserWarning")
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("pack", [lambda network: network, lambda network: {"model": network, "epoch": 3}])
def test_a_pickled_network_gives_its_state_dict_without_its_classes(tmp_path, official, monkeypatch, zipped, pack):
    path = tmp_path / "MPS_overall_checkpoint.pth"
    torch.save(pack(official), path, _use_new_zipfile_serialization=zipped)
    expected = {**official.state_dict(), "rotary.pos_emb": official.rotary.pos_emb}
    for name in ("trainer", "trainer.models", "trainer.models.clip_model"):
        monkeypatch.delitem(sys.modules, name)
    weights = open_weights(path, wanted="MPS")
    found = weights.read(weights.shapes)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == torch.float16
        assert torch.equal(found[name], tensor), name
    assert "trainer" not in sys.modules
