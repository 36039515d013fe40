"""The plots of a report as inline SVG: the same bytes for the same run, and nothing loaded from outside.

Every plot is drawn small and stretched to the page, so that its letters are readable on a phone. Letters are paths:
they look the same everywhere.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from widespectrum.errors import MissingExtraError
from widespectrum.types import DIMENSIONS, OPTIONAL_DIMENSIONS

from .curves import Response, responses
from .material import Estimate, Material

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Plot", "dose_response", "heatmap", "prior_against_match"]

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's palette: told apart by the color-blind, too."""
MARKERS = "osD^vPX*"
UNDER_ORIGINAL, UNDER_WIDE_SPECTRUM = "#E69F00", "#0050A0"
LABEL_BOX = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
STYLE = {
    "svg.hashsalt": "widespectrum",
    "svg.fonttype": "path",
    # A label of the user's may hold a dollar sign.
    "text.parse_math": False,
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.unicode_minus": True,
    "legend.frameon": False,
}


class Plot(NamedTuple):
    """An SVG element, what it shows in words, and what is not in it."""

    svg: str
    alt: str
    note: str = ""


@contextmanager
def _style() -> Iterator[None]:
    """The defaults of matplotlib and ours, whatever the user's own settings are."""
    try:
        import matplotlib.style
    except ImportError as error:
        raise MissingExtraError(
            'the report needs matplotlib, which is not installed: pip install "widespectrum[demo]"'
        ) from error
    with matplotlib.style.context(["default", STYLE], after_reset=True):
        yield


def _axes(width: float, height: float) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def _svg(figure: Figure, name: str) -> str:
    """The figure as an element for HTML; its ids begin with `name`, so that those of two plots never meet."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={key: None for key in ("Creator", "Date", "Format", "Type")})
    text = re.sub(r"<!--.*?-->\s*|<metadata>.*?</metadata>\s*", "", buffer.getvalue(), flags=re.DOTALL)
    box = re.search(r'viewBox="[^"]+"', text)
    body = text[text.index(">", text.index("<svg")) + 1 :]
    body = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", body)
    return f"<svg {box.group() if box else ''}>{body}"


def _plotted(material: Material) -> dict[str, tuple[Estimate, Estimate]]:
    """Standardised Q and X of the reward models that have both, on the headline subset."""
    found = {}
    for model in material.reward_models:
        prior = material.estimates.get((model, material.subset, "image_prior_standardised"))
        match = material.estimates.get((model, material.subset, "prompt_match_standardised"))
        if prior is not None and match is not None:
            found[model] = (prior, match)
    return found


def _generator_points(material: Material, model: str) -> list[tuple[float, float]]:
    points = []
    for generator in material.generators:
        place = (model, f"{material.subset}/generator={generator}")
        prior = material.estimates.get((*place, "image_prior_standardised"))
        match = material.estimates.get((*place, "prompt_match_standardised"))
        if prior is not None and match is not None:
            points.append((prior.value, match.value))
    return points


def _whiskers(estimate: Estimate) -> list[list[float]] | None:
    """The distances that matplotlib's error bars want; None without an interval."""
    if not estimate.has_interval:
        return None
    return [[estimate.value - estimate.low], [estimate.high - estimate.value]]


class _Frame(NamedTuple):
    """The limits of the plot of prior against match."""

    left: float
    right: float
    bottom: float
    top: float


def _frame(priors: Sequence[float], matches: Sequence[float]) -> _Frame:
    """Limits that hold every number and leave each region room for its name."""
    across, up = ([number for number in numbers if math.isfinite(number)] for numbers in (priors, matches))
    left, right = 1.12 * min(*across, -0.5), 1.12 * max(*across, 0.5)
    left, right = min(left, -0.45 * right), max(right, -0.45 * left)
    return _Frame(left, right, 1.3 * min(*up, -0.2), max(1.3 * max(*up, 0.5), 0.5 * max(-left, right)))


