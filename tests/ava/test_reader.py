"""The strict readers of AVA's own files."""

import csv
import lzma
import math
from pathlib import Path

import numpy as np
import pytest

from widespectrum.ava.reader import read_names, read_styles, read_votes, vote_statistics
from widespectrum.errors import InputError

SOURCES = Path(__file__).resolve().parents[3] / "shared" / "data" / "sources" / "ava"
HISTOGRAMS = SOURCES / "ava_partial_histograms.tsv.xz"

GOOD = "1 953619 0 1 5 17 38 36 15 6 5 1 1 22 1396"
OTHER = "2 953958 10 7 15 26 26 21 10 8 1 2 0 0 1396"


def line(**changed):
    names = ["index", "image_id", *(f"n{k}" for k in range(1, 11)), "tag1", "tag2", "challenge"]
    return " ".join(str(value) for value in {**dict(zip(names, GOOD.split(), strict=True)), **changed}.values())


@pytest.fixture
def write(tmp_path):
    def writer(content, name="AVA.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return writer


@pytest.mark.parametrize("end", ["", "\n", "\n\n", "\r\n", "\r\n\r\n"])
def test_lines_become_columns(write, end):
    separator = "\r\n" if "\r" in end else "\n"
    votes = read_votes(write(separator.join([GOOD, OTHER]) + end))
    assert votes.ids.tolist() == [953619, 953958]
    assert votes.votes.tolist() == [[0, 1, 5, 17, 38, 36, 15, 6, 5, 1], [10, 7, 15, 26, 26, 21, 10, 8, 1, 2]]
    assert votes.tags.tolist() == [[1, 22], [0, 0]]
    assert votes.challenges.tolist() == [1396, 1396]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (f"{GOOD}\n{OTHER} 4\n", r"line 2: expected 15 integers with single spaces between them, got 16"),
        (f"{GOOD}\n{OTHER[:-5]}\n", r"line 2: expected 15 integers .* got 14"),
        (GOOD.replace(" ", "  ", 1), r"line 1: expected 15 integers .* got 16"),
        (GOOD.replace(" ", "\t"), r"line 1: expected 15 integers .* got 1"),
        (f"{GOOD} \n", r"line 1: expected 15 integers .* got 16"),
        (f"{GOOD}\n\n{OTHER}\n", r"line 2: is blank; only the last line"),
        (f"{GOOD}\n\n\n", r"line 2: is blank"),
        (f"{GOOD}\r{OTHER}\n", r"line 1: .*got 29"),
        (f"\ufeff{GOOD}\n", r"line 1: index must be an integer, got '\\ufeff1'"),
        (f"{line(n3='x')}\n", r"line 1: n3 must be an integer, got 'x'"),
        (f"{line(n3='0x1F')}\n", r"line 1: n3 must be an integer, got '0x1F'"),
        (f"{line(n3='+5')}\n", r"line 1: n3 must be an integer"),
        (f"{line(n3='5.0')}\n", r"line 1: n3 must be an integer"),
        (f"{OTHER}\n{line(n10=-1)}\n", r"line 2: n10 must be at least 0, got -1"),
        (f"{line(image_id='9' * 30)}\n", r"line 1: image_id must be an integer"),
        (f"{line(image_id=0)}\n", r"line 1: image_id must be at least 1"),
        (f"{OTHER}\n{line(**{f'n{k}': 0 for k in range(1, 11)})}\n", r"line 2: image 953619 has no votes"),
        (f"{line(n4=2_000_000)}\n", r"line 1: a score has 2000000 votes"),
        (f"{line(tag2=67)}\n", r"line 1: a tag must be from 0 \(none\) to 66, got 67"),
        (f"{GOOD}\n{OTHER}\n{GOOD}\n", r"line 3: image 953619 already stands in line 1"),
        (b"1 2 \xff\n", r"line 1: expected UTF-8 text"),
        ("", "is empty"),
        ("\n", "is empty"),
    ],
)
def test_what_is_not_the_format_is_named_with_its_line(write, content, message):
    path = write(content)
    with pytest.raises(InputError, match=message) as caught:
        read_votes(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="there is no such file"):
        read_votes(tmp_path / "AVA.txt")
    with pytest.raises(InputError, match="got a folder"):
        read_votes(tmp_path)


def test_statistics_are_those_of_the_single_votes():
    votes = np.array([[0, 0, 0, 0, 7, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0, 0, 0, 1], [3, 1, 4, 1, 5, 9, 2, 6, 5, 3]])
    mean, spread, count = vote_statistics(votes)
    single = [np.repeat(np.arange(1, 11), row) for row in votes]
    assert count.tolist() == [7, 2, 39]
    assert mean == pytest.approx([each.mean() for each in single], abs=1e-14)
    assert spread == pytest.approx([each.std(ddof=0) for each in single], abs=1e-14)
    assert spread[0] == 0


