"""A stream of questions: every outcome is given, images are encoded once, lines are synced together."""

import os
import threading
import time

import PIL.Image
import pytest

from tests.chat.asking import GOOD, MESSAGES, SCHEMA, asked_for, lines, opened, questions
from tests.chat.test_pictures import pixels, sent_images
from tests.chat_server import Reply, serving
from widespectrum.chat import BadReplyError, Question, Shown
from widespectrum.chat import Reply as Answer
from widespectrum.chat.journal import Journal
from widespectrum.errors import InputError, ModelError


def test_every_question_has_its_outcome(journal, pauses):
    said = {"q1": "?", "q2": Reply(None, refusal="No."), "q3": Reply(status=500), "q4": ' {"rating": 4}'}
    with serving(lambda body: said.get(asked_for(body), GOOD)) as server, opened(server, journal) as chat:
        found = dict(chat.stream(questions(8)))
    assert [found[f"q{number}"] for number in (0, 5, 6, 7)] == [Answer(GOOD, '{"rating": 3}')] * 4
    assert found["q4"] == Answer({"rating": 4}, ' {"rating": 4}')
    assert [(type(found[key]), found[key].refused) for key in ("q1", "q2")] == [
        (BadReplyError, False),
        (BadReplyError, True),
    ]
    assert type(found["q3"]) is ModelError
    assert len(found) == 8


def test_a_server_that_answers_nobody_ends_the_stream(journal, pauses):
    with serving([GOOD, Reply(status=502)]) as server, opened(server, journal, concurrency=1, attempts=2) as chat:
        found = []
        with pytest.raises(ModelError, match=r"3 of 4 questions got no answer; the last: .*'q3'.*502"):
            found.extend(chat.stream(questions(50)))
    assert [(key, type(outcome)) for key, outcome in found] == [
        ("q0", Answer),
        ("q1", ModelError),
        ("q2", ModelError),
        ("q3", ModelError),
    ]
    assert len(server.requests) <= 1 + 4 * 2


def test_without_a_journal_replies_are_known_until_the_end(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with serving([GOOD]) as server:
        for _ in range(2):
            with opened(server, None) as chat:
                assert len(dict(chat.stream(questions(3)))) == len(dict(chat.stream(questions(3)))) == 3
                assert chat.raw_reply(questions(1)[0]) == '{"rating": 3}'
        assert len(server.requests) == 6
    assert list(tmp_path.iterdir()) == []


def test_a_shown_image_is_encoded_once_and_not_by_the_caller(journal, monkeypatch):
    encoded = []
    save = PIL.Image.Image.save
    monkeypatch.setattr(
        PIL.Image.Image,
        "save",
        lambda image, *rest, **options: (encoded.append(threading.current_thread()), save(image, *rest, **options))[1],
    )
    first, second = pixels(90, 60), pixels(60, 90)
    first.info["comment"] = b"by hand"
    one, other = Shown(first, 45), Shown(second, 45)
    asked = [
        Question(f"q{number}", MESSAGES, SCHEMA, [one, other] if number % 2 else [other, one]) for number in range(20)
    ]
    with serving([GOOD]) as server, opened(server, journal) as chat:
        assert len(dict(chat.stream(asked))) == 20
        assert len(encoded) == 2
        assert threading.main_thread() not in encoded
        # The same images as Pillow's, under the same limit, are the same questions.
        with_pillow = [Question("q1", MESSAGES, SCHEMA, [first, second])]
        assert chat.raw_reply(with_pillow[0]) is None
    assert len(server.requests) == 20
    with serving([GOOD]) as none, opened(none, journal.with_name("other"), max_side=45) as chat:
        chat.ask("q", MESSAGES, SCHEMA, [first])
        chat.ask("q", MESSAGES, SCHEMA, [one])
        chat.ask("q", MESSAGES, SCHEMA, [Shown(first.copy(), 45)])
        assert len(none.requests) == 1
        assert sent_images(none.requests[0])[1] == [one.picture("").content]
    assert b"by hand" not in one.picture("").content
    line = next(line for line in lines(journal) if line["key"] == "q1")
    assert line["request"]["max_side"] == 45
    _, *records = line["request"]["messages"][1]["content"]
    assert [(each["image_url"]["width"], each["image_url"]["height"]) for each in records] == [(45, 30), (30, 45)]


def test_a_shown_image_that_cannot_be_read_is_named(journal):
    refused = pytest.raises(InputError, match="image 1 of the question 'q' cannot be read")
    with serving([GOOD]) as server, opened(server, journal) as chat, refused:
        list(chat.stream([Question("q", MESSAGES, SCHEMA, [Shown(PIL.Image.new("F", (8, 8)), 64)])]))
    assert server.requests == []
    with pytest.raises(InputError, match="max_side is 0"):
        Shown(pixels(8, 8), 0)


def test_a_stop_does_not_wait_for_images(journal):
    def asked():
        for number in range(100):
            yield Question(f"q{number}", MESSAGES, SCHEMA, [Shown(pixels(64, 64), 64)])

    with serving([GOOD]) as server, opened(server, journal) as chat:
        for _ in chat.stream(asked()):
            break
        started = time.monotonic()
    assert time.monotonic() - started < 5
    assert len(lines(journal)) == len(server.requests) < 20


def test_lines_that_wait_are_synced_together_and_none_is_reported_before(journal, monkeypatch):
    sync, synced = os.fsync, []

    def slow(file):
        size = os.fstat(file).st_size
        time.sleep(0.02)
        sync(file)
        synced.append(size)

    monkeypatch.setattr("widespectrum.chat.journal.os.fsync", slow)
    kept, late = Journal(journal), []

    def write(number):
        for turn in range(5):
            key = f"{number}-{turn}"
            kept.append({"key": key, "digest": "d", "status": "ok", "reply": "x" * 3000})
            on_disk = journal.read_bytes()[: max(synced)]
            if f'"{key}"'.encode() not in on_disk or kept.answer(key, "d") is None:
                late.append(key)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    kept.close()
    kept.append({"key": "q", "digest": "d", "status": "ok", "reply": "after the end"})
    assert late == []
    assert sorted(line["key"] for line in lines(journal)) == sorted(
        f"{n}-{turn}" for n in range(16) for turn in range(5)
    )
    assert len(synced) <= 40
