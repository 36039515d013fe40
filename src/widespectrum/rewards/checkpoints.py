"""Checkpoints in the official containers: where one lies, what pins it, and what it holds.

A checkpoint is a local file or folder, or files of a repository of the Hub at a commit.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from widespectrum.errors import InputError, WideSpectrumError
from widespectrum.hub import download_snapshot, resolve_revision

from .containers import Stored, reading, stored_tensors
from .filling import empty, fill
from .identity import FILES, identify
from .weights import Take, Weights

__all__ = ["Checkpoint", "HubFiles", "Take", "Weights", "empty", "fill", "identify", "open_weights"]

_TRANSFORMERS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
_WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.pth")
_TEXTS = ("*.json", "*.txt", "*.tiktoken", "*.model", "*.gz")


@dataclass(frozen=True, slots=True)
class HubFiles:
    """The files that match `patterns` in `repo`; without a revision, at the commit that its main branch has today."""

    repo: str
    patterns: tuple[str, ...]
    revision: str | None = None


class Checkpoint:
    """A checkpoint that is looked for, hashed and downloaded when it is needed.

    `name` is the model's, for messages; `hub` the files to download where no path is given, or with `hub` None `hint`,
    which says where a person gets them; `weights` the official names of the files with the weights.

    InputError at once for a path where nothing is.
    """

    def __init__(
        self,
        name: str,
        path: Path | str | None,
        *,
        hub: HubFiles | None = None,
        hint: str = "",
        weights: Sequence[str] = (),
    ) -> None:
        self.name, self.hub, self.hint, self.weights = name, hub, hint, tuple(weights)
        self._given = None if path is None else Path(path).expanduser()
        if self._given is None:
            return
        if not str(path).strip():
            raise InputError(f"{name}: the path of the checkpoint is empty: give a file or a folder")
        with reading(self._given):
            if not self._given.exists():
                what = f"{_readable(self.weights)}, or a folder with it" if self.weights else "a file or a folder"
                raise InputError(f"{name}: there is nothing at {path}: expected {what}")

    @cached_property
    def path(self) -> Path:
        """The local file or folder, after a download where no path was given. InputError, HubError."""
        if self._given is not None:
            return self._given
        # Asked for first: what fails there says itself what can be given instead.
        revision = self._revision
        with self._from_hub() as hub:
            return download_snapshot(hub.repo, "model", revision, patterns=hub.patterns)

    def keep_to(self, commit: str) -> None:
        """Stay at a commit of the Hub where no revision is given; call it before the files are asked for."""
        if self._given is None and self.hub is not None and self.hub.revision is None:
            self.hub = replace(self.hub, revision=commit or None)

    @cached_property
    def pin(self) -> dict[str, str]:
        """What identifies it: {"revision": commit} on the Hub, {"sha256": digest} of a local file or folder.

        A folder's digest is over the names and contents of its weights, its .json and .txt files and vocabularies.
        """
        if self._given is None:
            return {"revision": self._revision}
        with reading(self._given):
            if self._given.is_file():
                return {"sha256": _sha256(self._given)}
            lines = [f"{path.name} {_sha256(path)}\n" for path in _matching(self._given, (*_WEIGHTS, *_TEXTS))]
        return {"sha256": hashlib.sha256("".join(lines).encode()).hexdigest()}

    def file(self, *patterns: str) -> Path | None:
        """The first file that matches, in the folder or beside the file, pattern by pattern; None where none does."""
        folder = self.path if self.path.is_dir() else self.path.parent
        return next((path for pattern in patterns for path in _matching(folder, (pattern,))), None)

    def open(self) -> Weights:
        """The weights: of the file itself, of the folder's file with an official name, or of a transformers folder."""
        named = self.file(*self.weights) if self.path.is_dir() else None
        return open_weights(named or self.path, wanted=self.name, names=self.weights)

    @cached_property
    def _revision(self) -> str:
        with self._from_hub() as hub:
            return resolve_revision(hub.repo, "model", hub.revision)

    @contextmanager
    def _from_hub(self) -> Iterator[HubFiles]:
        """The files on the Hub; what fails says what can be given instead."""
        if self.hub is None:
            raise InputError(f"{self.name} needs its checkpoint: {self.hint or 'give it as checkpoint=...'}")
        try:
            yield self.hub
        except WideSpectrumError as error:
            raise type(error)(
                f"the checkpoint of {self.name} could not be had from the Hub; {str(error).removesuffix('.')} "
                "(offline, give a local file or folder as checkpoint=...)"
            ) from error


def open_weights(path: Path, *, wanted: str, names: Sequence[str] = ()) -> Weights:
    """The weights of a file in any of the official containers, or of a folder in the form of transformers.

    The container is told by the content: safetensors, torch.save of a state dict (at the top or under `state_dict`,
    `model` or `module`), a TorchScript archive, or a pickled network. `wanted` names the model and `names` the files
    that were expected, for messages. Nothing is executed. InputError where it is damaged, or no checkpoint.
    """
    file = _of_folder(path, wanted, names) if path.is_dir() else path
    stored = _sharded(file) if path.is_dir() and file.name.endswith(".index.json") else stored_tensors(file)
    return Weights(str(path), stored, wanted)


def _of_folder(folder: Path, wanted: str, names: Sequence[str]) -> Path:
    """The file with the weights, or their index, in a folder that has none of the official names."""
    with reading(folder):
        files = [folder / name for name in _TRANSFORMERS if (folder / name).is_file()] or _matching(folder, _WEIGHTS)
    expected = f"expected {_readable(names or _TRANSFORMERS)} of {wanted}"
    if not files or (files[0].name not in _TRANSFORMERS and len(files) > 1):
        came = ", ".join(each.name for each in files[:5]) or "no weights"
        raise InputError(f"{folder}: {expected}, the folder holds {came}")
    owner = FILES.get(files[0].name, wanted)
    if owner != wanted and files[0].name not in names:
        raise InputError(
            f"{folder}: {expected}, the folder holds {files[0].name}, which is the file of {owner}: give another, or "
            "the file itself if it is meant"
        )
    return files[0]


def _readable(names: Sequence[str]) -> str:
    """Names of files for a message, without the patterns that stand for any other name."""
    return " or ".join([name for name in names if "*" not in name] or names)


def _sharded(index: Path) -> Mapping[str, Stored]:
    """The tensors of all files that an index names."""
    try:
        with reading(index):
            places = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        files = {name: index.parent / str(file) for name, file in places.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InputError(
            f'{index} is no index of weights (expected {{"weight_map": ...}}): download it again'
        ) from None
    shards: dict[Path, dict[str, Stored]] = {}
    for name, file in files.items():
        if file.parent != index.parent or Path(str(places[name])).name != str(places[name]):
            raise InputError(f"{index} names a file outside its folder ({places[name]!r}): download it again")
        if file not in shards:
            shards[file] = stored_tensors(file)
        if name not in shards[file]:
            raise InputError(f"{file} lacks {name}, which {index.name} says it holds: download it again")
    return {name: shards[file][name] for name, file in files.items()}


def _matching(folder: Path, patterns: Sequence[str]) -> list[Path]:
    """The files directly in a folder that match one of the patterns, by name."""
    return sorted({path for pattern in patterns for path in folder.glob(pattern) if path.is_file()})


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
