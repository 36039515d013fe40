"""The images that APIs send: base64 text, data URLs and files to download."""

from __future__ import annotations

import base64
import binascii
import functools
import struct
from contextlib import suppress
from typing import Any

from PIL import ImageOps
from PIL.Image import Image

from widespectrum import images
from widespectrum.errors import RunFolderError
from widespectrum.prompts.images import to_rgb

from .api_deadline import ends_within
from .api_places import host_of, is_local
from .api_replies import CallError, one_line

__all__ = ["from_base64", "from_bytes", "from_url"]

_MOST_BYTES = 64 * 2**20
_MOST_REDIRECTS = 5


def from_bytes(content: bytes) -> Image:
    """A fresh RGB image, upright, without metadata; CallError for bytes of none, or of one that is too large."""
    try:
        image = images.decode(content, "the image that came")
    except RunFolderError as error:
        raise CallError(str(error)) from None
    if image.mode.startswith(("I", "F")):
        raise CallError(f"the image that came has more than 8 bits per channel (mode {image.mode})")
    # A damaged note of which side is up is none.
    with suppress(OSError, SyntaxError, ValueError, TypeError, KeyError, struct.error):
        image = ImageOps.exif_transpose(image)
    fresh = to_rgb(image).copy()
    fresh.info = {}
    return fresh


def from_base64(text: object) -> Image:
    """The image in a base64 text; CallError where it is none."""
    try:
        content = base64.b64decode("".join(text.split()) if isinstance(text, str) else b"", validate=True)
    except (binascii.Error, ValueError) as error:
        raise CallError(f"the image that came is not base64 ({error})") from None
    return from_bytes(content)


def from_url(url: str, base_url: str, timeout: float) -> Image:
    """The image of a data URL, or the one at an address that the API at `base_url` names.

    An address must be https, or lead to this machine where the API itself does. It is asked without any key.
    """
    if url.startswith("data:"):
        head, comma, text = url.partition(",")
        if not comma or not head.endswith(";base64"):
            raise CallError(f"the image that came is a data URL without base64: {one_line(url, 60)}")
        return from_base64(text)
    return from_bytes(_download(url, base_url, timeout))


def _check_address(url: str, base_url: str) -> None:
    if is_local(url) and is_local(base_url):
        return
    if not url.startswith("https://") or is_local(url):
        raise CallError(f"the image is said to be at {one_line(url, 100)}, expected https://...")


@functools.cache
def _certificates() -> Any:
    """Read once: reading them takes longer than many a download."""
    import httpx

    return httpx.create_ssl_context()


def _download(url: str, base_url: str, timeout: float) -> bytes:
    import httpx

    def check(request: Any) -> None:
        """Of every redirect too."""
        _check_address(str(request.url), base_url)

    _check_address(url, base_url)
    hooks = ends_within(timeout)
    content = bytearray()
    try:
        with (
            httpx.Client(
                verify=_certificates(),
                timeout=timeout,
                follow_redirects=True,
                max_redirects=_MOST_REDIRECTS,
                event_hooks={**hooks, "request": [check, *hooks["request"]]},
            ) as client,
            client.stream("GET", url) as response,
        ):
            if response.status_code != 200:
                raise CallError(f"the image at {host_of(url)} cannot be fetched ({response.status_code})")
            for chunk in response.iter_bytes():
                content += chunk
                if len(content) > _MOST_BYTES:
                    raise CallError(f"the image at {host_of(url)} has more than {_MOST_BYTES:,} bytes")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise CallError(f"the image at {host_of(url)} cannot be fetched ({type(error).__name__})") from None
    return bytes(content)
