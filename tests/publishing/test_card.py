"""The card: front matter from the folder, sections and placeholders from the template."""

import re

import datasets
import pyarrow.parquet as pq
import pytest
from datasets.info import DatasetInfosDict
from huggingface_hub import DatasetCard

from widespectrum import __version__
from widespectrum.errors import InputError, RunFolderError
from widespectrum.publishing import card, configs, save_card, save_config
from widespectrum.publishing.check import problems

from .conftest import MADE, NAME, RIGHTS, pictures, terms, words

pytestmark = [
    # `datasets` leaves the card open, which Python reports as a ResourceWarning.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def front_matter(out):
    return DatasetCard((out / "README.md").read_text(encoding="utf-8")).data


def text_of(out):
    return (out / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def template(tmp_path, monkeypatch):
    """`template(text)` makes the template `things`; what saves a card then takes it."""
    monkeypatch.setattr(card, "published_path", lambda kind: tmp_path / kind)

    def write(text):
        (tmp_path / "cards").mkdir(exist_ok=True)
        (tmp_path / "cards" / "things.md").write_text(f"---\nlanguage:\n- en\n---\n\n{text}", encoding="utf-8")

    return write


def test_the_front_matter_describes_the_files(good):
    data = front_matter(good)
    assert data["language"] == ["en"]
    assert (data["license"], data["size_categories"]) == ("cc-by-4.0", ["n<1K"])
    assert data["configs"] == [
        {
            "config_name": "words",
            "default": True,
            "data_files": [
                {"split": "test", "path": "words/test-*.parquet"},
                {"split": "lite", "path": "words/lite-*.parquet"},
            ],
        },
        {"config_name": "pictures", "data_files": [{"split": "test", "path": "pictures/test-*.parquet"}]},
    ]
    infos = DatasetInfosDict.from_dataset_card_data(data)
    assert {
        name: {split: info.num_examples for split, info in each.splits.items()} for name, each in infos.items()
    } == {
        "words": {"test": 7, "lite": 2},
        "pictures": {"test": 4},
    }
    for name, info in infos.items():
        files = sorted((good / name).glob("*.parquet"))
        assert {datasets.Features.from_arrow_schema(pq.read_schema(path)) == info.features for path in files} == {True}
        assert info.download_size == sum(path.stat().st_size for path in files)
        assert info.dataset_size == sum(split.num_bytes for split in info.splits.values())


def test_datasets_takes_it_for_what_it_is(good, tmp_path):
    cache = str(tmp_path / "cache")
    default = datasets.load_dataset(str(good), cache_dir=cache)
    assert {split: table.to_list() for split, table in default.items()} == {
        "test": words(7).to_list(),
        "lite": words(2).to_list(),
    }
    assert datasets.load_dataset(str(good), split="lite[1:]", cache_dir=cache).to_list() == words(2).to_list()[1:]
    streamed = list(datasets.load_dataset(str(good), "pictures", split="test", streaming=True))
    assert [row["image"] and row["image"].size for row in streamed] == [(8, 6)] * 3 + [None]
    with pytest.raises(ValueError, match="BuilderConfig 'other' not found"):
        datasets.load_dataset(str(good), "other", cache_dir=cache)


def test_splits_in_several_files_are_counted_together(tmp_path, monkeypatch):
    monkeypatch.setattr(configs, "SHARD_BYTES", 1)
    save_config(tmp_path, "words", {"test": words(4)}, terms())
    save_card(tmp_path, NAME, {"dimensions": "none"})
    assert (
        datasets.load_dataset(str(tmp_path), cache_dir=str(tmp_path / "cache"))["test"].to_list() == words(4).to_list()
    )
    (split,) = DatasetInfosDict.from_dataset_card_data(front_matter(tmp_path))["words"].splits.values()
    assert split.num_examples == 4


@pytest.mark.parametrize(
    ("rows", "size"), [(999, "n<1K"), (1_000, "1K<n<10K"), (9_999, "1K<n<10K"), (10_000, "10K<n<100K")]
)
def test_the_size_counts_every_row_of_every_config(tmp_path, rows, size):
    save_config(tmp_path, "words", {"test": words(rows - 100), "lite": words(60)}, terms())
    save_config(tmp_path, "more", {"test": words(40)}, terms())
    save_card(tmp_path, NAME, {"dimensions": "none"})
    assert front_matter(tmp_path)["size_categories"] == [size]


@pytest.mark.parametrize(
    ("given", "shown"),
    [(("cc0-1.0", "cc0-1.0"), "cc0-1.0"), (("other", "cc0-1.0"), ["cc0-1.0", "other"]), (("", "other"), "other")],
)
def test_licenses_of_configs(tmp_path, given, shown):
    for config, license in zip(("one", "two"), given, strict=True):
        save_config(tmp_path, config, {"test": words(1)}, terms(license=license))
    save_card(tmp_path, NAME, {"dimensions": "none"})
    assert front_matter(tmp_path)["license"] == shown
    assert f"| `two` | test 1 | none | {given[1]}: made here |" in text_of(tmp_path)


def test_without_any_license_it_cannot_be_published(tmp_path):
    save_config(tmp_path, "words", {"test": words(1)}, terms(license=""))
    save_card(tmp_path, NAME, {"dimensions": "none"})
    assert {(problem.code, problem.where) for problem in problems(tmp_path)} == {
        ("license-missing", "README.md"),
        ("license-missing", "words/provenance.json"),
    }


def test_the_terms_are_on_the_card(good):
    text = text_of(good)
    assert "| `words` | test 7, lite 2 | none | cc-by-4.0: made here |" in text
    assert "| `pictures` | test 4 | inside | cc-by-4.0: made here |" in text
    assert (
        "**words**\n\n"
        f"- from a list (CC0), <https://example.org>, sha256 `{'0' * 64}`\n"
        "- writer: `chat:small@v1`\n"
        "- option `seed`: 3\n"
        "- made here\n"
    ) in text
    assert "- images of noise: clear: drawn by a random generator\n" in text
    assert f'revision="v{__version__}"' in text


def test_only_the_sections_of_what_is_there(tmp_path, template):
    template(
        "# $title\n\nAll.\n\n<!-- config words -->\n## Words $count\n\n<!-- end config -->\n"
        "<!-- config other -->\n## Other $missing\n\n<!-- end config -->\n"
        "<!-- config pictures -->\n## Pictures\n\n<!-- end config -->\nEnd, $$5.\n"
    )
    save_config(tmp_path / "out", "words", {"test": words(1)}, terms())
    save_card(tmp_path / "out", "things", {"title": "Things $x", "count": 3})
    assert text_of(tmp_path / "out").split("---\n")[2] == "\n# Things $x\n\nAll.\n\n## Words 3\n\nEnd, $5.\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a $mistake", "the placeholder 'mistake' has no value; correct the template"),
        ("a 5 $ bill", "Invalid placeholder in string: line 2, col 5; write $$ for a dollar sign"),
    ],
)
def test_a_template_that_cannot_be_filled_in(tmp_path, template, text, message):
    template(text)
    save_config(tmp_path / "out", "words", {"test": words(1)}, terms())
    with pytest.raises(InputError, match=rf"cards/things\.md: {re.escape(message)}$"):
        save_card(tmp_path / "out", "things")
    assert not (tmp_path / "out" / "README.md").exists()


