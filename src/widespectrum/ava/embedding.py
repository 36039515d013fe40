"""Embeddings of many image files on disk, made in parts that a later run takes up.

The folder then holds `embeddings.npy` (N, D) float16, rows of length 1; `ids.npy` (N,); `failed.csv` (id, path, reason)
for the images that could not be opened, which have no row; and `model.json`, written last, so that where it is there
the others belong together. `parts/` holds the same rows as they were made; it may be deleted when all is done, and then
the next run starts anew.
"""

from __future__ import annotations

import csv
import hashlib
import importlib.metadata
import io
import itertools
import json
import os
import warnings
import zipfile
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from widespectrum.embedding_models import EmbeddingModel, load_model
from widespectrum.embedding_towers import Prepared
from widespectrum.errors import InputError, ModelError, RunFolderError
from widespectrum.prompts.images import open_photograph
from widespectrum.store import write_file

__all__ = ["Embedded", "EmbeddingModel", "embed_images", "embed_texts", "load_model"]

File = tuple[int | str, Path]

_PART = 512
_LONGEST = 200
_PACKAGES = ("torch", "transformers", "open_clip_torch", "pillow", "numpy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedded:
    """What a folder of embeddings holds: `rows` images of `dimension` numbers, and `failed` that are left out."""

    rows: int
    dimension: int
    failed: int


@dataclass(frozen=True, slots=True)
class _Part:
    """Files that are embedded together; `path` changes with their ids, names and sizes."""

    path: Path
    files: Sequence[File]


@dataclass(frozen=True, slots=True)
class _Rows:
    """A finished part: `vectors` (n, D) float16 of the files at `places`; the other places with their reasons."""

    vectors: NDArray[np.float16]
    places: NDArray[np.int64]
    failed: NDArray[np.int64]
    reasons: NDArray[np.str_]


def embed_images(
    model: EmbeddingModel, files: Sequence[File], out: Path, *, batch_size: int = 32, workers: int = 4
) -> Embedded:
    """Embed image files, each an (id, path), into the folder `out`; what is there already is kept.

    `workers` threads open images ahead of the model. After a crash the same call gives the same bytes as if there had
    been none; files that came, went or changed size are embedded, together with their neighbors, when it is repeated.

    Raises InputError for ids that repeat and where no image at all could be opened; RunFolderError for a folder of
    another model or batch size; ModelError where the model returns something other than finite numbers.
    """
    files = [(int(image_id) if isinstance(image_id, Integral) else image_id, path) for image_id, path in files]
    _check(files, batch_size, workers)
    parts = _parts(files, out / "parts", max(1, _PART // batch_size) * batch_size)
    _claim(out / "parts" / "plan.json", {"model": str(model.spec), "batch_size": batch_size})
    todo = [part for part in parts if not part.path.exists()]
    done = len(files) - sum(len(part.files) for part in todo)
    bar = tqdm(total=len(files), initial=done, desc="embed", unit="image", delay=2, leave=False, dynamic_ncols=True)
    # Once and around all threads: open_photograph sets it too, but such settings are not kept apart by thread.
    with bar, warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        if todo:
            model.load()
        opened = _opened(model, [file for part in todo for file in part.files], workers, ahead=2 * batch_size)
        for part in todo:
            write_file(part.path, _embed(model, part, itertools.islice(opened, len(part.files)), batch_size, bar))
    return _assemble(model, parts, out)


def embed_texts(model: EmbeddingModel, texts: Sequence[str], *, batch_size: int = 64) -> NDArray[np.float32]:
    """Embeddings (Q, D) of texts, rows of length 1; a text beyond the model's token limit is cut there."""
    if not texts:
        raise InputError("there is no text to embed; expected at least one")
    batches = [model.encode_texts(texts[at : at + batch_size]) for at in range(0, len(texts), batch_size)]
    return _unit(np.concatenate(batches), [repr(text) for text in texts])


def _check(files: Sequence[File], batch_size: int, workers: int) -> None:
    if not files:
        raise InputError("there is no image to embed; expected at least one")
    if batch_size < 1 or workers < 1:
        raise InputError(f"expected a batch size and workers of at least 1, got {batch_size} and {workers}")
    if len({type(image_id) for image_id, _ in files}) > 1:
        raise InputError("some image ids are numbers and some are texts; expected one kind")
    seen: set[int | str] = set()
    for image_id, path in files:
        if image_id in seen:
            raise InputError(
                f"the image id {image_id!r} comes twice, the second time for {path}; expected every id once"
            )
        seen.add(image_id)


def _parts(files: Sequence[File], folder: Path, size: int) -> list[_Part]:
    parts = []
    for number, start in enumerate(range(0, len(files), size)):
        chosen = files[start : start + size]
        key = json.dumps([[image_id, path.name, _size(path)] for image_id, path in chosen])
        name = f"part-{number:06d}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.npz"
        parts.append(_Part(folder / name, chosen))
    return parts


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _claim(path: Path, plan: dict[str, str | int]) -> None:
    """Write what the parts are made with; RunFolderError where some are there that were made with something else."""
    if not path.exists() or not any(path.parent.glob("part-*.npz")):
        write_file(path, (json.dumps(plan, indent=1) + "\n").encode())
        return
    try:
        begun = dict(json.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:
        raise RunFolderError(f"{path} is damaged ({error}): delete {path.parent} and run again") from error
    for key, value in plan.items():
        if begun.get(key) != value:
            raise RunFolderError(
                f"{path.parent.parent} was begun with the {key.replace('_', ' ')} {begun.get(key)}, now it is {value}: "
                "go on with the first, or choose another folder"
            )


def _opened(model: EmbeddingModel, files: Iterable[File], workers: int, *, ahead: int) -> Iterator[Prepared | str]:
    """What the model reads of each file, in order, or why it cannot be had; `ahead` files are opened beforehand."""
    waiting: deque[Future[Prepared | str]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for _, path in files:
                waiting.append(pool.submit(_open, model, path))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def _open(model: EmbeddingModel, path: Path) -> Prepared | str:
    try:
        image = open_photograph(path)
        if max(image.size) > _LONGEST * min(image.size):
            width, height = image.size
            return f"{path} is a strip of {width} x {height} pixels, expected at most 1:{_LONGEST}; cut it"
        return model.prepare(image)
    except (InputError, OSError, ValueError) as error:
        return str(error) or type(error).__name__


def _embed(model: EmbeddingModel, part: _Part, opened: Iterable[Prepared | str], batch_size: int, bar: tqdm) -> bytes:
    """The finished part as the bytes of an npz file."""
    vectors: list[NDArray[np.float16]] = []
    places: list[int] = []
    failed: dict[int, str] = {}
    batch: list[Prepared] = []

    def flush() -> None:
        ids = [f"image {part.files[place][0]}" for place in places[len(places) - len(batch) :]]
        vectors.append(_unit(model.encode_images(batch), ids).astype(np.float16))
        batch.clear()

    for place, each in enumerate(opened):
        if isinstance(each, str):
            failed[place] = each
        else:
            batch.append(each)
            places.append(place)
        if len(batch) == batch_size:
            flush()
        bar.update()
    if batch:
        flush()
    return _npz(vectors, places, failed)


def _npz(vectors: Sequence[NDArray[np.float16]], places: Sequence[int], failed: dict[int, str]) -> bytes:
    content = io.BytesIO()
    np.savez(
        content,
        vectors=np.concatenate(vectors) if vectors else np.empty((0, 0), np.float16),
        places=np.array(places, np.int64),
        failed=np.array(list(failed), np.int64),
        reasons=np.array(list(failed.values()), np.str_),
    )
    return content.getvalue()


def _unit(vectors: NDArray[np.float32], names: Sequence[str]) -> NDArray[np.float32]:
    """Rows of length 1; ModelError names the first that has no direction."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    wrong = ~np.isfinite(lengths[:, 0]) | (lengths[:, 0] == 0)
    if wrong.any():
        raise ModelError(
            f"the model's embedding of {names[int(wrong.argmax())]} is zero or not finite; expected a direction: "
            "try the dtype float32, or copy the model's weights again"
        )
    unit: NDArray[np.float32] = vectors / lengths
    return unit


def _read(part: _Part) -> _Rows:
    try:
        with part.path.open("rb") as file, np.load(file, allow_pickle=False) as content:
            rows = _Rows(content["vectors"], content["places"], content["failed"], content["reasons"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise RunFolderError(f"{part.path} is damaged ({error}): delete it and run again") from error
    known = sorted([*rows.places.tolist(), *rows.failed.tolist()]) == list(range(len(part.files)))
    if not known or len(rows.vectors) != len(rows.places) or len(rows.failed) != len(rows.reasons):
        raise RunFolderError(f"{part.path} does not hold its {len(part.files)} images: delete it and run again")
    return rows


def _assemble(model: EmbeddingModel, parts: Sequence[_Part], out: Path) -> Embedded:
    """Write the four files out of all parts."""
    (out / "model.json").unlink(missing_ok=True)
    ids: list[int | str] = []
    failed: list[tuple[int | str, Path, str]] = []
    shapes = []
    for part in parts:
        rows = _read(part)
        shapes.append(rows.vectors.shape)
        ids += [part.files[place][0] for place in rows.places]
        failed += [(*part.files[at], why) for at, why in zip(rows.failed.tolist(), rows.reasons.tolist(), strict=True)]
    write_file(out / "failed.csv", _csv(failed))
    if not ids:
        raise InputError(f"none of {len(failed)} images could be opened; {out / 'failed.csv'} says why for each")
    dimension = max(width for _, width in shapes)
    _write_vectors(out / "embeddings.npy", parts, (len(ids), dimension))
    content = io.BytesIO()
    np.save(content, np.array(ids, np.int64 if isinstance(ids[0], int) else np.str_), allow_pickle=False)
    write_file(out / "ids.npy", content.getvalue())
    embedded = Embedded(rows=len(ids), dimension=dimension, failed=len(failed))
    write_file(out / "model.json", _description(model, embedded))
    return embedded


def _write_vectors(path: Path, parts: Sequence[_Part], shape: tuple[int, int]) -> None:
    temporary = path.with_name(f".tmp-{path.name}")
    whole = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.float16, shape=shape)
    at = 0
    for part in parts:
        vectors = _read(part).vectors
        if len(vectors):
            whole[at : at + len(vectors)] = vectors
            at += len(vectors)
    whole.flush()
    del whole
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)


def _csv(failed: Sequence[tuple[int | str, Path, str]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["id", "path", "reason"])
    writer.writerows(failed)
    return text.getvalue().encode()


def _description(model: EmbeddingModel, embedded: Embedded) -> bytes:
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    content = {
        "model": str(model.spec),
        "rows": embedded.rows,
        "dimension": embedded.dimension,
        "failed": embedded.failed,
        "dtype": "float16",
        "normalized": True,
        "packages": versions,
    }
    return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()
