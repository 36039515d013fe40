"""What a metric module is called with, checked against its kernel before `evaluate` stores anything."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from difflib import get_close_matches
from typing import Any


def columns_of(kernel: Callable[..., Any]) -> list[str]:
    """The names of the columns that a kernel takes by position, one value per row: the features of its module."""
    parameters = inspect.signature(kernel).parameters.values()
    return [each.name for each in parameters if each.kind is each.POSITIONAL_OR_KEYWORD]


def require_choice(what: str, name: str, choices: Collection[str]) -> None:
    """Raises where `name` is none of `choices`; `what` begins the sentence."""
    if name not in choices:
        raise ValueError(f"{what} {name!r}{_nearest(name, choices)}; there is {_listed(choices)}")


def require_arguments(kernel: Callable[..., Any], given: Mapping[str, Any], stored: Collection[str] = ()) -> None:
    """Raises where `given` holds a name that the kernel does not take, or lacks one that it needs.

    None counts as not given; `stored` names what was given before.
    """
    parameters = inspect.signature(kernel).parameters.values()
    names = [each.name for each in parameters]
    for name in given:
        if name not in names:
            raise ValueError(f"unknown input {name!r}{_nearest(name, names)}; expected one of {', '.join(names)}")
    needed = [each.name for each in parameters if each.default is each.empty]
    missing = [name for name in needed if given.get(name) is None and name not in stored]
    if missing:
        raise ValueError(f"expected the inputs {', '.join(needed)}, got no {' and no '.join(missing)}; give each")


def _nearest(name: str, choices: Collection[str]) -> str:
    close = get_close_matches(name, choices, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _listed(choices: Collection[str]) -> str:
    *others, last = choices
    return f"{', '.join(others)} and {last}" if others else f"{last} alone"
