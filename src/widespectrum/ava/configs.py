"""The configs of the dataset as tables of `datasets`, and the files that go with one of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import datasets

from widespectrum.publishing import features, table_on_disk

from .captioning import photograph_path
from .pack import Material, counterpart_rows
from .table import COUNTERPARTS, PHOTOGRAPHS, SELECTION

__all__ = ["FEATURES", "make_configs", "photograph_files"]

FEATURES = {
    "photographs": features(PHOTOGRAPHS),
    "selection": features(SELECTION),
    "counterparts": features(COUNTERPARTS),
}
"""Config → columns; with the photographs attached, `photographs` has more: image, sha256, width, height."""

Splits = dict[str, datasets.Dataset]


def _table(config: str, rows: Iterable[Mapping[str, Any]]) -> datasets.Dataset:
    return datasets.Dataset.from_list(list(rows), features=FEATURES[config])


def photograph_files(material: Material, root: Path) -> dict[str, Iterator[tuple[Mapping[str, Any], Path]]]:
    """Split → rows of `photographs`, each with its file `<root>/<id>.jpg`, there or not."""
    return {
        split: ((row, photograph_path(root, row["ava_id"])) for row in rows)
        for split, rows in material.photographs.items()
    }


def _clean(work: Path, material: Material) -> Splits:
    """The counterparts of the photographs of the split test; empty where there are none."""
    if "counterpart" not in material.stages:
        return {}
    rows = counterpart_rows(work / "counterpart", [row["ava_id"] for row in material.photographs["test"]])
    table = table_on_disk(rows, FEATURES["counterparts"])
    return {"test": table} if len(table) else {}


def make_configs(work: Path, material: Material) -> dict[str, Splits]:
    """Config → split → table, without photographs."""
    found = {
        "photographs": {split: _table("photographs", rows) for split, rows in material.photographs.items()},
        "selection": {"test": _table("selection", material.entries)},
        "counterparts": _clean(work, material),
    }
    return {config: splits for config, splits in found.items() if splits}
