"""Captions from the official COCO caption file, and the wide-spectrum pairs that are made of them."""

from __future__ import annotations

import json
import lzma
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from widespectrum.errors import InputError

from .assignment import assign_dimensions
from .pairs import pair_row
from .rewriting import Request, Rewrite, Rewriter
from .tables import is_one_line

__all__ = ["Caption", "draw_captions", "read_captions", "rewrite_captions", "unusable_row", "usable_captions"]

_FEWEST_WORDS, _MOST_WORDS = 3, 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Caption:
    """One caption of the file; `text` has single blanks and no blank at its ends."""

    caption_id: int
    image_id: int
    text: str

    @property
    def pair_id(self) -> str:
        """The id of the pair that is made of it."""
        return f"coco-{self.caption_id}"


def _document(path: Path) -> Any:
    if not path.is_file():
        raise InputError(f"no caption file at {path.absolute()}; expected COCO's captions_*.json, or it with .xz")
    try:
        if path.suffix == ".xz":
            with lzma.open(path) as file:
                return json.load(file)
        return json.loads(path.read_bytes())
    except (ValueError, lzma.LZMAError, EOFError) as error:
        raise InputError(f"{path} is not a JSON file that can be read ({error}); download it again") from None


def _caption(path: Path, number: int, entry: Any) -> Caption:
    where = f"{path}, annotation {number}"
    if not isinstance(entry, dict):
        raise InputError(f"{where} must be an object with id, image_id and caption; got {entry!r}"[:300])
    for name, kind in (("id", int), ("image_id", int), ("caption", str)):
        if type(entry.get(name)) is not kind:
            raise InputError(f"{where}: {name} must be {kind.__name__}; got {entry.get(name)!r}"[:300])
    return Caption(caption_id=entry["id"], image_id=entry["image_id"], text=" ".join(entry["caption"].split()))


def read_captions(path: Path) -> list[Caption]:
    """All captions of a COCO caption file (JSON, or JSON in xz), in its order; InputError that names a bad one."""
    document = _document(path)
    entries = document.get("annotations") if isinstance(document, dict) else None
    if not isinstance(entries, list) or not entries:
        raise InputError(f"{path} holds no list of 'annotations'; expected COCO's captions_*.json")
    captions = [_caption(path, number, entry) for number, entry in enumerate(entries, 1)]
    (caption_id, count), *_ = Counter(caption.caption_id for caption in captions).most_common(1)
    if count > 1:
        raise InputError(f"{path}: the caption id {caption_id} occurs {count} times; expected each once")
    return captions


def _unusable(caption: Caption, seen: set[str]) -> str:
    """Why a caption cannot become a pair; empty where it can."""
    words = len(caption.text.split())
    if not _FEWEST_WORDS <= words <= _MOST_WORDS:
        return f"{words} words; expected {_FEWEST_WORDS} to {_MOST_WORDS}"
    if not is_one_line(caption.text):
        return "not one line of printable text"
    if caption.text.casefold().rstrip(" .") in seen:
        return "repeats another caption"
    return ""


def usable_captions(captions: Sequence[Caption]) -> tuple[list[Caption], dict[Caption, str]]:
    """The captions that can become pairs, in order, and the reason for every other one."""
    seen: set[str] = set()
    good: list[Caption] = []
    bad: dict[Caption, str] = {}
    for caption in captions:
        if reason := _unusable(caption, seen):
            bad[caption] = reason
        else:
            seen.add(caption.text.casefold().rstrip(" ."))
            good.append(caption)
    return good, bad


def draw_captions(
    captions: Sequence[Caption], count: int | None, *, seed: int
) -> tuple[list[Caption], dict[Caption, str]]:
    """`count` captions drawn by `seed` (all for None), and those that were passed over, with the reason.

    Every image gives one caption before any gives a second one.
    """
    rng = np.random.default_rng(seed)
    shuffled = [captions[int(index)] for index in rng.permutation(len(captions))]
    good, bad = usable_captions(shuffled)
    taken: Counter[int] = Counter()
    turns = []
    for caption in good:
        turns.append(taken[caption.image_id])
        taken[caption.image_id] += 1
    ordered = [good[int(index)] for index in np.argsort(turns, kind="stable")]
    if count is not None and count > len(ordered):
        raise InputError(
            f"{count:,} pairs were asked for, but only {len(ordered):,} captions can be used: ask for fewer"
        )
    return ordered[:count], bad


def unusable_row(caption: Caption, reason: str) -> dict[str, Any]:
    """The row of a caption that was passed over, so that it is listed."""
    return _row(caption, (), Rewrite(pair_id=caption.pair_id, prompt="", problems=(f"caption: {reason}",)))


def _row(caption: Caption, dimensions: tuple[str, ...], made: Rewrite) -> dict[str, Any]:
    return {
        **pair_row(caption.pair_id, caption.text, made.prompt, dimensions, "coco"),
        "effects": [made.phrases.get(name, "") for name in dimensions],
        "negative_prompt": made.negative_prompt,
        "caption_id": caption.caption_id,
        "image_id": caption.image_id,
        "rewriter_request": made.asked,
        "rewriter_reply": made.reply,
        "problems": list(made.problems),
    }


def rewrite_captions(captions: Sequence[Caption], rewriter: Rewriter, *, seed: int) -> Iterator[dict[str, Any]]:
    """One row per caption, in order: dimensions assigned by `seed`, the prompt, and its `problems` where it failed."""
    assigned = dict(zip(captions, assign_dimensions(["coco"] * len(captions), seed=seed), strict=True))
    requests = [
        Request(pair_id=caption.pair_id, caption=caption.text, dimensions=names) for caption, names in assigned.items()
    ]
    bar = tqdm(
        rewriter.rewrite(requests), total=len(requests), desc="rewrite", delay=2, leave=False, dynamic_ncols=True
    )
    made = {answer.pair_id: answer for answer in bar}
    for caption, names in assigned.items():
        yield _row(caption, names, made[caption.pair_id])
