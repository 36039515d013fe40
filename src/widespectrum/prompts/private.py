"""A private, rotating split: drawn by a secret seed, so that nobody can train on it before it is retired."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from widespectrum.errors import InputError
from widespectrum.store import write_file
from widespectrum.types import digest

from .coco import Caption, usable_captions

__all__ = ["SECRET", "commitment", "draw_secretly", "read_secret", "write_commitment"]

SECRET = "WIDESPECTRUM_SECRET"
"""The environment variable that holds the secret: it is never an option, so that it stays out of histories and logs."""

_SHORTEST = 32
_ROTATION = re.compile(r"[\w.-]+")


def read_secret() -> str:
    """The secret in the environment; InputError where there is none or it is too short to be one."""
    secret = os.environ.get(SECRET, "")
    if len(secret) < _SHORTEST:
        raise InputError(
            f"the private split needs a secret of at least {_SHORTEST} characters in {SECRET}, "
            f"such as `openssl rand -hex 32` prints; got {len(secret)} characters"
        )
    return secret


def draw_secretly(captions: Sequence[Caption], count: int, *, secret: str, rotation: str) -> tuple[list[Caption], int]:
    """`count` captions that nobody can tell without `secret`, one per image, and the seed of everything that follows.

    Captions are ordered by HMAC-SHA256(secret, rotation, caption): another `rotation`, such as `2026-12`, draws anew.
    """
    if not _ROTATION.fullmatch(rotation):
        raise InputError(f"name the rotation in letters, digits, '.', '_' and '-', such as 2026-12; got {rotation!r}")

    def code(text: str) -> bytes:
        return hmac.new(secret.encode(), f"{rotation}\n{text}".encode(), hashlib.sha256).digest()

    good, _ = usable_captions(sorted(captions, key=lambda caption: code(f"{caption.caption_id} {caption.text}")))
    first: dict[int, Caption] = {}
    for caption in good:
        first.setdefault(caption.image_id, caption)
    drawn = list(first.values())
    if count > len(drawn):
        raise InputError(f"{count:,} pairs were asked for, but the captions show only {len(drawn):,} images")
    return drawn[:count], int.from_bytes(code("seed")[:6], "big")


def commitment(rows: Iterable[Mapping[str, Any]], rotation: str) -> str:
    """sha256 (64 hex digits) over the rotation and the ids and texts of the rows, in their order.

    Published before the split is used, it proves afterwards that the split was not changed.
    """
    names = ("pair_id", "original_prompt", "wide_spectrum_prompt", "dimensions")
    return digest([rotation, [[row[name] for name in names] for row in rows]])


def write_commitment(folder: Path, rows: Sequence[Mapping[str, Any]], rotation: str) -> None:
    """Write `commitment.json`, the one file of a private split that is meant for the public."""
    content = {"rotation": rotation, "pairs": len(rows), "sha256": commitment(rows, rotation)}
    write_file(folder / "commitment.json", (json.dumps(content, indent=2) + "\n").encode())
