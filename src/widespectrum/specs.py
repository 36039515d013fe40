"""What identifies a model, and the one text and digest of a value. Standard library only."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias
from urllib.parse import parse_qsl, quote, urlencode

from .errors import InputError

__all__ = ["ModelSpec", "Parameter", "canonical_json", "digest"]

Parameter: TypeAlias = bool | int | float | str

_COMMIT = re.compile(r"[0-9a-f]{40}|v[0-9]+")
_SPEC = re.compile(r"(?P<adapter>[^:@?]+):(?P<name>[^:@?]+)(?:@(?P<revision>[^?]+))?(?:\?(?P<params>.*))?")


def canonical_json(value: object) -> str:
    """JSON with sorted keys, no spaces, UTF-8 and no NaN: one text for one value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(value: object) -> str:
    """sha256 (64 hex digits) of `canonical_json(value)`."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise InputError(message)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """What identifies a generator, reward model or judge: everything that changes its output.

    `revision` is a 40-digit commit, `vN` for an algorithm of this package, or None while unresolved.
    The text form `adapter:name@revision?option=value` parses back.
    """

    adapter: str
    name: str
    revision: str | None = None
    params: Mapping[str, Parameter] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for label, value in (("adapter", self.adapter), ("name", self.name)):
            _require(
                bool(value) and not set(value) & set(":@?"),
                f"a model's {label} must be a non-empty text without ':', '@' or '?'; got {value!r}",
            )
        _require(
            self.revision is None or bool(_COMMIT.fullmatch(self.revision)),
            f"the revision of {self.name!r} must be a 40-digit commit or v1, v2, ...; got {self.revision!r}. "
            "Branch names such as 'main' move: resolve them first",
        )
        for option, given in self.params.items():
            fits = math.isfinite(given) if isinstance(given, float) else isinstance(given, bool | int | str)
            _require(
                fits, f"option {option!r} of {self.name!r} must be a text, a finite number or true/false; got {given!r}"
            )
        object.__setattr__(self, "params", dict(sorted(self.params.items())))

    def __eq__(self, other: object) -> bool:
        # By key: 1, 1.0 and True are equal in Python, but not the same option.
        return isinstance(other, ModelSpec) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def __str__(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        values = {name: json.dumps(value) for name, value in self.params.items()}
        return f"{self.adapter}:{self.name}{revision}" + (f"?{urlencode(values, quote_via=quote)}" if values else "")

    @property
    def key(self) -> str:
        """sha256 over adapter, name, revision and parameters."""
        return digest([self.adapter, self.name, self.revision, dict(self.params)])

    @classmethod
    def parse(cls, text: str) -> ModelSpec:
        """The spec that `str()` wrote."""
        match = _SPEC.fullmatch(text)
        if match is None:
            raise InputError(f"expected 'adapter:name@revision', got {text!r}")
        try:
            pairs = parse_qsl(match["params"] or "", keep_blank_values=True, strict_parsing=True)
            params = {name: json.loads(value) for name, value in pairs}
        except ValueError as error:
            raise InputError(f"expected option=value, with JSON values, after the '?' of {text!r}: {error}") from error
        return cls(adapter=match["adapter"], name=match["name"], revision=match["revision"], params=params)
