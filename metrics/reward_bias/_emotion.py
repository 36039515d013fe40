"""Emotion: whether a reward model prefers the face that a prompt asks for, and whether a generator makes it."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from scipy.special import bdtr

from ._bootstrap import cluster_sums, ratio, resampling
from ._both_prompts import (
    DESIGN_COLUMNS,
    RATIO,
    Rewards,
    design_columns,
    ratio_reasons,
    read_rewards,
    settle_ratio,
    share_of,
)
from ._checks import Codes, Flags, Floats, Labels, Names, Numbers, label_column, range_column, require_rows
from ._significance import holm
from ._slices import Study, blocks, keyed_prompts, slices_of

_UNDER_HAPPY = ("accuracy_under_happy", "mean_gap_under_happy", *DESIGN_COLUMNS)
_RATES = ("accuracy", "accuracy_under_happy", "match_positive_rate", "both_ways_accuracy")
_HAPPY = "happy"
_IS_CONTROL = "not given: this is the control"
_NO_PAIR = "undefined: no prompt has both the emotion and the control under each of the probe wordings"
_NO_PROMPT = "not given: it needs prompt_id, to pair each emotion with the control"


def emotion_bias(
    r_io_pa: Numbers,
    r_ia_pa: Numbers,
    *,
    emotion: Names,
    r_io_po: Numbers | None = None,
    r_ia_po: Numbers | None = None,
    prompt_id: Names | None = None,
    image_seed: Names | None = None,
    n_resamples: int = 2000,
    seed: int = 0,
    confidence_level: float = 0.95,
    interval: str = "percentile",
) -> dict[str, Any]:
    """Whether a reward model prefers a sad, angry or fearful face over the happy one when the prompt asks for it.

    I_o is a happy face and I_a its edit to another emotion; p_a is a prompt that names this emotion, p_o the same
    prompt with "happy" in its place.

    Formula: `accuracy` = share of r(I_a,p_a) > r(I_o,p_a), `mean_gap` = mean r(I_a,p_a) − r(I_o,p_a), `binomial_p` the
    exact two-sided p-value of the number of right decisions against one half, and `binomial_p_holm`, per emotion, the
    same corrected for the number of emotions. With rewards under p_o: `accuracy_under_happy` = share of r(I_o,p_o) >
    r(I_a,p_o), `mean_gap_under_happy` = mean r(I_a,p_o) − r(I_o,p_o), `both_ways_accuracy` = share of both at once, and
    `image_prior`, `prompt_match`, `match_positive_rate`, `prior_over_match` as in `reward_bias`.

    Inputs: two rewards, float (n,), higher = preferred, one row per edit; `emotion` of I_a, (n,). Optional, each (n,):
    the two rewards under p_o (both or neither); `prompt_id`, the bootstrap's cluster (omitted: every row its own);
    `image_seed`. (prompt_id, emotion, image_seed) is a row's key and may not repeat. The formulas ask only which face
    is happy, not which was edited: for reverse edits call it again on those rows.

    Range: accuracies in [0, 1] with chance ½, both ways ¼ (0 for a model blind to the prompt); gaps in reward units,
    the one under p_a above 0 and the one under happy below 0 where the face that the prompt asks for is preferred. A
    small `binomial_p` beside an accuracy below ½: the model prefers the happy face against the prompt.

    Ties and gaps: an equal score is not right. `n_tie` counts those under p_a, and the binomial test takes them as
    wrong, so that it speaks of the accuracy given: a model that gives all faces one score has accuracy 0 and a small p,
    and `cautions` says so. The test takes rows as independent; where prompts repeat, `cautions` says that the interval
    is the one to read. What is undefined is an absent key with its reason in `notes`. No rows, unequal lengths, a
    missing value, NaN, infinity or repeated keys raise ValueError.

    Returns a flat dict over all rows: every name above with `<name>_ci_low` and `<name>_ci_high` (cluster bootstrap
    over prompts: `n_resamples`, `seed`, `confidence_level`, `interval` "percentile" or "bca"; not for p-values),
    `<name>_wilson_low` and `_high` for shares (they take rows as independent), `n_pairs`, `n_prompts`, `n_tie`,
    `coverage`, `notes`, `cautions`, `undefined_resamples`; `by_emotion` holds the same per emotion, and `macro` the
    means over emotions, its ratio being that of the means.

    Source: Guo, Qian, Hasan and Du, "Position: Universal Aesthetic Alignment Narrows Artistic Expression", ICML 2026
    (arXiv 2512.11883) for the accuracy; the happy-prompt control, intervals and tests are this package's.

    >>> happy, edited, names = [9, 8, 7, 6], [5, 9, 7, 8], ["sad", "sad", "angry", "angry"]
    >>> result = emotion_bias(happy, edited, emotion=names, n_resamples=100)
    >>> result["accuracy"], result["mean_gap"], result["n_tie"], result["binomial_p"]
    (0.5, -0.25, 1, 1.0)
    >>> result["by_emotion"]["sad"]["mean_gap"], result["macro"]["accuracy"]
    (-1.5, 0.5)
    >>> result["notes"]["both_ways_accuracy"]
    'not given: it needs r_io_po and r_ia_po'
    """
    options = resampling(n_resamples, seed, confidence_level, interval)
    rewards, n = read_rewards(r_io_pa, r_ia_pa, r_io_po, r_ia_po)
    emotions = label_column("emotion", emotion, n)
    names = [str(name) for name in emotions.names]
    study = Study(
        columns=_emotion_columns(rewards),
        slices=slices_of(emotions, n),
        prompts=keyed_prompts(n, prompt_id=prompt_id, image_seed=image_seed, emotion=emotions),
        derived=RATIO,
        proportions=_RATES,
        reasons=ratio_reasons(rewards, _UNDER_HAPPY),
        averages={"macro": names},
    )
    found = blocks(study, options)
    for block in found.values():
        settle_ratio(block)
    for name, rows in study.slices.items():
        _add_test(found[name], (rewards.ia_pa - rewards.io_pa)[rows])
    by_emotion = {name: found[name] for name in names}
    adjusted = holm([block["binomial_p"] for block in by_emotion.values()])
    for block, p in zip(by_emotion.values(), adjusted, strict=True):
        block["binomial_p_holm"] = float(p)
    given = {"r_io_po": r_io_po, "r_ia_po": r_ia_po, "prompt_id": prompt_id, "image_seed": image_seed}
    found[""]["coverage"] = {name: float(value is not None) for name, value in given.items()}
    return found[""] | {"by_emotion": by_emotion, "macro": {"n_groups": len(names)} | found["macro"]}


def _emotion_columns(rewards: Rewards) -> dict[str, Floats]:
    return {
        "accuracy": (rewards.ia_pa > rewards.io_pa).astype(np.float64),
        "mean_gap": rewards.ia_pa - rewards.io_pa,
        "accuracy_under_happy": share_of(rewards.io_po > rewards.ia_po, rewards),
        "mean_gap_under_happy": rewards.ia_po - rewards.io_po,
    } | design_columns(rewards)


def _add_test(block: dict[str, Any], gap: Floats) -> None:
    """Ties, the binomial test, and what to hold against it."""
    n, right = len(gap), int((gap > 0).sum())
    block["n_tie"] = int((gap == 0).sum())
    block["binomial_p"] = min(1.0, 2 * float(bdtr(min(right, n - right), n, 0.5)))
    doubts = [f"{block['n_tie']} of {n} rows are ties and count as wrong"] if block["n_tie"] else []
    if block["n_prompts"] < n:
        doubts.append("prompts repeat and the test takes rows as independent: read the interval of accuracy")
    if doubts:
        block["cautions"]["binomial_p"] = "; ".join(doubts)


def generated_emotion(
    match: Numbers,
    *,
    emotion: Names,
    probe: Names | None = None,
    control: str | float | None = _HAPPY,
    prompt_id: Names | None = None,
    image_seed: Names | None = None,
    n_resamples: int = 2000,
    seed: int = 0,
    confidence_level: float = 0.95,
    interval: str = "percentile",
) -> dict[str, Any]:
    """How far the faces of a generator show the emotion that the prompt asks for, and how that compares to happiness.

    A generator fills the same prompt templates with several emotions; an image-text matching model gives the
    probability that the face fits a probe wording such as "The face shows {emotion} expression".

    Formula: per emotion and probe wording, `match` = mean over rows, and `match_minus_control` = mean over prompts of
    the mean match under the emotion less that under the control, same prompt and wording. Per emotion both are averaged
    over wordings, and over all they are averaged over the emotions other than the control; each wording and each
    emotion weighs the same.

    Inputs: `match`, probability in [0, 1] or None (no face found, failed call), (n,); `emotion` asked for, (n,): one
    row per prompt, emotion, probe wording and seed. Optional: `probe`, the wording's name, the same for all
    emotions, (n,); `control`, the emotion to compare with, None for none; `prompt_id`, the template, (n,), which is the
    bootstrap's cluster and what pairs an emotion with the control (omitted: every row its own, and no differences);
    `image_seed`, (n,). (prompt_id, emotion, probe, image_seed) is a row's key and may not repeat.

    Range: match in [0, 1], higher = the emotion shows; it has no chance level, since a matching model may answer any
    probability to a face without expression: hence the difference, in [−1, 1], negative where the emotion comes out
    less than the control does. Even that compares two wordings as well as two faces: read several.

    Ties and gaps: a row without a value is left out and counted in `n_missing`; a prompt in which the emotion or the
    control has no value gives no difference, and `n_paired` counts those that do. An emotion without one of the
    wordings has no average. What is undefined is an absent key with its reason in `notes`. Where no row has the
    emotion "happy" and no other control is named, the differences are absent; another control that no row has, no rows,
    unequal lengths, a number outside [0, 1] or repeated keys raise ValueError.

    Returns a flat dict: both names with `<name>_ci_low` and `<name>_ci_high` (cluster bootstrap over prompts:
    `n_resamples`, `seed`, `confidence_level`, `interval` "percentile" or "bca"), `n_pairs` (rows), `n_prompts`,
    `n_missing`, `n_paired`, `coverage`, `notes`, `cautions`, `undefined_resamples`; `by_emotion` holds the same per
    emotion, the control included, and in it, with `probe`, `by_probe` the same per wording.

    Source: Guo, Qian, Hasan and Du, "Position: Universal Aesthetic Alignment Narrows Artistic Expression", ICML 2026
    (arXiv 2512.11883) for the mean match under one wording; wordings, control and intervals are this package's.

    >>> asked, template = ["sad", "sad", "happy", "happy"], ["portrait", "street", "portrait", "street"]
    >>> result = generated_emotion([0.25, 0.5, 0.75, 0.75], emotion=asked, prompt_id=template, n_resamples=100)
    >>> result["match"], result["match_minus_control"], result["by_emotion"]["happy"]["match"]
    (0.375, -0.375, 0.75)
    >>> result["by_emotion"]["happy"]["notes"]["match_minus_control"]
    'not given: this is the control'
    """
    options = resampling(n_resamples, seed, confidence_level, interval)
    n = require_rows("match", match)
    values = range_column("match", match, n, 1)
    emotions = label_column("emotion", emotion, n)
    probes = Labels([""], np.zeros(n, dtype=np.intp)) if probe is None else label_column("probe", probe, n)
    base, reason = _control_code(emotions, control, prompt_id is not None)
    labels = {"emotion": emotions} | ({} if probe is None else {"probe": probes})
    prompts = keyed_prompts(n, prompt_id=prompt_id, image_seed=image_seed, **labels)
    gaps = _gaps(values, prompts, emotions, probes, base)
    found = blocks(
        Study(
            columns={"match": values, "match_minus_control": gaps},
            slices=_cells(emotions, probes),
            prompts=prompts,
            reasons={"match_minus_control": reason},
            averages=_averages(emotions, probes, base),
        ),
        options,
    )
    for name, block in found.items():
        if name.partition(",")[0] == f"{base}":
            block["notes"]["match_minus_control"] = _IS_CONTROL
    count = partial(_counts, match=values, gaps=gaps, prompts=prompts)
    result = found[""] | count(np.ones(n, dtype=bool))
    given = {"probe": probe, "prompt_id": prompt_id, "image_seed": image_seed}
    result["coverage"] = {name: float(value is not None) for name, value in given.items()}
    result["coverage"]["match"] = float(np.mean(~np.isnan(values)))
    result["by_emotion"] = {}
    for i, emotion_name in enumerate(emotions.names):
        rows = emotions.codes == i
        block = found[f"{i}"] | count(rows)
        if probe is not None:
            parts = {str(wording): (f"{i},{k}", rows & (probes.codes == k)) for k, wording in enumerate(probes.names)}
            block["by_probe"] = {wording: found[cell] | count(flags) for wording, (cell, flags) in parts.items()}
        result["by_emotion"][str(emotion_name)] = block
    return result


def _control_code(emotions: Labels, control: str | float | None, paired: bool) -> tuple[int | None, str]:
    """Which emotion is the control, if any, and why a difference to it can be absent."""
    if control is None:
        return None, "not given: `control` is None"
    if control in emotions.names:
        return emotions.names.index(control), _NO_PAIR if paired else _NO_PROMPT
    if control == _HAPPY:
        return None, f"not given: no row has the emotion {_HAPPY!r}, and `control` names no other"
    names = ", ".join(repr(name) for name in emotions.names)
    raise ValueError(f"control: expected one of the emotions {names}, got {control!r}; name one of them, or None")


def _gaps(match: Floats, prompts: Labels, emotions: Labels, probes: Labels, base: int | None) -> Floats:
    """Match less that of the control, for each prompt, emotion and probe; it stands in the first of their rows."""
    result = np.full(len(match), np.nan)
    if base is None:
        return result
    shape = len(prompts.names), len(probes.names), len(emotions.names)
    cell = np.ravel_multi_index((prompts.codes, probes.codes, emotions.codes), shape)
    terms = np.stack([np.nan_to_num(match), ~np.isnan(match)], axis=1)
    sums = cluster_sums(terms, cell, int(np.prod(shape)))
    means = ratio(sums[:, 0], sums[:, 1]).reshape(shape)
    cells, first = np.unique(cell, return_index=True)
    result[first] = (means - means[..., base : base + 1]).ravel()[cells]
    result[emotions.codes == base] = np.nan
    return result


def _cells(emotions: Labels, probes: Labels) -> dict[str, Codes]:
    """The rows of each emotion and probe, named by their numbers."""
    return {
        f"{i},{k}": np.flatnonzero((emotions.codes == i) & (probes.codes == k))
        for i in range(len(emotions.names))
        for k in range(len(probes.names))
    }


def _averages(emotions: Labels, probes: Labels, base: int | None) -> dict[str, list[str]]:
    """Each emotion as the mean over its probes; then, under the empty name, the mean over all but the control."""
    averages = {f"{i}": [f"{i},{k}" for k in range(len(probes.names))] for i in range(len(emotions.names))}
    others = [name for name in averages if name != f"{base}"]
    if not others:
        raise ValueError(
            f"emotion: expected one besides the control {emotions.names[0]!r}, got none; add rows of another, "
            "or give control=None"
        )
    return averages | {"": others}


def _counts(rows: Flags, match: Floats, gaps: Floats, prompts: Labels) -> dict[str, int]:
    def n_prompts(flags: Flags) -> int:
        return len(np.unique(prompts.codes[flags]))

    counts = {"n_pairs": int(rows.sum()), "n_prompts": n_prompts(rows)}
    return counts | {"n_missing": int((rows & np.isnan(match)).sum()), "n_paired": n_prompts(rows & ~np.isnan(gaps))}
