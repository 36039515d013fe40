"""Storing in groups: nothing twice, nothing lost, whatever ends the work."""

from concurrent.futures import Future

import PIL.Image
import pytest

from widespectrum.engine import collecting
from widespectrum.engine.answers import Encoded, Task, encoded
from widespectrum.engine.collecting import Collector
from widespectrum.protocols import Failure, Refusal
from widespectrum.types import Prompt


def task(number):
    return Task(Prompt(prompt_id="", text=f"a {number}", pair_id=f"p{number}", role="original"), 0)


def image(number):
    return Encoded(f"{number}", b"", 1, 1)


class Shelf:
    """Keeps the rows; it is interrupted before or after the first time that it wrote."""

    def __init__(self, interrupted=""):
        self.parts, self.interrupted = [], interrupted

    def store(self, rows, unsure):
        there = {each for part in self.parts for each, _ in part} if unsure else set()
        interrupted, self.interrupted = self.interrupted, ""
        if interrupted == "before":
            raise KeyboardInterrupt
        self.parts.append([row for row in rows if row[0] not in there])
        if interrupted == "after":
            raise KeyboardInterrupt

    @property
    def ids(self):
        return [int(answer.image_id) for part in self.parts for _, answer in part]


def collector(shelf, group):
    return Collector(shelf.store, total=7, group=group, description="test")


def give(keeper, *batches):
    for batch in batches:
        keeper.take([task(number) for number in batch], [image(number) for number in batch])


def test_batches_are_stored_whole_in_groups_and_the_rest_at_the_end():
    shelf = Shelf()
    with collector(shelf, 3) as keeper:
        give(keeper, [0, 1], [2, 3], [4], [5])
        assert [len(part) for part in shelf.parts] == [4]
    assert [len(part) for part in shelf.parts] == [4, 2]
    assert (shelf.ids, keeper.made) == ([0, 1, 2, 3, 4, 5], 6)


def test_what_waits_is_stored_after_a_minute(monkeypatch):
    shelf, now = Shelf(), [0.0]
    monkeypatch.setattr(collecting.time, "monotonic", lambda: now[0])
    with collector(shelf, 100) as keeper:
        for second in (59, 60, 100, 121):
            now[0] = second
            give(keeper, [second])
            assert len(shelf.parts) == {59: 0, 60: 1, 100: 1, 121: 2}[second]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_an_end_before_its_time_keeps_what_is_finished(error):
    shelf = Shelf()
    with pytest.raises(error), collector(shelf, 100) as keeper:
        give(keeper, [0], [1])
        raise error
    assert shelf.ids == [0, 1]


@pytest.mark.parametrize("interrupted", ["before", "after"])
def test_ctrl_c_while_it_is_stored_stores_nothing_twice(interrupted):
    shelf = Shelf(interrupted)
    with pytest.raises(KeyboardInterrupt), collector(shelf, 2) as keeper:
        give(keeper, [0], [1])
    assert shelf.ids == [0, 1]
    assert keeper.made == 2


def test_failures_are_listed_with_what_they_concern_and_lose_no_others():
    shelf, late = Shelf(), Future()
    late.set_result(Failure("too long", "input"))
    with collector(shelf, 1) as keeper:
        keeper.take([task(0), task(1), task(2)], [image(0), late, Refusal("no")])
        keeper.take([task(3), task(4)], Failure("out of memory", "model"))
        keeper.take([task(5)], Failure("busy", "model"))
    assert [answer for _, answer in shelf.parts[0]] == [image(0), Refusal("no")]
    assert keeper.failures == [
        Failure("pair p1 (original, seed 0): too long", "input"),
        Failure("2 of 7 not made: out of memory", "model"),
        Failure("pair p5 (original, seed 0): busy", "model"),
    ]
    assert (keeper.made, keeper.refused, keeper.failed) == (1, 1, 4)


def test_an_image_that_cannot_be_a_png_is_a_failure():
    answer = encoded(PIL.Image.new("F", (3, 2)))
    assert answer.reason == "its image (F, 3x2) is no PNG: cannot write mode F as PNG"
    assert answer.cause == "model"
    closed = PIL.Image.new("RGB", (3, 2))
    closed.close()
    assert encoded(closed).reason.startswith("its image (RGB, 3x2) is no PNG: ")
