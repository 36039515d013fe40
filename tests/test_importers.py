import csv

import pytest

from widespectrum import store
from widespectrum.errors import InputError, RunFolderError
from widespectrum.importers import _SCORE_COLUMNS, import_scores
from widespectrum.runs import read_manifest

HEADER = ["model_tag", "prompt_index", *_SCORE_COLUMNS]


def write_table(path, rows, header=HEADER):
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
    return path


def row(tag, index, start=0.0):
    return [tag, index, *(start + index + k / 100 for k in range(len(_SCORE_COLUMNS)))]


@pytest.fixture
def table(tmp_path):
    rows = [row("flux_dev", 0), row("flux_dev", 1), row("dance_flux", 0, 5.0), row("dance_flux", 1, 5.0)]
    return write_table(tmp_path / "scores.csv", rows)


def test_every_cell_lands_in_its_place(table, tmp_path):
    import_scores(table, tmp_path / "run")
    scores = store.read(tmp_path / "run", "scores").to_pandas()
    assert len(scores) == 4 * len(_SCORE_COLUMNS)
    assert set(scores["reward_model"]) == {"hpsv3", "hpsv2.1", "imagereward"}
    assert set(scores["generator"]) == {"flux-dev", "dance-flux"}
    cell = scores[
        (scores["generator"] == "dance-flux")
        & (scores["pair_id"] == "external:scores:1")
        & (scores["reward_model"] == "hpsv2.1")
        & (scores["image_role"] == "wide_spectrum")
        & (scores["prompt_role"] == "original")
    ]
    assert cell["value"].item() == 6.0 + _SCORE_COLUMNS.index("hpsv2_diop") / 100
    assert cell["prompt_id"].item() == "external:scores:1:original"
    assert scores["truncated"].isna().all()


def test_no_prompt_or_image_is_invented(table, tmp_path):
    import_scores(table, tmp_path / "run")
    assert store.read(tmp_path / "run", "prompts").num_rows == 0
    assert store.read(tmp_path / "run", "images").num_rows == 0
    assert read_manifest(tmp_path / "run").status == "complete"


def test_importing_twice_adds_nothing(table, tmp_path):
    import_scores(table, tmp_path / "run")
    before = store.read(tmp_path / "run", "scores")
    import_scores(table, tmp_path / "run")
    assert store.read(tmp_path / "run", "scores").equals(before)


def test_another_table_in_the_same_folder_is_refused(table, tmp_path):
    import_scores(table, tmp_path / "run")
    other = write_table(tmp_path / "other.csv", [row("flux_dev", 0), row("dance_flux", 0, 3.0)])
    with pytest.raises(RunFolderError, match="choose another folder with --out"):
        import_scores(other, tmp_path / "run")


def test_repeated_block_is_left_out_with_a_notice(tmp_path):
    path = write_table(
        tmp_path / "s.csv", [row("a", 0), row("a", 1), row("again", 1), row("again", 0), row("b", 0, 1.0)]
    )
    notices = import_scores(path, tmp_path / "run")
    assert notices == [
        "left out 'again': its 2 rows repeat those of 'a'",
        "3 pairs of 2 generators under 3 reward models",
    ]
    assert set(store.read(tmp_path / "run", "scores")["generator"].to_pylist()) == {"a", "b"}


def bad_cell(column, text):
    rows = [row("flux_dev", 0), row("flux_dev", 1)]
    rows[1][HEADER.index(column)] = text
    return rows


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (bad_cell("hpsv3_oiop", "n/a"), "line 3: column 'hpsv3_oiop' must hold a plain decimal number, got 'n/a'"),
        (bad_cell("hpsv2_didp", ""), "line 3: column 'hpsv2_didp' must hold a plain decimal number, got ''"),
        (
            bad_cell("hpsv2_didp", "1000000.1"),
            "column 'hpsv2_didp' holds '1000000.1', but no reward is beyond ±1000000",
        ),
        (bad_cell("hpsv2_didp", "-1e400"), "line 3: column 'hpsv2_didp' holds '-1e400', but no reward is beyond"),
        (bad_cell("prompt_index", "1.5"), "line 3: prompt_index must be an integer from 0 to 999999999, got '1.5'"),
        (bad_cell("prompt_index", "-1"), "line 3: prompt_index must be an integer from 0 to 999999999, got '-1'"),
        (bad_cell("prompt_index", "1000000000"), "must be an integer from 0 to 999999999, got '1000000000'"),
        (bad_cell("prompt_index", "\u0661"), "must be an integer from 0 to 999999999, got '\u0661'"),
        (bad_cell("model_tag", "a\x1b[2J"), r"line 3: model_tag must be one line of printable text, got 'a\x1b[2J'"),
        (bad_cell("model_tag", "a\nb"), r"line 3: model_tag must be one line of printable text, got 'a\nb'"),
        (bad_cell("model_tag", " "), "line 3: column 'model_tag' is empty"),
        ([row("flux_dev", 0), row("flux_dev", 0, 1.0)], "lines 2 and 3: 'flux_dev' has prompt_index 0 twice"),
        ([row("flux_dev", 0)[:-1]], "line 2: 13 cells, expected 14 columns"),
        ([[*row("flux_dev", 0), ""]], "line 2: 15 cells, expected 14 columns"),
        (
            [row("flux_dev", 0), row("flux-dev", 0, 1.0)],
            "'flux_dev' and 'flux-dev' both stand for generator 'flux-dev'",
        ),
        ([row("flux_dev", 0), row("flux-dev", 0)], "'flux_dev' and 'flux-dev' both stand for generator 'flux-dev'"),
        ([row("a", 0), row("hpsv2.1", 0, 1.0)], "line 3: model_tag 'hpsv2.1' is the name of a reward model"),
        ([row("a", 0), row("b:c", 0, 1.0)], "line 3: model_tag 'b:c' cannot name a generator: "),
        ([], "holds no rows"),
    ],
)
def test_bad_rows(tmp_path, rows, message):
    path = write_table(tmp_path / "scores.csv", rows)
    with pytest.raises(InputError) as error:
        import_scores(path, tmp_path / "run")
    assert message in str(error.value)
    assert "scores.csv" in str(error.value)
    assert not (tmp_path / "run").exists()


