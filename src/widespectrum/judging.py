"""Image pairs → verdicts: what a judge still has to answer in a run, how it is asked, and how answers are stored."""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from pathlib import Path
from threading import Lock
from typing import Any, TypeAlias, TypeGuard

import pyarrow.compute as pc
from PIL.Image import Image
from tqdm import tqdm

from . import store
from .engine.ahead import prepared_ahead
from .errors import BudgetSpentError, HubError, InputError, ModelError, WideSpectrumError
from .images import ImageReader
from .pipeline import ROLES, Pair, image_pairs
from .protocols import Abstention, Answer, EndpointJudge, Failure, Judge, Question
from .types import AbstentionRecord, Order, Prompt, Role, Verdict, canonical_json

__all__ = ["Ask", "Judged", "Judging", "is_endpoint", "judge_all", "planned", "unjudged"]

ORDERS: tuple[Order, Order] = ("first", "second")

_SECONDS = 2.0
"""How often answers are stored, each time in a file of its own; until then the journal of an endpoint holds them."""

_GROUPS_AHEAD = 8
_IMAGES_IN_MEMORY = 64

Reply: TypeAlias = Answer | Abstention | Failure


@dataclass(frozen=True, slots=True, eq=False)
class Ask:
    """One thing to ask a judge: an image against its rival, or an image alone."""

    pair: Pair
    image_id: str
    rival_id: str
    dimension: str

    @property
    def prompt(self) -> Prompt:
        """p_a, under which everything is asked."""
        return self.pair.prompts["wide_spectrum"]

    def key(self, label: str, order: Order = "both") -> tuple[str, ...]:
        """The key of a verdict."""
        return (self.prompt.prompt_id, self.image_id, self.rival_id, self.dimension, label, order)


@dataclass(frozen=True)
class Judging:
    """What one judge still has to answer in a run."""

    run: Path
    label: str
    judge: Judge
    asks: Sequence[Ask]

    @cached_property
    def orders(self) -> tuple[Order, ...]:
        """How a pair is shown: in both orders; one that counts votes is also asked for the aggregate."""
        return (*ORDERS, "both") if getattr(type(self.judge), "votes", False) else ORDERS

    @property
    def questions(self) -> int:
        """How many questions that makes."""
        return sum(len(self.orders) if ask.rival_id else 1 for ask in self.asks)


@dataclass(slots=True)
class Judged:
    """What came of it: `abstained` counts by reason, `left` is what has no answer, `trouble` why it ended early."""

    answered: int = 0
    abstained: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)
    left: int = 0
    seconds: float = 0.0
    trouble: WideSpectrumError | None = None


def is_endpoint(judge: Judge) -> TypeGuard[EndpointJudge]:
    """Whether it is behind an endpoint."""
    return callable(getattr(type(judge), "estimate", None))


def _asks(pairs: Iterable[Pair], dimensions: Sequence[str]) -> Iterator[Ask]:
    """Everything to ask about each pair, all about one image side by side."""
    alone = [dimension for dimension in dimensions if dimension != "overall"]
    for pair in pairs:
        image_id, rival_id = (pair.image_ids[role] for role in reversed(ROLES))
        if "overall" in dimensions:
            yield Ask(pair, image_id, rival_id, "overall")
        for each in dict.fromkeys((image_id, rival_id)):
            yield from (Ask(pair, each, "", dimension) for dimension in alone)


def unjudged(run: Path, label: str, dimensions: Sequence[str]) -> list[Ask]:
    """What a judge has neither answered nor declined to answer."""
    # Pairs that share an image stand side by side, so that it is read and encoded once.
    pairs = sorted(image_pairs(run), key=lambda pair: (pair.pair_id, pair.image_ids["original"], pair.generator))
    asks = {ask.key(label): ask for ask in _asks(pairs, dimensions)}
    passed = {(*key, "both") for key in store.keys(run, "abstentions")}
    return [asks[key] for key in store.missing(run, "verdicts", asks) if key not in passed]


def planned(run: Path, label: str, judge: Judge) -> Judging:
    """What `judge` still has to answer in `run`."""
    return Judging(run, label, judge, unjudged(run, label, judge.dimensions))


def judge_all(work: Judging, *, batch_size: int, description: str) -> Judged:
    """Ask everything and store the answers as they come; what fails is listed and left for the next run.

    Whatever ends it, Ctrl-C included, what was answered is stored.
    """
    judged, started = Judged(), time.monotonic()
    total = len(work.asks)
    with tqdm(total=total, desc=description, unit=" asks", delay=2, leave=False, dynamic_ncols=True) as progress:
        shelf = _Shelf(work, judged, progress)
        try:
            if is_endpoint(work.judge):
                _stream(work, work.judge, shelf)
            else:
                _in_batches(work, shelf, batch_size)
        except (BudgetSpentError, HubError, InputError, ModelError) as error:
            judged.trouble = error.with_traceback(None)
        finally:
            shelf.put_away()
    judged.seconds = time.monotonic() - started
    judged.left = total - judged.answered - judged.abstained.total()
    judged.failures = shelf.failures
    return judged


