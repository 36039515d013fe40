"""Vision-language models that are scripted: they look at the request in OpenAI's format, answer with a bias, and fail.

    with serving(always("first")) as server:                  # from tests.chat_server
        VLMJudge(model="tiny", base_url=server.url, ...)

Every one of them is a function of the body of a request, as `serving` takes it.
"""

import base64
import io
import json
import random
import threading

import numpy as np
import PIL.Image

from tests.chat_server import Reply


def images(body):
    """The images of a request, in the order in which they are shown."""
    parts = body["messages"][-1]["content"]
    urls = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
    return [PIL.Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))) for url in urls]


def text(body):
    """The text of the user in a request."""
    return body["messages"][-1]["content"][0]["text"]


def brightness(image):
    return float(np.asarray(image.convert("L")).mean())


def verdict(choice, reason="it shows more of it"):
    return {"reason": reason, "verdict": choice}


def always(choice):
    """Chooses "first", "second" or "tie" whatever it is shown."""
    return lambda body: verdict(choice)


def darker(body):
    """An honest judge of prompts that ask for darkness."""
    first, second = map(brightness, images(body))
    return verdict("tie" if abs(first - second) < 1 else "first" if first < second else "second")


def at_random(seed=0):
    numbers, lock = random.Random(seed), threading.Lock()

    def answer(body):
        with lock:
            return verdict(numbers.choice(["first", "second", "tie"]))

    return answer


def rating(**numbers):
    """Gives these numbers, and 0 to every effect that is not among them."""

    def answer(body):
        wanted = body["response_format"]["json_schema"]["schema"]["required"]
        given = {name: numbers.get(name, 0) for name in wanted if name != "description"}
        return {"description": "a bus, hardly to be seen", **given}

    return answer


MALFORMED = Reply('{"reason": "the fir')
EXTRA_KEY = Reply(json.dumps({**verdict("first"), "score": 7}))
WRONG_WORD = Reply(json.dumps(verdict("both")))
REFUSAL = Reply(None, refusal="I cannot judge this.")
FILTERED = Reply(status=400, code="content_filter", error="flagged")
TOO_MANY = Reply(status=429, headers={"Retry-After": "1"})
BROKEN = Reply(status=503)
CUT = Reply(json.dumps(verdict("first")), cut=True)
FAULTS = (MALFORMED, EXTRA_KEY, WRONG_WORD, REFUSAL, FILTERED, TOO_MANY, BROKEN, CUT)


def failing(answer, share, seed=0, faults=FAULTS):
    """Fails in one of the ways with this probability, and else answers as `answer` does."""
    numbers, lock = random.Random(seed), threading.Lock()

    def reply(body):
        with lock:
            fault = numbers.choice(faults) if numbers.random() < share else None
        return answer(body) if fault is None else fault

    return reply
