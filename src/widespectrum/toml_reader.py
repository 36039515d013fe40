"""Checked values out of a run file, with errors that name file and line."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .errors import InputError

__all__ = ["Reader", "is_int", "is_text", "place_of"]

_HEADER = re.compile(r"\s*\[\[?\s*([\w-]+)\s*(?:\.\s*([\w-]+)\s*)?\]\]?")
_KEY = re.compile(r"""\s*["']?([\w.-]+)["']?\s*=""")


def place_of(places: Mapping[str, str], keys: Iterable[str], message: str) -> str:
    """The place of the first of `keys` that `message` names as a word."""
    named = (key for key in keys if re.search(rf"\b{re.escape(key)}\b", message))
    return next((places[key] for key in named if key in places), "")


class Reader:
    """Takes checked values out of parsed TOML; its errors name file and line."""

    def __init__(self, text: str, source: str) -> None:
        self.source = source
        self._lines: dict[tuple[str, int, str], int] = {}
        section, counts = "", {"": 0}
        for number, line in enumerate(text.splitlines(), 1):
            if (header := _HEADER.match(line)) and header[2]:
                self._lines.setdefault((header[1], counts.get(header[1], 0), header[2]), number)
                section = f"{header[1]}.{header[2]}"
                counts[section] = 0
            elif header:
                section = header[1]
                counts[section] = counts.get(section, -1) + 1
                self._lines[section, counts[section], ""] = number
            elif key := _KEY.match(line):
                parent, _, own = key[1].rpartition(".")
                self._lines.setdefault((parent or section, 0 if parent else counts[section], own), number)

    def error(self, message: str, section: str, key: str = "", index: int = 0) -> InputError:
        """The error about a key, to be raised."""
        return InputError(f"{self.place(section, key, index)}{message}")

    def place(self, section: str, key: str, index: int = 0) -> str:
        """The beginning of a message about a key; nothing where the user wrote no file."""
        places = ((section, index, key), (section, index, ""), ("", 0, section))
        line = next((self._lines[place] for place in places if place in self._lines), None)
        return "" if not self.source else f"{self.source}, line {line}: " if line else f"{self.source}: "

    def known(self, table: Mapping[str, Any], allowed: tuple[str, ...], section: str) -> None:
        """InputError for a key that is not `allowed`."""
        for key in table:
            if key not in allowed:
                name = f"[{section}] key" if section else "table"
                raise self.error(
                    f"unknown {name} {key!r}; expected one of {', '.join(allowed)}",
                    section or key,
                    key if section else "",
                )

    def take(self, table: Mapping[str, Any], section: str, key: str, check: Callable[[Any], bool], what: str) -> Any:
        """`table[key]` if `check` accepts it; None where it is absent."""
        value = table.get(key)
        if key in table and not check(value):
            raise self.error(f"[{section}] {key} must be {what}; got {value!r}", section, key)
        return value


def is_int(low: int) -> Callable[[Any], bool]:
    """Whether a value is a whole number from `low` on that fits into 64 bits."""
    return lambda value: type(value) is int and low <= value < 2**63


def is_text(value: Any) -> bool:
    """Whether a value is a text and not blank."""
    return isinstance(value, str) and bool(value.strip())
