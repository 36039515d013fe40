"""Where the published folders (dataset builders, metrics, leaderboard, cards) are: the clone's, or the wheel's copy."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from .errors import InputError

__all__ = ["load_module", "metric_path", "published_path"]

_PACKAGE = Path(__file__).resolve().parent


def published_path(kind: str, name: str | None = None) -> Path:
    """The folder `kind`, or `kind/name`; InputError that lists the names of `kind` where there is none."""
    roots = (_PACKAGE.parents[1], _PACKAGE / "_published")
    root = next((root for root in roots if (root / kind).is_dir()), None)
    if root is None:
        raise InputError(f"this installation carries no {kind}: reinstall widespectrum")
    names = sorted(path.name for path in (root / kind).iterdir() if path.is_dir() and path.name[0] not in "_.")
    if name is not None and name not in names:
        raise InputError(f"unknown name {name!r} in {kind}; expected one of {', '.join(names)}")
    return root / kind / (name or "")


def metric_path(name: str) -> str:
    """The folder of one of our metrics, for `evaluate.load` without a network."""
    return str(published_path("metrics", name))


def load_module(path: Path) -> ModuleType:
    """Import a published Python file by its path."""
    name = f"_widespectrum_published_{path.parent.name}_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InputError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
