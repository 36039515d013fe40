"""A run as the command line drives it: load the models, say what a stage will cost, work it off."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from PIL.Image import Image

from . import expense, generation, pipeline, runs
from .config import ModelChoice, RunConfig, parse_model
from .engine import Failure, local
from .engine.processes import Spread
from .errors import BudgetSpentError, InputError
from .generation import Generation, Made
from .generators import load_generator
from .judges import load_judge
from .pipeline import Pair, Work
from .prompts import PromptSet, load_prompt_set, open_photograph, read_prompts
from .protocols import Generator, Judge, RewardModel
from .repeats import repeated_images
from .rewards import load_reward_model
from .run_inputs import prompts_of_run
from .scoring import opened, scoring, unscored
from .types import ModelSpec

if TYPE_CHECKING:
    from .budget import Budget

__all__ = [
    "Models",
    "Resources",
    "Stopped",
    "check_named",
    "check_prompts",
    "equip",
    "finished",
    "generate",
    "is_stopped",
    "judge",
    "load_models",
    "load_reward_models",
    "prompt_set_of",
    "register",
    "score",
    "start",
]

Say = Callable[[str], None]
Cause: TypeAlias = Literal["input", "model"]

KINDS = ("generators", "reward_models", "judges")


@dataclass(frozen=True, slots=True)
class Models:
    """The models of a run by label."""

    generators: Mapping[str, Generator]
    reward_models: Mapping[str, RewardModel]
    judges: Mapping[str, Judge]


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What generating may take: `devices` over which generators with weights are spread (none: the device of each),
    and the `budget` of all that are behind an API.
    """

    devices: tuple[str, ...] = ()
    budget: Budget | None = None


@dataclass(frozen=True, slots=True)
class Stopped(Failure):
    """The budget is spent: what remains is made by the next run."""


def is_stopped(failures: Sequence[Failure]) -> bool:
    """Whether the last of them says that the budget is spent."""
    return bool(failures) and isinstance(failures[-1], Stopped)


_LOADERS: Mapping[str, Callable[..., Any]] = {
    "generator": load_generator,
    "reward model": load_reward_model,
    "judge": load_judge,
}


@contextmanager
def _blaming(choice: ModelChoice) -> Iterator[None]:
    """Begin an InputError with the place in the run file that it is about."""
    try:
        yield
    except InputError as error:
        raise type(error)(f"{choice.where(str(error))}{error}") from error


def _load_one(kind: str, choice: ModelChoice, **more: Any) -> Any:
    with _blaming(choice):
        return _LOADERS[kind](choice.name, **{**choice.arguments, **more})


def _load(kind: str, choices: Sequence[ModelChoice]) -> dict[str, Any]:
    models: dict[str, Any] = {}
    for choice in choices:
        model = _load_one(kind, choice)
        if choice.label in models:
            raise InputError(
                f"{choice.where('')}{kind} {choice.label} is named twice: delete one, or give one of them another "
                "label=NAME"
            )
        models[choice.label] = model
    return models


def equip(config: RunConfig, models: Models, resources: Resources) -> Models:
    """`models` with generators that have weights on the first device, and those behind an API under the budget."""
    generators = dict(models.generators)
    for choice in config.generators:
        generator = generators[choice.label]
        if resources.devices and generation.is_neural(generator):
            generators[choice.label] = _load_one("generator", choice, device=resources.devices[0])
        if resources.budget is not None and generation.is_paid(generator):
            with _blaming(choice):
                generator.limit(resources.budget)
    return replace(models, generators=generators)


def load_reward_models(choices: Sequence[ModelChoice]) -> dict[str, RewardModel]:
    """Reward models by label; InputError for an unknown name, a missing extra, a wrong option, a label named twice."""
    return _load("reward model", choices)


