"""Several devices: a process for each, here all on the CPU."""

from functools import partial

import PIL.Image
import pytest

from tests.engine.made import Neural
from widespectrum import generation, store
from widespectrum.engine.processes import Spread
from widespectrum.errors import InputError
from widespectrum.protocols import Failure
from widespectrum.types import Prompt

EVENTS = {2: "refused", 5: "failing", 7: "broken", 8: "deadly"}


@pytest.fixture
def prompts():
    return [
        Prompt(prompt_id="", text=f"a {'very ' * (number % 3)}{EVENTS.get(number, 'fine')} {number}", **rest)
        for number in range(10)
        for rest in (
            {"pair_id": f"p{number}", "role": "original"},
            {"pair_id": f"p{number}", "role": "wide_spectrum", "dimensions": ("clarity",)},
        )
    ]


def make(run, prompts, devices, *, open_input=None, **options):
    if not store.parts(run, "prompts"):
        store.append(run, "prompts", prompts)
    load = partial(Neural, **options)
    work = generation.planned(run, "n", load(), seeds=(0, 1), open_input=open_input)
    return generation.make(work, group=4, description="generate", spread=Spread(load, devices))


def rows(run):
    table = store.read(run, "images")
    assert len(store.keys(run, "images")) == table.num_rows
    return table.sort_by([(name, "ascending") for name in store.KEYS["images"]]).to_pylist()


def of_pair(pair_id):
    return PIL.Image.new("RGB", (2, 2), (ord(pair_id[1]), 2, 3))


def test_two_processes_give_the_table_of_one(tmp_path, prompts):
    found = {}
    for devices in (("cpu",), ("cpu", "cpu")):
        made = make(
            tmp_path / str(len(devices)), prompts, devices, batch_size=3, needs=1, cannot="draw", open_input=of_pair
        )
        found[len(devices)] = made, rows(tmp_path / str(len(devices)))
    (alone, expected), (spread, table) = found.values()
    assert table == expected
    assert (spread.images, spread.refused, spread.failed) == (alone.images, alone.refused, alone.failed)
    assert spread.images > 20
    assert spread.refused == 4
    assert sorted(spread.failures, key=str) == sorted(alone.failures, key=str)
    assert Failure("pair p5 (original, seed 0): it has too many tokens", "input") in spread.failures
    assert any(failure.reason.endswith(" of 40 not made: out of memory") for failure in spread.failures)
    assert spread.peak == alone.peak == 3_000_000_000
    assert {row["noise_seed"] for row in table} == {2, 1002}


def test_a_process_that_dies_gives_back_its_batches_and_the_other_goes_on(tmp_path, prompts):
    prompts[17] = Prompt(prompt_id="", text="a fine one", pair_id="p8", role="wide_spectrum", dimensions=("clarity",))
    made = make(tmp_path, prompts[:18], ("cpu", "cpu"), cannot="survive")
    # One prompt, with two seeds, kills both; each had another batch at most.
    reasons = [failure.reason for failure in made.failures]
    assert any(
        "pair p8 (original, seed 0): the process on cpu ended (killed by SIGKILL: the memory of the machine may not "
        "suffice)" in reason
        for reason in reasons
    )
    assert {failure.cause for failure in made.failures} == {"model"}
    assert made.failed + len(rows(tmp_path)) == 36
    assert len(rows(tmp_path)) > 16
    again = make(tmp_path, prompts, ("cpu", "cpu"))
    assert (again.failures, again.images, len(rows(tmp_path))) == ([], made.failed, 36)


@pytest.mark.parametrize(("when", "batch_size"), [("begin", 1), ("begin", 3), ("count", 3)])
def test_a_process_that_dies_before_it_draws_leaves_the_work_to_the_other(tmp_path, prompts, when, batch_size):
    made = make(tmp_path / "run", prompts, ("cpu", "cpu"), cannot=when, folder=str(tmp_path), batch_size=batch_size)
    (failure,) = made.failures
    assert failure.reason.startswith("the process on cpu ended (killed by SIGKILL: the memory")
    assert len(rows(tmp_path / "run")) == 40


def test_a_device_that_cannot_be_used_leaves_the_work_to_the_others(tmp_path, prompts):
    # The one that works begins when the other has failed.
    made = make(
        tmp_path / "run", prompts, ("cpu", "other"), cannot="open", on="other", folder=str(tmp_path), seconds=0.02
    )
    assert made.failures == [Failure("on other: its weights are not there", "input")]
    assert len(rows(tmp_path / "run")) == 40


def test_no_more_processes_begin_than_there_are_batches(tmp_path, prompts):
    made = make(tmp_path, prompts[:1], ("cpu", "other"), cannot="open", on="other", batch_size=2)
    assert (made.failures, made.images) == ([], 2)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_where_none_can_be_opened_there_is_one_reason(tmp_path, prompts, batch_size):
    made = make(tmp_path, prompts, ("cpu", "cpu"), cannot="open", batch_size=batch_size)
    assert isinstance(made.trouble, InputError)
    assert str(made.trouble) == "on cpu: its weights are not there"
    assert (made.failed, rows(tmp_path)) == (0, [])
