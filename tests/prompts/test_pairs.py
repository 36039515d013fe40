import csv
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from widespectrum.errors import InputError
from widespectrum.prompts import load_prompt_set, read_prompts
from widespectrum.prompts.pairs import authored_pairs, pair_prompts, pair_row
from widespectrum.prompts.rule_check import check_prompt
from widespectrum.types import DIMENSIONS


def spread(values):
    counts = Counter(values).values()
    return max(counts) - min(counts)


def test_the_authored_pairs_pass_the_rule_check():
    pairs = authored_pairs()
    assert len(pairs) == len({pair["pair_id"] for pair in pairs}) == 300
    for pair in pairs:
        found = check_prompt(pair["caption"], pair["prompt"], sorted(pair["effects"]), pair["effects"])
        assert found == [], pair["pair_id"]
        assert 1 <= len(pair["negative"].split()) <= 5, pair["pair_id"]
        assert (pair["caption"] + pair["prompt"] + pair["negative"]).isascii(), pair["pair_id"]


@pytest.mark.parametrize("count", [60, 300])
def test_the_authored_set_and_its_lite_split_are_balanced(count):
    pairs = authored_pairs()[:count]
    assert spread(pair["subject"] for pair in pairs) <= 1
    assert spread(pair["style"] for pair in pairs) <= 1
    assert spread(len(pair["effects"]) for pair in pairs) == 0
    assert {len(pair["effects"]) for pair in pairs} == {2, 3, 4}
    assert spread(name for pair in pairs for name in pair["effects"]) <= 3
    assert {name for pair in pairs for name in pair["effects"]} == set(DIMENSIONS)


def test_no_two_authored_texts_are_alike():
    for key in ("caption", "prompt"):
        words = [frozenset(pair[key].lower().replace(",", "").replace(".", "").split()) for pair in authored_pairs()]
        for index, one in enumerate(words):
            for other in words[:index]:
                assert len(one & other) / len(one | other) < 0.5, (key, sorted(one))


def test_the_prompt_sets():
    everything, lite = load_prompt_set("authored"), load_prompt_set("authored-lite")
    assert (len(everything.prompts), len(lite.prompts)) == (600, 120)
    assert everything.prompts[:120] == lite.prompts
    assert everything.photographs == {}
    assert len({prompt.prompt_id for prompt in everything.prompts}) == 600
    negatives = [prompt.negative_prompt for prompt in everything.prompts]
    assert negatives[::2] == [""] * 300
    assert negatives[1::2] == [pair["negative"] for pair in authored_pairs()]


@pytest.mark.parametrize("given", [{"photos": "x"}, {"captions": "x"}])
def test_the_authored_set_takes_no_photographs(given):
    with pytest.raises(InputError, match="'authored-lite' is not about photographs"):
        load_prompt_set("authored-lite", **given)


ROWS = [
    {**pair_row("one", "A dog runs.", "A dog runs, all blurred.", ["clarity"], "animals"), "negative_prompt": "sharp"},
    {
        **pair_row("two", "A cat sits.", "A cat sits in darkness, blurred.", ["clarity", "color brightness"]),
        "negative_prompt": None,
    },
]


def test_a_table_of_pairs_is_read_as_its_prompts(tmp_path):
    expected = tuple(prompt for row in ROWS for prompt in pair_prompts(row))
    assert [prompt.negative_prompt for prompt in expected] == ["", "sharp", "", ""]
    pq.write_table(pa.Table.from_pylist([{**row, "extra": 1} for row in ROWS]), tmp_path / "pairs.parquet")
    assert read_prompts(tmp_path / "pairs.parquet") == expected
    with (tmp_path / "pairs.csv").open("w", newline="") as file:
        columns = ["pair_id", "original_prompt", "wide_spectrum_prompt", "dimensions", "subset", "negative_prompt"]
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        for row in ROWS:
            fields = {name: row[name] for name in writer.fieldnames}
            writer.writerow({**fields, "dimensions": "|".join(row["dimensions"])})
    assert read_prompts(tmp_path / "pairs.csv") == expected


SCHEMA = pa.schema([(name, pa.string()) for name in ROWS[0] if name != "dimensions"]).append(
    pa.field("dimensions", pa.list_(pa.string()))
)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"wide_spectrum_prompt": "A dog runs."}, "row 1: both prompts of pair 'one' read"),
        ({"pair_id": "two"}, "row 2: pair 'two' already has a prompt of role 'original' in row 1"),
        ({"dimensions": ["blur"]}, "row 1: prompt of pair 'one': unknown dimension 'blur'"),
        ({"original_prompt": ""}, "row 1: prompt of pair 'one': the text is empty"),
        ({"original_prompt_id": "0" * 16}, "row 1: prompt of pair 'one': the prompt_id"),
    ],
)
def test_bad_pairs(tmp_path, change, message):
    first, second = ({name: value for name, value in row.items() if not name.endswith("_id")} for row in ROWS)
    rows = [{**first, "pair_id": "one", **change}, {**second, "pair_id": "two", "original_prompt_id": ""}]
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), tmp_path / "pairs.parquet")
    with pytest.raises(InputError) as error:
        read_prompts(tmp_path / "pairs.parquet")
    assert f"pairs.parquet, {message}" in str(error.value)
