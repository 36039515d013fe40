"""The run file: TOML → RunConfig. It is saved verbatim into the run.

    [run]                          # all optional
    seeds = [0]                    # one image per prompt, generator and seed
    batch_size = 16

    [prompts]
    set = "photographs"            # a named set, or  file = "prompts.csv",  or  run = "runs/flux-krea"
    photos = "my/photos"           # the same prompts made for your own photographs
    captions = "captions.csv"      # columns file, caption
    generator = "flux-krea"        # of run: whose images are the input images; where it has several
    seed = 0                       # of run: default its lowest

    [[generators]]
    name = "photo-effects"
    strength = 2                   # any other key is an option of the model

    [[reward_models]]
    name = "colorfulness"

    [[judges]]
    name = "pixel"

    [evaluate]                     # all optional
    verdict_judge = "pixel"        # default: the first judge
    n_resamples = 2000
    confidence_level = 0.95
    interval = "percentile"        # or "bca"
    bases = { "dance-flux" = "flux-dev" }

Relative paths start at the folder in which the command runs.
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import InputError
from .prompt_choice import PromptChoice, prompts_section
from .registry import PLACES, label
from .toml_reader import Reader, is_int, is_text, place_of
from .types import Parameter

__all__ = [
    "EvaluateConfig",
    "ModelChoice",
    "PromptChoice",
    "RunConfig",
    "demo_config",
    "parse_model",
    "parse_prompts",
    "parse_run_file",
    "read_run_file",
    "write_run_text",
]

MODEL_TABLES = ("generators", "reward_models", "judges")
INTERVALS = ("percentile", "bca")
JUDGE_ROLES = ("verdict_judge", "effect_judge", "content_judge", "dimension_judge")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelChoice:
    """A model by name, with its options; `places` says in which file and line the name and each option stand."""

    name: str
    options: Mapping[str, Parameter] = field(default_factory=dict)
    places: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)

    @property
    def label(self) -> str:
        """The name under which its results are stored."""
        return label(self.name, self.options)

    @property
    def arguments(self) -> dict[str, Parameter]:
        """What the model itself is given."""
        return {key: value for key, value in self.options.items() if key != "label"}

    @property
    def asks_for(self) -> tuple[str, str, dict[str, Parameter]]:
        """What is to be computed, whatever place its files have on this machine."""
        return self.label, self.name, {key: value for key, value in self.options.items() if key not in PLACES}

    def where(self, message: str) -> str:
        """The beginning of an error about this model: the place of the option that `message` names, or of the name."""
        return place_of(self.places, self.options, message) or self.places.get("name", "")


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateConfig:
    """How results are computed. The judges whose answers count in each role (`columns.Judges`) are those that answered
    first where none is named; `bases` maps a generator to the one it was aligned from.
    """

    verdict_judge: str = ""
    effect_judge: str = ""
    content_judge: str = ""
    dimension_judge: str = ""
    n_resamples: int = 2000
    confidence_level: float = 0.95
    interval: str = "percentile"
    bases: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """A checked run file."""

    text: str
    source: str
    seeds: tuple[int, ...] = (0,)
    batch_size: int = 16
    prompts: PromptChoice = field(default_factory=PromptChoice)
    generators: tuple[ModelChoice, ...] = ()
    reward_models: tuple[ModelChoice, ...] = ()
    judges: tuple[ModelChoice, ...] = ()
    evaluate: EvaluateConfig = EvaluateConfig()

    @property
    def asks_for(self) -> tuple[Any, ...]:
        """What is to be made: two run files that agree in it differ only in how it is worked off and evaluated."""
        models = (self.generators, self.reward_models, self.judges)
        return (self.seeds, self.prompts, *(tuple(choice.asks_for for choice in choices) for choices in models))


def _run_section(reader: Reader, table: Mapping[str, Any]) -> dict[str, Any]:
    reader.known(table, ("seeds", "batch_size"), "run")
    chosen: dict[str, Any] = {}

    def is_seeds(value: Any) -> bool:
        distinct = isinstance(value, list) and bool(value) and all(is_int(0)(seed) for seed in value)
        return distinct and len(set(value)) == len(value)

    if (seeds := reader.take(table, "run", "seeds", is_seeds, "a list of distinct integers >= 0")) is not None:
        chosen["seeds"] = tuple(seeds)
    if (size := reader.take(table, "run", "batch_size", is_int(1), "an integer >= 1")) is not None:
        chosen["batch_size"] = size
    return chosen


def _models(reader: Reader, tables: Any, section: str) -> tuple[ModelChoice, ...]:
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise reader.error(f"write each entry of {section} as a table [[{section}]] with a name", section)
    chosen: list[ModelChoice] = []
    for index, table in enumerate(tables):
        if not is_text(table.get("name")):
            raise reader.error(f"[[{section}]] needs a name", section, "name", index)
        options = {key: value for key, value in table.items() if key != "name"}
        for key, value in options.items():
            if not isinstance(value, bool | int | float | str):
                message = f"[[{section}]] {key} must be a text, a number or true/false; got {value!r}"
                raise reader.error(message, section, key, index)
        places = {key: reader.place(section, key, index) for key in table}
        choice = ModelChoice(name=table["name"], options=options, places=places)
        if choice in chosen:
            raise reader.error(
                f"[[{section}]] names {choice.name!r} twice with the same options", section, "name", index
            )
        chosen.append(choice)
    return tuple(chosen)


def _evaluate_section(reader: Reader, table: Mapping[str, Any]) -> EvaluateConfig:
    reader.known(table, (*JUDGE_ROLES, "n_resamples", "confidence_level", "interval", "bases"), "evaluate")

    def is_bases(value: Any) -> bool:
        return isinstance(value, dict) and all(is_text(name) for pair in value.items() for name in pair)

    def is_level(value: Any) -> bool:
        return isinstance(value, float) and 0 < value < 1

    for role in JUDGE_ROLES:
        reader.take(table, "evaluate", role, is_text, "the name of a judge")
    reader.take(
        table, "evaluate", "n_resamples", lambda n: is_int(1)(n) and n <= 10**6, "an integer from 1 to 1,000,000"
    )
    reader.take(table, "evaluate", "confidence_level", is_level, "a number between 0 and 1")
    if (interval := table.get("interval", INTERVALS[0])) not in INTERVALS:
        near = difflib.get_close_matches(str(interval).lower(), INTERVALS, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        message = f"[evaluate] interval must be {' or '.join(INTERVALS)}; got {interval!r}{hint}"
        raise reader.error(message, "evaluate", "interval")
    reader.take(table, "evaluate", "bases", is_bases, "a table of aligned generator = base generator")
    return EvaluateConfig(**table)


def _check_names(reader: Reader, config: RunConfig, *, in_run_file: bool) -> None:
    """What [evaluate] names must be in the run file, if the run file names any: found now, not at the end of a run.

    A run folder may hold judges that were added to it later, people among them.
    """
    judges, generators = ([choice.label for choice in choices] for choices in (config.judges, config.generators))
    bases = config.evaluate.bases
    for role in JUDGE_ROLES:
        judge = getattr(config.evaluate, role)
        if in_run_file and (judges or generators) and judge and judge not in judges:
            known = ", ".join(judges) or "none"
            message = f"[evaluate] {role} {judge!r} is no judge of this run file; it has: {known}"
            raise reader.error(message, "evaluate", role)
    for aligned, base in bases.items():
        if aligned == base:
            raise reader.error(f"[evaluate] bases names {base!r} as its own base", "evaluate", "bases")
    for name in (name for pair in bases.items() for name in pair):
        if generators and name not in generators:
            message = f"[evaluate] bases names {name!r}, no generator of this run file; it has: {', '.join(generators)}"
            raise reader.error(message, "evaluate", "bases")


def parse_run_file(text: str, source: str = "run file", *, check_paths: bool = True) -> RunConfig:
    """The checked configuration in `text`; InputError with file and line for anything unexpected.

    An empty `source` says that the user wrote no file. Without `check_paths` the paths may lead nowhere.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{source}: not valid TOML: {error}") from error
    reader = Reader(text, source)
    reader.known(document, ("run", "prompts", *MODEL_TABLES, "evaluate"), "")
    for section in ("run", "prompts", "evaluate"):
        if not isinstance(document.get(section, {}), dict):
            raise reader.error(f"{section} must be a table: write [{section}]", section)
    config = RunConfig(
        text=text,
        source=source,
        **_run_section(reader, document.get("run", {})),
        prompts=prompts_section(reader, document.get("prompts", {}), check_paths),
        generators=_models(reader, document.get("generators", []), "generators"),
        reward_models=_models(reader, document.get("reward_models", []), "reward_models"),
        judges=_models(reader, document.get("judges", []), "judges"),
        evaluate=_evaluate_section(reader, document.get("evaluate", {})),
    )
    _check_names(reader, config, in_run_file=check_paths)
    return config


