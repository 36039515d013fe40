import contextlib
import math
import threading

import pytest

from tests.generators.apis import GOOD, MAKERS, ask, error, quick
from tests.image_api_server import chat, chat_image, openai_image, serving
from widespectrum.budget import Budget
from widespectrum.errors import BudgetSpentError, InputError
from widespectrum.generators.api_prices import list_price, list_prices
from widespectrum.protocols import Failure


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    quick(monkeypatch)


@pytest.mark.parametrize("limit", [0, -1, 1.5, True, "3"])
def test_a_limit_of_calls_that_cannot_be(limit):
    with pytest.raises(InputError, match=r"max_calls is .*, expected a whole number of 1 or more"):
        Budget(max_calls=limit)


@pytest.mark.parametrize("limit", [0, -1, True, "3", math.nan, math.inf])
def test_a_limit_of_cost_that_cannot_be(limit):
    with pytest.raises(InputError, match=r"max_cost is .*, expected US dollars above 0"):
        Budget(max_cost=limit)


def test_calls_count_whatever_came_of_them():
    budget = Budget(max_calls=2)
    for _ in range(2):
        budget.settle(budget.reserve(None), 0.0)
    with pytest.raises(BudgetSpentError, match=r"^the budget of 2 calls is spent: run again"):
        budget.reserve(None)
    assert budget.calls == 2


def test_what_is_reserved_counts_until_it_is_given_back():
    budget = Budget(max_cost=0.3)
    held = [budget.reserve(0.1) for _ in range(3)]
    with pytest.raises(
        BudgetSpentError, match=r"^the budget of \$0.30 is spent \(\$0.30 of it, and another .* \$0.100"
    ):
        budget.reserve(0.1)
    budget.settle(held[0], 0.0)
    held.append(budget.reserve(0.1))
    budget.settle(held[1], 0.04)
    budget.settle(held[2], None)
    assert budget.cost == pytest.approx(0.24)
    with pytest.raises(BudgetSpentError):
        budget.reserve(0.1)
    assert budget.reserve(0.06) == 0.06


def test_many_threads_never_get_more_than_there_is():
    budget = Budget(max_calls=500, max_cost=4.0)
    allowed = []

    def take():
        for _ in range(100):
            try:
                allowed.append(budget.reserve(0.01))
            except BudgetSpentError:
                continue
            budget.settle(0.01, 0.0 if len(allowed) % 5 == 0 else None)

    threads = [threading.Thread(target=take) for _ in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(allowed) == budget.calls <= 500
    assert budget.cost <= 4.0 + 1e-9


def test_list_prices():
    assert list_price("gpt-image-1.5", "1024x1024", "high") == 0.133
    assert list_price("bytedance/seedream-4") == 0.03
    assert list_price("gpt-image-1.5", "1024x1024", "auto") is None
    assert list_prices("unheard-of") == {}


@pytest.mark.parametrize("vendor", MAKERS)
def test_a_limit_of_cost_needs_a_price(vendor):
    with serving([GOOD[vendor]]) as server:
        generator = MAKERS[vendor](server)
        assert generator.price == {"openai": 0.133, "chat": 0.039, "replicate": 0.025}[vendor]
        assert MAKERS[vendor](server, price=0.5).price == 0.5
        generator.model = "unheard-of"
        with pytest.raises(InputError, match=r"the price of a call is not known: give price= in US dollars"):
            generator.limit(Budget(max_cost=1))
        generator.limit(Budget(max_calls=1))


@pytest.mark.parametrize("vendor", MAKERS)
def test_never_more_calls_than_allowed_even_with_many_threads(vendor):
    budget = Budget(max_calls=40)

    def answers(received):
        return error(vendor, 500, "oops") if int(received.prompt.split()[-1]) % 4 == 0 else GOOD[vendor]

    with serving(answers) as server:
        generators = [MAKERS[vendor](server, concurrency=32, attempts=50) for _ in range(2)]
        for generator in generators:
            generator.limit(budget)
        results = [[], []]

        def work(number):
            # Who comes too late for everything is told so.
            with contextlib.suppress(BudgetSpentError):
                results[number] += ask(generators[number], 60)

        threads = [threading.Thread(target=work, args=(number,)) for number in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(server.requests) == budget.calls == 40
        calls = [call for generator in generators for call in generator.take_calls()]
        assert len(calls) == 40
    made = [answer for answer in results[0] + results[1] if not isinstance(answer, Failure)]
    failed = [answer for answer in results[0] + results[1] if isinstance(answer, Failure)]
    assert len(made) == sum(call.status == "ok" for call in calls) > 0
    assert len(failed) == 60 * sum(map(bool, results)) - len(made) > 0
    assert all(failure.reason.startswith("the budget of 40 calls is spent") for failure in failed)
    assert all(failure.cause == "model" for failure in failed)


def test_what_the_vendor_says_it_cost_replaces_the_list_price():
    with serving([chat_image(cost=0.01)]) as server:
        generator = MAKERS["chat"](server, concurrency=1)
        budget = Budget(max_cost=0.05)
        generator.limit(budget)
        answers = ask(generator, 8)
        assert [type(answer).__name__ for answer in answers] == ["Image"] * 2 + ["Failure"] * 6
        assert budget.cost == pytest.approx(0.02)
        assert [call.cost for call in generator.take_calls()] == [0.01] * 2


@pytest.mark.parametrize(
    ("bad", "cost"),
    [
        (error("chat", 500, "oops"), 0.0),
        (error("chat", 429, "slow down"), 0.0),
        (error("chat", 400, "bad request"), 0.0),
        (chat_image(b"no image", cost=None), 0.039),
        (chat_image(cut=True), 0.039),
        (chat({"content": "I would rather not."}, cost=0.002), 0.002),
    ],
)
def test_what_a_failed_request_leaves_in_the_budget(bad, cost):
    with serving([bad]) as server:
        generator = MAKERS["chat"](server, attempts=1)
        budget = Budget(max_cost=1)
        generator.limit(budget)
        ask(generator)
        assert budget.cost == pytest.approx(cost)


def test_nothing_is_billed_where_nobody_listens():
    with serving([openai_image()]) as server:
        generator = MAKERS["openai"](server, attempts=2)
    budget = Budget(max_cost=1)
    generator.limit(budget)
    (answer,) = ask(generator)
    assert isinstance(answer, Failure)
    assert "no connection" in answer.reason
    assert (budget.calls, budget.cost) == (2, 0.0)


def test_a_spent_budget_is_raised_where_nothing_was_made():
    with serving([error("openai", 500, "oops")]) as server:
        generator = MAKERS["openai"](server)
        generator.limit(Budget(max_calls=1))
        with pytest.raises(BudgetSpentError, match=r"^the budget of 1 call is spent.*\(the last attempt: 500: oops\)$"):
            ask(generator)
        for count in (1, 5):
            with pytest.raises(BudgetSpentError, match=r"^the budget of 1 call is spent"):
                ask(generator, count)
        assert len(server.requests) == 1
