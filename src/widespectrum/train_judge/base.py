"""The model that is trained further: a folder, or a repository of the Hub at a commit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from widespectrum.errors import InputError, WideSpectrumError
from widespectrum.hub import download_snapshot, resolve_revision
from widespectrum.judges.qwen3vl_files import check_folder
from widespectrum.rewards.checkpoints import Checkpoint

__all__ = ["Base", "find_base", "or_local"]

_TEXTS = ("*.json", "*.jinja", "*.txt")
_WEIGHTS = ("*.safetensors",)


@contextmanager
def or_local(instead: str) -> Iterator[None]:
    """What the Hub refuses says what can be given `instead`."""
    try:
        yield
    except WideSpectrumError as error:
        raise type(error)(f"{str(error).removesuffix('.')} (or give {instead})") from error


@dataclass(frozen=True, slots=True)
class Base:
    """`name` is the repository, or the name of the folder; `pin` its commit on the Hub, or the sha256 of the folder.

    `folder` holds everything but the weights, and for a local one the weights too.
    """

    name: str
    pin: dict[str, str]
    folder: Path

    def with_weights(self) -> Path:
        """The folder with the weights, after a download where it is on the Hub."""
        if "revision" not in self.pin:
            return self.folder
        return download_snapshot(self.name, "model", self.pin["revision"], patterns=(*_TEXTS, *_WEIGHTS))


def find_base(text: str, known: str | None) -> Base:
    """The base that `text` names: a folder, or `repository` or `repository@revision` on the Hub.

    `known` is the commit at which this training was begun, for a repository without a revision. InputError where there
    is none or it is no Qwen3-VL; HubError where the Hub cannot be reached.
    """
    path = Path(text).expanduser()
    if path.exists():
        check_folder(path)
        return Base(path.resolve().name, Checkpoint("the base", path).pin, path)
    repo, _, revision = text.partition("@")
    if repo.count("/") != 1 or repo.startswith((".", "/", "~")):
        raise InputError(f"--base {text}: there is nothing; expected a folder with Qwen3-VL or a repository of the Hub")
    with or_local("a folder as --base"):
        commit = resolve_revision(repo, "model", revision or known)
        folder = download_snapshot(repo, "model", commit, patterns=_TEXTS)
    check_folder(folder)
    return Base(repo, {"revision": commit}, folder)
