"""What is asked: a question, and the request that is made of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from widespectrum.errors import InputError

from .pictures import Picture, Shown, source

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Question", "Request", "compose", "digest"]

_IN_WORDS = "Answer with one JSON object and with nothing else. It must fit this JSON schema:\n"


class Question(NamedTuple):
    """What to ask: a key of its own, chat messages, the JSON schema of the reply, and images.

    Images are Pillow's, encoded, or `Shown`, which is for those that several questions hold. They follow the text of
    the last user message, in the given order, each after its line of `captions` where there are any.
    """

    key: str
    messages: Sequence[Mapping[str, Any]]
    schema: Mapping[str, Any]
    images: Sequence[Image | bytes | Shown] = ()
    captions: Sequence[str] = ()

    @property
    def is_shown(self) -> bool:
        """Whether it holds images that are not to be encoded by the caller."""
        return any(isinstance(image, Shown) for image in self.images)

    def checked_key(self) -> str:
        """The key; InputError where it is none."""
        if not self.key or not isinstance(self.key, str):
            raise InputError(f"a question has the key {self.key!r}: give it a word of its own")
        return self.key

    def places(self) -> list[str]:
        """What each image is called in an error."""
        return [f"image {number} of the question {self.key!r}" for number in range(1, len(self.images) + 1)]


class Request(NamedTuple):
    """A question that is ready to be sent; `schema` is canonical JSON, `digest` covers all that shapes the reply.

    `max_side` is the longest side in pixels that its images may have.
    """

    key: str
    messages: list[dict[str, Any]]
    schema: str
    digest: str
    max_side: int
    captions: tuple[str, ...] = ()
    pictures: tuple[Picture, ...] = ()

    @classmethod
    def of(cls, question: Question, options: Mapping[str, Any], max_side: int) -> Request:
        """The request of a question, its images not yet encoded; InputError where the question cannot be asked."""
        key, messages = question.checked_key(), [dict(message) for message in question.messages]
        if not any(message.get("role") == "user" for message in messages):
            raise InputError(f"the question {key!r} has no message of the role user: add one")
        if question.captions and len(question.captions) != len(question.images):
            raise InputError(
                f"the question {key!r} has {len(question.captions)} captions for {len(question.images)} images: give "
                "as many, or none"
            )
        sources = [source(*pair) for pair in zip(question.images, question.places(), strict=True)]
        limits = [each.max_side if isinstance(each, Shown) else max_side for each in question.images]
        facts = {
            **options,
            "messages": messages,
            "schema": question.schema,
            "images": [{"source": each, "max_side": limit} for each, limit in zip(sources, limits, strict=True)],
        }
        # Not named where there are none, so that journals of questions without them stay good.
        facts |= {"captions": list(question.captions)} if question.captions else {}
        try:
            schema, largest = _canonical(question.schema), max(limits, default=max_side)
            return cls(key, messages, schema, digest(facts), largest, tuple(question.captions))
        except UnicodeEncodeError:
            raise InputError(f"the question {key!r} holds half a surrogate pair: correct its text") from None


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest(value: Any) -> str:
    """The sha256 of a JSON value, whatever the order of its names."""
    return hashlib.sha256(_canonical(value).encode()).hexdigest()


def _as_parts(content: Any) -> list[Any]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else list(content)


def compose(request: Request, images: list[dict[str, Any]], *, in_words: bool) -> list[dict[str, Any]]:
    """The messages with `images` in them and, with `in_words`, with the schema in the system text."""
    messages = [dict(message) for message in request.messages]
    if images:
        last = [message for message in messages if message["role"] == "user"][-1]
        captions = [_as_parts(caption) for caption in request.captions] or [[] for _ in images]
        parts = [part for caption, image in zip(captions, images, strict=True) for part in (*caption, image)]
        last["content"] = _as_parts(last["content"]) + parts
    if not in_words:
        return messages
    words, first = _IN_WORDS + request.schema, messages[0]
    if first["role"] != "system":
        return [{"role": "system", "content": words}, *messages]
    is_text = isinstance(first["content"], str)
    first["content"] = f"{first['content']}\n\n{words}" if is_text else [*first["content"], *_as_parts(words)]
    return messages
