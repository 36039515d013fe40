"""How a generator's images come to be: batches, what is said, what is stored, and whatever may interrupt it."""

import io
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import PIL.Image
import pytest

from tests.engine.made import ENTRIES, Neural, Paid, color
from widespectrum import expense, generation, run_models, runs, stages, store
from widespectrum.budget import Budget
from widespectrum.config import parse_run_file
from widespectrum.errors import InputError
from widespectrum.generators import GENERATORS
from widespectrum.protocols import Failure
from widespectrum.types import Prompt

ROOT = Path(__file__).parents[1]
LENGTHS = (5, 1, 4, 2, 8, 3, 7)


def make_prompts():
    for number, length in enumerate(LENGTHS):
        pair = f"p{number}"
        yield Prompt(prompt_id="", text=f"a {'very ' * length}fine {number}", pair_id=pair, role="original")
        text = f"a {'very ' * length}fine {number}, blurred"
        yield Prompt(prompt_id="", text=text, pair_id=pair, role="wide_spectrum", dimensions=("clarity",))


PROMPTS = tuple(make_prompts())


@pytest.fixture
def run(tmp_path):
    store.append(tmp_path, "prompts", PROMPTS)
    return tmp_path


def make(run, generator, *, seeds=(0, 1), group=1):
    work = generation.planned(run, "g", generator, seeds=seeds, open_input=None)
    return generation.make(work, group=group, description="generate")


def rows(run):
    table = store.read(run, "images")
    assert len(store.keys(run, "images")) == table.num_rows
    return table.sort_by([(name, "ascending") for name in store.KEYS["images"]]).to_pylist()


# batches


def test_batches_hold_prompts_of_like_length_and_one_seed(run):
    generator = Neural(batch_size=4)
    assert make(run, generator).failures == []
    lengths = [[len(text) for text in batch] for batch in generator.drawn]
    expected = sorted(len(prompt.text) for prompt in PROMPTS)
    assert lengths == 2 * [expected[:4], expected[4:8], expected[8:12], expected[12:]]


