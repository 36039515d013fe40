"""Thousands of calls of which a fifth goes wrong, and a process that is killed: nothing is lost or comes twice."""

import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter

from tests.chat.asking import GOOD, asked_for, lines, opened, questions
from tests.chat_server import USAGE, Reply, serving
from widespectrum.budget import Budget
from widespectrum.chat import BadReplyError, Pricing
from widespectrum.chat import Reply as Answer
from widespectrum.errors import ModelError
from widespectrum.protocols import Spent, Tokens

COUNT = 4600
ATTEMPTS = 3
SSE = Reply(body='data: {"choices": []}\n\n', headers={"Content-Type": "text/event-stream"})
FAULTS = {
    "malformed": Reply('{"rating": 3'),
    "extra": Reply('{"rating": 3, "sure": true}'),
    "refusal": Reply(None, refusal="I cannot."),
    "filter": Reply(None, finish_reason="content_filter"),
    "filtered": Reply(status=400, code="content_filter"),
    "limit": Reply(status=429, headers={"Retry-After": "7"}),
    "down": Reply(status=503),
    "cut": Reply('{"rating": 3}', cut=True),
    "chunks": Reply('{"rating": 3}', chunked=True, cut=True),
    "stream": SSE,
    "slow": Reply('{"rating": 3}', delay=0.05),
}
ANSWERED = ("malformed", "extra", "refusal", "filter", "slow", "good")
"""Those of which the server counts the tokens."""


def script(key, attempt):
    """What the server says to an attempt at a question: the same in every run."""
    chance = random.Random(f"{key} {attempt}")
    return chance.choice(list(FAULTS)) if chance.random() < 0.2 else "good"


def expected(key):
    """The script as it is played to a question: what is said, and how it ends."""
    said = []
    for attempt in range(1, ATTEMPTS + 1):
        said.append(script(key, attempt))
        if said[-1] in ("good", "slow"):
            return said, "answered"
        if said[-1] in ("refusal", "filter", "filtered"):
            return said, "refused"
    ends = {"malformed": "bad", "extra": "bad"}
    return said, ends.get(said[-1], "failed")


def kind(outcome):
    if isinstance(outcome, BadReplyError):
        return "refused" if outcome.refused else "bad"
    return "failed" if isinstance(outcome, ModelError) else "answered"


def playing():
    """The replies of a server that plays the script, and how often it was asked each question."""
    asked, lock = Counter(), threading.Lock()

    def reply(body):
        with lock:
            asked[asked_for(body)] += 1
            attempt = asked[asked_for(body)]
        return FAULTS.get(script(asked_for(body), attempt), GOOD)

    return reply, asked


def test_of_five_thousand_calls_none_is_lost_and_none_comes_twice(journal, pauses):
    wanted = {f"q{number}": expected(f"q{number}") for number in range(COUNT)}
    reply, asked = playing()
    budget = Budget(max_cost=1000)
    with serving(reply) as server:
        options = {"attempts": ATTEMPTS, "concurrency": 16, "budget": budget, "pricing": Pricing(1, 1)}
        with opened(server, journal, **options) as chat:
            found = list(chat.stream(questions(COUNT)))
            spent = chat.spent()
        server.requests.clear()
        with opened(server, journal, attempts=1, concurrency=16) as chat:
            again = dict(chat.stream(questions(COUNT)))
    assert len(found) == COUNT
    assert {key: kind(outcome) for key, outcome in found} == {key: ends for key, (_, ends) in wanted.items()}
    assert {ends for _, ends in wanted.values()} == {"answered", "refused", "bad", "failed"}
    said = Counter(what for saying, _ in wanted.values() for what in saying)
    calls = said.total()
    assert calls >= 5000
    assert set(said) == {"good", *FAULTS}
    assert pauses.count(7) > 50
    counted = sum(said[name] for name in ANSWERED)
    tokens = Tokens(counted * USAGE["prompt_tokens"], counted * USAGE["completion_tokens"])
    # A stream that nobody asked for may have cost something.
    assert spent == Spent(calls, tokens, None)
    assert budget.calls == calls
    # What was answered, and only that, is not asked again.
    answered = {key for key, (_, ends) in wanted.items() if ends == "answered"}
    second = Counter(asked_for(request.body) for request in server.requests)
    unasked = {key: again[key] for key in set(wanted) - answered - second.keys()}
    assert (unasked, second) == ({}, Counter(set(wanted) - answered))
    assert {key for key in answered if isinstance(again[key], Answer)} == answered
    kept = lines(journal)
    assert len(kept) == calls + second.total()
    good = Counter(line["key"] for line in kept if line["status"] == "ok")
    assert max(good.values()) == 1
    assert good.keys() >= answered
    first = {key: len(saying) for key, (saying, _) in wanted.items()}
    assert asked == Counter(first) + second


KILLED = """
import sys
from pathlib import Path
from tests.chat.asking import questions
from widespectrum.chat import Chat, Endpoint

with Chat(Endpoint.parse(sys.argv[1]), Path(sys.argv[2]), concurrency=8) as chat:
    for key, _ in chat.stream(questions(300)):
        print(key, flush=True)
"""


def test_a_process_that_is_killed_leaves_whole_lines_and_the_next_asks_for_the_rest(journal):
    with serving(lambda body: Reply('{"rating": 3}', delay=0.01)) as server:
        command = [sys.executable, "-c", KILLED, server.endpoint, str(journal)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            given = {process.stdout.readline().strip() for _ in range(60)}
            process.send_signal(signal.SIGKILL)
            given |= {key for key in process.stdout.read().split("\n")[:-1] if re.fullmatch(r"q\d+", key)}
        # Until it has answered what was on its way.
        while server.at_once:
            time.sleep(0.01)
        before = Counter(asked_for(request.body) for request in server.requests)
        whole = journal.read_bytes()
        whole = whole[: whole.rfind(b"\n") + 1]
        known = {line["key"] for line in lines(journal) if line["status"] == "ok"} if whole else set()
        with opened(server, journal, concurrency=8) as chat:
            found = dict(chat.stream(questions(300)))
    after = Counter(asked_for(request.body) for request in server.requests) - before
    # What was handed on was on the disk before.
    assert given <= known
    assert 60 <= len(known) < 300
    assert after == Counter(set(found) - known)
    assert {kind(outcome) for outcome in found.values()} == {"answered"}
    assert len(found) == 300
    assert journal.read_bytes().startswith(whole)
    assert Counter(line["key"] for line in lines(journal)) == Counter(list(found))
