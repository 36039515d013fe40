"""Cosines between image embeddings that stay on disk and a few text embeddings."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from widespectrum.errors import InputError

__all__ = ["Array", "cosines", "exact_cosines", "rounding", "unit_rows"]

Array = NDArray[np.floating]

_CHUNK = 4096


def unit_rows(vectors: Array) -> NDArray[np.float64]:
    """Text vectors (T, D) of length 1, float64; InputError for one that is zero or not finite."""
    exact = np.asarray(vectors, dtype=np.float64)
    norms = np.linalg.norm(exact, axis=1, keepdims=True)
    if not (np.isfinite(norms).all() and norms.all()):
        raise InputError("a query embedding is zero or not finite; embed the queries again")
    unit: NDArray[np.float64] = exact / norms
    return unit


def rounding(dimension: int) -> float:
    """How far a cosine of `cosines` may lie from the exact one: float32 sums of `dimension` products."""
    return (dimension + 16) * 2.0**-23


def cosines(embeddings: Array, ids: NDArray[np.int64], texts: NDArray[np.float64]) -> NDArray[np.float32]:
    """Cosines (T, N) of every text (T, D, of length 1) with every image (N, D), float32.

    Only a chunk of `embeddings`, which may be memory-mapped float16, is in memory at a time. Their rows need not have
    length 1; InputError names the first image (by `ids`) whose row is zero or not finite.
    """
    count, dimension = embeddings.shape
    if texts.shape[1] != dimension:
        raise InputError(
            f"the images have {dimension} dimensions and the texts {texts.shape[1]}; use one model for both"
        )
    short = texts.astype(np.float32)
    found = np.empty((len(texts), count), dtype=np.float32)
    buffer = np.empty((_CHUNK, dimension), dtype=np.float32)
    bar = tqdm(total=count, desc="compare", delay=2, leave=False, dynamic_ncols=True)
    with bar, np.errstate(all="ignore"):
        for start in range(0, count, _CHUNK):
            chunk = buffer[: min(_CHUNK, count - start)]
            np.copyto(chunk, embeddings[start : start + len(chunk)], casting="same_kind")
            norms = np.sqrt(np.einsum("ij,ij->i", chunk, chunk))
            _check_norms(norms, ids[start : start + len(chunk)])
            np.divide(short @ chunk.T, norms, out=found[:, start : start + len(chunk)])
            bar.update(len(chunk))
    return found


def _check_norms(norms: Array, ids: NDArray[np.int64]) -> None:
    wrong = ~np.isfinite(norms) | (norms == 0)
    if wrong.any():
        raise InputError(f"the embedding of image {ids[wrong.argmax()]} is zero or not finite; embed this image again")


def exact_cosines(embeddings: Array, rows: NDArray[np.int64], texts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cosines (T, len(rows)) in float64: they depend on nothing but the two vectors."""
    found = np.empty((len(texts), len(rows)))
    for start in range(0, len(rows), _CHUNK):
        chosen = np.asarray(embeddings[rows[start : start + _CHUNK]], dtype=np.float64)
        norms = np.sqrt(np.einsum("ij,ij->i", chosen, chosen))
        for text, line in zip(texts, found, strict=True):
            line[start : start + len(chosen)] = np.einsum("ij,j->i", chosen, text) / norms
    return found
