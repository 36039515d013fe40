from __future__ import annotations

import hashlib

import datasets
import numpy as np
import pytest
from PIL import Image

from widespectrum.attach import attach_images
from widespectrum.errors import InputError


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "AVA"
    folder.mkdir()
    for number in range(14):
        pixels = np.random.default_rng(number).integers(0, 256, (8, 12, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.jpg")
    return folder


def table(root, **more):
    return datasets.Dataset.from_dict({"ava_id": list(range(14)), "score": [0.5] * 14, **more})


def digests(root):
    return [hashlib.sha256((root / f"{number}.jpg").read_bytes()).hexdigest() for number in range(14)]


def test_images_are_shown_from_the_folder_and_copied_only_when_saved(root, tmp_path):
    attached = attach_images(table(root, sha256=digests(root)), str(root), id_column="ava_id")
    assert attached.features["image"] == datasets.Image()
    with Image.open(root / "5.jpg") as expected:
        assert attached[5]["image"].tobytes() == expected.convert("RGB").tobytes()
    stored = attached.cast_column("image", datasets.Image(decode=False))
    assert stored[5]["image"] == {"bytes": None, "path": str(root / "5.jpg")}

    attached.save_to_disk(tmp_path / "saved")
    content = (root / "5.jpg").read_bytes()
    for path in root.iterdir():
        path.unlink()
    saved = datasets.load_from_disk(tmp_path / "saved")
    assert saved.cast_column("image", datasets.Image(decode=False))[5]["image"]["bytes"] == content


def test_a_relative_root_still_holds_elsewhere(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    attached = attach_images(table(root), "AVA", id_column="ava_id")
    monkeypatch.chdir("/")
    assert attached[0]["image"].size == (12, 8)


@pytest.mark.parametrize(
    ("pattern", "name"),
    [("{id}", "a b.png"), ("{style}/{id}", "soft/a b.png"), ("{style}_{number:03d}.png", "soft_007.png")],
)
def test_names_are_made_of_any_column(tmp_path, pattern, name):
    path = tmp_path / "LAPIS" / name
    path.parent.mkdir(parents=True)
    Image.new("L", (3, 2)).save(path)
    rows = datasets.Dataset.from_dict({"file": ["a b.png"], "style": ["soft"], "number": [7]})
    attached = attach_images(rows, tmp_path / "LAPIS", id_column="file", pattern=pattern)
    assert attached[0]["image"].size == (3, 2)


def spoil(root):
    """Four files that cannot be taken, each for a reason of its own."""
    (root / "1.jpg").unlink()
    (root / "2.jpg").write_bytes((root / "2.jpg").read_bytes()[:-30])
    (root / "3.jpg").write_bytes((root / "4.jpg").read_bytes())
    (root / "5.jpg").unlink()
    (root / "5.jpg").symlink_to("/etc/passwd")


REASONS = (
    "4 of 14 images cannot be taken from {root}: 1.jpg is missing; 2.jpg is cut off: the end of the JPEG picture is "
    "missing; 3.jpg is not the file that the dataset was made with (its sha256 differs); 5.jpg lies outside the root "
    "folder; copy it into the folder; "
)


def test_what_cannot_be_taken_is_an_error_by_default(root):
    rows = table(root, sha256=digests(root))
    spoil(root)
    with pytest.raises(InputError) as caught:
        attach_images(rows, root, id_column="ava_id")
    expected = REASONS.format(root=root) + "put the files there, or pass missing='null' or missing='drop'"
    assert str(caught.value) == expected


def test_or_null_or_left_out_and_then_a_warning_lists_it(root):
    rows = table(root, sha256=digests(root))
    spoil(root)
    with pytest.warns(UserWarning) as caught:
        attached = attach_images(rows, root, id_column="ava_id", missing="null")
    assert str(caught[0].message) == REASONS.format(root=root) + "their image is null"
    assert caught[0].filename == __file__
    assert [i for i, row in enumerate(attached) if row["image"] is None] == [1, 2, 3, 5]

    with pytest.warns(UserWarning, match="rows left out"):
        attached = attach_images(rows, root, id_column="ava_id", missing="drop")
    assert attached["ava_id"] == [0, 4, *range(6, 14)]
    assert all(row["image"].size == (12, 8) for row in attached)


def test_without_verify_only_the_place_is_looked_at(root):
    rows = table(root, sha256=digests(root))
    spoil(root)
    with pytest.warns(UserWarning, match=r"2 of 14 .* 1\.jpg is missing; 5\.jpg lies outside"):
        attached = attach_images(rows, root, id_column="ava_id", verify=False, missing="drop")
    assert len(attached) == 12


def test_a_null_sha256_is_not_compared_and_an_id_may_come_twice(root):
    rows = datasets.Dataset.from_dict({"ava_id": [3, 3], "sha256": [None, digests(root)[3]]})
    assert len(attach_images(rows, root, id_column="ava_id")) == 2


def test_of_many_the_first_ten_are_listed(root):
    for path in root.iterdir():
        path.unlink()
    with pytest.raises(InputError, match=r"14 of 14 images .* 9\.jpg is missing; and 4 more; put the files there"):
        attach_images(table(root), root, id_column="ava_id")


def test_ids_that_lead_out_or_are_missing(root):
    (root.parent / "secret.jpg").write_bytes((root / "1.jpg").read_bytes())
    rows = datasets.Dataset.from_dict({"file": ["../secret", None, "1"]})
    with pytest.raises(InputError, match=r"2 of 3 .*\.\./secret\.jpg lies outside .*; row 1 is not named"):
        attach_images(rows, root, id_column="file")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"id_column": "id"}, "the dataset has no column 'id'; expected one of ava_id, score"),
        ({"pattern": "{file}.jpg"}, r"pattern '\{file\}\.jpg' names file; expected \{id\} or a column: ava_id, id, sc"),
        ({"pattern": "{id.__class__}"}, r"names id\.__class__; expected"),
        ({"pattern": "{}.jpg"}, "expected .id. or a column"),
        ({"pattern": "a.jpg"}, "names no column; expected"),
        ({"pattern": "{id"}, "cannot be read .*; expected a text such as"),
        ({"pattern": "{id:Q}"}, "does not fit the row .*; correct the pattern"),
        ({"pattern": "{id:{width}}"}, "does not fit the row .*; correct the pattern"),
        ({"missing": "skip"}, "missing must be 'error', 'null' or 'drop'; got 'skip'"),
        ({"root": "none"}, "none is not a folder; expected the folder that holds the image files"),
    ],
)
def test_what_the_caller_got_wrong_is_said(root, options, message):
    options = {"id_column": "ava_id", **options}
    with pytest.raises(InputError, match=message):
        attach_images(table(root), root.parent / options.pop("root", "AVA"), **options)


def test_only_a_split_that_is_loaded_and_has_no_images_yet(root):
    with pytest.raises(InputError, match="got DatasetDict: take a split of it"):
        attach_images(datasets.DatasetDict({"test": table(root)}), root, id_column="ava_id")
    with pytest.raises(InputError, match="got IterableDataset"):
        attach_images(table(root).to_iterable_dataset(), root, id_column="ava_id")
    with pytest.raises(InputError, match="has a column 'image' already; rename or remove it first"):
        attach_images(table(root, image=[""] * 14), root, id_column="ava_id")
