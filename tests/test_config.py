import dataclasses
import inspect
import json
import re
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from widespectrum import run_models
from widespectrum.config import (
    INTERVALS,
    EvaluateConfig,
    ModelChoice,
    PromptChoice,
    RunConfig,
    demo_config,
    parse_model,
    parse_prompts,
    parse_run_file,
    read_run_file,
    write_run_text,
)
from widespectrum.errors import InputError
from widespectrum.functional import _bootstrap
from widespectrum.generators import GENERATORS
from widespectrum.judges import JUDGES
from widespectrum.registry import _constructor, _declared
from widespectrum.rewards import REWARD_MODELS

EVERYTHING = """
[run]
seeds = [0, 7]
batch_size = 2

[prompts]
file = "{folder}/prompts.csv"

[[generators]]
name = "photo-effects"
strength = 2
[[generators]]
name = "identity"
size = 64

[[reward_models]]
name = "x"
half = true
scale = 0.5
text = "a"

[[judges]]
name = "pixel"

[evaluate]
verdict_judge = "pixel"
n_resamples = 10
confidence_level = 0.9
interval = "bca"
bases = { "photo-effects[strength=2]" = "identity[size=64]" }
"""


def test_a_run_file_with_everything(tmp_path):
    (tmp_path / "prompts.csv").touch()
    text = EVERYTHING.replace("{folder}", str(tmp_path))
    assert parse_run_file(text, "r.toml") == RunConfig(
        text=text,
        source="r.toml",
        seeds=(0, 7),
        batch_size=2,
        prompts=PromptChoice(file=tmp_path / "prompts.csv"),
        generators=(
            ModelChoice(name="photo-effects", options={"strength": 2}),
            ModelChoice(name="identity", options={"size": 64}),
        ),
        reward_models=(ModelChoice(name="x", options={"half": True, "scale": 0.5, "text": "a"}),),
        judges=(ModelChoice(name="pixel"),),
        evaluate=EvaluateConfig(
            verdict_judge="pixel",
            n_resamples=10,
            confidence_level=0.9,
            interval="bca",
            bases={"photo-effects[strength=2]": "identity[size=64]"},
        ),
    )


def test_prompts_of_another_run(tmp_path):
    table = f'[prompts]\nrun = "{tmp_path}"\n'
    assert parse_run_file(table).prompts == PromptChoice(run=tmp_path)
    chosen = parse_run_file(table + 'generator = "g[steps=2]"\nseed = 3\n')
    assert chosen.prompts == PromptChoice(run=tmp_path, generator="g[steps=2]", seed=3)
    assert len({parse_run_file(table + f"seed = {seed}\n").asks_for[1].seed for seed in (0, 1)}) == 2


def test_prompts_on_the_command_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    assert parse_prompts("mine") == {"set": "mine"}
    (tmp_path / "mine" / "manifest.json").touch()
    assert parse_prompts("mine") == {"run": "mine"}
    assert parse_prompts("runs/none") == {"run": "runs/none"}
    table = parse_prompts("mine[generator=photo-effects[strength=2],seed=4]")
    assert table == {"run": "mine", "generator": "photo-effects[strength=2]", "seed": 4}
    assert parse_run_file(write_run_text(table, {})).prompts == PromptChoice(
        run=Path("mine"), generator="photo-effects[strength=2]", seed=4
    )


def test_an_empty_run_file_has_the_defaults():
    assert parse_run_file("", "r.toml") == RunConfig(text="", source="r.toml")
    assert parse_run_file("").seeds == (0,)
    assert parse_run_file("").evaluate.n_resamples == 2000
    assert parse_run_file("").evaluate.interval == "percentile"


def test_a_table_for_bases():
    text = '[evaluate]\nn_resamples = 5\n[evaluate.bases]\na = "b"\n'
    assert parse_run_file(text).evaluate == EvaluateConfig(n_resamples=5, bases={"a": "b"})


