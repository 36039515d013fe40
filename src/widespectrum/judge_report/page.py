"""What the page of the judge report shows."""

from __future__ import annotations

from typing import Any

from widespectrum.tables import FEW_CAPTIONS

from .figures import Figures, JudgeFigures, Raters, estimate
from .gallery import disagreements
from .material import PEOPLE
from .matrix import confusions, matrix, of_slices
from .tables import (
    confidence_table,
    correlation_table,
    cost_table,
    image_table,
    judge_table,
    rating_table,
    reason_rows,
    shown,
)

__all__ = ["cautions", "content", "statement"]

_OFTEN = 0.5
"""From this share of pairs on, that verdicts turn with the order is said at the top."""


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def statement(figures: Figures) -> str:
    """One sentence: who judged what."""
    material = figures.material
    who = [_count(len(material.machines), "judge")] if material.machines else []
    if material.raters or PEOPLE in material.verdicts:
        who.append(_count(len(material.raters), "rater") if material.raters else "people")
    return (
        f"{' and '.join(who).capitalize()} said of {_count(len(material.pairs), 'image pair')} which of the two images "
        "fits the wide-spectrum prompt better."
    )


def _turning(judge: JudgeFigures) -> str:
    rate = estimate(judge.order, "position_bias_rate").value
    if not rate >= _OFTEN:
        return ""
    return (
        f"{judge.label} changes its verdict with the order of showing on {100 * rate:.0f}\u00a0% of its pairs: there "
        "it looks at the place and not at the image, and these pairs count as ties."
    )


def cautions(figures: Figures) -> list[str]:
    """What a reader has to know before trusting the figures."""
    material = figures.material
    captions = len(set(material.row_keys["prompt_id"]))
    level = f"{100 * material.options['confidence_level']:g}\u00a0%"
    found = [
        f"Brackets hold {level} intervals: a bootstrap that resamples whole plain captions, of which there "
        f"{'is' if captions == 1 else 'are'} {captions:,}."
    ]
    if captions < FEW_CAPTIONS:
        found.append("So few plain captions stand for no population: the intervals are too narrow to rest a claim on.")
    if not material.raters and PEOPLE not in material.verdicts:
        found.append("No people have judged: that models agree with one another does not show that they are right.")
    found += [text for judge in figures.judges if (text := _turning(judge))]
    if waiting := [judge.label for judge in figures.judges if judge.missing and judge.label in material.machines]:
        found.append(f"Not finished: {', '.join(waiting)} did not answer all pairs.")
    if material.unknown:
        found.append(f"Left out: verdicts on {_count(material.unknown, 'pair')} that this run does not hold.")
    return found


def _raters_text(raters: Raters) -> str:
    alpha, mean = estimate(raters.alpha, "alpha"), shown(raters.mean_kappa)
    kappas = f"Mean quadratic κ over {_count(raters.compared, 'couple')} of raters with common pairs: {mean}."
    if not raters.compared:
        kappas = "No two raters have enough common pairs for a κ."
    if "alpha" not in raters.alpha:
        return f"{kappas} Krippendorff’s α (ordinal) is {raters.alpha['notes']['alpha']}."
    interval = f" [{shown(alpha.low)}, {shown(alpha.high)}]" if alpha.has_interval else ""
    return (
        f"{kappas} Krippendorff’s α (ordinal) over {_count(raters.alpha['n_rows'], 'pair')} with two answers or more: "
        f"{shown(alpha.value)}{interval}."
    )


def content(figures: Figures) -> dict[str, Any]:
    """Everything that the template shows."""
    comparisons, with_disagreement = disagreements(figures.material)
    material = figures.material
    return {
        "name": material.run.resolve().name,
        "manifest": material.manifest,
        "level": f"{100 * material.options['confidence_level']:g}\u00a0%",
        "statement": statement(figures),
        "cautions": cautions(figures),
        "reference": figures.reference,
        "judge_table": judge_table(figures),
        "reasons": reason_rows(figures),
        "specs": [(label, material.spec(label)) for label in material.verdicts],
        "matrix": matrix(figures),
        "confusions": confusions(figures),
        "raters": _raters_text(figures.raters) if figures.raters else "",
        "checks": figures.checks,
        "confidence_table": confidence_table(figures),
        "by_generator": of_slices(figures, figures.by_generator, "generator"),
        "by_dimension": of_slices(figures, figures.by_dimension, "dimension"),
        "rating_table": rating_table(figures),
        "correlation_table": correlation_table(figures),
        "cost_table": cost_table(figures.costs),
        "image_table": image_table(figures.costs),
        "costs": figures.costs,
        "comparisons": comparisons,
        "with_disagreement": with_disagreement,
    }
