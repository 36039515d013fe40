"""What comes back from a model: a reply that fits its schema, one that does not, or an error."""

from __future__ import annotations

import email.utils
import functools
import json
import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from widespectrum.errors import InputError, ModelError

if TYPE_CHECKING:
    import jsonschema.protocols

__all__ = ["BadReplyError", "Outcome", "Reply", "failure", "parse", "read_body", "validator", "writable"]

_FENCED = re.compile(r"```(?:json)?\s*(\{.*\})\s*```", re.DOTALL | re.IGNORECASE)
_THOUGHTS = re.compile(r"\s*<think>.*?</think>", re.DOTALL)
_FILTERED = ("content_filter", "content_policy_violation", "moderation_blocked", "invalid_prompt")
_OF_THE_QUESTION = (*_FILTERED, "context_length_exceeded")
_LONGEST_RETRY_AFTER = 600.0


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply that fits the schema of its question, and the text in which it came."""

    value: dict[str, Any]
    raw: str


class BadReplyError(ModelError):
    """A question got no reply that fits its schema: `key` of the question, `raw` text of the last reply.

    `refused` says that the model, or a filter of the server, declined to answer.
    """

    def __init__(self, message: str, *, key: str, raw: str, refused: bool = False) -> None:
        super().__init__(message)
        self.key = key
        self.raw = raw
        self.refused = refused


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One request's outcome: `ok` (it has a value), `bad` (the reply does not fit) or `error` (there is no reply).

    `raw` is the reply as it came, `code` the HTTP status of an error (None: there was no response), `kind` the
    server's own word for it, `wait` the seconds that the server asks to wait; `refused`: the model, or a filter of the
    server, declined.
    """

    status: Literal["ok", "bad", "error"]
    value: dict[str, Any] | None = None
    raw: str | None = None
    error: str | None = None
    code: int | None = None
    kind: str | None = None
    wait: float | None = None
    refused: bool = False
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def concerns_the_question(self) -> bool:
        """Whether the server will not answer this question, whoever asks and however often."""
        return self.status != "ok" and self.kind in _OF_THE_QUESTION

    @property
    def came_to_nothing(self) -> bool:
        """Whether the request got an HTTP error, or no response at all: nobody asks money for that."""
        return self.status == "error" and self.code != 200

    @property
    def is_worth_a_retry(self) -> bool:
        """Whether the same request may get another outcome."""
        # A refusal is an answer: whoever asks until it is another one has paid for a worse one.
        if self.refused or self.concerns_the_question or self.kind == "insufficient_quota":
            return False
        if (self.wait or 0) > _LONGEST_RETRY_AFTER:
            return False
        return self.code is None or self.code in (200, 408, 409, 429) or self.code >= 500


def writable(text: str) -> str:
    """The text with halves of surrogate pairs, which no UTF-8 file takes, spelled out."""
    return text.encode("utf-8", "backslashreplace").decode()


def _one_line(text: str, limit: int = 300) -> str:
    line = writable(" ".join(text.split()))
    return line if len(line) <= limit else f"{line[:limit]}..."


@functools.lru_cache(maxsize=64)
def validator(schema: str) -> jsonschema.protocols.Validator:
    """The validator of a JSON schema, given as text; InputError where it is none."""
    import jsonschema

    parsed = json.loads(schema)
    kind = jsonschema.validators.validator_for(parsed, default=jsonschema.Draft202012Validator)
    try:
        kind.check_schema(parsed)
    except jsonschema.SchemaError as error:
        raise InputError(f"not a JSON schema ({_one_line(error.message)}): correct the schema") from None
    return kind(parsed)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def parse(text: str, schema: str) -> tuple[dict[str, Any] | None, str]:
    """The reply `text` as an object that fits `schema`; or None and the reason.

    What models put around it where a server leaves them free is passed over: thoughts, a fence, words beside the fence.
    """
    from jsonschema.exceptions import best_match

    said = _THOUGHTS.sub("", text, count=1) if text.lstrip().startswith("<think>") else text
    fenced = None if said.lstrip().startswith("{") else _FENCED.search(said)
    try:
        value = json.loads(fenced[1] if fenced else said, parse_constant=_no_constant)
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return None, "half a surrogate pair in a text"
    except (ValueError, RecursionError) as error:
        return None, f"no JSON: {error}"
    if not isinstance(value, dict):
        return None, f"expected a JSON object, got {type(value).__name__}"
    problem = best_match(validator(schema).iter_errors(value))
    return (value, "") if problem is None else (None, _one_line(f"{problem.json_path}: {problem.message}"))


