"""Strict readers of the files that come with AVA: votes, challenges, tags and photographic styles.

Lines may end in LF or CRLF and the last line may be blank; anything else that is not the format is an InputError that
names the file and the line.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc
from numpy.typing import NDArray

from widespectrum.errors import InputError

__all__ = ["LAST_TAG", "STYLES", "AvaVotes", "read_names", "read_styles", "read_votes", "vote_statistics"]

STYLES = 14
"""How many photographic styles AVA labels."""

_VOTES = tuple(f"n{score}" for score in range(1, 11))
_COLUMNS = ("index", "image_id", *_VOTES, "tag1", "tag2", "challenge_id")
LAST_TAG = 66
"""The semantic tags of AVA are numbered from 1 to here."""
_MOST_VOTES = 10**6
"""A larger count is a slip; below it, sums of squares are exact in 64 bits."""

_INTEGER = re.compile(r"-?[0-9]{1,18}")
_NAMED = re.compile(r"([0-9]{1,9}) (\S.*)")

Integers = NDArray[np.int64]
Reals = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AvaVotes:
    """The lines of AVA.txt as columns: `ids` (N,), `votes` (N, 10) for the scores 1 to 10, `tags` (N, 2) and
    `challenges` (N,), where 0 stands for none; all int64, in the order of the file.
    """

    ids: Integers
    votes: Integers
    tags: Integers
    challenges: Integers


def vote_statistics(votes: Integers) -> tuple[Reals, Reals, Integers]:
    """Mean, population standard deviation and number of the votes (N, 10): how often each score 1 to 10 was given.

    SD = sqrt(Σ n_k (k - mean)² / Σ n_k), taken from integer sums: 0 exactly where all votes agree.
    """
    scores = np.arange(1, 11)
    count, total, squares = votes.sum(axis=1), votes @ scores, votes @ scores**2
    return total / count, np.sqrt(count * squares - total**2) / count, count


def _content(path: Path, expected: str) -> bytes:
    if path.is_dir():
        raise InputError(f"{path}: expected the file with {expected}, got a folder; name the file inside it")
    if not path.is_file():
        raise InputError(f"{path.absolute()}: there is no such file; expected {expected}")
    return path.read_bytes()


def _without_line_ends(content: bytes) -> bytes:
    """`content` with LF between its lines and nothing after the last one."""
    text = content.replace(b"\r\n", b"\n").removesuffix(b"\n")
    return text.removesuffix(b"\n")


def _lines(path: Path, expected: str) -> Iterator[tuple[str, str]]:
    """`<file>, line <n>` and the text of every line."""
    text = _without_line_ends(_content(path, expected))
    if not text:
        raise InputError(f"{path} is empty; expected {expected}")
    for number, line in enumerate(text.split(b"\n"), start=1):
        where = f"{path}, line {number}"
        try:
            yield where, line.decode()
        except UnicodeDecodeError:
            raise InputError(f"{where}: expected UTF-8 text, got other bytes; save the file as UTF-8") from None


def _line_problem(line: str) -> str:
    """What is wrong with one line of AVA.txt; empty where nothing is."""
    if not line.strip():
        return "is blank; only the last line of the file may be"
    cells = line.split(" ")
    if len(cells) != len(_COLUMNS):
        return f"expected {len(_COLUMNS)} integers with single spaces between them, got {len(cells)}: {line[:80]!r}"
    for name, cell in zip(_COLUMNS, cells, strict=True):
        if not _INTEGER.fullmatch(cell):
            return f"{name} must be an integer, got {cell[:40]!r}"
        if cell.startswith("-"):
            return f"{name} must be at least 0, got {cell}"
    return ""


def _bad_line(path: Path) -> InputError:
    """The error for the first line that the fast parser could not take."""
    for where, line in _lines(path, "the lines of AVA.txt"):
        if problem := _line_problem(line):
            return InputError(f"{where}: {problem}")
    return InputError(f"{path}: expected {len(_COLUMNS)} integers a line")


def _parse(text: bytes) -> Integers | None:
    """The integers of all lines (N, 15); None where a line is not 15 integers of digits alone."""
    # Arrow would also take tabs, hexadecimal numbers, lone carriage returns and a blank line at the end.
    if text.endswith(b"\n") or text.translate(None, b"0123456789 \n"):
        return None
    try:
        table = pc.read_csv(
            pa.BufferReader(text),
            read_options=pc.ReadOptions(column_names=list(_COLUMNS)),
            parse_options=pc.ParseOptions(delimiter=" ", quote_char=False, ignore_empty_lines=False),
            convert_options=pc.ConvertOptions(column_types=dict.fromkeys(_COLUMNS, pa.int64()), null_values=[]),
        )
    except pa.ArrowInvalid:
        return None
    return np.column_stack([column.to_numpy() for column in table.columns])


def _refuse(path: Path, wrong: Any, problem: Callable[[int], str]) -> None:
    """InputError for the first row that is `wrong` (N,)."""
    if wrong.any():
        row = int(wrong.argmax())
        raise InputError(f"{path}, line {row + 1}: {problem(row)}")


def _check(path: Path, votes: AvaVotes) -> None:
    ids, counts = votes.ids, votes.votes
    _refuse(path, ids < 1, lambda row: "image_id must be at least 1, got 0")
    _refuse(
        path,
        (counts > _MOST_VOTES).any(axis=1),
        lambda row: f"a score has {counts[row].max()} votes; more than {_MOST_VOTES:,} is a slip, correct it",
    )
    _refuse(
        path,
        counts.sum(axis=1) == 0,
        lambda row: f"image {ids[row]} has no votes: n1 to n10 are all 0; correct or remove the line",
    )
    _refuse(
        path,
        (votes.tags > LAST_TAG).any(axis=1),
        lambda row: f"a tag must be from 0 (none) to {LAST_TAG}, got {votes.tags[row].max()}",
    )
    _, first, group = np.unique(ids, return_index=True, return_inverse=True)
    earlier = first[group]
    _refuse(
        path,
        earlier != np.arange(len(ids)),
        lambda row: f"image {ids[row]} already stands in line {earlier[row] + 1}; remove one of them",
    )


def read_votes(path: Path) -> AvaVotes:
    """The lines of AVA.txt: `index image_id n1 … n10 tag1 tag2 challenge_id`, 15 integers with single spaces.

    Every count is at least 0 and their sum positive, ids are unique; InputError with file and line otherwise.
    """
    text = _without_line_ends(_content(path, "the lines of AVA.txt"))
    if not text:
        raise InputError(f"{path} is empty; expected the lines of AVA.txt")
    table = _parse(text)
    if table is None:
        raise _bad_line(path)
    votes = AvaVotes(ids=table[:, 1], votes=table[:, 2:12], tags=table[:, 12:14], challenges=table[:, 14])
    _check(path, votes)
    return votes


def read_names(path: Path, *, last: int | None = None) -> dict[int, str]:
    """Number → name, as challenges.txt, tags.txt and styles.txt hold them: a number (up to `last`), one space, a name.

    Names are given as they stand there, underscores included.
    """
    names: dict[int, str] = {}
    for where, line in _lines(path, "lines of a number and a name"):
        match = _NAMED.fullmatch(line)
        if match is None or line != line.rstrip() or not _line_problem(line):
            raise InputError(f"{where}: expected a number, one space and a name, got {line[:80]!r}")
        number = int(match[1])
        if last is not None and number > last:
            raise InputError(f"{where}: expected a number up to {last}, got {number}; is this another list of AVA?")
        if number in names:
            raise InputError(f"{where}: the number {number} already stands for {names[number]!r}; remove one line")
        names[number] = match[2]
    return names


def _ids(path: Path, seen: dict[int, str]) -> list[int]:
    """The image ids of a list, one a line; `seen` says where an id of another list stood."""
    ids = []
    for where, line in _lines(path, "one image id a line"):
        if not re.fullmatch(r"[0-9]{1,18}", line):
            raise InputError(f"{where}: expected one image id, got {line[:80]!r}")
        if (number := int(line)) in seen:
            raise InputError(f"{where}: image {number} already stands in {seen[number]}; remove one of them")
        seen[number] = where
        ids.append(number)
    return ids


def _one_style(line: str) -> list[int] | None:
    number = int(line) if re.fullmatch(r"[0-9]{1,2}", line) else 0
    return [number] if 1 <= number <= STYLES else None


def _style_flags(line: str) -> list[int] | None:
    flags = line.split(" ")
    if len(flags) != STYLES or not set(flags) <= {"0", "1"}:
        return None
    return [number for number, flag in enumerate(flags, start=1) if flag == "1"]


def _labels(path: Path, expected: str, parse: Callable[[str], list[int] | None], ids: list[int]) -> list[list[int]]:
    """The style numbers of each image in `ids`."""
    labels = []
    for where, line in _lines(path, f"{expected} a line"):
        if (numbers := parse(line)) is None:
            raise InputError(f"{where}: expected {expected}, got {line[:80]!r}")
        labels.append(numbers)
    if len(labels) != len(ids):
        raise InputError(
            f"{path} has {len(labels)} lines for the {len(ids)} images of its list; take both from one release"
        )
    return labels


def read_styles(folder: Path) -> dict[int, tuple[str, ...]]:
    """Image id → the names of its photographic styles, from the folder `style_image_lists`.

    train.jpgl with train.lab (one style an image) and test.jpgl with test.multilab (14 flags an image); names from
    styles.txt. An image without any style has an empty tuple; an image that is not there was not labeled.
    """
    names = read_names(folder / "styles.txt")
    if sorted(names) != list(range(1, STYLES + 1)):
        raise InputError(f"{folder / 'styles.txt'}: expected the numbers 1 to {STYLES}, got {sorted(names)}")
    seen: dict[int, str] = {}
    train, test = _ids(folder / "train.jpgl", seen), _ids(folder / "test.jpgl", seen)
    labels = _labels(folder / "train.lab", f"a style from 1 to {STYLES}", _one_style, train)
    labels += _labels(folder / "test.multilab", f"{STYLES} flags of 0 or 1", _style_flags, test)
    return {
        number: tuple(names[style] for style in styles) for number, styles in zip(train + test, labels, strict=True)
    }
