import io
import json
import shutil
import threading

import numpy as np
import PIL.Image
import pytest

from tests.annotate.made import made_run, study_of
from widespectrum import store
from widespectrum.annotate.desk import Desk
from widespectrum.annotate.log import folder_of, read_logs
from widespectrum.annotate.study import Settings, Study, open_study
from widespectrum.images import ImageReader
from widespectrum.pipeline import read_prompts


@pytest.fixture
def run(tmp_path):
    return made_run(tmp_path / "run")


@pytest.fixture
def said():
    return []


@pytest.fixture
def desk(run, said):
    return Desk(study_of(run, raters=("a1", "a2", "a3")), said.append)


def events(run, code="a1"):
    lines = (folder_of(run) / f"{code}.jsonl").read_text().splitlines()
    return [json.loads(line)["event"] for line in lines]


def test_nothing_is_stored_before_the_consent(desk, run):
    page = desk.enter("a1", False)
    assert (page.screen, page.code) == ("welcome", "a1")
    assert page.notice == "Please tick the box first: without your consent nothing can be stored."
    assert desk.resume("a1").screen == "welcome"
    assert read_logs(run) == {}
    page = desk.enter(" A1 ", True)
    assert (page.screen, page.code, page.place, page.total, page.n) == ("pair", "a1", 1, 9, 0)
    assert list(read_logs(run)) == ["a1"]


@pytest.mark.parametrize(
    ("code", "start"),
    [
        ("ada@example.org", "That looks like an e-mail"),
        ("Ada Lovelace", "That looks like a name"),
        ("b7", "This study has"),
    ],
)
def test_a_wrong_code_is_refused_with_a_sentence(desk, run, code, start):
    page = desk.enter(code, True)
    assert page.screen == "welcome"
    assert page.notice.startswith(start)
    assert desk.resume(code).screen == "welcome"
    assert desk.answer(code, 0, "first").screen == "welcome"
    assert read_logs(run) == {}


def test_a_second_click_and_a_second_tab_change_nothing(desk, run):
    desk.enter("a1", True)
    after = desk.answer("a1", 0, "first")
    echo = desk.answer("a1", 0, "first")
    assert (echo.n, echo.place, echo.notice) == (after.n, 2, "")
    other = desk.answer("a1", 0, "second")
    assert other.place == 2
    assert other.notice.startswith("This page was out of date, so that nothing was stored just now.")
    assert desk.undo("a1", 0).notice.startswith("This page was out of date")
    assert events(run) == ["start", "answer"]


def test_undo_goes_back_as_often_as_wanted(desk, run):
    first = desk.enter("a1", True)
    page = first
    for choice in ("first", "tie", "second"):
        page = desk.answer("a1", page.n, choice)
    for place in (3, 2, 1, 1):
        page = desk.undo("a1", page.n)
        assert page.place == place
    assert page.pictures == first.pictures
    assert events(run) == ["start", *["answer"] * 3, *["undo"] * 3]
    assert desk.answer("a1", page.n, "nonsense").n == page.n


def test_the_end_and_back(desk):
    page = desk.enter("a1", True)
    while page.screen == "pair":
        page = desk.answer("a1", page.n, "tie")
    assert (page.screen, page.n) == ("end", 9)
    assert desk.answer("a1", 9, "first").n == 9
    assert desk.enter("a1", True).screen == "end"
    assert desk.undo("a1", 9).place == 9


def test_a_new_server_goes_on_at_the_same_item(desk, run):
    page = desk.answer("a1", desk.enter("a1", True).n, "first")
    again = Desk(study_of(run), print).resume("a1")
    assert (again.place, again.n, again.text) == (page.place, page.n, page.text)
    assert not set(again.pictures) & set(page.pictures)


def test_pictures_hold_every_pixel_and_nothing_else(desk, run):
    page = desk.enter("a1", True)
    item = read_logs(run)["a1"].items[0]
    reader = ImageReader(run)
    assert b"SECRET" in reader.content(item.image_id)
    for name, image_id in zip(page.pictures, item.shown, strict=True):
        content = desk.picture(name)
        assert b"SECRET" not in content
        shown = PIL.Image.open(io.BytesIO(content))
        assert (shown.format, shown.info) == ("PNG", {})
        assert np.array_equal(np.asarray(shown), np.asarray(reader.read([image_id])[image_id]))
        assert image_id[:8] not in name
    assert desk.picture("0" * 32) is None
    assert all(desk.picture(name) for name in page.ahead)


