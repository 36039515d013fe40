"""Who agrees with whom: cells of kappa, the matrix of all judges, its slices, and confusion matrices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

from .figures import Figures, Slice, estimate
from .material import Material
from .tables import shown

__all__ = ["Agreed", "Confusion", "Grid", "confusions", "matrix", "of_slices"]

VERDICTS = ("I_o", "tie", "I_a")
_STRONGEST = 55
"""Percent of the color at kappa 1: text on it stays legible, in light and in dark."""


class Agreed(NamedTuple):
    """One cell: kappa as text with its interval, or why there is none; the share of equal verdicts, that of always
    giving the reference's commonest verdict, and of how many pairs. `shade` is in percent.
    """

    kappa: str
    interval: str = ""
    detail: tuple[str, ...] = ()
    reason: str = ""
    shade: int = 0
    is_below: bool = False
    mark: str = ""


class Grid(NamedTuple):
    """A table of such cells; the columns are judges."""

    title: str
    corner: str
    columns: list[str]
    rows: list[tuple[str, list[Agreed]]]
    notes: list[str]


class Confusion(NamedTuple):
    """How often each verdict of `reference` (down) met each of `judge` (across)."""

    reference: str
    judge: str
    compared: int
    rows: list[tuple[str, list[int]]]


_SHARED = "†"
_SHARED_NOTE = (
    "† one of the two counts the other’s verdicts among its own, so that they agree more than they would by themselves"
)
_FEW_NOTE = "‡ no interval: all pairs share one plain caption, or resamples leave it undefined"


def _reason(values: Mapping[str, Any]) -> str:
    """Why there is no kappa, in a few words."""
    if not values["n_compared"]:
        return "no pair judged by both"
    return "κ undefined: both give the same verdict throughout"


def _agreed(values: Mapping[str, Any], mark: str = "") -> Agreed:
    n, found = values["n_compared"], estimate(values, "quadratic_kappa")
    detail: tuple[str, ...] = ()
    if n:
        detail = (f"{shown(values['accuracy'])} equal", f"base {shown(values['majority_baseline'])}, n {n:,}")
    if "quadratic_kappa" not in values:
        return Agreed("–", detail=detail, reason=_reason(values), mark=mark)
    width = found.high - found.low if found.has_interval else 0.0
    interval = f"[{shown(found.low, width)}, {shown(found.high, width)}]" if found.has_interval else "no interval ‡"
    shade = round(_STRONGEST * min(1.0, abs(found.value)))
    return Agreed(shown(found.value, width), interval, detail, "", shade, found.value < 0, mark)


def _mark(material: Material, one: str, other: str) -> str:
    return _SHARED if one in material.members(other) or other in material.members(one) else ""


def _notes(rows: Sequence[tuple[str, Sequence[Agreed]]]) -> list[str]:
    cells = [cell for _, row in rows for cell in row]
    few = any(cell.interval.endswith("‡") for cell in cells)
    return [*([_SHARED_NOTE] if any(cell.mark for cell in cells) else []), *([_FEW_NOTE] if few else [])]


def matrix(figures: Figures) -> Grid | None:
    """Every judge against every other, the reference down, the judge across; None where there is one judge alone."""
    labels, material = list(figures.material.verdicts), figures.material
    if len(labels) < 2:
        return None
    itself = Agreed("", reason="itself")
    rows = [
        (a, [itself if a == b else _agreed(figures.agreement[a, b], _mark(material, a, b)) for b in labels])
        for a in labels
    ]
    return Grid("Agreement of every two judges", "reference ↓ judge →", labels, rows, _notes(rows))


def of_slices(figures: Figures, slices: Sequence[Slice], kind: str) -> Grid | None:
    """The agreement of each judge with the reference in each slice; None where there is nothing to show."""
    judges = [label for label in figures.material.verdicts if label != figures.reference]
    if not slices or not judges:
        return None
    marks = {judge: _mark(figures.material, judge, figures.reference) for judge in judges}
    rows = [(part.name, [_agreed(part.by_judge[judge], marks[judge]) for judge in judges]) for part in slices]
    return Grid(f"Agreement with {figures.reference}, by {kind}", kind, judges, rows, _notes(rows))


def confusions(figures: Figures) -> list[Confusion]:
    """One per two judges that share a pair."""
    found = []
    for a, b in combinations(figures.material.verdicts, 2):
        values = figures.agreement[a, b]
        if values["n_compared"]:
            rows = list(zip(VERDICTS, values["confusion_matrix"], strict=True))
            found.append(Confusion(a, b, values["n_compared"], rows))
    return found
