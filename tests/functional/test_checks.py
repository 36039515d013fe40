"""What the metrics refuse, and that each refusal names the first offending row."""

import numpy as np
import pytest

from widespectrum.functional import anti_aesthetic_adherence, reward_bias

REWARDS = {
    "r_io_po": [1.0, 2.0, 3.0],
    "r_io_pa": [1.0, 2.0, 2.0],
    "r_ia_po": [0.0, 1.0, 1.0],
    "r_ia_pa": [2.0, 1.0, 4.0],
}
PAIR = {"r_io_po": [1.0, 2.0, 3.0], "r_ia_po": [0.0, 1.0, 1.0]}
ELEVEN = [1.0] * 11


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"r_ia_po": [0.0, float("nan"), 1.0]}, r"r_ia_po, row 1 .*finite number, got nan"),
        ({"r_ia_po": np.array([0.0, 1.0, np.inf])}, r"r_ia_po, row 2 .*finite number, got inf"),
        ({"r_ia_po": [0.0, None, -np.inf]}, r"r_ia_po, row 2 .*finite number, got -inf"),
        ({"r_ia_po": [0.0, None, 1.0]}, r"r_ia_po, row 1 .*finite number, got None"),
        ({"r_io_pa": [0.0, "1.5", 1.0]}, r"r_io_pa, row 1 .*finite number, got '1.5'"),
        ({"r_io_pa": [0.0, 1.0]}, r"r_io_pa: expected 3 rows like the other columns, got 2"),
        ({"r_io_pa": "abc"}, r"r_io_pa: expected one value per row, got a str"),
        ({"r_io_pa": 1.0}, r"r_io_pa: expected one value per row, got 1.0"),
        ({"r_io_pa": np.zeros((3, 1))}, r"r_io_pa: .*shape \(3, 1\)"),
        ({"r_io_pa": [[1.0], [2.0], [3.0]]}, r"r_io_pa, row 0 .*got \[1.0\]"),
        ({"verdict": [1, 0.25, -1]}, r"verdict, row 1 .*got 0.25"),
        ({"verdict": [1, 0]}, r"verdict: expected 3 rows"),
        ({"group": ["a", "", "b"]}, r"group, row 1 .*non-empty name.*got ''"),
        ({"group": ["a", None, "b"]}, r"group, row 1 .*got None"),
        ({"group": ["a", 1, "b"]}, r"group: .*mixture"),
        ({"prompt_id": [7, 8, 7]}, r"row 2 .*repeats the key of row 0 \(prompt_id=7\)"),
        ({"prompt_id": [7, 7, 7], "group": ["a", "b", "b"]}, r"row 2 .*row 1 \(prompt_id=7, group='b'\)"),
        ({"prompt_id": [7, 7, 8], "image_seed": [1, 1, 1]}, r"row 1 .*row 0 \(prompt_id=7, image_seed=1\)"),
        ({"r_io_pa": [0.0, 10**400, 1.0]}, r"r_io_pa, row 1 .*finite number, got 10000.*\.\.\.; correct it"),
        ({"r_io_pa": [0.0, None, 10**400]}, r"r_io_pa, row 2 .*finite number, got 10000"),
        ({"r_io_pa": [0.0, 1e200, 1.0]}, r"r_io_pa, row 1 .*finite number, got 1e\+200"),
        ({"controlled": [True, None, False]}, r"controlled, row 1 .*got None"),
        ({"controlled": [1, 0, 2]}, r"controlled, row 2 .*true or false, or 1 or 0, got 2"),
        ({"interval": "BCA"}, r"interval: expected one of percentile, bca, got 'BCA'"),
        ({"n_resamples": 0}, r"n_resamples: .*got 0"),
        ({"seed": -1}, r"seed: .*got -1"),
        ({"confidence_level": 95}, r"confidence_level: .*got 95"),
    ],
)
def test_reward_bias_names_what_is_wrong(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        reward_bias(**(REWARDS | changes))


@pytest.mark.parametrize("empty", [[], np.empty(0)])
def test_no_rows_is_an_error(empty):
    with pytest.raises(ValueError, match="r_io_po: expected at least one row, got none"):
        reward_bias(empty, empty, empty, empty)
    with pytest.raises(ValueError, match="r_io_po: expected at least one row, got none"):
        anti_aesthetic_adherence(empty, empty)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"r_ia_po": [None, float("nan"), 1.0]}, r"r_ia_po, row 1 .*got nan"),
        ({"r_io_po_base": np.array([0.0, 1.0, -np.inf])}, r"r_io_po_base, row 2 .*got -inf"),
        ({"r_ia_po": [float("nan")] * 3, "status": ["failed", "ok", "ok"]}, r"r_ia_po, row 1 .*got nan"),
        ({"status": ["ok", "lost", "ok"]}, r"status, row 1 .*one of ok, refused, failed, got 'lost'"),
        ({"effect_ia": [1, 2, 101]}, r"effect_ia, row 2 .*from 0 to 100, or None, got 101"),
        ({"content_io_base": [-1, 2, 3]}, r"content_io_base, row 0 .*got -1"),
        ({"j_ia": [ELEVEN, None, [1.0] * 10]}, r"j_ia, row 2 .*list of 11 numbers"),
        ({"j_ia": [ELEVEN, None, [2.5] * 11]}, r"j_ia, row 2 .*from 0 to 2"),
        ({"j_ia": [ELEVEN]}, r"j_ia: expected 3 rows"),
        ({"dimensions": [["clarity"], ["clarty"], ["emotion"]]}, r"dimensions, row 1 .*got \['clarty'\]"),
        ({"dimensions": [["clarity"], [], ["emotion"]]}, r"dimensions, row 1 .*got \[\]"),
        ({"dimensions": ["clarity", "clarity", "emotion"]}, r"dimensions, row 0 .*got 'clarity'"),
        ({"dimensions": [["clarity"], 3, ["emotion"]]}, r"dimensions, row 1 .*got 3"),
        ({"dimensions": [["clarity"], [["clarity"]], ["emotion"]]}, r"dimensions, row 1 .*got \[\['clarity'\]\]"),
        ({"dimensions": 5}, r"dimensions: expected one value per row, got 5"),
        ({"j_ia": 5}, r"j_ia: expected one value per row, got 5"),
        ({"j_ia": [ELEVEN, 7, ELEVEN]}, r"j_ia, row 1 .*list of 11 numbers.*got 7"),
        ({"prompt_id": ["a", "b", "a"]}, r"row 2 .*repeats the key of row 0"),
        ({"verdict_base": [1, 2, 3]}, r"verdict_base, row 1 .*got 2"),
    ],
)
def test_adherence_names_what_is_wrong(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        anti_aesthetic_adherence(**(PAIR | changes))


def test_lists_arrays_and_both_float_widths_agree():
    expected = reward_bias(**REWARDS, n_resamples=50)
    for kind in (np.float64, np.float32, np.int64):
        given = {name: np.array(values, dtype=kind) for name, values in REWARDS.items()}
        assert reward_bias(**given, n_resamples=50) == expected
    tuples = {name: tuple(np.float32(value) for value in values) for name, values in REWARDS.items()}
    assert reward_bias(**tuples, n_resamples=50) == expected


def test_labels_keep_their_kind_whatever_holds_them():
    for labels in ([3, 1, 2], np.array([3, 1, 2]), [np.int64(3), np.int64(1), np.int64(2)]):
        result = reward_bias(**REWARDS, group=labels, prompt_id=np.array(["c", "a", "b"]), n_resamples=10)
        assert [(type(name), name) for name in result["by_group"]] == [(int, 1), (int, 2), (int, 3)]
