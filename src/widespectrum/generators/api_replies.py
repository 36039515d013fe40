"""What comes of one request to an API: a reply, or the reason why there is none and what to do about it."""

from __future__ import annotations

import email.utils
import json
import math
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

from PIL.Image import Image

from widespectrum.chat.replies import writable
from widespectrum.errors import InputError, ModelError
from widespectrum.protocols import Refusal

__all__ = ["CallError", "Reply", "looks_refused", "one_line", "read_error", "refusal"]

_LONGEST_WAIT = 600.0
_LONGEST_REFUSAL = 4000
_KINDS_OF_REFUSAL = ("moderation_blocked", "content_policy_violation", "content_filter", "safety_violation")
_REFUSED = re.compile(
    r"safety (system|filter|polic)|content[ _-]?(polic|filter|moderation|management)|moderation (system|filter|polic)"
    r"|(input|output|prompt|request|content|message|image)s? (was|were|is|has been|have been) (flagged|blocked)"
    r"|flagged as|nsfw|\(e005\)|prohibited[ _]content",
    re.IGNORECASE,
)
_WRONG_MODEL = re.compile(
    r"not a valid model|model.{0,80}(does not exist|not found)|no endpoints found|invalid version"
)
_NO_CREDIT = re.compile(r"insufficient[ _](credit|quota|funds)|billing_hard_limit|spend(ing)? limit", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An image or a refusal; `cost` in US dollars where the vendor says so, `billed` whether it can cost anything."""

    answer: Image | Refusal
    code: int | None = 200
    request_id: str = ""
    model: str = ""
    cost: float | None = None
    billed: bool = True

    @property
    def paid(self) -> float | None:
        """US dollars that the request cost; None where nobody says."""
        return self.cost if self.cost is not None or self.billed else 0.0


class CallError(Exception):
    """Why a request brought no answer.

    `then` says what follows: `retry` the same request, `skip` the prompt, for which the vendor will not make an image
    however often it is asked, or `stop` altogether, since every request would end so (`kind` is the error to raise).
    `wait` are the seconds that the vendor asks to wait.
    """

    def __init__(
        self,
        reason: str,
        *,
        then: Literal["retry", "skip", "stop"] = "retry",
        kind: type[InputError] | type[ModelError] = ModelError,
        code: int | None = None,
        wait: float | None = None,
        billed: bool = True,
        request_id: str = "",
        model: str = "",
        cost: float | None = None,
    ) -> None:
        super().__init__(reason)
        self.reason, self.then, self.kind, self.code, self.wait = reason, then, kind, code, wait
        self.billed, self.request_id, self.model, self.cost = billed, request_id, model, cost

    @property
    def paid(self) -> float | None:
        """US dollars that the request cost; None where nobody says."""
        return self.cost if self.cost is not None or self.billed else 0.0


def one_line(text: str, limit: int = 300) -> str:
    """The text without line breaks, shortened."""
    line = writable(" ".join(text[: 4 * limit].split()))
    return line if len(line) <= limit else f"{line[:limit]}..."


def looks_refused(text: str) -> bool:
    """Whether an error says that the content is at fault."""
    return _REFUSED.search(text) is not None


def refusal(text: str) -> Refusal:
    """The refusal with the vendor's words."""
    return Refusal(writable(text.strip()[:_LONGEST_REFUSAL]))


def _retry_after(headers: Mapping[str, str], said: str, error: Mapping[str, Any]) -> float | None:
    """Seconds that the vendor asks to wait: a header (number or HTTP date), or what the body says."""
    value = headers.get("retry-after")
    with suppress(ValueError, TypeError):
        return _seconds(float(headers.get("retry-after-ms") or "") / 1000)
    with suppress(ValueError, TypeError):
        return _seconds(float(value or ""))
    # Dates that there are not raise more than ValueError.
    with suppress(ValueError, TypeError, IndexError, OverflowError):
        return _seconds(email.utils.parsedate_to_datetime(value or "").timestamp() - time.time())
    with suppress(ValueError, TypeError, OverflowError):
        return _seconds(float(error.get("retry_after") or ""))
    words = re.search(r"(?:resets|try again|retry) in ~?(\d+(?:\.\d+)?)\s?(ms|s)", said)
    return float(words[1]) / (1000 if words[2] == "ms" else 1) if words else None


def _seconds(value: float) -> float | None:
    return max(0.0, value) if math.isfinite(value) else None


def _parts(body: str) -> tuple[str, set[str], Mapping[str, Any]]:
    """What an error body says: its message, its kinds in the vendor's words, and the rest of it."""
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        return one_line(body), set(), {}
    # Google sends the object in a list.
    data = data[0] if isinstance(data, list) and data else data
    error = data.get("error", data) if isinstance(data, Mapping) else data
    if not isinstance(error, Mapping):
        return one_line(str(error)), set(), {}
    said = next((error[name] for name in ("message", "detail", "title") if isinstance(error.get(name), str)), "")
    kinds = {str(error.get(name)) for name in ("code", "type", "status") if error.get(name) is not None}
    return said.strip(), kinds, error


def read_error(
    code: int, body: str, headers: Mapping[str, str], *, variable: str, request_id: str = ""
) -> Reply | CallError:
    """What an error of the vendor means; `variable` is the environment variable of the key.

    400, 403, 422 and 451 that blame the content are a refusal. Nothing of it was billed.
    """
    said, kinds, error = _parts(body)
    shown = f"{code}: {one_line(said) or 'no reason given'}"
    metadata = error.get("metadata")
    flagged = isinstance(metadata, Mapping) and ("flagged_input" in metadata or "reasons" in metadata)
    # Those that concern the key or the model come first: they may speak of policies too.
    stop = _stop(code, said, kinds, error, variable)
    blamed = flagged or not kinds.isdisjoint(_KINDS_OF_REFUSAL) or looks_refused(said)
    if code in (400, 403, 422, 451) and blamed and (stop is None or code == 403):
        return Reply(answer=refusal(said or shown), code=code, request_id=request_id, billed=False)
    facts: dict[str, Any] = {"code": code, "request_id": request_id, "billed": False}
    if stop is not None:
        kind, what_to_do = stop
        return CallError(f"{shown}: {what_to_do}", then="stop", kind=kind, **facts)
    if code in (408, 409, 425, 429) or code >= 500:
        wait = _retry_after(headers, said, error)
        if (wait or 0) > _LONGEST_WAIT:
            return CallError(f"{shown}: run again in {wait:,.0f} seconds", then="stop", kind=ModelError, **facts)
        return CallError(shown, wait=wait, **facts)
    return CallError(shown, then="skip", kind=InputError, **facts)


def _stop(
    code: int, said: str, kinds: set[str], error: Mapping[str, Any], variable: str
) -> tuple[type[InputError] | type[ModelError], str] | None:
    """The error that concerns every request, and what to do; None where this one alone is concerned."""
    if code == 402 or (code < 500 and _NO_CREDIT.search(" ".join([said, *sorted(kinds)]))):
        return ModelError, "run again when the account has credit"
    if code == 401 or (code in (400, 403) and "api key" in said.lower()):
        return InputError, f"set {variable} to a key that is valid there"
    wrong_model = "model_not_found" in kinds or error.get("param") == "model" or _WRONG_MODEL.search(said.lower())
    if code == 404 or (code in (400, 403, 422) and wrong_model):
        return InputError, "check the name of the model and the base URL"
    if code == 403:
        return InputError, "ask for access, or choose another model"
    return None
