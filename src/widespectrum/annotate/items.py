"""What raters are shown: which pairs, who gets which of them, in which order, and the checks in between.

Everything follows from the seed, the rater's code and the ids of the images, so that it can be computed again.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from widespectrum.errors import InputError, RunFolderError
from widespectrum.pipeline import Pair, image_pairs
from widespectrum.specs import digest

__all__ = [
    "ORDERS",
    "OUTCOMES",
    "Choice",
    "Item",
    "Key",
    "Kind",
    "deal",
    "key_of",
    "pairs_of",
    "plan",
    "sample",
    "serve",
]

Choice: TypeAlias = Literal["first", "second", "tie"]
Kind: TypeAlias = Literal["pair", "other", "same"]
Key: TypeAlias = tuple[str, str, str]
"""What makes a question: the ids of p_a, of I_a and of I_o."""

ORDERS: tuple[Literal["first"], Literal["second"]] = ("first", "second")
OUTCOMES = {"other": 1.0, "same": 0.5}
"""The known answers of attention checks: the image of the prompt wins against another's; an image ties with itself."""


@dataclass(frozen=True, slots=True)
class Item:
    """One page: an image and its rival under a prompt.

    `kind` is pair, or that of an attention check: other (the rival is an image of another prompt) or same (the image is
    its own rival). `order` says in which place the image stands.
    """

    kind: Kind
    prompt_id: str
    image_id: str
    rival_id: str
    order: Literal["first", "second"]

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind) or self.order not in ORDERS:
            raise InputError(f"an item is a pair, other or same, with an order first or second; got {self!r}")

    @property
    def key(self) -> Key:
        """The ids of the prompt, the image and its rival."""
        return (self.prompt_id, self.image_id, self.rival_id)

    @property
    def shown(self) -> tuple[str, str]:
        """The ids of the image shown first and of the one shown second."""
        return (self.image_id, self.rival_id) if self.order == "first" else (self.rival_id, self.image_id)

    def outcome(self, choice: Choice) -> float:
        """1 where the image was chosen, 0 where its rival was, 0.5 for a tie."""
        return 0.5 if choice == "tie" else float(choice == self.order)

    def passed(self, choice: Choice) -> bool:
        """Whether `choice` is the known answer of this check."""
        return self.outcome(choice) == OUTCOMES[self.kind]


def key_of(pair: Pair) -> Key:
    """The question that a pair puts."""
    return (pair.prompts["wide_spectrum"].prompt_id, pair.image_ids["wide_spectrum"], pair.image_ids["original"])


def pairs_of(run: Path, generators: Sequence[str] = ()) -> tuple[list[Pair], int]:
    """The pairs of a run that people can judge, each question once, and how many others were left out.

    Left out is a pair of twice the same image: there is nothing to look at. InputError for a generator that made no
    pair; RunFolderError where no pair is left.
    """
    pairs = image_pairs(run)
    known = sorted({pair.generator for pair in pairs})
    for name in generators:
        if name not in known:
            raise InputError(f"--generator {name}: it made no pair of this run; expected one of {', '.join(known)}")
    chosen = {key_of(pair): pair for pair in reversed(pairs) if not generators or pair.generator in generators}
    found = [pair for key, pair in reversed(chosen.items()) if key[1] != key[2]]
    if not found:
        raise RunFolderError(f"{run} holds no pair of two different images: run the generate stage first")
    return found, len(chosen) - len(found)


def _lot(seed: int, *parts: object) -> str:
    """A number that looks drawn and is the same whenever it is asked for."""
    return digest([seed, *parts])


def sample(pairs: Iterable[Pair], n: int | None, seed: int) -> list[Pair]:
    """`n` of the pairs (default: all) in an order that is drawn; generators have as many each as can be."""
    stacks: dict[str, list[Pair]] = {}
    for pair in sorted(pairs, key=lambda each: _lot(seed, "sample", *key_of(each))):
        stacks.setdefault(pair.generator, []).append(pair)
    rounds = itertools.zip_longest(*(stacks[name] for name in sorted(stacks)))
    return [pair for turn in rounds for pair in turn if pair is not None][:n]