def load_models(config: RunConfig, scored_by: Iterable[str] = ()) -> Models:
    """Every model of the run file; an unknown name, a missing extra or a wrong option is an InputError.

    `scored_by` names the reward models whose scores the run holds beside those of the run file.
    """
    models = Models(
        generators=_load("generator", config.generators),
        reward_models=_load("reward model", config.reward_models),
        judges=_load("judge", config.judges),
    )
    known = list(dict.fromkeys([*models.reward_models, *scored_by]))
    for choice, judge in zip(config.judges, models.judges.values(), strict=True):
        if judge.spec.adapter == "rule" and judge.spec.params["reward_model"] not in known:
            wanted = judge.spec.params["reward_model"]
            near = difflib.get_close_matches(str(wanted), known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise InputError(
                f"{choice.where('reward_model')}judge 'rule' needs the scores of {wanted!r}, which this run does not "
                f"ask for; it has: {', '.join(known) or 'no reward model'}{hint}"
            )
    return models


def prompt_set_of(config: RunConfig) -> PromptSet:
    """The prompts that the run file names."""
    choice = config.prompts
    if not config.generators:
        raise InputError(f"{config.source}: nothing to generate: add a table [[generators]] with a name")
    if not (choice.file or choice.run or choice.set):
        raise InputError(f"{config.source}: no prompts: add a table [prompts] with 'set', 'file' or 'run'")
    try:
        if choice.run is not None:
            return prompts_of_run(choice.run, generator=choice.generator, seed=choice.seed)
        if choice.file is not None:
            return PromptSet(name=choice.file.name, prompts=read_prompts(choice.file), photographs={})
        return load_prompt_set(choice.set, photos=choice.photos, captions=choice.captions)
    except InputError as error:
        raise type(error)(f"{choice.where(str(error))}{error}") from error


def check_prompts(config: RunConfig, models: Models, prompt_set: PromptSet) -> None:
    """InputError where a generator starts from images and the prompts have none, or cannot draw them at all."""
    for choice in config.generators:
        generator = models.generators[choice.label]
        if generator.needs_images and not prompt_set.photographs:
            raise InputError(
                f"generator {choice.label!r} starts from photographs and the prompts of {prompt_set.name!r} have none: "
                "use a prompt set with photographs, or a generator that starts from text"
            )
        if generation.is_neural(generator):
            with _blaming(choice):
                generator.check(prompt_set.prompts)


def check_named(run: Path, config: RunConfig, kind: str) -> None:
    """InputError where a stage is asked for by itself and no model of its `kind` is named."""
    if not getattr(config, kind):
        name = kind.removesuffix("s").replace("_", " ")
        # A run that has begun takes more models only from the run file in its own folder.
        table = f", or add a table [[{kind}]] to it" if run.is_dir() else ""
        raise InputError(
            f"{config.source} names no {name}: give --{name.replace(' ', '-')} NAME{table} "
            "(`widespectrum models` lists the names)"
        )


def start(run: Path, config: RunConfig, models: Models, prompt_set: PromptSet, kinds: Sequence[str] = KINDS) -> None:
    """Open or reopen the run folder and write down its models of `kinds`."""
    runs.open_run(run, config, datasets={prompt_set.name: prompt_set.revision}, prompts=prompt_set.prompts)
    register(run, models, kinds)


def _keep(model: Any, spec: str) -> None:
    """Let a model stay at the commits with which its results were begun, whatever the Hub has by now."""
    keep_to = getattr(model, "keep_to", None)
    if keep_to is not None:
        keep_to(ModelSpec.parse(spec))


def _load_kept(name: str, arguments: Mapping[str, Any], spec: str, *, device: str) -> Generator:
    """A generator for a process of its own."""
    generator = load_generator(name, **arguments, device=device)
    _keep(generator, spec)
    return generator


def register(run: Path, models: Models, kinds: Sequence[str] = KINDS) -> None:
    """Write the specs of `models` into the manifest; InputError where two of a kind are the same model."""
    for kind in kinds:
        labels: dict[str, str] = {}
        begun = runs.read_manifest(run).specs.get(kind, {})
        for label, model in getattr(models, kind).items():
            if label in begun:
                _keep(model, begun[label])
            twin = labels.setdefault(model.spec.key, label)
            if twin != label:
                raise InputError(f"{label} is the same as {twin}: delete one")
            runs.register(run, kind, label, model.spec)


def finished(run: Path, config: RunConfig, models: Models) -> bool:
    """Whether nothing is left to do, neither of the run file nor of what was added to the run later."""
    specs = runs.read_manifest(run).specs
    labels = {kind: [*specs.get(kind, {})] for kind in KINDS}
    if any(generation.unmade(run, label, config.seeds) for label in labels["generators"]):
        return False
    if unscored(run, labels["reward_models"]):
        return False
    added = tuple(parse_model(label) for label in labels["judges"] if label not in models.judges)
    judges = {**models.judges, **_load("judge", added)}
    return not any(pipeline.judging(run, label, judge).items for label, judge in judges.items())


def _work_off(stage: str, works: Sequence[Work], batch_size: int, say: Say) -> list[Failure]:
    """Work off every plan; what failed."""
    failures = []
    for work in works:
        description = f"{stage} {work.label}"
        found = local.run(work.make, work.items, batch_size=batch_size, description=description, prepare=work.prepare)
        failures += [
            replace(failure, reason=f"{stage} {failure.model or work.label}: {failure.reason}") for failure in found
        ]
        for reason, count in work.abstained.most_common():
            say(f"  {work.label} abstained {count} times: {reason}")
    return failures


def generate(
    run: Path,
    config: RunConfig,
    models: Models,
    prompt_set: PromptSet,
    say: Say,
    resources: Resources = Resources(),
) -> list[Failure]:
    """Make the missing images of every generator; what failed, and last a `Stopped` where the budget was spent."""
    works = _lacking(run, config, models, prompt_set)
    for line in (prompt_set.notice, *expense.lines(works)):
        if line:
            say(line)
    failures: list[Failure] = []
    spent, left = "", 0
    for work in works:
        is_paid = generation.is_paid(work.generator)
        if is_paid and spent:
            left += len(work.missing)
            continue
        made = _make(work, config, resources.devices)
        not_made = len(work.missing) - made.images - made.refused
        say(expense.summary(work.label, made, not_made))
        failures += [replace(failure, reason=_blamed(work, failure.reason)) for failure in made.failures]
        if isinstance(made.trouble, BudgetSpentError):
            spent = str(made.trouble).partition(": ")[0]
        elif made.trouble is not None:
            cause: Cause = "input" if isinstance(made.trouble, InputError) else "model"
            failures.append(Failure(_blamed(work, str(made.trouble)), cause))
        left += is_paid * not_made
    for line in repeated_images(run, dict(runs.read_manifest(run).specs["generators"])) if works else ():
        say(f"  note: {line}")
    return [*failures, Stopped(f"{spent}; {left:,} images remain", "model")] if spent else failures


def _blamed(work: Generation, reason: str) -> str:
    """The reason of a failure, which may begin with the name of its generator, after the label of the generator."""
    return f"generate {work.label}: {reason.removeprefix(f'{work.generator.spec.name}: ')}"


def _lacking(run: Path, config: RunConfig, models: Models, prompt_set: PromptSet) -> list[Generation]:
    """The generators that still have something to make; those that start from images get them."""
    opened = lru_cache(maxsize=32)(open_photograph)

    def open_input(pair_id: str) -> Image:
        return opened(prompt_set.photographs[pair_id])

    works = []
    for label, generator in models.generators.items():
        source = open_input if generator.needs_images else None
        works.append(generation.planned(run, label, generator, seeds=config.seeds, open_input=source))
    return [work for work in works if work.missing]


def _make(work: Generation, config: RunConfig, devices: Sequence[str]) -> Made:
    """Make what one generator lacks, and let go of its weights."""
    spread = None
    if len(devices) > 1:
        choice = next(choice for choice in config.generators if choice.label == work.label)
        arguments = {key: value for key, value in choice.arguments.items() if key != "device"}
        spec = str(work.generator.spec)
        spread = Spread(partial(_load_kept, choice.name, arguments, spec), devices)
    try:
        return generation.make(work, group=config.batch_size, description=f"generate {work.label}", spread=spread)
    finally:
        # The next one may need all of the memory.
        getattr(work.generator, "close", lambda: None)()


def _calls(model: RewardModel, pairs: Sequence[Pair]) -> int:
    """The requests to an API that scoring these pairs takes, at most."""
    requests = getattr(model, "requests", None)
    return requests(2 * len(pairs), 4 * len(pairs)) if requests else 0


def score(run: Path, config: RunConfig, models: Models, say: Say) -> list[Failure]:
    """Score the pairs with every reward model; what failed."""
    lacking = {label for _, labels in unscored(run, list(models.reward_models)).values() for label in labels}
    usable, failures = opened({label: model for label, model in models.reward_models.items() if label in lacking})
    work = scoring(run, usable)
    calls = sum(
        _calls(model, [pair for pair, labels in work.items if label in labels]) for label, model in usable.items()
    )
    say(f"score: {work.rows:,} scores of {len(work.items):,} image pairs, {calls:,} API calls")
    failures = [replace(failure, reason=f"score {failure.model}: {failure.reason}") for failure in failures]
    return failures + _work_off("score", [work], config.batch_size, say)


def judge(run: Path, config: RunConfig, models: Models, say: Say) -> list[Failure]:
    """Put the questions to every judge; what failed."""
    works = [pipeline.judging(run, name, model) for name, model in models.judges.items()]
    say(f"judge: {sum(work.rows for work in works):,} questions, 0 API calls")
    return _work_off("judge", works, config.batch_size, say)
