"""Configs as Parquet: what is written, what of an earlier build stays, and what a kill in between leaves behind."""

import os
import re
import sys
import threading
from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest

from widespectrum.errors import InputError
from widespectrum.publishing import configs, configs_of, load_split, read_provenance, save_card, save_config
from widespectrum.publishing.check import problems
from widespectrum.publishing.configs import splits_of, table_on_disk

from .conftest import MADE, NAME, PICTURES, RIGHTS, WORDS, pictures, png, terms, words

pytestmark = [
    # `datasets` leaves the card open, which Python reports as a ResourceWarning.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def stored(table):
    """Rows without decoding images."""
    return table.with_format("arrow")[:].to_pylist()


def test_rows_images_and_terms_are_written_as_they_are(tmp_path):
    made = save_config(tmp_path, "pictures", {"test": pictures(3)}, terms(**MADE, **RIGHTS))
    assert names(tmp_path / "pictures") == ["provenance.json", "test-00000-of-00001.parquet"]
    table = pq.read_table(tmp_path / "pictures" / "test-00000-of-00001.parquet")
    assert datasets.Features.from_arrow_schema(table.schema) == PICTURES
    assert table.schema.names == list(PICTURES)
    assert table.to_pylist() == stored(pictures(3)) == stored(made["test"])
    assert [row["image"] and row["image"]["bytes"] for row in table.to_pylist()] == [png(0), png(1), png(2), None]
    assert read_provenance(tmp_path / "pictures") == terms(**MADE, **RIGHTS)
    assert configs_of(tmp_path) == ["pictures"]


@pytest.mark.parametrize(("rows", "shards"), [(0, 1), (1, 1), (5, 5)])
def test_shards_keep_the_order_and_are_no_more_than_the_rows(tmp_path, monkeypatch, rows, shards):
    monkeypatch.setattr(configs, "SHARD_BYTES", 1)
    save_config(tmp_path, "words", {"test": words(rows)}, terms())
    files = [f"test-{number:05d}-of-{shards:05d}.parquet" for number in range(shards)]
    assert names(tmp_path / "words") == ["provenance.json", *files]
    assert [path.name for path in splits_of(tmp_path, "words")["test"]] == files
    loaded = load_split(tmp_path, "words")
    assert (loaded.features, loaded.to_list()) == (WORDS, words(rows).to_list())


def test_a_selection_of_rows_is_written_as_selected(tmp_path):
    chosen = words(9).select([7, 1, 4])
    save_config(tmp_path, "words", {"test": chosen}, terms())
    assert load_split(tmp_path, "words").to_list() == chosen.to_list()


def test_another_build_replaces_the_first(tmp_path, monkeypatch):
    monkeypatch.setattr(configs, "SHARD_BYTES", 1)
    folder = tmp_path / "words"
    save_config(tmp_path, "words", {"test": words(4), "lite": words(2)}, terms())
    (folder / "rejected.csv").write_text("kept\n")
    (folder / ".tmp-test-00008-of-00009.parquet").write_text("stopped")
    save_config(tmp_path, "words", {"test": words(2, "two")}, terms(license="cc0-1.0"))
    assert names(folder) == [
        "provenance.json", "rejected.csv", "test-00000-of-00002.parquet", "test-00001-of-00002.parquet"
    ]  # fmt: skip
    assert load_split(tmp_path, "words")["text"][:] == ["two 0", "two | café 1"]
    assert read_provenance(folder).license == "cc0-1.0"


def test_the_same_rows_give_the_same_bytes(tmp_path):
    for name in ("one", "other"):
        save_config(tmp_path / name, "pictures", {"test": pictures(3)}, terms(**RIGHTS))
    assert (
        len({(tmp_path / name / "pictures/test-00000-of-00001.parquet").read_bytes() for name in ("one", "other")}) == 1
    )


def test_the_bar_of_datasets_is_hidden_and_comes_back(tmp_path, capsys):
    save_config(tmp_path, "words", {"test": words(3)}, terms())
    assert capsys.readouterr().err == ""
    assert not datasets.are_progress_bars_disabled()


def test_an_image_that_is_only_a_path_is_refused(tmp_path):
    (tmp_path / "one.png").write_bytes(png(1))
    table = datasets.Dataset.from_dict({"name": ["1"], "image": [str(tmp_path / "one.png")]}, features=PICTURES)
    with pytest.raises(InputError, match=r"^pictures/test: expected the bytes of the images in the column 'image'"):
        save_config(tmp_path / "out", "pictures", {"test": table}, terms(**RIGHTS))
    assert names(tmp_path / "out" / "pictures") == []


def test_what_is_not_there_is_named(tmp_path):
    save_config(tmp_path, "words", {"test": words(1), "a": words(1)}, terms())
    assert list(splits_of(tmp_path, "words")) == ["test", "a"]
    with pytest.raises(InputError, match=r"words holds no split 'lite', only test, a: build this config again"):
        load_split(tmp_path, "words", "lite")
    with pytest.raises(InputError, match=r"other holds no Parquet files: build this config again"):
        load_split(tmp_path, "other")
    assert load_split(tmp_path, "words", columns=["tokens", "text"]).column_names == ["tokens", "text"]


def save(out, word, rows):
    save_config(out, "words", {"test": words(rows, word), "lite": words(2, word)}, terms())
    save_card(out, NAME, {"dimensions": "none"})


def loaded(out, cache):
    """The texts of both splits; None where `datasets` refuses."""
    try:
        made = datasets.load_dataset(str(out), "words", cache_dir=str(cache))
    except (ValueError, FileNotFoundError, datasets.exceptions.DatasetsError):
        return None
    return [*made["test"]["text"], *made["lite"]["text"]]


def texts(word, rows):
    return [*words(rows, word)["text"], *words(2, word)["text"]]


class Killed(BaseException):
    """Nothing in between can catch it."""


def test_a_build_that_is_stopped_anywhere_never_mixes_two(tmp_path, monkeypatch):
    """Stopped before each step that renames or removes a file or syncs a folder, one build per step."""
    monkeypatch.setattr(configs, "SHARD_BYTES", 1)
    old, new = texts("old", 3), texts("new", 3)
    outcomes = []
    for step in range(100):
        out, left = tmp_path / str(step), step
        save(out, "old", 3)
        with monkeypatch.context() as patch:
            for name in ("replace", "rename", "unlink", "remove", "open"):
                original = getattr(os, name)

                def stopping(*arguments, original=original, **options):
                    nonlocal left
                    left -= 1
                    if left < 0:
                        raise Killed
                    return original(*arguments, **options)

                patch.setattr(os, name, stopping)
            try:
                save(out, "new", 3)
            except Killed:
                finished = False
            else:
                finished = True
        found, there = problems(out), loaded(out, tmp_path / f"cache{step}")
        assert there in (old, new, None), step
        assert found or there == new, step
        outcomes.append((bool(found), there))
        if finished:
            break
        save(out, "new", 3)
        assert problems(out) == []
        assert loaded(out, tmp_path / f"again{step}") == new
    assert outcomes[0] == (True, old)
    assert outcomes[-1] == (False, new)
    assert (True, None) in outcomes
    assert len(outcomes) > 15


def rows(count, size):
    rng = np.random.default_rng(0)
    for number in range(count):
        yield {"name": str(number), "image": {"bytes": rng.bytes(size), "path": f"{number}.png"}}


def test_a_table_on_disk_holds_the_rows_and_leaves_no_file(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    table = table_on_disk(rows(40, 100), PICTURES)
    assert list(tmp_path.iterdir()) == []
    assert table.features == PICTURES
    assert stored(table) == list(rows(40, 100))
    for count in (0, 5):
        again = table_on_disk(iter(words(count).to_list()), WORDS)
        assert (again.features, again.to_list()) == (WORDS, words(count).to_list())


def test_an_error_in_the_rows_is_raised_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def broken():
        yield {"name": "1", "image": None}
        raise InputError("the second photograph is damaged")

    with pytest.raises(InputError, match=r"^the second photograph is damaged$"):
        table_on_disk(broken(), PICTURES)
    assert list(tmp_path.iterdir()) == []


class PeakOfAnonymousMemory:
    """The most memory, in MB, that this process holds beyond what it held at first, mapped files aside."""

    def __enter__(self):
        self._done, self.peak, self._base = threading.Event(), 0, self._now()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._done.set()
        self._thread.join()

    def _now(self):
        return int(re.search(r"RssAnon:\s*(\d+)", Path("/proc/self/status").read_text())[1]) / 1000

    def _watch(self):
        while not self._done.wait(0.002):
            self.peak = max(self.peak, self._now() - self._base)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_images_are_never_all_in_memory(tmp_path):
    with PeakOfAnonymousMemory() as memory:
        save_config(tmp_path, "pictures", {"test": table_on_disk(rows(400, 500_000), PICTURES)}, terms(**RIGHTS))
    assert memory.peak < 120
    assert sum(path.stat().st_size for path in (tmp_path / "pictures").glob("*.parquet")) > 200_000_000
