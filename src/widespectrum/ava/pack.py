"""From the stage folders to the rows and the figures of the published dataset."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from widespectrum import pipeline, store
from widespectrum.errors import RunFolderError
from widespectrum.images import ImageReader

from .captioning import CAPTIONS, UNREAD
from .selection import COUNTS, ENTRIES
from .stage import Stage, read_stage
from .table import VOTES, photograph_rows
from .taxonomy import ELEMENTS

__all__ = ["Material", "counterpart_rows", "element_counts", "gather", "reason_counts"]

Rows = list[dict[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """What the stage folders hold: the rows by split, the rows of the selection, and every stage that was begun."""

    photographs: dict[str, Rows]
    entries: Rows
    counts: Rows
    stages: Mapping[str, Stage]


def gather(work: Path, *, with_votes: bool = True) -> Material:
    """The rows of what is in `work`; RunFolderError where nothing was selected yet."""
    found = {name: read_stage(work, name) for name in ("read", "select", "recaption", "counterpart")}
    stages = {name: stage for name, stage in found.items() if stage is not None}
    if "select" not in stages or stages["select"].summary is None:
        raise RunFolderError(f"{work} holds no finished selection: run the steps read and select first")
    read, recaption = stages.get("read"), stages.get("recaption")
    entries = stages["select"].read("entries", ENTRIES)
    votes = read.read("votes", VOTES) if read and read.summary and with_votes else None
    captions = (recaption.read("captions", CAPTIONS), recaption.read("unread", UNREAD)) if recaption else None
    return Material(
        photographs=photograph_rows(entries, votes=votes, captions=captions),
        entries=entries.to_pylist(),
        counts=stages["select"].read("counts", COUNTS).to_pylist(),
        stages=stages,
    )


def counterpart_rows(folder: Path, wanted: Sequence[int]) -> Iterator[dict[str, Any]]:
    """The rows of the config `counterparts` for the photographs `wanted`, by id, their images read a few at a time."""
    prompts = {prompt.prompt_id: prompt for prompt in pipeline.read_prompts(folder)}
    names = ("prompt_id", "image_id", "generator", "seed", "status", "detail", "path")
    made = store.read(folder, "images", names).to_pylist()
    by_id = {int(prompts[row["prompt_id"]].pair_id.removeprefix("ava/")): row for row in made}
    reader = ImageReader(folder)
    for ava_id in sorted(set(wanted) & set(by_id)):
        row = by_id[ava_id]
        image = {"bytes": reader.content(row["image_id"]), "path": row["path"]} if row["image_id"] else None
        own = {name: row[name] for name in ("generator", "seed", "status", "detail")}
        yield {"ava_id": ava_id, "prompt": prompts[row["prompt_id"]].text, **own, "image": image}


def element_counts(photographs: Mapping[str, Rows]) -> list[tuple[str, int, int]]:
    """For every element: its name, how many photographs its queries selected, how many of the split test carry it."""
    rows = [row for split in photographs.values() for row in split]
    selected = Counter(element for row in rows for element in row["query_elements"] or ())
    carried = Counter(element for row in photographs.get("test", ()) for element in row["elements"] or ())
    return [(element, selected[element], carried[element]) for element in ELEMENTS]


def reason_counts(photographs: Mapping[str, Rows]) -> list[tuple[str, int]]:
    """What became of the selected photographs: how many were kept, left out for each reason, or not looked at yet."""
    names = {"test": "in the split `test`", "pending": "not looked at yet"}
    found = Counter(names.get(split) or row["reason"] for split, rows in photographs.items() for row in rows)
    return found.most_common()


def left_out(stage: Stage) -> int:
    """How many photographs a generator could not start from."""
    path = stage.folder / "left_out.json"
    return len(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else 0
