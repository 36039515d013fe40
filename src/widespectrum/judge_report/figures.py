"""The figures of the judge report: what each judge did, how far they agree, what they cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from widespectrum.annotate.log import read_logs
from widespectrum.errors import InputError
from widespectrum.functional import cluster_means, judge_agreement, krippendorff_alpha
from widespectrum.report.material import Estimate

from .cost import Cost, read_costs
from .material import PEOPLE, RATER, Floats, Material, Verdicts, listed, read_material
from .ratings import Correlation, Rating, correlations, ratings

__all__ = ["Figures", "JudgeFigures", "Raters", "Slice", "agreement_rows", "estimate", "read_figures"]

TERCILES = ("least sure third", "middle third", "surest third")
_FEWEST_SURE = 9
"""Below so many answers with a confidence, thirds of them say nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeFigures:
    """What one judge did with the pairs of the run; `missing` are those without verdict or reason.

    `order` holds what `judge_agreement` says of the order of showing, and is empty where it saw no pair in both:
    `is_in_one_order` for a person, not for a majority of people, who saw different ones. `confidence` is its mean, NaN
    where it gives none; `by_confidence` (third, answers, share equal to the reference).
    """

    label: str
    verdicts: int
    ties: int
    abstained: Mapping[str, int]
    missing: int
    share_wide: Estimate
    tie_rate: Estimate
    order: Mapping[str, Any]
    is_in_one_order: bool
    confidence: float
    by_confidence: Sequence[tuple[str, int, float]] = ()


