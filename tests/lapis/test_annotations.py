import json
from pathlib import Path

import pytest

from tests.lapis.made import GENRES, STYLES, write
from widespectrum.errors import InputError
from widespectrum.lapis import painting_rows, read_annotations
from widespectrum.lapis.annotations import COLUMNS, age_group, options

SOURCES = Path(__file__).resolve().parents[3] / "shared" / "data" / "sources" / "lapis"


def test_older_names_and_age_groups_are_read(made, table, tmp_path):
    columns = ["image_filename" if name == "file" else name for name in COLUMNS]
    older = [
        {**row, "image_filename": row["file"], "age": row["age"] and age_group(row["age"]).replace("61+", "61-71")}
        | {"participant_id": f"{row['participant_id']}.0"}
        for row in made
    ]
    given = painting_rows(read_annotations(write(tmp_path / "older.csv", older, columns)))[0]
    assert given == painting_rows(read_annotations(table))[0]
    assert [age_group(age) for age in (18, 27.9, 28, 60, 61, 72)] == ["18-27", "18-27", "28-38", "50-60", "61+", "61+"]


def test_demographics_under_plain_names(made, table, tmp_path):
    plain = {"demo_gender": "gender", "demo_edu": "education", "demo_colorblind": "colorblind"}
    rows = [row | {plain[name]: row[name] for name in plain} for row in made]
    path = write(tmp_path / "plain.csv", rows, [plain.get(name, name) for name in COLUMNS])
    assert painting_rows(read_annotations(path))[0] == painting_rows(read_annotations(table))[0]
    both = read_annotations(write(tmp_path / "both.csv", [row | {"gender": "x"} for row in made], (*COLUMNS, "gender")))
    assert painting_rows(both)[0] == painting_rows(read_annotations(table))[0]
    assert "columns not read: gender" in both.notices


def bad(line, **cells):
    def change(made):
        return [{**row, **(cells if number == line - 2 else {})} for number, row in enumerate(made[:40])]

    return change


def repeat(made):
    return [*made[:9], made[0]]


def other_rater(made):
    mate = next(row for row in made[1:] if row["participant_id"] == made[0]["participant_id"])
    return [made[0], {**mate, "nationality": "martian"}]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (bad(5, response="100.5"), "line 5: response must be a number from 0 to 100, got '100.5'"),
        (bad(5, response="-1"), "line 5: response must be a number from 0 to 100, got '-1'"),
        (bad(5, response="1e9"), "line 5: response must be a number from 0 to 100, got '1e9'"),
        (bad(5, response="good"), "line 5: response must be a number from 0 to 100, got 'good'"),
        (bad(5, participant_id=""), "line 5: participant_id must be a whole number, got ''"),
        (bad(5, image_id="1.5"), "line 5: image_id must be a whole number, got '1.5'"),
        (bad(5, age="17"), "line 5: age must be from 18 to 120, or a group such as 28-38, got '17'"),
        (bad(5, VAIAK3="7"), "line 5: VAIAK3 must be a whole number from 0 to 6, got '7'"),
        (bad(2, style="Expresionism"), "line 2: unknown style 'Expresionism'; did you mean 'Expressionism'?"),
        (bad(2, genre="marina"), "line 2: unknown genre 'marina'; expected one of abstract, cityscape, "),
        (bad(5, file=" "), "line 5: file is empty"),
        (bad(3, style="Baroque"), "line 3: 'abstract_expressionism_abstract-0.jpg' has style 'Baroque', but "),
        (bad(3, image_id="77"), "has image_id 77, but 1000 in line 2"),
        (
            bad(3, file="another.jpg"),
            "line 3: image_id 1000 stands for 'abstract_expressionism_abstract-0.jpg' and for",
        ),
        (repeat, "line 11: participant "),
        (other_rater, "has nationality 'martian', but "),
    ],
)
def test_bad_rows(made, tmp_path, change, message):
    path = write(tmp_path / "ratings.csv", change(made))
    with pytest.raises(InputError) as error:
        read_annotations(path)
    assert str(error.value).startswith(f"{path}, line ")
    assert message in str(error.value)


def test_bad_files(made, tmp_path):
    with pytest.raises(InputError, match=r"no\.csv: there is no such file; expected the annotation file of LAPIS"):
        read_annotations(tmp_path / "no.csv")
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(InputError, match=r"empty\.csv is empty"):
        read_annotations(tmp_path / "empty.csv")
    path = write(tmp_path / "few.csv", made, [name for name in COLUMNS if name not in ("style", "2VAIAK4")])
    with pytest.raises(InputError, match=r"few\.csv, line 1: the columns 2VAIAK4, style are missing"):
        read_annotations(path)
    path = write(tmp_path / "twice.csv", made, (*COLUMNS, "age"))
    with pytest.raises(InputError, match=r"twice\.csv, line 1: column 'age' is there twice; remove one"):
        read_annotations(path)
    path = write(tmp_path / "short.csv", made[:1])
    path.write_text(path.read_text() + "a,b\n")
    with pytest.raises(InputError, match=r"short\.csv, line 3: 2 cells, expected 23 as in the header"):
        read_annotations(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"short\.csv, line 1: expected UTF-8 text"):
        read_annotations(path)
    path = write(tmp_path / "none.csv", [{**made[0], "response": ""}])
    with pytest.raises(InputError, match="holds no rating"):
        read_annotations(path)


@pytest.mark.skipif(not SOURCES.is_dir(), reason="the published options of LAPIS are not here")
def test_options_are_the_published_ones():
    published = json.loads((SOURCES / "demographics_options_lapis.json").read_text(encoding="utf-8"))["trait_encoders"]
    assert set(published["style"]) == set(STYLES)
    assert set(published["genre"]) == set(GENRES)
    assert {name: set(published[name]) for name in options()["answers"]} == {
        name: set(known) for name, known in options()["answers"].items()
    }
    groups = {age_group(int(group.split("-")[0])).replace("61+", "61-71") for group in published["age"]}
    assert groups == set(published["age"])
