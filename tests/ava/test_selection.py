"""Selecting by thresholds, negatives and caps, against plain loops in double precision."""

import math
from fractions import Fraction

import numpy as np
import pytest

from widespectrum.ava import similarity
from widespectrum.ava.queries import Query, query_texts
from widespectrum.ava.selection import select
from widespectrum.errors import InputError


def cosine(a, b):
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    return float(a @ b) / math.sqrt(float(a @ a) * float(b @ b))


def entries(selection):
    return [tuple(row.values()) for row in selection.entries.to_pylist()]


def ids_of(selection, query):
    return [row["ava_id"] for row in selection.entries.to_pylist() if row["query"] == query]


def counts(selection, query):
    return next(row for row in selection.counts.to_pylist() if row["query"] == query)


RNG = np.random.default_rng(5)
IMAGES = (RNG.normal(size=(3_000, 24)) * RNG.uniform(0.5, 20, (3_000, 1))).astype(np.float16)
IDS = RNG.permutation(np.arange(10, 40_000, 7))[:3_000]
VECTORS = {f"text {n}": RNG.normal(size=24) for n in range(9)}
ELEMENT = "color_and_tone.muted_faded"
QUERIES = [
    Query(name="a", text="text 0", element=ELEMENT, threshold=0.3, negatives=("text 6",), negative_threshold=0.2),
    Query(name="b", text="text 1", share=0.013, negatives=("text 6", "text 7"), negative_share=0.1),
    Query(name="c", text="text 2", share=0.0001),
    Query(name="d", text="text 3", threshold=-1),
    Query(name="e", text="text 4", threshold=1),
    Query(name="f", text="text 1", share=0.5, negatives=("text 1",), negative_share=0.3),
]


def by_hand(query):
    """What one query selects: (rank, id, cosine), and how many its negatives drop, by the definition."""
    found = {image: cosine(row, VECTORS[query.text]) for image, row in zip(IDS.tolist(), IMAGES, strict=True)}
    threshold = query.threshold
    if threshold is None:
        threshold = sorted(found.values())[-max(1, math.floor(query.share * len(found)))]
    passing = {image for image, value in found.items() if value >= threshold}
    fine = set(passing)
    for text in query.negatives:
        near = {image: cosine(row, VECTORS[text]) for image, row in zip(IDS.tolist(), IMAGES, strict=True)}
        cut = query.negative_threshold
        if cut is None:
            cut = sorted(near.values())[-math.floor(query.negative_share * len(near)) - 1]
        fine -= {image for image, value in near.items() if value > cut}
    ordered = sorted(fine, key=lambda image: (-found[image], image))
    return [(rank, image, found[image]) for rank, image in enumerate(ordered, start=1)], len(passing - fine)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    path = tmp_path_factory.mktemp("embeddings") / "embeddings.npy"
    np.save(path, IMAGES)
    return np.load(path, mmap_mode="r")


@pytest.fixture(scope="module")
def selected(stored):
    return select(stored, IDS, QUERIES, VECTORS)


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: query.name)
def test_a_query_selects_what_its_rules_say(selected, query):
    expected, dropped = by_hand(query)
    own = [row for row in selected.entries.to_pylist() if row["query"] == query.name]
    assert [(row["rank"], row["ava_id"]) for row in own] == [(rank, image) for rank, image, _ in expected]
    assert [row["similarity"] for row in own] == pytest.approx([value for _, _, value in expected], abs=1e-12)
    assert {row["element"] for row in own} <= {query.element}
    row = counts(selected, query.name)
    assert (row["images"], row["negative"], row["over_cap"], row["kept"]) == (3_000, dropped, 0, len(expected))
    assert row["below_threshold"] + dropped + len(expected) == 3_000


def test_shares_round_down_to_whole_images_and_keep_at_least_one(selected):
    found = {name: counts(selected, name) for name in "bcf"}
    assert found["b"]["kept"] + found["b"]["negative"] == 39
    assert found["c"]["kept"] == 1
    # A query that is its own negative loses the 30 % above the cut, the image at the cut stays.
    assert (found["f"]["kept"], found["f"]["negative"]) == (600, 900)


@pytest.mark.parametrize("size", [1, 7, 3_000])
def test_the_outcome_does_not_depend_on_chunks_or_on_the_type(selected, stored, size, monkeypatch):
    monkeypatch.setattr(similarity, "_CHUNK", size)
    assert entries(select(stored.astype(np.float32), IDS, QUERIES, VECTORS)) == entries(selected)


def squares(number):
    """Integers whose squares add up to `number`."""
    found = []
    while number:
        found.append(math.isqrt(number))
        number -= found[-1] ** 2
    return found


def planted(length, components, axes):
    """A vector of integers of exactly this length with the given components on the first axes."""
    rest = squares(length**2 - sum(value**2 for value in components.values()))
    vector = np.zeros(axes + 12)
    for axis, value in components.items():
        vector[axis] = value
    vector[axes : axes + len(rest)] = rest
    assert math.sqrt(vector @ vector) == length
    return vector