def _draw_regions(axes: Axes, frame: _Frame) -> None:
    """The lines X = ±Q and the names of the regions that they part."""
    far = max(map(abs, frame))
    edge = np.array([-far, 0.0, far])
    axes.fill_between(edge, np.abs(edge), far, color="#e8f3ec", linewidth=0, zorder=0)
    for slope in (-1, 1):
        axes.plot(edge, slope * edge, color="#777777", linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
    axes.axhline(0, color="#bbbbbb", linewidth=0.7, zorder=1)
    axes.axvline(0, color="#bbbbbb", linewidth=0.7, zorder=1)
    axes.set(xlim=frame[:2], ylim=frame[2:])
    style: dict[str, Any] = {"color": "#555555", "fontsize": 8.5, "va": "center", "zorder": 1, "linespacing": 1.25}
    axes.text(0, 0.93 * frame.top, "right under both", ha="center", **style)
    for side, name, words in (
        (frame.left, "X = −Q", "taste wins:\nright under\npₒ only"),
        (frame.right, "X = Q", "right under\npₐ only"),
    ):
        height, sign = min(frame.top, abs(side)), math.copysign(1.0, side)
        axes.text(0.98 * side, 0.35 * height, words, ha="left" if sign < 0 else "right", **style)
        axes.text(sign * 0.78 * height, 0.78 * height, name, ha="center", bbox=LABEL_BOX, **style)


def _draw_model(axes: Axes, material: Material, model: str, number: int, center: tuple[Estimate, Estimate]) -> Any:
    """The mark of one model with its whiskers; broad ones lie beneath thin ones, so that all are seen on X = 0."""
    color, marker, layer = COLORS[number % len(COLORS)], MARKERS[number % len(MARKERS)], 2 - number % 3
    if points := _generator_points(material, model):
        across, up = zip(*points, strict=True)
        axes.scatter(across, up, s=9, color=color, alpha=0.45, linewidths=0, marker=marker, zorder=2)
    container = axes.errorbar(
        center[0].value,
        center[1].value,
        xerr=_whiskers(center[0]),
        yerr=_whiskers(center[1]),
        fmt=marker,
        color=color,
        markersize=7.5,
        markeredgecolor="white",
        markeredgewidth=0.8,
        elinewidth=1.2 + 1.2 * layer,
        capsize=2.5 + 1.5 * layer,
        zorder=4 + number % 3,
    )
    return container.lines[0]


def prior_against_match(material: Material) -> Plot | None:
    """Mean Q against mean X of each reward model; None where none has a spread to standardise by."""
    models = _plotted(material)
    if not models:
        return None
    small = [point for model in models for point in _generator_points(material, model)]
    priors = [number for prior, _ in models.values() for number in prior] + [prior for prior, _ in small]
    matches = [number for _, match in models.values() for number in match] + [match for _, match in small]
    with _style():
        figure, axes = _axes(4.6, 3.6 + 0.22 * math.ceil(len(models) / 2))
        _draw_regions(axes, _frame(priors, matches))
        drawn = enumerate(models.items())
        marks = [_draw_model(axes, material, model, number, center) for number, (model, center) in drawn]
        axes.set_xlabel("image prior Q, in SD  (← plain image, wide-spectrum image →)")
        axes.set_ylabel("prompt match X, in SD")
        figure.legend(marks, list(models), loc="outside lower center", ncols=2, handletextpad=0.4, columnspacing=1.5)
        svg = _svg(figure, "prior")
    words = "; ".join(f"{name}: Q {prior.value:.2f}, X {match.value:.2f}" for name, (prior, match) in models.items())
    absent = [name for name in material.reward_models if name not in models]
    note = f"Not shown, because r(I_o,p_o) has no spread to divide by: {', '.join(absent)}." if absent else ""
    return Plot(svg, f"Standardised image prior Q against prompt match X. {words}.", note)


def _draw_response(axes: Axes, response: Response) -> None:
    """p_o broad and light beneath, p_a thin, dark and dashed above: where the two coincide both are seen."""
    axes.axhline(0, color="#bbbbbb", linewidth=0.7, zorder=1)
    x, below, above = response.strengths, response.under_original, response.under_wide_spectrum
    for curve, color in ((below, UNDER_ORIGINAL), (above, UNDER_WIDE_SPECTRUM)):
        axes.fill_between(x, curve.low, curve.high, color=color, alpha=0.18, linewidth=0, zorder=2)
    axes.plot(x, below.mean, color=UNDER_ORIGINAL, linewidth=5, alpha=0.75, zorder=3)
    thin: dict[str, Any] = {"linewidth": 1.7, "linestyle": (0, (4, 2)), "marker": "o", "markersize": 4.5}
    axes.plot(x, above.mean, color=UNDER_WIDE_SPECTRUM, zorder=4, **thin)
    axes.set_title(response.reward_model, fontsize=10, loc="left", fontweight="bold")
    axes.set_xticks(response.strengths)
    axes.set_xlabel("effect strength (0 = the photograph)", fontsize=9)
    axes.set_ylabel("change, in SD" if response.standardised else "change, own units", fontsize=9)
    axes.tick_params(labelsize=9)


def _response_words(response: Response) -> str:
    ends = (response.under_original.mean[-1], response.under_wide_spectrum.mean[-1])
    return (
        f"{response.reward_model}: at strength {response.strengths[-1]} the mean change is {ends[0]:.2f} under p_o "
        f"and {ends[1]:.2f} under p_a."
    )


def dose_response(material: Material) -> list[Plot]:
    """One plot per reward model; none where no generator of the run has graded strengths."""
    plots = []
    for number, response in enumerate(responses(material)):
        with _style():
            figure, axes = _axes(3.5, 2.6)
            _draw_response(axes, response)
            svg = _svg(figure, f"dose{number}")
        note = "" if response.standardised else "r(I_o,p_o) is constant, so the scores are in their own units."
        plots.append(Plot(svg, f"Score by effect strength. {_response_words(response)}", note))
    return plots


def _accuracies(material: Material, dimensions: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Accuracy under p_a, (dimensions, reward models), NaN without an estimate."""
    metric = "accuracy_under_wide_spectrum"
    places = [
        [(model, f"{material.subset}/dimension={name}") for model in material.reward_models] for name in dimensions
    ]
    absent = Estimate(math.nan, math.nan, math.nan)
    return np.array([[material.estimates.get((*place, metric), absent).value for place in row] for row in places])


def _draw_heatmap(axes: Axes, values: np.ndarray[Any, Any], dimensions: Sequence[str], models: Sequence[str]) -> None:
    # Red to white to blue: white, the middle, is chance. A mesh stays sharp at any size, an image would not.
    edges = (np.arange(len(models) + 1) - 0.5, np.arange(len(dimensions) + 1) - 0.5)
    axes.pcolormesh(*edges, values, cmap="RdBu", vmin=0, vmax=1, edgecolors="white", linewidth=1.5)
    axes.invert_yaxis()
    for (row, column), value in np.ndenumerate(values):
        shown = "–" if math.isnan(value) else f"{value:.2f}"
        color = "white" if abs(value - 0.5) > 0.36 else "black"
        axes.text(column, row, shown, ha="center", va="center", color=color, fontsize=10)
    axes.set_xticks(range(len(models)), models, rotation=35, ha="left", rotation_mode="anchor")
    axes.set_yticks(range(len(dimensions)), dimensions)
    axes.tick_params(top=True, bottom=False, labeltop=True, labelbottom=False, length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def heatmap(material: Material) -> Plot | None:
    """Accuracy under p_a by dimension and reward model; None where the run's prompts name no dimensions."""
    known = DIMENSIONS + OPTIONAL_DIMENSIONS
    prefix = f"{material.subset}/dimension="
    found = {subset.removeprefix(prefix) for _, subset, _ in material.estimates if subset.startswith(prefix)}
    dimensions = [name for name in known if name in found]
    if not dimensions:
        return None
    models, values = material.reward_models, _accuracies(material, dimensions)
    with _style():
        figure, axes = _axes(max(4.6, 1.8 + 0.6 * len(models)), 1.1 + 0.36 * len(dimensions))
        _draw_heatmap(axes, values, dimensions, models)
        svg = _svg(figure, "heat")
    words = "; ".join(
        f"{name}: " + ", ".join(f"{model} {value:.2f}" for model, value in zip(models, row, strict=True))
        for name, row in zip(dimensions, values, strict=True)
    )
    absent = [name for name in DIMENSIONS if name not in found]
    note = f"No pair of this subset asks for: {', '.join(absent)}." if absent else ""
    return Plot(svg, f"Accuracy under p_a by dimension and reward model. {words}.", note)
