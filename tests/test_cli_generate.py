"""The verb `generate` as a user meets it."""

import re

import pytest

from tests.commands import invoke, refused
from tests.engine.made import ENTRIES
from widespectrum import runs, store
from widespectrum.generators import GENERATORS

CSV = "pair_id,role,text,dimensions\n" + "".join(
    f'p{number},original,"a {number}",\np{number},wide_spectrum,"a {number}, blurred",clarity\n' for number in range(6)
)


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch):
    """A folder with a prompt table, and the small generators."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prompts.csv").write_text(CSV)
    for name, entry in ENTRIES.items():
        monkeypatch.setitem(GENERATORS, name, entry)
    return tmp_path


def made_in(folder):
    return store.read(folder, "images").num_rows


def test_from_options_it_goes_on_with_run(workplace, photos):
    options = ["--generator", "identity[size=48]", "--prompts", "photographs", "--photos", photos, "--out", "out"]
    result = invoke("generate", *options)
    lines = result.stdout.splitlines()
    assert (result.exit_code, lines[0]) == (0, "generate: 44 images, 0 API calls, up to 0 MB")
    assert lines[1].startswith("  identity[size=48]: 44 images, 0 refused, 0 not made in ")
    assert set(store.read(workplace / "out", "images")["generator"].to_pylist()) == {"identity[size=48]"}
    again = invoke("run", "out")
    assert again.exit_code == 0, again.output
    assert "generate: 0 images" in again.stdout
    assert "nothing to evaluate" in again.stdout
    assert made_in(workplace / "out") == 44


def test_contradicting_options(workplace, run_text):
    (workplace / "tiny.toml").write_text(run_text)
    both = refused(workplace, "generate", "tiny.toml", "--generator", "identity")
    assert both.startswith("tiny.toml already says what to generate: leave --generator")
    for arguments in ([], ["--generator", "identity"], ["--prompts", "photographs"], ["--photos", "."]):
        assert refused(workplace, "generate", *arguments) == "give a run file, or both --generator and --prompts"
    generator = ("--generator", "fluxx", "--prompts", "photographs")
    assert "unknown generator 'fluxx'" in refused(workplace, "generate", *generator)


# budgets


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        (("--max-calls", 5), "the budget of 5 calls is spent; 7 images remain"),
        (("--max-cost", 0.5), r"the budget of \$0\.50 is spent \(.*\); 7 images remain"),
    ],
)
def test_a_budget_stops_cleanly_and_the_same_command_goes_on(workplace, option, sentence):
    command = ("generate", "--generator", "paid[price=0.1]", "--prompts", "prompts.csv", "--out", "out")
    result = invoke(*command, *option)
    assert result.exit_code == 1
    assert re.fullmatch(rf"Stopped: {sentence}. To go on: [^\n]+\n", result.stderr)
    assert made_in(workplace / "out") == store.read(workplace / "out", "calls").num_rows == 5
    assert runs.read_manifest(workplace / "out").status == "started"
    assert invoke(*command).exit_code == 0
    assert made_in(workplace / "out") == 12


def test_a_run_that_spent_its_budget_is_not_scored(workplace):
    text = '[prompts]\nfile = "prompts.csv"\n[[generators]]\nname = "paid"\n[[reward_models]]\nname = "random"\n'
    (workplace / "paid.toml").write_text(text + "[evaluate]\nn_resamples = 20\n")
    result = invoke("run", "paid.toml", "--out", "out", "--max-calls", 4)
    assert result.exit_code == 1
    assert "Stopped: the budget of 4 calls is spent; 8 images remain. To go on: " in result.stderr
    assert "score:" not in result.stdout
    assert invoke("run", "paid.toml", "--out", "out").exit_code == 0
    assert runs.read_manifest(workplace / "out").status == "complete"


def test_limits_that_cannot_be(workplace):
    paid = ("generate", "--generator", "paid", "--prompts", "prompts.csv", "--out", "out")
    assert "the price of a call is not known" in refused(workplace, *paid, "--max-cost", 1)
    assert "expected US dollars above 0" in refused(workplace, *paid, "--max-cost", 0)
    assert invoke(*paid, "--max-calls", 0).exit_code == 2


# devices


def test_a_device_is_passed_to_generators_with_weights_only(workplace, photos):
    both = ("--generator", "neural", "--generator", "paid")
    result = invoke("generate", *both, "--prompts", "prompts.csv", "--out", "out", "--devices", "cpu")
    assert result.exit_code == 0, result.output
    assert made_in(workplace / "out") == 24


@pytest.mark.parametrize(
    ("devices", "message"),
    [
        ("cpu,cuda:99", "device 'cuda:99' cannot be used here ("),
        ("gpu", "device 'gpu' cannot be used here ("),
        ("cpu,", "--devices 'cpu,': expected devices with commas between them, such as cuda:0,cuda:1"),
    ],
)
@pytest.mark.parametrize("verb", ["generate", "run"])
def test_devices_that_cannot_be_used(workplace, verb, devices, message):
    text = '[prompts]\nfile = "prompts.csv"\n[[generators]]\nname = "neural"\n'
    (workplace / "file.toml").write_text(text)
    assert refused(workplace, verb, "file.toml", "--out", "out", "--devices", devices).startswith(message)


# where the prompts come from


def test_the_images_of_another_run_are_edited(workplace):
    for name in ("paid", "neural"):
        assert (
            invoke(
                "generate",
                "--generator",
                "paid[variant=1]",
                "--generator",
                name,
                "--prompts",
                "prompts.csv",
                "--out",
                f"with {name}",
            ).exit_code
            == 0
        )
    edit = ("generate", "--generator", "neural[needs=1]", "--prompts", "with neural", "--out", "edited")
    assert "paid[variant=1]" in refused(workplace, *edit)
    result = invoke(*edit, "--input", "neural")
    assert result.exit_code == 0, result.output
    assert "inputs: 6 images under p_a by neural, seed 0" in result.stdout
    assert made_in(workplace / "edited") == 12
    assert "goes with 'run' alone" in refused(
        workplace, "generate", "--generator", "neural", "--prompts", "prompts.csv", "--input", "neural"
    )


# --check


def test_check_tries_generators_by_themselves(workplace):
    result = invoke("generate", "--check", "neural[batch_size=2]", "--check", "paid")
    assert result.exit_code == 0, result.output
    assert "neural" in result.stdout
    assert "paid" in result.stdout
    assert not (workplace / "runs").exists()
    for more in (("prompts.csv",), ("--prompts", "authored"), ("--out", "out"), ("--max-calls", 3)):
        sentence = refused(workplace, "generate", "--check", "neural", *more)
        assert sentence == "--check tries generators by itself: leave RUN and every other option away"
    assert "unknown generator 'nothing'" in refused(workplace, "generate", "--check", "nothing")


# what fails


def test_what_failed_is_named_and_tried_again(workplace):
    text = CSV.replace('"a 3"', '"a failing 3"')
    (workplace / "prompts.csv").write_text(text)
    command = ("generate", "--generator", "neural[cannot=draw]", "--prompts", "prompts.csv", "--out", "out")
    for _ in range(2):
        result = invoke(*command)
        # The prompt is at fault, not the generator.
        assert result.exit_code == 2
        assert (
            "failed: generate neural[cannot=draw]: pair p3 (original, seed 0): it has too many tokens" in result.stderr
        )
        assert made_in(workplace / "out") == 11
    assert "generate: 1 images" in result.stdout
