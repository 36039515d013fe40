"""The builder from made-up AVA files to a dataset that loads, step by step."""

import base64
import csv
import hashlib
import inspect
import json
import shutil
from pathlib import Path

import datasets
import numpy as np
import pytest

from tests.ava.made import COUNT, QUERIES, make_ava, select
from tests.chat_server import serving
from widespectrum.ava import steps
from widespectrum.ava.selection import ENTRIES
from widespectrum.ava.stage import Stage
from widespectrum.ava.taxonomy import ELEMENTS
from widespectrum.errors import InputError, RunFolderError
from widespectrum.published import load_module, published_path
from widespectrum.publishing import configs_of, read_provenance
from widespectrum.publishing.check import problems
from widespectrum.types import ModelSpec

pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

REPLY = {
    "ordinary": False,
    "elements": ["emotion_and_subject.surrealism"],
    "clean_caption": "man on bench",
    "anti_aesthetic_caption": "A man sits on a bench in a park. Fish swim through the air around him.",
    "length_matched_clean_caption": "A man sits on a wooden bench in a park with trees and people around.",
}


@pytest.fixture(scope="module")
def builder():
    return load_module(published_path("dataset_builders", "ava_anti_aesthetic") / "build.py")


@pytest.fixture(scope="module")
def ava(tmp_path_factory):
    return make_ava(tmp_path_factory.mktemp("ava"))


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-a-key-of-the-tests")
    monkeypatch.setattr("widespectrum.chat.client._pause", lambda seconds, stop: None)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


def reply(body):
    """Photographs with little green are ordinary."""
    url = body["messages"][-1]["content"][-1]["image_url"]["url"]
    content = base64.b64decode(url.partition(",")[2])
    return {**REPLY, "ordinary": len(content) % 7 == 0, "elements": [list(ELEMENTS)[len(content) % 28]]}


@pytest.fixture(scope="module")
def selected(builder, ava, tmp_path_factory):
    out = tmp_path_factory.mktemp("hub") / "selected"
    assert (
        builder.read(ava / "AVA.txt", out)
        == f"{COUNT} photographs; without style_image_lists: not found beside AVA.txt"
    )
    told = select(builder, ava, out)
    assert told == "60 photographs by 60 queries (60 entries; dropped by a negative query 1, over the cap 0)"
    return out


@pytest.fixture
def out(selected, tmp_path):
    """A copy of the folder after read and select."""
    return shutil.copytree(selected, tmp_path / "ava_anti_aesthetic")


def load(out, tmp_path, *config, **options):
    return datasets.load_dataset(str(out), *config, cache_dir=str(tmp_path / "cache"), **options)


def test_what_is_selected_is_packed_without_photographs(builder, out, tmp_path):
    made = builder.build(out)
    assert {split: table.num_rows for split, table in made.items()} == {"test": 60, "selection": 60}
    loaded = load(out, tmp_path)
    assert loaded["test"].features == builder.FEATURES["photographs"]
    row = loaded["test"][2]
    assert (row["ava_id"], row["status"], row["votes"][2], row["challenge"]) == (3, "selected", 3, "Blurry_Mess")
    assert (row["vote_mean"], row["selection_query"]) == (4.25, QUERIES[2].name)
    assert row["selection_similarity"] == 0.6
    assert row["query_elements"] == [QUERIES[2].element]
    selection = load(out, tmp_path, "selection", split="test")
    assert selection.features == builder.FEATURES["selection"]
    assert selection["ava_id"][:] == list(range(1, 61))
    streamed = load(out, tmp_path, "photographs", split="test", streaming=True)
    assert next(iter(streamed)) == loaded["test"][0]
    provenance = read_provenance(out / "photographs")
    assert (provenance.license, provenance.image_rights) == ("other", {})
    assert provenance.models == {"embeddings": "transformers:tiny@v1"}
    assert [source.name for source in provenance.sources] == ["AVA.txt", "challenges.txt", "tags.txt"]


def test_the_card_says_what_is_there(builder, out):
    builder.build(out)
    card = (out / "README.md").read_text(encoding="utf-8")
    assert "license: other" in card
    assert "$" not in card.replace("$$", "")
    assert "60 photographs in the split `test`" in card
    assert "| in the split `test` | 60 |" in card
    assert f"| {QUERIES[0].name} | {QUERIES[0].element} | 0.270 | 1 | 0 | 1 |" in card
    assert "| emotion_and_subject.surrealism | 2 | 0 |" in card
    assert "They are not part of this dataset." in card
    assert "## The config `counterparts`" not in card
    assert "Murray" in card


def test_without_votes(builder, out, tmp_path):
    builder.build(out, votes=False)
    table = load(out, tmp_path, split="test")
    assert set(table["vote_mean"][:]) == {None}
    assert "The votes are not part of this build." in (out / "README.md").read_text(encoding="utf-8")


