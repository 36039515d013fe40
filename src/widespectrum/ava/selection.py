"""Which photographs the queries select: thresholds, negative queries, and a cap for each query.

For every query, in this order: an image is kept where its cosine reaches the query's threshold; dropped where it is
too similar to a negative query; dropped where the query has found more than its cap. The cosines that decide are
computed in float64, so that the outcome does not depend on chunks or threads; on another processor a cosine may differ
in its last digits, and with it an image that lies on a threshold to within them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from widespectrum.errors import InputError

from .queries import Query, query_texts
from .similarity import Array, cosines, exact_cosines, rounding, unit_rows

__all__ = ["COUNTS", "ENTRIES", "Selection", "select"]

ENTRIES = pa.schema(
    [
        ("ava_id", pa.int64()),
        ("element", pa.string()),
        ("query", pa.string()),
        ("similarity", pa.float64()),
        ("rank", pa.int64()),
    ]
)
"""One row per image and query that selected it; `rank` 1 is the most similar image of that query."""

COUNTS = pa.schema(
    [
        ("query", pa.string()),
        ("element", pa.string()),
        ("threshold", pa.float64()),
        ("images", pa.int64()),
        ("below_threshold", pa.int64()),
        ("negative", pa.int64()),
        ("over_cap", pa.int64()),
        ("kept", pa.int64()),
    ]
)
"""One row per query: the cosine that its rule came to, and where its images went, four counts that add up to all."""

Rows = NDArray[np.int64]
Cosines = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Selection:
    """`entries` (columns of ENTRIES, by query and rank), `counts` (COUNTS), `pool` (how many different images) and
    `cap` (how many images one query may keep; None where there was none).
    """

    entries: pa.Table
    counts: pa.Table
    pool: int
    cap: int | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Hits:
    """What one query found: rows of the images, best first, their cosines, and how many a negative query dropped."""

    rows: Rows
    similarity: Cosines
    threshold: float
    dropped: int


class _Similarities:
    """Cosines of texts and images: float32 for all of them, float64 where they decide."""

    def __init__(self, embeddings: Array, ids: Rows, vectors: Mapping[str, Array], texts: Sequence[str]) -> None:
        self._embeddings = embeddings
        self._line = {text: line for line, text in enumerate(texts)}
        self._texts = unit_rows(np.stack([vectors[text] for text in texts]))
        self._all = cosines(embeddings, ids, self._texts)
        self._margin = rounding(embeddings.shape[1])
        self._cuts: dict[tuple[str, int], float] = {}

    def exact(self, rows: Rows, texts: Sequence[str]) -> Cosines:
        """(len(texts), len(rows))"""
        return exact_cosines(self._embeddings, rows, self._texts[[self._line[text] for text in texts]])

    def at_least(self, text: str, cosine: float) -> tuple[Rows, Cosines]:
        """The images whose exact cosine with `text` is at least `cosine`."""
        rows = np.flatnonzero(self._all[self._line[text]] >= cosine - self._margin)
        exact = self.exact(rows, [text])[0]
        return rows[exact >= cosine], exact[exact >= cosine]

    def best(self, text: str, place: int) -> float:
        """The exact cosine of the image in `place` (1 is the most similar) among those of `text`."""
        if (text, place) not in self._cuts:
            line = self._all[self._line[text]]
            near = np.partition(line, len(line) - place)[len(line) - place] - 2 * self._margin
            exact = self.exact(np.flatnonzero(line >= near), [text])[0]
            self._cuts[text, place] = float(np.sort(exact)[-place])
        return self._cuts[text, place]


def _share_of(count: int, share: float) -> int:
    # Written as a decimal, 0.05 is 1/20; as a binary float it is a little more.
    return int(Fraction(str(share)) * count)


def _hits(similarities: _Similarities, ids: Rows, query: Query) -> _Hits:
    count = len(ids)
    if query.threshold is not None:
        threshold = query.threshold
    else:
        threshold = similarities.best(query.text, max(1, _share_of(count, query.share or 0)))
    rows, similarity = similarities.at_least(query.text, threshold)
    fine: NDArray[np.bool_] = np.ones(len(rows), dtype=bool)
    if query.negatives:
        cuts = [_negative_cut(similarities, query, text, count) for text in query.negatives]
        fine = ~np.any(similarities.exact(rows, query.negatives) > np.array(cuts)[:, None], axis=0)
    order = np.lexsort((ids[rows[fine]], -similarity[fine]))
    return _Hits(
        rows=rows[fine][order],
        similarity=similarity[fine][order],
        threshold=threshold,
        dropped=int(np.count_nonzero(~fine)),
    )


def _negative_cut(similarities: _Similarities, query: Query, text: str, count: int) -> float:
    """The cosine above which a negative drops an image."""
    if query.negative_threshold is not None:
        return query.negative_threshold
    return similarities.best(text, _share_of(count, query.negative_share or 0) + 1)


def _cap(hits: Sequence[_Hits], share: float) -> int:
    """The largest m such that, when every query keeps its best m, m is at most `share` of the images that remain.

    An image counts for every query that keeps it. The images that remain under m are those whose best rank is at most
    m, so one pass over the ranks answers for all m.
    """
    if not 0 < share <= 1:
        raise InputError(f"the cap must be a share above 0 and at most 1, got {share}")
    largest = max((len(hit.rows) for hit in hits), default=0)
    if largest == 0:
        return 0
    best: dict[int, int] = {}
    for hit in hits:
        for rank, row in enumerate(hit.rows.tolist(), start=1):
            best[row] = min(rank, best.get(row, rank))
    pool = np.cumsum(np.bincount(list(best.values()), minlength=largest + 1))
    for cap in range(largest, 0, -1):
        if cap <= _share_of(int(pool[cap]), share):
            return cap
    finding = sum(len(hit.rows) > 0 for hit in hits)
    raise InputError(
        f"no selection keeps every query within {share:g} of the pool: {finding} of {len(hits)} queries found "
        f"{len(best):,} images; lower the thresholds, add queries, or allow a larger share with --cap"
    )


def _tables(queries: Sequence[Query], ids: Rows, hits: Sequence[_Hits], cap: int | None) -> tuple[pa.Table, pa.Table]:
    entries, counts = [], []
    for query, hit in zip(queries, hits, strict=True):
        kept = len(hit.rows) if cap is None else min(cap, len(hit.rows))
        columns = {
            "ava_id": ids[hit.rows[:kept]],
            "element": [query.element] * kept,
            "query": [query.name] * kept,
            "similarity": hit.similarity[:kept],
            "rank": np.arange(1, kept + 1),
        }
        entries.append(pa.table(columns, schema=ENTRIES))
        counts.append(
            {
                "query": query.name,
                "element": query.element,
                "threshold": hit.threshold,
                "images": len(ids),
                "below_threshold": len(ids) - len(hit.rows) - hit.dropped,
                "negative": hit.dropped,
                "over_cap": len(hit.rows) - kept,
                "kept": kept,
            }
        )
    return pa.concat_tables(entries), pa.Table.from_pylist(counts, schema=COUNTS)


def _check(embeddings: Array, ids: Rows, queries: Sequence[Query], vectors: Mapping[str, Array]) -> None:
    if embeddings.ndim != 2 or not len(embeddings):
        raise InputError(f"expected embeddings of shape (N, D) with at least one image, got {embeddings.shape}")
    if len(ids) != len(embeddings):
        raise InputError(
            f"there are {len(embeddings)} embeddings and {len(ids)} ids; expected one id for each embedding"
        )
    if len(np.unique(ids)) != len(ids):
        raise InputError("an image id stands for two embeddings; expected every id once")
    if not queries:
        raise InputError("there is no query to select with; expected at least one")
    if missing := [text for text in query_texts(queries) if text not in vectors]:
        raise InputError(
            f"{len(missing)} query texts have no embedding, the first is {missing[0]!r}; embed the queries of this set"
        )


def select(
    embeddings: Array,
    ids: Rows,
    queries: Sequence[Query],
    vectors: Mapping[str, Array],
    *,
    cap: float | None = None,
) -> Selection:
    """Select images by `queries`.

    `embeddings` (N, D), float16 or float32, may be memory-mapped; `ids` (N,) int64; `vectors` holds the embedding (D,)
    of every text of the queries and of their negatives, by the same model. With `cap` no query keeps more than this
    share of the pool of different images; an image that several queries keep counts for each of them. The most similar
    images stay, equal ones by id. InputError where the inputs do not fit or no pool satisfies the cap.
    """
    _check(embeddings, ids, queries, vectors)
    similarities = _Similarities(embeddings, ids, vectors, query_texts(queries))
    hits = [_hits(similarities, ids, query) for query in queries]
    limit = None if cap is None else _cap(hits, cap)
    entries, counts = _tables(queries, ids, hits, limit)
    pool = len(np.unique(entries["ava_id"].to_numpy()))
    return Selection(entries=entries, counts=counts, pool=pool, cap=limit)
