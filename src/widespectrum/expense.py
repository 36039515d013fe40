"""What generating will cost, said before it starts, and what it came to."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from .generation import Generation, Made, is_paid
from .types import ModelSpec

__all__ = ["lines", "summary"]

_BYTES_PER_PIXEL = 2
"""Of the PNG of a photograph, about."""


def lines(works: Sequence[Generation]) -> Iterator[str]:
    """Images, calls, dollars and gigabytes: in all, and of each generator behind an API."""
    paid = [(work.label, len(work.missing), work.generator.price) for work in works if is_paid(work.generator)]
    pixels = {work.label: _pixels(work.generator.spec) for work in works}
    known = sum(len(work.missing) * (pixels[work.label] or 0) for work in works) * _BYTES_PER_PIXEL
    unknown = [label for label, number in pixels.items() if number is None]
    beside = f" without {', '.join(unknown)}, of which the size is unknown" if unknown else ""
    size = f"up to {_size(known)}{beside}" if known or not unknown else "their size is unknown"
    yield (
        f"generate: {sum(len(work.missing) for work in works):,} images, {sum(each[1] for each in paid):,} API calls, "
        f"{size}"
    )
    for label, calls, price in paid:
        cost = "cost unknown" if price is None else f"about {_dollars(calls * price)}"
        yield f"  {label}: {calls:,} API calls, {cost}"


def summary(label: str, made: Made, left: int) -> str:
    """One line on what a generator came to; `left` images are still to be made."""
    rate = made.images / made.seconds if made.seconds else 0.0
    memory = f", peak memory {made.peak / 1e9:.1f} GB" if made.peak else ""
    return (
        f"  {label}: {made.images:,} images, {made.refused:,} refused, {left:,} not made in {made.seconds:,.1f} s "
        f"({rate:.3g} images/s){memory}"
    )


def _pixels(spec: ModelSpec) -> int | None:
    """Of an image, at most, as far as the settings say it."""
    width, height, size = (spec.params.get(name) for name in ("width", "height", "size"))
    if isinstance(width, int) and isinstance(height, int):
        return width * height
    if isinstance(size, int):
        return size * size
    sides = re.fullmatch(r"(\d+)x(\d+)", str(size))
    return int(sides[1]) * int(sides[2]) if sides else None


def _size(count: float) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def _dollars(value: float) -> str:
    return f"${value:,.2f}" if value >= 0.01 else f"${value:.4f}"
