import PIL.Image
import pytest

from tests.lapis.made import ratings, write
from widespectrum.lapis import painting_rows, read_annotations


@pytest.fixture(scope="module")
def made():
    return ratings()


@pytest.fixture(scope="module")
def table(made, tmp_path_factory):
    return write(tmp_path_factory.mktemp("lapis") / "ratings.csv", made)


@pytest.fixture(scope="module")
def rows(table):
    return painting_rows(read_annotations(table))[0]


@pytest.fixture
def copy(tmp_path):
    """A copy of LAPIS with two paintings, one of them cut off."""
    folder = tmp_path / "LAPIS" / "images"
    folder.mkdir(parents=True)
    PIL.Image.effect_noise((40, 30), 60).convert("RGB").save(folder / "one.jpg")
    (folder / "cut.jpg").write_bytes((folder / "one.jpg").read_bytes()[:-300])
    return tmp_path / "LAPIS"
