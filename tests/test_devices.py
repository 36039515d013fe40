"""Which devices can be used, and how a lack of memory is told."""

import errno
import resource
import sys
from pathlib import Path

import pytest
import torch

from widespectrum.devices import is_out_of_memory, peak_memory, usable_device
from widespectrum.errors import InputError


def test_auto_is_the_gpu_where_there_is_one(monkeypatch):
    for there, device in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert usable_device("auto") == device
    assert usable_device("cpu") == "cpu"


@pytest.mark.parametrize("device", ["cuda:99", "gpu", "", "meta", "vulkan", 3, True, None, "cpu:x"])
def test_a_device_that_is_not_there(device):
    with pytest.raises(InputError) as caught:
        usable_device(device)
    assert str(caught.value).startswith(f"device {device!r} cannot be used here (")
    assert str(caught.value).endswith('): expected "auto", "cpu", "cuda" or "cuda:1"')
    assert "\n" not in str(caught.value)


def too_much():
    """What torch itself raises."""
    try:
        torch.empty(2**55)
    except RuntimeError as error:
        return error
    raise AssertionError("so much memory there is")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (too_much(), True),
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), True),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), True),
        (OSError(errno.ENOENT, "No such file"), False),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
        (KeyboardInterrupt(), False),
    ],
)
def test_out_of_memory(error, expected):
    assert is_out_of_memory(error) is expected


def test_peak_memory_is_in_bytes(monkeypatch):
    taken = torch.ones(10_000_000)
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    assert taken.nbytes < 0.99 * resident <= peak_memory("cpu") < 100 * resident
    unit = peak_memory("cpu") / resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    monkeypatch.setattr(sys, "platform", "darwin")
    assert peak_memory("cpu") == pytest.approx(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    assert round(unit) == 1024


def test_peak_memory_of_a_gpu_is_what_torch_says(monkeypatch):
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", {"cuda:1": 7, "cuda": 5}.get)
    assert (peak_memory("cuda:1"), peak_memory("cuda")) == (7, 5)
