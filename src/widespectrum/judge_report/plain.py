"""The figures without a page: as JSON for machines, and as a short table for the terminal."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from widespectrum.tables import format_estimate, text_table

from .cost import Cost
from .figures import Figures, JudgeFigures, Slice, estimate
from .material import Material
from .tables import dollars

__all__ = ["as_json", "headline"]


def _clean(value: Any) -> Any:
    """`value` with None for what is no number, and tuples as lists or, where they have names, as tables."""
    if hasattr(value, "_asdict"):
        return _clean(value._asdict())
    if isinstance(value, Mapping):
        return {str(name): _clean(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _judge(judge: JudgeFigures, material: Material) -> dict[str, Any]:
    names = [field.name for field in dataclasses.fields(judge) if field.name not in ("order", "by_confidence")]
    spec = material.spec(judge.label)
    order = ("position_bias_rate", "first_shown_rate")
    thirds = [{"part": name, "n": count, "accuracy": share} for name, count, share in judge.by_confidence]
    return (
        {name: getattr(judge, name) for name in names}
        | {"spec": None if spec is None else str(spec), "by_confidence": thirds}
        | {name: estimate(judge.order, name) for name in order}
        | {name: judge.order.get(name) for name in ("n_both_orders", "n_reversed")}
    )


def _slices(slices: list[Slice]) -> list[dict[str, Any]]:
    return [
        {"name": part.name, "pairs": part.pairs, "judge": judge, **values}
        for part in slices
        for judge, values in part.by_judge.items()
    ]


def _cost(cost: Cost) -> dict[str, Any]:
    names = ("judge", "file", "requests", "bad", "errors", "input_tokens", "output_tokens", "uncounted", "unpriced")
    sizes = sorted(image.bytes for image in cost.images.values())
    return {name: getattr(cost, name) for name in (*names, "questions", "unreadable", "first", "last")} | {
        "dollars": None if cost.unpriced and not cost.dollars else cost.dollars,
        "models": sorted(cost.models),
        "images": len(sizes),
        "image_bytes": [sizes[0], sizes[(len(sizes) - 1) // 2], sizes[-1]] if sizes else None,
        "image_sizes": sorted({(image.width, image.height) for image in cost.images.values()}),
        "max_side": sorted(cost.limits),
    }


def as_json(figures: Figures) -> dict[str, Any]:
    """Every figure of the page; what is undefined is absent, or null. Intervals are `low` and `high`, or the keys
    `…_ci_low` and `…_ci_high` as `functional.judge_agreement` gives them.
    """
    material, raters = figures.material, figures.raters
    pairs = [
        {"reference": reference, "judge": judge, **values} for (reference, judge), values in figures.agreement.items()
    ]
    found = {
        "run": material.run.resolve().name,
        "benchmark_version": material.manifest.benchmark_version,
        "functional_digest": material.manifest.functional_digest,
        "intervals": material.options,
        "pairs": len(material.pairs),
        "captions": len(set(material.row_keys["prompt_id"])),
        "reference": figures.reference,
        "judges": [_judge(judge, material) for judge in figures.judges],
        "agreement": pairs,
        "by_generator": _slices(list(figures.by_generator)),
        "by_dimension": _slices(list(figures.by_dimension)),
        "raters": None if raters is None else dataclasses.asdict(raters),
        "attention_checks": {label: {"passed": a, "asked": b} for label, (a, b) in figures.checks.items()},
        "ratings": list(figures.ratings),
        "correlations": [{**each._asdict(), **each.values} for each in figures.correlations],
        "costs": [_cost(cost) for cost in figures.costs],
    }
    cleaned: dict[str, Any] = _clean(found)
    return cleaned


def headline(figures: Figures) -> str:
    """A short table: one row per judge."""
    costs = {cost.judge: dollars(cost) for cost in figures.costs}
    rows = []
    for judge in figures.judges:
        beside = figures.agreement.get((figures.reference, judge.label), {})
        absent = "one order each" if judge.is_in_one_order else "–"
        turned = format_estimate(*estimate(judge.order, "position_bias_rate")) if judge.order else absent
        kappa = format_estimate(*estimate(beside, "quadratic_kappa")) if "quadratic_kappa" in beside else "–"
        equal = format_estimate(beside["accuracy"], math.nan, math.nan) if "accuracy" in beside else "–"
        shares = (
            "–" if math.isnan(each.value) else format_estimate(*each) for each in (judge.share_wide, judge.tie_rate)
        )
        rows.append([judge.label, f"{judge.verdicts:,}", *shares, turned, kappa, equal, costs.get(judge.label, "–")])
    head = ["judge", "verdicts", "for I_a", "ties", "position bias", f"kappa with {figures.reference}", "equal", "US$"]
    return text_table(head, rows)
