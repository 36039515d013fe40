"""Where a model is asked: its name and the base URL of the server."""

from __future__ import annotations

import ipaddress
import os
import re
import urllib.parse
from dataclasses import dataclass

from widespectrum.errors import InputError

__all__ = ["Endpoint"]

_PREFIX = "openai:"
_FORM = 'write it as "openai:<model>@<base URL>", such as openai:gpt-5@https://api.openai.com/v1'
_CREDENTIALS = re.compile(r"https?://[^/]*@", re.IGNORECASE)


def _problem(base_url: str) -> str:
    """What is wrong with a base URL; empty where nothing is."""
    try:
        parts = urllib.parse.urlsplit(base_url)
        host, _ = (parts.hostname or "").encode("idna"), parts.port
    except ValueError as error:
        return f"the base URL {base_url!r} is not one ({error})"
    if parts.scheme not in ("http", "https") or not host:
        return f"the base URL is {base_url!r}, expected http://... or https://..."
    if parts.query or parts.fragment or re.search(r"\s|[^\x20-\x7e]", parts.path):
        return f"the base URL {base_url!r} has a query, a fragment or a space"
    return ""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A model on a server that speaks the chat completions of OpenAI. `str()` gives the text that `parse` reads.

    Raises InputError where the model is empty or the base URL is not one, or carries a password.
    """

    model: str
    base_url: str

    def __post_init__(self) -> None:
        if not self.model or self.model != self.model.strip():
            raise InputError(f"an endpoint needs a model, got {self.model!r}: {_FORM}")
        # Not shown in the message: it may be a password.
        if _CREDENTIALS.match(self.base_url):
            raise InputError(f"a base URL holds no user and no password: set OPENAI_API_KEY, and {_FORM}")
        if problem := _problem(self.base_url):
            raise InputError(f"{problem}: {_FORM}")
        object.__setattr__(self, "base_url", self.base_url.rstrip("/"))

    @classmethod
    def parse(cls, text: str) -> Endpoint:
        """The endpoint of `openai:<model>@<base URL>`; the base URL begins behind the last `@`."""
        if _CREDENTIALS.search(text):
            raise InputError(f"a base URL holds no user and no password: set OPENAI_API_KEY, and {_FORM}")
        model, at, base_url = text.removeprefix(_PREFIX).rpartition("@")
        if not text.startswith(_PREFIX) or not at:
            raise InputError(f"{text!r} is not an endpoint: {_FORM}")
        return cls(model, base_url)

    def __str__(self) -> str:
        return f"{_PREFIX}{self.model}@{self.base_url}"

    @property
    def is_local(self) -> bool:
        """Whether the server runs on this machine."""
        host = urllib.parse.urlsplit(self.base_url).hostname or ""
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host == "localhost" or host.endswith(".localhost")

    def api_key(self) -> str | None:
        """OPENAI_API_KEY, or None where it is not set and the server is local.

        Raises InputError where it is not set and the server is not local, or where it cannot be sent.
        """
        key = os.environ.get("OPENAI_API_KEY", "").strip()
        if not key and not self.is_local:
            raise InputError(
                f"{self} needs an API key: set OPENAI_API_KEY (to any word where the server does not check it)"
            )
        if re.search(r"[^\x21-\x7e]", key):
            raise InputError("OPENAI_API_KEY holds a space or a character outside ASCII: copy the key again")
        return key or None
