import datasets
import pytest

import widespectrum
from widespectrum.errors import InputError
from widespectrum.lapis import image_files


def test_paintings_are_found_and_checked(copy, tmp_path):
    names = ["one.jpg", "cut.jpg", "none.jpg", "../images/one.jpg"]
    found, problems = image_files(copy, names)
    assert [found[name].name for name in found] == ["one.jpg", "one.jpg"]
    assert problems == {"cut.jpg": "is cut off: the end of the JPEG picture is missing", "none.jpg": "is missing"}
    (tmp_path / "secret.jpg").write_bytes((copy / "images/one.jpg").read_bytes())
    assert image_files(copy, ["../../secret.jpg"])[1]["../../secret.jpg"].startswith("lies outside the root folder")
    with pytest.raises(InputError, match="is not a folder"):
        image_files(tmp_path / "no", ["one.jpg"])


def test_our_rows_take_them_as_the_card_says(copy):
    rows = datasets.Dataset.from_dict({"file": ["one.jpg", "none.jpg"]})
    with pytest.warns(UserWarning, match="1 of 2 images .* cannot be used: none.jpg is missing"):
        attached = widespectrum.attach_images(rows, str(copy / "images"), missing="null")
    assert (attached[0]["image"].size, attached[1]["image"]) == ((40, 30), None)