def read_run_file(path: Path) -> RunConfig:
    """Read a run file, or the `run.toml` of a run folder, which may have been moved away from its photographs."""
    file = path / "run.toml" if path.is_dir() else path
    if not file.is_file():
        raise InputError(f"{file}: there is no such file; expected a run file (TOML) or a run folder")
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{file}: not UTF-8 text ({error.reason} at byte {error.start})") from error
    return parse_run_file(text, str(file), check_paths=not path.is_dir())


def parse_model(text: str) -> ModelChoice:
    """`name` or `name[option=value,...]`, the form in which tables show a model.

    >>> parse_model("photo-effects[strength=2]")
    ModelChoice(name='photo-effects', options={'strength': 2})
    """
    match = re.fullmatch(r"([^\[\]]+)(?:\[(.*)\])?", text.strip())
    if match is None:
        raise InputError(f"expected a model as name or name[option=value], got {text!r}")
    options: dict[str, Parameter] = {}
    for item in filter(None, (match[2] or "").split(",")):
        key, equals, value = (part.strip() for part in item.partition("="))
        if not (_BARE_KEY.fullmatch(key) and equals and value):
            raise InputError(f"expected option=value in {text!r}, got {item!r}")
        if key in options:
            raise InputError(f"{text!r} gives {key} twice: delete one")
        options[key] = _toml_value(value)
    return ModelChoice(name=match[1], options=options)


