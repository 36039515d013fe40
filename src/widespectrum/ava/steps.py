"""The steps of the builder `ava_anti_aesthetic`, each with a folder of its own below `work`.

    read → votes with names; embed → embeddings; select → who is in; recaption → captions; counterpart → clean images

Every step says in one line what it came to.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from widespectrum.chat import Chat, Endpoint
from widespectrum.config import parse_model
from widespectrum.errors import InputError, ModelError, RunFolderError
from widespectrum.generators import load_generator
from widespectrum.registry import label
from widespectrum.store import write_file
from widespectrum.types import digest

from .captioning import CAPTIONS, check_root, photograph_path, prompt_digest, recaption
from .counterparts import make_counterparts
from .embedding import EmbeddingModel, embed_images, embed_texts
from .queries import Query, calibrated, query_set, query_texts, read_authors_index
from .reader import LAST_TAG, read_names, read_styles, read_votes
from .recorded import agreement, read_recorded
from .selection import COUNTS, ENTRIES, Selection, select
from .similarity import Array
from .stage import Stage, file_digest, open_stage, read_stage
from .table import VOTES, votes_table
from .vectors import ImageVectors, open_image_vectors, read_text_vectors, save_text_vectors

__all__ = [
    "TextModel",
    "Wanted",
    "embed",
    "make_clean",
    "read",
    "recaption_selected",
    "select_photographs",
    "selected_ids",
]

_STYLE_FILES = ("styles.txt", "train.jpgl", "train.lab", "test.jpgl", "test.multilab")


def _beside(given: Path | None, ava_txt: Path, name: str) -> Path | None:
    """The file that was named, or the one of AVA's release beside AVA.txt; None where there is neither."""
    beside = ava_txt.parent / name
    return given or (beside if beside.exists() else None)


def read(work: Path, ava_txt: Path, *, challenges: Path | None, tags: Path | None, styles: Path | None) -> str:
    """Read AVA.txt and the files that name its challenges, tags and styles; default: those beside it."""
    challenges, tags = _beside(challenges, ava_txt, "challenges.txt"), _beside(tags, ava_txt, "tags.txt")
    styles = _beside(styles, ava_txt, "style_image_lists")
    inputs = {
        "AVA.txt": file_digest(ava_txt),
        "challenges.txt": file_digest(challenges) if challenges else None,
        "tags.txt": file_digest(tags) if tags else None,
        "style_image_lists": digest([file_digest(styles / name) for name in _STYLE_FILES]) if styles else None,
    }
    stage = open_stage(work, "read", inputs)
    if stage.summary is None:
        table = votes_table(
            read_votes(ava_txt),
            challenges=read_names(challenges) if challenges else None,
            tags=read_names(tags, last=LAST_TAG) if tags else None,
            styles=read_styles(styles) if styles else None,
        )
        stage.write("votes", table)
        unnamed = int(table["challenge"].null_count - table["challenge_id"].null_count) if challenges else 0
        stage = stage.finish({"photographs": table.num_rows, "challenges_without_a_name": unnamed})
    said = dict(stage.summary or {})
    told = f"{said['photographs']:,} photographs"
    if said["challenges_without_a_name"]:
        told += f", {said['challenges_without_a_name']:,} of them with a challenge that challenges.txt does not name"
    absent = [name for name, value in inputs.items() if value is None]
    return told + (f"; without {', '.join(absent)}: not found beside AVA.txt" if absent else "")


def _files(work: Path, root: Path) -> tuple[list[int], int]:
    """The ids to embed, and how many photographs of `root` are not in AVA.txt."""
    there = {int(path.stem) for path in root.glob("*.jpg") if path.stem.isdecimal()}
    if not there:
        raise InputError(f"{root.absolute()} holds no photographs; expected files called <id>.jpg")
    stage = read_stage(work, "read")
    if stage is None or stage.summary is None:
        return sorted(there), 0
    known = stage.read("votes", VOTES)["ava_id"].to_pylist()
    return sorted(known), len(there - set(known))


