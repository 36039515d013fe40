import datasets
import pytest

from widespectrum.errors import InputError
from widespectrum.lapis import attach_images, image_files


def test_attaching_images(copy, tmp_path):
    dataset = datasets.Dataset.from_dict({"file": ["one.jpg", "cut.jpg", "none.jpg", "../images/one.jpg"]})
    attached, problems = attach_images(dataset, copy)
    assert attached[0]["image"].size == (40, 30)
    assert [image is None for image in attached["image"]] == [False, True, True, False]
    assert attached["image_status"][:3] == ["ok", "is cut off: the end of the JPEG picture is missing", "is missing"]
    assert sorted(problems) == ["cut.jpg", "none.jpg"]
    (tmp_path / "secret.jpg").write_bytes((copy / "images/one.jpg").read_bytes())
    assert image_files(copy, ["../../secret.jpg"])[1]["../../secret.jpg"].startswith("lies outside the root folder")
    with pytest.raises(InputError, match="is not a folder"):
        image_files(tmp_path / "no", ["one.jpg"])
