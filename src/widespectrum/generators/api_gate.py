"""The gate that every request of a generator passes: so many at a time, and none while the vendor asks to wait."""

from __future__ import annotations

import threading
import time

from widespectrum.chat.workers import StoppedError

__all__ = ["Gate"]

# How often those who wait look whether they are to stop.
_TICK = 0.2


class Gate:
    """Lets `width` requests through at a time, and fewer for a while after the vendor said that it was too many.

    Each "too many" closes the gate for everybody and halves what passes after that; what goes well widens it again, by
    about one for as many requests as pass. So a prompt does not use up its attempts against a rate limit.
    """

    def __init__(self, width: int) -> None:
        self._width = width
        self._allowed = float(width)
        self._inside = 0
        self._closed_until = 0.0
        self._open = False
        self._changed = threading.Condition()

    def enter(self, stop: threading.Event) -> None:
        """Wait for a place; StoppedError where `stop` was set meanwhile."""
        with self._changed:
            while True:
                if stop.is_set():
                    raise StoppedError
                rest = self._closed_until - time.monotonic()
                if self._open or (rest <= 0 and self._inside < int(self._allowed)):
                    self._inside += 1
                    return
                self._changed.wait(min(rest, _TICK) if rest > 0 else _TICK)

    def open(self) -> None:
        """Let everybody through from now on: nobody will send anything any more."""
        with self._changed:
            self._open = True
            self._changed.notify_all()

    def leave(self, pause: float | None) -> None:
        """Give the place back; a `pause` in seconds, however short, says that it was too many requests."""
        with self._changed:
            self._inside -= 1
            if pause is None:
                self._allowed = min(float(self._width), self._allowed + 1 / self._allowed)
            else:
                self._allowed = max(1.0, self._allowed / 2)
                self._closed_until = max(self._closed_until, time.monotonic() + pause)
            self._changed.notify_all()
