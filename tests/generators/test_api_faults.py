import collections
import email.utils
import os
import random
import signal
import threading
import time

import pytest
from PIL.Image import Image

from tests.generators.apis import BLOCKED, GOOD, KEY, MAKERS, REFUSED, ask, error, prompt, quick
from tests.image_api_server import (
    Answer,
    Prediction,
    chat_image,
    openai_error,
    openai_image,
    picture,
    serving,
    too_many,
)
from widespectrum.budget import Budget
from widespectrum.errors import InputError, ModelError
from widespectrum.protocols import Failure, PaidGenerator, Refusal

VENDORS = list(MAKERS)


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    quick(monkeypatch)


def in_body(vendor, content):
    """A good response but for the bytes of its image."""
    if vendor == "openai":
        return openai_image(content)
    return chat_image(content) if vendor == "chat" else Prediction(files=[content], polls=0)


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_good_answer(vendor):
    with serving([GOOD[vendor]]) as server:
        generator = MAKERS[vendor](server)
        assert isinstance(generator, PaidGenerator)
        (image,) = ask(generator)
        assert (image.mode, image.size, image.info, image.getpixel((3, 3))) == ("RGB", (8, 6), {}, (200, 30, 30))
        assert type(image) is Image
        assert len(image.getexif()) == 0
        (call,) = generator.take_calls()
        assert (call.status, call.attempt, call.generator, call.prompt_id) == ("ok", 1, "", prompt().prompt_id)
        assert call.request_id
        assert generator.take_calls() == []
        assert server.requests[0].headers["Authorization"] == f"Bearer {KEY}"
        assert server.requests[0].prompt == prompt().text
        assert generator.spec.params["host"] == "127.0.0.1"


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize(
    "content",
    [picture(kind="JPEG"), picture(kind="WEBP"), picture((10, 20, 30, 0), mode="RGBA"), picture(90, mode="L")],
    ids=["jpeg", "webp", "alpha", "grey"],
)
def test_every_format_becomes_plain_rgb(vendor, content):
    with serving([in_body(vendor, content)]) as server:
        (image,) = ask(MAKERS[vendor](server))
        assert (image.mode, image.size, image.info) == ("RGB", (8, 6), {})
        assert len(image.getexif()) == 0


FAULTS = {
    "500": lambda vendor: error(vendor, 500, "The server had an error."),
    "503": lambda vendor: error(vendor, 503, "No capacity."),
    "408": lambda vendor: error(vendor, 408, "Timed out."),
    "409": lambda vendor: error(vendor, 409, "Conflict."),
    "429": lambda vendor: error(vendor, 429, "Too many.", {"Retry-After": "0"}),
    "a page": lambda vendor: Answer("<html>Bad gateway</html>", 502),
    "no json": lambda vendor: Answer("<html>Welcome</html>"),
    "a list": lambda vendor: Answer([1, 2]),
    "empty": lambda vendor: Answer({}),
    "cut": lambda vendor: Answer("x" * 4000, cut=True),
    "slow": lambda vendor: Answer({}, delay=3),
    "no image": lambda vendor: in_body(vendor, b"GIF89a no image that we read"),
    "half an image": lambda vendor: in_body(vendor, picture(size=(64, 64), kind="JPEG")[:-400]),
    "16 bits": lambda vendor: in_body(vendor, picture(900, mode="I;16")),
}


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize("fault", FAULTS)
def test_what_passes_is_tried_again(vendor, fault):
    answers = [FAULTS[fault](vendor), FAULTS[fault](vendor), GOOD[vendor]]
    with serving(answers) as server:
        generator = MAKERS[vendor](server, timeout=0.5)
        assert isinstance(ask(generator)[0], Image)
        calls = generator.take_calls()
        assert [(call.attempt, call.status) for call in calls] == [(1, "failed"), (2, "failed"), (3, "ok")]
        assert all(call.detail for call in calls[:2])
        assert fault != "slow" or all("no reply in time" in call.detail for call in calls[:2])
        assert len(server.requests) == 3