# Each text marks with #! the line that the error must name.
MISTAKES = {
    "unknown table": ("[run]\n[reward_model] #!\n", "unknown table 'reward_model'; expected one of run, prompts, gen"),
    "unknown key before any table": ("batch_size = 3 #!\n", "unknown table 'batch_size'"),
    "unknown key in run": ("[run]\nseed = 0 #!\n", "unknown [run] key 'seed'; expected one of seeds, batch_size"),
    "unknown key in prompts": (
        '[prompts]\nset = "photographs"\nphotographs = "x" #!\n',
        "unknown [prompts] key 'photographs'; expected one of set, file, run, photos, captions, generator, seed",
    ),
    "unknown key in evaluate": (
        "[evaluate]\nresamples = 3 #!\n",
        "unknown [evaluate] key 'resamples'; expected one of",
    ),
    "a quoted unknown key": ('[run]\n"seed" = 0 #!\n', "unknown [run] key 'seed'"),
    "seeds not a list": ("[run]\nseeds = 3 #!\n", "[run] seeds must be a list of distinct integers >= 0; got 3"),
    "no seeds": ("[run]\nseeds = [] #!\n", "list of distinct integers >= 0; got []"),
    "seeds twice": ("[run]\nbatch_size = 1\nseeds = [1, 2, 1] #!\n", "list of distinct integers >= 0; got [1, 2, 1]"),
    "a seed below 0": ("[run]\nseeds = [-1] #!\n", "list of distinct integers >= 0; got [-1]"),
    "a seed that is true": ("[run]\nseeds = [true] #!\n", "list of distinct integers >= 0; got [True]"),
    "a seed beyond 64 bits": ("[run]\nseeds = [9223372036854775808] #!\n", "list of distinct integers >= 0"),
    "batch size 0": ("\n[run]\nbatch_size = 0 #!\n", "[run] batch_size must be an integer >= 1; got 0"),
    "batch size 1.5": ("[run]\nbatch_size = 1.5 #!\n", "[run] batch_size must be an integer >= 1; got 1.5"),
    "batch size true": ("[run]\nbatch_size = true #!\n", "[run] batch_size must be an integer >= 1; got True"),
    "run no table": ("run = 3 #!\n", "run must be a table: write [run]"),
    "prompts a list of tables": ('[[prompts]] #!\nset = "a"\n', "prompts must be a table: write [prompts]"),
    "set not a text": ("[prompts]\nset = 1 #!\n", "[prompts] set must be a non-empty text; got 1"),
    "set empty": ('[prompts]\nset = " " #!\n', "[prompts] set must be a non-empty text"),
    "set and file": ('[prompts]\nset = "a"\nfile = "b" #!\n', "takes only one of 'set' and 'file': delete the other"),
    "file and run": ('[prompts]\nrun = "a" #!\nfile = "b"\n', "takes only one of 'file' and 'run': delete the other"),
    "seed without run": (
        '[prompts]\nset = "a"\nseed = 0 #!\n',
        "seed goes with 'run' alone: give that, or delete seed",
    ),
    "generator without run": ('[prompts]\nset = "a"\ngenerator = "b" #!\n', "generator goes with 'run' alone"),
    "run missing": ('[prompts]\nrun = "no" #!\n', "[prompts] run = 'no': there is nothing at /"),
    "seed a text": ('[prompts]\nrun = "."\nseed = "0" #!\n', "[prompts] seed must be an integer >= 0; got '0'"),
    "file and photos": ('[prompts]\nfile = "b"\nphotos = "c" #!\n', "photos goes with 'set' alone: give that, or"),
    "neither set nor file": ('[prompts] #!\nphotos = "."\n', "needs 'set' (a named prompt set), 'file' (a prompt"),
    "captions without photos": (
        '[prompts]\nset = "a"\ncaptions = "b" #!\n',
        "captions goes with 'photos' alone: give that, or delete captions",
    ),
    "file missing": ('[prompts]\nfile = "no.csv" #!\n', "[prompts] file = 'no.csv': there is nothing at /"),
    "photos missing": ('[prompts]\nset = "a"\nphotos = "no" #!\n', "[prompts] photos = 'no': there is nothing at /"),
    "captions missing": (
        '[prompts]\nset = "a"\nphotos = "."\ncaptions = "no" #!\n',
        "[prompts] captions = 'no': there is nothing at /",
    ),
    "generators a table": ('[generators] #!\nname = "a"\n', "write each entry of generators as a table [[generators]]"),
    "judges a text": ('judges = "pixel" #!\n', "write each entry of judges as a table [[judges]]"),
    "reward models a list of texts": (
        'reward_models = ["a"] #!\n',
        "entry of reward_models as a table [[reward_models]]",
    ),
    "no name": ("[[generators]] #!\nstrength = 1\n", "[[generators]] needs a name"),
    "name not a text": ("[[generators]]\nname = 3 #!\n", "[[generators]] needs a name"),
    "name empty": ('[[judges]]\nname = "" #!\n', "[[judges]] needs a name"),
    "second entry without a name": (
        '[[generators]]\nname = "a"\n\n[[generators]] #!\nsize = 3\n',
        "[[generators]] needs a name",
    ),
    "an option of the second entry": (
        '[[generators]]\nname = "a"\nsize = 1\n[[judges]]\nname = "a"\n[[generators]]\nname = "a"\nsize = [1] #!\n',
        "[[generators]] size must be a text, a number or true/false; got [1]",
    ),
    "a date as option": ("[[judges]]\nname='a'\nday = 2020-01-01 #!\n", "day must be a text, a number or true/false"),
    "a table as option": (
        "[[judges]]\nname='a'\n[judges.more] #!\nx = 1\n",
        "[[judges]] more must be a text, a number",
    ),
    "the same model twice": (
        '[[reward_models]]\nname = "a"\nx = 1\n[[reward_models]]\nname = "a" #!\nx = 1\n',
        "[[reward_models]] names 'a' twice with the same options",
    ),
    "verdict judge not a text": ("[evaluate]\nverdict_judge = 1 #!\n", "[evaluate] verdict_judge must be the name"),
    "resamples 0": (
        "[evaluate]\nn_resamples = 0 #!\n",
        "[evaluate] n_resamples must be an integer from 1 to 1,000,000; got 0",
    ),
    "level 95": ("[evaluate]\nconfidence_level = 95 #!\n", "confidence_level must be a number between 0 and 1; got 95"),
    "level 1.0": ("[evaluate]\nconfidence_level = 1.0 #!\n", "confidence_level must be a number between 0 and 1"),
    "interval misspelt": (
        "[evaluate]\nn_resamples = 5\ninterval = 'BCA ' #!\n",
        "[evaluate] interval must be percentile or bca; got 'BCA '; did you mean bca?",
    ),
    "interval not a text": ("[evaluate]\ninterval = 0.9 #!\n", "interval must be percentile or bca; got 0.9"),
    "interval a list": ("[evaluate]\ninterval = ['bca'] #!\n", "interval must be percentile or bca; got ['bca']"),
    "verdict judge that is no judge here": (
        "[[judges]]\nname = 'rule'\nreward_model = 'x'\n[evaluate]\nverdict_judge = 'rule' #!\n",
        "verdict_judge 'rule' is no judge of this run file; it has: rule[reward_model=x]",
    ),
    "bases that are no generators here": (
        "[[generators]]\nname = 'a'\n[[generators]]\nname = 'b'\n[evaluate]\nbases = { a = 'c' } #!\n",
        "[evaluate] bases names 'c', no generator of this run file; it has: a, b",
    ),
    "aligned ones that are no generators here": (
        "[[generators]]\nname = 'b'\n[evaluate.bases] #!\nc = 'b'\n",
        "[evaluate] bases names 'c', no generator of this run file; it has: b",
    ),
    "bases of numbers": ("[evaluate]\nbases = { a = 1 } #!\n", "[evaluate] bases must be a table of aligned generator"),
    "bases as a table of its own": ("[evaluate]\n[evaluate.bases] #!\na = 1\n", "[evaluate] bases must be a table"),
    "a key after a sub-table": (
        '[evaluate.bases]\nn_resamples = "b"\n\n[evaluate]\nn_resamples = 0 #!\n',
        "[evaluate] n_resamples must be an integer",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named_with_its_line(mistake, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text, message = MISTAKES[mistake]
    (line,) = [number for number, content in enumerate(text.splitlines(), 1) if content.endswith("#!")]
    with pytest.raises(InputError) as error:
        parse_run_file(text, "my/run.toml")
    assert str(error.value).startswith(f"my/run.toml, line {line}: ")
    assert message in str(error.value)


def test_what_is_no_toml():
    with pytest.raises(InputError, match=r"^r\.toml: not valid TOML: .*line 3, column 1"):
        parse_run_file('[run]\nseeds = [0\n[prompts]\nset="a"\n', "r.toml")
    with pytest.raises(InputError, match=r"^r\.toml: not valid TOML: .*line 3"):
        parse_run_file("[run]\nbatch_size = 1\nbatch_size = 2\n", "r.toml")


def test_read_run_file(tmp_path):
    file = tmp_path / "run.toml"
    file.write_text("[run]\nbatch_size = 4\n# café\n", encoding="utf-8")
    for path in (file, tmp_path):
        config = read_run_file(path)
        assert (config.batch_size, config.source, config.text) == (4, str(file), file.read_text(encoding="utf-8"))
    file.write_bytes("# café".encode("latin-1"))
    with pytest.raises(InputError, match=f"{file}: not UTF-8 text .* at byte 5"):
        read_run_file(file)
    file.write_text("[run]\nx = 1\n")
    with pytest.raises(InputError, match=f"^{file}, line 2: unknown"):
        read_run_file(tmp_path)


@pytest.mark.parametrize("name", ["no.toml", "folder"])
def test_a_run_file_that_is_not_there(tmp_path, name):
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match=r"there is no such file; expected a run file \(TOML\) or a run folder"):
        read_run_file(tmp_path / name)


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("a-b_1.5", {}),
        ("a[]", {}),
        (" a[x=1] ", {"x": 1}),
        ("a[x=1, y=-2.5 ,z=true]", {"x": 1, "y": -2.5, "z": True}),
        ("a[x=word,y='1',z=1e3]", {"x": "word", "y": "1", "z": 1000.0}),
        ("a[day=2020-01-01,path=b/c.d=e]", {"day": "2020-01-01", "path": "b/c.d=e"}),
    ],
)
def test_parse_model(text, options):
    choice = parse_model(text)
    assert choice == ModelChoice(name=text.strip().partition("[")[0], options=options)
    assert [type(value) for value in choice.options.values()] == [type(value) for value in options.values()]