def deal(keys: Sequence[Key], raters: Sequence[str], overlap: int, seed: int) -> dict[str, list[Key]]:
    """Each question to `overlap` raters. Nobody gets more than one above another, and partners are mixed.

    InputError where there are fewer raters than `overlap`.
    """
    if not 1 <= overlap <= len(raters):
        raise InputError(f"--overlap {overlap}: expected 1 to {len(raters)}, the number of raters")
    dealt: dict[str, list[Key]] = {code: [] for code in raters}
    together: Counter[frozenset[str]] = Counter()
    for key in keys:
        chosen: list[str] = []
        for _ in range(overlap):
            free = [code for code in raters if code not in chosen]
            met = {code: sum(together[frozenset((code, each))] for each in chosen) for code in free}
            chosen.append(min(free, key=lambda code: (len(dealt[code]), met[code], _lot(seed, "deal", code, *key))))
        for code in chosen:
            dealt[code].append(key)
        together.update(frozenset(two) for two in itertools.combinations(chosen, 2))
    return dealt


def serve(keys: Sequence[Key], answered: Mapping[Key, int], waiting: Mapping[Key, int], n: int) -> list[Key]:
    """The `n` questions with the fewest answers, those included that raters at work have before them.

    Of equals those come first that have fewer answers so far.
    """
    places = {key: place for place, key in enumerate(keys)}
    has = {key: (answered.get(key, 0) + waiting.get(key, 0), answered.get(key, 0), places[key]) for key in keys}
    return sorted(keys, key=lambda key: has[key])[:n]


def plan(chosen: Sequence[Pair], pairs: Sequence[Pair], *, code: str, seed: int, checks: float) -> list[Item]:
    """The items of one rater, in the order of showing: the `chosen` pairs and a share `checks` of checks beside them.

    The checks are made of `pairs` that are not chosen, where there are any. One half of the items has the image first.
    """
    own = {key_of(pair) for pair in chosen}
    pool = sorted(pairs, key=lambda pair: (key_of(pair) in own, _lot(seed, code, "check", *key_of(pair))))
    bare: list[tuple[Kind, Key]] = [("pair", key_of(pair)) for pair in chosen]
    for number in range(math.ceil(checks * len(chosen))):
        bare.append(_check(pool[number % len(pool)], pairs, "same" if number % 2 else "other"))
    lots = [_lot(seed, code, "place", number, kind, *key) for number, (kind, key) in enumerate(bare)]
    sides = sorted(range(len(bare)), key=lambda number: _lot(seed, code, "side", lots[number]))
    orders = {number: ORDERS[rank % 2] for rank, number in enumerate(sides)}
    shuffled = sorted(range(len(bare)), key=lambda number: lots[number])
    return [Item(bare[number][0], *bare[number][1], orders[number]) for number in shuffled]


def _words(pair: Pair) -> set[str]:
    return {word for word in pair.prompts["original"].text.lower().split() if len(word) > 3}


def _check(pair: Pair, pairs: Sequence[Pair], kind: Kind) -> tuple[Kind, Key]:
    """A question with a known answer: the pair's I_a against the I_o of a prompt that shares the fewest words with it.

    A plain image of something else fits neither the content nor the effects that the text asks for.
    """
    prompt_id, image_id, _ = key_of(pair)
    others = [each for each in pairs if each.pair_id != pair.pair_id and key_of(each)[2] != image_id]
    if kind == "same" or not others:
        return "same", (prompt_id, image_id, image_id)
    far = min(others, key=lambda each: (len(_words(each) & _words(pair)), digest([*key_of(each), prompt_id])))
    return "other", (prompt_id, image_id, key_of(far)[2])