def _toml_value(text: str) -> Parameter:
    """A number or true/false as TOML writes it; anything else is a text."""
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
    return value if isinstance(value, bool | int | float | str) else text


def _toml_text(value: Parameter) -> str:
    """The value as TOML writes it."""
    if isinstance(value, str):
        # The one control character that JSON leaves as it is and TOML forbids.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return str(value).lower()


def parse_prompts(text: str) -> dict[str, Parameter]:
    """The table [prompts] that a text means: the name of a set, a table, or a run, which may say what is taken of it.

    >>> parse_prompts("authored"), parse_prompts("mine.csv")
    ({'set': 'authored'}, {'file': 'mine.csv'})
    >>> parse_prompts("runs/krea[generator=flux-krea,seed=1]")
    {'run': 'runs/krea', 'generator': 'flux-krea', 'seed': 1}
    """
    if Path(text).suffix.lower() in (".csv", ".parquet"):
        return {"file": text}
    if (Path(text) / "manifest.json").is_file():
        return {"run": text}
    if "[" not in text and "/" not in text:
        return {"set": text}
    choice = parse_model(text)
    return {"run": choice.name, **choice.options}


def write_run_text(prompts: Mapping[str, Parameter], models: Mapping[str, Sequence[ModelChoice]]) -> str:
    """The text of a run file with this [prompts] table and these models."""
    lines = ["[prompts]", *(f"{key} = {_toml_text(value)}" for key, value in prompts.items())]
    for table, choices in models.items():
        for choice in choices:
            values = {"name": choice.name, **choice.options}
            lines += ["", f"[[{table}]]", *(f"{key} = {_toml_text(value)}" for key, value in values.items())]
    return "\n".join(lines) + "\n"


def demo_config(photos: Path | None = None, captions: Path | None = None) -> RunConfig:
    """The embedded default, on the user's own photographs where they are given."""
    text = (Path(__file__).parent / "demo.toml").read_text(encoding="utf-8")
    given = {"photos": photos, "captions": captions}
    lines = [f"{key} = {_toml_text(str(path))}" for key, path in given.items() if path is not None]
    return parse_run_file(text.replace('set = "photographs"', "\n".join(['set = "photographs"', *lines])), "")
