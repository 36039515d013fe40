"""A Ctrl-C at the worst moment: after an answer came and before it was taken."""

import threading

import pytest

from tests.engine.made import color
from widespectrum.chat.workers import Workers
from widespectrum.engine import threads
from widespectrum.engine.answers import Task
from widespectrum.engine.collecting import Collector
from widespectrum.types import Prompt

PIL = pytest.importorskip("PIL.Image")

TASKS = [Task(Prompt(prompt_id="", text=f"cup {n}", pair_id=str(n), role="original"), 0) for n in range(12)]


def ask(batch):
    return [PIL.new("RGB", (8, 6), color(task.prompt.text, task.seed)) for task in batch]


@pytest.mark.parametrize("moment", range(1, 12))
def test_no_answer_is_lost_that_came_before_a_ctrl_c(moment, monkeypatch):
    taken, asked, stored = 0, [], []
    take = Workers.take

    def interrupted(self):
        nonlocal taken
        found, taken = take(self), taken + 1
        if taken == moment:
            raise KeyboardInterrupt
        return found

    def counted(batch):
        asked.extend(batch)
        return ask(batch)

    monkeypatch.setattr(Workers, "take", interrupted)
    with (
        pytest.raises(KeyboardInterrupt),
        Collector(lambda rows, unsure: stored.extend(rows), total=12, group=5, description="x") as collector,
    ):
        threads.draw(counted, [[task] for task in TASKS], collector.take, count=3)
    assert sorted(task.prompt.text for task, _ in stored) == sorted(task.prompt.text for task in asked)
    assert len(asked) >= moment
    assert threading.active_count() < 20


def test_what_is_given_twice_is_stored_once():
    stored = []
    with Collector(lambda rows, unsure: stored.extend(rows), total=12, group=3, description="x") as collector:
        for tasks in (TASKS[:2], TASKS[:2], TASKS[2:4], TASKS[1:3]):
            collector.take(tasks, [threads.encoded(answer) for answer in ask(tasks)])
    assert [task for task, _ in stored] == TASKS[:4]
    assert collector.made == 4