@pytest.mark.parametrize("vendor", VENDORS)
def test_what_does_not_pass_is_a_failure_after_the_last_attempt(vendor):
    with serving([error(vendor, 500, "The server had an error.")]) as server:
        generator = MAKERS[vendor](server, attempts=3)
        (failure,) = ask(generator)
        assert failure == Failure(
            f"{generator.name} made no image in 3 attempts (500: The server had an error.)", "model"
        )
        assert len(server.requests) == 3


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_request_that_the_vendor_cannot_read_is_not_tried_again(vendor):
    with serving([error(vendor, 400, "The prompt is too long."), GOOD[vendor]]) as server:
        failure, image = MAKERS[vendor](server, concurrency=1).generate([prompt(0), prompt(1)], seeds=[0, 0])
        assert failure.cause == "input"
        assert "in 1 attempt (400: The prompt is too long.)" in failure.reason
        assert isinstance(image, Image)


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_refusal_keeps_the_words_and_is_not_tried_again(vendor):
    with serving([REFUSED[vendor]]) as server:
        generator = MAKERS[vendor](server)
        (answer,) = ask(generator)
        assert isinstance(answer, Refusal)
        words = {"openai": "rejected by the safety system", "chat": "I cannot draw that.", "replicate": BLOCKED}
        assert words[vendor] in answer.reason
        (call,) = generator.take_calls()
        assert (call.status, call.detail) == ("refused", answer.reason)
        assert len(server.requests) == 1


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize(
    ("status", "said", "kind", "match"),
    [
        (401, "Incorrect API key provided.", InputError, "set [A-Z_]+ to a key that is valid there"),
        (403, "You have no access to this.", InputError, "ask for access, or choose another model"),
        (404, "The requested resource could not be found.", InputError, "check the name of the model and the base URL"),
        (402, "Insufficient credits.", ModelError, "run again when the account has credit"),
        (429, "Come back tomorrow.", ModelError, "run again in 86,400 seconds"),
    ],
)
def test_what_concerns_every_request_stops_at_once(vendor, status, said, kind, match):
    with serving([error(vendor, status, said, {"Retry-After": "86400"})]) as server:
        generator = MAKERS[vendor](server, concurrency=2)
        with pytest.raises(kind, match=match) as caught:
            ask(generator, 30)
        assert said in str(caught.value)
        assert caught.value.__cause__ is caught.value.__context__ is None
        received = len(server.requests)
        assert received <= 2
        with pytest.raises(kind, match=match):
            ask(generator)
        assert len(server.requests) == received == len(generator.take_calls())


@pytest.mark.parametrize("vendor", VENDORS)
def test_what_was_made_before_it_stopped_is_not_lost(vendor):
    answers = [GOOD[vendor]] * 3 + [error(vendor, 401, "The key was revoked.")]
    with serving(answers) as server:
        generator = MAKERS[vendor](server, concurrency=1)
        made = ask(generator, 6)
        assert [type(answer) for answer in made] == [Image] * 3 + [Failure] * 3
        assert all("The key was revoked." in answer.reason and answer.cause == "input" for answer in made[3:])
        assert len(server.requests) == 4
        with pytest.raises(InputError, match="The key was revoked"):
            ask(generator)


def test_no_quota_is_no_rate_limit():
    quota = openai_error(429, "You exceeded your current quota.", "insufficient_quota", "insufficient_quota")
    with serving([quota]) as server:
        with pytest.raises(ModelError, match=r"429: You exceeded your current quota.: run again when .* has credit"):
            ask(MAKERS["openai"](server))
        assert len(server.requests) == 1


