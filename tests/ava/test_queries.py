"""Our query set, query files of the user's, and the authors' table and outcome."""

import csv
import itertools
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tests.ava.test_selection import planted
from widespectrum.ava.queries import Query, calibrated, query_set, query_texts, read_authors_index
from widespectrum.ava.recorded import agreement, read_recorded
from widespectrum.ava.selection import select
from widespectrum.ava.taxonomy import CLASSES, ELEMENTS, element_problems
from widespectrum.errors import InputError, UnknownNameError

REFERENCE = Path(__file__).resolve().parents[3] / "shared" / "data" / "reference"
INDEX, OUTCOME, LABELS = (
    REFERENCE / name for name in ("ava_commit_index.csv", "ava_commits.csv", "ava_elements_run1_3304.csv")
)
needs_reference = pytest.mark.skipif(not INDEX.exists(), reason="the authors' tables are not here")

SIZES = {
    "clarity_and_focus": 6,
    "color_and_tone": 5,
    "lighting_and_exposure": 5,
    "composition_and_structure": 5,
    "emotion_and_subject": 7,
}


def test_the_taxonomy_has_its_classes_and_elements():
    assert {name: len(elements) for name, elements in CLASSES.items()} == SIZES
    assert len(ELEMENTS) == 28
    assert len({element.partition(".")[2] for element in ELEMENTS}) == 28


@pytest.mark.parametrize(
    ("elements", "problems"),
    [
        (["clarity_and_focus.film_artifacts", "color_and_tone.sickly_cast"], []),
        (["film_artifacts"], ["unknown element 'film_artifacts'"]),
        (["Color_and_tone.sickly_cast"], ["unknown element 'Color_and_tone.sickly_cast'"]),
        (["color_and_tone.sickly_cast"] * 2, ["element 'color_and_tone.sickly_cast' is named twice"]),
        (
            ["color_and_tone.sickly_cast", "color_and_tone.muted_faded"],
            ["two elements of one class: 'color_and_tone.sickly_cast' and 'color_and_tone.muted_faded'"],
        ),
    ],
)
def test_elements_are_checked_and_not_corrected(elements, problems):
    assert list(element_problems(elements)) == problems


@needs_reference
def test_labels_of_an_earlier_run_with_their_slips():
    with LABELS.open(newline="", encoding="utf-8") as file:
        rows = [row["elements"].split("|") if row["elements"] else [] for row in csv.DictReader(file)]
    assert len(rows) == 3_304
    found = Counter(problem for row in rows for problem in element_problems(row))
    unknown = {problem: n for problem, n in found.items() if problem.startswith("unknown")}
    expected = Counter(
        label
        for row in rows
        for label in row
        if label.split(".")[1:] not in [[e] for e in CLASSES.get(label.split(".")[0], {})]
    )
    assert unknown == {f"unknown element {label!r}": n for label, n in expected.items()}
    assert unknown["unknown element 'abstract_photo'"] == 138
    assert len(unknown) > 30
    several = sum(
        any(n > 1 for n in Counter(label.split(".")[0] for label in row if label in ELEMENTS).values()) for row in rows
    )
    assert several == sum(any(problem.startswith("two") for problem in element_problems(row)) for row in rows) > 0


def test_our_set_covers_every_element_with_two_or_three_queries():
    queries = query_set()
    assert set(Counter(query.element for query in queries)) == set(ELEMENTS)
    assert set(Counter(query.element for query in queries).values()) == {2, 3}
    assert all(query.share == 0.002 and query.negative_share == 0.005 for query in queries)
    assert len({query.text for query in queries}) == len(queries) == 60
    # The default cap of 5 % needs at least 20 queries.
    assert all(query.element.rpartition(".")[2] == query.name.rpartition("-")[0] for query in queries)


@needs_reference
def test_our_texts_are_our_own():
    def words(text):
        return [word.strip(",.").lower() for word in text.split()]

    def triples(texts):
        return {tuple(words(text)[n : n + 3]) for text in texts for n in range(len(words(text)) - 2)}

    authors = triples(text for query in read_authors_index(INDEX) for text in (query.text, *query.negatives))
    assert not triples(query_texts(query_set())) & authors


