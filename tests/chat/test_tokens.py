"""What requests take, and what tokens cost."""

import pytest

from widespectrum.chat import Pricing
from widespectrum.chat.tokens import estimate
from widespectrum.errors import InputError
from widespectrum.protocols import Tokens


@pytest.mark.parametrize(
    ("texts", "sizes", "max_side", "tokens"),
    [
        ([], [], 100, 0),
        (["four", "fours"], [], 100, 1 + 2),
        ([], [(280, 560)], 1000, 10 * 20),
        ([], [(1120, 2240), (28, 28)], 560, 10 * 20 + 1),
    ],
)
def test_the_estimate(texts, sizes, max_side, tokens):
    assert estimate(texts, sizes, max_side) == tokens


def test_prices_are_per_million_tokens():
    assert Pricing(2.5, 10).cost(Tokens(1_000_000, 500_000)) == pytest.approx(2.5 + 5)
    assert Pricing(0, 0).cost(Tokens(10, 10)) == 0


@pytest.mark.parametrize("price", [-1, float("nan"), float("inf"), True, "2"])
def test_a_price_that_is_none(price):
    with pytest.raises(InputError, match=r"the price of output tokens is .*, expected US dollars per million tokens"):
        Pricing(1, price)
