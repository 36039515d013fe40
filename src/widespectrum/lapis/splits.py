"""The official split lists of LAPIS: by painting (`imageset/`) and by rater (`userset/`), read strictly."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from widespectrum.errors import InputError

__all__ = ["IMAGE_LISTS", "read_image_splits", "read_user_folds"]

IMAGE_LISTS = {"train": "TrainImageSet.txt", "validation": "ValImageSet.txt", "test": "TestImageSet.txt"}
FOLDS = 4


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a list with their numbers; InputError for a missing or empty file, other bytes than UTF-8, an empty
    line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{path}: there is no such file; expected a split list of LAPIS, one name per line") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: expected UTF-8 text, got other bytes at byte {error.start}; copy it again") from None
    if not text:
        raise InputError(f"{path} is empty; expected a split list of LAPIS: copy it again")
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            raise InputError(f"{path}, line {number}: the line is empty; remove it")
        yield number, line.strip()


def read_image_splits(folder: Path) -> dict[str, str]:
    """File name of a painting → `train`, `validation` or `test`, from the three lists in `folder`.

    InputError with file and line where a name is in the lists twice, or is a path.
    """
    found: dict[str, tuple[str, str]] = {}
    for split, file in IMAGE_LISTS.items():
        path = folder / file
        for number, name in _lines(path):
            where = f"{path}, line {number}"
            if "/" in name or "\\" in name:
                raise InputError(f"{where}: expected a file name, got the path {name!r}")
            _, earlier = found.setdefault(name, (split, where))
            if earlier != where:
                raise InputError(f"{where}: {name!r} is already in {earlier}; a painting belongs to one split")
    return {name: split for name, (split, _) in found.items()}


def _users(path: Path) -> dict[int, str]:
    users: dict[int, str] = {}
    for number, line in _lines(path):
        where = f"{path}, line {number}"
        if not line.isascii() or not line.isdigit():
            raise InputError(f"{where}: expected the whole number of a participant, got {line!r}")
        if (earlier := users.setdefault(int(line), where)) != where:
            raise InputError(f"{where}: participant {line} is already in {earlier}")
    return users


def read_user_folds(folder: Path) -> list[tuple[frozenset[int], frozenset[int]]]:
    """Raters to train and to test on, for each of the four folds in `folder`.

    InputError where a fold has a rater on both sides, where two folds are not of the same raters, or where two test on
    the same rater.
    """
    folds, tested = [], dict[int, str]()
    for fold in range(1, FOLDS + 1):
        train, test = (_users(folder / f"{side}UserIDs_Fold{fold}.txt") for side in ("Train", "Test"))
        for user, where in test.items():
            if user in train:
                raise InputError(f"{where}: participant {user} is also in {train[user]}; a fold must not mix them")
            if (earlier := tested.setdefault(user, where)) != where:
                raise InputError(f"{where}: participant {user} is already tested on in {earlier}")
        folds.append((frozenset(train), frozenset(test)))
        everyone = folds[0][0] | folds[0][1]
        if odd := everyone ^ (folds[-1][0] | folds[-1][1]):
            raise InputError(
                f"{folder}: fold {fold} and fold 1 are not of the same raters; {min(odd)} is in one of them"
            )
    return folds
