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
    import openai

__all__ = ["BadReplyError", "Outcome", "failure", "parse", "read_body", "validator", "writable"]

_FENCED = re.compile(r"```(?:json)?\s*(\{.*\})\s*```", re.DOTALL | re.IGNORECASE)
_THOUGHTS = re.compile(r"\s*<think>.*?</think>", re.DOTALL)
_OF_THE_QUESTION = ("content_filter", "content_policy_violation", "context_length_exceeded", "moderation_blocked")
_LONGEST_RETRY_AFTER = 600.0


class BadReplyError(ModelError):
    """A question got no reply that fits its schema: `key` of the question, `raw` text of the last reply."""

    def __init__(self, message: str, *, key: str, raw: str) -> None:
        super().__init__(message)
        self.key = key
        self.raw = raw


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One request's outcome: `ok` (it has a value), `bad` (the reply does not fit) or `error` (there is no reply).

    `raw` is the reply as it came, `code` the HTTP status of an error (None: there was no response), `kind` the
    server's own word for it, `wait` the seconds that the server asks to wait.
    """

    status: Literal["ok", "bad", "error"]
    value: dict[str, Any] | None = None
    raw: str | None = None
    error: str | None = None
    code: int | None = None
    kind: str | None = None
    wait: float | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def concerns_the_question(self) -> bool:
        """Whether the server will not answer this question, whoever asks and however often."""
        return self.status == "error" and self.kind in _OF_THE_QUESTION

    @property
    def is_worth_a_retry(self) -> bool:
        """Whether the same request may get another outcome."""
        if self.kind == "insufficient_quota" or (self.wait or 0) > _LONGEST_RETRY_AFTER:
            return False
        return self.code is None or self.code in (408, 409, 429) or self.code >= 500


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


def read_body(body: str, schema: str) -> Outcome:
    """The outcome of a response with status 200: its first choice, checked against `schema`."""
    try:
        data = json.loads(body)
        choice = data["choices"][0]
        text, refusal = (choice["message"].get(name) for name in ("content", "refusal"))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return Outcome(status="error", raw=body, error=f"no chat completion came: {_one_line(body)}")
    facts = {name: data.get(name) for name in ("id", "model", "usage")}
    facts["finish_reason"] = ended = choice.get("finish_reason")
    if not isinstance(text, str) or not text:
        said = refusal if isinstance(refusal, str) else ""
        reason = f"a refusal: {_one_line(said)}" if said else f"no text (finish reason {ended})"
        return Outcome(status="bad", raw=said, error=reason, facts=facts)
    value, reason = parse(text, schema)
    if value is not None:
        return Outcome(status="ok", value=value, raw=text, facts=facts)
    reason = f"{reason} (cut off at the token limit)" if ended == "length" else reason
    return Outcome(status="bad", raw=text, error=reason, facts=facts)


def _retry_after(value: str | None) -> float | None:
    """Seconds that a Retry-After header asks for: a number, or an HTTP date."""
    if value is None:
        return None
    with suppress(ValueError):
        seconds = float(value)
        return max(0.0, seconds) if seconds == seconds else None
    date = email.utils.parsedate_tz(value)
    return None if date is None else max(0.0, email.utils.mktime_tz(date) - time.time())


def failure(error: openai.APIError, hide: Callable[[str], str]) -> Outcome:
    """The outcome of a request on which the SDK raised; `hide` takes secrets out of what the server said."""
    import openai

    if isinstance(error, openai.APITimeoutError):
        return Outcome(status="error", error="no reply in time")
    if not isinstance(error, openai.APIStatusError):
        cause = error.__cause__ or error
        return Outcome(status="error", error=_one_line(hide(f"no connection: {cause or type(cause).__name__}")))
    said = error.body.get("message") if isinstance(error.body, Mapping) else error.body
    return Outcome(
        status="error",
        raw=hide(error.response.text),
        error=_one_line(hide(f"{error.status_code}: {said or 'no reason given'}")),
        code=error.status_code,
        kind=error.code,
        wait=_retry_after(error.response.headers.get("retry-after")),
    )