def embed(work: Path, root: Path, model: EmbeddingModel, *, batch_size: int) -> str:
    """Embed the photographs `<root>/<id>.jpg`: those of AVA.txt where it was read, else all that are there."""
    check_root(root)
    ids, strangers = _files(work, root)
    files = [(ava_id, photograph_path(root, ava_id)) for ava_id in ids]
    found = embed_images(model, files, work / "embed", batch_size=batch_size)
    told = f"{found.rows:,} photographs embedded by {model.spec}"
    if found.failed:
        told += f"; {found.failed:,} are missing or could not be opened, listed in {work / 'embed' / 'failed.csv'}"
    return told + (f"; {strangers:,} files are not in AVA.txt and were left out" if strangers else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What to select with: our queries, a file of queries, the authors' table, or the authors' recorded outcome."""

    queries: Path | None = None
    like_authors: Path | None = None
    recorded: Path | None = None
    share: float | None = None
    family: str = ""
    cap: float | None = None

    def __post_init__(self) -> None:
        if self.queries and self.like_authors:
            raise InputError("--queries and --like-authors are two sets of queries; give one of them")
        if self.share and self.family:
            raise InputError("--share and --thresholds are two rules for the same queries; give one of them")
        if self.like_authors and (self.share or self.family):
            raise InputError("--like-authors brings its own thresholds; leave --share and --thresholds out")
        if self.recorded and not self.like_authors and (self.queries or self.share or self.family or self.cap):
            raise InputError(
                "--recorded takes over a selection as it is; leave --queries, --share, --thresholds and --cap out, or "
                "compare it with a replay (--like-authors)"
            )

    def load(self) -> list[Query]:
        """The queries."""
        if self.like_authors:
            return read_authors_index(self.like_authors)
        return query_set(self.queries, share=self.share, family=self.family)

    def source(self) -> dict[str, Any]:
        """Which file the queries come from, for the provenance."""
        path = self.like_authors or self.queries
        kind = "the authors' table" if self.like_authors else "a file" if self.queries else "our own"
        return {"queries_from": kind, "queries_sha256": file_digest(path) if path else None}


TextModel = Callable[[], EmbeddingModel]


def _text_vectors(images: ImageVectors, texts: Sequence[str], source: Path | TextModel | None) -> dict[str, Array]:
    """The embeddings of the texts, from a folder or made now by the model of the images."""
    if source is None:
        raise InputError(
            f"the queries have to be embedded by {images.model} too: name it with --model, or a folder with "
            "--query-embeddings"
        )
    if isinstance(source, Path):
        return read_text_vectors(source, images.model)
    model = source()
    if str(model.spec) != images.model:
        raise InputError(f"the images were embedded by {images.model} and --model is {model.spec}; use the same model")
    return dict(zip(texts, embed_texts(model, texts), strict=True))


def select_photographs(work: Path, wanted: Wanted, embeddings: Path | None, source: Path | TextModel | None) -> str:
    """Select by queries over `embeddings` (default: those of the step embed), or take over a recorded selection.

    `source` is the folder with the embeddings of the queries, or gives the model to embed them with.
    """
    if wanted.recorded and not wanted.like_authors:
        return _take_over(work, wanted.recorded)
    folder = embeddings or work / "embed"
    images, queries = open_image_vectors(folder), wanted.load()
    inputs = {
        "model": images.model,
        "embeddings": file_digest(folder / "embeddings.npy"),
        "ids": file_digest(folder / "ids.npy"),
        "queries": digest([asdict(query) for query in queries]),
        "query embeddings": file_digest(source / "embeddings.npy") if isinstance(source, Path) else None,
        "cap": wanted.cap,
        **wanted.source(),
    }
    stage = open_stage(work, "select", inputs)
    if stage.summary is None:
        vectors = _text_vectors(images, query_texts(queries), source)
        found = select(images.embeddings, images.ids, queries, vectors, cap=wanted.cap)
        if not found.pool:
            raise InputError(
                f"no query keeps any of the {len(images.ids):,} photographs: thresholds hold for one model only; lower "
                "them, or select by share (--share)"
            )
        _keep_queries(stage, found, queries, vectors)
        stage = _store(stage, found)
    told = _told(stage)
    if wanted.recorded:
        shared = agreement(_stored(stage), read_recorded(wanted.recorded))
        told += "; beside the recorded entries: " + ", ".join(f"{name} {n:,}" for name, n in shared.items())
    return told


def _keep_queries(stage: Stage, found: Selection, queries: Sequence[Query], vectors: Mapping[str, Array]) -> None:
    """Beside the selection: the queries with the cosines that their shares came to, and their embeddings."""
    thresholds = dict(zip(found.counts["query"].to_pylist(), found.counts["threshold"].to_pylist(), strict=True))
    write_file(stage.folder / "calibrated.json", calibrated(queries, thresholds).encode())
    used = {text: vectors[text] for text in query_texts(queries)}
    save_text_vectors(stage.folder / "query_embeddings", used, stage.inputs["model"])


def _take_over(work: Path, path: Path) -> str:
    stage = open_stage(work, "select", {"recorded outcome": file_digest(path)})
    return _told(stage if stage.summary else _store(stage, read_recorded(path)))


def _store(stage: Stage, found: Selection) -> Stage:
    stage.write("entries", found.entries)
    stage.write("counts", found.counts)
    return stage.finish({"photographs": found.pool, "entries": found.entries.num_rows, "images_per_query": found.cap})


def _stored(stage: Stage) -> Selection:
    entries, counts = stage.read("entries", ENTRIES), stage.read("counts", COUNTS)
    return Selection(entries=entries, counts=counts, pool=len(entries["ava_id"].unique()), cap=None)


def _told(stage: Stage) -> str:
    said, counts = dict(stage.summary or {}), stage.read("counts", COUNTS)
    dropped = {name: sum(value or 0 for value in counts[name].to_pylist()) for name in ("negative", "over_cap")}
    return (
        f"{said['photographs']:,} photographs by {counts.num_rows} queries ({said['entries']:,} entries; dropped by a "
        f"negative query {dropped['negative']:,}, over the cap {dropped['over_cap']:,})"
    )


def selected_ids(work: Path) -> list[int]:
    """The photographs that were selected, by id; RunFolderError before that."""
    stage = read_stage(work, "select")
    if stage is None or stage.summary is None:
        raise RunFolderError(f"{work} holds no finished selection: run the step select first")
    return sorted(stage.read("entries", ENTRIES)["ava_id"].unique().to_pylist())


def recaption_selected(work: Path, root: Path, vlm: str, *, limit: int | None, concurrency: int) -> str:
    """Let a model describe the selected photographs that it has not seen yet, at most `limit` of them."""
    ids = selected_ids(work)
    endpoint = Endpoint.parse(vlm)
    stage = open_stage(work, "recaption", {"vlm": str(endpoint), "prompt": prompt_digest()})
    with Chat(endpoint, stage.folder / "journal.jsonl", concurrency=concurrency) as chat:
        counts = recaption(stage, ids, root, chat, limit=limit)
    found = ", ".join(f"{reason} {n:,}" for reason, n in counts.items())
    waiting = len(ids) - sum(counts.values())
    stage.finish(counts)
    return f"{found}; {waiting:,} not looked at yet"


def make_clean(work: Path, generator: str, *, seed: int, root: Path | None, batch_size: int) -> str:
    """Make the clean counterparts of the photographs that were kept."""
    stage = read_stage(work, "recaption")
    captions = {} if stage is None else _clean_captions(stage, set(selected_ids(work)))
    if not captions:
        raise RunFolderError(f"{work} holds no clean captions: run the step recaption first")
    choice = parse_model(generator)
    loaded, name = load_generator(choice.name, **choice.options), label(choice.name, choice.options)
    inputs = {
        "generator": str(loaded.spec),
        "label": name,
        "starts from photographs": loaded.needs_images,
        "seed": seed,
    }
    target = open_stage(work, "counterpart", inputs)
    made = make_counterparts(target.folder, captions, (name, loaded), seed=seed, root=root, batch_size=batch_size)
    write_file(target.folder / "left_out.json", (json.dumps(made.left_out, indent=1) + "\n").encode())
    if made.failures:
        raise ModelError(f"{made.failures[0]} ({len(made.failures)} batches failed): run the same command again")
    said = {"images": made.made, "refusals": made.refused, "photographs that could not be opened": len(made.left_out)}
    target.finish(said)
    return ", ".join(f"{name} {n:,}" for name, n in said.items())


def _clean_captions(stage: Stage, selected: set[int]) -> Mapping[int, str]:
    rows = stage.read("captions", CAPTIONS).to_pylist()
    kept = [row for row in rows if row["status"] == "kept" and row["ava_id"] in selected]
    return {row["ava_id"]: row["clean_caption"] for row in kept}
