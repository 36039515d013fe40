"""The configs of the dataset as tables of `datasets`."""

from __future__ import annotations

import csv
import io
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import datasets

from widespectrum.publishing import features
from widespectrum.store import write_file

from .pack import Material, counterpart_rows
from .table import COUNTERPARTS, IMAGES, PHOTOGRAPHS, SELECTION, attach, read_photographs

__all__ = ["FEATURES", "MISSING", "make_configs"]

FEATURES = {
    "photographs": features(PHOTOGRAPHS),
    "selection": features(SELECTION),
    "counterparts": features(COUNTERPARTS),
}
"""Config → columns; with the photographs attached, `photographs` has two more: image and image_status."""

MISSING = "missing_images.csv"
"""Where, among the steps, the photographs are listed that could not be attached."""

Splits = dict[str, datasets.Dataset]


def _table(config: str, rows: Iterable[Mapping[str, Any]]) -> datasets.Dataset:
    return datasets.Dataset.from_list(list(rows), features=FEATURES[config])


def _on_disk(
    cache: Path, split: str, columns: datasets.Features, make: Callable[..., Iterator[Any]], *given: Any
) -> datasets.Dataset:
    """The rows that `make(*given)` gives, through a file below `cache`: images may be larger than memory."""
    return datasets.Dataset.from_generator(
        lambda: make(*given), features=columns, cache_dir=tempfile.mkdtemp(dir=cache), split=datasets.NamedSplit(split)
    )


def _list_problems(path: Path, problems: Mapping[int, str]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([("ava_id", "problem"), *sorted(problems.items())])
    write_file(path, text.getvalue().encode())


def _attached(work: Path, cache: Path, material: Material, root: Path) -> tuple[Splits, Mapping[int, str]]:
    """The splits of `photographs` with the user's photographs in them, and why some have none."""
    problems = attach([row for rows in material.photographs.values() for row in rows], root)
    _list_problems(work / MISSING, problems)
    columns = features({**PHOTOGRAPHS, **IMAGES})
    splits = material.photographs.items()
    return {split: _on_disk(cache, split, columns, read_photographs, rows) for split, rows in splits}, problems


def _clean(work: Path, cache: Path, material: Material) -> Splits:
    """The counterparts of the photographs of the split test; empty where there are none."""
    given = (work / "counterpart", [row["ava_id"] for row in material.photographs["test"]])
    if "counterpart" not in material.stages or next(counterpart_rows(*given), None) is None:
        return {}
    return {"test": _on_disk(cache, "test", FEATURES["counterparts"], counterpart_rows, *given)}


def make_configs(
    work: Path, cache: Path, material: Material, root: Path | None
) -> tuple[dict[str, Splits], Mapping[int, str] | None]:
    """Config → split → table, and why photographs could not be attached (None where none were to be).

    With `root` the photographs `<root>/<id>.jpg` are attached, and those that are missing or damaged are listed in the
    file MISSING of the folder `work`. What holds images lies below `cache` until it is saved.
    """
    problems = None
    if root is None:
        photographs = {split: _table("photographs", rows) for split, rows in material.photographs.items()}
    else:
        photographs, problems = _attached(work, cache, material, root)
    selection = {"test": _table("selection", material.entries)}
    found = {"photographs": photographs, "selection": selection, "counterparts": _clean(work, cache, material)}
    return {config: splits for config, splits in found.items() if splits}, problems
