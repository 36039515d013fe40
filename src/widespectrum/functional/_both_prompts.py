"""The 2×2 figures of `reward_bias` as columns of a study, for metrics in which rewards under p_o are optional."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ._bootstrap import ratio
from ._checks import Floats, Numbers, complete_column, require_rows
from ._design import prior_and_match
from ._reward_bias import drop_loose_ratio
from ._slices import Derived, Means

DESIGN_COLUMNS = ("image_prior", "prompt_match", "match_positive_rate", "both_ways_accuracy")
NEEDS_BOTH = "not given: it needs r_io_po and r_ia_po"
_ZERO_MATCH = "undefined: the mean prompt match is 0"
_NEGATIVE_MATCH = "prompt_match is below 0: the prompt moves this model the wrong way, so read Q and X, not their ratio"


class Rewards(NamedTuple):
    """Checked rewards of one length; those under p_o are all NaN where they were not given."""

    io_po: Floats
    io_pa: Floats
    ia_po: Floats
    ia_pa: Floats

    @property
    def under_both(self) -> bool:
        """Whether the images were scored under p_o too."""
        return not np.isnan(self.io_po).any()


def read_rewards(
    r_io_pa: Numbers, r_ia_pa: Numbers, r_io_po: Numbers | None, r_ia_po: Numbers | None
) -> tuple[Rewards, int]:
    """The rewards and the number of rows; those under p_o are given both or not at all."""
    n = require_rows("r_io_pa", r_io_pa)
    if (r_io_po is None) != (r_ia_po is None):
        missing, given = ("r_io_po", "r_ia_po") if r_io_po is None else ("r_ia_po", "r_io_po")
        raise ValueError(f"{missing}: expected a column like that of {given}, got None; give both or neither")
    unknown = np.full(n, np.nan)
    return Rewards(
        io_po=unknown if r_io_po is None else complete_column("r_io_po", r_io_po, n),
        io_pa=complete_column("r_io_pa", r_io_pa, n),
        ia_po=unknown if r_ia_po is None else complete_column("r_ia_po", r_ia_po, n),
        ia_pa=complete_column("r_ia_pa", r_ia_pa, n),
    ), n


def design_columns(rewards: Rewards) -> dict[str, Floats]:
    """`DESIGN_COLUMNS` per row, named as in `reward_bias`; NaN throughout without rewards under p_o."""
    if not rewards.under_both:
        return dict.fromkeys(DESIGN_COLUMNS, rewards.io_po)
    prior, match = prior_and_match(*rewards)
    both = (rewards.io_po > rewards.ia_po) & (rewards.ia_pa > rewards.io_pa)
    rates = [(match > 0).astype(np.float64), both.astype(np.float64)]
    return dict(zip(DESIGN_COLUMNS, (prior, match, *rates), strict=True))


def share_of(flags: Any, rewards: Rewards) -> Floats:
    """Flags that compare rewards under p_o as zeros and ones; NaN throughout without such rewards."""
    return np.asarray(flags, dtype=np.float64) if rewards.under_both else rewards.io_po


def _prior_over_match(means: Means) -> Floats:
    return ratio(-means["image_prior"], means["prompt_match"]) + 0.0  # no -0.0


RATIO = {"prior_over_match": Derived(_prior_over_match, ("image_prior", "prompt_match"))}


def ratio_reasons(rewards: Rewards, names: tuple[str, ...]) -> dict[str, str]:
    """Why `names`, all of which need rewards under p_o, or the ratio can be absent."""
    absent = {} if rewards.under_both else dict.fromkeys(names, NEEDS_BOTH)
    return absent | {"prior_over_match": _ZERO_MATCH if rewards.under_both else NEEDS_BOTH}


def settle_ratio(block: dict[str, Any]) -> None:
    """Takes the ratio out of a block where its sign is open, and cautions where the prompt moves the wrong way."""
    drop_loose_ratio(block)
    if "prior_over_match" in block and block["prompt_match"] < 0:
        block["cautions"]["prior_over_match"] = _NEGATIVE_MATCH
