import json

import pytest

from tests.authors.made import PAIR_FEATURES, pair, rows, write
from widespectrum import store
from widespectrum.authors import import_dataset
from widespectrum.errors import InputError
from widespectrum.prompts import read_prompts


def test_prompt_pairs(place, tmp_path):
    made = [
        pair("a bus", "a blurred bus", ["Color_Aesthetic", "colour brightness"]),
        pair("a cat", "a dim cat"),
        pair(" a bus", "a blurred bus "),
        pair("a bus", "a dark bus"),
    ]
    out = tmp_path / "pairs.parquet"
    notices = import_dataset("anti_aesthetics_dataset", str(write(place, made, PAIR_FEATURES)), out)
    assert notices == [
        "left out 1 rows that repeat an earlier pair: rows 3",
        "1 original prompts are shared by several pairs: aas:0, aas:3",
        "3 prompt pairs",
    ]
    prompts = read_prompts(out)
    assert [prompt.text for prompt in prompts if prompt.role == "original"] == ["a bus", "a cat", "a bus"]
    assert prompts[1].dimensions == ("color aesthetic", "color brightness")
    assert [prompt.pair_id for prompt in prompts[::2]] == ["aas:0", "aas:1", "aas:3"]


def test_prompt_pairs_have_the_ids_of_the_benchmark(place, tmp_path):
    run, out = tmp_path / "run", tmp_path / "pairs.parquet"
    import_dataset("aas_benchmark_final", str(write(place / "b", rows("flux_dev"))), run)
    made = [
        pair(each["prompt_original"], each["prompt_distorted"], json.loads(each["selected_dims"]))
        for each in rows("flux_dev")
    ]
    import_dataset("anti_aesthetics_dataset", str(write(place / "p", made, PAIR_FEATURES)), out)
    assert {prompt.prompt_id for prompt in read_prompts(out)} == set(
        store.read(run, "prompts")["prompt_id"].to_pylist()
    )


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (pair("a bus", "a bus"), "row 2: both prompts read 'a bus'"),
        (pair("a bus", "a dark bus", ["charm"]), "row 2: prompt of pair 'aas:1': unknown dimension 'charm'"),
        (pair("a bus", "a dark bus", []), "row 2: prompt of pair 'aas:1': an original prompt has no dimensions and"),
        (pair("", "a dark bus"), "row 2: prompt of pair 'aas:1': the text is empty"),
    ],
)
def test_bad_prompt_pairs(place, tmp_path, row, message):
    write(place, [pair("a cat", "a dim cat"), row], PAIR_FEATURES)
    with pytest.raises(InputError, match=r"train-00000-of-00001\.parquet, row 2") as error:
        import_dataset("anti_aesthetics_dataset", str(place), tmp_path / "pairs.parquet")
    assert message in str(error.value)
    assert not (tmp_path / "pairs.parquet").exists()
