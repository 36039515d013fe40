"""Names of models: a table maps a name to `module:Class`, imported when it is asked for.

The tables are `GENERATORS`, `REWARD_MODELS` and `JUDGES` in the `__init__.py` of their packages.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from .errors import InputError, MissingExtraError, UnknownNameError
from .types import Parameter

__all__ = ["PLACES", "Entry", "imported", "label", "load", "lookup", "missing_packages", "options_of", "unknown_name"]

PLACES = (
    *("checkpoint", "tokenizer", "base", "clip", "instruction_file", "questions", "weights", "journal"),
    *("lora", "transformer", "folder", "adapter", "input_price", "output_price"),
    *("device", "offload", "batch_size", "endpoint", "base_url", "concurrency", "attempts", "timeout", "price"),
)
"""Options that say where something lies or is computed, and not what: they are no part of a model's label. What of them
matters (the hash of a file) is in its spec."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line of a table.

    `extra` names the pip extra that holds `packages`, the import names the model needs; `params` are the keyword
    arguments that make this name out of its family, `defaults` those that a user may replace, `needs` those that the
    user has to give.
    """

    target: str
    summary: str
    extra: str = ""
    packages: tuple[str, ...] = ()
    params: Mapping[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()

    def named(self, name: str) -> Entry:
        """The entry of a family that is told its own name."""
        return replace(self, params={**self.params, "name": name})


def unknown_name(kind: str, name: str, known: Mapping[str, object], command: str) -> UnknownNameError:
    """The error for a name that is in no table: what came, the nearest names, and the command that lists all."""
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    return UnknownNameError(f"unknown {kind} {name!r}: {hint}`{command}` lists every name")


def lookup(kind: str, table: Mapping[str, Entry], name: str) -> Entry:
    """The entry of `name`; UnknownNameError with the nearest names where there is none."""
    if name not in table:
        raise unknown_name(kind, name, table, "widespectrum models")
    return table[name]


def missing_packages(entry: Entry) -> list[str]:
    """The packages of `entry` that are not installed."""
    return [package for package in entry.packages if importlib.util.find_spec(package) is None]


def _constructor(kind: str, table: Mapping[str, Entry], name: str) -> Any:
    entry = lookup(kind, table, name)
    if missing := missing_packages(entry):
        raise MissingExtraError(
            f"{kind} {name!r} needs {', '.join(missing)}, which is not installed: "
            f'pip install "widespectrum[{entry.extra}]"'
        )
    return imported(entry)


def imported(entry: Entry) -> Any:
    """The class (or function) of an entry; imports its module, whose packages need not be installed for it."""
    module, _, attribute = entry.target.partition(":")
    return getattr(importlib.import_module(module), attribute)


def options_of(entry: Entry) -> dict[str, Any]:
    """The options a user may give, with what they are where nothing is given (`inspect.Parameter.empty`: needed).

    Imports the module of the model, whose packages need not be installed for it.
    """
    return _declared(imported(entry), entry)


def _declared(constructor: Any, entry: Entry) -> dict[str, Any]:
    """The options a user may give, with their defaults."""
    parameters = inspect.signature(constructor).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.name not in entry.params}
    return {**defaults, **entry.defaults, **dict.fromkeys(entry.needs, inspect.Parameter.empty)}


def _check_options(kind: str, name: str, declared: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    for option in options:
        if option not in declared:
            accepted = ", ".join(declared) or "none"
            raise InputError(f"{kind} {name!r} has no option {option!r}; its options: {accepted}")
    missing = [option for option, default in declared.items() if default is inspect.Parameter.empty]
    for option in missing:
        if option not in options:
            raise InputError(
                f"{kind} {name!r} needs the option {option!r}: write {name}[{option}=...], or {option} = ... in the "
                "run file"
            )


def load(kind: str, table: Mapping[str, Entry], name: str, options: Mapping[str, Any] | None = None) -> Any:
    """The model called `name`, made with `options`; imports its module now and not before."""
    options = options or {}
    constructor = _constructor(kind, table, name)
    _check_options(kind, name, _declared(constructor, table[name]), options)
    return constructor(**{**table[name].params, **table[name].defaults, **options})


def label(name: str, options: Mapping[str, Parameter] | None = None) -> str:
    """The name under which results are stored: `name`, or `name[option=value]` with the options that were given.

    It is the form that the command line takes. Options of `PLACES` are left out; `label` replaces it all.

    >>> label("photo-effects", {"strength": 2})
    'photo-effects[strength=2]'
    >>> label("pickscore", {"checkpoint": "models/PickScore_v1"})
    'pickscore'
    >>> label("pickscore", {"checkpoint": "models/mine", "label": "my-pickscore"})
    'my-pickscore'
    """
    options = options or {}
    if "label" in options:
        return str(options["label"])
    texts = {
        key: str(value).lower() if isinstance(value, bool) else value
        for key, value in options.items()
        if key not in PLACES
    }
    given = ",".join(f"{key}={value}" for key, value in sorted(texts.items()))
    return f"{name}[{given}]" if given else name
