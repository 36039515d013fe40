"""What a publication changes: the files of a folder that belong on the Hub, held against those that are there.

Nothing here talks to the Hub.
"""

from __future__ import annotations

import difflib
import fnmatch
import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import yaml
from huggingface_hub.repocard import REGEX_YAML_BLOCK
from tqdm import tqdm

from .errors import InputError

__all__ = [
    "Change",
    "LocalFile",
    "Plan",
    "RemoteFile",
    "RepoType",
    "Selection",
    "Target",
    "batches",
    "card_diff",
    "card_metadata",
    "compare",
    "config_folders",
    "dropped_configs",
    "read_card",
    "select",
]

RepoType = Literal["dataset", "space"]
Status = Literal["new", "changed", "same", "deleted"]

CARD = "README.md"
ATTRIBUTES = ".gitattributes"
DATASET_FILES = (
    *("*.md", "croissant.json", "eval.yaml", "LICENSE*", "NOTICE*", "CITATION*", ATTRIBUTES),
    "private/commitment.json",
)
"""What of a dataset's folder goes along with the folders of its configs."""

LAST = (CARD, "croissant.json", "eval.yaml")
"""What announces the rest, and so is sent last."""

EVERYTHING = "**"
LEFTOVERS = ("__pycache__", "*.pyc", "*.pyo", "*.egg-info", "*.lock", "*.incomplete", "*~", "Thumbs.db")

_VERSION = re.compile(r"v?\d+\.\d+\.\d+(?:[-+.]?[0-9A-Za-z.-]+)?")

FILES_PER_COMMIT = 50
BYTES_PER_COMMIT = 500_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where a folder goes and under which version; InputError where a part of it cannot be.

    `private` is for a repository that does not exist yet. `message` is the title of the commits.
    """

    repo_id: str
    repo_type: RepoType
    version: str
    private: bool = False
    message: str = ""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w.-]{1,96}/[\w.-]{1,96}", self.repo_id):
            raise InputError(f"--repo: expected ORG/NAME, got {self.repo_id!r}")
        if not _VERSION.fullmatch(self.version):
            raise InputError(f"--version: expected a version such as 1.2.0, got {self.version!r}")

    @property
    def tag(self) -> str:
        """The name of the tag: the version with a `v` before it, which is what `evaluate` looks for."""
        return f"v{self.version.removeprefix('v')}"

    @property
    def title(self) -> str:
        """The title of the commits."""
        return self.message or f"Publish {self.tag}"


class RemoteFile(NamedTuple):
    """A file of a repository: git's id, and the sha256 where it is stored outside git."""

    size: int
    oid: str
    sha256: str | None


@dataclass(frozen=True)
class LocalFile:
    """A file to publish; its ids are computed when they are asked for."""

    path: Path
    size: int

    @cached_property
    def sha256(self) -> str:
        """The id that large file storage gives it."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    @cached_property
    def oid(self) -> str:
        """The id that git gives it."""
        content = self.path.read_bytes()
        return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()

    def equals(self, remote: RemoteFile) -> bool:
        """Whether the Hub holds the same bytes."""
        if self.size != remote.size:
            return False
        return self.sha256 == remote.sha256 if remote.sha256 else self.oid == remote.oid


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The files of a folder that are published, by their path in the repository, and the names of the others.

    `owned` are the patterns of what the publication answers for: what matches one and is not in `files` is deleted.
    """

    folder: Path
    files: Mapping[str, LocalFile]
    left_out: tuple[str, ...]
    leftovers: int
    configs: tuple[str, ...]
    owned: tuple[str, ...]

    @property
    def digest(self) -> str:
        """sha256 over the names and contents of the files."""
        total = hashlib.sha256()
        for path, file in sorted(self.files.items()):
            total.update(f"{path} {file.sha256}\n".encode())
        return total.hexdigest()


