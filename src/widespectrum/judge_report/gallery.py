"""The gallery of the judge report: pairs on which two judges differ, drawn at random among those that do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from widespectrum import store
from widespectrum.thumbnails import Thumbnails

from .material import PEOPLE, RATER, Asked, Key, Material

__all__ = ["Card", "Comparison", "Part", "Said", "disagreements"]

SEED = 0
PER_COMPARISON = 6
COMPARISONS = 12

WORDS = {1.0: "I_a", 0.5: "tie", 0.0: "I_o"}


class Part(NamedTuple):
    """What a judge said in one order (empty: of both together): its verdict and why."""

    shown: str
    verdict: str
    reason: str


class Said(NamedTuple):
    """What one judge said about a pair, and how sure it was; `replies` are (order, text as it came)."""

    judge: str
    verdict: str
    parts: list[Part]
    confidence: float | None
    replies: list[tuple[str, str]]


class Card(NamedTuple):
    """One pair with its images as data URIs, and what all judges said. `number` names it on the page."""

    number: int
    pair: Asked
    image_original: str
    image_wide: str
    said: list[Said]


class Comparison(NamedTuple):
    """Two judges: `compared` pairs, `opposite` verdicts on so many, a tie against an image on `apart`; what is drawn
    among the opposite ones (`is_opposite`), or where there is none among the others; numbers of cards shown above.
    """

    judge: str
    other: str
    compared: int
    opposite: int
    apart: int
    is_opposite: bool
    cards: list[Card]
    above: list[Card]


class _Draw(NamedTuple):
    """The rows drawn for two judges."""

    judge: str
    other: str
    compared: int
    opposite: int
    apart: int
    is_opposite: bool
    rows: list[int]


def _couples(material: Material) -> Iterator[tuple[str, str]]:
    """People against each judge, then judge against judge; single raters only where there are no people together."""
    people = [PEOPLE] if PEOPLE in material.verdicts else material.raters
    yield from ((one, machine) for one in people for machine in material.machines)
    yield from combinations(material.machines, 2)
    yield from combinations(material.raters if len(people) != 1 or people[0].startswith(RATER) else [], 2)


def _drawn(material: Material, judge: str, other: str, seed: int) -> _Draw:
    distance = np.abs(material.verdicts[judge].both - material.verdicts[other].both)
    opposite, apart = (np.flatnonzero(distance == step) for step in (1.0, 0.5))
    pool = opposite if len(opposite) else apart
    chosen = np.random.default_rng([SEED, seed]).permutation(pool)[:PER_COMPARISON]
    compared = int((~np.isnan(distance)).sum())
    return _Draw(judge, other, compared, len(opposite), len(apart), bool(len(opposite)), sorted(chosen.tolist()))


def disagreements(material: Material) -> tuple[list[Comparison], int]:
    """The comparisons that are shown, each pair once, and how many there are with any disagreement.

    The couples come in a fixed order, people first, and the first `COMPARISONS` of them are shown.
    """
    draws = [_drawn(material, *couple, seed) for seed, couple in enumerate(_couples(material))]
    found = [draw for draw in draws if draw.rows]
    shown = found[:COMPARISONS]
    rows = list(dict.fromkeys(row for draw in shown for row in draw.rows))
    said = _said(material, [material.pairs[row].key for row in rows])
    thumbnails = Thumbnails(material.run)
    cards = {}
    for number, row in enumerate(rows, start=1):
        pair = material.pairs[row]
        _, wide, original = pair.key
        cards[row] = Card(number, pair, thumbnails.uri(original), thumbnails.uri(wide), said.get(pair.key, []))
    seen: set[int] = set()
    comparisons = []
    for draw in shown:
        new = [row for row in draw.rows if row not in seen]
        above = [cards[row] for row in draw.rows if row in seen]
        seen |= set(new)
        comparisons.append(Comparison(*draw[:6], [cards[row] for row in new], above))
    return comparisons, len(found)


def _rows_of(material: Material, table: str, keys: Sequence[Key]) -> list[dict[str, Any]]:
    """The rows of a table about some pairs; read without what is not needed."""
    found = store.read(material.run, table)
    wanted = pc.is_in(found["prompt_id"], pa.array([key[0] for key in keys], pa.string()))
    chosen = found.filter(pc.and_(wanted, pc.equal(found["dimension"], "overall"))).to_pylist()
    pairs = set(keys)
    return [row for row in chosen if (row["prompt_id"], row["image_id"], row["rival_id"]) in pairs]


def _said(material: Material, keys: Sequence[Key]) -> dict[Key, list[Said]]:
    """What every judge said about each of these pairs, in the order of the judges."""
    answers: dict[tuple[Key, str], dict[str, dict[str, Any]]] = {}
    for table in ("verdicts", "abstentions"):
        for row in _rows_of(material, table, keys):
            key = row["prompt_id"], row["image_id"], row["rival_id"]
            answers.setdefault((key, row["judge"]), {})[row.get("order", "abstained")] = row
    return {
        key: [_of_judge(label, answers[key, label]) for label in material.verdicts if (key, label) in answers]
        for key in keys
    }


def _of_judge(label: str, rows: Mapping[str, Mapping[str, Any]]) -> Said:
    """What one judge said: `rows` by order, or an abstention."""
    if "abstained" in rows:
        row = rows["abstained"]
        return Said(label, "abstained", [Part("", "", row["reason"])], None, _replies({"": row}))
    orders = {_SHOWN[order]: rows[order] for order in _SHOWN if order in rows}
    asked = orders or {"": rows["both"]}
    parts = [Part(shown, WORDS[row["outcome"]] if shown else "", row["rationale"]) for shown, row in asked.items()]
    if len(parts) == 2 and parts[0][1:] == parts[1][1:]:
        parts = [parts[0]._replace(shown="both orders")]
    known = [row["confidence"] for row in asked.values() if row["confidence"] is not None]
    return Said(
        judge=label,
        verdict=WORDS[rows["both"]["outcome"]] if "both" in rows else "no verdict",
        parts=parts,
        confidence=sum(known) / len(known) if known else None,
        replies=_replies(asked),
    )


def _replies(rows: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str]]:
    return [(shown, row["raw"]) for shown, row in rows.items() if row["raw"]]


_SHOWN = {"first": "I_a first", "second": "I_o first"}
"""Which image is shown first in each order."""