def test_the_whole_way(builder, ava, out, tmp_path):
    with serving(reply) as server:
        first = builder.recaption(ava / "images", server.endpoint, out, limit=20)
        assert first.endswith("; 40 not looked at yet")
        told = builder.recaption(ava / "images", server.endpoint, out)
        assert len(server.requests) == 58
    assert "damaged image 1" in told
    assert "missing image 1" in told
    assert told.endswith("; 0 not looked at yet")
    told = builder.counterpart("identity[size=16]", out, ava_root=ava / "images")
    made = builder.build(out)
    kept = made["test"].num_rows
    assert told == f"images {kept}, refusals 0, photographs that could not be opened 0"
    assert 30 < kept < 58
    assert made["rejected"].num_rows == 60 - kept
    loaded = load(out, tmp_path)
    assert set(loaded["rejected"]["reason"][:]) == {"ordinary", "missing image", "damaged image"}
    row = loaded["test"][0]
    assert (row["status"], row["clean_caption"], len(row["elements"])) == ("kept", "man on bench", 1)
    clean = load(out, tmp_path, "counterparts", split="test")
    assert clean.features == builder.FEATURES["counterparts"]
    assert clean["ava_id"][:] == loaded["test"]["ava_id"][:]
    assert clean[0]["image"].size == (16, 13)
    found = {config: read_provenance(out / config) for config in configs_of(out)}
    assert found["counterparts"].image_rights["counterparts"].startswith("unclear: photographs of AVA")
    assert {config: set(each.models) for config, each in found.items()} == {
        "counterparts": {"embeddings", "clean counterparts"},
        "photographs": {"embeddings"},
        "selection": {"embeddings"},
    }
    assert "captions by" in found["photographs"].options
    assert "captions by" not in found["selection"].options
    card = (out / "README.md").read_text(encoding="utf-8")
    assert f"| ordinary | {58 - kept} |" in card
    assert f"Made by `identity[size=16]`: images {kept}, refusals 0." in card
    shutil.move(out / ".work" / "counterpart", tmp_path / "moved")
    builder.build(out)
    assert configs_of(out) == ["photographs", "selection"]
    shutil.move(tmp_path / "moved", out / ".work" / "counterpart")
    with pytest.raises(RunFolderError, match="counterpart was made with another generator"):
        builder.counterpart("identity[size=32]", out, ava_root=ava / "images")
    with pytest.raises(RunFolderError, match="recaption was made with another vlm"):
        builder.recaption(ava / "images", "openai:other@http://127.0.0.1:9/v1", out)


def listed(out):
    with (out / "photographs" / "rejected.csv").open(encoding="utf-8", newline="") as file:
        return [(row["key"], row["path"], row["reason"]) for row in csv.DictReader(file)]


def test_photographs_are_packed_from_the_users_copy(builder, ava, out, tmp_path, capsys):
    made = builder.build(out, with_images=True, ava_root=ava / "images")
    assert "2 photographs are missing or damaged" in capsys.readouterr().out
    assert {split: len(table) for split, table in made.items()} == {"test": 58, "selection": 60}
    table = load(out, tmp_path, split="test")
    assert table.column_names == [*builder.FEATURES["photographs"], "image", "sha256", "width", "height"]
    assert table["ava_id"][:] == list(range(1, 59))
    assert (table[0]["image"].size, table[0]["width"], table[0]["height"]) == ((20, 16), 20, 16)
    raw = table.cast_column("image", datasets.Image(decode=False))
    for row in (raw[0], raw[57]):
        content = (ava / "images" / f"{row['ava_id']}.jpg").read_bytes()
        assert row["image"] == {"bytes": content, "path": f"{row['ava_id']}.jpg"}
        assert row["sha256"] == hashlib.sha256(content).hexdigest()
    assert listed(out)[0] == ("60", "60.jpg", "is missing")
    assert listed(out)[1][:2] == ("59", "59.jpg")
    assert read_provenance(out / "photographs").image_rights["photographs"].startswith("unclear: ")
    assert "58 of 60 were attached" in (out / "README.md").read_text(encoding="utf-8")
    assert [problem.code for problem in problems(out)] == ["rights-unclear"]
    with pytest.raises(InputError, match="name its folder with --ava-root"):
        builder.build(out, with_images=True)
    with pytest.raises(InputError, match="nowhere is no folder; expected the folder with the photographs"):
        builder.build(out, with_images=True, ava_root=Path("nowhere"))
    builder.build(out)
    assert "image" not in load(out, tmp_path / "again", split="test").column_names
    assert not (out / "photographs" / "rejected.csv").exists()
    assert not (out / ".packing" / "photographs").exists()
    assert problems(out) == []


