"""The prompts and image pairs of a run, and the judge stage; `generation` and `scoring` come before it.

The stages after generation are planned as a `Work`, which an engine then works off in batches.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from PIL.Image import Image

from . import store
from .engine import Failure
from .errors import ModelError, RunFolderError
from .images import ImageReader
from .protocols import Abstention, Answer, Judge, Question
from .types import AbstentionRecord, Order, Prompt, Role, Verdict

__all__ = ["ROLES", "Pair", "Work", "image_pairs", "judging", "read_prompts"]

ROLES: tuple[Role, Role] = ("original", "wide_spectrum")
ORDERS: tuple[Order, Order] = ("first", "second")

Rewards: TypeAlias = dict[tuple[str, str, Role], dict[str, float]]
"""(image_id, prompt_id, image role) → reward model → score. Identical images differ in their role."""


@dataclass(frozen=True, slots=True)
class Work:
    """What one model still has to do: `make` takes a batch of `items` and stores the rows that come of it.

    `rows` counts what will be asked of the model; `abstained` counts a judge's abstentions by reason as they come. With
    `prepare`, `make` gets what that makes of each item ahead of time, in threads.
    """

    label: str
    items: Sequence[Any]
    rows: int
    make: Callable[[Sequence[Any]], Sequence[Failure] | None]
    abstained: Counter[str] = field(default_factory=Counter)
    prepare: Callable[[Any], Any] | None = None


@dataclass(frozen=True, slots=True)
class Pair:
    """I_o and I_a of one prompt pair by one generator and seed."""

    generator: str
    seed: int
    prompts: Mapping[Role, Prompt]
    image_ids: Mapping[Role, str]

    @property
    def pair_id(self) -> str:
        """The id that both prompts carry."""
        return self.prompts["original"].pair_id


def read_prompts(run: Path) -> list[Prompt]:
    """The prompts of a run, in the order of its prompt set."""
    rows = store.read(run, "prompts").to_pylist()
    lists = ("dimensions", "effects")
    return [Prompt(**{**row, **{name: tuple(row[name]) for name in lists}}) for row in rows]


def _expect(condition: bool, message: str) -> None:
    if not condition:
        raise ModelError(message)


def image_pairs(run: Path) -> list[Pair]:
    """Every pair of which both images were made, in a fixed order."""
    prompts = {prompt.prompt_id: prompt for prompt in read_prompts(run)}
    found: dict[tuple[str, int, str], dict[Role, tuple[Prompt, str]]] = {}
    columns = ("prompt_id", "generator", "seed", "status", "image_id")
    for row in store.read(run, "images", columns).to_pylist():
        if row["status"] == "ok":
            if row["prompt_id"] not in prompts:
                raise RunFolderError(
                    f"{run} lacks prompts of its images: run `widespectrum run {run}`, which restores them"
                )
            prompt = prompts[row["prompt_id"]]
            key = (row["generator"], row["seed"], prompt.pair_id)
            found.setdefault(key, {})[prompt.role] = (prompt, row["image_id"])
    return [
        Pair(
            generator=generator,
            seed=seed,
            prompts={role: prompt for role, (prompt, _) in both.items()},
            image_ids={role: image_id for role, (_, image_id) in both.items()},
        )
        for (generator, seed, _), both in sorted(found.items())
        if len(both) == len(ROLES)
    ]


@dataclass(frozen=True, slots=True)
class _Ask:
    """One thing to ask a judge: an image against its rival, or an image alone."""

    prompt: Prompt
    image_id: str
    rival_id: str
    dimension: str

    def key(self, label: str, order: Order = "both") -> tuple[str, ...]:
        return (self.prompt.prompt_id, self.image_id, self.rival_id, self.dimension, label, order)


def _asks(pairs: Iterable[Pair], dimensions: Sequence[str]) -> Iterator[_Ask]:
    for pair in pairs:
        prompt, image_id, rival_id = pair.prompts["wide_spectrum"], *(pair.image_ids[role] for role in reversed(ROLES))
        for dimension in dimensions:
            if dimension == "overall":
                yield _Ask(prompt, image_id, rival_id, dimension)
            else:
                yield _Ask(prompt, image_id, "", dimension)
                yield _Ask(prompt, rival_id, "", dimension)


def judging(run: Path, label: str, judge: Judge) -> Work:
    """The verdicts that one judge still owes, in both orders, and its ratings of the dimensions of both images."""
    asks = {ask.key(label): ask for ask in _asks(image_pairs(run), judge.dimensions)}
    passed = {(*key, "both") for key in store.keys(run, "abstentions")}
    todo = [asks[key] for key in store.missing(run, "verdicts", asks) if key not in passed]
    reader, rewards, abstained = ImageReader(run), _rewards(run), Counter[str]()

    def make(batch: Sequence[_Ask]) -> None:
        images = reader.read(image_id for ask in batch for image_id in (ask.image_id, ask.rival_id) if image_id)
        questions = [(ask, question) for ask in batch for question in _questions(ask, images, rewards)]
        answers = judge.judge([question for _, question in questions])
        _expect(len(answers) == len(questions), f"{label} gave {len(answers)} answers to {len(questions)} questions")
        given: dict[_Ask, dict[Order, Answer]] = {}
        without: dict[_Ask, str] = {}
        for (ask, question), answer in zip(questions, answers, strict=True):
            if isinstance(answer, Abstention):
                without.setdefault(ask, answer.reason)
            else:
                _expect(*_outcome_check(label, ask, answer))
                given.setdefault(ask, {})[question.order] = answer
        rows = [row for ask, by_order in given.items() if ask not in without for row in _verdicts(ask, label, by_order)]
        store.append(run, "verdicts", rows)
        store.append(run, "abstentions", [_abstention(ask, label, reason) for ask, reason in without.items()])
        abstained.update(without.values())

    return Work(label, todo, sum(2 if ask.rival_id else 1 for ask in todo), make, abstained)


def _outcome_check(label: str, ask: _Ask, answer: Answer) -> tuple[bool, str]:
    if ask.rival_id:
        return answer.outcome in (0, 0.5, 1), f"{label} gave the outcome {answer.outcome}; expected 0, 0.5 or 1"
    return 0 <= answer.outcome <= 1, f"{label} gave the rating {answer.outcome}; expected 0 to 1"


def _abstention(ask: _Ask, label: str, reason: str) -> AbstentionRecord:
    return AbstentionRecord(
        prompt_id=ask.prompt.prompt_id,
        image_id=ask.image_id,
        rival_id=ask.rival_id,
        dimension=ask.dimension,
        judge=label,
        reason=reason,
    )


def _rewards(run: Path) -> Rewards:
    found: Rewards = {}
    table = store.read(run, "scores", ("image_id", "prompt_id", "image_role", "reward_model", "value"))
    for image_id, prompt_id, role, model, value in zip(*(column.to_pylist() for column in table.columns), strict=True):
        found.setdefault((image_id, prompt_id, role), {})[model] = value
    return found


def _questions(ask: _Ask, images: Mapping[str, Image], rewards: Rewards) -> Iterator[Question]:
    prompt, image = ask.prompt, images[ask.image_id]
    if not ask.rival_id:
        yield Question(prompt=prompt, image=image, dimension=ask.dimension)
        return
    own = rewards.get((ask.image_id, prompt.prompt_id, "wide_spectrum"), {})
    others = rewards.get((ask.rival_id, prompt.prompt_id, "original"), {})
    both = {model: (own[model], others[model]) for model in own if model in others}
    for order in ORDERS:
        rival = images[ask.rival_id]
        yield Question(prompt=prompt, image=image, rival=rival, dimension=ask.dimension, order=order, rewards=both)


def _verdicts(ask: _Ask, label: str, answers: Mapping[Order, Answer]) -> Iterator[Verdict]:
    """The rows of one ask: with a rival one per order and their aggregate, where disagreement is a tie."""
    if ask.rival_id:
        agreed = answers["first"].outcome == answers["second"].outcome
        rationale = answers["first"].rationale if agreed else "the two orders disagree"
        answers = {**answers, "both": Answer(answers["first"].outcome if agreed else 0.5, rationale)}
    for order, answer in answers.items():
        yield Verdict(
            prompt_id=ask.prompt.prompt_id,
            image_id=ask.image_id,
            rival_id=ask.rival_id,
            dimension=ask.dimension,
            judge=label,
            outcome=answer.outcome,
            order=order,
            rationale=answer.rationale,
        )
