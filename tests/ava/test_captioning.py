"""What a reply must be beyond its schema, and asking about a folder of photographs."""

import base64
import hashlib
import json

import numpy as np
import pytest
from PIL import Image

from tests.chat_server import Reply, serving
from widespectrum.ava.captioning import CAPTIONS, UNREAD, prompt_digest, recaption, reply_problems
from widespectrum.ava.stage import open_stage, read_stage
from widespectrum.ava.taxonomy import ELEMENTS
from widespectrum.chat import Chat, Endpoint
from widespectrum.errors import InputError, ModelError

GOOD = {
    "ordinary": False,
    "elements": ["color_and_tone.sickly_cast", "clarity_and_focus.intentional_blur"],
    "clean_caption": "man on bench",
    "anti_aesthetic_caption": "A man sits on a bench in a park. Everything is smeared sideways and tinted green.",
    "length_matched_clean_caption": "A man sits on a wooden bench in a park while people walk past him slowly.",
}
ORDINARY = {**GOOD, "ordinary": True, "elements": []}
LONG = {**GOOD, "clean_caption": "a man on a bench"}


@pytest.mark.parametrize(
    ("changed", "problems"),
    [
        ({}, []),
        ({"ordinary": True, "elements": ["nothing"], "clean_caption": ""}, []),
        ({"elements": []}, ["no element is given, and the photograph is not called ordinary"]),
        ({"elements": ["sickly_cast"]}, ["unknown element 'sickly_cast'"]),
        (
            {"elements": ["color_and_tone.sickly_cast", "color_and_tone.muted_faded"]},
            ["two elements of one class: 'color_and_tone.sickly_cast' and 'color_and_tone.muted_faded'"],
        ),
        ({"clean_caption": "a man on a bench"}, ["clean_caption has 5 words, at most 4 are allowed"]),
        ({"clean_caption": " "}, ["clean_caption is empty"]),
        ({"clean_caption": "man\non bench"}, ["clean_caption is not one line of plain text"]),
        ({"clean_caption": "Man on bench "}, ["clean_caption is not one line of plain text"]),
        ({"clean_caption": "cafe\u0301"}, ["clean_caption is not one line of plain text"]),
        ({"clean_caption": "blurry man"}, ["clean_caption mentions an effect (blurry)"]),
        (
            {"length_matched_clean_caption": GOOD["length_matched_clean_caption"].replace("wooden", "out-of-focus")},
            ["length_matched_clean_caption mentions an effect (out-of-focus)"],
        ),
        (
            {"length_matched_clean_caption": GOOD["length_matched_clean_caption"].replace("slowly", "Overexposed")},
            ["length_matched_clean_caption mentions an effect (overexposed)"],
        ),
        (
            {"length_matched_clean_caption": "A man sits on a bench."},
            ["length_matched_clean_caption has 6 words, anti_aesthetic_caption has 16"],
        ),
        (
            {"anti_aesthetic_caption": GOOD["anti_aesthetic_caption"].replace(". ", ", ")},
            ["anti_aesthetic_caption has 1 sentences, 2 or 3 are wanted"],
        ),
        (
            {"anti_aesthetic_caption": "A man. A bench. A park. Everything is smeared sideways and tinted green, all!"},
            ["anti_aesthetic_caption has 4 sentences, 2 or 3 are wanted"],
        ),
    ],
)
def test_rules_beyond_the_schema(changed, problems):
    assert reply_problems({**GOOD, **changed}) == problems


@pytest.mark.parametrize("words", [12, 13, 16, 19, 20])
def test_lengths_match_within_a_fifth(words):
    text = " ".join(["word"] * words)
    problems = reply_problems({**GOOD, "length_matched_clean_caption": text})
    assert len(GOOD["anti_aesthetic_caption"].split()) == 16
    assert bool(problems) == (words not in (13, 16, 19))


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-a-key-of-the-tests")
    monkeypatch.setattr("widespectrum.chat.client._pause", lambda seconds, stop: None)


