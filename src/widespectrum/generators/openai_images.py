"""OpenAI's images endpoint."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from widespectrum.errors import InputError
from widespectrum.types import Prompt

from .api import ApiGenerator
from .api_openai import Body, ask, connect
from .api_pictures import from_base64
from .api_prices import list_price, list_prices
from .api_replies import CallError, Reply

__all__ = ["OpenAIImages"]

_HOME = "https://api.openai.com/v1"


class OpenAIImages(ApiGenerator):
    """A model behind `POST /images/generations`, asked for one image of `width` x `height` at `quality`.

    The key is OPENAI_API_KEY. The endpoint takes no seed. Raises InputError for a size or quality that a model with a
    list price does not have.
    """

    adapter = "openai-images"
    packages = ("openai",)

    def __init__(
        self,
        *,
        name: str = "",
        model: str,
        quality: str = "high",
        width: int = 1024,
        height: int = 1024,
        base_url: str = _HOME,
        concurrency: int = 4,
        attempts: int = 5,
        timeout: float = 300,
        price: float | None = None,
    ) -> None:
        self._size, self._quality = f"{width}x{height}", quality
        sizes = list_prices(model) if isinstance(model, str) else {}
        if sizes and self._size not in sizes:
            raise InputError(f"{model} makes images of {', '.join(sizes)}; got {self._size}: choose one of these")
        qualities = [*sizes.get(self._size, {}), "auto"]
        if sizes and quality not in qualities:
            raise InputError(
                f"{model} knows the qualities {', '.join(qualities)}; got {quality!r}: choose one of these"
            )
        super().__init__(
            name=name,
            model=model,
            params={"quality": quality, "size": self._size},
            base_url=base_url,
            homes=("api.openai.com",),
            concurrency=concurrency,
            attempts=attempts,
            timeout=timeout,
            price=price,
        )

    def _list_price(self) -> float | None:
        return list_price(self.model, self._size, self._quality)

    def _variable(self) -> str:
        return "OPENAI_API_KEY"

    def _connect(self, key: str | None) -> tuple[Any, Callable[[], None]]:
        return connect(key, self.base_url, self.timeout)

    def _exchange(self, prompt: Prompt, seed: int) -> Reply:
        send = functools.partial(
            self._client.images.with_raw_response.generate,
            model=self.model,
            prompt=prompt.text,
            n=1,
            size=self._size,
            quality=self._quality,
        )
        body = ask(send, self._variable(), self._hide)
        return self._read(body) if isinstance(body, Body) else body

    def _read(self, body: Body) -> Reply:
        pictures = body.data.get("data")
        first = pictures[0] if isinstance(pictures, list) and pictures else None
        text = first.get("b64_json") if isinstance(first, Mapping) else None
        try:
            if not text:
                raise CallError("no image came")
            return Reply(answer=from_base64(text), request_id=body.request_id)
        except CallError as error:
            raise CallError(error.reason, code=200, request_id=body.request_id) from None
