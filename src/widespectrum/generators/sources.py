"""Where a generator's files lie: in a local folder, or in a repository of the Hub at a commit."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Sequence
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from widespectrum.errors import HubError, InputError, WideSpectrumError
from widespectrum.hub import download_snapshot, resolve_revision
from widespectrum.rewards.containers import reading

from .layout import FILES, INDEX, VARIANTS, Kind, check_layout, check_pipeline, components, kind_of, read_files

__all__ = ["Kind", "Source", "check_pipeline", "kind_of"]

_T = TypeVar("_T")

_ON_HUB = re.compile(r"(?P<repo>\w[\w.-]*/[\w.-]+)(?:/(?P<inside>[\w./-]+))?(?:@(?P<revision>[\w./-]+))?")
_OF_PEFT, _PEFT_CONFIG = "adapter_model.safetensors", "adapter_config.json"
_OF_FILE = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".json")

_EXPECTED = {
    "pipeline": f"a folder with {INDEX}, as save_pretrained writes it",
    "lora": "a safetensors file or a folder with one, or org/repo[/folder or file][@revision] on the Hub",
    "transformer": "a safetensors file or a folder with some, or org/repo[/folder or file][@revision] on the Hub",
}


class Source:
    """Files that are looked for, hashed and downloaded when they are needed.

    `name` is the generator's, for messages. `given` is what a person gave: a local path, or (but for a pipeline)
    `org/repo[/folder or file][@revision]`; without it, `repo` (`org/repo` or `org/repo@revision`) at `revision`, by
    default at the commit of today. `without` names the parts of a pipeline whose weights are not downloaded.

    InputError at once for a path where nothing is, and for what is no name on the Hub.
    """

    def __init__(
        self,
        name: str,
        given: str | Path | None,
        *,
        repo: str = "",
        revision: str | None = None,
        what: Kind = "pipeline",
        without: Collection[str] = (),
    ) -> None:
        self.name, self.what, self.without = name, what, frozenset(without)
        self.repo, self.inside, self._wanted = "", "", revision
        self._given = self._local(given)
        if self._given is None:
            self._locate(str(given) if given else repo, revision)

    def _local(self, given: str | Path | None) -> Path | None:
        """The local path; None for a name on the Hub."""
        if given is None:
            return None
        path = Path(given).expanduser()
        with reading(path):
            exists = bool(str(given).strip()) and path.exists()
        if exists:
            if self.what == "pipeline":
                check_layout(path, self.name)
            return path
        text = str(given)
        may_be_hub = self.what != "pipeline" and _ON_HUB.fullmatch(text) and not text.startswith((".", "~"))
        if may_be_hub and not (text.count("/") == 1 and text.endswith(_OF_FILE)):
            return None
        raise InputError(f"{self.name}: there is nothing at {text!r}: expected {_EXPECTED[self.what]}")

    def _locate(self, text: str, revision: str | None) -> None:
        found = _ON_HUB.fullmatch(text)
        inside = ((found and found["inside"]) or "").strip("/")
        if found is None or ".." in inside.split("/") or (inside and self.what == "pipeline"):
            if not text:
                raise InputError(f"{self.name} needs the option checkpoint: {_EXPECTED[self.what]}")
            raise InputError(
                f"{self.name}: {text!r} is no repository of the Hub: expected org/repo or org/repo@revision"
            )
        if revision and found["revision"] and revision != found["revision"]:
            raise InputError(f"{self.name}: two revisions are given, {found['revision']} and {revision}: give one")
        self.repo, self.inside, self._wanted = found["repo"], inside, revision or found["revision"]

    @property
    def is_local(self) -> bool:
        """Whether it lies on this disk, and not on the Hub."""
        return self._given is not None

    @cached_property
    def path(self) -> Path:
        """The local folder or file, after a download where it is on the Hub. InputError, HubError."""
        if self._given is not None:
            return self._given
        download = {"pipeline": self._pipeline, "lora": self._lora, "transformer": self._transformer}[self.what]
        path = download() / self.inside
        if not path.exists():
            what = f"no {self.inside}" if self.inside else "nothing to load"
            raise InputError(f"{self.name}: there is {what} in {self._origin}: expected {_EXPECTED[self.what]}")
        return path

    @cached_property
    def pin(self) -> dict[str, str]:
        """What identifies it: {"revision": commit} on the Hub; of a local file or folder {"sha256": digest}.

        A folder's digest is over the names and contents of the files that a model is made of, at any depth, but for
        the weights of the parts `without`. That of a LoRA of PEFT given as its file is over the config beside it too.
        """
        if self._given is None:
            return {"revision": self._revision}
        top, files = self._given, [self._given]
        if top.is_dir():
            files = [path for path in read_files(top) if not self._replaced(path)]
        elif self.what == "lora" and top.name == _OF_PEFT and top.with_name(_PEFT_CONFIG).is_file():
            top, files = top.parent, [top.with_name(_PEFT_CONFIG), top]
        else:
            return {"sha256": _sha256(top)}
        lines = [f"{path.relative_to(top).as_posix()} {_sha256(path)}\n" for path in files]
        return {"sha256": hashlib.sha256("".join(lines).encode()).hexdigest()}

    def _replaced(self, path: Path) -> bool:
        """Whether this file holds weights of a part that something else takes the place of."""
        return path.parent.name in self.without and ".safetensors" in path.name

    @cached_property
    def pinned(self) -> str:
        """The pin as one text: `org/repo[/folder or file]@commit`, or `sha256:digest`."""
        return f"sha256:{self.pin['sha256']}" if "sha256" in self.pin else self._origin

    def keep_to(self, pinned: str) -> None:
        """Stay at the commit of `pinned` (see there) where it is of the same place and no revision was given.

        Call it before the files are asked for.
        """
        place, _, commit = pinned.partition("@")
        if self._given is None and not self._wanted and place == self._place:
            self._wanted = commit or None

    @property
    def _origin(self) -> str:
        return f"{self._place}@{self._revision}"

    @property
    def _place(self) -> str:
        return f"{self.repo}/{self.inside}".rstrip("/")

    @cached_property
    def _revision(self) -> str:
        return self._asked(lambda: resolve_revision(self.repo, "model", self._wanted))

    def _get(self, patterns: Sequence[str], but_not: Sequence[str] = ()) -> Path:
        revision = self._revision
        return self._asked(
            lambda: download_snapshot(self.repo, "model", revision, patterns=[*patterns], but_not=[*VARIANTS, *but_not])
        )

    def _asked(self, ask: Callable[[], _T]) -> _T:
        """What the Hub gives; what fails says which generator needed it, and what can be given instead."""
        try:
            return ask()
        except WideSpectrumError as error:
            option = "checkpoint" if self.what == "pipeline" else self.what
            passes = isinstance(error, HubError) or "HF_HUB_OFFLINE" in str(error)
            instead = f" (or give a local copy as {option}=...)" if passes else ""
            raise type(error)(f"{self.name}: {str(error).removesuffix('.')}{instead}") from error

    def _pipeline(self) -> Path:
        """What from_pretrained reads, or all weights of a repository that is no whole pipeline."""
        folder = self._get([INDEX])
        if not (folder / INDEX).is_file():
            return self._get(FILES)
        parts = components(folder)
        patterns = [f"{part}/{pattern}" for part in parts for pattern in FILES]
        return self._get([INDEX, *patterns], [f"{part}/*.safetensors" for part in self.without & parts.keys()])

    def _lora(self) -> Path:
        """The weights and the config of a LoRA, of the folder itself or beside the file."""
        if self.inside.endswith(".safetensors"):
            config = (Path(self.inside).parent / _PEFT_CONFIG).as_posix()
            return self._get([self.inside, config])
        top = f"{self.inside}/" if self.inside else ""
        return self._get([f"{top}*.json", f"{top}*.safetensors"], [f"{top}*/*"])

    def _transformer(self) -> Path:
        """The weights and the config of a transformer, or of that of a whole pipeline."""
        if self.inside.endswith(".safetensors"):
            return self._get([self.inside])
        top = f"{self.inside}/" if self.inside else ""
        kinds = ("*.json", "*.safetensors")
        inner = [f"{part}/{kind}" for part in ("transformer", "unet") for kind in kinds]
        folder = self._get([f"{top}{each}" for each in (INDEX, "config.json", *inner)])
        if any((folder / self.inside).glob("*/*.safetensors")):
            return folder
        return self._get([f"{top}{kind}" for kind in kinds], [f"{top}*/*"])


def _sha256(path: Path) -> str:
    with reading(path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
