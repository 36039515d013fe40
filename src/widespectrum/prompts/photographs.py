"""The embedded default: prompts for photographs that ship with scikit-image and scikit-learn, or for the user's own."""

from __future__ import annotations

import importlib.util
import json
import unicodedata
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from tqdm import tqdm

from widespectrum.errors import InputError, MissingExtraError
from widespectrum.types import Prompt

from .images import open_photograph
from .prompt_set import PromptSet
from .tables import is_one_line, read_table

__all__ = ["photograph_prompts", "photographs_in", "shipped_photograph", "with_effect"]

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


@cache
def _data(name: str) -> dict[str, Any]:
    """A JSON file of this package; not to be changed by callers."""
    data: dict[str, Any] = json.loads(resources.files(__package__).joinpath(name).read_text(encoding="utf-8"))
    return data


def _pair(photograph: str, caption: str, text: str, effects: Mapping[str, str]) -> tuple[Prompt, Prompt]:
    """`effects` maps each dimension that `text` asks for to the words that ask for it."""
    pair_id = f"{photograph}/{'+'.join(effects)}"
    return (
        Prompt(prompt_id="", text=caption, pair_id=pair_id, role="original", subset=photograph),
        Prompt(
            prompt_id="",
            text=text,
            pair_id=pair_id,
            role="wide_spectrum",
            dimensions=tuple(effects),
            effects=tuple(effects.values()),
            subset=photograph,
        ),
    )


def shipped_photograph(package: str, file: str) -> Path:
    """Where `file` lies inside the installed `package`, found without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtraError(
            f"the prompt set 'photographs' needs {package}, which is not installed: "
            'pip install "widespectrum[demo]", or give your own photographs'
        )
    path = Path(spec.submodule_search_locations[0], file)
    if not path.is_file():
        raise InputError(f"the installed {package} has no {file}; install another version or give your own photographs")
    return path


def _shipped() -> Iterator[tuple[str, Path, list[tuple[Prompt, Prompt]]]]:
    for name, entry in _data("photographs.json").items():
        pairs = [_pair(name, entry["caption"], made["prompt"], made["effects"]) for made in entry["prompts"]]
        yield name, shipped_photograph(entry["package"], entry["file"]), pairs


def photographs_in(folder: Path) -> list[Path]:
    """The photographs directly in `folder`, by name; hidden files and other suffixes are left alone."""
    # Not `resolve`: a link keeps the name that the user gave.
    place = folder.absolute()
    if folder.is_file():
        raise InputError(f"expected a folder with photographs, got the file {place}; name the folder that holds it")
    if not folder.is_dir():
        raise InputError(
            f"expected a folder with photographs, found none at {place}; "
            "relative paths start at the folder in which the command runs"
        )
    paths = [path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")]
    if not paths:
        raise InputError(f"no photographs in {folder}; expected files ending in {', '.join(SUFFIXES)}")
    return sorted(paths, key=lambda path: path.name)


def _captions(table: Path, names: set[str]) -> dict[str, str]:
    """File name to caption, from a CSV with the columns file and caption."""
    captions: dict[str, str] = {}
    for number, row in read_table(table, ("file", "caption")):
        file, caption = (unicodedata.normalize("NFC", str(row[key] or "").strip()) for key in ("file", "caption"))
        if file not in names:
            raise InputError(f"{table}, row {number}: there is no photograph {file!r} in the folder of photographs")
        if file in captions:
            raise InputError(f"{table}, row {number}: {file!r} already has a caption; remove one")
        if not caption:
            raise InputError(f"{table}, row {number}: the caption of {file!r} is empty; write one or remove the row")
        if not is_one_line(caption):
            raise InputError(
                f"{table}, row {number}: the caption of {file!r} must be one line of printable text, got {caption!r}"
            )
        captions[file] = caption
    return captions


def _caption_from_name(path: Path) -> str:
    """`a_red-bus.jpg` → `a red bus`."""
    caption = " ".join(path.stem.replace("_", " ").replace("-", " ").split())
    if not caption or not is_one_line(caption):
        raise InputError(
            f"the name of {str(path)!r} gives no caption of printable text; rename it or list it in the captions file"
        )
    return unicodedata.normalize("NFC", caption)


def with_effect(caption: str, sentence: str) -> str:
    """`a red bus` → `A red bus. <sentence>`."""
    start = caption[0].upper() + caption[1:]
    return f"{start} {sentence}" if start.endswith((".", "!", "?")) else f"{start}. {sentence}"


def _pairs_from_templates(name: str, caption: str, index: int) -> list[tuple[Prompt, Prompt]]:
    """One pair per dimension; `index` rotates the effects over the photographs."""
    templates: Mapping[str, list[str]] = _data("templates.json")
    chosen = {dimension: sentences[index % len(sentences)] for dimension, sentences in templates.items()}
    return [
        _pair(name, caption, with_effect(caption, sentence), {dimension: sentence})
        for dimension, sentence in chosen.items()
    ]


def _own(folder: Path, table: Path | None) -> Iterator[tuple[str, Path, list[tuple[Prompt, Prompt]]]]:
    # File systems may hand out decomposed names; captions and ids are NFC.
    paths = {unicodedata.normalize("NFC", path.name): path for path in photographs_in(folder)}
    captions = _captions(table, set(paths)) if table else {}
    bar = tqdm(paths.items(), desc="read photographs", delay=2, leave=False, dynamic_ncols=True)
    for index, (name, path) in enumerate(bar):
        open_photograph(path)  # a damaged file must be named now, not in the middle of a run
        yield name, path, _pairs_from_templates(name, captions.get(name) or _caption_from_name(path), index)


def photograph_prompts(photos: Path | None = None, captions: Path | None = None) -> PromptSet:
    """Prompts for the photographs that ship with the `demo` extra, or for those in the folder `photos`.

    `captions` is a CSV with the columns file and caption; a photograph that it does not list is called by its name.
    """
    if captions is not None and photos is None:
        raise InputError(f"the captions in {captions} describe photographs of your own; say in which folder they are")
    entries = list(_shipped() if photos is None else _own(photos, captions))
    pairs = [(pair, path) for _, path, pairs in entries for pair in pairs]
    return PromptSet(
        name="photographs",
        prompts=tuple(prompt for pair, _ in pairs for prompt in pair),
        photographs={pair[0].pair_id: path for pair, path in pairs},
    )
