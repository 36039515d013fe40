"""The builder on a made-up copy of LAPIS: no rater, no painting, and what `datasets` reads of it."""

import collections
import csv
import hashlib
import shutil
from pathlib import Path

import datasets
import pytest

from tests.chat_server import serving
from tests.lapis.made import NAMES, make_copy
from widespectrum.errors import InputError
from widespectrum.published import load_module
from widespectrum.publishing import load_split, read_provenance
from widespectrum.publishing.check import problems

SCRIPT = Path(__file__).resolve().parents[2] / "dataset_builders" / "lapis_subset" / "build.py"

pytestmark = [
    # `datasets` leaves the card open, which Python reports as a ResourceWarning.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def builder():
    return load_module(SCRIPT)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_copy(tmp_path_factory.mktemp("copy") / "LAPIS")


@pytest.fixture(scope="module")
def built(builder, root, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "lapis_subset"
    builder.build(out, lapis_root=root)
    builder.build(out, lapis_root=root, size=120, seed=3)
    return out


def test_it_loads_and_may_be_published(builder, built, tmp_path):
    assert problems(built) == []
    subset = datasets.load_dataset(str(built), split="test", cache_dir=str(tmp_path))
    assert subset.num_rows == 120
    assert subset.features == builder.FEATURES["subset"]
    splits = datasets.load_dataset(str(built), "all", cache_dir=str(tmp_path))
    assert set(splits) == {"train", "validation", "test", "unlisted"}
    assert all(set(table["official_split"]) == {name} for name, table in splits.items() if name != "unlisted")
    everything = {row["file"]: row for table in splits.values() for row in table}
    assert all(everything[row["file"]] == row for row in subset)
    streamed = datasets.load_dataset(str(built), "subset", split="test", streaming=True)
    assert next(iter(streamed)) == subset[0]


def test_no_rater_is_inside(built):
    content = b"".join(path.read_bytes() for path in built.rglob("*") if path.is_file() and path.suffix != ".md")
    assert b"participant" not in content
    assert b"VAIAK" not in content


def test_the_card_counts(built):
    card = (built / "README.md").read_text(encoding="utf-8")
    assert "license: other\n" in card
    assert "$" not in card
    assert "120 paintings (" in card
    cells = collections.Counter(row["style"] for row in load_split(built, "subset"))
    line = next(line for line in card.splitlines() if line.startswith("| Baroque |"))
    assert line.endswith(f"| {cells['Baroque']} |")
    assert "A mean of fewer than 5 raters" in card


def test_paintings_come_from_the_users_own_copy(builder, root, tmp_path, capsys):
    out, stated = tmp_path / "out", "painted by me, CC BY 4.0"
    every = {row["file"] for table in builder.build(out, lapis_root=root).values() for row in table}
    assert problems(out) == []
    made = builder.build(out, lapis_root=root, with_images=True)
    inside = {row["file"] for table in made.values() for row in table}
    assert inside == every & set(NAMES[:20])
    with (out / "all/rejected.csv").open(encoding="utf-8", newline="") as file:
        rejected = [(row["key"], row["reason"]) for row in csv.DictReader(file)]
    assert sorted(rejected) == [(name, "is missing") for name in sorted(every - inside)]
    assert f"{len(rejected)} paintings are missing or damaged: " in capsys.readouterr().out
    assert {path.name.partition("-")[0] for path in (out / "all").glob("*.parquet")} == set(made)
    assert [problem.code for problem in problems(out)] == ["rights-unclear"]
    first = next(iter(datasets.load_dataset(str(out), "all", split="train", streaming=True)))
    assert first["image"].size == (24, 16)
    assert first["sha256"] == hashlib.sha256((root / "images" / first["file"]).read_bytes()).hexdigest()
    builder.build(out, lapis_root=root, with_images=True, rights=stated)
    assert read_provenance(out / "all").image_rights == {"paintings of LAPIS": f"clear: {stated}"}
    assert problems(out) == []
    builder.build(out, lapis_root=root)
    assert problems(out) == []
    assert sorted(path.name for path in (out / "all").glob("*.csv")) == []
    assert len(load_split(out, "all", "train")) > len(made["train"])


def test_captions_are_asked_for_once(builder, root, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    with serving([{"caption": "A field of gray grain fills the canvas."}]) as server:
        for _ in range(2):
            made = builder.build(tmp_path / "out", lapis_root=root, size=150, captioner=server.endpoint)
        rows = list(made["test"])
        captioned = [row for row in rows if row["caption"] is not None]
        assert len(server.requests) == len(captioned) > 0
        assert {row["file"] for row in captioned} <= set(NAMES[:20])
        assert {row["caption_problem"] for row in rows if row["caption"] is None} == {"no image: is missing"}
    assert f"{len(captioned)} captions; {150 - len(captioned)} paintings have none" in capsys.readouterr().out
    assert read_provenance(tmp_path / "out" / "subset").options["captioner"].startswith("openai:org/tiny@")


def test_without_lists_everything_is_test(builder, root, tmp_path):
    bare = shutil.copytree(root, tmp_path / "bare")
    shutil.rmtree(bare / "imageset")
    made = builder.build(tmp_path / "out", lapis_root=bare)
    assert set(made) == {"test"}
    assert set(made["test"]["official_split"]) == {None}


def test_what_is_missing_is_said(builder, root, tmp_path):
    with pytest.raises(InputError, match="give your copy of LAPIS with --lapis-root DIR"):
        builder.build(tmp_path / "out")
    table = root / "annotation" / "LAPIS_individualratings_metaANDdemodata.csv"
    with pytest.raises(InputError, match="give your copy of LAPIS with --lapis-root DIR"):
        builder.build(tmp_path / "out", annotations=table, with_images=True)
    with pytest.raises(InputError, match=r"there is no such file; expected the annotation file of LAPIS"):
        builder.build(tmp_path / "out", lapis_root=tmp_path)
    with pytest.raises(InputError, match="must be from 1 to "):
        builder.build(tmp_path / "out", annotations=table, size=10_000)
    assert not (tmp_path / "out").exists()
