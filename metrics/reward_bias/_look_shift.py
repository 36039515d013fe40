"""How generated pictures look beside the photographs whose captions they were made from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from ._bootstrap import cluster_sums, ratio, resampling
from ._checks import Codes, Floats, Labels, Names, label_column
from ._look import LOOKS, look_statistics
from ._paired import ALL_TIED, add_holm, signed_rank_p
from ._slices import Study, blocks, keyed_prompts, slices_of

_NO_SPREAD = "undefined: the photographs do not differ, or there is one alone, so there is no spread to divide by"
_P_VALUES = tuple(f"{name}_p" for name in LOOKS)


def look_shift(
    photograph: Any,
    generated: Any,
    *,
    group: Names | None = None,
    prompt_id: Names | None = None,
    image_seed: Names | None = None,
    n_resamples: int = 2000,
    seed: int = 0,
    confidence_level: float = 0.95,
    interval: str = "percentile",
) -> dict[str, Any]:
    """How a generator's pictures differ in look from the photographs whose captions they were made from.

    A photograph is captioned, and a generator makes a picture from the caption: what the caption leaves open, the
    generator fills with its own taste. The inputs are images, not statistics of them, so that both sides are measured
    at the same size by the same code.

    Formula: for each of `brightness`, `saturation`, `sharpness`, `background_blur` and `texture`, as `look_statistics`
    defines them: `<name>_shift` = mean of generated − photograph; `<name>_shift_standardised` = the same divided by the
    standard deviation (ddof 1) of the photographs; `<name>_p`, Wilcoxon's signed-rank test, two-sided, on the mean
    difference of each prompt; `<name>_p_holm`, adjusted for the five statistics, in `by_group` for those of all groups.

    Inputs: two sequences of n images, row by row photograph and picture from its caption; see `look_statistics`.
    Optional, each (n,): `group`, such as the generator; `prompt_id`, the bootstrap's cluster, one for each photograph
    (omitted: every row its own); `image_seed`. (prompt_id, group, image_seed) is a row's key and may not repeat.

    Range: shifts in the units of the statistic; 0: no change. In standard deviations, 1 is as far as one photograph
    commonly lies from another.

    Gaps: a row in which a statistic is undefined (a picture without edges has no sharpness) is left out of that
    statistic; `coverage` says what share of rows has it. What is undefined throughout is an absent key with its reason
    in `notes`. No rows, unequal lengths, an image that cannot be measured and repeated keys raise ValueError.

    Returns a flat dict: every estimate with `<name>_ci_low` and `<name>_ci_high` (cluster bootstrap over prompts; not
    for p-values), `n_pairs`, `n_prompts`, `coverage`, `notes`, `cautions`, `undefined_resamples`; with `group`,
    `by_group` holds the same per group.

    Source: the protocol is that of Breunig (2025), on FLUX.1 Krea; the statistics are this package's.

    >>> dark, light = (np.full((384, 384, 3), level, dtype=np.uint8) for level in (51, 102))
    >>> result = look_shift([dark, dark], [dark, light], n_resamples=100)
    >>> round(result["brightness_shift"], 3), result["saturation_shift"]
    (0.1, 0.0)
    >>> result["notes"]["texture_shift"]
    'undefined: no row has it'
    """
    options = resampling(n_resamples, seed, confidence_level, interval)
    before, after = _measured("photograph", photograph), _measured("generated", generated)
    n = len(before)
    if len(after) != n:
        raise ValueError(f"generated: expected {n} images like the photographs, got {len(after)}; give one per row")
    groups = None if group is None else label_column("group", group, n)
    prompts = keyed_prompts(
        n, prompt_id=prompt_id, image_seed=image_seed, **({} if groups is None else {"group": groups})
    )
    shifts = {f"{name}_shift": after[:, k] - before[:, k] for k, name in enumerate(LOOKS)}
    photographs = dict(zip(shifts, before.T, strict=True))
    study = Study(
        columns=shifts,
        slices=slices_of(groups, n),
        prompts=prompts,
        reasons={f"{name}_standardised": _NO_SPREAD for name in shifts},
        statistics=lambda rows: {
            f"{name}_standardised": _standardised(shift[rows], photographs[name][rows], prompts, rows)
            for name, shift in shifts.items()
        },
        rests_on={f"{name}_standardised": (name,) for name in shifts},
    )
    by_group = blocks(study, options)
    for name, rows in study.slices.items():
        _add_tests(by_group[name], {key: values[rows] for key, values in shifts.items()}, prompts.codes[rows])
    result = by_group.pop("")
    add_holm([result], _P_VALUES)
    result["coverage"] = {name: float(np.mean(~np.isnan(shifts[f"{name}_shift"]))) for name in LOOKS}
    if groups is None:
        return result
    add_holm(by_group.values(), _P_VALUES)
    return result | {"by_group": by_group}


def _measured(name: str, images: Any) -> Floats:
    """The five statistics of every image, shape (n, 5); NaN where one is undefined."""
    if isinstance(images, str | bytes | Mapping) or not isinstance(images, Iterable):
        raise ValueError(f"{name}: expected a list of images, got a {type(images).__name__}; put one image in a list")
    looks = []
    for row, image in enumerate(images):
        try:
            look = look_statistics(image)
        except ValueError as error:
            raise ValueError(f"{name}, row {row} (counted from 0): {error}") from None
        looks.append([look.get(key, np.nan) for key in LOOKS])
    if not looks:
        raise ValueError(f"{name}: expected at least one image, got none")
    return np.array(looks)


def _standardised(shift: Floats, photograph: Floats, prompts: Labels, rows: Codes) -> Callable[[Floats], Floats]:
    """Mean shift over the standard deviation of the photographs, as a function of weights (resamples, prompts)."""
    known = ~np.isnan(shift)
    spread = photograph[known] - np.median(photograph[known]) if known.any() else photograph[known]
    terms = np.stack([np.ones_like(spread), shift[known], spread, spread**2], axis=1)
    sums = cluster_sums(terms, prompts.codes[rows[known]], len(prompts.names))

    def statistic(weights: Floats) -> Floats:
        n, total, first, second = (weights @ sums).T
        square = second - ratio(first**2, n)
        # below this share of the squares the difference is rounding, not variance
        variance = ratio(np.where(square > 1e-12 * second, square, 0.0), np.maximum(n - 1, 0))
        return ratio(ratio(total, n), np.sqrt(variance))

    return statistic


def _add_tests(block: dict[str, Any], shifts: Mapping[str, Floats], codes: Codes) -> None:
    for key, (name, shift) in zip(_P_VALUES, shifts.items(), strict=True):
        p = signed_rank_p(shift, codes)
        if p is not None:
            block[key] = p[1]
        else:
            block["notes"][key] = ALL_TIED if name in block else block["notes"][name]
