"""A run as the command line drives it: load the models, say what a stage will cost, work it off."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Literal, TypeAlias

from PIL.Image import Image

from . import expense, generation, judging, runs, store
from .config import RunConfig
from .engine import Failure, local
from .engine.processes import Spread
from .errors import BudgetSpentError, InputError
from .generation import Generation, Made
from .judging import Judging
from .pipeline import Pair, Work
from .prompts import PromptSet, load_prompt_set, open_photograph, read_prompts
from .protocols import RewardModel
from .repeats import repeated_images
from .run_inputs import prompts_of_run
from .run_models import KINDS, Models, Resources, counts_votes, load_kept, register
from .scoring import opened, scoring, unscored

__all__ = ["Stopped", "generate", "is_stopped", "judge", "prompt_set_of", "score", "start"]

Say = Callable[[str], None]
Cause: TypeAlias = Literal["input", "model"]


@dataclass(frozen=True, slots=True)
class Stopped(Failure):
    """The budget is spent: what remains is made by the next run."""


def is_stopped(failures: Sequence[Failure]) -> bool:
    """Whether the last of them says that the budget is spent."""
    return bool(failures) and isinstance(failures[-1], Stopped)


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


def start(run: Path, config: RunConfig, models: Models, prompt_set: PromptSet, kinds: Sequence[str] = KINDS) -> None:
    """Open or reopen the run folder and write down its models of `kinds`."""
    runs.open_run(run, config, datasets={prompt_set.name: prompt_set.revision}, prompts=prompt_set.prompts)
    # Those of an earlier form of the run file that gave nothing are not waited for.
    for kind in {"judges", "reward_models"}.intersection(kinds):
        table = runs.read_manifest(run).specs.get(kind, {})
        runs.withdraw(run, kind, table.keys() - getattr(models, kind).keys())
    register(run, models, kinds)


def _work_off(stage: str, works: Sequence[Work], batch_size: int, say: Say) -> list[Failure]:
    """Work off every plan; what failed."""
    failures = []
    for work in works:
        description = f"{stage} {work.label}"
        found = local.run(work.make, work.items, batch_size=batch_size, description=description, prepare=work.prepare)
        failures += [
            replace(failure, reason=f"{stage} {failure.model or work.label}: {failure.reason}") for failure in found
        ]
    return failures


def generate(
    run: Path,
    config: RunConfig,
    models: Models,
    prompt_set: PromptSet,
    say: Say,
    resources: Resources | None = None,
) -> list[Failure]:
    """Make the missing images of every generator; what failed, and last a `Stopped` where the budget was spent."""
    resources = resources or Resources()
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
        spread = Spread(partial(load_kept, choice.name, arguments, spec), devices)
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
    """Put the questions to every judge; what failed, and last a `Stopped` where the budget was spent."""
    ordered = sorted(models.judges.items(), key=lambda each: counts_votes(each[1]))
    works = [judging.planned(run, label, each) for label, each in ordered]
    for line in expense.judge_lines(run, works):
        say(line)
    failures: list[Failure] = []
    spent, left = "", 0
    for work in works:
        waits = judging.is_endpoint(work.judge) or counts_votes(work.judge)
        if not work.asks or (spent and waits):
            left += len(work.asks)
            continue
        judged = _judge_one(run, work, config.batch_size)
        for line in expense.judge_summary(run, work, judged):
            say(line)
        failures += [replace(each, reason=f"judge {work.label}: {each.reason}") for each in judged.failures]
        if isinstance(judged.trouble, BudgetSpentError):
            spent, left = str(judged.trouble).partition(": ")[0], left + judged.left
        elif judged.trouble is not None:
            cause: Cause = "input" if isinstance(judged.trouble, InputError) else "model"
            failures.append(Failure(f"judge {work.label}: {judged.trouble}", cause))
    return [*failures, Stopped(f"{spent}; {left:,} answers remain", "model")] if spent else failures


def _judge_one(run: Path, work: Judging, batch_size: int) -> judging.Judged:
    """Have one judge answer what it owes, and let go of its weights, connections and journal."""
    if judging.is_endpoint(work.judge):
        work.judge.keep(store.journal(run, work.label))
    try:
        return judging.judge_all(work, batch_size=batch_size, description=f"judge {work.label}")
    finally:
        getattr(work.judge, "close", lambda: None)()