def _stream(work: Judging, judge: EndpointJudge, shelf: _Shelf) -> None:
    judge.open()
    desk = _Desk(work)
    groups = [list(group) for _, group in groupby(work.asks, key=lambda ask: id(ask.pair))]
    batches = (groups[start : start + _GROUPS_AHEAD] for start in range(0, len(groups), _GROUPS_AHEAD))

    def questions() -> Iterator[tuple[tuple[Ask, Order], Question]]:
        for _, made in prepared_ahead(desk.questions, batches):
            for group in made:
                yield from group

    for (ask, order), answer in judge.ask(questions()):
        shelf.take(ask, order, answer)
        shelf.put_away(every=_SECONDS)


def _in_batches(work: Judging, shelf: _Shelf, batch_size: int) -> None:
    desk = _Desk(work)
    batches = [work.asks[start : start + batch_size] for start in range(0, len(work.asks), batch_size)]
    for batch, made in prepared_ahead(lambda ask: desk.questions([ask]), batches):
        asked = [each for group in made for each in group]
        try:
            answers = work.judge.judge([question for _, question in asked])
            if len(answers) != len(asked):
                raise ModelError(f"{work.label} gave {len(answers)} answers to {len(asked)} questions")
        except ModelError as error:
            shelf.fail(batch, Failure(str(error), "model"))
            continue
        for ((ask, order), _), answer in zip(asked, answers, strict=True):
            shelf.take(ask, order, answer)
        shelf.put_away(every=_SECONDS)


class _Images:
    """The images of a run by id, decoded once while they are wanted side by side; for several threads."""

    def __init__(self, run: Path) -> None:
        self._reader, self._lock = ImageReader(run), Lock()
        self._found: OrderedDict[str, Future[Image]] = OrderedDict()

    def get(self, image_id: str) -> Image:
        with self._lock:
            is_new = image_id not in self._found
            future = self._found.setdefault(image_id, Future())
            self._found.move_to_end(image_id)
            if len(self._found) > _IMAGES_IN_MEMORY:
                self._found.popitem(last=False)
        if is_new:
            try:
                future.set_result(self._reader.read([image_id])[image_id])
            except BaseException as error:
                future.set_exception(error)
        return future.result()


class _Desk:
    """Makes questions of asks: reads the images, and what others said about them."""

    def __init__(self, work: Judging) -> None:
        self._work, self._images = work, _Images(work.run)
        self._rewards, self._verdicts = _rewards(work.run), _said(work.run)

    def questions(self, asks: Sequence[Ask]) -> list[tuple[tuple[Ask, Order], Question]]:
        return [
            ((ask, order), self._question(ask, order))
            for ask in asks
            for order in (self._work.orders if ask.rival_id else ("both",))
        ]

    def _question(self, ask: Ask, order: Order) -> Question:
        image, original = self._images.get(ask.image_id), ask.pair.prompts["original"]
        if not ask.rival_id:
            return Question(prompt=ask.prompt, image=image, dimension=ask.dimension, original=original)
        own = self._rewards.get((ask.image_id, ask.prompt.prompt_id, "wide_spectrum"), {})
        others = self._rewards.get((ask.rival_id, ask.prompt.prompt_id, "original"), {})
        return Question(
            prompt=ask.prompt,
            image=image,
            rival=self._images.get(ask.rival_id),
            dimension=ask.dimension,
            order=order,
            original=original,
            rewards={model: (own[model], others[model]) for model in own if model in others},
            verdicts=self._verdicts.get((ask.prompt.prompt_id, ask.image_id, ask.rival_id, order), {}),
        )


def _rewards(run: Path) -> dict[tuple[str, str, Role], dict[str, float]]:
    """(image_id, prompt_id, image role) → reward model → score. Identical images differ in their role."""
    found: dict[tuple[str, str, Role], dict[str, float]] = {}
    table = store.read(run, "scores", ("image_id", "prompt_id", "image_role", "reward_model", "value"))
    for image_id, prompt_id, role, model, value in zip(*(column.to_pylist() for column in table.columns), strict=True):
        found.setdefault((image_id, prompt_id, role), {})[model] = value
    return found


