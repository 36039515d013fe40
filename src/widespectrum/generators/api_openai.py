"""Asking servers that speak OpenAI's protocols, by the official client."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .api_deadline import ends_within
from .api_replies import CallError, Reply, one_line, read_error

__all__ = ["Body", "ask", "connect", "read_inner_error"]

# With these nothing was sent yet.
_UNSENT = ("ConnectError", "ConnectTimeout", "PoolTimeout", "UnsupportedProtocol")


@dataclass(frozen=True, slots=True)
class Body:
    """The JSON object of a response, and the vendor's id of the request."""

    data: Mapping[str, Any]
    request_id: str


def connect(key: str | None, base_url: str, timeout: float) -> tuple[Any, Callable[[], None]]:
    """The official client, and what closes it; trying again is not its business."""
    import openai

    http = openai.DefaultHttpxClient(event_hooks=ends_within(timeout))
    client = openai.OpenAI(base_url=base_url, api_key=key or "none", timeout=timeout, max_retries=0, http_client=http)
    return client, client.close


def ask(send: Callable[[], Any], variable: str, hide: Callable[[str], str]) -> Body | Reply:
    """What one request of the client brings; a Reply where the vendor refused. CallError where nothing came.

    `hide` takes the key out of what came.
    """
    import openai

    try:
        response = send().http_response
    except openai.APIStatusError as error:
        code, text, headers = error.status_code, hide(error.response.text), error.response.headers
        return _answered(
            read_error(code, text, headers, variable=variable, request_id=headers.get("x-request-id") or "")
        )
    except openai.APIError as error:
        cause = error.__cause__ or error
        late = isinstance(error, openai.APITimeoutError)
        reason = "no reply in time" if late else f"no connection: {str(cause) or type(cause).__name__}"
        raise CallError(one_line(hide(reason)), billed=type(cause).__name__ not in _UNSENT) from None
    request_id = response.headers.get("x-request-id") or ""
    text = hide(response.text)
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict):
        raise CallError(f"no JSON object came: {one_line(text)}", code=200, request_id=request_id)
    refused = read_inner_error(data.get("error"), variable, request_id)
    return Body(data, request_id) if refused is None else refused


def read_inner_error(error: object, variable: str, request_id: str) -> Reply | None:
    """What an error inside a response with status 200 means, as OpenRouter sends it; None where there is none."""
    if not error:
        return None
    code = error.get("code") if isinstance(error, Mapping) else None
    status = code if isinstance(code, int) and 400 <= code < 600 else 502
    return _answered(read_error(status, json.dumps({"error": error}), {}, variable=variable, request_id=request_id))


def _answered(outcome: Reply | CallError) -> Reply:
    if isinstance(outcome, CallError):
        raise outcome from None
    return outcome
