"""Devices of torch: which one can be used, how much memory is taken, and what a lack of it looks like."""

from __future__ import annotations

import sys

from .errors import InputError

__all__ = ["is_out_of_memory", "peak_memory", "usable_device"]


def usable_device(device: str) -> str:
    """`device`, or for `auto` the GPU where there is one; InputError where it cannot be used."""
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=device)
    # torch raises all of these, by device and build
    except (AssertionError, NotImplementedError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f'device {device!r} cannot be used here ({reason}): expected "auto", "cpu" or "cuda"'
        ) from None
    return device


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that the memory of a device, or of the machine, does not suffice."""
    import torch

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and "allocate memory" in str(error)


def peak_memory(device: str) -> int:
    """Bytes: the most memory that torch had taken on a GPU, or for `cpu` the most that this process had resident."""
    import torch

    if device.startswith("cuda"):
        return int(torch.cuda.max_memory_allocated(device))
    import resource

    # The unit of ru_maxrss is a kilobyte, on macOS a byte.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
