"""What is written down, and what is answered from it."""

import resource

import pytest

from tests.chat.asking import GOOD, KEY, MESSAGES, SCHEMA, lines, opened
from tests.chat_server import Reply, serving
from widespectrum.chat import Chat, Endpoint
from widespectrum.errors import InputError, ModelError


def test_what_was_answered_is_not_asked_again_and_what_changed_is(journal, pauses):
    with serving([{"rating": "bad"}, GOOD, {"rating": 4}]) as server:
        with opened(server, journal) as chat:
            chat.ask("q", MESSAGES, SCHEMA)
        with opened(server, journal) as chat:
            assert chat.ask("q", MESSAGES, SCHEMA) == chat.ask("q", MESSAGES, SCHEMA) == GOOD
            assert len(server.requests) == 2
            assert chat.ask("q", MESSAGES[1:], SCHEMA) == {"rating": 4}
            assert chat.ask("q", MESSAGES, SCHEMA) == GOOD
            chat.ask("q", MESSAGES, SCHEMA | {"title": "another"})
            chat.ask("another", MESSAGES, SCHEMA)
            assert len(server.requests) == 5
        for change in ({"temperature": 0.5}, {"seed": 1}):
            with opened(server, journal, **change) as chat:
                chat.ask("q", MESSAGES, SCHEMA)
        assert len(server.requests) == 7


@pytest.mark.parametrize("left", [1, 8, 9, 200, -1])
def test_a_line_that_a_crash_cut_off_is_asked_again(journal, left):
    with serving([GOOD]) as server:
        with opened(server, journal) as chat:
            chat.ask("q1", MESSAGES, SCHEMA)
            whole = journal.read_bytes()
            chat.ask("q2", MESSAGES, SCHEMA)
        journal.write_bytes(whole + journal.read_bytes()[len(whole) :][:left])
        with opened(server, journal) as chat:
            assert journal.read_bytes() == whole
            chat.ask("q1", MESSAGES, SCHEMA)
            chat.ask("q2", MESSAGES, SCHEMA)
        assert len(server.requests) == 3
    assert [line["key"] for line in lines(journal)] == ["q1", "q2"]


@pytest.mark.parametrize("content", [b"# Notes\nmine\n", b"no newline", b'{"key": "q"}\n', b"[1]\n", b"\xff\xfe\n"])
def test_a_file_that_is_no_journal_is_left_alone(journal, content):
    journal.write_bytes(content)
    for _ in range(2):
        with pytest.raises(InputError, match=r"journal\.jsonl, line 1 is not a line of a journal"):
            Chat(Endpoint("m", "http://localhost"), journal)
    assert journal.read_bytes() == content


def test_a_journal_belongs_to_one_at_a_time(journal):
    endpoint = Endpoint("m", "http://localhost")
    with Chat(endpoint, journal), pytest.raises(InputError, match=r"journal\.jsonl is in use"):
        Chat(endpoint, journal)
    Chat(endpoint, journal).close()


def test_a_journal_that_cannot_be_opened(tmp_path):
    with pytest.raises(InputError, match="cannot be opened"):
        Chat(Endpoint("m", "http://localhost"), tmp_path)


def test_a_full_disk_leaves_whole_lines(journal):
    with serving([GOOD]) as server, opened(server, journal) as chat:
        chat.ask("q1", MESSAGES, SCHEMA)
        whole = journal.read_bytes()
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + 100, limits[1]))
        try:
            with pytest.raises(InputError, match=r"cannot be written \(File too large\): make room and run again"):
                chat.ask("q2", MESSAGES, SCHEMA)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert journal.read_bytes() == whole
        chat.ask("q3", MESSAGES, SCHEMA)
    assert [line["key"] for line in lines(journal)] == ["q1", "q3"]


@pytest.mark.parametrize("status", [200, 401, 500])
def test_the_key_is_written_nowhere(journal, pauses, status):
    # The second one stands where a long text is cut off.
    error = f"{KEY} is not a key{'.' * 270}{KEY}"
    reply = Reply(f'{{"key": "{KEY}"}}', status=status, error=error, code=KEY)
    with serving([reply]) as server, opened(server, journal) as chat:
        with pytest.raises((InputError, ModelError)) as caught:
            chat.ask("q", [{"role": "user", "content": KEY}], SCHEMA)
        shown = repr(chat) + repr(chat.endpoint) + str(chat.endpoint)
    error = caught.value
    assert (error.__cause__, error.__context__) == (None, None)
    assert "[OPENAI_API_KEY]" in journal.read_text()
    assert KEY[:6] not in journal.read_text() + shown + str(error) + getattr(error, "raw", "")