def test_thresholds_of_a_family_and_another_share():
    assert {query.threshold for query in query_set(family="siglip")} == {0.11}
    assert {query.negative_threshold for query in query_set(family="clip")} == {0.28}
    assert {query.share for query in query_set(share=0.01)} == {0.01}
    with pytest.raises(InputError, match="no thresholds for 'blip'; it has them for clip, siglip"):
        query_set(family="blip")


def test_calibration_fixes_what_the_shares_came_to(tmp_path):
    queries = query_set()
    path = tmp_path / "fixed.json"
    path.write_text(calibrated(queries, {query.name: n / 100 for n, query in enumerate(queries)}), encoding="utf-8")
    fixed = query_set(path)
    assert [(query.name, query.threshold, query.share) for query in fixed] == [
        (query.name, n / 100, None) for n, query in enumerate(queries)
    ]
    assert [query.negatives for query in fixed] == [query.negatives for query in queries]
    assert {query.negative_share for query in fixed} == {0.005}


Q = {"name": "q", "text": "t", "threshold": 0.2}


@pytest.mark.parametrize("families", [["clip"], {"clip": 3}, {"clip": {"treshold": 0.2}}])
def test_families_that_are_wrong(tmp_path, families):
    path = tmp_path / "queries.json"
    path.write_text(json.dumps({"families": families, "queries": [Q]}), encoding="utf-8-sig")
    assert query_set(path)[0].threshold == 0.2
    with pytest.raises(InputError, match=r"queries.json, families.*: (expected a JSON object|unknown key)"):
        query_set(path, family="clip")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "expected a query file in JSON"),
        ([Q], "expected a JSON object with a list of 'queries'"),
        ({"queries": []}, "expected a JSON object with a list of 'queries'"),
        ("[" * 100_000, "expected a query file in JSON"),
        ({"queries": [Q], "treshold": 1}, "queries.json: unknown key 'treshold'; expected some of about, queries"),
        ({"queries": [Q], "negatives": "watermark"}, "queries.json: negatives must be a list of texts"),
        ({"queries": ["q"]}, "query 1: expected a JSON object, got 'q'"),
        ({"queries": [{"name": "q"}]}, "query 1: 'text' is missing"),
        ({"queries": [{**Q, "treshold": 1}]}, "query 1: unknown key 'treshold'; expected some of element, negatives"),
        ({"queries": [{**Q, "share": 0.1}]}, "expected either threshold or share, got both"),
        ({"queries": [{**Q, "negatives": "watermark"}]}, "query 1: negatives must be a list of texts, got 'watermark'"),
        ({"queries": [{**Q, "negatives": [["n"]]}]}, "query 1: negatives must be a list of texts"),
        ({"queries": [{**Q, "element": None}]}, "query 1: element must be a text, got None"),
        ({"queries": [{"name": "q", "text": "t"}]}, "query 'q': expected either threshold or share, got neither"),
        (
            {"queries": [{**Q, "share": 1.5, "threshold": None}]},
            "query 'q': share must be above 0 and below 1, got 1.5",
        ),
        ({"queries": [{**Q, "threshold": 39}]}, "threshold must be a cosine from -1 to 1, got 39"),
        (
            {"queries": [{**Q, "threshold": "0.2"}]},
            r"^[^:]*queries.json, query 1: threshold must be a number, got '0.2'",
        ),
        ({"queries": [{**Q, "negatives": ["n"]}]}, "either negative_threshold or negative_share, got neither"),
        ({"queries": [{**Q, "text": " "}]}, "must be one line that is not empty"),
        ({"queries": [Q, Q]}, "the query 'q' stands there twice"),
    ],
)
def test_query_files_that_are_wrong(tmp_path, content, message):
    path = tmp_path / "queries.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    with pytest.raises(InputError, match=message) as caught:
        query_set(path)
    assert str(path) in str(caught.value)


def test_an_unknown_element_gets_the_nearest_names():
    with pytest.raises(UnknownNameError, match=r"did you mean color_and_tone\.sickly_cast"):
        Query(name="q", text="t", element="color_and_tone.sickly", threshold=0)