@pytest.mark.parametrize("text", ["", "[x=1]", "a[x=1", "ax=1]", "a[x]", "a[x=]", "a[=1]", "a[x y=1]", "a[x=1]b"])
def test_what_is_no_model(text):
    with pytest.raises(InputError, match="expected"):
        parse_model(text)


NAMES = st.text(min_size=1).filter(str.strip)
OPTIONS = st.dictionaries(
    st.from_regex(r"[A-Za-z0-9_-]+", fullmatch=True).filter(lambda key: key != "name"),
    st.one_of(st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False), st.text()),
)
CHOICES = st.lists(
    st.builds(lambda name, options: ModelChoice(name=name, options=options), NAMES, OPTIONS), unique_by=str, max_size=3
)


@given(NAMES, CHOICES, CHOICES)
def test_a_written_run_file_reads_back(name, generators, judges):
    text = write_run_text({"set": name}, {"generators": generators, "judges": judges})
    document = tomllib.loads(text)
    assert document["prompts"] == {"set": name}
    for table, choices in (("generators", generators), ("judges", judges)):
        written = [{"name": choice.name, **choice.options} for choice in choices]
        assert document.get(table, []) == written
        kinds = [{key: type(value) for key, value in entry.items()} for entry in written]
        assert [{key: type(value) for key, value in entry.items()} for entry in document.get(table, [])] == kinds


