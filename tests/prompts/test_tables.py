from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from widespectrum.errors import InputError
from widespectrum.prompts import PromptSet, load_prompt_set, read_prompts
from widespectrum.prompts.tables import is_one_line

HEADER = "pair_id,role,text,dimensions,subset\n"
GOOD = HEADER + "p1,original,a bus,,city\np1,wide_spectrum,a blurred bus in darkness,clarity | color brightness,city\n"


def table(folder: Path, text: str) -> Path:
    path = folder / "prompts.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_csv(tmp_path: Path) -> None:
    original, wide = read_prompts(table(tmp_path, "\ufeff" + GOOD))
    assert (original.role, original.dimensions, original.subset) == ("original", (), "city")
    assert wide.dimensions == ("clarity", "color brightness")
    assert wide.prompt_id


def test_blank_lines_are_skipped_and_counted(tmp_path: Path) -> None:
    assert len(read_prompts(table(tmp_path, GOOD + "\n  \n"))) == 2
    with pytest.raises(InputError, match="row 6: expected 5 cells"):
        read_prompts(table(tmp_path, GOOD + "\n  \np2,original\n"))


def test_texts_are_stripped_and_normalized(tmp_path: Path) -> None:
    composed = read_prompts(table(tmp_path, GOOD.replace("a bus,", " cafe\u0301 ,")))[0]
    assert composed.text == "caf\u00e9"


def test_parquet_round_trip_of_a_whole_set(tmp_path: Path) -> None:
    prompts = load_prompt_set("authored-lite").prompts
    rows = [asdict(prompt) for prompt in prompts]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "prompts.parquet")
    assert read_prompts(tmp_path / "prompts.parquet") == prompts


NEGATIVE = GOOD.replace("subset", "negative_prompt").replace(",,city", ",,").replace(",city", ',"sharp , cafe\u0301"')


def test_negative_prompts_are_kept_and_are_no_part_of_the_id(tmp_path: Path) -> None:
    original, wide = read_prompts(table(tmp_path, NEGATIVE))
    assert (original.negative_prompt, wide.negative_prompt) == ("", "sharp , caf\u00e9")
    without = read_prompts(table(tmp_path, GOOD))
    assert [prompt.prompt_id for prompt in without] == [original.prompt_id, wide.prompt_id]
    revisions = {
        PromptSet(name="mine", prompts=prompts, photographs={}).revision
        for prompts in ((original, wide), (original, replace(wide, negative_prompt="")))
    }
    assert len(revisions) == 2


def test_a_negative_prompt_may_be_null(tmp_path: Path) -> None:
    rows = [{**asdict(prompt), "negative_prompt": None} for prompt in read_prompts(table(tmp_path, GOOD))]
    columns = pa.Table.from_pylist(rows)
    pq.write_table(
        columns.cast(columns.schema.set(7, pa.field("negative_prompt", pa.string()))), tmp_path / "a.parquet"
    )
    assert {prompt.negative_prompt for prompt in read_prompts(tmp_path / "a.parquet")} == {""}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (NEGATIVE.replace("a bus,,", "a bus,,dull"), "row 2: .*an original prompt has no negative_prompt; got 'dull'"),
        ("pair_id,role,text\np1,original,a\n", r"prompts\.csv has no column 'dimensions'"),
        (GOOD.replace("subset", "subest"), "unknown column 'subest'"),
        (GOOD.replace(",subset", ",text"), "column 'text' twice"),
        (GOOD.replace("original", "orignal"), "row 2: .*role must be one of original, wide_spectrum; got 'orignal'"),
        (GOOD.replace("color brightness", "brightness"), "row 3: .*unknown dimension 'brightness'"),
        (GOOD.replace("a bus", " "), "row 2: .*text is empty"),
        (GOOD + "p1,original,again,,\n", "row 4: pair 'p1' already has a prompt of role 'original' in row 2"),
        (GOOD + "p2,original,alone,,\n", "row 4: pair 'p2' has only the role 'original'; add 'wide_spectrum'"),
        (GOOD + "p2,original\n", "row 4: expected 5 cells as in the header, got 2"),
        (GOOD.replace("p1,original", ",original"), "row 2: .*pair_id"),
        (GOOD.replace("a bus,,", "a bus,clarity,"), "row 2: .*original prompt has no dimensions"),
        (GOOD.replace("a blurred bus in darkness", "a bus "), "row 2: both prompts of pair 'p1' read 'a bus'; change"),
        (HEADER, "no rows below its header"),
        ("", r"prompts\.csv is empty"),
        (GOOD.replace(",", ";"), "row 1: columns must be separated by commas, got 'pair_id;role;"),
        (GOOD + '"p1,original,a,,\n', "row 4: a cell opens with a quote that is never closed; close it"),
        (GOOD.replace("a bus", '"a "red" bus"'), "row 2: only a comma may follow a closing quote; write .* twice"),
        (GOOD.replace("a bus", "a" * 131073), "row 2: a cell is longer than 131072 characters; .* shorten it"),
        (GOOD.replace("a bus", '"a\nbus"') + "p2\n", "row 4: expected 5 cells"),
    ],
)
def test_bad_csv(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        read_prompts(table(tmp_path, text))
    assert "prompts.csv" in str(error.value)


def test_bad_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no file at"):
        read_prompts(tmp_path / "absent.csv")
    with pytest.raises(InputError, match=r"ending in \.csv or \.parquet"):
        read_prompts(tmp_path / "prompts.xlsx")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(InputError, match=r"expected a table ending in .*, got the folder /.*folder\.csv"):
        read_prompts(tmp_path / "folder.csv")
    (tmp_path / "latin.csv").write_bytes(GOOD.replace("blurred", "café").encode("latin-1"))
    with pytest.raises(InputError, match=r"latin\.csv, row 3: expected UTF-8 text, .*; save the table as CSV in UTF-8"):
        read_prompts(tmp_path / "latin.csv")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(InputError, match=r"broken\.parquet is not a readable Parquet file"):
        read_prompts(tmp_path / "broken.parquet")


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [("text", None, "row 1: text must be text, got None"), ("dimensions", 3, "row 1: dimensions must be a list")],
)
def test_bad_parquet_cells(tmp_path: Path, column: str, value: object, message: str) -> None:
    row = {"pair_id": "p1", "role": "original", "text": "a", "dimensions": ""} | {column: value}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "prompts.parquet")
    with pytest.raises(InputError, match=message):
        read_prompts(tmp_path / "prompts.parquet")


@pytest.mark.parametrize("text", ["a bus", "猫　犬", "a\u00a0b", "👩\u200d🚀", "می\u200cخواهم"])
def test_one_line(text: str) -> None:
    assert is_one_line(text)


@pytest.mark.parametrize("text", ["a\nb", "a\tb", "\x00", "\x1b[2J", "a\u2028b", "\udcff"])
def test_not_one_line(text: str) -> None:
    assert not is_one_line(text)