def test_the_two_names_of_the_same_image_differ(run):
    desk = Desk(study_of(run, raters=("a1", "a2"), checks=0.5), print)
    page = desk.enter("a1", True)
    items = read_logs(run)["a1"].items
    for _ in range([item.kind for item in items].index("same")):
        page = desk.answer("a1", page.n, "tie")
    assert len(set(page.pictures)) == 2


def test_the_answers_of_a_rater_who_withdraws_do_not_come_back(desk, run):
    page = desk.enter("a1", True)
    (folder_of(run) / "a1.jsonl").unlink()
    after = desk.answer("a1", page.n, "first")
    assert after.screen == "welcome"
    assert after.notice.startswith("The answers under this code have been deleted.")
    assert read_logs(run) == {}


def test_a_full_disk_is_said_and_the_item_stays(desk, run, monkeypatch):
    from widespectrum.annotate import log as log_module

    page = desk.enter("a1", True)

    def full(handle):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(log_module.os, "fsync", full)
        stuck = desk.answer("a1", page.n, "first")
    assert (stuck.place, stuck.n) == (1, page.n)
    assert stuck.notice.startswith("This could not be stored.")
    assert desk.answer("a1", page.n, "first").place == 2


def test_a_damaged_image_is_reported_to_those_who_can_mend_it(run, said):
    study = study_of(run, raters=("a1", "a2"))
    desk = Desk(study, said.append)
    [path] = store.parts(run, "images")
    content = path.read_bytes()
    path.write_bytes(content.replace(b"IDAT", b"IDAX"))
    page = desk.enter("a1", True)
    assert page.screen == "welcome"
    assert page.notice.startswith("Something is wrong with what comes next for you.")
    assert len(said) == 1
    assert said[0].startswith("a1 is stuck at item 1: ")


def test_a_damaged_log_is_reported_to_those_who_can_mend_it(run, said):
    folder_of(run).mkdir()
    (folder_of(run) / "a1.jsonl").write_text("{}\n")
    # Open codes: who comes next gets the pairs with the fewest answers, and those cannot be counted now.
    desk = Desk(Study(run, Settings(), []), said.append)
    for page in (desk.enter("a1", True), desk.resume("a1"), desk.answer("a1", 0, "tie"), desk.enter("a2", True)):
        assert page.screen == "welcome"
        assert page.notice.startswith("Something is wrong with what comes next for you.")
    assert [line.partition(" cannot go on: ")[0] for line in said] == ["a1", "a1", "a1", "a2"]
    assert all("a1.jsonl, line 1: expected what this program writes" in line for line in said)


def test_a_disk_that_is_full_at_the_start_and_a_folder_that_was_deleted(desk, run, said, monkeypatch):
    def full(path, content):
        raise OSError(28, "No space left on device")

    shutil.rmtree(folder_of(run))
    with monkeypatch.context() as patch:
        patch.setattr(store, "write_file", full)
        assert desk.enter("a1", True).notice.startswith("This could not be stored.")
    assert said == ["a1 cannot go on: [Errno 28] No space left on device"]
    assert desk.enter("a1", True).screen == "pair"
    assert open_study(run).settings.raters == ("a1", "a2", "a3")


def by_text(text):
    """An answer that belongs to one pair and would stand out at another."""
    return ("first", "second", "tie")[sum(map(ord, text)) % 3]


def test_twenty_raters_at_once_each_with_two_tabs(tmp_path):
    codes = tuple(f"r{number}" for number in range(20))
    run = made_run(tmp_path / "run", pairs=10)
    desk = Desk(study_of(run, raters=codes, overlap=20, checks=0.2), print)
    gate = threading.Barrier(40)

    def rate(code):
        gate.wait()
        page = desk.enter(code, True)
        while page.screen == "pair":
            page = desk.answer(code, page.n, by_text(page.text))

    threads = [threading.Thread(target=rate, args=(code,)) for code in codes * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    logs = read_logs(run)
    prompts = {prompt.prompt_id: prompt.text for prompt in read_prompts(run)}
    assert sorted(logs) == sorted(codes)
    for log in logs.values():
        assert (log.is_finished, log.n, len(log.items)) == (True, 12, 12)
        said = [by_text(prompts[item.prompt_id]) for item in log.items]
        assert [given.choice for given in log.given] == said
        assert len(set(said)) == 3
