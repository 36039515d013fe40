"""What the loopback Hub holds: repositories, commits and files, with the ids that git would give them."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

NOT_FOUND = {"entry": "EntryNotFound", "revision": "RevisionNotFound", "repository": "RepoNotFound"}


class Refusal(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, message: str, code: str = "", **more: Any) -> None:
        self.status, self.body = status, {"error": message, **more}
        self.headers = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {})}


def missing(what: str, name: str) -> Refusal:
    return Refusal(404, f"{what} {name} not found", NOT_FOUND[what])


class Blob(NamedTuple):
    content: bytes
    oid: str
    sha256: str
    lfs: bool


def make_blob(content: bytes, lfs: bool) -> Blob:
    sha256 = hashlib.sha256(content).hexdigest()
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {len(content)}\n".encode()
    stored = pointer if lfs else content
    return Blob(content, hashlib.sha1(b"blob %d\0" % len(stored) + stored).hexdigest(), sha256, lfs)


class Commit(NamedTuple):
    oid: str
    parent: str
    title: str
    description: str
    author: str
    date: str
    tree: dict[str, Blob]


@dataclass
class Repo:
    kind: str
    id: str
    private: bool
    sdk: str | None
    commits: dict[str, Commit] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    pull_requests: list[dict[str, Any]] = field(default_factory=list)
    gated: bool = False
    readers: set[str] = field(default_factory=set)
    """Users who have accepted the terms of a gated repository."""

    def commit(self, ref: str, tree: dict[str, Blob], parent: str, texts: tuple[str, str, str]) -> Commit:
        listing = [f"{path} {blob.oid}" for path, blob in sorted(tree.items())]
        oid = hashlib.sha1(json.dumps([parent, texts, listing, time.time_ns()]).encode()).hexdigest()
        date = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
        self.commits[oid] = made = Commit(oid, parent, *texts, date, tree)
        self.refs[ref] = oid
        return made

    def ref(self, revision: str) -> str | None:
        names = (revision, f"refs/heads/{revision}", f"refs/tags/{revision}")
        return next((name for name in names if name in self.refs), None)

    def at(self, revision: str) -> Commit:
        ref = self.ref(revision)
        if ref is None and revision not in self.commits:
            raise missing("revision", revision)
        return self.commits[self.refs[ref] if ref else revision]

    @property
    def files(self) -> dict[str, bytes]:
        """What the branch `main` holds."""
        return {path: blob.content for path, blob in self.at("main").tree.items()}

    @property
    def tags(self) -> dict[str, str]:
        return {ref.removeprefix("refs/tags/"): oid for ref, oid in self.refs.items() if ref.startswith("refs/tags/")}
