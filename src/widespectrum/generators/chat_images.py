"""Models that answer a chat message with an image: OpenRouter, Google, and servers that speak like them."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from widespectrum.types import Prompt

from .api import ApiGenerator
from .api_openai import Body, ask, connect, read_inner_error
from .api_pictures import from_url
from .api_places import host_of, is_local
from .api_prices import list_price
from .api_replies import CallError, Reply, refusal

__all__ = ["ChatImages"]

_HOME = "https://openrouter.ai/api/v1"
_OPENROUTER, _GOOGLE = "openrouter.ai", "generativelanguage.googleapis.com"
# The vendors' words for an answer that was held back.
_HELD_BACK = re.compile(r"content_filter|safety|prohibited|blocklist|recitation|spii|refusal|moderation", re.IGNORECASE)
_IN_TEXT = re.compile(
    r"!?\[[^\]]*\]\((?P<link>data:image/[^)\s]+|https?://[^)\s]+)\)|(?P<bare>data:image/[\w.+-]+;base64,[A-Za-z0-9+/=_-]*)"
)


def _address(item: object) -> str | None:
    """The URL of an image in one of the forms in which servers send it; None where it is none."""
    if isinstance(item, str):
        return item if item.startswith(("data:image/", "https://", "http://")) else None
    if not isinstance(item, Mapping):
        return None
    for name in ("image_url", "url"):
        if name in item:
            return _address(item[name])
    for name in ("inline_data", "inlineData", "source"):
        if isinstance(item.get(name), Mapping):
            return _address(item[name])
    encoded = next((item[name] for name in ("b64_json", "data") if isinstance(item.get(name), str)), None)
    return None if encoded is None else f"data:image/any;base64,{encoded}"


def _contents(message: Mapping[str, Any]) -> Iterator[tuple[str | None, str]]:
    """The parts of a message in order: the URL of an image, or a text. Separate images come first."""
    pictures = message.get("images")
    for item in pictures if isinstance(pictures, list) else []:
        yield _address(item), ""
    content = message.get("content")
    parts = content if isinstance(content, list) else [content]
    for part in parts:
        text = part.get("text") if isinstance(part, Mapping) else part
        if isinstance(text, str):
            yield from _in_text(text)
        else:
            yield _address(part), ""


def _in_text(text: str) -> Iterator[tuple[str | None, str]]:
    """Images as data URLs, or as Markdown, in a text; then the text without them."""
    for found in _IN_TEXT.finditer(text):
        image = found["link"] or found["bare"]
        if found["bare"] or found[0].startswith("!") or image.startswith("data:"):
            yield image, ""
    yield None, _IN_TEXT.sub("", text).strip()


def _cost(usage: object) -> float | None:
    """US dollars, where the vendor says them."""
    cost = usage.get("cost") if isinstance(usage, Mapping) else None
    is_number = isinstance(cost, int | float) and not isinstance(cost, bool)
    # No picture costs a million, and an integer may be too long for a float.
    return float(cost) if is_number and 0 <= cost < 1e6 else None  # type: ignore[operator, arg-type]


class ChatImages(ApiGenerator):
    """A model behind `POST /chat/completions` whose reply holds an image.

    The prompt is the whole message. The key is OPENROUTER_API_KEY for openrouter.ai (and for a server on this
    machine), GEMINI_API_KEY for generativelanguage.googleapis.com, OPENAI_API_KEY for any other. The reply is a
    refusal where it holds words and no image, or was held back; of several images the first is taken. No seed is sent:
    these models do not repeat themselves.
    """

    adapter = "chat-images"
    packages = ("openai", "httpx")

    def __init__(
        self,
        *,
        name: str = "",
        model: str,
        base_url: str = _HOME,
        concurrency: int = 4,
        attempts: int = 5,
        timeout: float = 300,
        price: float | None = None,
    ) -> None:
        super().__init__(
            name=name,
            model=model,
            params={},
            base_url=base_url,
            homes=(_OPENROUTER, _GOOGLE),
            concurrency=concurrency,
            attempts=attempts,
            timeout=timeout,
            price=price,
        )

    def _list_price(self) -> float | None:
        return list_price(self.model)

    def _variable(self) -> str:
        host = host_of(self.base_url)
        if host == _GOOGLE:
            return "GEMINI_API_KEY"
        return "OPENROUTER_API_KEY" if host == _OPENROUTER or is_local(self.base_url) else "OPENAI_API_KEY"

    def _connect(self, key: str | None) -> tuple[Any, Callable[[], None]]:
        client, close = connect(key, self.base_url, self.timeout)
        if self._variable() != "OPENAI_API_KEY":
            # The client takes them from the environment: they name an account at OpenAI.
            client.organization = client.project = None
        return client, close

    def _exchange(self, prompt: Prompt, seed: int) -> Reply:
        at_google = host_of(self.base_url) == _GOOGLE
        send = functools.partial(
            self._client.chat.completions.with_raw_response.create,
            model=self.model.removeprefix("google/") if at_google else self.model,
            messages=[{"role": "user", "content": prompt.text}],
            # Google turns away fields that it does not know.
            extra_body={"modalities": ["image", "text"], **({} if at_google else {"usage": {"include": True}})},
        )
        body = ask(send, self._variable(), self._hide)
        return self._read(body) if isinstance(body, Body) else body

    def _read(self, body: Body) -> Reply:
        """The first image of the reply, or the refusal in it."""
        data = body.data
        facts: dict[str, Any] = {
            "code": 200,
            "request_id": str(data.get("id") or body.request_id),
            "model": str(data.get("model") or ""),
            "cost": _cost(data.get("usage")),
        }
        try:
            return self._choice(data.get("choices"), facts)
        except CallError as error:
            raise CallError(error.reason, then=error.then, kind=error.kind, wait=error.wait, **facts) from None

    def _choice(self, choices: object, facts: dict[str, Any]) -> Reply:
        choice = choices[0] if isinstance(choices, list) and choices else None
        message = choice.get("message") if isinstance(choice, Mapping) else None
        if not isinstance(choice, Mapping) or not isinstance(message, Mapping):
            raise CallError("no message came")
        refused = read_inner_error(choice.get("error"), self._variable(), facts["request_id"])
        if refused is not None:
            return Reply(answer=refused.answer, **facts)
        parts = list(_contents(message))
        for url, _ in parts:
            if url is not None:
                return Reply(answer=from_url(url, self.base_url, self.timeout), **facts)
        ended = [str(choice.get(name) or "") for name in ("finish_reason", "native_finish_reason")]
        held_back = next((reason for reason in ended if _HELD_BACK.search(reason)), "")
        said = str(message.get("refusal") or "").strip() or "\n".join(text for _, text in parts if text)
        if said or held_back:
            return Reply(answer=refusal(said or f"held back without a word ({held_back})"), **facts)
        raise CallError(f"neither an image nor a word came (finish reason {' / '.join(filter(None, ended)) or 'none'})")
