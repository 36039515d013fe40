"""The annotated images: the schema, the targets and masks by hand, and what is counted instead of used."""

import copy
import json
import re
from pathlib import Path

import datasets
import huggingface_hub
import pytest

from tests.train_judge import made_annotations as made
from widespectrum.errors import InputError, UnknownNameError
from widespectrum.functional import DIMENSIONS
from widespectrum.train_judge.data import ABSENT, LEVELS, dimensions_of, look_through, open_data, target

SOURCES = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "sources"
PUBLISHED = SOURCES / "visionreward" / "annotation_levels.json"
TWO = ("color brightness", "hands")


@pytest.mark.skipif(not PUBLISHED.exists(), reason="the published guide is not here")
def test_levels_are_those_of_the_published_guide():
    levels = json.loads(PUBLISHED.read_text())["levels"]
    del levels["unsafe type"]
    assert {name: (min(map(int, known)), max(map(int, known))) for name, known in levels.items()} == LEVELS
    # "No background" and "No light and shadow" are ratings of what every image has; "No errors" is the best.
    absent = {
        (name, int(value))
        for name, known in levels.items()
        for value, says in known.items()
        if says.startswith("No ") and int(value) < -1
    }
    assert dict(absent) == ABSENT


@pytest.mark.parametrize(
    ("dimension", "expected"),
    [
        ("richness", {-3: "out of range", -2: 0, -1: 0, 0: 1, 1: 2, 2: 2, 3: "out of range", None: "null"}),
        ("color brightness", {-2: "out of range", -1: 0, 0: 1, 1: 2, 2: "out of range"}),
        ("background", {-1: 0, 0: 1, 2: 2}),
        ("detail refinement", {-4: 0, 0: 1, 2: 2}),
        ("body", {-5: "out of range", -4: "absent", -3: 0, -1: 0, 0: 1, 1: 2}),
        ("hands", {-4: "absent", -3: 0, 0: 1, 1: 2}),
        ("face", {-4: "out of range", -3: "absent", -2: 0, -1: 0, 0: 1, 1: 2, 2: 2}),
    ],
)
def test_target(dimension, expected):
    assert {value: target(dimension, value) for value in expected} == expected


def test_dimensions_of():
    assert dimensions_of("eleven") == DIMENSIONS
    assert set(dimensions_of("all")) == set(made.KEYS) - {"unsafe type"}
    assert dimensions_of("richness, main_object,richness") == ("main object", "richness")
    with pytest.raises(UnknownNameError, match=r"--dimensions: unknown 'emotions'; expected .* emotion, "):
        dimensions_of("emotions")
    with pytest.raises(InputError, match="--dimensions: expected eleven, all, or names"):
        dimensions_of(",")


def faulty():
    """Twelve rows of which some cannot be used; the last three are for validation."""
    rows = made.rows(12)
    rows[0]["image"]["bytes"] = rows[0]["image"]["bytes"][:-40]
    rows[1]["image"] = None
    rows[2]["annotation"]["color brightness"] = None
    rows[3]["annotation"]["color brightness"] = 2
    rows[4]["annotation"] = None
    rows[5]["image"] = copy.deepcopy(rows[10]["image"])
    rows[6]["annotation"]["hands"] = -3
    rows[7]["annotation"]["hands"] = 1
    rows[9]["image"]["bytes"] = b"no image"
    return rows


def test_every_row_is_used_or_counted(tmp_path):
    opened = open_data(str(made.save(tmp_path / "faulty", faulty())), None, TWO)
    found = look_through(opened, TWO, 3)
    # row % 3 - 1 is the brightness; only rows 6 and 7 have hands
    assert [tuple(example) for example in found.train] == [
        (6, "color brightness", 0),
        (6, "hands", 0),
        (7, "color brightness", 1),
        (7, "hands", 2),
        (8, "color brightness", 2),
    ]
    assert [tuple(example) for example in found.validation] == [
        (10, "color brightness", 1),
        (11, "color brightness", 2),
    ]
    assert found.left_out == {
        "color brightness: null": 1,
        "color brightness: out of range": 1,
        "hands: absent": 5,
        "images that cannot be decoded": 2,
        "images without annotation": 1,
        "images without bytes": 1,
        "training images that are also in validation": 1,
    }
    assert found.sizes[6] == made.SIZES[6 % 5]
    assert opened.image(6).size == made.SIZES[6 % 5]
    assert opened.image(6).mode == "RGB"


def digest(folder, dimensions=TWO[:1]):
    return look_through(open_data(str(folder), None, dimensions), dimensions, 3).digest


