"""How far a generator leaves the mainstream look when the prompt asks for it, with the content still there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from ._adherence_rows import ALL_DIMENSIONS, Rows, adherence_rows, dimension_flags
from ._auroc import score_order, weighted_auroc
from ._bootstrap import (
    Draws,
    Resampling,
    Statistic,
    add_wilson,
    cluster_sums,
    draw,
    interval_cautions,
    ratio,
    resampling,
    with_intervals,
)
from ._checks import (
    Codes,
    Flags,
    Floats,
    Labels,
    Names,
    Numbers,
    label_column,
    require_rows,
    require_unique,
    row_labels,
)
from ._paired import add_holm, effect_size, signed_rank_p
from ._polish import escape, overlap, overlap_interval, weighted_escape_rate
from ._significance import mcnemar_exact

REQUIRES = {
    "success_rate": ("verdict",),
    "delta_reward": ("r_io_po", "r_ia_po"),
    "reward_after": ("r_ia_po",),
    "effect_gain": ("effect_io", "effect_ia"),
    "delta_j_all": ("j_io", "j_ia (of all eleven dimensions)"),
    "delta_j_selected": ("j_io", "j_ia (of the selected dimensions)", "dimensions"),
    "effect_after": ("effect_ia",),
    "content_after": ("content_ia",),
    "j_after": ("j_ia (of all eleven dimensions)",),
    "j_after_selected": ("j_ia (of the selected dimensions)", "dimensions"),
    "refusal_rate": ("status",),
    "failure_rate": ("status",),
    "content_preservation": ("content_io (above 0 on average)", "content_ia"),
    "escape_rate": ("r_io_po", "r_ia_po"),
    "polish_overlap": ("r_io_po", "r_ia_po"),
    "delta_j": ("j_io", "j_ia (of this dimension)", "dimensions"),
    "wilcoxon_r": ("r_ia_po", "r_ia_po_base (differing in at least one row)"),
    "wilcoxon_j_r": ("j_ia", "j_ia_base (of all eleven dimensions, differing in at least one row)"),
    "mcnemar_p": ("verdict", "verdict_base"),
}
MEANS = tuple(REQUIRES)[:12]
PROPORTIONS = ("success_rate", "refusal_rate", "failure_rate")
TESTED = {"wilcoxon": "reward_after", "wilcoxon_j": "j_after"}
P_VALUES = ("wilcoxon_p", "wilcoxon_j_p", "mcnemar_p")
_REASONS = {name: f"not given: no row has {' and '.join(inputs)}" for name, inputs in REQUIRES.items()}
_REPEATED = "prompts repeat, and McNemar's test takes rows as independent: the true p is larger"
_SliceStatistic = Callable[[Floats], Floats]  # weights (resamples, prompts) to (resamples,)


class _Study(NamedTuple):
    """A generator's rows, its base's (None without one), and the prompt of each row."""

    rows: Rows
    base: Rows | None
    prompts: Labels


def anti_aesthetic_adherence(
    r_io_po: Numbers,
    r_ia_po: Numbers,
    *,
    verdict: Numbers | None = None,
    effect_io: Numbers | None = None,
    effect_ia: Numbers | None = None,
    content_io: Numbers | None = None,
    content_ia: Numbers | None = None,
    j_io: Any = None,
    j_ia: Any = None,
    dimensions: Any = None,
    status: Names | None = None,
    prompt_id: Names | None = None,
    image_seed: Names | None = None,
    r_io_po_base: Numbers | None = None,
    r_ia_po_base: Numbers | None = None,
    verdict_base: Numbers | None = None,
    effect_io_base: Numbers | None = None,
    effect_ia_base: Numbers | None = None,
    content_io_base: Numbers | None = None,
    content_ia_base: Numbers | None = None,
    j_io_base: Any = None,
    j_ia_base: Any = None,
    status_base: Names | None = None,
    n_resamples: int = 2000,
    seed: int = 0,
    confidence_level: float = 0.95,
    interval: str = "percentile",
) -> dict[str, Any]:
    """Whether a generator follows a wide-spectrum prompt, away from the mainstream look, with the content still there.

    The generator made I_o from the original prompt p_o and I_a from the wide-spectrum prompt p_a. r(I, p) is the
    reward of one reward model; under p_o it says how conventionally good an image looks.

    Formula: `success_rate` = share of verdict 1; `delta_reward` = mean r(I_a,p_o) − r(I_o,p_o) and `reward_after` =
    mean r(I_a,p_o); `effect_gain` = mean effect(I_a) − effect(I_o); `content_preservation` = mean content(I_a) / mean
    content(I_o); `delta_j_all` and `delta_j_selected` = mean over pairs of J(I_a,d) − J(I_o,d), summed over all eleven
    dimensions d or over those that the prompt selects; `effect_after`, `content_after`, `j_after` and
    `j_after_selected` = the means of I_a alone. Polish pull, how much of I_a stays inside the generator's own
    polished default: `escape_rate` = share of I_a with r(I_a,p_o) below the 10th percentile of r(I_o,p_o), and
    `polish_overlap` = 2·min(A, 1 − A), A = P(r(I_a,p_o) > r(I_o,p_o)) + ½ P(equal) over all pairs of images.
    `refusal_rate`, `failure_rate` = shares of those statuses. Against a base generator, paired by row: `wilcoxon_r` =
    −Z/√N of the signed ranks of r(I_a,p_o), one mean per prompt (zeros dropped, N all prompts; the sign of base −
    aligned), `wilcoxon_p` one-sided for "aligned is greater", `wilcoxon_j_r` and `_p` the same on the sum of J(I_a,d);
    `mcnemar_p` exact and two-sided, `mcnemar_p_one_sided` for "aligned succeeds less often", both over rows;
    `wilcoxon_p_holm`, `wilcoxon_j_p_holm` and `mcnemar_p_holm` are adjusted for the three of them, in `by_dimension`
    for those of all dimensions.

    Inputs: two rewards, float or None (n,), one row per prompt pair. Optional, each (n,): `verdict` 1 (I_a fits p_a
    better), 0 (I_o), 0.5 (tie) or None; `effect_*`, the share of the requested effects that shows, and `content_*`, how
    well the main concept shows, 0 to 100 or None; `j_*`, eleven numbers from 0 to 2 (2 = conventionally good) in
    alphabetical order of the dimensions, or None; `dimensions`, a list of names per row; `status` "ok", "refused" or
    "failed" (of the request for the pair); `prompt_id`, the bootstrap's cluster (omitted: every row its own);
    `image_seed`. (prompt_id, image_seed) is a row's key and may not repeat. Names in `_base` are the base generator's,
    row by row.

    Range: lower `delta_reward`, `delta_j_*` and `polish_overlap`, and higher `escape_rate`, mean a generator that left
    the default. Where I_a scores as I_o does, row by row, the differences are 0, the overlap is 1 and the escape rate
    is about 0.1, less where rewards tie at the percentile (0 where all are equal). A low reward cannot tell a faithful
    image from a broken one: read `content_preservation` (1 = kept as in I_o) beside it. Wilcoxon's r is in [−1, 1].

    Ties and gaps: a tie is no success, and neither is a refusal. A failed call is never a result: it is left out of the
    success rate and of McNemar's test, and `failure_rate` stands beside them. Rewards and judge scores count in the
    rows that are ok alone; in the others they may be anything. A row without a value, a reward included, is left out of
    the figures that need it, and `coverage` says what share of rows has each input; the tests use the rows in which
    both generators have a value.
    What is undefined is an absent key with its reason in `notes`. No rows, unequal lengths, NaN or infinity in a row
    that is ok, and repeated keys raise ValueError.

    Returns a flat dict: every name above with `<name>_ci_low` and `<name>_ci_high` (cluster bootstrap over prompts,
    `interval` "percentile" or "bca"; not for p-values), `<name>_wilson_low` and `_high` for the success, refusal and
    failure rates (they take rows as independent), `n_pairs`, `n_prompts`, `coverage`, `notes`, `cautions` (name to why
    it is to be read with care), `undefined_resamples`; with `dimensions`, `by_dimension`: the same over the rows that
    select each one, with `delta_j`, its own J(I_a) − J(I_o); with inputs in `_base`, `base`: the same for the base
    generator. The interval of the overlap is that of A, folded: it reaches 1 where A may be ½.

    Source: Guo, Qian, Hasan and Du, "Position: Universal Aesthetic Alignment Narrows Artistic Expression", ICML 2026
    (arXiv 2512.11883); escape rate and overlap are this package's.

    >>> result = anti_aesthetic_adherence([9, 8, 7, 9], [2, 9, 3, 4], verdict=[1, 0, 0.5, 1], n_resamples=100)
    >>> result["success_rate"], result["delta_reward"], result["reward_after"]
    (0.5, -3.75, 4.5)
    >>> result["escape_rate"], result["polish_overlap"]
    (0.75, 0.375)
    >>> result["notes"]["effect_gain"]
    'not given: no row has effect_io and effect_ia'
    """
    options = resampling(n_resamples, seed, confidence_level, interval)
    n = require_rows("r_io_po", r_io_po)
    own = {"r_io_po": r_io_po, "r_ia_po": r_ia_po, "verdict": verdict, "effect_io": effect_io, "effect_ia": effect_ia}
    own |= {"content_io": content_io, "content_ia": content_ia, "j_io": j_io, "j_ia": j_ia, "status": status}
    other = {"r_io_po_base": r_io_po_base, "r_ia_po_base": r_ia_po_base, "verdict_base": verdict_base}
    other |= {"effect_io_base": effect_io_base, "effect_ia_base": effect_ia_base, "content_io_base": content_io_base}
    other |= {"content_ia_base": content_ia_base, "j_io_base": j_io_base, "j_ia_base": j_ia_base}
    other |= {"status_base": status_base}
    selected = dimension_flags(dimensions, n)
    has_base = any(value is not None for value in other.values())
    base = adherence_rows(other, n, selected, "_base") if has_base else None
    study = _Study(adherence_rows(own, n, selected), base, _prompts(prompt_id, image_seed, n))
    result = _analyse(study, selected, options)
    if base is not None:
        result["base"] = _analyse(_Study(base, None, study.prompts), selected, options)
    return result


def _prompts(prompt_id: Names | None, image_seed: Names | None, n: int) -> Labels:
    keys = {"prompt_id": prompt_id, "image_seed": image_seed}
    labels = {name: label_column(name, values, n) for name, values in keys.items() if values is not None}
    if prompt_id is not None:
        require_unique(labels)
    return labels.get("prompt_id", row_labels(n))


def _analyse(study: _Study, selected: Flags | None, options: Resampling) -> dict[str, Any]:
    """The block over all rows, and over the rows of each dimension."""
    slices = {"": np.arange(len(study.prompts.codes))}
    if selected is not None:
        slices |= {ALL_DIMENSIONS[k]: np.flatnonzero(selected[:, k]) for k in np.flatnonzero(selected.any(axis=0))}
    statistic = _statistic(study, slices)
    n_clusters = len(study.prompts.names)
    draws = draw(statistic, n_clusters, options)
    blocks = {name: _block(study, rows, name, draws.of(k), options) for k, (name, rows) in enumerate(slices.items())}
    result = blocks.pop("")
    if study.base is not None:
        for family in ([result], [*blocks.values()]):
            add_holm(family, P_VALUES)
    result["coverage"] = study.rows.coverage | {"dimensions": float(selected is not None)}
    return result | ({"by_dimension": blocks} if selected is not None else {})


def _statistic(study: _Study, slices: Mapping[str, Codes]) -> Statistic:
    """Weights of prompts (resamples, prompts) to estimates (resamples, slices)."""
    codes, n_clusters = study.prompts.codes, len(study.prompts.names)
    values = study.rows.values
    terms = np.stack([np.stack(_mean_terms(values, name), axis=-1) for name in slices])
    sums = [cluster_sums(terms[k][rows], codes[rows], n_clusters) for k, rows in enumerate(slices.values())]
    stacked = np.concatenate(sums, axis=1)
    others = [_slice_statistics(study, rows) for rows in slices.values()]

    def statistic(weights: Floats) -> dict[str, Floats]:
        totals = (weights @ stacked).reshape(len(weights), len(slices), terms.shape[-1])
        tops, bottoms = totals[..., 0::2], totals[..., 1::2]
        means = ratio(tops, bottoms)
        result = {name: means[..., k] for k, name in enumerate((*MEANS, "content_preservation", "delta_j"))}
        for name in others[0]:
            result[name] = np.stack([functions[name](weights) for functions in others], axis=1)
        return result

    return statistic


def _mean_terms(values: Mapping[str, Floats], dimension: str) -> list[Floats]:
    """Numerators and denominators in turn: value and presence of each mean, content of I_a and I_o, the own delta J."""
    means = [values[name] for name in MEANS]
    own = values.get(f"delta_j:{dimension}", np.full(len(means[0]), np.nan))
    terms = []
    for column in (*means, own):
        terms += [np.nan_to_num(column), (~np.isnan(column)).astype(np.float64)]
    after, before = values["content_after"], values["content_before"]
    both = ~np.isnan(after) & ~np.isnan(before)
    content = [np.where(both, after, 0.0), np.where(both, before, 0.0)]
    return [*terms[:-2], *content, *terms[-2:]]


def _undefined(weights: Floats) -> Floats:
    return np.full(len(weights), np.nan)


def _slice_statistics(study: _Study, rows: Codes) -> dict[str, _SliceStatistic]:
    """The estimates of one slice that are not ratios of sums."""
    values, codes = study.rows.values, study.prompts.codes
    scored = rows[~np.isnan(values["delta_reward"][rows])]
    result: dict[str, _SliceStatistic] = {"escape_rate": _undefined, "polish_overlap": _undefined}
    if len(scored):
        before, after, clusters = values["reward_before"][scored], values["reward_after"][scored], codes[scored]
        rewards, order = escape(before, after, clusters), score_order(after, before, clusters, clusters)
        result["escape_rate"] = lambda weights: weighted_escape_rate(rewards, weights)
        result["polish_overlap"] = lambda weights: weighted_auroc(order, weights)  # folded by `_fold_overlap`
    if study.base is not None:
        for name, column in TESTED.items():
            result[f"{name}_r"] = effect_size(*_differences(study, study.base, column, rows))
    return result


def _differences(study: _Study, base: Rows, column: str, rows: Codes) -> tuple[Floats, Codes]:
    """Aligned − base in the rows in which both have a value, and the prompt of each."""
    aligned, other, prompts = _paired(study, base, column, rows)
    return aligned - other, prompts


def _paired(study: _Study, base_rows: Rows, column: str, rows: Codes) -> tuple[Floats, Floats, Codes]:
    """The rows in which both generators have a value: aligned, base, clusters."""
    aligned, base = study.rows.values[column][rows], base_rows.values[column][rows]
    both = ~np.isnan(aligned) & ~np.isnan(base)
    return aligned[both], base[both], study.prompts.codes[rows][both]


def _cluster_counts(study: _Study, rows: Codes, dimension: str) -> dict[str, int]:
    """Per estimate, on how many prompts it rests."""
    values, codes = study.rows.values, study.prompts.codes[rows]
    used = {name: ~np.isnan(values[name][rows]) for name in MEANS}
    used |= {name: used["delta_reward"] for name in ("escape_rate", "polish_overlap")}
    used["content_preservation"] = ~np.isnan((values["content_after"] + values["content_before"])[rows])
    if dimension:
        used["delta_j"] = ~np.isnan(values[f"delta_j:{dimension}"][rows])
    counts = {name: len(np.unique(codes[flags])) for name, flags in used.items()}
    if study.base is not None:
        for name, column in TESTED.items():
            counts[f"{name}_r"] = len(np.unique(_differences(study, study.base, column, rows)[1]))
    return counts


def _block(study: _Study, rows: Codes, dimension: str, draws: Draws, options: Resampling) -> dict[str, Any]:
    """Everything about one slice of the rows, flat."""
    if not dimension:
        draws.point.pop("delta_j")
    result = with_intervals(draws, _cluster_counts(study, rows, dimension), _REASONS, options)
    _fold_overlap(result)
    add_wilson(result, {name: int((~np.isnan(study.rows.values[name][rows])).sum()) for name in PROPORTIONS}, options)
    sizes = {"n_pairs": len(rows), "n_prompts": len(np.unique(study.prompts.codes[rows]))}
    result = sizes | result | {"cautions": interval_cautions(result, sizes["n_prompts"])}
    return result if study.base is None else _with_tests(study, study.base, rows, result)


def _fold_overlap(result: dict[str, Any]) -> None:
    """From P(r(I_a,p_o) > r(I_o,p_o)) to the overlap, estimate and interval."""
    name = "polish_overlap"
    if name in result:
        result[name] = overlap(result[name])
    if f"{name}_ci_low" in result:
        ends = overlap_interval(result[f"{name}_ci_low"], result[f"{name}_ci_high"])
        result[f"{name}_ci_low"], result[f"{name}_ci_high"] = ends


def _with_tests(study: _Study, base_rows: Rows, rows: Codes, result: dict[str, Any]) -> dict[str, Any]:
    """`result` with the p-values of the comparison with the base generator."""
    for name, column in TESTED.items():
        p = signed_rank_p(*_differences(study, base_rows, column, rows))
        if p is not None:
            result[f"{name}_p"] = p[0]
        else:
            result["notes"][f"{name}_p"] = _REASONS[f"{name}_r"]
    aligned, base, prompts = _paired(study, base_rows, "success_rate", rows)
    if len(aligned):
        result["mcnemar_p"], result["mcnemar_p_one_sided"] = mcnemar_exact(aligned == 1, base == 1)
        if len(np.unique(prompts)) < len(prompts):
            result["cautions"] |= dict.fromkeys(("mcnemar_p", "mcnemar_p_one_sided"), _REPEATED)
    else:
        result["notes"] |= dict.fromkeys(("mcnemar_p", "mcnemar_p_one_sided"), _REASONS["mcnemar_p"])
    return result
