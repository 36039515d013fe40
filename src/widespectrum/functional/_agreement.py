"""How far two judges, or a judge and people, give the same verdicts, and whether the order of showing sways one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ._bootstrap import FEW_CLUSTERS, NO_WIDTH, cluster_sums, ratio, resampling
from ._checks import (
    Codes,
    Floats,
    Labels,
    Names,
    Numbers,
    complete_column,
    label_column,
    number_column,
    require_rows,
)
from ._slices import Study, blocks, keyed_prompts, slices_of

_INPUTS = ("verdict", "reference", "verdict_first", "verdict_second")
_RATES = ("accuracy", "accuracy_ties_dropped", "accuracy_ties_merged", "position_bias_rate", "first_shown_rate")
_COUNTED = {"n_compared": "accuracy", "n_both_orders": "position_bias_rate", "n_reversed": "first_shown_rate"}
_OF_PAIRS = ("quadratic_kappa", "majority_baseline", "majority_baseline_mae")
_NO_PAIR = "undefined: no row has both verdict and reference"
_REASONS = {
    "quadratic_kappa": "undefined: no row has both verdict and reference, or both use one category alone, the same",
    "accuracy_ties_dropped": "undefined: no row has a verdict and a reference neither of which is a tie",
    "position_bias_rate": "undefined: no row has the verdicts of both orders",
    "first_shown_rate": "undefined: no row has verdicts that differ between the orders and neither of which is a tie",
}
_NO_TIE = "not given: `tie` is None, so that no category is a tie"
_LOWEST_TIE = "not given: the tie is the lowest category, so that there is none below to take it for"
_NO_ORDERS = "not given: it needs verdict_first and verdict_second"
_NO_BETTER = "no higher than majority_baseline: always giving the reference's commonest category is right as often"
_FEW = f"rests on fewer than {FEW_CLUSTERS} prompts: its interval over prompts is too narrow to rest a claim on"


class _Scale(NamedTuple):
    """The categories in order, and the position of the tie among them, NaN where none is."""

    categories: Floats
    tie: float


class _Answers(NamedTuple):
    """Answers as positions among the categories, NaN for none."""

    verdict: Floats
    reference: Floats
    first: Floats
    second: Floats


def judge_agreement(
    verdict: Numbers,
    reference: Numbers,
    *,
    verdict_first: Numbers | None = None,
    verdict_second: Numbers | None = None,
    categories: Sequence[float] = (0, 0.5, 1),
    tie: float | None = 0.5,
    prompt_id: Names | None = None,
    group: Names | None = None,
    image_seed: Names | None = None,
    n_resamples: int = 2000,
    seed: int = 0,
    confidence_level: float = 0.95,
    interval: str = "percentile",
) -> dict[str, Any]:
    """How well a judge's verdicts agree with those of a reference, be it another judge or people.

    Formula: with the k ordered categories at positions 0 … k − 1, i the position of the verdict and j of the reference,
    `quadratic_kappa` = 1 − Σ w·O / Σ w·E, where w = (i − j)², O counts the pairs (i, j) and E is what independent
    verdicts of the same frequencies would give; `mae` = mean |i − j|, in steps from a category to the next: with
    (0, 0.5, 1) a tie is 1 away from either image, and the images are 2 apart. `accuracy` = share of i = j, ties being a
    category of their own. `accuracy_ties_dropped` = the same over the rows where neither side says tie;
    `accuracy_ties_merged` = the same once every tie is taken for the category below it, which for verdicts is 0, I_o.
    `majority_baseline` = the accuracy, `majority_baseline_mae` the mae, of always giving the reference's commonest
    category (of equally common ones the lowest); the kappa of any such constant answer is 0. `position_bias_rate` =
    share of pairs whose verdict changes with the order in which the images are shown; `first_shown_rate` = share of
    those with a higher verdict when I_a is shown first, where neither order says tie.

    Inputs: `verdict`, `reference`, (n,), values out of `categories`, or None for no answer. Optional, each (n,):
    `verdict_first`, `verdict_second`, the judge's answers with I_a shown first and second (both or neither), 1 for I_a;
    `prompt_id`, the bootstrap's cluster (omitted: every row its own); `group`, such as generator, dimension or person;
    `image_seed`. (prompt_id, group, image_seed) is a row's key and may not repeat. `categories`: any increasing
    numbers, such as (0, 1, 2) or (−2, −1, 0, 1, 2), used or not; only their order counts. `tie`: one of them, or None.

    Range: kappa at most 1, chance 0, below 0 where they differ more than chance would; accuracies in [0, 1], to be read
    against `majority_baseline`; mae from 0 to k − 1; `position_bias_rate` 0 for a judge blind to the order, 1 for one
    that always takes the first; `first_shown_rate` ½ for one that changes its mind at random, 1 if always to the first.

    Ties and gaps: a row without verdict or reference is left out and counted in `coverage`; one without both orders is
    left out of the order figures alone. Dropping ties favours a judge who says tie whenever it is hard: read
    `n_decided` beside it. Dropping the ties of one side alone, as in the paper (pairs labelled 0 or 1, the other's ties
    then counting as I_o), changes with who is called the reference; `confusion_matrix` has the counts for it. What is
    undefined is an absent key with its reason in `notes`: kappa where both use one category alone. No rows, unequal
    lengths, values outside `categories`, NaN, infinity or repeated keys raise ValueError.

    Returns a flat dict: every name above with `<name>_ci_low` and `<name>_ci_high` (cluster bootstrap over prompts:
    `n_resamples`, `seed`, `confidence_level`, `interval` "percentile" or "bca"), `<name>_wilson_low` and `_high` for
    shares but the baseline, whose category is taken from the data (they take rows as independent); `n_pairs` (rows),
    `n_prompts`, `n_compared` (verdict and reference), `n_decided` (neither a tie), `n_both_orders`, `n_reversed` (they
    differ, neither a tie); of the compared rows `confusion_matrix`, a list of rows, reference down and verdict across
    in the order of `categories`, with its sums `n_reference` and `n_verdict`, and `majority_category`; `coverage`,
    `notes`, `cautions`, `undefined_resamples`. With `group`, `by_group` holds the same per group.

    Source: Cohen, "Weighted kappa", Psychological Bulletin 70 (1968); the figures of judges in Guo, Qian, Hasan and Du,
    "Position: Universal Aesthetic Alignment Narrows Artistic Expression", ICML 2026 (arXiv 2512.11883).

    >>> result = judge_agreement([1, 1, 0.5, 0], [1, 0.5, 0.5, 1], n_resamples=100)
    >>> result["accuracy"], result["accuracy_ties_dropped"], result["accuracy_ties_merged"], result["mae"]
    (0.5, 0.5, 0.5, 0.75)
    >>> result["confusion_matrix"]
    [[0, 0, 0], [0, 1, 1], [1, 0, 1]]
    >>> result["notes"]["position_bias_rate"]
    'not given: it needs verdict_first and verdict_second'
    """
    options = resampling(n_resamples, seed, confidence_level, interval)
    n = require_rows("verdict", verdict)
    scale = _scale(categories, tie)
    answers = _answers((verdict, reference, verdict_first, verdict_second), n, scale)
    groups = None if group is None else label_column("group", group, n)
    labels = {} if groups is None else {"group": groups}
    prompts = keyed_prompts(n, prompt_id=prompt_id, image_seed=image_seed, **labels)
    study = Study(
        columns=_columns(answers, scale.tie),
        slices=slices_of(groups, n),
        prompts=prompts,
        proportions=_RATES,
        reasons=_reasons(scale.tie, verdict_first is not None),
        statistics=lambda rows: _statistics(answers, scale, rows, prompts),
        rests_on=dict.fromkeys(_OF_PAIRS, ("accuracy",)),
    )
    found = blocks(study, options)
    for name, rows in study.slices.items():
        found[name] |= _counts(answers, scale, rows, study)
        found[name]["cautions"] |= _cautions(found[name], rows, study)
    result, *parts = found.values()
    keys = {"prompt_id": prompt_id, "group": group, "image_seed": image_seed}
    result["coverage"] = {name: float(np.mean(~np.isnan(c))) for name, c in zip(_INPUTS, answers, strict=True)}
    result["coverage"] |= {name: float(values is not None) for name, values in keys.items()}
    return result if groups is None else result | {"by_group": dict(zip(groups.names, parts, strict=True))}


def _listed(numbers: Floats) -> str:
    return ", ".join(f"{number:g}" for number in numbers)


def _scale(categories: Sequence[float], tie: float | None) -> _Scale:
    numbers = complete_column("categories", categories, require_rows("categories", categories))
    if len(numbers) < 2 or (np.diff(numbers) <= 0).any():
        raise ValueError(
            f"categories: expected at least two numbers, each above the one before, got {_listed(numbers)}"
        )
    if tie is None:
        return _Scale(numbers, np.nan)
    if tie not in numbers.tolist():
        raise ValueError(f"tie: expected one of the categories {_listed(numbers)}, or None if none is, got {tie!r}")
    return _Scale(numbers, float(numbers.tolist().index(tie)))


def _answers(columns: Sequence[Numbers | None], n: int, scale: _Scale) -> _Answers:
    """The columns of `_INPUTS` as positions; one that is not given has no answers."""
    if (columns[2] is None) != (columns[3] is None):
        alone, other = _INPUTS[2:] if columns[3] is None else _INPUTS[:1:-1]
        raise ValueError(
            f"{alone}: expected {other} beside it, got none; give the verdicts of both orders or of neither"
        )
    return _Answers(*(_positions(name, values, n, scale) for name, values in zip(_INPUTS, columns, strict=True)))


def _positions(name: str, values: Numbers | None, n: int, scale: _Scale) -> Floats:
    if values is None:
        return np.full(n, np.nan)
    column = number_column(name, values, n)
    places = np.searchsorted(scale.categories, column).clip(max=len(scale.categories) - 1)
    outside = ~np.isnan(column) & (scale.categories[places] != column)
    if outside.any():
        row = int(np.argmax(outside))
        raise ValueError(
            f"{name}, row {row} (counted from 0): expected one of the categories {_listed(scale.categories)}, or None, "
            f"got {column[row]:g}; convert it, or give other `categories`"
        )
    return np.where(np.isnan(column), np.nan, places)


def _columns(answers: _Answers, tie: float) -> dict[str, Floats]:
    """Per row, the numbers whose means are the estimates; NaN where a row does not count."""
    i, j, first, second = answers
    # a tie that is NaN, for none, equals no answer
    same = np.where(np.isnan(i + j), np.nan, i == j)
    merged = np.where(i == tie, tie - 1, i) == np.where(j == tie, tie - 1, j)
    differ = np.where(np.isnan(first + second), np.nan, first != second)
    turned = (differ == 1) & (first != tie) & (second != tie)
    return {
        "accuracy": same,
        "accuracy_ties_dropped": np.where((i == tie) | (j == tie) | np.isnan(tie), np.nan, same),
        "accuracy_ties_merged": np.where(np.isnan(same) | (not tie > 0), np.nan, merged),
        "mae": np.abs(i - j),
        "position_bias_rate": differ,
        "first_shown_rate": np.where(turned, first > second, np.nan),
    }


def _reasons(tie: float, has_orders: bool) -> dict[str, str]:
    """Why each estimate can be absent."""
    reasons = dict.fromkeys((*_RATES, *_OF_PAIRS, "mae"), _NO_PAIR) | _REASONS
    if np.isnan(tie):
        reasons |= dict.fromkeys(("accuracy_ties_dropped", "accuracy_ties_merged"), _NO_TIE)
    elif tie == 0:
        reasons["accuracy_ties_merged"] = _LOWEST_TIE
    if not has_orders:
        reasons |= dict.fromkeys(("position_bias_rate", "first_shown_rate"), _NO_ORDERS)
    return reasons


def _statistics(
    answers: _Answers, scale: _Scale, rows: Codes, prompts: Labels
) -> Mapping[str, Callable[[Floats], Floats]]:
    """The estimates of a slice that are no means, as functions of the weights (resamples, prompts)."""
    rows = rows[~np.isnan(answers.verdict[rows] + answers.reference[rows])]
    i, j, codes = answers.verdict[rows], answers.reference[rows], prompts.codes[rows]
    places = np.arange(len(scale.categories))
    steps = np.abs(np.subtract.outer(places, places)).astype(np.float64)
    moments = cluster_sums(
        np.stack([np.ones_like(i), i, j, i**2 + j**2, (i - j) ** 2], axis=1), codes, len(prompts.names)
    )
    margins = cluster_sums((j[:, None] == places).astype(np.float64), codes, len(prompts.names))

    def kappa(weights: Floats) -> Floats:
        n, verdicts, references, squares, observed = (weights @ moments).T
        # Σ w·E = Σ (i² + j²) − 2 Σi Σj / n; times n, all is whole numbers and exactly 0 where kappa is undefined
        return 1 - ratio(n * observed, n * squares - 2 * verdicts * references)

    def baseline(weights: Floats) -> Floats:
        counts = weights @ margins
        return ratio(counts.max(axis=1), counts.sum(axis=1))

    def baseline_mae(weights: Floats) -> Floats:
        counts = weights @ margins
        return ratio((counts * steps[counts.argmax(axis=1)]).sum(axis=1), counts.sum(axis=1))

    return {"quadratic_kappa": kappa, "majority_baseline": baseline, "majority_baseline_mae": baseline_mae}


def _counts(answers: _Answers, scale: _Scale, rows: Codes, study: Study) -> dict[str, Any]:
    """How many rows are behind the figures, and which answers they hold."""
    known = {name: rows[~np.isnan(study.columns[column][rows])] for name, column in _COUNTED.items()}
    chosen = known["n_compared"]
    i, j, k = answers.verdict[chosen], answers.reference[chosen], len(scale.categories)
    matrix = np.bincount((j * k + i).astype(np.intp), minlength=k * k).reshape(k, k)
    result: dict[str, Any] = {name: len(used) for name, used in known.items()}
    result["n_decided"] = int(((i != scale.tie) & (j != scale.tie)).sum())
    result |= {"categories": scale.categories.tolist(), "confusion_matrix": matrix.tolist()}
    result |= {"n_reference": matrix.sum(axis=1).tolist(), "n_verdict": matrix.sum(axis=0).tolist()}
    if len(chosen):
        result["majority_category"] = float(scale.categories[matrix.sum(axis=1).argmax()])
    return result


def _cautions(block: Mapping[str, Any], rows: Codes, study: Study) -> dict[str, str]:
    """What to hold against estimates that are given."""
    cautions = {}
    for name in ("quadratic_kappa", *_RATES):
        column = study.columns[name if name in _RATES else "accuracy"][rows]
        prompts = np.unique(study.prompts.codes[rows][~np.isnan(column)])
        doubts = []
        if name == "accuracy" and block.get(name, 1) <= block.get("majority_baseline", 0):
            doubts.append(_NO_BETTER)
        if f"{name}_ci_low" in block and block[f"{name}_ci_low"] == block[f"{name}_ci_high"]:
            doubts.append(NO_WIDTH)
        if name in block and len(prompts) < FEW_CLUSTERS <= block["n_prompts"]:
            doubts.append(_FEW)
        if doubts:
            cautions[name] = "; ".join(doubts)
    return cautions