def _facts(data: Any, choice: Any) -> dict[str, Any]:
    """What the journal keeps of a body beside the text."""
    facts = {name: data.get(name) for name in ("id", "model", "usage")} if isinstance(data, dict) else {}
    return facts | {"finish_reason": choice.get("finish_reason") if isinstance(choice, dict) else None}


def _reason(error: Any) -> str | None:
    """The server's own word for what went wrong, from an error object."""
    if not isinstance(error, Mapping):
        return None
    # OpenRouter's, whose code is that of a missing permission.
    if isinstance(error.get("metadata"), Mapping) and "flagged_input" in error["metadata"]:
        return "moderation_blocked"
    return error["code"] if isinstance(error.get("code"), str) else None


def read_body(body: str, schema: str) -> Outcome:
    """The outcome of a response with status 200: its first choice, checked against `schema`."""
    data: Any = None
    choice: Any = None
    try:
        data = json.loads(body)
        choice = data["choices"][0]
        text, refusal = (choice["message"].get(name) for name in ("content", "refusal"))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        kind = _reason(data.get("error")) if isinstance(data, dict) else None
        reason = f"no chat completion came: {_one_line(body)}"
        facts = _facts(data, choice)
        refused = kind in _FILTERED
        return Outcome(status="error", raw=body, error=reason, code=200, kind=kind, refused=refused, facts=facts)
    facts = _facts(data, choice)
    said = isinstance(text, str) and bool(text)
    value, reason = parse(text, schema) if said else (None, f"no text (finish reason {facts['finish_reason']})")
    if value is not None:
        return Outcome(status="ok", value=value, raw=text, facts=facts)
    refused = isinstance(refusal, str) and bool(refusal)
    # Gemini writes the reason behind it.
    filtered = str(facts["finish_reason"]).startswith("content_filter")
    if refused:
        text, reason = text if said else refusal, f"a refusal: {_one_line(refusal)}"
    elif said and facts["finish_reason"] == "length":
        reason = f"{reason} (cut off at the token limit)"
    elif said and filtered:
        reason = f"{reason} (cut off by a content filter)"
    return Outcome(
        status="bad",
        raw=text if isinstance(text, str) else "",
        error=reason,
        kind="content_filter" if filtered else None,
        refused=refused or filtered,
        facts=facts,
    )


def _retry_after(value: str | None) -> float | None:
    """Seconds that a Retry-After header asks for: a number, or an HTTP date."""
    if value is None:
        return None
    with suppress(ValueError):
        seconds = float(value)
        return max(0.0, seconds) if seconds == seconds else None
    date = email.utils.parsedate_tz(value)
    return None if date is None else max(0.0, email.utils.mktime_tz(date) - time.time())


def failure(error: Exception, hide: Callable[[str], str]) -> Outcome:
    """The outcome of a request on which the SDK raised; `hide` takes secrets out of what the server said."""
    import openai

    if isinstance(error, openai.APITimeoutError):
        return Outcome(status="error", error="no reply in time")
    if not isinstance(error, openai.APIStatusError):
        cause = error.__cause__ or error
        what = "no connection" if isinstance(error, openai.APIConnectionError) else "no reply that can be read"
        return Outcome(status="error", error=_one_line(hide(f"{what}: {str(cause) or type(cause).__name__}")))
    said = error.body.get("message") if isinstance(error.body, Mapping) else error.body
    kind = _reason(error.body) or error.code
    return Outcome(
        status="error",
        raw=hide(error.response.text),
        error=_one_line(hide(f"{error.status_code}: {said or 'no reason given'}")),
        code=error.status_code,
        kind=kind,
        refused=kind in _FILTERED,
        wait=_retry_after(error.response.headers.get("retry-after")),
    )