def test_prompts_whose_keys_differ_in_the_first_number_are_never_drawn_together(run):
    class Apart(Neural):
        def batch_key(self, prompt):
            return len(prompt.text) % 2, len(prompt.text)

    generator = Apart(batch_size=4)
    make(run, generator, seeds=(0,))
    assert all(len({len(text) % 2 for text in batch}) == 1 for batch in generator.drawn)
    odd = sum(len(prompt.text) % 2 for prompt in PROMPTS)
    assert len(generator.drawn) == -(-odd // 4) - (-(len(PROMPTS) - odd) // 4)


def test_one_by_one_the_images_of_a_pair_follow_each_other_and_no_key_is_asked_for(run):
    class Keyless(Neural):
        def batch_key(self, prompt):
            raise AssertionError("it would open the tokenizers")

    generator = Keyless()
    make(run, generator)
    assert [len(batch) for batch in generator.drawn] == [1] * 28
    assert [batch[0] for batch in generator.drawn] == 2 * [prompt.text for prompt in PROMPTS]


def test_what_is_there_is_left_out_of_its_batch(run):
    generator = Neural(batch_size=4, cannot="draw")
    failing = [
        Prompt(prompt_id="", text=f"a {'very ' * length}failing", pair_id=f"q{length}", role="original")
        for length in (1, 8)
    ]
    store.append(run, "prompts", failing)
    made = make(run, generator, seeds=(0,))
    assert made.failures == [
        Failure(f"pair q{length} (original, seed 0): it has too many tokens", "input") for length in (1, 8)
    ]
    again = Neural(batch_size=4)
    assert make(run, again, seeds=(0,)).images == 2
    # Each in the batch that it was in, of which it is what is left.
    assert again.drawn == [[each.text] for each in failing]


def test_the_seed_of_the_noise_is_recorded(run):
    make(run, Neural())
    assert {(row["seed"], row["noise_seed"]) for row in rows(run)} == {(0, 2), (1, 1002)}


def test_a_generator_without_weights_gets_batches_of_the_run_and_records_no_noise(run):
    class Plain:
        spec, needs_images, asked = Neural().spec, False, []

        def generate(self, prompts, *, seeds, images=None):
            self.asked.append(len(prompts))
            return [PIL.Image.new("RGB", (2, 2)) for _ in prompts]

    made = make(run, Plain(), group=10)
    assert Plain.asked == [10, 10, 8]
    assert (made.images, made.peak, {row["noise_seed"] for row in rows(run)}) == (28, 0, {None})


# a real process, killed and stopped

RUN_FILE = """
[run]
seeds = [0, 1]
batch_size = {group}

[prompts]
file = "prompts.csv"

[[generators]]
name = "{name}"
"""


@pytest.fixture
def place(tmp_path):
    lines = ["pair_id,role,text,dimensions"]
    lines += [f'{p.pair_id},{p.role},"{p.text}",{"|".join(p.dimensions)}' for p in PROMPTS]
    (tmp_path / "prompts.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def begin(place, name, *arguments, group=3, **options):
    """The command with the small generators, in a folder with a run file."""
    text = RUN_FILE.format(name=name, group=group)
    (place / "run.toml").write_text(text + "".join(f"{key} = {value}\n" for key, value in options.items()))
    command = [sys.executable, str(ROOT / "tests/engine/made.py"), "generate", "run.toml", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=place, env=environment, start_new_session=True, **pipes)


def end(process, code=0):
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == code, stderr
    assert "Traceback" not in stderr
    return stdout, stderr


def wait_for(process, pattern, folder, count=1):
    deadline = time.monotonic() + 60
    while len(list(folder.glob(pattern))) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.mark.parametrize("devices", ["cpu", "cpu,cpu"])
def test_a_killed_run_ends_in_the_tables_of_one_that_was_left_alone(place, devices):
    options = {"batch_size": 3, "seconds": 0.05}
    end(begin(place, "neural", "--out", "calm", "--devices", devices, **options))
    for number, pause in ((1, 0), (4, 0.03)):
        process = begin(place, "neural", "--out", "run", "--devices", devices, **options)
        # Between two batches, and while the next is drawn.
        wait_for(process, "images/part-*", place / "run", number)
        time.sleep(pause)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    there = len(rows(place / "run"))
    assert 12 <= there < 28
    stdout, _ = end(begin(place, "neural", "--out", "run", "--devices", devices, **options))
    assert f"generate: {28 - there} images" in stdout
    assert rows(place / "run") == rows(place / "calm")
    assert runs.read_manifest(place / "run").status == "complete"


WAYS = {
    "local": ("neural", (), {"seconds": 0.1}),
    "threads": ("paid", (), {"seconds": 0.3, "concurrency": 3}),
    "processes": ("neural", ("--devices", "cpu,cpu"), {"seconds": 0.1}),
}


@pytest.mark.parametrize("way", WAYS)
def test_ctrl_c_keeps_what_is_finished_and_the_same_command_goes_on(place, way):
    name, arguments, options = WAYS[way]
    process = begin(place, name, "--out", "out", *arguments, group=4, **options)
    wait_for(process, "images/part-*", place / "out", 2)
    # As the terminal does it: every process of the group gets it.
    os.killpg(process.pid, signal.SIGINT)
    stdout, stderr = end(process, code=130)
    assert "Stopped. Every finished batch is kept. To go on: widespectrum generate run.toml" in stdout
    assert "KeyboardInterrupt" not in stderr
    there = len(rows(place / "out"))
    assert 8 <= there < 28
    if way == "threads":
        # What was under way is waited for, and every call that was paid is written down.
        assert there == store.read(place / "out", "calls").num_rows >= 8 + 1
    assert runs.read_manifest(place / "out").status == "started"
    stdout, _ = end(begin(place, name, "--out", "out", *arguments, group=4, **options))
    assert f"generate: {28 - there} images" in stdout
    assert len(rows(place / "out")) == 28


def test_a_worker_ends_with_its_parent(place):
    process = begin(place, "neural", "--out", "out", "--devices", "cpu,cpu", seconds=600, group=1)
    deadline = time.monotonic() + 60
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while not (workers := [pid for pid in children.read_text().split() if "spawn_main" in line_of(pid)][1:]):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    while any(line_of(pid) for pid in workers):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def line_of(pid):
    """The command line of a process; empty where it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


# the stage


@pytest.fixture
def stage(place, monkeypatch):
    """Work off a run file with these generators: failures, and what was said."""
    for name, entry in ENTRIES.items():
        monkeypatch.setitem(GENERATORS, name, entry)
    monkeypatch.chdir(place)

    def work(*tables, **resources):
        head = '[run]\nseeds = [0, 1]\n[prompts]\nfile = "prompts.csv"\n'
        config = parse_run_file(head + "".join(f"[[generators]]\n{table}\n" for table in tables))
        models, prompt_set = run_models.load_models(config), stages.prompt_set_of(config)
        said = []
        given = run_models.Resources(**resources)
        models = run_models.equip(config, models, given)
        run_models.check_prompts(config, models, prompt_set)
        with runs.locked(place / "run"):
            stages.start(place / "run", config, models, prompt_set)
            failures = stages.generate(place / "run", config, models, prompt_set, said.append, given)
        return failures, said, models.generators

    return work


def test_the_cost_is_said_before_and_what_it_came_to_afterwards(stage):
    cheap = 'name = "paid"\nlabel = "cheap"\nprice = 0.04'
    failures, said, generators = stage('name = "neural"', cheap, 'name = "paid"\nfails = 0.3')
    assert said[:3] == [
        "generate: 84 images, 56 API calls, up to 0 MB",
        "  cheap: 28 API calls, about $1.12",
        "  paid[fails=0.3]: 28 API calls, cost unknown",
    ]
    assert said[3].startswith("  neural: 28 images, 0 refused, 0 not made in 0")
    assert said[3].endswith(" images/s), peak memory 3.0 GB")
    assert said[4].startswith("  cheap: 28 images, 0 refused, 0 not made in 0")
    failed = len(failures)
    assert failed > 0
    assert said[5].startswith(f"  paid[fails=0.3]: {28 - failed} images, 0 refused, {failed} not made in ")
    assert all(failure.reason.startswith("generate paid[fails=0.3]: pair p") for failure in failures)
    assert generators["neural"].closed


@pytest.mark.parametrize(
    ("params", "text"),
    [
        ({"width": 1024, "height": 512}, "up to 1 MB"),
        ({"size": 2048}, "up to 8 MB"),
        ({"size": "20000x30000"}, "up to 1.2 GB"),
        ({"size": "1K"}, "their size is unknown"),
    ],
)
def test_how_much_disk_it_takes(run, params, text):
    generator = Neural()
    generator.spec = type(generator.spec)(adapter="a", name="b", revision="v1", params=params)
    work = generation.planned(run, "g", generator, seeds=(0,), open_input=None)
    one = type(work)(run, "g", generator, work.wanted, work.missing[:1], None)
    assert [*expense.lines([one])] == [f"generate: 1 images, 0 API calls, {text}"]


def test_a_generator_that_cannot_be_opened_is_listed_and_the_others_go_on(stage, place):
    failures, _, generators = stage(
        'name = "neural"\ncannot = "open"',
        'name = "neural"\ncannot = "download"',
        'name = "paid"\ncannot = "open"',
        'name = "neural"',
    )
    assert failures == [
        Failure("generate neural[cannot=open]: its weights are not there", "input"),
        Failure("generate neural[cannot=download]: the connection failed", "model"),
        Failure("generate paid[cannot=open]: there is no key", "input"),
    ]
    assert generators["paid[cannot=open]"].asked == []
    assert len(rows(place / "run")) == 28


def test_prompts_that_cannot_be_drawn_are_refused_before_anything_starts(stage, place):
    with pytest.raises(InputError, match="run file, line 8: these prompts have no negative_prompt"):
        stage('name = "neural"', 'name = "neural"\ncannot = "check"')
    assert not (place / "run").exists()


def test_a_wrong_key_ends_a_generator_and_its_calls_are_kept(stage, place):
    failures, _, _ = stage('name = "paid"\ncannot = "pay"\nconcurrency = 1', 'name = "neural"')
    assert failures == [Failure("generate paid[cannot=pay]: the key is wrong", "input")]
    assert len(rows(place / "run")) == 28 + 9
    assert store.read(place / "run", "calls").num_rows == 10


@pytest.mark.parametrize(
    ("limits", "sentence"),
    [
        ({"max_calls": 33}, "the budget of 33 calls is spent; 23 images remain"),
        ({"max_cost": 1.65}, "the budget of $1.65 is spent (.*); 23 images remain"),
    ],
)
def test_a_budget_holds_for_all_generators_together(stage, place, limits, sentence):
    tables = [f'name = "paid"\nlabel = "{label}"\nprice = 0.05\nvariant = {len(label)}' for label in ("one", "three")]
    failures, _, _ = stage(*tables, 'name = "neural"', budget=Budget(**limits))
    assert stages.is_stopped(failures)
    (stopped,) = failures
    assert re.fullmatch(sentence.replace("$", r"\$"), stopped.reason)
    made = [row["generator"] for row in rows(place / "run")]
    assert (made.count("one"), made.count("three"), made.count("neural")) == (28, 5, 28)
    assert store.read(place / "run", "calls").num_rows == 33


def test_a_cost_limit_needs_a_price(stage):
    with pytest.raises(InputError, match=r"run file, line 6: paid: .* the price of a call is not known"):
        stage('name = "paid"', budget=Budget(max_cost=1.0))


def test_the_loop_costs_little(run):
    """Scheduling, encoding and storing 8x6 pixels take 0.1 to 0.5 ms of computing an image."""
    for generator in (Neural(), Neural(batch_size=4), Paid(concurrency=8)):
        make(run, Neural(), seeds=(99,))
        started = time.process_time()
        work = generation.planned(
            run, type(generator).__name__ + str(id(generator)), generator, seeds=range(20), open_input=None
        )
        made = generation.make(work, group=16, description="generate")
        assert made.images == 280
        assert (time.process_time() - started) / 280 < 0.002


def test_equal_prompts_and_seeds_give_equal_images(run):
    make(run, Paid())
    by_id = {prompt.prompt_id: prompt for prompt in PROMPTS}
    for row in rows(run):
        image = PIL.Image.open(io.BytesIO(row["image"]["bytes"]))
        assert image.getpixel((0, 0)) == color(by_id[row["prompt_id"]].text, row["seed"])