@pytest.mark.parametrize("kind", [np.float16, np.float32])
def test_equality_counts_as_reached_and_just_below_does_not(kind):
    length = 1000 if kind is np.float16 else 4_000_000
    at, below = round(0.39 * length), round(0.39 * length) - 1
    limit, above = round(0.3 * length), round(0.3 * length) + 1
    shapes = [{0: at}, {0: below}, {0: at, 1: limit}, {0: at, 1: above}, {0: length}, {1: length}]
    images = np.stack([planted(length, shape, 2) for shape in shapes])
    assert (images.astype(kind) == images).all()
    query = Query(name="q", text="wanted", threshold=0.39, negatives=("not wanted",), negative_threshold=0.3)
    vectors = dict(zip(query_texts([query]), np.eye(14) * 2.5, strict=False))
    found = select(images.astype(kind), np.arange(1, 7), [query], vectors)
    assert ids_of(found, "q") == [5, 1, 3]
    assert found.entries["similarity"].to_pylist() == [1.0, 0.39, 0.39]
    row = counts(found, "q")
    assert (row["below_threshold"], row["negative"], row["kept"], found.pool) == (2, 1, 3, 3)


def largest_cap(ranked, share):
    """By trying: the largest number of images that every query may keep."""
    best = 0
    for cap in range(1, max(map(len, ranked)) + 1):
        pool = set().union(*(own[:cap] for own in ranked))
        if cap <= Fraction(str(share)) * len(pool):
            best = cap
    return best


@pytest.mark.parametrize(("share", "seed"), [(0.05, 0), (0.05, 1), (0.1, 2), (0.25, 3)])
def test_the_cap_is_the_largest_that_holds(share, seed):
    rng = np.random.default_rng(seed)
    images, ids = rng.normal(size=(2_000, 16)), np.arange(2_000)
    sizes = rng.integers(2, 400, 30)
    queries = [Query(name=f"q{n}", text=f"t{n}", share=size / 2_000) for n, size in enumerate(sizes.tolist())]
    vectors = {query.text: rng.normal(size=16) for query in queries}
    free = select(images, ids, queries, vectors)
    capped = select(images, ids, queries, vectors, cap=share)
    ranked = [ids_of(free, query.name) for query in queries]
    assert capped.cap == largest_cap(ranked, share) > 1
    kept = [ids_of(capped, query.name) for query in queries]
    assert kept == [own[: capped.cap] for own in ranked]
    assert capped.pool == len(set().union(*kept))
    assert max(map(len, kept)) <= share * capped.pool
    for query, own in zip(queries, ranked, strict=True):
        row = counts(capped, query.name)
        assert (row["kept"], row["over_cap"]) == (min(len(own), capped.cap), max(0, len(own) - capped.cap))


def test_a_cap_that_no_pool_can_satisfy():
    queries = [Query(name=f"q{n}", text=f"t{n}", threshold=0.9) for n in range(10)]
    vectors = {query.text: row for query, row in zip(queries, np.eye(10), strict=True)}
    images = np.repeat(np.eye(10), 4, axis=0)
    with pytest.raises(InputError, match=r"within 0.05 of the pool: 10 of 10 queries found 40 images; .*--cap"):
        select(images, np.arange(40), queries, vectors, cap=0.05)
    assert select(images, np.arange(40), queries, vectors, cap=0.1).pool == 40
    with pytest.raises(InputError, match="the cap must be a share"):
        select(images, np.arange(40), queries, vectors, cap=5)


def test_nothing_found_is_an_empty_selection():
    found = select(np.eye(3), np.arange(3), [Query(name="q", text="t", threshold=1)], {"t": np.ones(3)}, cap=0.05)
    assert (found.entries.num_rows, found.pool, found.cap) == (0, 0, 0)


def broken(row, value):
    images = IMAGES.astype(np.float32)
    images[row] = value
    return images


@pytest.mark.parametrize(
    ("images", "ids", "vectors", "message"),
    [
        (broken(2_500, 0), IDS, VECTORS, f"the embedding of image {IDS[2_500]} is zero or not finite"),
        (broken(3, np.nan), IDS, VECTORS, f"the embedding of image {IDS[3]} is zero or not finite"),
        (broken(3, np.inf), IDS, VECTORS, f"the embedding of image {IDS[3]} is zero or not finite"),
        (IMAGES[:-1], IDS, VECTORS, "there are 2999 embeddings and 3000 ids"),
        (IMAGES[0], IDS, VECTORS, r"expected embeddings of shape \(N, D\)"),
        (IMAGES, np.zeros(3_000, int), VECTORS, "an image id stands for two embeddings"),
        (IMAGES[:, 1:], IDS, VECTORS, "the images have 23 dimensions and the texts 24"),
        (IMAGES, IDS, {**VECTORS, "text 7": np.zeros(24)}, "a query embedding is zero or not finite"),
        (IMAGES, IDS, {"text 0": VECTORS["text 0"]}, "6 query texts have no embedding, the first is 'text 6'"),
    ],
)
def test_inputs_that_do_not_fit(images, ids, vectors, message):
    with pytest.raises(InputError, match=message):
        select(images, ids, QUERIES, vectors)