def stamped(vendor, wait):
    """Answers that note when they were asked for, the third one with "too many"."""
    times = []

    def answers(received):
        times.append(time.monotonic())
        if len(times) == 3:
            return error(vendor, 429, "Too many.", {"Retry-After": wait()})
        return GOOD[vendor]

    return times, answers


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize("form", ["seconds", "date"])
def test_too_many_requests_make_all_threads_wait(vendor, form):
    forms = {"seconds": lambda: "1.2", "date": lambda: email.utils.formatdate(time.time() + 2, usegmt=True)}
    times, answers = stamped(vendor, forms[form])
    with serving(answers) as server:
        generator = MAKERS[vendor](server, concurrency=4)
        threads = [
            threading.Thread(target=generator.generate, args=([prompt(n)],), kwargs={"seeds": [0]}) for n in range(40)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(times) == 41
        # What was on its way may still have come.
        assert not any(0.5 < moment - times[2] < 0.95 for moment in times)
        assert times[-1] - times[2] > 0.95
        assert all(call.status == "ok" for call in generator.take_calls() if call.code != 429)


def test_a_rate_limit_does_not_use_up_the_attempts():
    """A server that takes two requests in 0.2 s, and eight threads with three attempts each."""
    lock, taken = threading.Lock(), collections.deque()

    def answers(received):
        with lock:
            now = time.monotonic()
            while taken and now - taken[0] > 0.2:
                taken.popleft()
            if len(taken) == 2:
                return too_many(round(0.2 - (now - taken[0]) + 0.01, 3))
            taken.append(now)
            return openai_image()

    with serving(answers) as server:
        made = ask(MAKERS["openai"](server, concurrency=8, attempts=5), 24)
        assert [type(answer) for answer in made] == [Image] * 24


def test_requests_at_a_time_whoever_calls():
    with serving(lambda received: openai_image(delay=0.1)) as server:
        generator = MAKERS["openai"](server, concurrency=3)
        threads = [threading.Thread(target=ask, args=(generator, 4)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (server.most_at_once, len(server.requests)) == (3, 16)


def test_answers_come_in_order():
    def answers(received):
        number = int(received.prompt.split()[-1])
        return openai_image(picture((number, 0, 0)), delay=random.Random(number).uniform(0, 0.05))

    with serving(answers) as server:
        made = ask(MAKERS["openai"](server, concurrency=8), 40)
        assert [image.getpixel((0, 0))[0] for image in made] == list(range(40))


def test_ctrl_c_waits_for_what_is_under_way_and_begins_nothing_new():
    with serving(lambda received: openai_image(delay=0.6)) as server:
        generator = MAKERS["openai"](server, concurrency=2)
        timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        started = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            ask(generator, 50)
        assert time.monotonic() - started < 5
        assert len(server.requests) <= 4
        assert [call.status for call in generator.take_calls()] == ["ok"] * len(server.requests)


def script(seed, count):
    """What every prompt meets: on about a fifth of all calls a fault; some prompts never get through."""
    rng = random.Random(seed)
    faults = [
        error("openai", 500, "oops"),
        error("openai", 503, "busy", {"Retry-After": "0.001"}),
        too_many("0.001"),
        Answer("x" * 200, cut=True),
        openai_image(b"no image"),
        Answer({"data": [{"b64_json": "!!!"}]}),
        Answer({"data": []}),
    ]
    plan = {}
    for number in range(count):
        attempts = []
        while rng.random() < 0.2:
            attempts.append(rng.choice(faults))
        last = REFUSED["openai"] if rng.random() < 0.02 else openai_image(picture((number % 251, number // 251, 7)))
        plan[number] = [*attempts, last] if rng.random() > 0.005 else [error("openai", 500, "never")]
    return plan


def test_ten_thousand_prompts_with_faults_in_a_fifth_of_the_calls():
    count = 10_000
    plan = script(7, count)
    asked = collections.Counter()
    lock = threading.Lock()

    def answers(received):
        number = int(received.prompt.split()[-1])
        with lock:
            attempt = asked[number]
            asked[number] += 1
        return plan[number][: attempt + 1][-1]

    prompts = [prompt(number) for number in range(count)]
    with serving(answers) as server:
        generator = MAKERS["openai"](server, concurrency=32, attempts=5)
        generator.limit(Budget(max_calls=2 * count))
        made = generator.generate(prompts, seeds=[0] * count)
        calls = generator.take_calls()
        received = len(server.requests)
    assert len(calls) == received == sum(asked.values())
    assert len({call.call_id for call in calls}) == received
    by_prompt = collections.defaultdict(list)
    for call in calls:
        by_prompt[call.prompt_id].append(call)
    kinds = collections.Counter()
    for number, answer in enumerate(made):
        kinds[type(answer).__name__] += 1
        own = sorted(by_prompt[prompts[number].prompt_id], key=lambda call: call.attempt)
        assert [call.attempt for call in own] == list(range(1, len(own) + 1))
        assert all(call.status == "failed" for call in own[:-1])
        steps = plan[number]
        if isinstance(answer, Image):
            assert answer.getpixel((0, 0)) == (number % 251, number // 251, 7)
            assert (own[-1].status, len(own)) == ("ok", len(steps))
        elif isinstance(answer, Refusal):
            assert (own[-1].status, len(own), steps[-1]) == ("refused", len(steps), REFUSED["openai"])
        else:
            assert (own[-1].status, len(own)) == ("failed", 5)
    assert sum(kinds.values()) == count
    assert min(kinds["Image"], kinds["Refusal"], kinds["Failure"]) > 0
    assert 0.15 < sum(call.status == "failed" for call in calls) / received < 0.25
