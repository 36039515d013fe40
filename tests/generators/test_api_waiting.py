"""When APIs ask to wait, are late, or say what nobody can read."""

import threading
import time
from dataclasses import replace

import pytest
from PIL.Image import Image

from tests.generators.apis import GOOD, MAKERS, ask, error, quick
from tests.image_api_server import Answer, chat, openai_image, serving, too_many
from widespectrum.chat.workers import StoppedError
from widespectrum.errors import ModelError

VENDORS = list(MAKERS)


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    quick(monkeypatch)


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize("wait", ["Wed, 21 Oct 99999 07:28:00 GMT", "Wed, 32 Oct 2026 77:28:00 GMT", "nan", "soon", ""])
def test_a_time_to_wait_that_is_none(vendor, wait):
    with serving([error(vendor, 429, "Too many.", {"Retry-After": wait}), GOOD[vendor]]) as server:
        assert isinstance(ask(MAKERS[vendor](server))[0], Image)


def test_a_time_to_wait_in_milliseconds_is_more_exact_than_one_in_seconds():
    wait = {"Retry-After-Ms": "1000", "Retry-After": "30"}
    with serving([error("openai", 429, "Too many.", wait), openai_image()]) as server:
        started = time.monotonic()
        assert isinstance(ask(MAKERS["openai"](server))[0], Image)
        assert 0.95 < time.monotonic() - started < 20


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (429, {"title": "Throttled", "detail": "Request was throttled.", "status": 429, "retry_after": 1}),
        (429, {"detail": "Your rate limit resets in ~1s."}),
        (429, {"error": {"message": "Limit 5, Used 5. Please try again in 1000ms.", "code": "rate_limit_exceeded"}}),
        (503, [{"error": {"code": 503, "message": "Overloaded. Please retry in 1.0s.", "status": "UNAVAILABLE"}}]),
    ],
)
def test_a_time_to_wait_in_the_body(status, body):
    with serving([Answer(body, status), openai_image()]) as server:
        started = time.monotonic()
        assert isinstance(ask(MAKERS["openai"](server))[0], Image)
        assert time.monotonic() - started > 0.95


def test_those_who_wait_are_told_when_it_is_over():
    """The first is to wait for a long time; then another learns that there is no credit."""
    answers = [too_many("300"), error("openai", 402, "Insufficient credits.")]
    with serving(lambda received: replace(answers.pop(0), delay=0.2)) as server:
        started = time.monotonic()
        with pytest.raises(ModelError, match="Insufficient credits"):
            ask(MAKERS["openai"](server, concurrency=2), 6)
        assert time.monotonic() - started < 20


@pytest.mark.parametrize("answer", [too_many("300"), error("openai", 503, "busy", {"Retry-After": "300"})])
def test_who_waits_can_be_halted_and_the_generator_goes_on(answer):
    with serving([answer, openai_image()]) as server:
        generator = MAKERS["openai"](server, concurrency=2)
        raised = []

        def waits():
            try:
                ask(generator)
            except StoppedError as error:
                raised.append(error)

        thread = threading.Thread(target=waits)
        thread.start()
        while not server.requests:
            time.sleep(0.01)
        time.sleep(0.3)
        generator.halt()
        thread.join(20)
        assert (len(raised), len(server.requests)) == (1, 1)
        assert answer.status == 429 or isinstance(ask(generator)[0], Image)


@pytest.mark.parametrize("vendor", VENDORS)
def test_an_answer_that_trickles_is_too_late(vendor):
    with serving([Answer(b" " * 30, trickle=0.1), GOOD[vendor]]) as server:
        generator = MAKERS[vendor](server, timeout=0.5)
        assert isinstance(ask(generator)[0], Image)
        late, _ = generator.take_calls()
        assert late.detail == "no reply in time"
        assert late.seconds < 2


def test_words_of_the_vendor_can_be_stored():
    answer = chat({"content": "no"}, cost=10**400)
    with serving([replace(answer, content={**answer.content, "id": "\ud800", "model": "m\ud800"})]) as server:
        generator = MAKERS["chat"](server)
        ask(generator)
        (call,) = generator.take_calls()
        assert (call.request_id, call.model, call.cost) == ("\\ud800", "m\\ud800", None)