HEADER = "commit_key,query,threshold,negative_threshold,n_negative_prompts,negative_prompts"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('aa11bb22,a text,0.3x,0.3,1,"[""n""]"', "row 2: threshold must be a decimal number, got '0.3x'"),
        (
            'aa11bb22,a text,3,0.3,1,"[""n""]"',
            "row 2: query 'aa11bb22': threshold must be a cosine from -1 to 1, got 3",
        ),
        ('aa11bb22,a text,0.3,0.3,2,"[""n""]"', "row 2: n_negative_prompts says 2, but 1 are listed"),
        ("aa11bb22,a text,0.3,0.3,1,n", "row 2: negative_prompts must be a JSON list of texts, got 'n'"),
        ('aa11bb22,,0.3,0.3,1,"[""n""]"', "row 2: query 'aa11bb22': a name and a text must be one line"),
    ],
)
def test_rows_of_the_authors_table_that_are_wrong(tmp_path, row, message):
    path = tmp_path / "index.csv"
    path.write_text(f"{HEADER}\n{row}\n", encoding="utf-8")
    with pytest.raises(InputError, match=message):
        read_authors_index(path)


@pytest.fixture(scope="module")
def replay():
    """Photographs planted for every query of the authors, the queries, and the ids that must be selected by each."""
    queries = read_authors_index(INDEX)
    texts = query_texts(queries)
    axis = {text: n for n, text in enumerate(texts)}
    length, images, expected = 4_000_000, [], {}
    for query in queries:
        own, bad = axis[query.text], axis[query.negatives[-1]]
        at, limit = (round(value * length) for value in (query.threshold, query.negative_threshold))
        shapes = [{own: at}, {own: at, bad: limit}, {own: at + 1}, {own: at - 1}, {own: at, bad: limit + 1}]
        expected[query.name] = {len(images) + n for n in range(3)}
        images += [planted(length, shape, len(texts)) for shape in shapes]
    stacked = np.stack(images)
    assert (stacked.astype(np.float32) == stacked).all()
    vectors = dict(zip(texts, np.eye(len(texts), stacked.shape[1]), strict=True))
    return queries, stacked.astype(np.float32), vectors, expected


@needs_reference
def test_the_authors_replay_selects_exactly_what_was_planted(replay):
    queries, images, vectors, expected = replay
    assert len(queries) == 58
    assert all(query.threshold >= 0.25 and query.negative_threshold == 0.3 for query in queries)
    found = select(images, np.arange(len(images)), queries, vectors)
    by_query = itertools.groupby(found.entries.to_pylist(), key=lambda row: row["query"])
    assert {query: {row["ava_id"] for row in rows} for query, rows in by_query} == expected
    assert all((row["negative"], row["kept"]) == (1, 3) for row in found.counts.to_pylist())
    assert found.pool == 3 * 58


@needs_reference
def test_the_recorded_outcome(replay):
    recorded = read_recorded(OUTCOME)
    with INDEX.open(newline="", encoding="utf-8") as file:
        index = {row["commit_key"]: int(row["n_images"]) for row in csv.DictReader(file)}
    kept = {row["query"]: row["kept"] for row in recorded.counts.to_pylist()}
    assert (recorded.entries.num_rows, len(kept), recorded.pool) == (11_165, 58, 6_272)
    assert kept == index
    queries, images, vectors, _ = replay
    # Photographs of the first commit, at its threshold: the replay finds these and nothing else of the outcome.
    first = queries[0]
    known = [row["ava_id"] for row in recorded.entries.to_pylist() if row["query"] == first.name]
    found = select(np.repeat(images[:1], len(known), axis=0), np.array(known), queries, vectors)
    assert agreement(found, recorded) == {"both": 103, "replay_only": 0, "recorded_only": 11_062}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("12x,aa11bb22\n", "row 2: ava_id must be a positive integer, got '12x'"),
        ("12,AA11\n", "row 2: commit_key must be 8 hexadecimal digits, got 'AA11'"),
        ("12,aa11bb22\n13,aa11bb22\n12,aa11bb22\n", "row 4: commit aa11bb22 already took image 12 in row 2"),
        ("12\n", "row 2: expected 2 cells"),
    ],
)
def test_recorded_outcomes_that_are_wrong(tmp_path, rows, message):
    path = tmp_path / "outcome.csv"
    path.write_text(f"ava_id,commit_key\n{rows}", encoding="utf-8")
    with pytest.raises(InputError, match=message):
        read_recorded(path)
