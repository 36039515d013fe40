"""croissant.json as mlcroissant reads it: no issue, the rows of the Parquet files, the words of rai.json."""

import hashlib
import json
import re

import pytest

from tests.croissant_reader import parquet_rows, read
from widespectrum import __version__
from widespectrum.published import published_path
from widespectrum.publishing import configs, save_card, save_config
from widespectrum.publishing.croissant import describe

from .conftest import NAME, RIGHTS, pictures, terms, words

pytestmark = [
    # of mlcroissant itself and of the libraries that it calls
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The inplace keyword"),
]

COLLECTION_TYPES = {
    "Surveys", "Secondary Data analysis", "Physical data collection", "Direct measurement", "Document analysis",
    "Manual Human Curator", "Software Collection", "Experiments", "Web Scraping", "Web API", "Focus groups",
    "Self-reporting", "Customer feedback data", "User-generated content data", "Passive Data Collection", "Others",
}  # fmt: skip
"""The values that the RAI vocabulary recommends for dataCollectionType."""

RAI = json.loads((published_path("cards") / "rai.json").read_text(encoding="utf-8"))


def test_it_is_valid_and_gives_the_rows(good):
    issues, metadata, records = read(good)
    assert issues == []
    assert records == parquet_rows(good)
    assert [row["text"] for row in records["words/lite"]] == ["one 0", "one | café 1"]
    assert (metadata.name, metadata.cite_as[:10]) == (NAME, "@software{")
    assert metadata.license == ["https://creativecommons.org/licenses/by/4.0/"]
    assert metadata.description.startswith("Pairs of prompts for text-to-image and image-editing models")
    assert "\n" not in metadata.description


def test_every_file_of_several_is_a_record_set(tmp_path, monkeypatch):
    monkeypatch.setattr(configs, "SHARD_BYTES", 1)
    save_config(tmp_path, "words", {"test": words(3)}, terms(license="other"))
    save_config(tmp_path, "pictures", {"test": pictures(1)}, terms(**RIGHTS))
    save_card(tmp_path, NAME, {"dimensions": "none"})
    issues, metadata, records = read(tmp_path)
    assert issues == []
    assert list(records) == ["pictures/test/00000", "pictures/test/00001", *(f"words/test/0000{n}" for n in range(3))]
    assert records == parquet_rows(tmp_path)
    assert metadata.license == ["https://creativecommons.org/licenses/by/4.0/", "other"]


def test_a_file_that_was_changed_is_noticed(good):
    path = good / "words" / "lite-00000-of-00001.parquet"
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(Exception, match=r"Download\(words/lite-00000-of-00001\.parquet\)"):
        read(good)


def test_files_have_their_size_and_checksum(good):
    listed = json.loads((good / "croissant.json").read_text(encoding="utf-8"))["distribution"]
    assert len(listed) == 3
    for entry in listed:
        content = (good / entry["@id"]).read_bytes()
        assert entry["sha256"] == hashlib.sha256(content).hexdigest()
        assert entry["contentSize"] == f"{len(content)} B"
        assert entry["contentUrl"] == entry["@id"]


def test_addresses_on_the_hub(good):
    made = describe(good, NAME, "acme/things")
    assert made["url"] == "https://huggingface.co/datasets/acme/things"
    assert made["distribution"][0]["contentUrl"] == (
        f"https://huggingface.co/datasets/acme/things/resolve/v{__version__}/pictures/test-00000-of-00001.parquet"
    )


@pytest.mark.parametrize("name", sorted(set(RAI) - {"all"}))
def test_the_words_on_responsible_use_are_read(good, name):
    save_card(good, NAME, {"dimensions": "none"})
    (good / "croissant.json").write_text(json.dumps(describe(good, name)), encoding="utf-8")
    issues, metadata, _ = read(good)
    assert issues == []
    for key, value in {**RAI["all"], **RAI[name]}.items():
        attribute = re.sub("([A-Z])", r"_\1", key).lower()
        assert getattr(metadata, attribute) in (value, [value]), key


def test_every_builder_has_its_words():
    builders = {path.parent.name for path in published_path("dataset_builders").glob("*/build.py")}
    assert builders == set(RAI) - {"all"}
    for name in builders:
        assert {"dataCollection", "dataLimitations", "dataBiases", "personalSensitiveInformation"} <= set(RAI[name])
        assert set(RAI[name]["dataCollectionType"]) <= COLLECTION_TYPES
