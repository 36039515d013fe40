"""The published rows, the stage folders, embeddings on disk, and clean counterparts."""

import json

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from widespectrum import store
from widespectrum.ava.captioning import CAPTIONS, UNREAD
from widespectrum.ava.counterparts import clean_prompt, make_counterparts
from widespectrum.ava.reader import AvaVotes
from widespectrum.ava.selection import ENTRIES
from widespectrum.ava.stage import open_stage, read_stage
from widespectrum.ava.table import PHOTOGRAPHS, VOTES, photograph_rows, votes_table
from widespectrum.ava.vectors import open_image_vectors, read_text_vectors, save_text_vectors
from widespectrum.errors import InputError, ModelError, RunFolderError
from widespectrum.generators import load_generator
from widespectrum.images import ImageReader
from widespectrum.protocols import Refusal
from widespectrum.types import ModelSpec

VOTES_OF = AvaVotes(
    ids=np.array([30, 10, 20]),
    votes=np.array([[0, 0, 0, 0, 4, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0, 0, 0, 1], [0, 2, 0, 0, 0, 2, 0, 0, 0, 0]]),
    tags=np.array([[0, 2], [1, 2], [0, 0]]),
    challenges=np.array([7, 8, 0]),
)
NAMES = {"challenges": {7: "Fog"}, "tags": {1: "Sky", 2: "Night"}, "styles": {10: ("HDR", "Macro"), 20: ()}}


def test_votes_get_their_names():
    table = votes_table(VOTES_OF, **NAMES)
    assert table.schema == VOTES
    rows = {row["ava_id"]: row for row in table.to_pylist()}
    assert rows[30]["votes"] == [0, 0, 0, 0, 4, 0, 0, 0, 0, 0]
    assert [rows[n]["vote_mean"] for n in (10, 20, 30)] == [5.5, 4.0, 5.0]
    assert [rows[n]["vote_sd"] for n in (10, 20, 30)] == [4.5, 2.0, 0.0]
    assert [rows[n]["vote_count"] for n in (10, 20, 30)] == [2, 4, 4]
    assert [(rows[n]["challenge_id"], rows[n]["challenge"]) for n in (10, 20, 30)] == [
        (8, None),
        (None, None),
        (7, "Fog"),
    ]
    assert [rows[n]["tags"] for n in (10, 20, 30)] == [["Sky", "Night"], [], ["Night"]]
    assert [rows[n]["styles"] for n in (10, 20, 30)] == [["HDR", "Macro"], [], None]


def test_without_the_files_that_name_them_the_columns_are_null():
    table = votes_table(VOTES_OF)
    assert [table[name].null_count for name in ("challenge", "tags", "styles", "challenge_id")] == [3, 3, 3, 1]


ENTRY_ROWS = [
    (10, "color_and_tone.sickly_cast", "a", 0.30, 2),
    (10, "color_and_tone.muted_faded", "b", 0.20, 1),
    (10, "color_and_tone.sickly_cast", "c", 0.90, 3),
    (20, "color_and_tone.sickly_cast", "a", 0.40, 1),
    (30, "", "d", 0.50, 1),
]
ENTRY_TABLE = pa.Table.from_pylist([dict(zip(ENTRIES.names, row, strict=True)) for row in ENTRY_ROWS], schema=ENTRIES)


def caption(ava_id, reason=""):
    row = dict.fromkeys(CAPTIONS.names, "") | {"ava_id": ava_id, "reason": reason, "elements": []}
    kept = {"status": "kept", "elements": ["color_and_tone.sickly_cast"], "clean_caption": "man on bench"}
    return row | ({"status": "rejected", "detail": "why"} if reason else kept)


def captions(answers, unread=()):
    return (
        pa.Table.from_pylist([caption(*answer) for answer in answers], schema=CAPTIONS),
        pa.Table.from_pylist([dict(zip(UNREAD.names, row, strict=True)) for row in unread], schema=UNREAD),
    )


def test_without_captions_every_selected_photograph_is_in_test():
    splits = photograph_rows(ENTRY_TABLE, votes=votes_table(VOTES_OF, **NAMES), captions=None)
    assert list(splits) == ["test"]
    first, second, third = splits["test"]
    assert list(first) == list(PHOTOGRAPHS)
    assert (first["ava_id"], first["status"], first["elements"], first["clean_caption"]) == (10, "selected", None, None)
    assert (first["selection_query"], first["selection_similarity"]) == ("b", 0.20)
    assert first["query_elements"] == ["color_and_tone.muted_faded", "color_and_tone.sickly_cast"]
    assert (first["vote_mean"], first["styles"]) == (5.5, ["HDR", "Macro"])
    assert second["query_elements"] == ["color_and_tone.sickly_cast"]
    assert (third["query_elements"], third["challenge"]) == ([], "Fog")