@dataclass(frozen=True, slots=True)
class Slice:
    """The agreement of each judge with the reference on the pairs of one generator or dimension."""

    name: str
    pairs: int
    by_judge: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Raters:
    """How far several people agree: the mean of kappa over every two with a common pair (`compared`), and alpha."""

    count: int
    compared: int
    mean_kappa: float
    alpha: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Everything that the report shows but the gallery. `agreement` is keyed by (reference, judge); `checks` holds the
    attention checks of each rater (passed, answered).
    """

    material: Material
    reference: str
    judges: Sequence[JudgeFigures]
    agreement: Mapping[tuple[str, str], Mapping[str, Any]]
    by_generator: Sequence[Slice]
    by_dimension: Sequence[Slice]
    raters: Raters | None
    ratings: Sequence[Rating]
    correlations: Sequence[Correlation]
    costs: Sequence[Cost]
    checks: Mapping[str, tuple[int, int]]


def estimate(values: Mapping[str, Any], name: str) -> Estimate:
    """A figure of a flat dictionary with the ends of its interval; NaN for what it lacks."""
    return Estimate(*(float(values.get(key, np.nan)) for key in (name, f"{name}_ci_low", f"{name}_ci_high")))


def _compare(material: Material, judge: str, reference: str, rows: Sequence[int], **group: Any) -> dict[str, Any]:
    """`judge_agreement` of two judges on some of the pairs; the orders are those of `judge`."""
    own = material.verdicts[judge]
    both, first, second, other = (
        listed(column[list(rows)]) for column in (own.both, own.first, own.second, material.verdicts[reference].both)
    )
    keys: dict[str, Any] = {name: [values[row] for row in rows] for name, values in material.row_keys.items()}
    return judge_agreement(both, other, verdict_first=first, verdict_second=second, **keys, **group, **material.options)


def _mean(values: Floats, clusters: Sequence[str], options: Mapping[str, Any]) -> Estimate:
    plain = {name: value for name, value in options.items() if name != "interval"}
    means = cluster_means(values[:, None], clusters, **plain)
    return Estimate(*(float(part[0]) for part in means))


def _by_confidence(own: Verdicts, other: Verdicts) -> Iterator[tuple[str, int, float]]:
    """The share equal to the reference, in thirds of the confidence; equal confidences stay together."""
    rows = np.flatnonzero(~np.isnan(own.both + other.both + own.confidence))
    if len(rows) < _FEWEST_SURE:
        return
    sure = own.confidence[rows]
    part = np.searchsorted(np.quantile(sure, (1 / 3, 2 / 3)), sure, side="left")
    for k, name in enumerate(TERCILES):
        chosen = rows[part == k]
        if len(chosen):
            yield name, len(chosen), float(np.mean(own.both[chosen] == other.both[chosen]))


def _judge(material: Material, label: str, reference: str) -> JudgeFigures:
    own, rows = material.verdicts[label], np.flatnonzero(~np.isnan(material.verdicts[label].both))
    told = material.abstentions
    told = told[(told["judge"] == label) & (told["dimension"] == "overall") & (told["rival_id"] != "")]
    nothing = Estimate(np.nan, np.nan, np.nan)
    shares = [nothing, nothing]
    if len(rows):
        clusters = [material.pairs[row].caption for row in rows.tolist()]
        columns = (own.both[rows] == outcome for outcome in (1.0, 0.5))
        shares = [_mean(column.astype(np.float64), clusters, material.options) for column in columns]
    known = own.confidence[~np.isnan(own.confidence)]
    return JudgeFigures(
        label=label,
        verdicts=len(rows),
        ties=int((own.both[rows] == 0.5).sum()),
        abstained=dict(Counter(told["reason"]).most_common()),
        missing=len(material.pairs) - len(rows) - len(told),
        share_wide=shares[0],
        tie_rate=shares[1],
        order=_compare(material, label, label, rows.tolist()) if own.has_both_orders else {},
        is_in_one_order=own.has_an_order and not own.has_both_orders,
        confidence=float(known.mean()) if len(known) else float("nan"),
        by_confidence=() if label == reference else tuple(_by_confidence(own, material.verdicts[reference])),
    )


def _agreement(material: Material) -> dict[tuple[str, str], dict[str, Any]]:
    every = range(len(material.pairs))
    labels = list(material.verdicts)
    return {(a, b): _compare(material, b, a, every) for a in labels for b in labels if a != b}


def _slices(material: Material, reference: str, names: Sequence[Iterable[str]]) -> list[Slice]:
    """The agreement with the reference on each of `names`, of which a pair may have several."""
    rows = [(row, name) for row, each in enumerate(names) for name in each]
    if not rows:
        return []
    places, groups = (list(column) for column in zip(*rows, strict=True))
    found = {
        label: _compare(material, label, reference, places, group=groups)["by_group"]
        for label in material.verdicts
        if label != reference
    }
    counts = Counter(groups)
    return [Slice(name, counts[name], {each: found[each][name] for each in found}) for name in sorted(counts)]


def _raters(material: Material, agreement: Mapping[tuple[str, str], Mapping[str, Any]]) -> Raters | None:
    """How far the people agree; None where there are fewer than two."""
    labels = material.raters
    if len(labels) < 2:
        return None
    kappas = [
        agreement[pair]["quadratic_kappa"] for pair in combinations(labels, 2) if "quadratic_kappa" in agreement[pair]
    ]
    answers = np.stack([material.verdicts[label].both for label in labels], axis=1)
    alpha = krippendorff_alpha(answers, material.row_keys["prompt_id"], (0, 0.5, 1), **material.options)
    return Raters(len(labels), len(kappas), float(np.mean(kappas)) if kappas else float("nan"), alpha)


def _reference(material: Material, wanted: str) -> str:
    """The judge that others are compared with: the wanted one, else the people, a rater, the first judge."""
    labels = list(material.verdicts)
    if wanted and wanted not in labels:
        raise InputError(
            f"--reference {wanted!r} is no judge of {material.run} with verdicts on pairs; there are: "
            f"{', '.join(labels)}"
        )
    people = [PEOPLE] if PEOPLE in labels else material.raters
    return wanted or [*people, *labels][0]


def _checks(run: Path) -> dict[str, tuple[int, int]]:
    """How many attention checks each rater passed, of those answered; also of raters who are not exported."""
    found = {f"{RATER}{code}": log.checks() for code, log in read_logs(run).items()}
    return {label: counts for label, counts in found.items() if counts[1]}


def read_figures(run: Path, reference: str = "") -> Figures:
    """All figures of `run`; InputError where it holds no verdicts, or `reference` is none of its judges."""
    material = read_material(run)
    chosen = _reference(material, reference)
    agreement = _agreement(material)
    return Figures(
        material=material,
        reference=chosen,
        judges=[_judge(material, label, chosen) for label in material.verdicts],
        agreement=agreement,
        by_generator=_slices(material, chosen, [pair.generators for pair in material.pairs]),
        by_dimension=_slices(material, chosen, [pair.dimensions for pair in material.pairs]),
        raters=_raters(material, agreement),
        ratings=ratings(material),
        correlations=correlations(material),
        costs=read_costs(run),
        checks=_checks(run),
    )


def agreement_rows(run: Path, options: Mapping[str, Any] | None = None) -> list[tuple[str, str, dict[str, Any]]]:
    """(judge, reference, what `judge_agreement` returns) for every two judges of `run`, either way round.

    `options` are `n_resamples`, `seed`, `confidence_level` and `interval`; default: those of the run file. Clusters
    are plain captions. InputError where the run holds no verdict on a pair.
    """
    found = _agreement(read_material(run, options))
    return [(judge, reference, dict(values)) for (reference, judge), values in found.items()]