def test_a_folder_that_cannot_have_a_card(tmp_path):
    with pytest.raises(InputError, match="holds no config of a dataset: build one first"):
        save_card(tmp_path, NAME)
    save_config(tmp_path, "words", {"test": words(1)}, terms())
    (tmp_path / "words" / "test-00000-of-00001.parquet").write_bytes(b"PAR1")
    with pytest.raises(RunFolderError, match=r"test-00000-of-00001\.parquet is damaged"):
        save_card(tmp_path, NAME, {"dimensions": "none"})


def test_the_same_folder_gives_the_same_card(good):
    before = [(good / name).read_bytes() for name in ("README.md", "croissant.json")]
    save_card(good, NAME, {"dimensions": "none"}, default="words")
    assert [(good / name).read_bytes() for name in ("README.md", "croissant.json")] == before


def test_the_default_is_the_first_where_it_is_not_there(tmp_path):
    for config in ("b", "a"):
        save_config(tmp_path, config, {"test": words(1)}, terms(**MADE))
    save_card(tmp_path, NAME, {"dimensions": "none"}, default="c")
    assert [(entry["config_name"], entry.get("default")) for entry in front_matter(tmp_path)["configs"]] == [
        ("a", True),
        ("b", None),
    ]
    save_config(tmp_path, "pictures", {"test": pictures(1)}, terms(**RIGHTS))
    save_card(tmp_path, NAME, {"dimensions": "none"}, default="pictures")
    assert [entry["config_name"] for entry in front_matter(tmp_path)["configs"]] == ["pictures", "a", "b"]