def _said(run: Path) -> dict[tuple[str, str, str, Order], dict[str, float | None]]:
    """(prompt_id, image_id, rival_id, order) → judge → verdict, None where it abstained."""
    found: dict[tuple[str, str, str, Order], dict[str, float | None]] = {}
    names = ("prompt_id", "image_id", "rival_id", "dimension", "judge")
    for table, more in (("abstentions", ()), ("verdicts", ("order", "outcome"))):
        rows = store.read(run, table, (*names, *more))
        for row in rows.filter(pc.equal(rows["dimension"], "overall")).to_pylist():
            for order in [row["order"]] if more else (*ORDERS, "both"):
                key = (row["prompt_id"], row["image_id"], row["rival_id"], order)
                found.setdefault(key, {})[row["judge"]] = row.get("outcome")
    return found


class _Shelf:
    """Gathers the answers of each ask, and stores what is whole."""

    def __init__(self, work: Judging, judged: Judged, progress: Any) -> None:
        self._work, self._judged, self._progress = work, judged, progress
        self._begun: dict[Ask, dict[Order, Reply]] = {}
        self._verdicts: list[Verdict] = []
        self._abstentions: list[AbstentionRecord] = []
        self._failed: dict[Failure, list[Ask]] = {}
        self._stored = time.monotonic()

    @property
    def failures(self) -> list[Failure]:
        """What failed, with what it concerns; the same reason once."""
        total = len(self._work.asks)
        found = []
        for failure, asks in self._failed.items():
            first = f"pair {asks[0].pair.pair_id} of {asks[0].pair.generator}"
            what = first if len(asks) == 1 else f"{len(asks):,} of {total:,} not answered, the first {first}"
            found.append(Failure(f"{what}: {failure.reason}", failure.cause))
        return found

    def fail(self, asks: Sequence[Ask], failure: Failure) -> None:
        self._failed.setdefault(failure, []).extend(asks)
        self._progress.update(len(asks))

    def take(self, ask: Ask, order: Order, answer: Reply) -> None:
        """Keep one answer; once those in every order are there, the ask is settled."""
        given = self._begun.setdefault(ask, {})
        given[order] = answer
        if len(given) < (len(self._work.orders) if ask.rival_id else 1):
            return
        del self._begun[ask]
        label = self._work.label
        wrong = next((each for each in (_wrong(label, ask, each) for each in given.values()) if each), None)
        if wrong is not None:
            self.fail([ask], wrong)
            return
        self._settle(ask, given)
        self._progress.update()

    def _settle(self, ask: Ask, given: Mapping[Order, Reply]) -> None:
        label = self._work.label
        declined = next((each for each in given.values() if isinstance(each, Abstention)), None)
        if declined is not None:
            names = {"prompt_id": ask.prompt.prompt_id, "image_id": ask.image_id, "rival_id": ask.rival_id}
            self._abstentions.append(
                AbstentionRecord(
                    **names, dimension=ask.dimension, judge=label, reason=declined.reason, raw=declined.raw
                )
            )
            return
        self._verdicts += _verdicts(ask, label, {o: each for o, each in given.items() if isinstance(each, Answer)})

    def put_away(self, every: float = 0.0) -> None:
        """Store what is settled, where the last time was `every` seconds ago."""
        if time.monotonic() - self._stored < every:
            return
        # Emptied first: after a Ctrl-C in between it is asked again, or found in the journal, but never stored twice.
        verdicts, self._verdicts = self._verdicts, []
        abstentions, self._abstentions = self._abstentions, []
        store.append(self._work.run, "verdicts", verdicts)
        store.append(self._work.run, "abstentions", abstentions)
        self._judged.answered += len({(v.prompt_id, v.image_id, v.rival_id, v.dimension) for v in verdicts})
        self._judged.abstained.update(each.reason for each in abstentions)
        self._stored = time.monotonic()


def _wrong(label: str, ask: Ask, reply: Reply) -> Failure | None:
    """Why a reply is none: it failed, or its outcome cannot be."""
    if isinstance(reply, Failure):
        return reply
    if isinstance(reply, Answer) and ask.rival_id and reply.outcome not in (0, 0.5, 1):
        return Failure(f"{label} gave the outcome {reply.outcome}; expected 0, 0.5 or 1", "model")
    if isinstance(reply, Answer) and not 0 <= reply.outcome <= 1:
        return Failure(f"{label} gave the rating {reply.outcome}; expected 0 to 1", "model")
    return None


def _verdicts(ask: Ask, label: str, answers: Mapping[Order, Answer]) -> Iterator[Verdict]:
    """The rows of one ask: with a rival one per order and their aggregate, where disagreement is a tie."""
    if ask.rival_id and "both" not in answers:
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
            outcome=float(answer.outcome),
            order=order,
            rationale=answer.rationale,
            raw=answer.raw,
            details=canonical_json(dict(answer.details)) if answer.details else "",
            confidence=answer.confidence,
        )
