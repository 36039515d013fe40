"""What the server answers to a rater: which page comes next. It knows nothing of Gradio, and threads may share it."""

from __future__ import annotations

import hashlib
import hmac
import io
import secrets
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from threading import Lock
from typing import Any, Literal, get_args

import PIL.Image

from widespectrum.errors import WideSpectrumError
from widespectrum.images import ImageReader
from widespectrum.prompts.images import to_rgb

from .items import Choice
from .log import RaterLog, folder_of, read_log
from .study import Study, texts

__all__ = ["Desk", "Page"]

_PICTURES = 80
"""Encoded images in memory: what twenty raters have before them and next."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What a rater is to see. `notice` is a sentence to read first; `n` is the state that an answer must refer to.

    Of a pair: its text, the names under which its images (and then those of the next item) are fetched, and the shape
    (width, height) of the space for each image.
    """

    screen: Literal["welcome", "pair", "end"]
    code: str = ""
    notice: str = ""
    n: int = 0
    place: int = 0
    total: int = 0
    text: str = ""
    pictures: tuple[str, str] = ("", "")
    ahead: tuple[str, ...] = ()
    shape: tuple[int, int] = (1, 1)


class Desk:
    """Takes the answers of all raters of a study and says what each sees next.

    What raters cannot mend, such as a damaged image, goes to `report` and not to them.
    """

    def __init__(self, study: Study, report: Callable[[str], None]) -> None:
        self._study, self._report = study, report
        self._texts = {pair.prompts["wide_spectrum"].prompt_id: pair for pair in study.pairs.values()}
        self._reader = ImageReader(study.run)
        self._refusals: dict[str, str] = texts()["refusals"]
        self._logs: dict[str, RaterLog] = {}
        self._locks: defaultdict[str, Lock] = defaultdict(Lock)
        self._starting = Lock()
        # Of this process alone: nobody can compute the name of an image, nor compare it with that of another server.
        self._secret = secrets.token_bytes(32)
        self._pictures: dict[str, str] = {}
        self._encoded = lru_cache(_PICTURES)(self._encode)

    def enter(self, code: str, consent: bool) -> Page:
        """The page at which `code` starts or goes on; the welcome page with a reason where it cannot."""
        code = code.strip().lower()
        if why := self._study.refusal(code) or ("" if consent else "consent"):
            return self._welcome(why, code)
        try:
            with self._starting, self._locks[code]:
                log = self._log(code) or self._study.begin(code)
                self._logs[code] = log
                return self._page(log)
        except (OSError, WideSpectrumError) as error:
            return self._stuck(code, error)

    def resume(self, code: str) -> Page:
        """The page of a rater who has consented before; the welcome page for anybody else."""
        if self._study.refusal(code):
            return Page(screen="welcome")
        try:
            with self._locks[code]:
                log = self._log(code)
                return self._page(log) if log else Page(screen="welcome")
        except (OSError, WideSpectrumError) as error:
            return self._stuck(code, error)

    def answer(self, code: str, n: int, choice: str) -> Page:
        """Store an answer given in state `n`, and the page after it.

        In any other state it is an answer to a page that is no longer the rater's (a second click, another tab) and
        changes nothing.
        """
        return self._change(code, n, choice)

    def undo(self, code: str, n: int) -> Page:
        """Take back the last answer, in state `n`, and the page of its item."""
        return self._change(code, n, "undo")

    def _change(self, code: str, n: int, what: str) -> Page:
        if self._study.refusal(code):
            return self._welcome("unknown", "")
        try:
            with self._locks[code]:
                log = self._log(code)
                return self._welcome("gone", "") if log is None else self._changed(log, n, what)
        except (OSError, WideSpectrumError) as error:
            return self._stuck(code, error)

    def _changed(self, log: RaterLog, n: int, what: str) -> Page:
        if n != log.n:
            # The same click once more needs no explanation.
            return self._page(log, "" if n == log.n - 1 and what == log.did else "stale")
        try:
            if what == "undo" and log.given:
                log.undo()
            elif what in get_args(Choice) and not log.is_finished:
                log.answer(what)  # type: ignore[arg-type]
        except FileNotFoundError:
            return self._welcome("gone", "")
        except OSError as error:
            self._report(f"{log.code}: an answer could not be stored: {error}")
            return self._page(log, "full")
        return self._page(log)

    def _log(self, code: str) -> RaterLog | None:
        """The log of a rater, which may have been deleted while the server runs."""
        path = folder_of(self._study.run) / f"{code}.jsonl"
        if not path.exists():
            self._logs.pop(code, None)
            return None
        if code not in self._logs:
            self._logs[code] = read_log(path)
        return self._logs[code]

    def _stuck(self, code: str, error: Exception) -> Page:
        self._report(f"{code} cannot go on: {error}")
        return self._welcome("full" if isinstance(error, OSError) else "broken", code)

    def _welcome(self, why: str, code: str) -> Page:
        return Page(screen="welcome", code=code, notice=self._refusals[why])

    def _page(self, log: RaterLog, why: str = "") -> Page:
        place, total = len(log.given), len(log.items)
        common: dict[str, Any] = {"code": log.code, "n": log.n, "place": place + 1, "total": total}
        notice = self._refusals[why] if why else ""
        if log.is_finished:
            return Page(screen="end", notice=notice, **common)
        names = self._names(log, place)
        try:
            sizes = {self._encoded(self._pictures[name])[1] for name in names}
        except WideSpectrumError as error:
            self._report(f"{log.code} is stuck at item {place + 1}: {error}")
            return self._welcome("broken", log.code)
        return Page(
            screen="pair",
            notice=notice,
            text=self._texts[log.items[place].prompt_id].prompts["wide_spectrum"].text,
            pictures=names,
            ahead=self._names(log, place + 1) if place + 1 < total else (),
            shape=sizes.pop() if len(sizes) == 1 else (1, 1),
            **common,
        )

    def _names(self, log: RaterLog, place: int) -> tuple[str, str]:
        """Names of the two images of an item that say nothing, not even that they are the same image."""
        first, second = (
            hmac.new(self._secret, f"{log.code} {place} {side} {image_id}".encode(), hashlib.sha256).hexdigest()[:32]
            for side, image_id in enumerate(log.items[place].shown)
        )
        self._pictures |= dict(zip((first, second), log.items[place].shown, strict=True))
        return first, second

    def picture(self, name: str) -> bytes | None:
        """The image of that name as PNG; None where no rater was told of it."""
        image_id = self._pictures.get(name)
        return None if image_id is None else self._encoded(image_id)[0]

    def _encode(self, image_id: str) -> tuple[bytes, tuple[int, int]]:
        """Every pixel as it is, and nothing of what else the file held."""
        image = to_rgb(self._reader.read([image_id])[image_id])
        bare = PIL.Image.frombytes("RGB", image.size, image.tobytes())
        buffer = io.BytesIO()
        bare.save(buffer, "PNG", compress_level=1)
        return buffer.getvalue(), image.size
