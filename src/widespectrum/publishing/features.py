"""Column types as plain data → `datasets.Features`."""

from __future__ import annotations

from collections.abc import Mapping

import datasets

__all__ = ["features"]


def _feature(kind: str) -> object:
    if kind == "image":
        return datasets.Image()
    if kind.startswith("list<"):
        return datasets.List(_feature(kind.removeprefix("list<").removesuffix(">")))
    return datasets.Value(kind)


def features(columns: Mapping[str, str]) -> datasets.Features:
    """Features of columns by type: an Arrow type such as `string`, `list<...>` of one, or `image`.

    >>> features({"name": "string", "sizes": "list<int32>"})
    {'name': Value('string'), 'sizes': List(Value('int32'))}
    """
    return datasets.Features({name: _feature(kind) for name, kind in columns.items()})