def test_rows_rebuilt_from_known_histograms(write):
    if not HISTOGRAMS.exists():
        pytest.skip("the vote histograms are not here")
    with lzma.open(HISTOGRAMS, "rt") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert len(rows) == 64_815
    counts = [[row[f"n{k}"] for k in range(1, 11)] for row in rows]
    rest = [[row[name] or "0" for name in ("tag1", "tag2", "challenge_id")] for row in rows]
    lines = [
        f"{n} {row['image_id']} {' '.join(own)} {' '.join(others)}"
        for n, (row, own, others) in enumerate(zip(rows, counts, rest, strict=True), start=1)
    ]
    votes = read_votes(write("\n".join(lines) + "\n"))
    mean, spread, count = vote_statistics(votes.votes)
    assert votes.ids.tolist() == [int(row["image_id"]) for row in rows]
    for n in range(0, len(rows), 7):
        own = [int(value) for value in counts[n]]
        total = sum(own)
        expected = sum(score * times for score, times in enumerate(own, start=1)) / total
        variance = sum(times * (score - expected) ** 2 for score, times in enumerate(own, start=1)) / total
        assert count[n] == total
        assert mean[n] == pytest.approx(expected, abs=1e-12)
        assert spread[n] == pytest.approx(math.sqrt(variance), abs=1e-9)
    assert 5.3 < mean.mean() < 5.5


def test_names(write):
    assert read_names(write("37 Diptych / Triptych\r\n2 Road_Signs\n")) == {37: "Diptych / Triptych", 2: "Road_Signs"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("1 Abstract\n2\n", "line 2: expected a number, one space and a name, got '2'"),
        ("1  Abstract\n", "line 1: expected a number"),
        ("x Abstract\n", "line 1: expected a number"),
        ("1 Abstract \n", "line 1: expected a number"),
        ("1 Abstract\n1 Action\n", "line 2: the number 1 already stands for 'Abstract'"),
        (f"{GOOD}\n", "line 1: expected a number, one space and a name, got '1 953619 0"),
        ("66 Zoo\n1396 100_Meters\n", "line 2: expected a number up to 66, got 1396; is this another list"),
    ],
)
def test_names_that_are_none(write, content, message):
    with pytest.raises(InputError, match=message):
        read_names(write(content), last=66)


FLAGS = ["1 0 0 0 0 0 0 0 0 1 0 0 0 0", "0 " * 13 + "0"]


@pytest.fixture
def styles(write):
    def writer(**changed):
        files = {
            "styles.txt": "".join(f"{n} Style_{n}\n" for n in range(1, 15)),
            "train.jpgl": "11\n12\n",
            "train.lab": "1\n14\n",
            "test.jpgl": "21\n22\n",
            "test.multilab": "\n".join(FLAGS) + "\n",
        }
        for name, content in {**files, **{key.replace("_", "."): value for key, value in changed.items()}}.items():
            path = write(content, f"styles/{name}")
        return path.parent

    return writer


def test_styles_of_training_and_test_images(styles):
    assert read_styles(styles()) == {11: ("Style_1",), 12: ("Style_14",), 21: ("Style_1", "Style_10"), 22: ()}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"train_lab": "1\n15\n"}, "train.lab, line 2: expected a style from 1 to 14, got '15'"),
        ({"train_lab": "1\n"}, "train.lab has 1 lines for the 2 images"),
        ({"test_multilab": f"{FLAGS[0]}\n{FLAGS[0]} 1\n"}, "test.multilab, line 2: expected 14 flags"),
        ({"test_multilab": f"{FLAGS[0]}\n{FLAGS[0][:-1]}2\n"}, "test.multilab, line 2: expected 14 flags"),
        ({"test_jpgl": "21\n11\n"}, r"test.jpgl, line 2: image 11 already stands in .*train.jpgl, line 1"),
        ({"train_jpgl": "11\n12.jpg\n"}, "train.jpgl, line 2: expected one image id, got '12.jpg'"),
        ({"styles_txt": "1 One\n"}, "styles.txt: expected the numbers 1 to 14"),
    ],
)
def test_style_lists_that_do_not_fit(styles, changed, message):
    with pytest.raises(InputError, match=message):
        read_styles(styles(**changed))


def test_the_real_names_and_styles():
    if not SOURCES.exists():
        pytest.skip("the files of AVA are not here")
    assert len(read_names(SOURCES / "challenges.txt")) == 1398
    assert sorted(read_names(SOURCES / "tags.txt")) == list(range(1, 67))
    styles = read_styles(SOURCES / "style_image_lists")
    assert len(styles) == 11_270 + 2_809
    with (SOURCES / "ava_style_counts.tsv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            assert sum(row["style"] in own for own in styles.values()) == int(row["train"]) + int(row["test"])