def test_a_written_run_file_is_a_run_file(tmp_path):
    models = {"generators": [parse_model("photo-effects[strength=2]")], "reward_models": [ModelChoice(name="x")]}
    config = parse_run_file(write_run_text({"set": "photographs", "photos": str(tmp_path)}, models))
    assert config.prompts == PromptChoice(set="photographs", photos=tmp_path)
    assert config.generators == tuple(models["generators"])
    assert config.reward_models == tuple(models["reward_models"])


def test_the_demo(tmp_path):
    own = demo_config()
    assert own.prompts == PromptChoice(set="photographs")
    assert [choice.options.get("strength") for choice in own.generators] == [None, 1, 2, 3, 4]
    photos, captions = tmp_path / 'my "photos" \\ 7', tmp_path / "captions.csv"
    photos.mkdir()
    captions.touch()
    users = demo_config(photos, captions)
    assert users.prompts == PromptChoice(set="photographs", photos=photos, captions=captions)
    assert dataclasses.replace(users, text=own.text, prompts=own.prompts) == own
    assert parse_run_file(users.text).prompts == users.prompts
    assert demo_config(photos).prompts == PromptChoice(set="photographs", photos=photos)


@pytest.mark.parametrize(
    ("photos", "captions", "message"),
    [
        (Path("no such folder"), None, "photos = 'no such folder': there is nothing at"),
        (None, Path("x"), "captions goes with 'photos' alone"),
    ],
)
def test_the_demo_with_wrong_paths(photos, captions, message):
    with pytest.raises(InputError, match=rf"^\[prompts\] .*{message}"):
        demo_config(photos, captions)


