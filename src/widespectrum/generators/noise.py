"""The noise from which an image starts: the same for both prompts of a pair, another for every pair.

So that the two images of a pair differ by their prompts alone. The noise is drawn on the CPU, whatever the device that
computes, so that the device does not change it.
"""

from __future__ import annotations

from typing import Any

from widespectrum.types import digest

__all__ = ["noise", "noise_seed"]


def noise_seed(seed: int, pair_id: str, index: int = 0) -> int:
    """The seed in [0, 2^63) of the `index`-th image of a pair in a run with `seed`.

    It is the first 63 bits of the sha256 of the canonical JSON [seed, pair_id, index].

    >>> noise_seed(0, "coffee/clarity") == noise_seed(0, "coffee/clarity")
    True
    >>> noise_seed(0, "coffee/clarity") == noise_seed(1, "coffee/clarity")
    False
    """
    return int(digest([seed, pair_id, index])[:16], 16) >> 1


def noise(seed: int) -> Any:
    """A torch.Generator on the CPU that was seeded with `seed`."""
    import torch

    return torch.Generator("cpu").manual_seed(seed)
