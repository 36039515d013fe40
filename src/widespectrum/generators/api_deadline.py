"""A limit for a whole request: the timeouts of httpx start anew with every piece of a response."""

from __future__ import annotations

import functools
import importlib
import time
from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["ends_within"]


def ends_within(seconds: float) -> dict[str, list[Callable[[Any], None]]]:
    """Event hooks of an `httpx.Client` that raise ReadTimeout where a body still comes so long after the request.

    Some vendors send blanks while they work, so that no single read is ever late.
    """

    def begin(request: Any) -> None:
        request.extensions = {**request.extensions, "ends": time.monotonic() + seconds}

    def limit(response: Any) -> None:
        library = type(response).__module__.partition(".")[0]
        response.stream = _limited(library)(response.stream, response.request.extensions["ends"])

    return {"request": [begin], "response": [limit]}


@functools.cache
def _limited(library: str) -> Any:
    """The class of streams that end in time, for httpx or for httpx2, whichever an SDK is built upon."""
    httpx: Any = importlib.import_module(library)

    class Limited(httpx.SyncByteStream):  # type: ignore[misc]
        def __init__(self, stream: Any, ends: float) -> None:
            self._stream, self._ends = stream, ends

        def __iter__(self) -> Iterator[bytes]:
            for piece in self._stream:
                if time.monotonic() > self._ends:
                    raise httpx.ReadTimeout("the response took too long")
                yield piece

        def close(self) -> None:
            self._stream.close()

    return Limited