def test_who_states_rights_may_publish_photographs(builder, ava, out, tmp_path):
    builder.build(out, with_images=True, ava_root=ava / "images", rights="all taken by me, CC BY 4.0")
    assert read_provenance(out / "photographs").image_rights == {"photographs": "clear: all taken by me, CC BY 4.0"}
    assert problems(out) == []
    streamed = load(out, tmp_path, "photographs", split="test", streaming=True)
    assert next(iter(streamed))["image"].size == (20, 16)


def test_a_copy_without_a_usable_photograph(builder, out, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no image can be packed \(1.jpg is missing; .*see .*rejected.csv"):
        builder.build(out, with_images=True, ava_root=tmp_path / "empty")
    assert len(listed(out)) == 60
    assert configs_of(out) == []


def test_queries_that_keep_nothing_are_not_a_selection(builder, ava, tmp_path):
    query = {"name": "q", "text": QUERIES[0].text, "threshold": 0.9}
    for threshold, kept in ((0.9, 0), (0.5, 2)):
        (tmp_path / "queries.json").write_text(json.dumps({"queries": [query | {"threshold": threshold}]}))
        options = {"queries": tmp_path / "queries.json", "thresholds": "", "cap": 1}
        if kept:
            assert select(builder, ava, tmp_path / "out", **options).startswith(f"{kept} photographs")
        else:
            with pytest.raises(InputError, match=f"no query keeps any of the {COUNT} photographs"):
                select(builder, ava, tmp_path / "out", **options)


def test_a_step_that_is_done_is_not_done_again_and_refuses_other_inputs(builder, ava, out, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in (out / ".work" / "select").rglob("*") if path.is_file()}
    assert select(builder, ava, out).startswith("60 photographs")
    assert before == {path: path.stat().st_mtime_ns for path in before}
    with pytest.raises(RunFolderError, match=r"select was made with another cap \(0.05, now 0.1\)"):
        select(builder, ava, out, cap=0.1)
    work = out / ".work" / "select"
    again = select(builder, ava, tmp_path / "again", query_embeddings=work / "query_embeddings")
    assert again == select(builder, ava, out)
    other = ava.parent / "other.txt"
    other.write_text((ava / "AVA.txt").read_text() + f"{COUNT + 1} {COUNT + 1} 1 0 0 0 0 0 0 0 0 0 0 0 0\n")
    with pytest.raises(RunFolderError, match=r"read was made with another AVA.txt"):
        builder.read(other, out, challenges=ava / "challenges.txt", tags=ava / "tags.txt")


def test_a_damaged_table_is_made_anew(builder, ava, out):
    work = out / ".work" / "select"
    whole = (work / "entries.parquet").read_bytes()
    (work / "entries.parquet").write_bytes(whole[:300])
    with pytest.raises(
        RunFolderError, match=r"entries.parquet is damaged .*: delete the .parquet files of .*select and"
    ):
        builder.build(out)
    for path in work.glob("*.parquet"):
        path.unlink()
    select(builder, ava, out)
    assert (work / "entries.parquet").read_bytes() == whole


def test_shares_can_be_fixed_as_cosines(builder, ava, tmp_path):
    told = select(builder, ava, tmp_path / "shares", thresholds="")
    assert told == "60 photographs by 60 queries (60 entries; dropped by a negative query 0, over the cap 0)"
    work = tmp_path / "shares" / ".work" / "select"
    assert told == select(builder, ava, tmp_path / "fixed", thresholds="", queries=work / "calibrated.json")
    tables = [Stage(tmp_path / name / ".work" / "select", {}) for name in ("shares", "fixed")]
    first, second = (table.read("entries", ENTRIES) for table in tables)
    assert first.equals(second)
    assert first["ava_id"].to_pylist() == [61, *range(2, 61)]


INDEX = """commit_key,query,threshold,negative_threshold,n_negative_prompts,negative_prompts
aaaa0001,{first},0.6,0.3,1,"[""{negative}""]"
aaaa0002,{second},0.61,0.3,1,"[""{negative}""]"
"""


def test_the_authors_table_is_replayed_and_compared(builder, ava, tmp_path):
    index, outcome = tmp_path / "index.csv", tmp_path / "outcome.csv"
    texts = {"first": QUERIES[0].text, "second": QUERIES[1].text, "negative": QUERIES[0].negatives[0]}
    index.write_text(INDEX.format(**texts))
    outcome.write_text("ava_id,commit_key\n1,aaaa0001\n2,aaaa0002\n")
    told = select(builder, ava, tmp_path / "a", thresholds="", like_authors=index, recorded=outcome)
    assert told == (
        "1 photographs by 2 queries (1 entries; dropped by a negative query 1, over the cap 0); "
        "beside the recorded entries: both 1, replay_only 0, recorded_only 1"
    )
    builder.build(tmp_path / "a")
    row = load(tmp_path / "a", tmp_path, split="test")[0]
    assert (row["ava_id"], row["selection_query"], row["query_elements"], row["votes"]) == (1, "aaaa0001", [], None)
    assert texts["first"] not in (tmp_path / "a" / "README.md").read_text(encoding="utf-8")
    told = builder.select(tmp_path / "b", recorded=outcome)
    assert told.startswith("2 photographs by 2 queries (2 entries")
    builder.build(tmp_path / "b")
    assert load(tmp_path / "b", tmp_path, "selection", split="test")["similarity"][:] == [None, None]


class ColorModel:
    """An image-text model that sees the mean color, and for which every text is red."""

    def __init__(self, name="color"):
        self.spec = ModelSpec(adapter="test", name=name, revision="v1")
        self.texts = []

    def load(self):
        pass

    def prepare(self, image):
        return {"color": np.asarray(image, dtype=np.float32).mean(axis=(0, 1))[None]}

    def encode_images(self, images):
        return np.concatenate([image["color"] for image in images])

    def encode_texts(self, texts):
        self.texts += texts
        return np.tile(np.float32([1, 0, 0]), (len(texts), 1))


def test_embedding_and_selecting_with_a_model(builder, ava, out, tmp_path):
    root, work, model = shutil.copytree(ava / "images", tmp_path / "images"), tmp_path / "work", ColorModel()
    shutil.copytree(out / ".work" / "read", work / "read")
    shutil.copy(root / "1.jpg", root / f"{COUNT + 5}.jpg")
    told = steps.embed(work, root, model, batch_size=8)
    assert told == (
        f"58 photographs embedded by test:color@v1; {COUNT - 58} are missing or could not be opened, listed in "
        f"{work / 'embed' / 'failed.csv'}; 1 files are not in AVA.txt and were left out"
    )
    path = tmp_path / "queries.json"
    path.write_text(json.dumps({"queries": [{"name": "red", "text": "red", "share": 0.1}]}))
    wanted = steps.Wanted(queries=path)
    with pytest.raises(InputError, match="embedded by test:color@v1 and --model is test:other@v1; use the same"):
        steps.select_photographs(work, wanted, None, lambda: ColorModel("other"))
    told = steps.select_photographs(work, wanted, None, lambda: model)
    assert told.startswith("5 photographs by 1 queries")
    assert model.texts == ["red"]
    # The red of a photograph grows with its number.
    assert steps.selected_ids(work) == [54, 55, 56, 57, 58]
    assert steps.select_photographs(work, wanted, None, None) == told


def test_a_cap_that_was_refused_can_be_changed(builder, ava, tmp_path):
    with pytest.raises(InputError, match="allow a larger share with --cap"):
        select(builder, ava, tmp_path, cap=0.01)
    assert select(builder, ava, tmp_path, cap=0.1).startswith("60 photographs")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"query_embeddings": None}, "the queries have to be embedded by transformers:tiny@v1 too"),
        ({"share": 0.01}, "--share and --thresholds are two rules"),
        ({"like_authors": Path("x.csv")}, "--like-authors brings its own thresholds"),
        ({"like_authors": Path("x.csv"), "queries": Path("y.json")}, "--queries and --like-authors are two sets"),
        ({"recorded": Path("x.csv"), "thresholds": "", "cap": 0.1}, "--recorded takes over a selection as it is"),
        ({"recorded": Path("x.csv")}, "--recorded takes over a selection as it is; leave --queries, --share"),
        ({"embeddings": Path("nowhere")}, "is no folder; expected one with embeddings.npy"),
        ({"cap": 0.0}, "the cap must be a share above 0"),
        ({"cap": 0.01}, "60 of 60 queries found 60 images"),
    ],
)
def test_options_that_do_not_fit(builder, ava, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        select(builder, ava, tmp_path, **options)


def test_steps_out_of_order(builder, ava, tmp_path):
    for step in (
        lambda: builder.build(tmp_path),
        lambda: builder.recaption(ava / "images", "openai:m@http://127.0.0.1:9/v1", tmp_path),
        lambda: builder.counterpart("identity", tmp_path),
    ):
        with pytest.raises(RunFolderError, match="run the step"):
            step()


def test_every_verb_has_an_example_and_a_folder_to_write(builder):
    assert list(builder.VERBS) == ["read", "embed", "select", "recaption", "counterpart", "build"]
    for name, verb in builder.VERBS.items():
        assert "Example: widespectrum build ava_anti_aesthetic" in inspect.getdoc(verb), name
        assert {"out", "work"} <= set(inspect.signature(verb).parameters), name