def test_the_intervals_are_those_of_the_metrics():
    assert INTERVALS == _bootstrap.INTERVALS


# the documentation

DOCS = (Path(__file__).parents[1] / "docs" / "run-file.md").read_text(encoding="utf-8")


def test_the_example_of_the_docs_runs():
    (example,) = re.findall(r"^```toml\n(.*?)^```", DOCS, re.MULTILINE | re.DOTALL)
    config = parse_run_file(example)
    assert len(config.seeds) > 1
    assert (config.evaluate.interval, bool(config.evaluate.bases)) == ("bca", True)
    models = run_models.load_models(config)
    assert models.generators
    assert config.evaluate.verdict_judge in models.judges


def test_the_docs_hold_every_key_with_its_default():
    rows = dict(re.findall(r"^\| `(\w+)` \| [^|]+ \| ([^|]+) \|", DOCS, re.MULTILINE))
    defaults = {each.name: each.default for each in dataclasses.fields(EvaluateConfig)}
    assert rows["seeds"] == "`[0]`"
    for key in ("n_resamples", "confidence_level", "interval"):
        assert rows[key].replace('"', "") == f"`{defaults[key]}`"
    keys = {each.name for kind in (EvaluateConfig, PromptChoice) for each in dataclasses.fields(kind)} - {"places"}
    assert keys | {"name", "seeds", "batch_size"} == {*rows} - {*GENERATORS, *JUDGES}
    assert rows["batch_size"] == f"`{parse_run_file('').batch_size}`"


@pytest.mark.parametrize("table", [GENERATORS, REWARD_MODELS, JUDGES])
def test_the_docs_hold_every_option_with_its_default(table):
    for name, entry in table.items():
        if entry.packages:
            continue  # their cards and `widespectrum models show` do
        for option, default in _declared(_constructor("model", table, name), entry).items():
            must_be_given = default is inspect.Parameter.empty
            written = option if must_be_given else f"{option} = {json.dumps(default)}"
            assert f"| `{name}` | `{written}` |" in DOCS