def test_missing_column(tmp_path):
    path = write_table(tmp_path / "scores.csv", [row("a", 0)[:-1]], HEADER[:-1])
    with pytest.raises(InputError, match="the columns image_reward_didp are missing"):
        import_scores(path, tmp_path / "run")


@pytest.mark.parametrize("name", ["hpsv3_oiop", "model_tag", "comment"])
def test_repeated_column(tmp_path, name):
    header = [*HEADER, "comment", name] if name != "comment" else [*HEADER, name, name]
    path = write_table(tmp_path / "scores.csv", [[*row("a", 0), "", ""]], header)
    with pytest.raises(InputError, match=rf"scores\.csv: the header names column '{name}' more than once"):
        import_scores(path, tmp_path / "run")


@pytest.mark.parametrize("text", ["nan", "inf", "-Infinity", "1_0", "0x1", "\u0661", "1,5", "1e", ".", "1 2", "--1"])
def test_what_is_no_plain_decimal_number(tmp_path, text):
    path = write_table(tmp_path / "scores.csv", bad_cell("hpsv3_diop", text))
    with pytest.raises(InputError) as error:
        import_scores(path, tmp_path / "run")
    expected = f"line 3: column 'hpsv3_diop' must hold a plain decimal number, got {text!r}"
    assert str(error.value).endswith(expected)


@pytest.mark.parametrize(
    ("text", "value"), [("-1e6", -1e6), ("+.5", 0.5), ("2.", 2.0), ("1.5E-2", 0.015), (" 7 ", 7.0)]
)
def test_plain_decimal_numbers(tmp_path, text, value):
    import_scores(write_table(tmp_path / "scores.csv", bad_cell("hpsv3_diop", text)), tmp_path / "run")
    assert value in store.read(tmp_path / "run", "scores")["value"].to_pylist()


def lines(*texts):
    return "\n".join([",".join(HEADER), *texts]) + "\n"


GOOD = ",".join(str(cell) for cell in row("a", 0))
TWO_LINES = '"a\n",' + ",".join(str(cell) for cell in row("a", 1)[1:])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "scores.csv is empty"),
        (" \n\n", "scores.csv is empty"),
        (";".join(HEADER) + "\n", "line 1: columns must be separated by commas, got 'model_tag;prompt_index;"),
        ("\t".join(HEADER) + "\n", "line 1: columns must be separated by commas, got 'model_tag\\tprompt_index"),
        (lines(GOOD, '"b,0,1', GOOD), "line 3: a cell opens with a quote that is never closed; close it"),
        (lines(TWO_LINES, '"b"x,0', GOOD), "line 4: only a comma may follow a closing quote"),
        (lines(TWO_LINES, "b,1"), "line 4: 2 cells, expected 14 columns"),
        (lines("", TWO_LINES, "  ", TWO_LINES), "lines 3 and 6: 'a' has prompt_index 1 twice"),
        (lines(GOOD, ",,"), "line 3: 3 cells, expected 14 columns"),
    ],
)
def test_a_broken_file_is_named_with_the_line_where_the_record_starts(tmp_path, text, message):
    path = tmp_path / "scores.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as error:
        import_scores(path, tmp_path / "run")
    assert message in str(error.value)
    assert "scores.csv" in str(error.value)


def test_blank_lines_are_skipped(tmp_path):
    path = tmp_path / "scores.csv"
    path.write_text(lines(" \t ", GOOD, "", "  "), encoding="utf-8")
    assert import_scores(path, tmp_path / "run") == ["1 pair of 1 generator under 3 reward models"]


def test_what_is_no_csv_file(tmp_path):
    with pytest.raises(InputError, match="expected a CSV file, got a folder"):
        import_scores(tmp_path, tmp_path / "run")
    with pytest.raises(InputError, match="there is no such file"):
        import_scores(tmp_path / "no.csv", tmp_path / "run")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(InputError, match=r"binary\.csv, line 1: expected UTF-8 text"):
        import_scores(tmp_path / "binary.csv", tmp_path / "run")
