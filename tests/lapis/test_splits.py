import collections
from pathlib import Path

import pytest

from widespectrum.errors import InputError
from widespectrum.lapis import read_image_splits, read_user_folds

SOURCES = Path(__file__).resolve().parents[3] / "shared" / "data" / "sources" / "lapis"


def write_lists(folder, **lists):
    folder.mkdir()
    for name, lines in {"Train": "a.jpg\nb.jpg", "Val": "c.jpg\n", "Test": "d.jpg\n", **lists}.items():
        (folder / f"{name}ImageSet.txt").write_text(lines, encoding="utf-8")
    return folder


def test_image_lists(tmp_path):
    expected = {"a.jpg": "train", "b.jpg": "train", "c.jpg": "validation", "d.jpg": "test"}
    assert read_image_splits(write_lists(tmp_path / "lists", Val="\ufeffc.jpg\r\n")) == expected


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ({"Val": "a.jpg"}, r"ValImageSet\.txt, line 1: 'a\.jpg' is already in .*TrainImageSet\.txt, line 1"),
        ({"Test": "d.jpg\nd.jpg"}, r"TestImageSet\.txt, line 2: 'd\.jpg' is already in .*TestImageSet\.txt, line 1"),
        ({"Test": "d.jpg\n\ne.jpg"}, r"TestImageSet\.txt, line 2: the line is empty"),
        ({"Test": ""}, r"TestImageSet\.txt is empty"),
        ({"Test": "x/d.jpg"}, r"TestImageSet\.txt, line 1: expected a file name, got the path 'x/d\.jpg'"),
    ],
)
def test_bad_image_lists(tmp_path, lists, message):
    with pytest.raises(InputError, match=message):
        read_image_splits(write_lists(tmp_path / "lists", **lists))


def test_missing_and_broken_lists(tmp_path):
    folder = write_lists(tmp_path / "lists")
    (folder / "ValImageSet.txt").write_bytes(b"ok.jpg\n\xff.jpg")
    with pytest.raises(InputError, match=r"ValImageSet\.txt: expected UTF-8 text, got other bytes at byte 7"):
        read_image_splits(folder)
    (folder / "ValImageSet.txt").unlink()
    with pytest.raises(InputError, match=r"ValImageSet\.txt: there is no such file; expected a split list of LAPIS"):
        read_image_splits(folder)


def write_folds(folder, **changes):
    folder.mkdir()
    for fold in range(1, 5):
        lists = {f"Test{fold}": str(fold), f"Train{fold}": "\n".join(str(k) for k in range(1, 5) if k != fold)}
        for name, lines in lists.items():
            path = folder / f"{name[:-1]}UserIDs_Fold{fold}.txt"
            path.write_text(changes.get(name, lines), encoding="utf-8")
    return folder


def test_user_folds(tmp_path):
    folds = read_user_folds(write_folds(tmp_path / "folds"))
    assert [sorted(test) for _, test in folds] == [[1], [2], [3], [4]]
    assert all(len(train) == 3 for train, _ in folds)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"Test2": "1"}, r"TestUserIDs_Fold2\.txt, line 1: participant 1 is also in .*TrainUserIDs_Fold2\.txt, line 1"),
        ({"Test2": "2\n2"}, r"TestUserIDs_Fold2\.txt, line 2: participant 2 is already in .*, line 1"),
        ({"Test2": "x"}, r"Fold2\.txt, line 1: expected the whole number of a participant, got 'x'"),
        ({"Train3": "1\n2\n4\n9"}, r"fold 3 and fold 1 are not of the same raters; 9 is in one of them"),
        ({"Test2": "1", "Train2": "2\n3\n4"}, r"line 1: participant 1 is already tested on in .*Fold1\.txt, line 1"),
    ],
)
def test_bad_user_folds(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        read_user_folds(write_folds(tmp_path / "folds", **changes))


@pytest.mark.skipif(not SOURCES.is_dir(), reason="the official lists of LAPIS are not here")
def test_official_lists():
    splits = collections.Counter(read_image_splits(SOURCES / "imageset").values())
    assert splits == {"train": 8205, "validation": 1173, "test": 2345}
    folds = read_user_folds(SOURCES / "userset")
    assert [(len(train), len(test)) for train, test in folds] == [(399, 133)] * 4
    assert len(frozenset().union(*(test for _, test in folds))) == 532
