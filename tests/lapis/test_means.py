import numpy as np
import pandas as pd
import pytest

from tests.lapis.made import TRAITS, paintings, write
from widespectrum.errors import InputError
from widespectrum.lapis import COLUMNS, painting_rows, read_annotations
from widespectrum.lapis.annotations import age_group
from widespectrum.lapis.means import _published


def test_means_are_those_of_pandas(made, table, rows):
    frame = pd.read_csv(table, keep_default_na=False)
    frame["file"] = frame["file"].str.split("/").str[-1]
    frame["age"] = [age_group(float(age)) if age != "" else "" for age in frame["age"]]
    expected = frame.groupby("file")["response"].agg(["size", "mean", "std"])
    kept = expected[expected["size"] >= 5]
    assert len(kept) < len(expected)
    assert [row["file"] for row in rows] == list(kept.index)
    np.testing.assert_allclose([row["mean"] for row in rows], kept["mean"], rtol=1e-12)
    np.testing.assert_allclose([row["sd"] for row in rows], kept["std"], rtol=1e-12)
    assert [row["n"] for row in rows] == list(kept["size"])
    shown = hidden = 0
    for column, trait in TRAITS.items():
        groups = frame[frame[column] != ""].groupby(["file", column])["response"].agg(["size", "mean"])
        for row in rows:
            own = groups.loc[row["file"]] if row["file"] in groups.index else groups.iloc[:0].droplevel(0)
            assert row[f"{trait}_groups"] == sorted(own.index)
            assert row[f"{trait}_n"] == [own.loc[group, "size"] for group in sorted(own.index)]
            for group, mean in zip(row[f"{trait}_groups"], row[f"{trait}_means"], strict=True):
                shown += mean is not None
                hidden += mean is None
                assert mean is None or mean == pytest.approx(own.loc[group, "mean"], rel=1e-12)
    assert shown > 500
    assert hidden > 500


def test_no_mean_rests_on_few_raters_nor_can_it_be_computed(rows):
    for row in rows:
        assert row["n"] >= 5
        for trait in TRAITS.values():
            counts = list(zip(row[f"{trait}_n"], row[f"{trait}_means"], strict=True))
            assert all(mean is None or count >= 5 for count, mean in counts)
            rest = row["n"] - sum(count for count, mean in counts if mean is not None)
            assert rest == 0 or rest >= 5


def test_no_painting_with_enough_ratings(made, tmp_path):
    few = [row for row in made if row["file"] == made[0]["file"]][:4]
    with pytest.raises(InputError, match="none of the 1 paintings has at least 5 ratings"):
        painting_rows(read_annotations(write(tmp_path / "few.csv", few)))


@pytest.mark.parametrize(
    ("counts", "unknown", "shown"),
    [
        ({"a": 10, "b": 8}, 0, {"a", "b"}),
        ({"a": 10, "b": 8, "c": 4}, 0, {"a"}),
        ({"a": 10, "b": 8, "c": 4}, 1, {"a", "b"}),
        ({"a": 10, "b": 3, "c": 2}, 0, {"a"}),
        ({"a": 10}, 1, set()),
        ({"a": 4}, 0, set()),
    ],
)
def test_which_groups_are_published(counts, unknown, shown):
    assert _published(counts, unknown, 5) == shown


def test_what_is_out_of_the_ordinary_is_said(made, tmp_path):
    changed = [dict(row) for row in made]
    changed[0]["response"] = ""
    rater = changed[1]["participant_id"]
    for row in changed:
        if row["participant_id"] == rater:
            row["demo_colorblind"] = "Yes, entirely"
    count = sum(row["participant_id"] == rater for row in changed)
    annotations = read_annotations(write(tmp_path / "ratings.csv", changed))
    assert annotations.notices == [
        "columns not read: title",
        "1 rows without a response are no ratings",
        f"demo_colorblind 'Yes, entirely', in {count} rows, is not in the published list; kept as a group of its own",
    ]
    splits = {"nobody.jpg": "train"} | {painting["file"].split("/")[1]: "test" for painting in paintings()[1:]}
    found, notices = painting_rows(annotations, splits)
    assert notices[3].startswith("left out ")
    assert " paintings with fewer than 5 ratings: " in notices[3]
    assert notices[4] == "1 paintings are in no official split: abstract_expressionism_abstract-0.jpg"
    assert notices[5] == "1 paintings of the official splits have no rating: nobody.jpg"
    assert {row["official_split"] for row in found} <= {"test", None}


def test_no_column_is_of_a_rater():
    assert not [name for name in COLUMNS if "participant" in name or "response" in name]
