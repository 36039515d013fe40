"""Several questions at a time."""

import signal
import threading

import pytest

from tests.chat.asking import GOOD, MESSAGES, SCHEMA, asked_for, lines, opened, questions
from tests.chat_server import Reply, serving
from widespectrum.chat import BadReplyError, Chat, Endpoint, Question
from widespectrum.errors import InputError, ModelError


@pytest.mark.parametrize(
    ("question", "message"),
    [
        (Question("", MESSAGES, SCHEMA), "has the key ''"),
        (Question("q", MESSAGES[:1], SCHEMA), "'q' has no message of the role user"),
        (Question("q", [{"role": "user", "content": "\ud800"}], SCHEMA), "half a surrogate pair"),
        (Question("q", MESSAGES, {"type": "nothing"}), "not a JSON schema .*'nothing' is not valid"),
        (Question("q", MESSAGES, SCHEMA, captions=("one",)), "has 1 captions for 0 images: give as many, or none"),
    ],
)
def test_questions_that_cannot_be_asked(journal, question, message):
    with serving([GOOD]) as server, opened(server, journal) as chat:
        with pytest.raises(InputError, match=message):
            chat.ask(*question)
        with pytest.raises(InputError, match=message):
            next(chat.ask_all([question]))
    assert server.requests == []


@pytest.mark.parametrize("count", [3, 8])
def test_as_many_are_asked_at_a_time_as_allowed(journal, count):
    meeting = threading.Barrier(count, timeout=20)

    def reply(body):
        meeting.wait()
        return GOOD

    with serving(reply) as server, opened(server, journal, concurrency=count) as chat:
        found = dict(chat.ask_all(questions(3 * count)))
    assert found == {f"q{number}": GOOD for number in range(3 * count)}
    assert server.most_at_once == count
    assert sorted(line["key"] for line in lines(journal)) == sorted(found)


def test_replies_come_as_they_are_there_and_questions_are_taken_as_needed(journal):
    taken = []

    def asked():
        for question in questions(20):
            taken.append(question.key)
            yield question

    def reply(body):
        return Reply('{"rating": 1}', delay=30) if asked_for(body) == "q0" else GOOD

    with serving(reply) as server, opened(server, journal, concurrency=2) as chat:
        found = chat.ask_all(asked())
        assert [next(found)[0] for _ in range(3)] == ["q1", "q2", "q3"]
        assert len(taken) <= 7
        server.closing.set()
        assert {key for key, _ in found} == {f"q{number}" for number in (0, *range(4, 20))}


def test_what_does_not_fit_is_among_the_replies(journal, pauses):
    def reply(body):
        return "?" if asked_for(body) == "q1" else GOOD

    asked = [tuple(question) for question in questions(3)]
    with serving(reply) as server, opened(server, journal) as chat:
        found = dict(chat.ask_all(asked))
        assert dict(chat.ask_all(iter([asked[0], asked[2]]))) == {"q0": GOOD, "q2": GOOD}
        assert len(server.requests) == 2 + 4
    assert isinstance(found["q1"], BadReplyError)
    assert found["q1"].raw == "?"
    assert [found["q0"], found["q2"]] == [GOOD, GOOD]


def test_two_questions_with_one_key(journal):
    refused = pytest.raises(InputError, match="two questions have the key 'q0'")
    with serving([GOOD]) as server, opened(server, journal) as chat, refused:
        list(chat.ask_all(questions(1) * 2))


@pytest.mark.parametrize("status", [400, 500])
def test_one_question_that_fails_does_not_hold_up_the_others(journal, pauses, status):
    def reply(body):
        return Reply(status=status) if asked_for(body) in ("q1", "q3", "q5") else GOOD

    asked = questions(8)
    with serving(reply) as server, opened(server, journal, concurrency=1) as chat:
        found = []
        with pytest.raises(ModelError, match=rf"3 of 8 questions got no answer; the last: .*'q5'.*{status}"):
            found.extend(key for key, _ in chat.ask_all(asked))
        assert found == ["q0", "q2", "q4", "q6", "q7"]
        with pytest.raises(ModelError, match=r"did not answer the question 'q1'"):
            list(chat.ask_all(asked[:3]))


def test_a_server_that_goes_down_ends_the_work_and_what_was_answered_is_kept(journal, pauses):
    with serving([GOOD, GOOD, Reply(status=502)]) as server:
        with opened(server, journal, concurrency=1, attempts=2) as chat:
            found = []
            with pytest.raises(ModelError, match="3 of 5 questions got no answer"):
                for each in chat.ask_all(questions(50)):
                    found.append(each)
        assert 2 + 3 * 2 <= len(server.requests) <= 2 + 4 * 2
    assert found == [("q0", GOOD), ("q1", GOOD)]
    with serving([GOOD]) as server, Chat(Endpoint("m", server.url), journal) as chat:
        assert len(dict(chat.ask_all(questions(3)))) == 3


def test_a_wrong_key_ends_the_work_at_once(journal, pauses):
    with serving([Reply(status=401)]) as server, opened(server, journal, concurrency=2) as chat:
        with pytest.raises(InputError, match="set OPENAI_API_KEY"):
            list(chat.ask_all(questions(100)))
        assert len(server.requests) <= 5


@pytest.mark.parametrize("way", ["break", "close", "interrupt"])
def test_replies_on_their_way_are_kept_when_the_caller_stops(journal, way):
    main = threading.main_thread().ident
    # A second Ctrl-C would end the waiting for what is under way.
    once = iter([way == "interrupt"])

    def reply(body):
        if asked_for(body) == "q0":
            return GOOD
        if next(once, False):
            signal.pthread_kill(main, signal.SIGINT)
        return Reply('{"rating": 4}', delay=0.5)

    asked = questions(30)
    with serving(reply) as server:
        try:
            with opened(server, journal, concurrency=2) as chat:
                found = chat.ask_all(asked)
                for _ in found:
                    if way == "break":
                        found = None
                    if way != "interrupt":
                        break
                else:
                    pytest.fail("all were asked")
        except KeyboardInterrupt:
            assert way == "interrupt"
        received = len(server.requests)
        assert received <= 5
        assert [thread for thread in threading.enumerate() if thread.name == "chat"] == []
    assert len(lines(journal)) == received
    assert {line["status"] for line in lines(journal)} == {"ok"}


def test_a_long_pause_ends_when_the_work_does(journal):
    def reply(body):
        limited = asked_for(body) == "q0"
        return Reply(status=429, headers={"Retry-After": "500"}) if limited else Reply(status=401, delay=0.2)

    asked = questions(2)
    refused = pytest.raises(InputError, match="OPENAI_API_KEY")
    with serving(reply) as server, opened(server, journal, concurrency=2) as chat, refused:
        list(chat.ask_all(asked))
    assert not any(thread.name.endswith("(_work)") for thread in threading.enumerate())
