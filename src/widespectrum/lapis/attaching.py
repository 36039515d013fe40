"""The paintings themselves, in the user's own copy of LAPIS: found and checked, never published."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tqdm import tqdm

from widespectrum.errors import InputError

__all__ = ["image_files", "image_folder"]

FOLDER = "images"


def image_folder(root: Path) -> Path:
    """Where a copy of LAPIS holds its paintings: `<root>/images`, else `root`."""
    return root / FOLDER if (root / FOLDER).is_dir() else root


def image_files(root: Path, names: Iterable[str]) -> tuple[dict[str, Path], dict[str, str]]:
    """Where the paintings called `names` lie in the `image_folder` of `root`; and why the others cannot be used.

    Every file is read and checked. InputError where there is no such folder.
    """
    from widespectrum.publishing.image_files import Folder, quiet, read_image

    folder = Folder(image_folder(root))
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
