"""A whole config whose rows come with image files of the user: its splits by `pack_images`, and its terms."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from widespectrum.errors import InputError

from .image_shards import WORK
from .images import NoImageError, Packed, Packing, pack_images
from .provenance import FILE_NAME, Provenance, write_provenance

__all__ = ["LISTS", "REJECTED", "forget_images", "save_images", "stated_rights"]

REJECTED = "rejected.csv"
LISTS = (REJECTED, "duplicates.csv")
"""What packing writes beside the Parquet files."""

Items = Iterable[tuple[Mapping[str, Any], Path]]


def stated_rights(rights: str, otherwise: str) -> str:
    """What `Provenance.image_rights` says of images: what the user stated, else `otherwise`, which is not clear."""
    return f"clear: {rights.strip()}" if rights.strip() else f"unclear: {otherwise}"


def save_images(
    out: Path,
    config: str,
    splits: Mapping[str, Items],
    features: Mapping[str, Any],
    packing: Packing,
    provenance: Provenance,
) -> dict[str, Packed]:
    """Write a config with image files in it, each split by `pack_images`, and its provenance; what was packed by split.

    Splits of an earlier build go. A split of which no row is left has no file; InputError where that is so of all.
    """
    folder = out / config
    # As in save_config: while its terms are missing, a config is not published.
    (folder / FILE_NAME).unlink(missing_ok=True)
    for path in folder.glob("*.parquet"):
        if path.name.rpartition("-of-")[0].rpartition("-")[0] not in splits:
            path.unlink()
    for name in LISTS:
        (folder / name).unlink(missing_ok=True)
    packed, empty = {}, None
    for split, items in splits.items():
        try:
            packed[split] = pack_images(items, out, config=config, split=split, features=features, packing=packing)
        except NoImageError as error:
            packed[split], empty = Packed(0, (), 0, error.rejected, ()), empty or error
            for path in folder.glob(f"{split}-[0-9]*-of-*.parquet"):
                path.unlink()
    if empty and not any(each.rows for each in packed.values()):
        raise InputError(str(empty)) from empty
    write_provenance(folder, provenance)
    return packed


def forget_images(out: Path, config: str) -> None:
    """Remove what packing an earlier build of this config left beside its Parquet files, unfinished shards included."""
    shutil.rmtree(out / WORK / config, ignore_errors=True)
    for name in LISTS:
        (out / config / name).unlink(missing_ok=True)
