"""The models of a run: loaded by name, checked against what they are to do, and written down in the manifest."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import generation, judging, runs
from .config import ModelChoice, RunConfig
from .errors import InputError
from .generators import load_generator
from .judges import JUDGES, load_judge
from .prompts import PromptSet
from .protocols import Generator, Judge, RewardModel
from .registry import imported
from .rewards import load_reward_model
from .scoring import unscored
from .types import ModelSpec

if TYPE_CHECKING:
    from .budget import Budget

__all__ = [
    "KINDS",
    "Models",
    "Resources",
    "blaming",
    "check_named",
    "check_prompts",
    "counts_votes",
    "equip",
    "finished",
    "limit_judges",
    "load_kept",
    "load_models",
    "load_reward_models",
    "register",
]

KINDS = ("generators", "reward_models", "judges")


@dataclass(frozen=True, slots=True)
class Models:
    """The models of a run by label."""

    generators: Mapping[str, Generator]
    reward_models: Mapping[str, RewardModel]
    judges: Mapping[str, Judge]


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What a run may take: `devices` over which generators with weights are spread (none: the device of each), and the
    `budget` of all models that are behind an API.
    """

    devices: tuple[str, ...] = ()
    budget: Budget | None = None


_LOADERS: Mapping[str, Callable[..., Any]] = {
    "generator": load_generator,
    "reward model": load_reward_model,
    "judge": load_judge,
}


@contextmanager
def blaming(choice: ModelChoice) -> Iterator[None]:
    """Begin an InputError with the place in the run file that it is about."""
    try:
        yield
    except InputError as error:
        raise type(error)(f"{choice.where(str(error))}{error}") from error


def _load_one(kind: str, choice: ModelChoice, **more: Any) -> Any:
    with blaming(choice):
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
            with blaming(choice):
                generator.limit(resources.budget)
    limit_judges(config, models, resources.budget)
    return replace(models, generators=generators)


def limit_judges(config: RunConfig, models: Models, budget: Budget | None) -> None:
    """Have the judges that are behind an endpoint ask `budget`; InputError where the price of one is not known."""
    for choice in config.judges if budget is not None else ():
        judge = models.judges[choice.label]
        if judging.is_endpoint(judge):
            with blaming(choice):
                judge.limit(budget)


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
            with blaming(choice):
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


def _keep(model: Any, spec: str) -> None:
    """Let a model stay at the commits with which its results were begun, whatever the Hub has by now."""
    keep_to = getattr(model, "keep_to", None)
    if keep_to is not None:
        keep_to(ModelSpec.parse(spec))


def load_kept(name: str, arguments: Mapping[str, Any], spec: str, *, device: str) -> Generator:
    """A generator for a process of its own."""
    generator = load_generator(name, **arguments, device=device)
    _keep(generator, spec)
    return generator


def register(run: Path, models: Models, kinds: Sequence[str] = KINDS) -> None:
    """Write the specs of `models` into the manifest; InputError where two of a kind are the same model."""
    for kind in kinds:
        labels: dict[str, str] = {}
        begun = runs.read_manifest(run).specs.get(kind, {})
        # Those that count the votes of others come last: they take over the specs of these.
        for label, model in sorted(getattr(models, kind).items(), key=lambda each: counts_votes(each[1])):
            if label in begun:
                _keep(model, begun[label])
            if counts_votes(model):
                _bind(run, label, model)
            twin = labels.setdefault(model.spec.key, label)
            others = (each for each, text in begun.items() if ModelSpec.parse(text).key == model.spec.key)
            # What was only tried under another label is in no table.
            twin = next((each for each in others if each != label and runs.has_results(run, kind, each)), twin)
            if twin != label:
                raise InputError(f"{label} is the same as {twin}: delete one")
            runs.register(run, kind, label, model.spec)


def counts_votes(model: Any) -> bool:
    """Whether it is a judge that takes other judges' verdicts together, and so comes after them."""
    return bool(getattr(type(model), "votes", False))


def _bind(run: Path, label: str, majority: Any) -> None:
    """Tell a majority what its judges are."""
    known = {each: ModelSpec.parse(text) for each, text in runs.read_manifest(run).specs.get("judges", {}).items()}
    known.pop(label, None)
    try:
        majority.bind(known)
    except InputError as error:
        raise InputError(f"judge {label!r}: {error}") from None


def finished(run: Path, config: RunConfig) -> bool:
    """Whether nothing is left to do, neither of the run file nor of what was added to the run later."""
    specs = runs.read_manifest(run).specs
    labels = {kind: [*specs.get(kind, {})] for kind in KINDS}
    if any(generation.unmade(run, label, config.seeds) for label in labels["generators"]):
        return False
    if unscored(run, labels["reward_models"]):
        return False
    return not any(judging.unjudged(run, label, _dimensions(text)) for label, text in specs.get("judges", {}).items())


def _dimensions(spec: str) -> tuple[str, ...]:
    """What a judge is asked; nothing where it is no judge of the table, such as people and those of other programs."""
    entry = JUDGES.get(ModelSpec.parse(spec).adapter)
    return () if entry is None else imported(entry).dimensions
