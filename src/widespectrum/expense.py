"""What generating and judging will cost, said before it starts, and what it came to."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from . import store
from .generation import Generation, Made, is_paid
from .judging import Ask, Judged, Judging, is_endpoint
from .protocols import EndpointJudge, Tokens
from .types import ModelSpec

__all__ = ["judge_lines", "judge_summary", "lines", "summary"]

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


def judge_lines(run: Path, works: Sequence[Judging]) -> Iterator[str]:
    """Questions and calls in all; of each judge behind an endpoint calls, tokens and dollars, at most and about."""
    sizes = _sizes(run)
    rows = [_estimate(work, work.judge, sizes) for work in works if work.asks and is_endpoint(work.judge)]
    calls = sum(calls for _, calls, _, _ in rows)
    yield f"judge: {sum(work.questions for work in works):,} questions, {calls:,} API calls"
    if not rows:
        return
    width = max(len("judge"), *(len(label) for label, *_ in rows))
    yield f"  {'judge':<{width}}  {'calls':>9}  {'input tokens':>13}  {'output tokens':>13}  estimated cost"
    for label, number, tokens, cost in rows:
        price = "unknown: give input_price, output_price" if cost is None else _dollars(cost)
        yield f"  {label:<{width}}  {number:>9,}  {tokens.input:>13,}  {tokens.output:>13,}  {price}"


def _sizes(run: Path) -> dict[str, tuple[int, int]]:
    table = store.read(run, "images", ("image_id", "width", "height")).to_pydict()
    return dict(zip(table["image_id"], zip(table["width"], table["height"], strict=True), strict=True))


def _estimate(
    work: Judging, judge: EndpointJudge, sizes: Mapping[str, tuple[int, int]]
) -> tuple[str, int, Tokens, float | None]:
    """Label, calls, tokens and dollars."""

    def of(ask: Ask) -> Tokens | None:
        return judge.estimate(ask.prompt, ask.dimension, [sizes[each] for each in (ask.image_id, ask.rival_id) if each])

    found = [(of(ask), len(work.orders) if ask.rival_id else 1) for ask in work.asks]
    needed = [(tokens, times) for tokens, times in found if tokens is not None]
    total = Tokens(*(sum(getattr(tokens, name) * times for tokens, times in needed) for name in ("input", "output")))
    return work.label, sum(times for _, times in needed), total, judge.price(total)


def judge_summary(run: Path, work: Judging, judged: Judged) -> Iterator[str]:
    """What a judge came to: answers, abstentions by reason, what was paid, and how far the order swayed it."""
    line = f"  {work.label}: {judged.answered:,} answered, {judged.abstained.total():,} abstained, {judged.left:,} left"
    line += f" in {judged.seconds:,.1f} s"
    if is_endpoint(work.judge):
        spent = work.judge.spent()
        cost = "cost unknown" if spent.cost is None else _dollars(spent.cost)
        line += f"; {spent.calls:,} calls, {spent.tokens.input:,} + {spent.tokens.output:,} tokens, {cost}"
    yield line
    for reason, count in judged.abstained.most_common():
        yield f"  {work.label} abstained {count:,} times: {reason}"
    swayed, both = _swayed(run, work.label)
    if both:
        rate = swayed / both
        yield f"  {work.label}: position bias {rate:.1%}: {swayed:,} of {both:,} verdicts change with the order"


def _swayed(run: Path, label: str) -> tuple[int, int]:
    """How many of a judge's pairs have another verdict when the images change places, of how many."""
    rows = store.read(run, "verdicts", (*store.KEYS["verdicts"], "outcome")).to_pandas()
    rows = rows[(rows["judge"] == label) & rows["order"].isin(["first", "second"])]
    shown = rows.pivot(index=["prompt_id", "image_id", "rival_id", "dimension"], columns="order", values="outcome")
    if not {"first", "second"} <= set(shown.columns):
        return 0, 0
    shown = shown.dropna()
    return int((shown["first"] != shown["second"]).sum()), len(shown)
