"""Single prompts in several threads."""

import threading

import pytest

from tests.engine.made import Paid
from widespectrum import generation, store
from widespectrum.engine import threads
from widespectrum.engine.answers import Task
from widespectrum.errors import InputError
from widespectrum.types import Prompt


def text_of(number):
    return f"a refused {number}" if number % 50 == 0 else f"a {number}"


@pytest.fixture
def run(tmp_path):
    roles = (("original", (), ""), ("wide_spectrum", ("clarity",), ", blurred"))
    store.append(
        tmp_path,
        "prompts",
        [
            Prompt(prompt_id="", text=text_of(number) + more, pair_id=f"p{number:04d}", role=role, dimensions=named)
            for number in range(1000)
            for role, named, more in roles
        ],
    )
    return tmp_path


def make(run, generator):
    work = generation.planned(run, "p", generator, seeds=(0,), open_input=None)
    return work, generation.make(work, group=100, description="generate")


def test_every_prompt_ends_as_image_refusal_or_failure_and_failures_are_tried_again(run):
    flaky = Paid(concurrency=32, fails=0.2)
    _, made = make(run, flaky)
    assert len(flaky.asked) == len(set(flaky.asked)) == 2000
    assert flaky.most_at_once <= 32
    rows = store.read(run, "images", ("prompt_id", "status")).to_pylist()
    assert len({row["prompt_id"] for row in rows}) == len(rows)
    stored = [row["status"] for row in rows]
    assert (stored.count("ok"), stored.count("refused")) == (made.images, made.refused)
    assert 300 < made.failed == len(made.failures) < 500
    assert len(rows) + made.failed == 2000
    assert len({failure.reason for failure in made.failures}) == made.failed
    again = Paid(concurrency=32)
    work, second = make(run, again)
    assert {*again.asked} == {task.prompt.prompt_id for task in work.missing}
    assert (len(again.asked), second.failures) == (made.failed, [])
    keys = store.keys(run, "images")
    assert len(keys) == store.read(run, "images").num_rows == 2000
    calls = store.read(run, "calls").to_pylist()
    assert len(calls) == 2000 + made.failed
    assert {call["generator"] for call in calls} == {"p"}
    assert sum(call["status"] == "failed" for call in calls) == made.failed


def test_what_ends_the_work_begins_nothing_new_and_keeps_what_was_under_way(run):
    paid = Paid(concurrency=4, seconds=0.01, cannot="pay")
    _, made = make(run, paid)
    assert isinstance(made.trouble, InputError)
    assert 10 <= len(paid.asked) <= 10 + 2 * 4
    assert made.images + made.refused == store.read(run, "images").num_rows == 9
    assert store.read(run, "calls").num_rows == len(paid.asked)


def test_as_many_at_a_time_as_allowed():
    meeting = threading.Barrier(3, timeout=20)
    taken = []
    batches = [[Task(Prompt(prompt_id="", text=f"a {n}", pair_id=f"p{n}", role="original"), 0)] for n in range(9)]

    def ask(batch):
        meeting.wait()
        return []

    threads.draw(ask, batches, lambda batch, answers: taken.append(batch), count=3)
    assert sorted(batches, key=str) == sorted(taken, key=str)