class Change(NamedTuple):
    """What happens to one file; `size` in bytes is that of the new content, or of what is deleted."""

    path: str
    status: Status
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Every file of a publication with what happens to it."""

    changes: tuple[Change, ...]

    def with_status(self, *statuses: Status) -> tuple[Change, ...]:
        """The changes of these kinds."""
        return tuple(change for change in self.changes if change.status in statuses)

    @property
    def is_done(self) -> bool:
        """Whether the Hub holds all of it already."""
        return len(self.with_status("same")) == len(self.changes)

    @property
    def summary(self) -> str:
        """How many files are new, changed, the same and deleted, and what there is to send."""
        counts = Counter(change.status for change in self.changes)
        parts = [f"{counts[status]} {status}" for status in ("new", "changed", "same", "deleted") if counts[status]]
        if self.is_done:
            return ", ".join(parts)
        size = tqdm.format_sizeof(sum(change.size for change in self.with_status("new", "changed")), "B")
        commits = len(batches(self))
        return f"{', '.join(parts)}; {size} to send in {commits} commit{'s' if commits > 1 else ''}"

    @property
    def lines(self) -> list[str]:
        """One line per file."""
        return [
            f"  {change.status:8} {tqdm.format_sizeof(change.size, 'B'):>7}  {change.path}" for change in self.changes
        ]


def card_metadata(text: str, where: str) -> dict[str, Any]:
    """The front matter of a card; InputError where it is not a mapping."""
    match = REGEX_YAML_BLOCK.search(text)
    try:
        found = yaml.safe_load(match[2]) if match else {}
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{where}: the front matter is not YAML ({reason}): correct it") from None
    if not isinstance(found, dict):
        raise InputError(f"{where}: the front matter must be a mapping, got {type(found).__name__}: correct it")
    return found


def read_card(folder: Path) -> str:
    """The text of the card of a folder."""
    path = folder / CARD
    if not path.is_file():
        raise InputError(f"{folder} holds no {CARD}: expected a folder to publish, card and all")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: expected UTF-8, got {error.reason} at byte {error.start}: save it anew") from None


def _patterns(config: Mapping[str, Any]) -> list[str]:
    """The file patterns of an entry of `configs`, in any of the forms that the Hub takes."""
    entries = config.get("data_files", [])
    paths = [entry["path"] if isinstance(entry, dict) else entry for entry in _as_list(entries)]
    return [pattern for path in paths for pattern in _as_list(path)]


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def config_folders(metadata: Mapping[str, Any], where: str) -> dict[str, tuple[str, ...]]:
    """The patterns of what each config of a dataset owns: the folder of its files, or files at the top."""
    owned = {}
    for config in metadata.get("configs") or []:
        try:
            patterns = _patterns(config)
            name = str(config["config_name"])
        except (AttributeError, KeyError, TypeError):
            raise InputError(f"{where}: expected `config_name` and `data_files` in {config!r}: correct it") from None
        for pattern in patterns:
            if ".." in pattern.split("/") or pattern.startswith("/") or ":" in pattern or pattern.startswith("*/"):
                raise InputError(f"{where}: the files of {name!r} must lie in a folder of their own, got {pattern!r}")
        owned[name] = tuple(dict.fromkeys(_owned(pattern) for pattern in patterns))
    return owned


def _owned(pattern: str) -> str:
    return f"{pattern.partition('/')[0]}/*" if "/" in pattern else pattern


def _is_leftover(parts: Sequence[str]) -> bool:
    hidden = any(part.startswith(".") for part in parts) and parts != (ATTRIBUTES,)
    return hidden or any(fnmatch.fnmatchcase(part, pattern) for part in parts for pattern in LEFTOVERS)


def _matches(path: str, patterns: Iterable[str]) -> bool:
    """Whether one of the patterns takes a path; a pattern of one part takes files at the top alone."""
    depth = min(path.count("/"), 1)
    return any(
        pattern == EVERYTHING or (fnmatch.fnmatchcase(path, pattern) and pattern.count("/") == depth)
        for pattern in patterns
    )


def select(folder: Path, repo_type: RepoType) -> Selection:
    """What of `folder` is published. InputError where it has no card, or a link that leads out of it.

    Of a dataset: the card and what belongs to it at the top, and the folders of the configs that the card names. Of a
    Space: everything. Never: hidden files, caches, lock files.
    """
    text, where = read_card(folder), str(folder / CARD)
    configs: dict[str, tuple[str, ...]] = {}
    owned: tuple[str, ...] = (EVERYTHING,)
    if repo_type == "dataset":
        configs = config_folders(card_metadata(text, where), where)
        if not configs:
            raise InputError(f"{where} names no configs in its front matter: build the dataset again")
        owned = tuple(dict.fromkeys(pattern for patterns in configs.values() for pattern in patterns))
    files, left_out, leftovers = {}, [], 0
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        if _is_leftover(path.relative_to(folder).parts):
            leftovers += 1
        elif _matches(name, (*owned, *DATASET_FILES)):
            if not path.resolve().is_relative_to(folder.resolve()):
                raise InputError(f"{path} is a link to {path.resolve()}: remove it, or put the file itself there")
            files[name] = LocalFile(path, path.stat().st_size)
        else:
            left_out.append(name)
    return Selection(
        folder=folder,
        files=files,
        left_out=tuple(left_out),
        leftovers=leftovers,
        configs=tuple(configs),
        owned=owned,
    )


def compare(selection: Selection, remote: Mapping[str, RemoteFile]) -> Plan:
    """What is to be done so that the repository holds the selection."""
    changes = []
    for path, file in tqdm(sorted(selection.files.items()), desc="comparing", unit="file", delay=2, leave=False):
        there = remote.get(path)
        status: Status = "new" if there is None else "same" if file.equals(there) else "changed"
        changes.append(Change(path, status, file.size))
    for path in sorted(remote.keys() - selection.files.keys() - {ATTRIBUTES}):
        if _matches(path, selection.owned):
            changes.append(Change(path, "deleted", remote[path].size))
    return Plan(changes=tuple(changes))


def batches(plan: Plan) -> list[list[Change]]:
    """What is sent and deleted, commit by commit; the card and the deletions are in the last one.

    So a publication that fits one commit is one, and one that was cut short has changed no card yet.
    """
    groups: list[list[Change]] = [[]]
    sent = plan.with_status("new", "changed")
    for change in (change for change in sent if change.path not in LAST):
        size = sum(each.size for each in groups[-1])
        if groups[-1] and (len(groups[-1]) == FILES_PER_COMMIT or size + change.size > BYTES_PER_COMMIT):
            groups.append([])
        groups[-1].append(change)
    groups[-1] += [change for change in sent if change.path in LAST]
    groups[-1] += plan.with_status("deleted")
    return [group for group in groups if group]


def card_diff(old: str, new: str) -> str:
    """The unified diff of two cards; empty where they are equal."""
    lines = difflib.unified_diff(
        old.splitlines(), new.splitlines(), f"{CARD} on the Hub", f"{CARD} to publish", lineterm=""
    )
    return "\n".join(lines)


def dropped_configs(old: str, selection: Selection) -> list[str]:
    """The configs that the card on the Hub names and a dataset to publish does not hold."""
    if not selection.configs:
        return []
    try:
        before = config_folders(card_metadata(old, CARD), CARD)
    except InputError:  # the card that is replaced may be anything
        return []
    return sorted(before.keys() - set(selection.configs))
