"""How the tests of the APIs open a generator, and what they ask."""

import json
import traceback
from dataclasses import asdict

from tests.image_api_server import (
    Answer,
    Prediction,
    chat,
    chat_image,
    openai_blocked,
    openai_error,
    openai_image,
    openrouter_error,
    picture,
)
from widespectrum.generators.chat_images import ChatImages
from widespectrum.generators.openai_images import OpenAIImages
from widespectrum.generators.replicate_images import ReplicateImages
from widespectrum.types import Prompt

KEY = "sk-a-very-secret-key/with+signs"
KEYS = ("OPENAI_API_KEY", "OPENROUTER_API_KEY", "GEMINI_API_KEY", "REPLICATE_API_TOKEN")

BLOCKED = "The input or output was flagged as sensitive. Please try again with different inputs. (E005)"

MAKERS = {
    "openai": lambda server, **options: OpenAIImages(model="gpt-image-1.5", base_url=server.openai, **options),
    "chat": lambda server, **options: ChatImages(
        model="google/gemini-2.5-flash-image", base_url=server.openai, **options
    ),
    "replicate": lambda server, **options: ReplicateImages(model="qwen/qwen-image", base_url=server.url, **options),
}
GOOD = {
    "openai": openai_image(),
    "chat": chat_image(),
    "replicate": Prediction(files=[picture()], polls=0),
}
REFUSED = {
    "openai": openai_blocked(),
    "chat": chat({"content": "I cannot draw that."}),
    "replicate": Prediction(status="failed", error=BLOCKED, polls=0),
}


def error(vendor, status, message, headers=None):
    """An error in the vendor's format."""
    if vendor == "openai":
        return openai_error(status, message, headers=headers or {})
    if vendor == "chat":
        return openrouter_error(status, message, headers=headers or {})
    return Answer({"title": "Problem", "detail": message, "status": status}, status, headers or {})


def prompt(number=0, role="original"):
    dimensions = () if role == "original" else ("clarity",)
    text = f"a cup, number {number}" + (", blurred" if dimensions else "")
    return Prompt(prompt_id="", text=text, pair_id=f"cup/{number}", role=role, dimensions=dimensions)


def ask(generator, count=1):
    return generator.generate([prompt(number) for number in range(count)], seeds=[0] * count)


def quick(monkeypatch):
    """No time to wait, and a key for every vendor."""
    for name in ("OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_BASE_URL", "OPENAI_CUSTOM_HEADERS", "OPENAI_ADMIN_KEY"):
        monkeypatch.delenv(name, raising=False)
    for name in KEYS:
        monkeypatch.setenv(name, KEY)
    monkeypatch.setenv("REPLICATE_POLL_INTERVAL", "0.005")
    monkeypatch.setattr("widespectrum.generators.api.FIRST_PAUSE", 0.001)


def everything(*things):
    """All that can be read of calls, answers and exceptions, with whatever hangs on them."""
    texts = []
    for thing in things:
        if isinstance(thing, BaseException):
            texts += ["".join(traceback.format_exception(thing)), repr(thing), repr(vars(thing))]
            texts += [repr(each) for each in (thing.__cause__, thing.__context__)]
        elif hasattr(thing, "__dataclass_fields__"):
            texts.append(json.dumps(asdict(thing)))
        else:
            texts.append(repr(thing))
    return "\n".join(texts)
