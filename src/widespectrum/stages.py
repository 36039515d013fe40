"""A run as the command line drives it: load the models, say what a stage will cost, work it off."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL.Image import Image

from . import pipeline, runs
from .config import ModelChoice, RunConfig, parse_model
from .engine import Failure, local
from .errors import InputError
from .generators import load_generator
from .judges import load_judge
from .pipeline import Pair, Work
from .prompts import PromptSet, load_prompt_set, open_photograph, read_prompts
from .protocols import Generator, Judge, RewardModel
from .rewards import load_reward_model
from .scoring import opened, scoring, unscored

__all__ = [
    "Models",
    "check_images",
    "check_named",
    "finished",
    "generate",
    "judge",
    "load_models",
    "load_reward_models",
    "prompt_set_of",
    "register",
    "score",
    "start",
]

Say = Callable[[str], None]

KINDS = ("generators", "reward_models", "judges")


@dataclass(frozen=True, slots=True)
class Models:
    """The models of a run by label."""

    generators: Mapping[str, Generator]
    reward_models: Mapping[str, RewardModel]
    judges: Mapping[str, Judge]


_LOADERS: Mapping[str, Callable[..., Any]] = {
    "generator": load_generator,
    "reward model": load_reward_model,
    "judge": load_judge,
}


def _load(kind: str, choices: Sequence[ModelChoice]) -> dict[str, Any]:
    models: dict[str, Any] = {}
    for choice in choices:
        try:
            model = _LOADERS[kind](choice.name, **choice.arguments)
        except InputError as error:
            raise type(error)(f"{choice.where(str(error))}{error}") from error
        if choice.label in models:
            raise InputError(
                f"{choice.where('')}{kind} {choice.label} is named twice: delete one, or give one of them another "
                "label=NAME"
            )
        models[choice.label] = model
    return models


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
    if choice.file is None and not choice.set:
        raise InputError(f"{config.source}: no prompts: add a table [prompts] with 'set' or 'file'")
    try:
        if choice.file is not None:
            return PromptSet(name=choice.file.name, prompts=read_prompts(choice.file), photographs={})
        return load_prompt_set(choice.set, photos=choice.photos, captions=choice.captions)
    except InputError as error:
        raise type(error)(f"{choice.where(str(error))}{error}") from error


def check_images(models: Models, prompt_set: PromptSet) -> None:
    """InputError where a generator starts from photographs and the prompts have none."""
    for name, generator in models.generators.items():
        if generator.needs_images and not prompt_set.photographs:
            raise InputError(
                f"generator {name!r} starts from photographs and the prompts of {prompt_set.name!r} have none: use a "
                "prompt set with photographs, or a generator that starts from text"
            )


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


def register(run: Path, models: Models, kinds: Sequence[str] = KINDS) -> None:
    """Write the specs of `models` into the manifest; InputError where two of a kind are the same model."""
    for kind in kinds:
        labels: dict[str, str] = {}
        for label, model in getattr(models, kind).items():
            twin = labels.setdefault(model.spec.key, label)
            if twin != label:
                raise InputError(f"{label} is the same as {twin}: delete one")
            runs.register(run, kind, label, model.spec)


def finished(run: Path, config: RunConfig, models: Models) -> bool:
    """Whether nothing is left to do, neither of the run file nor of what was added to the run later."""
    specs = runs.read_manifest(run).specs
    labels = {kind: [*specs.get(kind, {})] for kind in KINDS}
    if any(pipeline.unmade(run, label, config.seeds) for label in labels["generators"]):
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


def generate(run: Path, config: RunConfig, models: Models, prompt_set: PromptSet, say: Say) -> list[Failure]:
    """Make the missing images of every generator; what failed."""
    opened = lru_cache(maxsize=32)(open_photograph)

    def open_input(pair_id: str) -> Image:
        return opened(prompt_set.photographs[pair_id])

    source = open_input if prompt_set.photographs else None
    works = [
        pipeline.generation(run, name, generator, seeds=config.seeds, open_input=source)
        for name, generator in models.generators.items()
    ]
    sides = [int(generator.spec.params.get("size", 1024)) for generator in models.generators.values()]
    # A PNG of a photograph takes about two bytes a pixel.
    gigabytes = sum(work.rows * side * side * 2 / 1e9 for work, side in zip(works, sides, strict=True))
    size = f"{gigabytes:,.1f} GB" if gigabytes >= 1 else f"{1000 * gigabytes:.0f} MB"
    say(f"generate: {sum(work.rows for work in works):,} images, 0 API calls, up to {size}")
    return _work_off("generate", works, config.batch_size, say)


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
