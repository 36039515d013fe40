"""`four_rewards`: pandas as oracle, and every refusal by its sentence."""

import numpy as np
import pandas as pd
import pytest

from widespectrum.functional import four_rewards, reward_bias

ROLES = ("original", "wide_spectrum")


def long(n=7, seed=0):
    """The scores of n pairs with two generators each, in random order."""
    rng = np.random.default_rng(seed)
    index = pd.MultiIndex.from_product([range(n), ("a", "b"), ROLES, ROLES])
    table = index.to_frame(index=False, name=["prompt_id", "group", "image_role", "prompt_role"])
    return table.assign(value=rng.normal(size=len(table))).sample(frac=1, random_state=seed)


def columns(table):
    return {name: table[name].tolist() for name in table}


def test_it_agrees_with_a_pivot_and_feeds_reward_bias():
    table = long()
    result = four_rewards(**columns(table))
    cell = "r_i" + table["image_role"].str[0].replace("w", "a") + "_p" + table["prompt_role"].str[0].replace("w", "a")
    wide = table.assign(cell=cell).pivot(index=["prompt_id", "group"], columns="cell", values="value").reset_index()
    for name in ("prompt_id", "group", "r_io_po", "r_io_pa", "r_ia_po", "r_ia_pa"):
        assert list(result[name]) == list(wide[name])
    assert reward_bias(**result, n_resamples=20)["n_prompts"] == 7


def changed(**cells):
    table = long(2).reset_index(drop=True)
    for name, (row, value) in cells.items():
        table[name] = table[name].astype(object)
        table.loc[row, name] = value
    return columns(table)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (changed(image_role=(3, "orignal")), r"image_role, row 3 .*one of original, wide_spectrum, got 'orignal'"),
        (changed(prompt_role=(0, "anti")), r"prompt_role, row 0 .*got 'anti'"),
        (changed(value=(5, None)), r"value, row 5 .*finite number, got None"),
        (changed(value=(5, float("inf"))), r"value, row 5 .*got inf"),
        (changed(group=(2, "")), r"group, row 2 .*non-empty name"),
        (changed() | {"prompt_id": [1]}, r"prompt_id: expected 16 rows like the other columns, got 1"),
        ({name: [] for name in changed()}, r"value: expected at least one row, got none"),
        (columns(pd.concat([long(2), long(2).iloc[[4]]])), r"row 16 .*repeats the key of row 4 "),
        (columns(long(2).iloc[1:]), r"the pair prompt_id=., group='.' has no r_i._p.: score both"),
    ],
)
def test_bad_input_is_one_sentence(data, sentence):
    with pytest.raises(ValueError, match=sentence):
        four_rewards(**data)
