"""What calls to paid APIs may cost: a budget that several models share."""

from __future__ import annotations

import math
import threading

from .errors import BudgetSpentError, InputError

__all__ = ["Budget"]

# So that three images at $0.1 fit into $0.3.
_ROUNDING = 1e-9


class Budget:
    """At most `max_calls` requests and `max_cost` US dollars, counted over every model that asks; thread-safe.

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

    def check(self, price: float | None, name: str, options: str = "price= in US dollars") -> None:
        """InputError where a cost is limited and nobody knows what a call to `name` costs; `options` tell it."""
        if self.max_cost is not None and price is None:
            raise InputError(
                f"{name}: the cost is limited to ${self.max_cost:,.2f} in all, but the price of a call is not known: "
                f"give {options}, or limit the calls instead"
            )

    def reserve(self, price: float | None) -> float:
        """Allow one request at `price`; the amount that `settle` wants back.

        Raises BudgetSpentError where it does not fit any more, InputError as `check` does.
        """
        self.check(price, "this model")
        amount = price or 0.0
        with self._lock:
            if self.max_calls is not None and self._calls >= self.max_calls:
                raise BudgetSpentError(
                    f"the budget of {self.max_calls:,} call{'s' * (self.max_calls > 1)} is spent: run again with a "
                    "new one to make the rest"
                )
            if self.max_cost is not None and self._cost + amount > self.max_cost + _ROUNDING:
                raise BudgetSpentError(
                    f"the budget of ${self.max_cost:,.2f} is spent (${self._cost:,.2f} of it, and another call costs "
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
