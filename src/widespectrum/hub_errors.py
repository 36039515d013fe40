"""What the Hub and the way to it can answer, as one sentence each, and what is worth another attempt."""

from __future__ import annotations

import errno
import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from huggingface_hub import constants
from huggingface_hub.errors import (
    FileMetadataError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from .errors import HubError, InputError, WideSpectrumError

__all__ = ["explain", "explain_reading", "unheard", "waiting_time"]

# httpx or httpx2, whichever this version of huggingface_hub is built on
_HTTP_ERROR: type[Exception] = next(base for base in HfHubHTTPError.__bases__ if base is not OSError)

# what Xet, by which huggingface_hub sends large files, raises
_CONNECTION = (ConnectionError, TimeoutError)

_LIMIT = re.compile(r"r\s*=\s*(?P<left>\d+)\s*;\s*t\s*=\s*(?P<seconds>\d+)")

LONGEST_WAIT = 300
"""Seconds; the Hub counts requests in windows of five minutes."""

_REFUSALS = ("Invalid metadata in README.md", "LFS batch API returned errors")
"""How the errors begin by which huggingface_hub passes on a refusal without its status."""

_AGAIN = "the same command goes on where it stopped"


def _is_of_the_way(error: BaseException) -> bool:
    """Whether the connection failed, and not the pipe to which progress is printed."""
    return isinstance(error, (_HTTP_ERROR, *_CONNECTION)) and not isinstance(error, BrokenPipeError)


def _is_offline(error: BaseException) -> bool:
    return isinstance(error, OfflineModeIsEnabled)


def _origin(error: BaseException) -> BaseException:
    """What lies behind the errors in which huggingface_hub wraps a failed upload."""
    while not isinstance(error, _HTTP_ERROR) and error.__cause__ is not None:
        error = error.__cause__
    return error


def _retry_after(response: Any) -> float | None:
    """The seconds for which the Hub asks to be left alone."""
    limit = _LIMIT.search(str(response.headers.get("RateLimit", "")))
    text = str(response.headers.get("Retry-After", "")).strip()
    if limit is not None and limit["left"] == "0":
        return float(limit["seconds"])
    return float(text) if text.isdigit() else None


def waiting_time(error: BaseException) -> float | None:
    """The least number of seconds after which another attempt makes sense; None where it makes none."""
    error = _origin(error)
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        if status not in (408, 429) and status < 500:
            return None
        seconds = _retry_after(error.response) or 0.0
        return seconds if seconds <= LONGEST_WAIT else None
    passes = _is_of_the_way(error) or isinstance(error, json.JSONDecodeError)
    return 0.0 if passes and not _is_offline(error) else None


def explain(error: BaseException, what: str) -> WideSpectrumError | None:
    """The sentence for an error on the way to `what` (a repository); None where it has nothing to do with the Hub."""
    if isinstance(error, WideSpectrumError):
        return error
    if isinstance(error, ValueError) and str(error).startswith(_REFUSALS):
        return InputError(f"{what}: the Hub refuses what was sent: {_one_line(str(error))}")
    origin = _origin(error)
    if _is_offline(origin):
        return InputError(f"{what}: HF_HUB_OFFLINE is set, so nothing may reach the Hub: unset it")
    if isinstance(origin, HfHubHTTPError):
        return _explain_status(origin, what)
    if _is_of_the_way(origin):
        return HubError(f"{what}: the connection failed ({type(origin).__name__}): check the network; {_AGAIN}.")
    if isinstance(origin, json.JSONDecodeError):
        return HubError(f"{what}: what answers in place of the Hub is not the Hub: check HF_ENDPOINT; {_AGAIN}.")
    if isinstance(origin, HFValidationError):
        return InputError(f"{what} is no name on the Hub: expected ORG/NAME of letters, digits, '-', '_' and '.'")
    return None


def explain_reading(
    error: BaseException, repo_id: str, repo_type: str, revision: str | None, *, has_token: bool
) -> WideSpectrumError | None:
    """The sentence for an error while a repository is read; None where it has nothing to do with the Hub."""
    what, origin = f"{repo_type} {repo_id}@{revision or 'main'}", _origin(error)
    if isinstance(origin, GatedRepoError):
        return InputError(_gated(origin, repo_id, repo_type, has_token))
    if isinstance(origin, HfHubHTTPError) and not isinstance(origin, RevisionNotFoundError):
        said = _one_line(origin.server_message or "")
        reason = f"({origin.response.status_code}{f': {said}' if said else ''})"
        # to a stranger the Hub does not tell which names exist
        if not has_token and origin.response.status_code in (401, 403, 404):
            missing = isinstance(origin, RepositoryNotFoundError)
            there = "is no such repository, or it is private and there is no token" if missing else "is no token"
            return InputError(f"{what}: there {there} {reason}: check its name, or run `hf auth login` or set HF_TOKEN")
        if origin.response.status_code == 403:
            return InputError(f"{what}: the token may not read it {reason}: give one with read access in HF_TOKEN")
        if 400 <= origin.response.status_code < 500 and origin.response.status_code not in (401, 404, 408, 429):
            return InputError(f"{what}: the Hub refuses the request {reason}: check the name and the revision")
    # where nothing is there yet, huggingface_hub misses the folder, and else files
    partly = isinstance(error, LocalEntryNotFoundError) and "snapshot folder" not in str(error)
    if partly and _is_offline(origin):
        return InputError(f"{what}: incomplete download, and HF_HUB_OFFLINE is set: unset it, and run it again")
    return explain(error, what) or _explain_files(origin, what)


def _gated(error: GatedRepoError, repo_id: str, repo_type: str, has_token: bool) -> str:
    """Who has to accept what; the Hub also refuses tokens that were made without access to gated repositories."""
    page = f"{constants.ENDPOINT}/{'' if repo_type == 'model' else f'{repo_type}s/'}{repo_id}"
    said = _one_line(error.server_message or "")
    if not has_token:
        return (
            f"{repo_id} is gated and there is no token: accept its terms at {page}, run `hf auth login` or set "
            "HF_TOKEN, then run again"
        )
    token = f" (if it has them: {said})" if "token" in said.lower() else ""
    return f"{repo_id} is gated: accept its terms at {page} with the account of your token, then run again{token}"


def _explain_files(error: BaseException, what: str) -> WideSpectrumError | None:
    """The sentence for what fails where a download is written."""
    if isinstance(error, FileMetadataError):
        return HubError(f"{what}: what answers in place of the Hub is not the Hub: check HF_ENDPOINT; {_AGAIN}.")
    if not isinstance(error, OSError):
        return None
    if "Consistency check failed" in str(error):
        return HubError(f"{what}: incomplete download, a file came cut short: check the network; {_AGAIN}.")
    cache = f"{constants.HF_HUB_CACHE} (HF_HOME moves it)"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return InputError(f"{what}: no space is left for the download in {cache}: free some; {_AGAIN}")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return InputError(f"{what}: the download cannot be written to {cache}: check its permissions; {_AGAIN}")
    return None


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _explain_status(error: HfHubHTTPError, what: str) -> WideSpectrumError:
    status = error.response.status_code
    said = _one_line(error.server_message or "")
    reason = f"({status}{f': {said}' if said else ''})"
    if status in (408, 429) or status >= 500:
        wait = _retry_after(error.response)
        busy = "asks to be left alone" if status == 429 else "has a fault of its own"
        after = f", after {wait:g} s" if wait else ""
        return HubError(f"{what}: the Hub {busy} {reason}: {_AGAIN}{after}.")
    if isinstance(error, RevisionNotFoundError):
        return InputError(f"{what}: there is no such revision {reason}: check its name")
    if status == 403 and error.response.url.path.endswith("/repos/create"):
        return InputError(
            f"{what}: the token may not create a repository there {reason}: check the name before the '/', and that "
            "the token may write to it"
        )
    sentences = {
        401: f"the Hub does not know the token {reason}: check HF_TOKEN, or run `hf auth login` again",
        403: f"the token may not write there {reason}: take one with write access, or propose the change with --pr",
        404: f"there is no such repository for this token {reason}: check its name and what the token may see",
        409: f"something else is in the way there {reason}: see what a dry run says (--dry-run), and run it again",
        412: f"someone else has changed it meanwhile {reason}: look at it with --dry-run, and run it again",
    }
    return InputError(f"{what}: {sentences.get(status, f'the Hub refuses what was sent {reason}')}")


@contextmanager
def unheard() -> Iterator[None]:
    """Keep what huggingface_hub says of its own attempts off the terminal; how it ended is said in one sentence."""
    log = logging.getLogger("huggingface_hub")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)
