"""Whether a reward model takes the aligned generator's picture, and more so where the prompt is socially critical."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._bootstrap import resampling
from ._checks import Labels, Names, Numbers, complete_column, label_column, require_rows
from ._paired import ALL_TIED, add_holm, add_wilcoxon, effect_size
from ._slices import Study, blocks, keyed_prompts, minus_slice, slices_of

_OVER_CONTROL = {"rate_over_control": "aligned_preferred_rate", "gap_over_control": "mean_gap"}
_IS_CONTROL = "not given: this is the control"
_P_VALUES = ("wilcoxon_p", "wilcoxon_p_two_sided")


def aligned_preference(
    r_aligned: Numbers,
    r_base: Numbers,
    *,
    topic: Names | None = None,
    control: Any = None,
    prompt_id: Names | None = None,
    image_seed: Names | None = None,
    n_resamples: int = 2000,
    seed: int = 0,
    confidence_level: float = 0.95,
    interval: str = "percentile",
) -> dict[str, Any]:
    """How often a reward model takes the picture of an aligned generator over that of its base, for the same prompt.

    Both generators get the same socially critical prompt (war, pollution, inequality), and one reward model scores both
    pictures under it. A reward model that takes the polished picture whatever the subject does so for neutral prompts
    too: `control` names the topic of such prompts, and only the surplus over it speaks of the critical subject.

    Formula: `aligned_preferred_rate` = share of r_aligned > r_base, strictly, and `tie_rate` = share of equal rewards;
    `mean_gap` = mean r_aligned − r_base; `wilcoxon_r` = −Z/√N of the signed ranks of the differences (zeros dropped, N
    all prompts; the sign of base − aligned), `wilcoxon_p` one-sided for "aligned is greater", `wilcoxon_p_two_sided`
    twice the smaller of the two one-sided values; both `_holm` adjusted over the critical topics. A prompt with several
    rows enters r and p once, with their mean. `rate_over_control` and `gap_over_control` = rate and gap less those of
    the control.

    Inputs: two rewards, float (n,), one row per prompt and seed. Optional: `topic` (n,); `control`, the name of one
    topic; `prompt_id` (n,), the bootstrap's cluster (omitted: every row its own); `image_seed` (n,).
    (prompt_id, topic, image_seed) is a row's key and may not repeat.

    Range: rates in [0, 1], at chance (1 − tie rate)/2; gap in reward units, chance 0; r in [−1, 1], negative where the
    aligned generator scores higher; differences to the control 0 where the subject makes none.

    Ties and gaps: a tie is no preference. What is undefined is an absent key with its reason in `notes`: r and p where
    every pair is tied, intervals for fewer than two prompts (of the control too, in differences to it). No rows,
    unequal lengths, NaN, infinity, repeated keys and an unknown control raise ValueError.

    Returns a flat dict over all rows, with `control` over all *critical* rows, the control's left out: every estimate
    with `<name>_ci_low` and `<name>_ci_high` (cluster bootstrap over prompts; not for p-values), the rates with
    `<name>_wilson_low` and `_high` (they take rows as independent), `n_pairs`, `n_prompts`, `notes`, `cautions`,
    `undefined_resamples`; with `topic`, `by_topic` holds the same per topic.

    Source: Guo, Qian, Hasan and Du, "Position: Universal Aesthetic Alignment Narrows Artistic Expression", ICML 2026
    (arXiv 2512.11883), "image newspeak"; there r has the opposite sign and a continuity correction.

    >>> topics = ["war", "war", "war", "neutral", "neutral"]
    >>> result = aligned_preference([9, 8, 7, 5, 5], [6, 7, 5, 4, 6], topic=topics, control="neutral", n_resamples=100)
    >>> result["aligned_preferred_rate"], result["mean_gap"], result["wilcoxon_p"]
    (1.0, 2.0, 0.125)
    >>> result["rate_over_control"], result["gap_over_control"]
    (0.5, 2.0)
    >>> result["by_topic"]["neutral"]["aligned_preferred_rate"]
    0.5
    """
    options = resampling(n_resamples, seed, confidence_level, interval)
    n = require_rows("r_aligned", r_aligned)
    aligned, base = complete_column("r_aligned", r_aligned, n), complete_column("r_base", r_base, n)
    topics = None if topic is None else label_column("topic", topic, n)
    labels = {} if topics is None else {"topic": topics}
    prompts = keyed_prompts(n, prompt_id=prompt_id, image_seed=image_seed, **labels)
    slices, neutral = slices_of(topics, n), _control(control, topics)
    if neutral is not None:
        slices[""] = np.setdiff1d(slices[""], slices[neutral])
    gap = aligned - base
    differences = {} if neutral is None else _OVER_CONTROL
    study = Study(
        columns={"aligned_preferred_rate": np.where(gap > 0, 1.0, 0.0), "tie_rate": np.where(gap == 0, 1.0, 0.0)}
        | {"mean_gap": gap},
        slices=slices,
        prompts=prompts,
        derived={name: minus_slice(column, str(neutral), slices) for name, column in differences.items()},
        proportions=("aligned_preferred_rate", "tie_rate"),
        reasons={"wilcoxon_r": ALL_TIED} | dict.fromkeys(_OVER_CONTROL, _IS_CONTROL),
        statistics=lambda rows: {"wilcoxon_r": effect_size(gap[rows], prompts.codes[rows])},
    )
    by_topic = blocks(study, options)
    add_wilcoxon(by_topic, gap, slices, prompts.codes)
    result = by_topic.pop("")
    if topics is None:
        return result
    for name in _P_VALUES:
        add_holm([block for key, block in by_topic.items() if key != neutral], [name])
    if neutral is not None:
        by_topic[neutral]["notes"] |= dict.fromkeys((f"{name}_holm" for name in _P_VALUES), _IS_CONTROL)
    return result | {"by_topic": by_topic}


def _control(control: Any, topics: Labels | None) -> str | None:
    """The control's name among the topics, checked; None without one."""
    if control is None:
        return None
    if topics is None:
        raise ValueError(
            f"control: expected the topic of each row beside it, got control={control!r} alone; give topic"
        )
    names = [str(name) for name in topics.names]
    if str(control) not in names:
        raise ValueError(f"control: expected one of the topics {', '.join(names)}, got {control!r}")
    if len(names) == 1:
        raise ValueError(
            f"topic: expected a critical topic beside the control {control!r}, got none; leave out control"
        )
    return str(control)
