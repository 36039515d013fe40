"""Images of the user's own copy, attached to a published table that holds ids and texts alone."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from tqdm import tqdm

from .errors import InputError

if TYPE_CHECKING:
    import datasets

    from .publishing.image_files import Folder

__all__ = ["attach_images"]

Missing: TypeAlias = Literal["error", "null", "drop"]

FILE_NAMES: Mapping[str, str] = {"ava_id": "{}.jpg", "file": "{}"}
"""The columns by which our tables name an image, and what its file is called."""

_SHOWN = 10


def _file_names(dataset: datasets.Dataset, id_column: str | None, pattern: str | None) -> list[str]:
    """The file name of every row."""
    column = id_column or next((name for name in FILE_NAMES if name in dataset.column_names), None)
    if column is None or column not in dataset.column_names:
        raise InputError(
            f"the table has no column {column or ' or '.join(FILE_NAMES)!r} that names its images; give id_column, "
            f"one of {', '.join(dataset.column_names)}"
        )
    shape = pattern or FILE_NAMES.get(column, "{}")
    if shape.count("{}") != 1:
        raise InputError(
            f"expected a pattern with one {{}}, where the {column} belongs, such as '{{}}.jpg'; got {shape!r}"
        )
    return [shape.replace("{}", str(value)) for value in dataset[column]]


def _problem(folder: Folder, name: str, sha256: str | None) -> str:
    """Why the file cannot be used; empty where it can."""
    from .publishing.image_files import read_image

    try:
        found = read_image(folder.find(folder.root / name))
    except InputError as error:
        return str(error)
    return "" if sha256 in (None, found.sha256) else "has other bytes than the image that the table was made from"


def _summary(problems: Mapping[str, str], total: int, root: Path) -> str:
    listed = "; ".join(f"{name} {reason}" for name, reason in list(problems.items())[:_SHOWN])
    more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
    return f"{len(problems):,} of {total:,} images in {root} cannot be used: {listed}{more}"


def attach_images(
    dataset: datasets.Dataset,
    root: Path | str,
    *,
    id_column: str | None = None,
    pattern: str | None = None,
    missing: Missing = "error",
) -> datasets.Dataset:
    """`dataset` with a column `image` (`datasets.Image`) of files in the folder `root`; no byte is copied.

    `id_column` and `pattern` say which file belongs to a row: by default `ava_id` (`{}.jpg`) or `file` (`{}`). Every
    file is read and checked, and compared where the table has a column `sha256`. What is missing or damaged is an
    InputError that counts and lists it, or with `missing` "null" an empty cell, with "drop" no row, and a warning that
    does so. A column `image` that is there already is replaced. `save_to_disk` takes the bytes along, `to_parquet`
    writes the paths alone.
    """
    import datasets

    from .publishing.image_files import Folder, quiet

    if not isinstance(dataset, datasets.Dataset):
        raise InputError(f"expected one split of a dataset, such as dataset['test']; got a {type(dataset).__name__}")
    if missing not in ("error", "null", "drop"):
        raise InputError(f"missing must be 'error', 'null' or 'drop'; got {missing!r}")
    names, folder = _file_names(dataset, id_column, pattern), Folder(Path(root))
    digests = dataset["sha256"][:] if "sha256" in dataset.column_names else [None] * len(names)
    with quiet():
        bar = tqdm(zip(names, digests, strict=True), total=len(names), desc="check images", delay=2, leave=False)
        problems = {name: problem for name, sha256 in bar if (problem := _problem(folder, name, sha256))}
    if problems and missing == "error":
        raise InputError(f"{_summary(problems, len(names), Path(root))}: add them, or pass missing='null' or 'drop'")
    if problems:
        warnings.warn(_summary(problems, len(names), Path(root)), stacklevel=2)
    cells: Any = [None if name in problems else {"bytes": None, "path": str(folder.root / name)} for name in names]
    bare = dataset.remove_columns("image") if "image" in dataset.column_names else dataset
    attached = bare.add_column("image", cells, feature=datasets.Image())
    if missing == "drop" and problems:
        return attached.select([row for row, name in enumerate(names) if name not in problems])
    return attached
