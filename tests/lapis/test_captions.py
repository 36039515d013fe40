import pytest

from tests.chat_server import serving
from widespectrum.chat import Chat, Endpoint
from widespectrum.lapis import caption_paintings, image_files
from widespectrum.lapis.captions import caption_problem


def test_captions(copy, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    (copy / "images" / "two.jpg").write_bytes((copy / "images" / "one.jpg").read_bytes())
    found, _ = image_files(copy, ["one.jpg", "two.jpg"])
    sentence = "A gray field of fine grain fills the whole canvas."
    with serving([{"caption": f" {sentence}\n"}, {"caption": "A beautiful gray field."}]) as server:
        for _ in range(2):
            with Chat(Endpoint.parse(server.endpoint), tmp_path / "journal.jsonl", concurrency=1) as chat:
                captions = caption_paintings(chat, found)
            assert captions["one.jpg"] == (sentence, None)
            assert captions["two.jpg"] == (None, "it judges (beautiful): 'A beautiful gray field.'")
        assert len(server.requests) == 2
        (*_, user) = server.requests[0].body["messages"]
        assert [part["type"] for part in user["content"]] == ["text", "image_url"]


@pytest.mark.parametrize(
    ("caption", "problem"),
    [
        ("A woman holds a fan before a window.", ""),
        ("A portrait of St. Jerome in a cave.", ""),
        ("A woman. She holds a fan.", "it is more than one sentence"),
        ("Painting.", "it has 1 words, expected 3 to 40"),
        ("a " * 41, "it has 41 words, expected 3 to 40"),
        ("A stunning view of a bay.", "it judges (stunning)"),
        ("", "it is not one line of text"),
    ],
)
def test_caption_rules(caption, problem):
    assert caption_problem(caption) == problem
