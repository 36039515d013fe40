"""One score per row, with the roles of image and prompt, to the four rewards per prompt pair that the metrics take."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._checks import Names, Numbers, choice_column, complete_column, label_column, require_rows, require_unique

ROLES = ("original", "wide_spectrum")
CELLS = ("r_io_po", "r_io_pa", "r_ia_po", "r_ia_pa")
"""Image role × prompt role, both in the order of `ROLES`."""


def four_rewards(
    value: Numbers,
    image_role: Names,
    prompt_role: Names,
    *,
    prompt_id: Names,
    group: Names | None = None,
    image_seed: Names | None = None,
) -> dict[str, Any]:
    """The scores of one reward model, one a row, as the columns that `reward_bias` takes.

    Inputs: `value` float (n,); `image_role` and `prompt_role` "original" or "wide_spectrum", (n,); `prompt_id`,
    `group` and `image_seed`, (n,), which together name the pair. Every pair has each of its four cells once.
    Returns `r_io_po`, `r_io_pa`, `r_ia_po`, `r_ia_pa`, float (pairs,), and the keys that were given, (pairs,), sorted
    by them. An unknown role, a repeated cell, a missing cell, NaN, infinity and unequal lengths raise ValueError.

    >>> roles = ["original", "wide_spectrum"]
    >>> table = four_rewards([4, 3, 1, 4], np.repeat(roles, 2), roles * 2, prompt_id=["bus"] * 4)
    >>> {name: column.tolist() for name, column in table.items()}
    {'r_io_po': [4.0], 'r_io_pa': [3.0], 'r_ia_po': [1.0], 'r_ia_pa': [4.0], 'prompt_id': ['bus']}
    """
    n = require_rows("value", value)
    values = complete_column("value", value, n)
    roles = {"image_role": image_role, "prompt_role": prompt_role}
    image, prompt = (choice_column(name, labels, n, ROLES) == ROLES[1] for name, labels in roles.items())
    keys = {"prompt_id": prompt_id, "group": group, "image_seed": image_seed}
    labels = {name: label_column(name, column, n) for name, column in keys.items() if column is not None}
    cells = {name: label_column(name, column, n) for name, column in roles.items()}
    require_unique(labels | cells)
    codes = np.stack([label.codes for label in labels.values()], axis=1)
    pairs, rows = np.unique(codes, axis=0, return_inverse=True)
    rewards = np.full((len(pairs), len(CELLS)), np.nan)
    rewards[rows.ravel(), 2 * image + prompt] = values
    names = [np.array(label.names, dtype=object)[pairs[:, k]] for k, label in enumerate(labels.values())]
    if np.isnan(rewards).any():
        pair, cell = np.argwhere(np.isnan(rewards))[0]
        which = ", ".join(f"{name}={column[pair]!r}" for name, column in zip(labels, names, strict=True))
        raise ValueError(f"the pair {which} has no {CELLS[cell]}: score both of its images under both of its prompts")
    return dict(zip(CELLS, rewards.T, strict=True)) | dict(zip(labels, names, strict=True))