def test_captions_split_the_rows():
    tables = captions([(10,), (20, "ordinary")])
    splits = photograph_rows(ENTRY_TABLE, votes=None, captions=tables)
    assert {split: [row["ava_id"] for row in rows] for split, rows in splits.items()} == {
        "test": [10],
        "rejected": [20],
        "pending": [30],
    }
    kept, rejected, pending = (splits[split][0] for split in ("test", "rejected", "pending"))
    assert (kept["status"], kept["reason"], kept["clean_caption"]) == ("kept", None, "man on bench")
    assert (rejected["reason"], rejected["detail"], rejected["elements"]) == ("ordinary", "why", None)
    assert (pending["status"], pending["votes"]) == ("pending", None)
    unread = photograph_rows(ENTRY_TABLE, votes=None, captions=captions([(10,)], [(20, "missing image", "gone")]))
    assert [(row["status"], row["reason"]) for row in unread["rejected"]] == [("rejected", "missing image")]


def test_rows_that_cannot_be_made():
    with pytest.raises(InputError, match="no photograph is left for the split test"):
        photograph_rows(ENTRY_TABLE, votes=None, captions=captions([(10, "ordinary")]))
    fewer = votes_table(VOTES_OF).slice(0, 2)
    with pytest.raises(InputError, match=r"1 selected photographs are not in AVA.txt, the first is 20"):
        photograph_rows(ENTRY_TABLE, votes=fewer, captions=None)


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for ava_id in (10, 20):
        Image.new("RGB", (40, 30), (ava_id, 90, 200)).save(folder / f"{ava_id}.jpg")
    (folder / "20.jpg").write_bytes(b"\xff\xd8 no photograph")
    return folder


def test_a_stage_that_stored_nothing_takes_other_inputs(tmp_path):
    stage = open_stage(tmp_path, "x", {"vlm": "mistyped"})
    stage.write("unread", UNREAD.empty_table())
    again = open_stage(tmp_path, "x", {"vlm": "right"})
    again.append("rows", [{"n": 1}], pa.schema([("n", pa.int64())]))
    with pytest.raises(RunFolderError, match=r'x was made with another vlm \("right", now "mistyped"\)'):
        open_stage(tmp_path, "x", {"vlm": "mistyped"})


def test_a_stage_goes_on_with_the_same_inputs_and_refuses_others(tmp_path):
    schema = pa.schema([("n", pa.int64())])
    stage = open_stage(tmp_path, "x", {"seed": 1, "file": ("a", "b")})
    stage.append("rows", [{"n": 1}], schema)
    again = open_stage(tmp_path, "x", {"seed": 1, "file": ["a", "b"]})
    again.append("rows", [{"n": 2}, {"n": 3}], schema)
    assert again.summary is None
    assert again.read("rows", schema)["n"].to_pylist() == [1, 2, 3]
    assert open_stage(tmp_path, "x", {"seed": 1, "file": ["a", "b"]}).finish({"n": 3}).summary == {"n": 3}
    with pytest.raises(RunFolderError, match=r"x was made with another seed \(1, now 2\): delete it"):
        open_stage(tmp_path, "x", {"seed": 2, "file": ["a", "b"]})
    with pytest.raises(RunFolderError, match=r"was made with another extra \(null, now true\)"):
        open_stage(tmp_path, "x", {"seed": 1, "file": ["a", "b"], "extra": True})
    with pytest.raises(RunFolderError, match="has other columns than expected"):
        again.read("rows", pa.schema([("m", pa.int64())]))
    (tmp_path / "x" / "stage.json").write_text("{")
    with pytest.raises(RunFolderError, match=r"stage\.json is damaged: delete"):
        read_stage(tmp_path, "x")
    assert read_stage(tmp_path, "y") is None


@pytest.fixture
def vectors(tmp_path):
    folder = tmp_path / "vectors"
    folder.mkdir()
    np.save(folder / "embeddings.npy", np.ones((3, 4), np.float16))
    np.save(folder / "ids.npy", np.array([3, 1, 2]))
    (folder / "model.json").write_text(json.dumps({"model": "tiny", "dimension": 4}))
    return folder