def test_the_digest_is_of_images_and_annotations_and_not_of_files(tmp_path):
    rows = made.rows(8)
    known = digest(made.save(tmp_path / "folder", rows))
    table = datasets.Dataset.from_list(rows, features=made.FEATURES)
    table.to_parquet(tmp_path / "one.parquet")
    assert digest(tmp_path / "one.parquet") == known
    plain = datasets.Dataset.from_list(
        [row | {"image": row["image"]["bytes"]} for row in rows],
        features=datasets.Features(made.FEATURES | {"image": datasets.Value("binary")}),
    )
    plain.to_parquet(tmp_path / "older.parquet")
    assert digest(tmp_path / "older.parquet") == known
    rows[7]["annotation"]["richness"] = 1
    assert digest(made.save(tmp_path / "changed", rows)) != known


def test_of_a_folder_with_splits_train_is_read_alone(tmp_path):
    folder = made.save(tmp_path / "splits", made.rows(8))
    datasets.Dataset.from_list(made.rows(2), features=made.FEATURES).to_parquet(folder / "data" / "test-0.parquet")
    assert len(open_data(str(folder), None, TWO).table) == 8


def test_a_revision_of_the_hub(tmp_path, monkeypatch):
    commit = "0123456789abcdef0123456789abcdef01234567"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    made.save(tmp_path / "datasets--someone--annotated" / "snapshots" / commit, made.rows(4))
    opened = open_data("someone/annotated", commit, TWO)
    assert (opened.source, opened.revision, len(opened.table)) == ("someone/annotated", commit, 4)


def without(*names):
    return datasets.Features({name: kind for name, kind in made.FEATURES.items() if name not in names})


def retyped(dimension, kind):
    given = {key: datasets.Value("int64") for key in made.KEYS if key != dimension}
    return datasets.Features(made.FEATURES | {"annotation": given | ({dimension: kind} if kind else {})})


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (
            without("image"),
            r"has no column image \(it has internal_id, url, prompt, annotation, meta_result, meta_mask\)",
        ),
        (without("annotation", "image"), r"has no column image and no column annotation"),
        (
            datasets.Features(made.FEATURES | {"image": datasets.Value("string")}),
            "the column image holds string",
        ),
        (
            datasets.Features(made.FEATURES | {"annotation": datasets.Value("string")}),
            "the column annotation holds string",
        ),
        (retyped("hands", None), "annotation lacks hands"),
        (retyped("hands", datasets.Value("float64")), "annotation 'hands' holds float64"),
    ],
)
def test_another_schema_is_one_sentence(tmp_path, features, message):
    def told(row):
        kept = {name: row[name] for name in features}
        if "image" in features and features["image"] == datasets.Value("string"):
            kept["image"] = "image.png"
        if "annotation" in features and features["annotation"] == datasets.Value("string"):
            kept["annotation"] = json.dumps(row["annotation"])
        elif "annotation" in features:
            kept["annotation"] = {name: row["annotation"][name] for name in features["annotation"]}
        return kept

    folder = made.save(tmp_path / "other", [told(row) for row in made.rows(4)], features)
    with pytest.raises(InputError, match=rf"other:? {message}.*: expected the schema of VisionRewardDB-Image: [^\n]+$"):
        open_data(str(folder), None, TWO)


def test_what_is_no_data_is_one_sentence(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and nothing more")
    for data, message in (
        (tmp_path / "empty", r"empty holds no Parquet files: expected"),
        (tmp_path / "absent", r"absent: there is nothing; expected a folder"),
        (tmp_path / "broken.parquet", r"broken.parquet cannot be read as Parquet files of one schema \([^\n]+$"),
    ):
        with pytest.raises(InputError, match=message):
            open_data(str(data), None, TWO)
    with pytest.raises(InputError, match=r"HF_HUB_OFFLINE is set.* \(or give a folder with its Parquet files\)$"):
        open_data("someone/annotated", None, TWO)
    with pytest.raises(InputError, match=r"--revision main: .* only a dataset of the Hub has revisions"):
        open_data(str(tmp_path / "empty"), "main", TWO)


@pytest.mark.parametrize("validation", [0, 45, -1])
def test_validation_must_leave_something_to_learn_from(data, validation):
    opened = open_data(str(data), None, TWO)
    with pytest.raises(InputError, match=re.escape(f"--validation {validation}: expected from 1 to 44 rows")):
        look_through(opened, TWO, validation)


def test_a_dimension_without_examples_is_refused(data):
    opened = open_data(str(data), None, TWO)
    with pytest.raises(InputError, match="has no example to learn hands from: leave it out of --dimensions"):
        look_through(opened, TWO, 9)
