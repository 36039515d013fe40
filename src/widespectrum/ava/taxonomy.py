"""The taxonomy of anti-aesthetic photographs: 5 classes with 28 elements, called `class.element`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from importlib import resources

__all__ = ["CLASSES", "ELEMENTS", "class_of", "element_problems"]


def _load() -> dict[str, dict[str, str]]:
    text = resources.files(__package__).joinpath("taxonomy.json").read_text(encoding="utf-8")
    content: dict[str, dict[str, str]] = json.loads(text)
    return content


CLASSES: Mapping[str, Mapping[str, str]] = _load()
"""Class → element → what it means, in our words."""

ELEMENTS: Mapping[str, str] = {
    f"{name}.{element}": meaning for name, elements in CLASSES.items() for element, meaning in elements.items()
}
"""`class.element` → what it means."""


def class_of(element: str) -> str:
    """The class of `class.element`."""
    return element.partition(".")[0]


def element_problems(elements: Iterable[str]) -> Iterator[str]:
    """What is wrong with the elements given to one photograph; nothing is corrected.

    Every element is in the taxonomy under its own class, none is named twice, and a class gives at most one.

    >>> list(element_problems(["clarity_and_focus.surrealism"]))
    ["unknown element 'clarity_and_focus.surrealism'"]
    """
    given: dict[str, str] = {}
    seen: set[str] = set()
    for element in elements:
        if element not in ELEMENTS:
            yield f"unknown element {element!r}"
        elif (other := given.setdefault(class_of(element), element)) != element:
            yield f"two elements of one class: {other!r} and {element!r}"
        elif element in seen:
            yield f"element {element!r} is named twice"
        seen.add(element)
