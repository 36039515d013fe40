"""Where images stand on a published leaderboard of generators."""

from __future__ import annotations

from collections.abc import Mapping
from math import isclose
from typing import Any

import numpy as np

from ._bootstrap import ratio, resampling
from ._checks import Floats, Names, Numbers, complete_column, require_rows
from ._slices import Derived, Means, Study, blocks, keyed_prompts


def leaderboard_place(
    reward: Numbers,
    *,
    leaderboard: Mapping[str, float],
    prompt_id: Names | None = None,
    image_seed: Names | None = None,
    n_resamples: int = 2000,
    seed: int = 0,
    confidence_level: float = 0.95,
    interval: str = "percentile",
) -> dict[str, Any]:
    """Where images, such as paintings that people value, would stand on a reward model's own leaderboard of generators.

    Formula: `mean_reward` = mean reward of the images, `relative_place` = s = (mean − min) / (max − min) with the
    lowest and highest mean of the leaderboard, `rank` = 1 + number of entries with a higher mean; `rank_low`, the best
    rank, and `rank_high`, the worst, are the ranks of the ends of the interval of the mean.

    Inputs: `reward`, float (n,), one per image, each under its own caption; `leaderboard`, name to published mean of
    the same reward model, one entry or more, the images themselves not among them. Optional, each (n,): `prompt_id`,
    the bootstrap's cluster (omitted: every row its own); `image_seed`. (prompt_id, image_seed) is a row's key and may
    not repeat.

    Range: s is 0 at the leaderboard's lowest mean and 1 at its highest, and may lie outside; `rank` is 1 (best) to
    `n_places` = `n_entries` + 1, since the images hold a place too. There is no chance level. Both depend on who is on
    the leaderboard: one weak entry moves s, and entries close to one another move the rank. The published means are
    taken as exact, so the interval is of the images alone, and they were measured on other prompts.

    Ties and gaps: an entry with an equal mean does not push the images down. s is absent, with its reason in `notes`,
    where all entries have one mean; intervals are absent for fewer than two prompts. No rows, a missing value, NaN,
    infinity, repeated keys and a leaderboard that is not names with numbers raise ValueError.

    Returns a flat dict: `mean_reward` and `relative_place` with `_ci_low` and `_ci_high` (cluster bootstrap over
    prompts: `n_resamples`, `seed`, `confidence_level`, `interval` "percentile" or "bca"), `rank`, `rank_low`,
    `rank_high`, `n_places`, `n_entries`, `n_pairs` (images), `n_prompts`, `coverage`, `notes`, `cautions`,
    `undefined_resamples`.

    Source: Guo, Qian, Hasan and Du, "Position: Universal Aesthetic Alignment Narrows Artistic Expression", ICML 2026
    (arXiv 2512.11883); the interval of the rank is this package's.

    >>> result = leaderboard_place([5, 7], leaderboard={"A": 2, "B": 6, "C": 10}, n_resamples=100)
    >>> result["mean_reward"], result["relative_place"], result["rank"], result["n_places"]
    (6.0, 0.5, 2, 4)
    >>> result["rank_low"], result["rank_high"]
    (2, 3)
    """
    options = resampling(n_resamples, seed, confidence_level, interval)
    n = require_rows("reward", reward)
    entries = _entry_means(leaderboard)
    low, spread = entries.min(), np.ptp(entries)

    def relative_place(means: Means) -> Floats:
        above = means["mean_reward"] - low
        return ratio(above, np.full_like(above, spread))

    study = Study(
        columns={"mean_reward": complete_column("reward", reward, n)},
        slices={"": np.arange(n)},
        prompts=keyed_prompts(n, prompt_id=prompt_id, image_seed=image_seed),
        derived={"relative_place": Derived(relative_place, ("mean_reward",))},
        reasons={"relative_place": "undefined: all entries of the leaderboard have one mean"},
    )
    result = blocks(study, options)[""]
    result["rank"] = _rank(result["mean_reward"], entries)
    if "mean_reward_ci_low" in result:
        result["rank_low"] = _rank(result["mean_reward_ci_high"], entries)
        result["rank_high"] = _rank(result["mean_reward_ci_low"], entries)
    given = {"prompt_id": prompt_id, "image_seed": image_seed}
    result["coverage"] = {name: float(value is not None) for name, value in given.items()}
    return result | {"n_entries": len(entries), "n_places": len(entries) + 1}


def _entry_means(leaderboard: Mapping[str, float]) -> Floats:
    if not isinstance(leaderboard, Mapping) or not leaderboard:
        raise ValueError(
            f"leaderboard: expected names with their published means, got {leaderboard!r}; give a dictionary"
        )
    for name, mean in leaderboard.items():
        number = isinstance(mean, int | float | np.number) and not isinstance(mean, bool)
        if not number or not np.isfinite(mean):
            raise ValueError(f"leaderboard, entry {name!r}: expected a finite number, got {mean!r}; leave it out")
    return np.array([float(mean) for mean in leaderboard.values()])


def _rank(mean: float, entries: Floats) -> int:
    # a mean of equal numbers can miss them by a rounding error, which must not cost a place
    return 1 + sum(bool(entry > mean) and not isclose(entry, mean, rel_tol=1e-12) for entry in entries)