@pytest.fixture
def root(tmp_path):
    """Photographs 1 to 6, of which 5 is damaged and 6 is missing."""
    folder = tmp_path / "images"
    folder.mkdir()
    for ava_id in range(1, 6):
        pixels = np.full((24, 32, 3), 40 * ava_id, dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{ava_id}.jpg")
    path = folder / "5.jpg"
    path.write_bytes(path.read_bytes()[:200])
    return folder


def shown(body, root):
    """Which photograph a request shows."""
    url = next(part for part in body["messages"][-1]["content"] if part["type"] == "image_url")["image_url"]["url"]
    content = base64.b64decode(url.partition(",")[2])
    return next(int(path.stem) for path in root.iterdir() if path.read_bytes() == content)


def text_of(body):
    return body["messages"][-1]["content"][0]["text"]


def run(server, stage, root, ids=range(1, 7), **options):
    with Chat(Endpoint.parse(server.endpoint), stage.folder / "journal.jsonl", attempts=2) as chat:
        return recaption(stage, list(ids), root, chat, **options)


def rows(stage):
    return {row["ava_id"]: row for row in stage.read("captions", CAPTIONS).to_pylist()}


def test_every_photograph_ends_as_kept_or_as_a_rejection_with_its_reason(tmp_path, root):
    replies = {1: GOOD, 2: ORDINARY, 3: LONG, 4: {**GOOD, "elements": ["sickly_cast"]}}
    stage = open_stage(tmp_path, "recaption", {})
    with serving(lambda body: replies[shown(body, root)]) as server:
        counts = run(server, stage, root)
    assert counts == {"bad reply": 2, "damaged image": 1, "kept": 1, "missing image": 1, "ordinary": 1}
    found = rows(stage)
    assert {n: (row["status"], row["reason"]) for n, row in found.items()} == {
        1: ("kept", ""),
        2: ("rejected", "ordinary"),
        3: ("rejected", "bad reply"),
        4: ("rejected", "bad reply"),
    }
    assert found[1]["elements"] == sorted(GOOD["elements"])
    assert [found[1][name] for name in GOOD if name.endswith("caption")] == [GOOD[n] for n in GOOD if "caption" in n]
    assert found[1]["image_sha256"] == hashlib.sha256((root / "1.jpg").read_bytes()).hexdigest()
    assert "clean_caption has 5 words" in found[3]["detail"]
    assert json.dumps(LONG) in found[3]["detail"]
    assert "'sickly_cast' is not one of" in found[4]["detail"]
    unread = {row["ava_id"]: (row["reason"], row["detail"]) for row in stage.read("unread", UNREAD).to_pylist()}
    assert unread[6] == ("missing image", "no photograph at 6.jpg")
    assert unread[5][0] == "damaged image"
    assert unread[5][1].startswith("5.jpg is damaged or cut off")


def test_a_reply_that_breaks_the_rules_is_sent_back_with_what_is_wrong(tmp_path, root):
    stage = open_stage(tmp_path, "recaption", {})

    def reply(body):
        return GOOD if "clean_caption has 5 words" in text_of(body) else LONG

    with serving(reply) as server:
        assert run(server, stage, root, [1]) == {"kept": 1}
    assert len(server.requests) == 2
    assert json.dumps(LONG) in text_of(server.requests[1].body)
    assert shown(server.requests[1].body, root) == 1
    assert rows(stage)[1]["clean_caption"] == "man on bench"


def test_the_model_is_shown_the_taxonomy_and_held_to_the_schema(tmp_path, root):
    with serving([GOOD]) as server:
        run(server, open_stage(tmp_path, "recaption", {}), root, [1])
    body = server.requests[0].body
    assert all(element in text_of(body) for element in ELEMENTS)
    assert "$" not in text_of(body)
    schema = body["response_format"]["json_schema"]["schema"]
    assert schema["properties"]["elements"]["items"]["enum"] == list(ELEMENTS)
    assert set(schema["required"]) == set(GOOD)


def test_a_later_run_asks_only_about_what_is_new(tmp_path, root):
    stage = open_stage(tmp_path, "recaption", {"prompt": prompt_digest()})
    with serving([GOOD]) as server:
        run(server, stage, root, [1, 2, 6])
        assert len(server.requests) == 2
        (root / "6.jpg").write_bytes((root / "4.jpg").read_bytes())
        assert run(server, stage, root, [1, 2, 3, 6]) == {"kept": 4}
    assert len(server.requests) == 4
    assert stage.read("unread", UNREAD).num_rows == 0
    assert sorted(rows(read_stage(tmp_path, "recaption"))) == [1, 2, 3, 6]


def test_a_limit_goes_to_photographs_that_were_not_looked_at(tmp_path, root):
    stage = open_stage(tmp_path, "recaption", {})
    with serving([GOOD]) as server:
        assert run(server, stage, root, [5, 6, 1, 2], limit=2) == {"damaged image": 1, "missing image": 1}
        assert run(server, stage, root, [5, 6, 1, 2], limit=2) == {"damaged image": 1, "kept": 2, "missing image": 1}
    assert len(server.requests) == 2


def test_an_endpoint_that_fails_leaves_the_question_for_the_next_run(tmp_path, root):
    stage = open_stage(tmp_path, "recaption", {})

    def reply(body):
        return Reply(status=500) if shown(body, root) == 2 else GOOD

    with serving(reply) as server, pytest.raises(ModelError, match="run again"):
        run(server, stage, root, [1, 2, 3])
    assert sorted(rows(stage)) == [1, 3]
    with serving([GOOD]) as server:
        assert run(server, stage, root, [1, 2, 3]) == {"kept": 3}
    assert len(server.requests) == 1


def test_a_root_that_is_none(tmp_path):
    with pytest.raises(InputError, match="is no folder; expected the folder with the photographs"):
        recaption(open_stage(tmp_path, "recaption", {}), [1], tmp_path / "nowhere", None)
