import hashlib

import datasets
import numpy as np
import PIL.Image
import pytest

import widespectrum
from widespectrum.errors import InputError


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(4):
        pixels = np.random.default_rng(number).integers(0, 256, (20, 30, 3), dtype=np.uint8)
        PIL.Image.fromarray(pixels).save(folder / f"{number}.jpg")
    (tmp_path / "secret.jpg").write_bytes((folder / "0.jpg").read_bytes())
    return folder


def table(ids=(2, 0, 3), **columns):
    return datasets.Dataset.from_dict({"ava_id": list(ids), **columns})


def test_every_row_gets_the_image_of_its_id(root):
    attached = widespectrum.attach_images(table(), root)
    assert attached.features["image"] == datasets.Image()
    assert attached["ava_id"][:] == [2, 0, 3]
    for row in attached:
        assert np.array_equal(row["image"], PIL.Image.open(root / f"{row['ava_id']}.jpg"))
    again = widespectrum.attach_images(attached, str(root))
    assert again.column_names == attached.column_names


def test_files_may_be_named_by_another_column_and_pattern(root):
    named = datasets.Dataset.from_dict({"file": ["1.jpg"], "key": ["3"]})
    assert widespectrum.attach_images(named, root)[0]["image"].size == (30, 20)
    by_key = widespectrum.attach_images(named, root, id_column="key", pattern="{}.jpg")
    assert np.array_equal(by_key[0]["image"], PIL.Image.open(root / "3.jpg"))


def test_what_is_missing_or_damaged_is_counted_and_listed(root):
    (root / "3.jpg").write_bytes((root / "3.jpg").read_bytes()[:200])
    rows = table(ids=(0, 3, 7))
    message = r"^2 of 3 images in .* cannot be used: 3.jpg is cut off.*; 7.jpg is missing: add them, or pass missing="
    with pytest.raises(InputError, match=message):
        widespectrum.attach_images(rows, root)
    with pytest.warns(UserWarning, match=r"2 of 3 images.*7\.jpg is missing"):
        kept = widespectrum.attach_images(rows, root, missing="null")
    assert [image is None for image in kept["image"]] == [False, True, True]
    with pytest.warns(UserWarning, match="2 of 3 images"):
        dropped = widespectrum.attach_images(rows, root, missing="drop")
    assert dropped["ava_id"][:] == [0]


def test_only_ten_are_listed(root):
    with pytest.raises(InputError, match=r"25 of 25 images.*109\.jpg is missing; and 15 more: add them"):
        widespectrum.attach_images(table(ids=range(100, 125)), root)


def test_the_bytes_must_be_those_that_the_table_names(root):
    digests = [hashlib.sha256((root / f"{number}.jpg").read_bytes()).hexdigest() for number in (2, 0, 1)]
    with pytest.raises(InputError, match=r"1 of 3 images.*3\.jpg has other bytes than the image"):
        widespectrum.attach_images(table(sha256=digests), root)


def test_no_name_leads_out_of_the_folder(root):
    outside = datasets.Dataset.from_dict({"file": ["../secret.jpg"]})
    with pytest.raises(InputError, match="lies outside the root folder"):
        widespectrum.attach_images(outside, root)


@pytest.mark.parametrize(
    ("dataset", "options", "message"),
    [
        (datasets.DatasetDict({"test": table()}), {}, "expected one split of a dataset.*got a DatasetDict"),
        (datasets.Dataset.from_dict({"name": ["a"]}), {}, "no column 'ava_id or file' that names its images"),
        (table(), {"id_column": "name"}, "no column 'name' that names its images"),
        (table(), {"pattern": "a.jpg"}, "expected a pattern with one {}"),
        (table(), {"missing": "skip"}, "missing must be 'error', 'null' or 'drop'; got 'skip'"),
    ],
)
def test_what_cannot_be_attached(root, dataset, options, message):
    with pytest.raises(InputError, match=message):
        widespectrum.attach_images(dataset, root, **options)


def test_no_folder(tmp_path):
    with pytest.raises(InputError, match="is not a folder"):
        widespectrum.attach_images(table(), tmp_path / "none")
