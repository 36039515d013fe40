"""What a chat has sent and spent, and the budget that it asks before every request."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import Any

from widespectrum.budget import Budget
from widespectrum.errors import BudgetSpentError
from widespectrum.protocols import Spent, Tokens

from .replies import Outcome
from .tokens import Pricing

__all__ = ["Ledger", "amount", "bill"]


class Ledger:
    """Counts requests, tokens and US dollars; thread-safe. A `budget` is asked, a `pricing` tells what is not named."""

    def __init__(self, budget: Budget | None, pricing: Pricing | None) -> None:
        self.budget, self.pricing = budget, pricing
        self._lock = threading.Lock()
        self._calls = self._input = self._output = 0
        self._cost: float | None = 0.0
        self._over: BudgetSpentError | None = None

    def reserve(self, estimate: Callable[[], Tokens]) -> float:
        """Allow one request that takes about as many tokens as `estimate` says; the amount that `settle` wants back.

        Raises BudgetSpentError where it does not fit any more, and from then on: a smaller request does not slip
        through. InputError where a cost is limited and no price known.
        """
        price = None if self.pricing is None else self.pricing.cost(estimate())
        if self._over is not None:
            raise BudgetSpentError(str(self._over))
        try:
            reserved = 0.0 if self.budget is None else self.budget.reserve(price)
        except BudgetSpentError as error:
            self._over = error
            raise
        with self._lock:
            self._calls += 1
        return reserved

    def settle(self, reserved: float, outcome: Outcome) -> float | None:
        """Replace what was reserved by what the request cost, where it is known; count its tokens. What it cost."""
        tokens, cost = self._bill(outcome)
        with self._lock:
            if tokens is not None:
                self._input += tokens.input
                self._output += tokens.output
            self._cost = None if self._cost is None or cost is None else self._cost + cost
        if self.budget is not None:
            self.budget.settle(reserved, cost)
        return cost

    def spent(self) -> Spent:
        """What was sent so far; requests on their way count as calls, and cost nothing yet."""
        with self._lock:
            return Spent(self._calls, Tokens(self._input, self._output), self._cost)

    def _bill(self, outcome: Outcome) -> tuple[Tokens | None, float | None]:
        """The tokens and the US dollars of one request; None: not known."""
        tokens, cost = bill(outcome.facts.get("usage"), self.pricing)
        return tokens, 0.0 if cost is None and outcome.came_to_nothing else cost


def bill(usage: Any, pricing: Pricing | None) -> tuple[Tokens | None, float | None]:
    """The tokens and the US dollars that a server's `usage` names, or that follow from it; None: not known."""
    usage = usage if isinstance(usage, dict) else {}
    counts = [amount(usage.get(name), int) for name in ("prompt_tokens", "completion_tokens")]
    tokens = None if None in counts else Tokens(*counts)
    cost = amount(usage.get("cost"), int | float)
    if cost is None and tokens is not None and pricing is not None:
        cost = pricing.cost(tokens)
    return tokens, cost


def amount(value: Any, kind: Any) -> Any:
    """`value` where it is a number that can be a bill, else None: servers write what they like."""
    usable = isinstance(value, kind) and not isinstance(value, bool) and 0 <= value < math.inf
    return value if usable else None
