"""What judges behind endpoints cost, and how large the images were that they were sent: from their journals."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from widespectrum import store
from widespectrum.chat.replies import writable
from widespectrum.chat.spending import amount, bill
from widespectrum.chat.tokens import Pricing
from widespectrum.config import read_run_file
from widespectrum.runs import read_manifest

__all__ = ["Cost", "Sent", "read_costs"]


class Sent(NamedTuple):
    """An image as it was sent."""

    bytes: int
    width: int
    height: int


@dataclass(slots=True)
class Cost:
    """What one journal holds.

    `requests` were sent for `questions`; of them `bad` were answered by something that does not fit and `errors` by
    nothing. `tokens` are those that the server counted; `uncounted` replies came without such a count. `dollars` are
    those of replies whose cost is known; it is not of `unpriced` replies. `images` are by their sha256, `limits` the
    longest sides allowed, `models` those that the server says answered; `unreadable` lines are no lines of a journal.
    """

    judge: str
    file: str
    requests: int = 0
    bad: int = 0
    errors: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    uncounted: int = 0
    dollars: float = 0.0
    unpriced: int = 0
    unreadable: int = 0
    first: str = ""
    last: str = ""
    asked: set[tuple[str, str]] = field(default_factory=set)
    images: dict[str, Sent] = field(default_factory=dict)
    limits: set[int] = field(default_factory=set)
    models: set[str] = field(default_factory=set)

    @property
    def questions(self) -> int:
        """How many different questions were asked."""
        return len(self.asked)

    @property
    def replies(self) -> int:
        """How many requests got a reply, whether or not it fits."""
        return self.requests - self.errors


def _images(request: Mapping[str, Any]) -> dict[str, Sent]:
    """The images of a request as the journal records them."""
    found = {}
    for message in request.get("messages", ()):
        content = message.get("content")
        for part in content if isinstance(content, list) else ():
            if part.get("type") == "image_url":
                facts = part["image_url"]
                found[str(facts["sha256"])] = Sent(*(int(facts[name]) for name in Sent._fields))
    return found


def _bill(cost: Cost, usage: Any, paid: Any, pricing: Pricing | None) -> None:
    """Count the tokens and dollars of a reply: what was `paid` if that was known, else what follows from its usage."""
    tokens, dollars = bill(usage, pricing)
    dollars = dollars if (known := amount(paid, int | float)) is None else known
    if tokens is None:
        cost.uncounted += 1
    else:
        cost.input_tokens += tokens.input
        cost.output_tokens += tokens.output
    cost.dollars += dollars or 0.0
    cost.unpriced += dollars is None


def _take(cost: Cost, line: bytes, pricing: Pricing | None) -> None:
    """Count one line. ValueError, LookupError, TypeError or AttributeError where it is none of a journal."""
    entry = json.loads(line)
    request, key, status = entry["request"], (str(entry["key"]), str(entry["digest"])), entry["status"]
    images, limits = _images(request), {int(side) for side in [request.get("max_side")] if side is not None}
    if status not in ("ok", "bad", "error"):
        raise ValueError(status)
    cost.requests += 1
    cost.asked.add(key)
    cost.images |= images
    cost.limits |= limits
    cost.bad += status == "bad"
    cost.errors += status == "error"
    if status != "error":
        cost.models |= {writable(str(entry["model"]))} if entry.get("model") else set()
        _bill(cost, entry.get("usage"), entry.get("cost"), pricing)
    if time := str(entry.get("time") or ""):
        cost.first, cost.last = min(cost.first or time, time), max(cost.last, time)


def _read(path: Path, judge: str, pricing: Pricing | None) -> Cost:
    """One journal, line by line."""
    cost = Cost(judge, path.name)
    with path.open("rb") as file:
        for line in file:
            try:
                _take(cost, line, pricing)
            except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError):
                # A last line without an end is being written, or was cut off by a crash.
                cost.unreadable += line.endswith(b"\n")
    return cost


def _pricings(run: Path) -> tuple[dict[str, Pricing], dict[str, Path]]:
    """The prices and the journals that the run file names, by label of the judge."""
    prices, journals = {}, {}
    for choice in read_run_file(run).judges:
        given = [choice.options.get(name) for name in ("input_price", "output_price")]
        if all(isinstance(price, int | float) for price in given):
            prices[choice.label] = Pricing(*(float(str(price)) for price in given))
        if "journal" in choice.options:
            journals[choice.label] = Path(str(choice.options["journal"])).expanduser()
    return prices, journals


def read_costs(run: Path) -> list[Cost]:
    """What the journals of `run` hold, in the order of its judges; a journal of no known judge goes by its file."""
    prices, named = _pricings(run)
    journals = {label: named.get(label, store.journal(run, label)) for label in read_manifest(run).specs["judges"]}
    known = {path.resolve() for path in journals.values()}
    others = (path for path in sorted((run / "journals").glob("*.jsonl")) if path.resolve() not in known)
    journals |= {path.stem: path for path in others}
    return [_read(path, label, prices.get(label)) for label, path in journals.items() if path.is_file()]
