"""The authors' selection as they recorded it: which photograph each of their commits took."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa

from widespectrum.errors import InputError
from widespectrum.prompts.tables import read_table

from .selection import COUNTS, ENTRIES, Selection

__all__ = ["agreement", "read_recorded"]

_ID = re.compile(r"[1-9][0-9]{0,17}")
_COMMIT = re.compile(r"[0-9a-f]{8}")


def read_recorded(path: Path) -> Selection:
    """The recorded outcome (`ava_commits.csv`: ava_id, commit_key) as a selection without cosines and ranks.

    A query is called by its commit key. InputError with the row for an id or a key that is none, and for a photograph
    that one commit takes twice.
    """
    seen: dict[tuple[int, str], int] = {}
    for number, row in read_table(path, ("ava_id", "commit_key"), ("source_bucket",)):
        ava_id, commit = str(row["ava_id"]), str(row["commit_key"])
        if not _ID.fullmatch(ava_id):
            raise InputError(f"{path}, row {number}: ava_id must be a positive integer, got {ava_id[:40]!r}")
        if not _COMMIT.fullmatch(commit):
            raise InputError(f"{path}, row {number}: commit_key must be 8 hexadecimal digits, got {commit[:40]!r}")
        if (first := seen.setdefault((int(ava_id), commit), number)) != number:
            raise InputError(
                f"{path}, row {number}: commit {commit} already took image {ava_id} in row {first}; remove one row"
            )
    rows = [{"ava_id": ava_id, "element": "", "query": commit} for ava_id, commit in seen]
    kept: dict[str, int] = {}
    for _, commit in seen:
        kept[commit] = kept.get(commit, 0) + 1
    counts = [{"query": commit, "element": "", "kept": number} for commit, number in kept.items()]
    return Selection(
        entries=pa.Table.from_pylist(rows, schema=ENTRIES),
        counts=pa.Table.from_pylist(counts, schema=COUNTS),
        pool=len({ava_id for ava_id, _ in seen}),
        cap=None,
    )


def agreement(selection: Selection, recorded: Selection) -> Mapping[str, int]:
    """How many (photograph, query) entries a replay and the recorded selection share, and how many each has alone."""
    replayed, known = (
        set(zip(each.entries["ava_id"].to_pylist(), each.entries["query"].to_pylist(), strict=True))
        for each in (selection, recorded)
    )
    return {"both": len(replayed & known), "replay_only": len(replayed - known), "recorded_only": len(known - replayed)}
