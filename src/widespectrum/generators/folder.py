"""Images that already exist: photographs, a submitter's images, an author's results.

The folder holds a table, or files whose names say what they are of:

    images.csv                            or images.parquet, metadata.csv, metadata.parquet: columns `file` (or
                                          `file_name`), `prompt_id` or both `pair_id` and `role`, and if wanted `seed`
    original/<pair_id>.png                and wide_spectrum/<pair_id>.png
    <prompt_id>.png

Files are PNG, JPEG or WebP (.png, .jpg, .jpeg, .webp). Without a column `seed` an image stands for every seed.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias, get_args

from PIL.Image import Image
from tqdm import tqdm

from widespectrum.errors import InputError
from widespectrum.prompts.images import open_photograph
from widespectrum.prompts.tables import read_table
from widespectrum.protocols import Failure, Refusal
from widespectrum.types import ModelSpec, Parameter, Prompt, Role, digest

__all__ = ["SUFFIXES", "TABLES", "Folder"]

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
TABLES = ("images.csv", "images.parquet", "metadata.csv", "metadata.parquet")

_ROLES: tuple[Role, ...] = get_args(Role)
_LAYOUT = (
    f"a table {' or '.join(TABLES[:2])} (columns file, and prompt_id or pair_id and role), "
    "original/<pair_id>.png and wide_spectrum/<pair_id>.png, or <prompt_id>.png"
)

_Key: TypeAlias = tuple[str, ...]
"""("id", prompt_id) or ("pair", pair_id, role), and with a seed that as text."""


class Folder:
    """Gives the images in `folder`, upright, in RGB and without metadata, and otherwise as they are.

    What is there for other prompts is left alone. A prompt without an image is a failure, and so is one whose file
    cannot be read. The spec changes with the files: when one is added, another run folder is needed. InputError for a
    folder without images, a table that is wrong, two files for one image, and files outside the folder.
    """

    needs_images = False

    def __init__(self, *, folder: str | Path) -> None:
        self._folder = Path(folder).expanduser()
        if not self._folder.is_dir():
            what = "a file" if self._folder.exists() else "nothing"
            raise InputError(f"folder: expected a folder with images, there is {what} at {self._folder.absolute()}")
        tables = [self._folder / name for name in TABLES if (self._folder / name).is_file()]
        if len(tables) > 1:
            raise InputError(f"{self._folder} has both {' and '.join(path.name for path in tables)}: remove one")
        self._table = tables[0] if tables else None
        self._files = dict(_unique(self._folder, self._listed(tables[0]) if tables else self._named()))
        if not self._files:
            raise InputError(f"{self._folder} holds no images; expected {_LAYOUT}")

    def _listed(self, table: Path) -> Iterator[tuple[_Key, Path]]:
        """What the rows of the table say."""
        rows = read_table(table, (), optional=None)
        columns = rows[0][1].keys()
        name = next((name for name in ("file", "file_name") if name in columns), "")
        by_id = "prompt_id" in columns
        if not name or not (by_id or {"pair_id", "role"} <= columns):
            raise InputError(
                f"{table} needs the columns file, and prompt_id or both pair_id and role; found {', '.join(columns)}"
            )
        for number, row in rows:
            where = f"{table}, row {number}"
            key = ("id", _normal(_text(where, row, "prompt_id"))) if by_id else ("pair", *_pair(where, row))
            yield key + _seed(where, row), self._inside(_text(where, row, name), where)

    def _named(self) -> Iterator[tuple[_Key, Path]]:
        """What the names of the files say."""
        for path in sorted(self._folder.iterdir()):
            if path.suffix.lower() in SUFFIXES and not path.name.startswith("."):
                yield ("id", _normal(path.stem)), self._inside(path.name, str(path))
        for role in _ROLES:
            for path in sorted((self._folder / role).rglob("*")):
                if path.suffix.lower() in SUFFIXES and not path.name.startswith("."):
                    # A pair_id may hold slashes: they are folders here.
                    pair_id = path.relative_to(self._folder / role).with_suffix("").as_posix()
                    inside = path.relative_to(self._folder).as_posix()
                    yield ("pair", _normal(pair_id), role), self._inside(inside, str(path))

    def _inside(self, name: str, where: str) -> Path:
        """The file of this name; InputError where it is outside the folder, by `..` or a link, or not there."""
        path = self._folder / name
        if not path.resolve().is_relative_to(self._folder.resolve()):
            raise InputError(f"{where}: the file {name!r} lies outside {self._folder}: copy it into the folder")
        if not path.is_file():
            raise InputError(f"{where}: there is no file {path}: add it or remove the row")
        return path

    @cached_property
    def spec(self) -> ModelSpec:
        """What identifies the images: a sha256 over which file stands for what; reads every file on first use."""
        bar = tqdm(sorted(set(self._files.values())), desc="hash images", delay=2, leave=False, dynamic_ncols=True)
        hashes = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in bar}
        content = sorted(["|".join(key), hashes[path]] for key, path in self._files.items())
        params: dict[str, Parameter] = {"sha256": digest(content), "images": len(hashes)}
        return ModelSpec(adapter="folder", name="folder", params=params)

    def generate(
        self, prompts: Sequence[Prompt], *, seeds: Sequence[int], images: Sequence[Image] | None = None
    ) -> list[Image | Refusal | Failure]:
        """The image of every prompt and seed, or why there is none; `images` are not looked at."""
        if len(prompts) != len(seeds):
            raise InputError(f"folder needs one seed per prompt; got {len(prompts)} prompts, {len(seeds)} seeds")
        return [self._image(prompt, seed) for prompt, seed in zip(prompts, seeds, strict=True)]

    def _image(self, prompt: Prompt, seed: int) -> Image | Failure:
        names = (("id", prompt.prompt_id), ("pair", prompt.pair_id, prompt.role))
        found = {self._files[key] for name in names for key in (name, (*name, str(seed))) if key in self._files}
        if len(found) > 1:
            several = " and ".join(sorted(str(path) for path in found))
            return Failure(f"two images for {_called(prompt, seed)}: {several}: remove one", "input")
        if not found:
            return Failure(
                f"no image for {_called(prompt, seed)}: looked for {self._looked_for(prompt, seed)}", "input"
            )
        try:
            return open_photograph(found.pop())
        except InputError as error:
            return Failure(str(error), "input")

    def _looked_for(self, prompt: Prompt, seed: int) -> str:
        if self._table is not None:
            return f"a row of {self._table} with prompt_id {prompt.prompt_id} or that pair_id and role"
        places = (self._folder / f"{prompt.role}/{prompt.pair_id}", self._folder / prompt.prompt_id)
        return f"{' and '.join(f'{place}.png' for place in places)} (or {', '.join(SUFFIXES[1:])})"


def _called(prompt: Prompt, seed: int) -> str:
    return f"the {prompt.role} prompt of pair {prompt.pair_id!r} with seed {seed}"


def _normal(name: str) -> str:
    # File systems may hand out decomposed names; ids are NFC.
    return unicodedata.normalize("NFC", name)


def _text(where: str, row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"{where}: {name} must be a text that is not empty; got {value!r}")
    return value.strip()


def _pair(where: str, row: Mapping[str, Any]) -> tuple[str, str]:
    role = _text(where, row, "role")
    if role not in _ROLES:
        raise InputError(f"{where}: role must be {' or '.join(_ROLES)}; got {role!r}")
    return _normal(_text(where, row, "pair_id")), role


def _seed(where: str, row: Mapping[str, Any]) -> tuple[str, ...]:
    """The seed of a row; nothing where it stands for every seed."""
    value = row.get("seed")
    text = "" if value is None else str(value).strip()
    if not text:
        return ()
    if isinstance(value, bool) or not (text.isascii() and text.isdigit()):
        raise InputError(f"{where}: seed must be a whole number of 0 or more, or empty for every seed; got {value!r}")
    return (str(int(text)),)


def _unique(folder: Path, found: Iterator[tuple[_Key, Path]]) -> Iterator[tuple[_Key, Path]]:
    """What was found; InputError where two files stand for one image."""
    seen: dict[_Key, Path] = {}
    for key, path in found:
        if key in seen:
            what = " ".join(key[1:])
            names = " and ".join(each.relative_to(folder).as_posix() for each in (seen[key], path))
            raise InputError(f"{folder} names two images for {what}: {names}: remove one")
        seen[key] = path
        yield key, path
