"""What a metric module is called with, checked against its kernel before `evaluate` stores anything."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np

from ._checks import as_rows

_IMAGE = "an image: one of PIL, a uint8 array or the path of an image file"


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


def stored_columns(columns: Mapping[str, Any], features: Mapping[str, Any]) -> dict[str, Any]:
    """`columns` with each of `features` as a list of equal length that `evaluate` can store; raises where it cannot be.

    None and NaN stay what they are: which rows may hold them is for the kernel to say.
    """
    missing = [name for name in features if columns.get(name) is None]
    if missing:
        raise ValueError(f"expected the columns {', '.join(features)}, got no {' and no '.join(missing)}; give each")
    numeric = {name: feature.dtype == "float64" for name, feature in features.items()}
    lists = {
        name: _numbers(name, columns[name]) if numeric[name] else _images(name, columns[name], feature)
        for name, feature in features.items()
    }
    first, *others = lists
    for name in others:
        n, got = len(lists[first]), len(lists[name])
        if got != n:
            raise ValueError(f"{name}: expected {n} rows like {first}, got {got}; give one value per row")
    return {**columns, **lists}


def _numbers(name: str, values: Any) -> list[float | None]:
    return [None if item is None else _number(name, row, item) for row, item in enumerate(as_rows(name, values))]


def _number(name: str, row: int, item: Any) -> float:
    if isinstance(item, bool | int | float | np.integer | np.floating | np.bool_):
        try:
            return float(item)
        except OverflowError:
            raise _refusal(name, row, "a number within the range of float64", item, "rescale it") from None
    raise _refusal(name, row, "a number", item, "convert it")


def _images(name: str, values: Any, feature: Any) -> list[Any]:
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        raise ValueError(f"{name}: expected a list of images, got a {type(values).__name__}; put one image in a list")
    return [_image(name, row, item, feature) for row, item in enumerate(values)]


def _image(name: str, row: int, item: Any, feature: Any) -> Any:
    """The image as it is stored, once it has been read back from there."""
    if isinstance(item, np.ndarray) and item.dtype != np.uint8:
        raise _refusal(name, row, _IMAGE, item, "convert it to whole numbers from 0 to 255 (uint8)")
    if isinstance(item, list | tuple):
        raise _refusal(name, row, _IMAGE, item, "make it a uint8 array")
    try:
        stored: dict[str, Any] = feature.encode_example(item)
        # a file that is no image would be left open
        local = stored["bytes"] is None and "://" not in stored["path"]
        feature.decode_example(stored | {"bytes": Path(stored["path"]).read_bytes()} if local else stored)
    except ImportError:
        raise
    except Exception:  # whatever a reader of images raises on what is none
        raise _refusal(name, row, _IMAGE, item, "replace it or leave out the row") from None
    return stored


def _refusal(name: str, row: int, expected: str, got: Any, advice: str) -> ValueError:
    text = repr(got.item() if isinstance(got, np.generic) else got)
    if isinstance(got, np.ndarray):
        text = f"an array of {got.dtype} of shape {got.shape}"
    elif len(text) > 80:
        text = f"{text[:77]}..."
    return ValueError(f"{name}, row {row} (counted from 0): expected {expected}, got {text}; {advice}")


def _nearest(name: str, choices: Collection[str]) -> str:
    close = get_close_matches(name, choices, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _listed(choices: Collection[str]) -> str:
    *others, last = choices
    return f"{', '.join(others)} and {last}" if others else f"{last} alone"
