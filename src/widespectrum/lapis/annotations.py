"""The annotation file of LAPIS, read strictly: every error names the file and the line.

The released file is `LAPIS_individualratings_metaANDdemodata.csv`, one row per rating. Columns that are read:

| column | also called | holds |
|---|---|---|
| `file` | `image_filename` | file name of the painting; folders before it are dropped |
| `image_id` | | a whole number, one per painting |
| `participant_id` | | a whole number, one per rater |
| `response` | | the rating, 0 to 100; a row with an empty one is no rating, and is counted |
| `age` | | years (18 and more), or one of the groups 18-27, 28-38, 39-49, 50-60, 61-71 |
| `nationality`, `demo_gender`, `demo_edu`, `demo_colorblind` | without `demo_`; `education` | the rater's answers |
| `VAIAK1` … `VAIAK7`, `2VAIAK1` … `2VAIAK4` | | art interest and knowledge, whole numbers from 0 to 6; checked only |
| `style`, `genre` | | one of 26 and of 7 |

All of them must be there. The file is a merge of ratings, metadata and demographics, so it may hold columns that are
not named here (title, artist): they cannot change a figure, are not read, and are listed. A rater's answers, style and
genre may be empty. An answer outside the published lists is kept as a group of its own and listed, because the lists
were made of complete rows only; a style or genre outside them is refused, since they are the strata.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import Any

from tqdm import tqdm

from widespectrum.errors import InputError
from widespectrum.prompts.tables import iterate_csv_records

__all__ = ["AGE", "TRAITS", "Annotations", "Painting", "options", "read_annotations"]

ALIASES = {
    "image_filename": "file",
    "gender": "demo_gender",
    "edu": "demo_edu",
    "education": "demo_edu",
    "colorblind": "demo_colorblind",
}
AGE = "age"
TRAITS = (AGE, "nationality", "demo_gender", "demo_edu", "demo_colorblind")
_KNOWLEDGE = (*(f"VAIAK{k}" for k in range(1, 8)), *(f"2VAIAK{k}" for k in range(1, 5)))
COLUMNS = ("file", "image_id", "participant_id", "response", *TRAITS, *_KNOWLEDGE, "style", "genre")

_EMPTY = ("", "na", "nan", "null", "none")
_WHOLE = re.compile(r"[0-9]{1,12}(\.0+)?")
_DECIMAL = re.compile(r"[0-9]{1,6}(\.[0-9]+)?([eE][+-]?[0-9]{1,2})?")
_GROUP = re.compile(r"([0-9]{2})-[0-9]{2}")
_OLDEST = 120
_HIGHEST = 100
_MOST_KNOWLEDGE = 6


@dataclass(frozen=True, slots=True)
class Painting:
    """A painting: its file name, its id, style and genre (None where not given), the line where it comes first."""

    file: str
    image_id: int
    style: str | None
    genre: str | None
    line: int


@dataclass(frozen=True, slots=True)
class Annotations:
    """What the file holds: paintings and their (rater, rating) pairs by file name, answers by rater.

    `notices` say what was left out or is out of the ordinary.
    """

    paintings: Mapping[str, Painting]
    ratings: Mapping[str, Sequence[tuple[int, float]]]
    raters: Mapping[int, Sequence[str | None]]
    notices: Sequence[str]


@cache
def options() -> Mapping[str, Any]:
    """Styles, genres, answers and age groups (the youngest age of each); not to be changed by callers."""
    content: dict[str, Any] = json.loads(resources.files(__package__).joinpath("options.json").read_text("utf-8"))
    return content


def _names(cells: Sequence[str]) -> list[str]:
    """The names of the columns; another name of a column that is there under its own is just a further column."""
    given = [name.strip() for name in cells]
    return [name if ALIASES.get(name) in given else ALIASES.get(name, name) for name in given]


def _header(path: Path, line: int, cells: Sequence[str]) -> dict[str, int]:
    """Column → its place; InputError where one is missing or there twice."""
    names = _names(cells)
    if missing := [name for name in COLUMNS if name not in names]:
        raise InputError(
            f"{path}, line {line}: the columns {', '.join(missing)} are missing; expected the annotation file of LAPIS "
            "(LAPIS_individualratings_metaANDdemodata.csv)"
        )
    if twice := [name for name in COLUMNS if names.count(name) > 1]:
        raise InputError(f"{path}, line {line}: column {twice[0]!r} is there twice; remove one")
    return {name: names.index(name) for name in COLUMNS}


def age_group(years: float) -> str:
    """The group of an age; the last one is open, where LAPIS prints 61-71 although its raters are up to 72."""
    lows = options()["age_groups"]
    number = sum(years >= low for low in lows) - 1
    return f"{lows[number]}-{lows[number + 1] - 1}" if number + 1 < len(lows) else f"{lows[number]}+"


@dataclass(slots=True)
class _Reader:
    """Reads one file row by row and gathers what it holds."""

    path: Path
    places: Mapping[str, int]
    paintings: dict[str, Painting] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)
    ratings: dict[str, dict[int, tuple[float, int]]] = field(default_factory=dict)
    raters: dict[int, tuple[tuple[str | None, ...], int]] = field(default_factory=dict)
    unrated: int = 0
    unlisted: Counter[tuple[str, str]] = field(default_factory=Counter)

    def error(self, line: int, message: str) -> InputError:
        return InputError(f"{self.path}, line {line}: {message}")

    def text(self, cells: Sequence[str], name: str) -> str | None:
        value = cells[self.places[name]].strip()
        return None if value.lower() in _EMPTY else value

    def whole(self, line: int, cells: Sequence[str], name: str) -> int:
        value = self.text(cells, name)
        if value is None or not _WHOLE.fullmatch(value):
            raise self.error(line, f"{name} must be a whole number, got {cells[self.places[name]]!r}")
        return int(float(value))

    def choice(self, line: int, cells: Sequence[str], name: str, known: Sequence[str]) -> str | None:
        value = self.text(cells, name)
        if value is not None and value not in known:
            near = difflib.get_close_matches(value, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; expected one of {', '.join(known)}"
            raise self.error(line, f"unknown {name} {value!r}{hint}")
        return value

    def age(self, line: int, cells: Sequence[str]) -> str | None:
        value = self.text(cells, AGE)
        if value is None:
            return None
        group = _GROUP.fullmatch(value)
        years = group[1] if group else value
        lowest = options()["age_groups"][0]
        if not _DECIMAL.fullmatch(years) or not lowest <= float(years) <= _OLDEST:
            raise self.error(line, f"age must be from {lowest} to {_OLDEST}, or a group such as 28-38, got {value!r}")
        return age_group(float(years))

    def answers(self, line: int, cells: Sequence[str]) -> tuple[str | None, ...]:
        """The rater's answers in the order of TRAITS."""
        found = [self.age(line, cells)]
        for name in TRAITS[1:]:
            value = self.text(cells, name)
            known = options()["answers"].get(name)
            if value is not None and known is not None and value not in known:
                self.unlisted[name, value] += 1
            found.append(value)
        for name in _KNOWLEDGE:
            if self.text(cells, name) is not None and not 0 <= self.whole(line, cells, name) <= _MOST_KNOWLEDGE:
                given = cells[self.places[name]]
                raise self.error(line, f"{name} must be a whole number from 0 to {_MOST_KNOWLEDGE}, got {given!r}")
        return tuple(found)

    def rating(self, line: int, cells: Sequence[str]) -> float | None:
        value = self.text(cells, "response")
        if value is None:
            return None
        if not _DECIMAL.fullmatch(value) or not math.isfinite(float(value)) or not float(value) <= _HIGHEST:
            raise self.error(line, f"response must be a number from 0 to {_HIGHEST}, got {value!r}")
        return float(value)

    def painting(self, line: int, cells: Sequence[str]) -> Painting:
        """The painting of a row; InputError where an earlier row says something else about it."""
        given = self.text(cells, "file")
        name = PurePosixPath(given.replace("\\", "/")).name if given else ""
        if not name:
            raise self.error(line, "file is empty; expected the file name of a painting")
        style = self.choice(line, cells, "style", options()["styles"])
        genre = self.choice(line, cells, "genre", options()["genres"])
        found = Painting(name, self.whole(line, cells, "image_id"), style, genre, line)
        first = self.paintings.setdefault(name, found)
        for column in ("image_id", "style", "genre"):
            one, other = getattr(first, column), getattr(found, column)
            if one != other:
                raise self.error(line, f"{name!r} has {column} {other!r}, but {one!r} in line {first.line}")
        if (owner := self.names.setdefault(found.image_id, name)) != name:
            raise self.error(line, f"image_id {found.image_id} stands for {owner!r} and for {name!r}")
        return first

    def row(self, line: int, cells: Sequence[str], width: int) -> None:
        if len(cells) != width:
            raise self.error(line, f"{len(cells)} cells, expected {width} as in the header")
        painting, rater = self.painting(line, cells), self.whole(line, cells, "participant_id")
        answers = self.answers(line, cells)
        known, where = self.raters.setdefault(rater, (answers, line))
        for name, one, other in zip(TRAITS, known, answers, strict=True):
            if one != other:
                raise self.error(line, f"participant {rater} has {name} {other!r}, but {one!r} in line {where}")
        value = self.rating(line, cells)
        if value is None:
            self.unrated += 1
            return
        _, earlier = self.ratings.setdefault(painting.file, {}).setdefault(rater, (value, line))
        if earlier != line:
            raise self.error(
                line, f"participant {rater} already rated {painting.file!r} in line {earlier}; remove one row"
            )

    def notices(self, ignored: Sequence[str]) -> Iterator[str]:
        if ignored:
            yield f"columns not read: {', '.join(ignored)}"
        if self.unrated:
            yield f"{self.unrated:,} rows without a response are no ratings"
        for (name, value), count in self.unlisted.items():
            yield f"{name} {value!r}, in {count:,} rows, is not in the published list; kept as a group of its own"


def read_annotations(path: Path) -> Annotations:
    """The ratings, paintings and raters in the annotation file at `path`.

    InputError with the line for broken CSV, missing columns, values out of range, an unknown style or genre, a painting
    or rater about whom two rows disagree, and a rater who rated a painting twice.
    """
    if not path.is_file():
        raise InputError(f"{path}: there is no such file; expected the annotation file of LAPIS (CSV)")
    records = iterate_csv_records(path, "line")
    line, header = next(records, (0, []))
    if not line:
        raise InputError(f"{path} is empty; expected the annotation file of LAPIS (CSV)")
    reader = _Reader(path, _header(path, line, header))
    for number, cells in tqdm(records, desc="read ratings", unit=" rows", delay=2, leave=False):
        reader.row(number, cells, len(header))
    if not reader.ratings:
        raise InputError(f"{path} holds no rating")
    ignored = [name for name in _names(header) if name not in COLUMNS]
    return Annotations(
        paintings=reader.paintings,
        ratings={
            name: [(rater, value) for rater, (value, _) in given.items()] for name, given in reader.ratings.items()
        },
        raters={rater: answers for rater, (answers, _) in reader.raters.items()},
        notices=list(reader.notices(ignored)),
    )
