import json
import os

import pytest

from widespectrum.annotate import log as log_module
from widespectrum.annotate.items import Item
from widespectrum.annotate.log import folder_of, read_log, read_logs, serving, start_log
from widespectrum.errors import RunFolderError

ITEMS = [Item("pair", f"p{number}", f"a{number}", f"o{number}", "first") for number in range(3)]


@pytest.fixture
def log(tmp_path):
    (tmp_path / "annotations").mkdir()
    return start_log(tmp_path, "a1", ITEMS, "v1")


def same(one, other):
    names = ("code", "items", "text", "given", "n", "last")
    return [getattr(one, name) for name in names] == [getattr(other, name) for name in names]


def test_what_is_read_back_is_what_was_done(log):
    for act in (
        lambda: log.answer("first"),
        lambda: log.answer("tie"),
        log.undo,
        log.undo,
        lambda: log.answer("second"),
    ):
        act()
        assert same(read_log(log.path), log)
    assert [given.choice for given in log.given] == ["second"]
    lines = [json.loads(line) for line in log.path.read_text().splitlines()]
    assert [line["event"] for line in lines] == ["start", "answer", "answer", "undo", "undo", "answer"]
    assert [line["n"] for line in lines[1:]] == [1, 2, 3, 4, 5]
    assert lines[0]["consent"] is True
    assert set().union(*lines) == {"event", "code", "consent", "text", "time", "items", "n", "item", "choice"}
    assert all(len(line["time"]) == len("2026-01-01T00:00:00+00:00") for line in lines)


def test_an_answer_is_synced_before_it_counts(log, monkeypatch):
    synced = []
    real = os.fsync

    def fsync(handle):
        real(handle)
        synced.append((os.fstat(handle).st_size, len(log.given)))

    monkeypatch.setattr(log_module.os, "fsync", fsync)
    log.answer("first")
    assert synced == [(log.path.stat().st_size, 0)]
    assert len(log.given) == 1


def test_an_answer_that_cannot_be_stored_leaves_nothing_behind(log, monkeypatch):
    log.answer("first")
    before = log.path.read_bytes()

    def full(handle):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(log_module.os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            log.answer("second")
    assert (log.path.read_bytes(), log.n) == (before, 1)
    log.answer("tie")
    assert same(read_log(log.path), log)


@pytest.mark.parametrize("left", [1, 20, -1])
def test_a_last_line_that_a_crash_cut_off_is_dropped(log, left):
    log.answer("first")
    whole = log.path.read_bytes()
    log.answer("second")
    cut = log.path.read_bytes()[len(whole) :][:left]
    log.path.write_bytes(whole + cut)
    again = read_log(log.path)
    assert (again.torn, again.n, log.path.read_bytes()) == (True, 1, whole + cut)
    again.answer("tie")
    assert log.path.read_bytes().startswith(whole + b'{"n": 2')
    assert [given.choice for given in read_log(log.path).given] == ["first", "tie"]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{", "Expecting"),
        ('{"n": 3, "event": "answer", "item": 1, "choice": "tie", "time": ""}', "expected n 2, got 3"),
        ('{"n": 2, "event": "answer", "item": 2, "choice": "tie", "time": ""}', "'answer' of item 2 does not follow"),
        (
            '{"n": 2, "event": "answer", "item": 1, "choice": "left", "time": "2026-01-01T00:00:00+00:00"}',
            "expected the choice first, second or",
        ),
        ('{"n": 2, "event": "undo", "item": 1, "time": ""}', "'undo' of item 1 does not follow"),
        ('{"n": 2, "event": "answer", "item": 1, "choice": "tie", "time": ""}', "Invalid isoformat"),
        ("null", "not subscriptable"),
    ],
)
def test_a_damaged_line_is_named(log, line, why):
    log.answer("first")
    log.path.write_text(log.path.read_text() + line + "\n")
    with pytest.raises(RunFolderError, match=rf"a1\.jsonl, line 3: expected what this program writes.*{why}.*put back"):
        read_log(log.path)


@pytest.mark.parametrize("content", ["", '{"event": "start", "code": "b"}\n', '{"event": "answer"}\n', "x\n"])
def test_a_log_without_its_start(log, content):
    log.path.write_text(content)
    with pytest.raises(RunFolderError, match=r"a1\.jsonl, line 1"):
        read_logs(log.path.parents[1])


def test_a_log_that_was_deleted_does_not_come_back(log):
    log.path.unlink()
    with pytest.raises(FileNotFoundError):
        log.answer("first")
    assert read_logs(log.path.parents[1]) == {}


def test_there_is_nothing_to_undo_at_the_start_and_nothing_to_answer_at_the_end(log):
    with pytest.raises(ValueError, match="'undo' of item -1 does not follow"):
        log.undo()
    for _ in ITEMS:
        log.answer("tie")
    with pytest.raises(ValueError, match="'answer' of item 3 does not follow"):
        log.answer("tie")
    assert same(read_log(log.path), log)


def test_a_second_server_is_refused_and_the_first_leaves_no_lock(tmp_path):
    with (
        serving(tmp_path),
        pytest.raises(
            RunFolderError, match=rf"is served to raters by process {os.getpid()} on .*: use that one, or stop it"
        ),
        serving(tmp_path),
    ):
        pass
    with serving(tmp_path):
        assert folder_of(tmp_path).is_dir()
