"""Embeddings as they lie on disk: of images by id, and of the texts of queries.

Both are folders with `embeddings.npy` (N, D; float16 or float32) and `model.json` (`model`, `dimension`); beside them
`ids.npy` (N,) for images, or `queries.json` (a list of N texts) for texts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from widespectrum.errors import InputError
from widespectrum.store import write_file

from .similarity import Array

__all__ = ["ImageVectors", "open_image_vectors", "read_text_vectors", "save_text_vectors"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImageVectors:
    """`embeddings` (N, D), memory-mapped; `ids` (N,) int64, unique; `model`: what made them."""

    embeddings: Array
    ids: NDArray[np.int64]
    model: str


def _load_array(path: Path, expected: str) -> NDArray[Any]:
    if not path.is_file():
        raise InputError(f"{path.absolute()}: there is no such file; expected {expected}")
    try:
        array: NDArray[Any] = np.lib.format.open_memmap(path, mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} is no array that NumPy saved, or is cut off ({error}): make it again") from None
    return array


def _load_json(path: Path, expected: str) -> Any:
    if not path.is_file():
        raise InputError(f"{path.absolute()}: there is no such file; expected {expected}")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise InputError(f"{path} is no JSON; expected {expected}") from None


def _open(folder: Path) -> tuple[Array, str]:
    """The embeddings of a folder, and what made them."""
    if not folder.is_dir():
        raise InputError(
            f"{folder.absolute()} is no folder; expected one with embeddings.npy and model.json: run the step embed, "
            "or name the folder of your own embeddings"
        )
    described = _load_json(folder / "model.json", "the name of the model; a folder without it is unfinished")
    model = described.get("model") if isinstance(described, dict) else None
    if not isinstance(model, str) or not model:
        raise InputError(f'{folder / "model.json"}: expected {{"model": <name>, "dimension": <number>}}')
    embeddings = _load_array(folder / "embeddings.npy", "embeddings of shape (N, D)")
    if embeddings.ndim != 2 or embeddings.dtype not in (np.float16, np.float32):
        raise InputError(
            f"{folder / 'embeddings.npy'}: expected float16 or float32 of shape (N, D), "
            f"got {embeddings.dtype} of shape {embeddings.shape}"
        )
    if described.get("dimension") != embeddings.shape[1]:
        raise InputError(
            f"{folder}: model.json says {described.get('dimension')} dimensions, embeddings.npy has "
            f"{embeddings.shape[1]}; take both from one run"
        )
    return embeddings, model


def open_image_vectors(folder: Path) -> ImageVectors:
    """The embeddings of images in `folder`; InputError where files are missing or do not belong together."""
    embeddings, model = _open(folder)
    ids = _load_array(folder / "ids.npy", "the ids of the images")
    if ids.ndim != 1 or ids.dtype.kind not in "iu" or len(ids) != len(embeddings):
        raise InputError(
            f"{folder / 'ids.npy'}: expected {len(embeddings)} whole numbers, got {ids.dtype} of shape {ids.shape}"
        )
    numbers = np.asarray(ids, dtype=np.int64)
    wrong = numbers < 1  # so is what does not fit into 64 bits
    wrong[np.delete(np.arange(len(numbers)), np.unique(numbers, return_index=True)[1])] = True
    if wrong.any():
        place = int(wrong.argmax())
        raise InputError(
            f"{folder / 'ids.npy'}, row {place + 1}: expected a positive number that is there once, got {ids[place]}"
        )
    return ImageVectors(embeddings=embeddings, ids=numbers, model=model)


def read_text_vectors(folder: Path, model: str) -> dict[str, Array]:
    """Text → embedding (D,) from `folder`; InputError where they were not made by `model`."""
    embeddings, made_by = _open(folder)
    if made_by != model:
        raise InputError(
            f"{folder} was made by {made_by} and the embeddings of the images by {model}; embed both with one model"
        )
    texts = _load_json(folder / "queries.json", "a list of the texts")
    if not isinstance(texts, list) or len(texts) != len(embeddings) or not all(isinstance(each, str) for each in texts):
        raise InputError(
            f"{folder / 'queries.json'}: expected a list of {len(embeddings)} texts, one for each embedding"
        )
    if twice := [text for text in texts if texts.count(text) > 1]:
        raise InputError(f"{folder / 'queries.json'}: the text {twice[0]!r} is there twice; embed every text once")
    return dict(zip(texts, np.asarray(embeddings, dtype=np.float32), strict=True))


def save_text_vectors(folder: Path, vectors: Mapping[str, Array], model: str) -> None:
    """Write a folder that `read_text_vectors` reads."""
    texts = list(vectors)
    stacked = np.stack([vectors[text] for text in texts]).astype(np.float32)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.json").unlink(missing_ok=True)
    with (folder / ".tmp-embeddings.npy").open("wb") as file:
        np.save(file, stacked, allow_pickle=False)
    (folder / ".tmp-embeddings.npy").replace(folder / "embeddings.npy")
    write_file(folder / "queries.json", (json.dumps(texts, ensure_ascii=False, indent=1) + "\n").encode())
    described = {"model": model, "dimension": stacked.shape[1]}
    write_file(folder / "model.json", (json.dumps(described, indent=1) + "\n").encode())
