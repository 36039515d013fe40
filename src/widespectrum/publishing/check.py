"""What stands between a folder and its publication: a list of problems, each with what to do."""

from __future__ import annotations

import fnmatch
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from widespectrum.errors import InputError
from widespectrum.types import ModelSpec

from .provenance import FILE_NAME, Provenance, read_provenance

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Kind", "Problem", "problems"]

Kind: TypeAlias = Literal["dataset", "space"]

PRIVATE = "private"
"""The config that is never published: see docs/private-split.md."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One reason not to publish; `where` is a path relative to the folder."""

    code: str
    where: str
    message: str
    fix: str

    def __str__(self) -> str:
        return f"{self.where}: {self.message}; {self.fix} [{self.code}]"


def _parquet_files(folder: Path) -> list[Path]:
    """Those of the configs; what a build keeps for itself is hidden."""
    return sorted(path for path in folder.glob("*/*.parquet") if not {path.name[0], path.parent.name[0]} & {"."})


def _front_matter(folder: Path) -> tuple[Mapping[str, Any], list[Problem]]:
    import yaml
    from huggingface_hub import DatasetCard

    path = folder / "README.md"
    if not path.is_file():
        return {}, [Problem("card-missing", "README.md", "there is no card", "build the folder again")]
    try:
        data: dict[str, Any] = DatasetCard(path.read_text(encoding="utf-8")).data.to_dict()  # type: ignore[no-untyped-call]
    except (ValueError, yaml.YAMLError) as error:
        reason = str(error).splitlines()[0]
        return {}, [Problem("card-broken", "README.md", f"its front matter cannot be read ({reason})", "correct it")]
    found = [] if data else [Problem("card-broken", "README.md", "it has no front matter", "build the folder again")]
    if data and not data.get("license"):
        found.append(Problem("license-missing", "README.md", "the front matter names no license", "name one"))
    return data, found


def _revision_problems(config: str, models: Mapping[str, str]) -> Iterator[Problem]:
    where = f"{config}/{FILE_NAME}"
    for label, text in models.items():
        try:
            spec = ModelSpec.parse(text)
        except InputError as error:
            yield Problem("model-unknown", where, f"model {label!r}: {error}", "build it again")
            continue
        if spec.revision is None and "sha256" not in spec.params:
            message = f"model {label!r} is not pinned to a revision: {text}"
            yield Problem("revision-unpinned", where, message, "name its 40-digit commit")


def _rights_problems(config: str, made: Provenance, has_images: bool) -> Iterator[Problem]:
    where = f"{config}/{FILE_NAME}"
    if not made.license:
        yield Problem("license-missing", where, "the config has no license", "name one when you build it")
    if has_images and not made.image_rights:
        message = "images are inside, but nothing says whose they are"
        yield Problem("rights-unclear", where, message, "build it without images, or state their rights")
    for name, text in made.image_rights.items():
        if not text.startswith("clear:"):
            fix = "leave these images out, or state their rights, when you build it"
            yield Problem("rights-unclear", where, f"images of {name!r}: {text}", fix)


def _may_hold_images(kind: pa.DataType) -> bool:
    import pyarrow as pa

    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _may_hold_images(kind.value_type)
    return bool(pa.types.is_struct(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _config_problems(folder: Path, files: Sequence[Path]) -> Iterator[Problem]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    config = folder.name
    if config == PRIVATE:
        yield Problem("private", config, "a private split must stay private", "publish its commitment.json alone")
        return
    has_images = False
    for path in files:
        try:
            has_images |= any(_may_hold_images(field.type) for field in pq.read_schema(path))
        except (pa.ArrowException, OSError) as error:
            where = f"{config}/{path.name}"
            yield Problem("parquet-broken", where, f"cannot be read ({str(error).splitlines()[0]})", "build it again")
    try:
        made = read_provenance(folder)
    except InputError as error:
        yield Problem("provenance-missing", config, str(error).rpartition(":")[0], "build this config again")
        return
    yield from _rights_problems(config, made, has_images)
    yield from _revision_problems(config, made.models)


def _card_problems(data: Mapping[str, Any], configs: Sequence[str], files: Iterable[str]) -> Iterator[Problem]:
    try:
        named = {entry["config_name"]: [part["path"] for part in entry["data_files"]] for entry in data["configs"]}
    except (KeyError, TypeError):
        message = "its configs are not as the build writes them"
        yield Problem("card-broken", "README.md", message, "build the folder again")
        return
    for config in configs:
        if config not in named:
            yield Problem("card-stale", "README.md", f"the config {config!r} is not on the card", "build it again")
    for name, patterns in named.items():
        for pattern in patterns:
            if not fnmatch.filter(files, str(pattern)):
                message = f"the card names {pattern}, which the folder does not hold"
                yield Problem("card-stale", "README.md", message, f"build the config {name!r} again")


def _croissant_problems(folder: Path, files: Mapping[str, Path]) -> Iterator[Problem]:
    path = folder / "croissant.json"
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))["distribution"]
        wanted = {entry["@id"]: entry["sha256"] for entry in listed}
    except (OSError, ValueError, KeyError, TypeError):
        yield Problem("croissant-missing", path.name, "missing or damaged", "build the folder again")
        return
    for name in sorted(wanted.keys() - files.keys()):
        yield Problem("croissant-stale", name, "was there when the card was written", "build it again")
    for name, file in files.items():
        with file.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
        if wanted.get(name) != digest:
            yield Problem("croissant-stale", name, "has changed since the card was written", "build it again")


def _stray_problems(folder: Path) -> Iterator[Problem]:
    for path in sorted({*folder.rglob("*.py"), *folder.rglob(".tmp-*")}):
        where = path.relative_to(folder)
        if any(part.startswith(".") for part in where.parts[:-1]):
            continue  # hidden folders are not published
        if path.suffix == ".py":
            message = "`datasets` refuses repositories with a loading script"
            yield Problem("script", where.as_posix(), message, "remove it")
        else:
            message = "left over from a build that was stopped"
            yield Problem("unfinished", where.as_posix(), message, "build it again, or remove it")


def _dataset_problems(folder: Path) -> Iterator[Problem]:
    data, card_problems = _front_matter(folder)
    yield from card_problems
    files = _parquet_files(folder)
    configs = {config: list(found) for config, found in groupby(files, key=lambda path: path.parent)}
    if not configs:
        yield Problem("empty", ".", "there is no config with Parquet files", "build the dataset first")
    for config, found in configs.items():
        yield from _config_problems(config, found)
    names = {path.relative_to(folder).as_posix(): path for path in files}
    if data:
        yield from _card_problems(data, [config.name for config in configs], names)
    yield from _croissant_problems(folder, names)
    yield from _stray_problems(folder)


def _space_problems(folder: Path) -> Iterator[Problem]:
    data, found = _front_matter(folder)
    yield from found
    for key in ("sdk", "app_file") if data else ():
        if not data.get(key):
            yield Problem("card-broken", "README.md", f"the front matter has no {key!r}", "name it")
    for name in (str(data.get("app_file") or "app.py"), "requirements.txt"):
        if not (folder / name).is_file():
            yield Problem("file-missing", name, "a Space needs this file", "add it")


def problems(folder: Path, kind: Kind = "dataset") -> list[Problem]:
    """Everything that forbids publishing `folder` as a dataset or a Space; nothing where it may go out.

    InputError where there is no such folder.
    """
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder.absolute()} to publish: build it first")
    return list(_dataset_problems(folder) if kind == "dataset" else _space_problems(folder))
