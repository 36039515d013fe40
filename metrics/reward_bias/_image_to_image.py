"""Whether a generator that starts from a wide-spectrum image polishes it."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._adherence_rows import DIMENSIONS
from ._bootstrap import ratio, resampling
from ._checks import Floats, Names, Numbers, label_column, matrix_column, number_column, range_column, require_rows
from ._paired import ALL_TIED, add_holm, add_wilcoxon, effect_size
from ._slices import Derived, Means, Study, blocks, keyed_prompts, slices_of

_NO_CONTENT = "not given: no row has both content_input and content_output"
_REASONS = {
    "delta_j": "not given: no row has both j_input and j_output",
    "content_before": _NO_CONTENT,
    "content_after": _NO_CONTENT,
    "content_preservation": "not given: no row has both content_input (above 0 on average) and content_output",
    "wilcoxon_r": ALL_TIED,
}


def image_to_image(
    r_input_po: Numbers,
    r_output_po: Numbers,
    *,
    j_input: Any = None,
    j_output: Any = None,
    content_input: Numbers | None = None,
    content_output: Numbers | None = None,
    group: Names | None = None,
    prompt_id: Names | None = None,
    image_seed: Names | None = None,
    n_resamples: int = 2000,
    seed: int = 0,
    confidence_level: float = 0.95,
    interval: str = "percentile",
) -> dict[str, Any]:
    """How far a generator pulls a wide-spectrum image back to the mainstream look when asked to keep its effects.

    The generator starts from I_a, an image that shows the effects of the wide-spectrum prompt p_a, and gets p_a again
    (image to image; strength 0.5 in the paper). One reward model scores input and output under the original prompt p_o,
    where it says how conventionally good they look: the user has asked for no change of look, so any rise is the
    generator's own taste.

    Formula: `delta_reward` = mean r(output,p_o) − r(input,p_o); `reward_after` = mean r(output,p_o); `polished_rate` =
    share of outputs that score above their input, strictly, and `tie_rate` = share that score as it does; `delta_j` =
    mean of J(output,d) − J(input,d), summed over all eleven dimensions d; `content_preservation` = mean
    content(output) / mean content(input), the means also given as `content_after` and `content_before`; `wilcoxon_r` =
    −Z/√N of the signed ranks of the differences in reward (zeros dropped, N all prompts; the sign of input − output),
    `wilcoxon_p` one-sided for "the output is greater", `wilcoxon_p_two_sided` twice the smaller of the two one-sided
    values; both `_holm` adjusted over groups. A prompt with several rows enters r and p once, with their mean.

    Inputs: two rewards, float or None (n,), one row per image. Optional, each (n,): `j_*`, eleven numbers from 0 to 2
    (2 = conventionally good) in alphabetical order of the dimensions, or None; `content_*`, how well the main concept
    shows, 0 to 100 or None; `group`, such as the generator or the strength; `prompt_id`, the bootstrap's cluster
    (omitted: every row its own); `image_seed`. (prompt_id, group, image_seed) is a row's key and may not repeat.

    Range: `delta_reward` in reward units, `delta_j` in [−22, 22]; 0: the look is kept, above 0: polished.
    `polished_rate` in [0, 1], at chance (1 − tie rate)/2. r in [−1, 1], negative where outputs score higher.
    `content_preservation` from 0, 1 = kept as in the input: a low reward cannot tell a faithful output from a broken
    one.

    Ties and gaps: an output that scores as its input is not polished. A row without a value is left out of the figures
    that need it, and `coverage` says what share of rows has each input. What is undefined is an absent key with its
    reason in `notes`. No rows, unequal lengths, NaN, infinity and repeated keys raise ValueError.

    Returns a flat dict: every estimate with `<name>_ci_low` and `<name>_ci_high` (cluster bootstrap over prompts; not
    for p-values), the rates with `<name>_wilson_low` and `_high` (they take rows as independent), `n_pairs`,
    `n_prompts`, `coverage`, `notes`, `cautions`, `undefined_resamples`; with `group`, `by_group` holds the same per
    group.

    Source: Guo, Qian, Hasan and Du, "Position: Universal Aesthetic Alignment Narrows Artistic Expression", ICML 2026
    (arXiv 2512.11883); the rates and tests are this package's.

    >>> result = image_to_image([1, 2, 3, 4], [3, 2, 6, 5], content_input=[80] * 4, content_output=[60] * 4)
    >>> result["delta_reward"], result["polished_rate"], result["wilcoxon_p"], result["content_preservation"]
    (1.5, 0.75, 0.125, 0.75)
    >>> result["notes"]["delta_j"]
    'not given: no row has both j_input and j_output'
    """
    options = resampling(n_resamples, seed, confidence_level, interval)
    n = require_rows("r_input_po", r_input_po)
    given = {
        "r_input_po": number_column("r_input_po", r_input_po, n),
        "r_output_po": number_column("r_output_po", r_output_po, n),
        "j_input": _j_sum("j_input", j_input, n),
        "j_output": _j_sum("j_output", j_output, n),
        "content_input": _content("content_input", content_input, n),
        "content_output": _content("content_output", content_output, n),
    }
    groups = None if group is None else label_column("group", group, n)
    labels = {} if groups is None else {"group": groups}
    prompts = keyed_prompts(n, prompt_id=prompt_id, image_seed=image_seed, **labels)
    columns = _columns(given)
    delta = columns["delta_reward"]
    study = Study(
        columns=columns,
        slices=slices_of(groups, n),
        prompts=prompts,
        derived={"content_preservation": Derived(_preservation, ("content_before", "content_after"))},
        proportions=("polished_rate", "tie_rate"),
        reasons=_REASONS,
        statistics=lambda rows: {"wilcoxon_r": effect_size(delta[rows], prompts.codes[rows])},
        rests_on={"wilcoxon_r": ("delta_reward",)},
    )
    by_group = blocks(study, options)
    add_wilcoxon(by_group, delta, study.slices, prompts.codes)
    result = by_group.pop("")
    result["coverage"] = {name: float(np.mean(~np.isnan(values))) for name, values in given.items()}
    if groups is None:
        return result
    for name in ("wilcoxon_p", "wilcoxon_p_two_sided"):
        add_holm(by_group.values(), [name])
    return result | {"by_group": by_group}


def _j_sum(name: str, values: Any, n: int) -> Floats:
    """The sum over the eleven dimensions; NaN where one of them is missing."""
    if values is None:
        return np.full(n, np.nan)
    total: Floats = matrix_column(name, values, n, len(DIMENSIONS), 2, skip=np.zeros(n, dtype=bool)).sum(axis=1)
    return total


def _content(name: str, values: Numbers | None, n: int) -> Floats:
    return np.full(n, np.nan) if values is None else range_column(name, values, n, 100)


def _preservation(means: Means) -> Floats:
    return ratio(means["content_after"], means["content_before"])


def _columns(given: dict[str, Floats]) -> dict[str, Floats]:
    """What is averaged, one number per row; content only where both images have it."""
    delta = given["r_output_po"] - given["r_input_po"]
    both = ~np.isnan(given["content_input"] + given["content_output"])
    return {
        "delta_reward": delta,
        "reward_after": given["r_output_po"],
        "polished_rate": np.where(np.isnan(delta), np.nan, delta > 0),
        "tie_rate": np.where(np.isnan(delta), np.nan, delta == 0),
        "delta_j": given["j_output"] - given["j_input"],
        "content_before": np.where(both, given["content_input"], np.nan),
        "content_after": np.where(both, given["content_output"], np.nan),
    }
