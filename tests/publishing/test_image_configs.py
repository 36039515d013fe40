"""A config with image files in it: what is left out, what of an earlier build goes, the card, and what may go out."""

import csv

import datasets
import pytest
from PIL import Image

from widespectrum.errors import InputError
from widespectrum.publishing import Provenance, configs_of, read_provenance, save_card, save_config
from widespectrum.publishing.check import problems
from widespectrum.publishing.image_configs import forget_images, save_images, stated_rights
from widespectrum.publishing.images import IMAGE_FEATURES, Packing

from .conftest import NAME, words

pytestmark = [
    # `datasets` leaves the card open, which Python reports as a ResourceWarning.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

ROWS = {"name": datasets.Value("string")}


@pytest.fixture
def root(tmp_path):
    (tmp_path / "images").mkdir()
    for number in range(6):
        Image.effect_noise((20 + number, 10), 50).convert("RGB").save(tmp_path / "images" / f"{number}.jpg")
    return tmp_path / "images"


def save(out, root, rights="drawn by me, CC0", shard_size=10**9, **splits):
    """`splits`: the numbers of the files of each."""
    items = {split: [({"name": str(n)}, root / f"{n}.jpg") for n in numbers] for split, numbers in splits.items()}
    terms = Provenance(license="cc0-1.0", license_reason="made here", image_rights=rights_of(rights))
    packed = save_images(out, "photos", items, ROWS, Packing(key="name", root=root, shard_size=shard_size), terms)
    save_card(out, NAME, {"dimensions": "none"}, default="photos")
    return packed


def rights_of(rights):
    return {"photographs": stated_rights(rights, "nobody stated their rights")}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def load(out, cache, **options):
    return datasets.load_dataset(str(out), "photos", cache_dir=str(cache), **options)


def test_splits_shards_card_and_terms(root, tmp_path):
    out = tmp_path / "out"
    packed = save(out, root, shard_size=1, test=[0, 1, 2], more=[3, 9, 4])
    assert names(out / "photos") == [
        "more-00000-of-00002.parquet",
        "more-00001-of-00002.parquet",
        "provenance.json",
        "rejected.csv",
        *(f"test-0000{n}-of-00003.parquet" for n in range(3)),
    ]
    assert {split: (each.rows, [row.key for row in each.rejected]) for split, each in packed.items()} == {
        "test": (3, []),
        "more": (2, ["9"]),
    }
    assert problems(out) == []
    loaded = load(out, tmp_path / "cache")  # which compares the counts with dataset_info
    assert {split: table["name"][:] for split, table in loaded.items()} == {"test": ["0", "1", "2"], "more": ["3", "4"]}
    builder = datasets.load_dataset_builder(str(out), "photos", cache_dir=str(tmp_path / "cache"))
    assert builder.info.features == loaded["test"].features == datasets.Features({**ROWS, **IMAGE_FEATURES})
    assert {split: info.num_examples for split, info in builder.info.splits.items()} == {"test": 3, "more": 2}
    assert builder.info.download_size == sum(path.stat().st_size for path in out.glob("photos/*.parquet"))
    streamed = list(load(out, tmp_path / "cache", split="test", streaming=True))
    assert [(row["image"].size, row["width"]) for row in streamed] == [((20 + n, 10), 20 + n) for n in range(3)]
    assert [row["image"].getpixel((3, 3)) for row in streamed] == [
        row["image"].getpixel((3, 3)) for row in loaded["test"]
    ]


def test_images_whose_rights_nobody_stated_are_not_published(root, tmp_path):
    save(tmp_path, root, rights=" ", test=[0])
    assert read_provenance(tmp_path / "photos").image_rights["photographs"] == "unclear: nobody stated their rights"
    assert [(each.code, each.where) for each in problems(tmp_path)] == [("rights-unclear", "photos/provenance.json")]


def test_another_build_replaces_the_first_and_keeps_finished_shards(root, tmp_path):
    save(tmp_path, root, shard_size=1, test=[0, 1, 9], old=[2])
    again = save(tmp_path, root, shard_size=1, test=[0, 1, 3], rejected=[8])
    assert (again["test"].kept, again["test"].rows, again["rejected"].rows) == (2, 3, 0)
    assert names(tmp_path / "photos") == [
        "provenance.json",
        "rejected.csv",
        *(f"test-0000{n}-of-00003.parquet" for n in range(3)),
    ]
    with (tmp_path / "photos" / "rejected.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [["split", "key", "path", "reason"], ["rejected", "8", "8.jpg", "is missing"]]
    assert problems(tmp_path) == []


def test_a_split_that_lost_all_its_files_goes(root, tmp_path):
    save(tmp_path, root, test=[0], more=[1])
    (root / "1.jpg").unlink()
    assert save(tmp_path, root, test=[0], more=[1])["more"].rejected[0].reason == "is missing"
    assert names(tmp_path / "photos") == ["provenance.json", "rejected.csv", "test-00000-of-00001.parquet"]
    (root / "0.jpg").write_bytes(b"")
    with pytest.raises(InputError, match=r"photos/test: no image can be packed .0.jpg is empty.; see .*rejected.csv"):
        save(tmp_path, root, test=[0], more=[1])
    assert configs_of(tmp_path) == []
    assert "provenance-missing" not in [each.code for each in problems(tmp_path)]
    assert "empty" in [each.code for each in problems(tmp_path)]


def test_a_build_that_is_stopped_is_not_published(root, tmp_path):
    def stopping():
        yield {"name": "2"}, root / "2.jpg"
        raise KeyboardInterrupt

    save(tmp_path, root, test=[0, 1])
    terms = Provenance(license="cc0-1.0", license_reason="", image_rights=rights_of("mine"))
    with pytest.raises(KeyboardInterrupt):
        save_images(tmp_path, "photos", {"test": stopping()}, ROWS, Packing(key="name", root=root), terms)
    assert "provenance-missing" in [each.code for each in problems(tmp_path)]
    save(tmp_path, root, test=[0, 1])
    assert problems(tmp_path) == []


def test_a_build_without_images_leaves_nothing_of_them(root, tmp_path):
    save(tmp_path, root, test=[0, 0, 9])
    assert (tmp_path / ".packing" / "photos").is_dir()
    forget_images(tmp_path, "photos")
    save_config(tmp_path, "photos", {"test": words(2)}, Provenance(license="cc0-1.0", license_reason="made here"))
    assert names(tmp_path / "photos") == ["provenance.json", "test-00000-of-00001.parquet"]
    assert not (tmp_path / ".packing" / "photos").exists()
