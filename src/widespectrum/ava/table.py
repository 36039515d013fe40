"""The tables that are published: votes, selection, elements and captions of each photograph, by AVA id."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from widespectrum.errors import InputError

from .captioning import CAPTION_NAMES
from .reader import AvaVotes, vote_statistics

__all__ = [
    "COUNTERPARTS",
    "PHOTOGRAPHS",
    "SELECTION",
    "VOTES",
    "photograph_rows",
    "votes_table",
]

VOTES = pa.schema(
    [
        ("ava_id", pa.int64()),
        ("votes", pa.list_(pa.int32())),
        ("vote_mean", pa.float64()),
        ("vote_sd", pa.float64()),
        ("vote_count", pa.int64()),
        ("challenge_id", pa.int64()),
        ("challenge", pa.string()),
        ("tags", pa.list_(pa.string())),
        ("styles", pa.list_(pa.string())),
    ]
)
"""AVA.txt with names: one row per photograph. What has no name, or no file that names it, is null."""

PHOTOGRAPHS = {
    "ava_id": "int64",
    "status": "string",
    "reason": "string",
    "detail": "string",
    "elements": "list<string>",
    "query_elements": "list<string>",
    "votes": "list<int32>",
    "vote_mean": "float64",
    "vote_sd": "float64",
    "vote_count": "int64",
    "challenge_id": "int64",
    "challenge": "string",
    "styles": "list<string>",
    "tags": "list<string>",
    **dict.fromkeys(CAPTION_NAMES, "string"),
    "selection_query": "string",
    "selection_similarity": "float64",
}
"""Columns of the config `photographs`."""

SELECTION = {
    "ava_id": "int64",
    "element": "string",
    "query": "string",
    "similarity": "float64",
    "rank": "int64",
}
"""Columns of the config `selection`: one row per photograph and query."""

COUNTERPARTS = {
    "ava_id": "int64",
    "prompt": "string",
    "generator": "string",
    "seed": "int64",
    "status": "string",
    "detail": "string",
    "image": "image",
}
"""Columns of the config `counterparts`: what a generator made of the clean caption."""

_FROM_VOTES = tuple(name for name in VOTES.names if name != "ava_id")
_FROM_CAPTIONS = ("status", "reason", "detail", "elements", *CAPTION_NAMES)


def _names(numbers: NDArray[np.int64], names: Mapping[int, str] | None) -> pa.Array:
    """The name of every number; null for one that has none."""
    if names is None:
        return pa.nulls(len(numbers), pa.string())
    known = np.array(sorted(names), dtype=np.int64)
    places = np.minimum(np.searchsorted(known, numbers), len(known) - 1)
    indices = pa.array(places, mask=known[places] != numbers)
    return pa.array([names[number] for number in known.tolist()]).take(indices)


def _tag_lists(votes: AvaVotes, tags: Mapping[int, str] | None) -> pa.Array:
    """The names of the tags of each photograph; a tag number 0 is none."""
    if tags is None:
        return pa.nulls(len(votes.ids), pa.list_(pa.string()))
    used = votes.tags > 0
    offsets = np.concatenate([[0], np.cumsum(used.sum(axis=1))]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), _names(votes.tags[used], tags))


def votes_table(
    votes: AvaVotes,
    *,
    challenges: Mapping[int, str] | None = None,
    tags: Mapping[int, str] | None = None,
    styles: Mapping[int, Sequence[str]] | None = None,
) -> pa.Table:
    """The columns of VOTES, in the order of AVA.txt. `challenges` and `tags`: number → name; `styles`: id → names.

    `vote_sd` is the population standard deviation of the votes of a photograph.
    """
    mean, spread, count = vote_statistics(votes.votes)
    offsets = pa.array(np.arange(0, 10 * len(votes.ids) + 1, 10, dtype=np.int32))
    labels = None if styles is None else [styles.get(ava_id) for ava_id in votes.ids.tolist()]
    columns = {
        "ava_id": votes.ids,
        "votes": pa.ListArray.from_arrays(offsets, pa.array(votes.votes.astype(np.int32).ravel())),
        "vote_mean": mean,
        "vote_sd": spread,
        "vote_count": count,
        "challenge_id": pa.array(votes.challenges, mask=votes.challenges == 0),
        "challenge": _names(votes.challenges, challenges),
        "tags": _tag_lists(votes, tags),
        "styles": pa.nulls(len(votes.ids), pa.list_(pa.string())) if labels is None else labels,
    }
    return pa.table(columns, schema=VOTES)


def _best_entries(entries: pa.Table) -> dict[int, dict[str, Any]]:
    """By photograph: the query in which it stands highest, its cosine, and the elements of all its queries."""
    order = [("rank", "ascending"), ("similarity", "descending"), ("query", "ascending")]
    found: dict[int, dict[str, Any]] = {}
    for row in entries.sort_by(order).to_pylist():
        first = {
            "selection_query": row["query"],
            "selection_similarity": row["similarity"],
            "query_elements": [],
        }
        elements = found.setdefault(row["ava_id"], first)["query_elements"]
        if row["element"] and row["element"] not in elements:
            elements.append(row["element"])
    return found


def _votes_of(votes: pa.Table, ids: Sequence[int]) -> dict[int, dict[str, Any]]:
    rows = votes.filter(pc.is_in(votes["ava_id"], value_set=pa.array(ids, pa.int64()))).to_pylist()
    found = {row["ava_id"]: row for row in rows}
    if absent := [ava_id for ava_id in ids if ava_id not in found]:
        raise InputError(
            f"{len(absent)} selected photographs are not in AVA.txt, the first is {absent[0]}; "
            "select from the same release of AVA that was read"
        )
    return found


def _caption_rows(captions: pa.Table, unread: pa.Table) -> dict[int, dict[str, Any]]:
    found = {row["ava_id"]: {**row, "status": "rejected"} for row in unread.to_pylist()}
    return found | {row["ava_id"]: row for row in captions.to_pylist()}


def photograph_rows(
    entries: pa.Table, *, votes: pa.Table | None, captions: tuple[pa.Table, pa.Table] | None
) -> dict[str, list[dict[str, Any]]]:
    """Rows of the config `photographs` by split, each in the order of ids.

    `entries`: the selection; `votes`: the columns of VOTES; `captions`: the tables of captions and of unread
    photographs. Without captions all rows are in `test`, with the status `selected`; with them `test` holds what was
    kept, `rejected` what was not with its reason, and `pending` what was not looked at yet.
    """
    selected = _best_entries(entries)
    ids = sorted(selected)
    votes_by_id = {} if votes is None else _votes_of(votes, ids)
    seen = {} if captions is None else _caption_rows(*captions)
    splits: dict[str, list[dict[str, Any]]] = {}
    for ava_id in ids:
        answer = seen.get(ava_id, {"status": "selected" if captions is None else "pending"})
        row = dict.fromkeys(PHOTOGRAPHS) | {"ava_id": ava_id} | selected[ava_id]
        row |= {name: votes_by_id.get(ava_id, {}).get(name) for name in _FROM_VOTES}
        row |= {name: answer.get(name) or None for name in _FROM_CAPTIONS}
        split = row["status"] if row["status"] in ("rejected", "pending") else "test"
        splits.setdefault(split, []).append(row)
    if not splits.get("test"):
        raise InputError("no photograph is left for the split test: look at the reasons of the rejections")
    return {split: splits[split] for split in ("test", "rejected", "pending") if split in splits}
