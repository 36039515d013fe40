"""The paintings themselves, from the user's own copy of LAPIS: found, checked and attached, never published."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from widespectrum.errors import InputError

if TYPE_CHECKING:
    import datasets

__all__ = ["attach_images", "image_files"]

FOLDER = "images"


def image_files(root: Path, names: Iterable[str]) -> tuple[dict[str, Path], dict[str, str]]:
    """Where the paintings called `names` lie in `<root>/images`, or in `root`; and why the others cannot be used.

    Every file is read and checked. InputError where there is no such folder.
    """
    from widespectrum.publishing.image_files import Folder, quiet, read_image

    folder = Folder(root / FOLDER if (root / FOLDER).is_dir() else root)
    found: dict[str, Path] = {}
    problems: dict[str, str] = {}
    with quiet():
        for name in tqdm(list(names), desc="check paintings", delay=2, leave=False):
            try:
                file = folder.find(folder.root / name)
                read_image(file)
                found[name] = file.path
            except InputError as error:
                problems[name] = str(error)
    return found, problems


def attach_images(dataset: datasets.Dataset, root: Path) -> tuple[datasets.Dataset, dict[str, str]]:
    """`dataset` with the columns `image` and `image_status` from the user's copy of LAPIS, and what is wrong by file.

    A row without a usable image stays, with a null image and the reason as its status.
    """
    import datasets

    names = dataset["file"][:]
    found, problems = image_files(root, names)
    paths = [str(found[name]) if name in found else None for name in names]
    images: Any = [None if path is None else {"bytes": None, "path": path} for path in paths]
    dataset = dataset.add_column("image", images, feature=datasets.Image())
    return dataset.add_column("image_status", [problems.get(name, "ok") for name in names]), problems
