"""The config `photo`: every photograph of a folder is either described or listed with its reason."""

import hashlib
import shutil

import datasets
import numpy as np
import PIL.Image
import pytest

from tests.chat_server import Reply, serving
from widespectrum.chat import Chat, Endpoint
from widespectrum.errors import InputError
from widespectrum.photo_prompts import INSTRUCTION, REJECTED_FEATURES, VERSION, features, photo_prompts
from widespectrum.publishing import features as as_features

CAPTION = "A red bus on a wet street."
PROMPT = " ".join(["A red bus stands askew in heavy rain, its windows fogged over,"] * 6)
GOOD = {"caption": CAPTION, "prompt": PROMPT}


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr("widespectrum.chat.client._pause", lambda seconds, stop: False)


@pytest.fixture
def folder(tmp_path):
    """Three photographs of different sizes; the file order is bus.png, cat.jpg, sea.png."""
    photos = tmp_path / "photos"
    photos.mkdir()
    rng = np.random.default_rng(0)
    for name, size in (("sea.png", (20, 30, 3)), ("cat.jpg", (40, 20, 3)), ("bus.png", (16, 16, 3))):
        PIL.Image.fromarray(rng.integers(0, 255, size, dtype=np.uint8)).save(photos / name)
    return photos


def made(server, folder, **options):
    with Chat(Endpoint.parse(server.endpoint), folder.parent / "journal.jsonl") as chat:
        found = photo_prompts(folder, chat, **options)
    assert list(found.rows()) == list(found.rows())
    return list(found.rows()), found.rejected


def test_a_row_says_which_photograph_it_describes_and_by_which_model(folder):
    with serving([{"caption": f" {CAPTION}\n", "prompt": PROMPT}]) as server:
        rows, rejected = made(server, folder)
    assert rejected == []
    assert len(server.requests) == 3
    assert [(row["file"], row["width"], row["height"]) for row in rows] == [
        ("bus.png", 16, 16),
        ("cat.jpg", 20, 40),
        ("sea.png", 30, 20),
    ]
    for row in rows:
        assert list(row) == list(features())
        assert row["sha256"] == hashlib.sha256((folder / row["file"]).read_bytes()).hexdigest()
        assert {**row, **GOOD, "model": "org/tiny", "instruction": VERSION} == row
    for request in server.requests:
        system, user = request.body["messages"]
        assert system["content"] == INSTRUCTION
        assert [part["type"] for part in user["content"]] == ["text", "image_url"]


def test_images_come_only_when_asked_for_and_as_they_are(folder):
    with serving([GOOD]) as server:
        rows, _ = made(server, folder, with_images=True)
    table = datasets.Dataset.from_list(rows, features=as_features(features(with_images=True)))
    assert [image.size for image in table["image"]] == [(row["width"], row["height"]) for row in rows]
    for row in rows:
        assert row["image"] == {"bytes": (folder / row["file"]).read_bytes(), "path": row["file"]}


def test_a_photograph_that_was_changed_meanwhile_is_not_passed_on(folder):
    with serving([GOOD]) as server, Chat(Endpoint.parse(server.endpoint), folder.parent / "journal.jsonl") as chat:
        found = photo_prompts(folder, chat, with_images=True)
    PIL.Image.new("RGB", (16, 16)).save(folder / "cat.jpg")
    with pytest.raises(InputError, match=r"cat\.jpg was changed while the others were read: run again"):
        list(found.rows())


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ({"caption": "A bus.", "prompt": PROMPT}, r"its caption has 2 words, expected 3 to 20$"),
        ({"caption": CAPTION, "prompt": CAPTION}, r"its prompt has 7 words, expected 40 to 150$"),
        ({"caption": CAPTION, "prompt": PROMPT * 3}, r"its prompt has 2\d\d words, expected 40 to 150$"),
        ({"caption": CAPTION, "prompt": PROMPT.replace(", its", ",\n\nits")}, r"its prompt has line breaks"),
        ({"caption": CAPTION}, r"no reply to the question 'photo-v1-[0-9a-f]{64}' that fits the schema"),
        (Reply(status=400, code="content_filter", error="no"), r"no reply to the question"),
    ],
)
def test_a_reply_that_cannot_be_used_is_listed(folder, reply, reason):
    replies = iter([reply] * 4)
    (folder / "cat.jpg").unlink()
    (folder / "sea.png").unlink()
    with (
        serving(lambda body: next(replies)) as server,
        pytest.raises(InputError, match="none of the 1 photographs") as e,
    ):
        made(server, folder)
    assert e.match(f"the first, bus.png: .*{reason}")


def test_damaged_and_repeated_photographs_are_listed_and_the_others_described(folder):
    whole = (folder / "cat.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "text.png").write_text("not an image")
    shutil.copy(folder / "bus.png", folder / "van.png")
    (folder / "notes.txt").write_text("left alone: no photograph by its name")
    with serving([GOOD]) as server:
        rows, rejected = made(server, folder)
        assert len(server.requests) == len(rows) == 3
    assert {tuple(row) for row in rejected} == {tuple(REJECTED_FEATURES)}
    reasons = {row["file"]: row["reason"] for row in rejected}
    assert list(reasons) == ["cut.jpg", "text.png", "van.png"]
    assert reasons["cut.jpg"].startswith("cut.jpg is damaged or cut off (")
    assert reasons["text.png"].startswith("text.png is not an image that can be read, expected one of JPEG, PNG")
    assert reasons["van.png"] == "has the same bytes as bus.png"


def test_a_rerun_asks_only_what_is_missing_and_gives_the_same(folder):
    replies = [GOOD, Reply(status=401), Reply(status=401)]
    with serving(lambda body: replies.pop(0) if replies else GOOD) as server:
        with pytest.raises(InputError, match="refused the question"):
            made(server, folder)
        whole = made(server, folder)
        asked = len(server.requests)
        assert made(server, folder) == whole
        assert len(server.requests) == asked
        assert len(whole[0]) == 3
        (folder / "bus.png").rename(folder / "tram.png")
        rows, _ = made(server, folder)
        assert len(server.requests) == asked
    assert [row["file"] for row in rows] == ["cat.jpg", "sea.png", "tram.png"]


@pytest.mark.parametrize(("name", "message"), [("nowhere", "found none at"), ("", "no photographs in")])
def test_a_folder_without_photographs(tmp_path, name, message):
    with serving([GOOD]) as server, pytest.raises(InputError, match=message):
        made(server, tmp_path / name if name else tmp_path)