def test_embeddings_are_opened_in_place(vectors):
    found = open_image_vectors(vectors)
    assert isinstance(found.embeddings, np.memmap)
    assert (found.embeddings.shape, found.ids.tolist(), found.model) == ((3, 4), [3, 1, 2], "tiny")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("model.json", None, "a folder without it is unfinished"),
        ("model.json", "{", "model.json is no JSON; expected the name of the model"),
        ("model.json", '{"model": ""}', 'expected {"model": <name>'),
        ("model.json", '{"model": "tiny", "dimension": 5}', "says 5 dimensions, embeddings.npy has 4"),
        ("embeddings.npy", np.ones((3, 4)), r"expected float16 or float32 of shape \(N, D\), got float64"),
        ("embeddings.npy", np.ones(3, np.float16), r"got float16 of shape \(3,\)"),
        ("embeddings.npy", "no array", "is no array that NumPy saved"),
        ("ids.npy", np.array([1, 2]), "expected 3 whole numbers, got int64 of shape"),
        ("ids.npy", np.array(["1", "2", "3"]), "expected 3 whole numbers, got <U1"),
        ("ids.npy", np.array([1, 2, 1]), "ids.npy, row 3: expected a positive number that is there once, got 1"),
        ("ids.npy", np.array([1, 0, 2]), "row 2: expected a positive number that is there once, got 0"),
        ("ids.npy", np.array([1, 2**63, 2], np.uint64), "row 2: expected a positive .* got 9223372036854775808"),
        ("embeddings.npy", "PK\x03\x04 no archive", "is no array that NumPy saved"),
        ("ids.npy", None, "there is no such file; expected the ids of the images"),
    ],
)
def test_embeddings_that_do_not_belong_together(vectors, name, content, message):
    (vectors / name).unlink()
    if isinstance(content, str):
        (vectors / name).write_text(content)
    elif content is not None:
        np.save(vectors / name, content)
    with pytest.raises(InputError, match=message):
        open_image_vectors(vectors)


def test_text_vectors_come_back_and_belong_to_their_model(tmp_path):
    given = {"a text": np.array([1.0, 2.0]), "naïve": np.array([0.5, -1.0])}
    save_text_vectors(tmp_path / "texts", given, "tiny")
    found = read_text_vectors(tmp_path / "texts", "tiny")
    assert {text: vector.tolist() for text, vector in found.items()} == {"a text": [1, 2], "naïve": [0.5, -1]}
    with pytest.raises(InputError, match="was made by tiny and the embeddings of the images by large"):
        read_text_vectors(tmp_path / "texts", "large")
    (tmp_path / "texts" / "queries.json").write_text('["a text"]')
    with pytest.raises(InputError, match="expected a list of 2 texts"):
        read_text_vectors(tmp_path / "texts", "tiny")
    (tmp_path / "texts" / "queries.json").write_text('["a text", "a text"]')
    with pytest.raises(InputError, match="the text 'a text' is there twice"):
        read_text_vectors(tmp_path / "texts", "tiny")


CLEAN = {10: "man on bench", 20: "dog", 30: "cat"}


def images(folder):
    return store.read(folder, "images").to_pylist()


def test_counterparts_by_a_generator_that_starts_from_photographs(tmp_path, root):
    model = ("identity[size=16]", load_generator("identity", size=16))
    made = make_counterparts(tmp_path / "c", CLEAN, model, root=root)
    assert (made.made, made.refused, made.failures, list(made.left_out)) == (1, 0, [], [20, 30])
    assert "no photograph at" in made.left_out[30]
    (row,) = images(tmp_path / "c")
    assert (row["prompt_id"], row["generator"]) == (clean_prompt(10, "man on bench").prompt_id, "identity[size=16]")
    assert ImageReader(tmp_path / "c").read([row["image_id"]])[row["image_id"]].size == (16, 12)
    with pytest.raises(InputError, match="starts from photographs; name the folder that holds them with --ava-root"):
        make_counterparts(tmp_path / "d", CLEAN, model)


class Painter:
    """A text-to-image generator: a plain color by the text; it refuses cats and fails on what it is told to."""

    needs_images = False
    spec = ModelSpec(adapter="test", name="painter", revision="v1")

    def __init__(self, failing=()):
        self.failing, self.asked = failing, []

    def generate(self, prompts, *, seeds, images=None):
        assert images is None
        self.asked += [(prompt.text, seed) for prompt, seed in zip(prompts, seeds, strict=True)]
        if any(prompt.text in self.failing for prompt in prompts):
            raise ModelError("out of paint")
        colors = {"man on bench": "red", "dog": "blue"}
        return [
            Image.new("RGB", (8, 8), colors[prompt.text]) if prompt.text in colors else Refusal("no cats")
            for prompt in prompts
        ]


def test_counterparts_by_a_text_to_image_generator_go_on_where_they_stopped(tmp_path):
    first, second = Painter(failing={"dog"}), Painter()
    made = make_counterparts(tmp_path, CLEAN, ("painter", first), seed=3, batch_size=1)
    assert (made.made, made.refused, len(made.failures)) == (1, 1, 1)
    assert "out of paint" in made.failures[0]
    made = make_counterparts(tmp_path, CLEAN, ("painter", second), seed=3, batch_size=1)
    assert (made.made, made.refused, made.failures, made.left_out) == (2, 1, [], {})
    assert second.asked == [("dog", 3)]
    assert sorted(row["detail"] for row in images(tmp_path)) == ["", "", "no cats"]
    with pytest.raises(RunFolderError, match="was made from 'dog', and its clean caption is now 'wolf'"):
        make_counterparts(tmp_path, {**CLEAN, 20: "wolf"}, ("painter", second), seed=3)
