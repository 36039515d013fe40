"""What is sent and spent, and the budget that is asked first."""

import contextlib
import json

import pytest

from tests.chat.asking import GOOD, MESSAGES, SCHEMA, lines, opened, questions
from tests.chat_server import Reply, serving
from widespectrum.budget import Budget
from widespectrum.chat import BadReplyError, Pricing
from widespectrum.chat import Reply as Answer
from widespectrum.errors import BudgetSpentError, InputError, ModelError
from widespectrum.protocols import Spent, Tokens

PRICING = Pricing(1e6, 1e5)
"""A dollar for every token that is read, and ten cents for one that is written."""


def usage(**figures):
    return Reply('{"rating": 3}', usage=figures)


@pytest.mark.parametrize(
    ("reply", "pricing", "spent", "cost"),
    [
        (usage(prompt_tokens=7, completion_tokens=5), PRICING, Spent(1, Tokens(7, 5), 7.5), 7.5),
        (usage(prompt_tokens=7, completion_tokens=5, cost=0.25), PRICING, Spent(1, Tokens(7, 5), 0.25), 0.25),
        (usage(cost=0.25), None, Spent(1, Tokens(0, 0), 0.25), 0.25),
        (usage(prompt_tokens=7, completion_tokens=5), None, Spent(1, Tokens(7, 5), None), 0),
        # Unknown: what was reserved stays, a token per four letters and 200 for the reply.
        (Reply('{"rating": 3}', usage=None), PRICING, Spent(1, Tokens(0, 0), None), "reserved"),
        (usage(prompt_tokens=-7, completion_tokens=True, cost="1"), PRICING, Spent(1, Tokens(0, 0), None), "reserved"),
        (Reply('{"rating": "3"}'), PRICING, Spent(1, Tokens(7, 5), 7.5), 7.5),
        (Reply(status=500), PRICING, Spent(1, Tokens(0, 0), 0), 0),
        (Reply("{}", cut=True), PRICING, Spent(1, Tokens(0, 0), 0), 0),
        (Reply(body="?"), PRICING, Spent(1, Tokens(0, 0), None), "reserved"),
    ],
)
def test_what_a_request_costs(journal, reply, pricing, spent, cost):
    budget = Budget(max_calls=10)
    with serving([reply]) as server, opened(server, journal, attempts=1, budget=budget, pricing=pricing) as chat:
        assert chat.spent() == Spent(0, Tokens(0, 0), 0)
        with contextlib.suppress(ModelError):
            chat.ask("q", MESSAGES, SCHEMA)
        first = budget.cost
        assert chat.spent() == spent
    assert budget.calls == 1
    letters = len("You rate.How sharp is it?" + json.dumps(SCHEMA))
    assert first == pytest.approx(cost) if cost != "reserved" else letters / 5 < first - 20 < letters / 3


def test_what_the_journal_knows_costs_nothing_and_every_retry_counts(journal, pauses):
    with serving([Reply(status=500), GOOD]) as server:
        with opened(server, journal, budget=Budget(max_calls=2)) as chat:
            chat.ask("q", MESSAGES, SCHEMA)
            assert chat.spent().calls == 2
            chat.ask("q", MESSAGES, SCHEMA)
            with pytest.raises(BudgetSpentError, match="the budget of 2 calls is spent"):
                chat.ask("another", MESSAGES, SCHEMA)
            assert chat.spent().calls == 2
        with opened(server, journal, budget=Budget(max_calls=1)) as chat:
            assert dict(chat.stream([("q", MESSAGES, SCHEMA)])) == {"q": Answer(GOOD, '{"rating": 3}')}
            assert chat.spent() == Spent(0, Tokens(0, 0), 0)
    assert len(server.requests) == 2


@pytest.mark.parametrize("max_calls", [1, 5, 11])
def test_what_is_on_its_way_comes_before_the_budget_is_reported(journal, max_calls):
    with serving([Reply('{"rating": 3}', delay=0.01)]) as server:
        with opened(server, journal, concurrency=4, budget=Budget(max_calls)) as chat:
            found = []
            with pytest.raises(BudgetSpentError, match="is spent"):
                found.extend(key for key, _ in chat.stream(questions(30)))
            assert len(found) == len(server.requests) == chat.spent().calls == max_calls
        with opened(server, journal, concurrency=4, budget=Budget(30 - max_calls)) as chat:
            rest = [key for key, reply in chat.stream(questions(30)) if isinstance(reply, Answer)]
    assert (len(rest), len(set(rest)), len(server.requests)) == (30, 30, 30)


def test_the_cost_stays_within_the_limit_and_nothing_slips_through_afterwards(journal):
    # 100 input tokens would cost 100 dollars; the server says that it was one.
    reply = usage(prompt_tokens=100, completion_tokens=0, cost=1)
    long = [{"role": "user", "content": "x" * 4000}]
    asked = [("long", long, SCHEMA), *questions(20)]
    with serving([reply]) as server:
        budget = Budget(max_cost=500)
        with opened(server, journal, concurrency=1, budget=budget, pricing=Pricing(1e6, 0)) as chat:
            with pytest.raises(BudgetSpentError, match=r"budget of \$500\.00 is spent"):
                list(chat.stream(asked))
            assert (server.requests, budget.cost, chat.spent().calls) == ([], 0, 0)
        with opened(server, journal, concurrency=1, budget=budget, pricing=Pricing(1e6, 0)) as chat:
            assert len(list(chat.stream(asked[1:]))) == 20
            assert budget.cost == chat.spent().cost == 20


def test_a_limit_of_the_cost_needs_a_price(journal):
    refused = pytest.raises(InputError, match="the price of a call is not known")
    with serving([GOOD]) as server, opened(server, journal, budget=Budget(max_cost=1)) as chat, refused:
        list(chat.stream(questions(3)))
    assert (server.requests, lines(journal)) == ([], [])


def test_a_refusal_is_paid_for(journal):
    with serving([Reply(None, refusal="No.")]) as server, opened(server, journal, pricing=PRICING, attempts=2) as chat:
        with pytest.raises(BadReplyError):
            chat.ask("q", MESSAGES, SCHEMA)
        assert chat.spent() == Spent(1, Tokens(7, 5), 7.5)
