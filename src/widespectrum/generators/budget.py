"""What calls to paid APIs may cost: list prices, and a budget that several generators share."""

from __future__ import annotations

import functools
import json
import math
import threading
from importlib import resources

from widespectrum.errors import BudgetSpentError, InputError

__all__ = ["Budget", "list_price", "list_prices"]

# So that three images at $0.1 fit into $0.3.
_ROUNDING = 1e-9


@functools.cache
def _prices() -> dict[str, dict[str, dict[str, float]]]:
    text = resources.files("widespectrum.generators").joinpath("api_prices.json").read_text(encoding="utf-8")
    models: dict[str, dict[str, dict[str, float]]] = json.loads(text)["models"]
    return models


def list_prices(model: str) -> dict[str, dict[str, float]]:
    """US dollars for an image of `model`, by size and quality ("" where there is no choice); empty if unknown.

    From published price lists, which may be out of date: `api_prices.json` says when they were read.
    """
    return _prices().get(model, {})


def list_price(model: str, size: str = "", quality: str = "") -> float | None:
    """US dollars for one image, as `list_prices` has them; None where the price is unknown.

    >>> list_price("gpt-image-1.5", "1024x1024", "high")
    0.133
    """
    return list_prices(model).get(size, {}).get(quality)


class Budget:
    """At most `max_calls` requests and `max_cost` US dollars, counted over every generator that asks; thread-safe.

    What is reserved counts as spent until it is settled, so that requests on their way cannot exceed the limit
    together; a vendor who then charges more than the price is found out one answer late. A request counts as a call
    whatever came of it. Raises InputError for a limit that is not positive.
    """

    def __init__(self, max_calls: int | None = None, max_cost: float | None = None) -> None:
        if max_calls is not None and (type(max_calls) is not int or max_calls < 1):
            raise InputError(f"max_calls is {max_calls!r}, expected a whole number of 1 or more: give another limit")
        number = isinstance(max_cost, int | float) and not isinstance(max_cost, bool) and 0 < max_cost < math.inf
        if max_cost is not None and not number:
            raise InputError(f"max_cost is {max_cost!r}, expected US dollars above 0: give another limit")
        self.max_calls, self.max_cost = max_calls, max_cost
        self._lock = threading.Lock()
        self._calls, self._cost = 0, 0.0

    @property
    def calls(self) -> int:
        """Requests that were allowed so far."""
        return self._calls

    @property
    def cost(self) -> float:
        """US dollars: what was paid as far as it is known, list prices for the rest, and what is still reserved."""
        return self._cost

    def check(self, price: float | None, name: str) -> None:
        """InputError where a cost is limited and nobody knows what an image of `name` costs."""
        if self.max_cost is not None and price is None:
            raise InputError(
                f"{name}: the cost of a call is limited to ${self.max_cost:,.2f} in all, but the price of an image "
                "is not known: give price= in US dollars, or limit the calls instead"
            )

    def reserve(self, price: float | None) -> float:
        """Allow one request at `price`; the amount that `settle` wants back.

        Raises BudgetSpentError where it does not fit any more, InputError as `check` does.
        """
        self.check(price, "this generator")
        amount = price or 0.0
        with self._lock:
            if self.max_calls is not None and self._calls >= self.max_calls:
                raise BudgetSpentError(
                    f"the budget of {self.max_calls:,} call{'s' * (self.max_calls > 1)} is spent: run again with a "
                    "new one to make the rest"
                )
            if self.max_cost is not None and self._cost + amount > self.max_cost + _ROUNDING:
                raise BudgetSpentError(
                    f"the budget of ${self.max_cost:,.2f} is spent (${self._cost:,.2f} of it, and another image costs "
                    f"${amount:,.3f}): run again with a new one to make the rest"
                )
            self._calls += 1
            self._cost += amount
        return amount

    def settle(self, reserved: float, cost: float | None) -> None:
        """Replace what was reserved by what was paid: 0 gives it back, None (unknown) keeps it."""
        if cost is not None:
            with self._lock:
                self._cost = max(0.0, self._cost + cost - reserved)
