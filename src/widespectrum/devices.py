"""Devices of torch: which one can be used, how much memory is taken, and what a lack of it looks like."""

from __future__ import annotations

import errno
import gc
import sys

from .errors import InputError

__all__ = ["free_memory", "is_out_of_memory", "peak_memory", "usable_device"]

_OUT_OF_MEMORY = ("allocate memory", "not enough memory", "out of memory", "ALLOC_FAILED")
"""In the errors of torch that have no class of their own: its CPU allocator, and libraries on the GPU."""


def usable_device(device: str) -> str:
    """`device`, or for `auto` the GPU where there is one; InputError where it cannot be used."""
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        if not isinstance(device, str) or torch.empty(1, device=device).is_meta:
            raise RuntimeError("no device that computes")
    # torch raises all of these, by device and build
    except (AssertionError, NotImplementedError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f'device {device!r} cannot be used here ({reason}): expected "auto", "cpu", "cuda" or "cuda:1"'
        ) from None
    return device


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that the memory of a device, or of the machine, does not suffice."""
    import torch

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _OUT_OF_MEMORY)


def peak_memory(device: str) -> int:
    """Bytes: the most memory that torch had taken on a GPU, or for `cpu` the most that this process had resident."""
    import torch

    if device.startswith("cuda"):
        return int(torch.cuda.max_memory_allocated(device))
    import resource

    # The unit of ru_maxrss is a kilobyte, on macOS a byte.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def free_memory(device: str) -> None:
    """Give back what nothing refers to any more, and begin the peak of a GPU anew."""
    import torch

    gc.collect()
    if device.startswith("cuda"):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
