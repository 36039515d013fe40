"""Where an API is, and the key for it: read from the environment and written nowhere."""

from __future__ import annotations

import ipaddress
import os
import re
import urllib.parse

from widespectrum.errors import InputError

__all__ = ["checked_url", "hidden", "host_of", "is_local", "read_key"]

# Shorter ones are placeholders for servers that check none, and are found in ordinary words.
_SHORTEST_KEY = 8


def checked_url(name: str, base_url: object) -> str:
    """The base URL without a slash at its end; InputError where it is none, or carries a password."""
    what_to_do = "give base_url= as https://host/path"
    if not isinstance(base_url, str):
        raise InputError(f"{name}: the base URL is {base_url!r}, expected a text: {what_to_do}")
    # Not shown in the message: it may be a password.
    if re.match(r"[^/]*//[^/]*@", base_url):
        raise InputError(f"{name}: a base URL holds no user and no password: set the key in the environment")
    try:
        parts = urllib.parse.urlsplit(base_url)
        host, _ = (parts.hostname or "").encode("idna"), parts.port
    except ValueError as error:
        raise InputError(f"{name}: the base URL {base_url!r} is not one ({error}): {what_to_do}") from None
    if parts.scheme not in ("http", "https") or not host:
        raise InputError(f"{name}: the base URL is {base_url!r}, expected http://... or https://...: {what_to_do}")
    if parts.query or parts.fragment or re.search(r"[^\x21-\x7e]", base_url):
        raise InputError(f"{name}: the base URL {base_url!r} has a query, a fragment or a space: {what_to_do}")
    return base_url.rstrip("/")


def host_of(url: str) -> str:
    """The host of a URL, in lower case and without its port."""
    return (urllib.parse.urlsplit(url).hostname or "").lower()


def is_local(url: str) -> bool:
    """Whether a URL leads to this machine."""
    host = host_of(url)
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def read_key(name: str, variable: str, base_url: str) -> str | None:
    """The key in the environment variable, or None where it is not set and the server is local.

    Raises InputError where it is not set and the server is not local, or where it cannot be sent.
    """
    key = os.environ.get(variable, "").strip()
    if not key and not is_local(base_url):
        raise InputError(f"{name} needs an API key for {host_of(base_url)}: set {variable} in the environment")
    if re.search(r"[^\x21-\x7e]", key):
        raise InputError(f"{name}: {variable} holds a space or a character outside ASCII: copy the key again")
    return key or None


def hidden(text: str, key: str | None, variable: str) -> str:
    """`text` with the key taken out."""
    return text if key is None or len(key) < _SHORTEST_KEY else text.replace(key, f"[{variable}]")
