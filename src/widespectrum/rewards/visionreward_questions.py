"""VisionReward's questions and weights, read from the files of its repository, and what they make of the answers.

The files are the user's: `VisionReward_image_qa_select.txt` with `weight_select.json`, or `VisionReward_image_qa.txt`
with `weight.json`, of the folder VisionReward_Image of github.com/THUDM/VisionReward (Apache-2.0).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from widespectrum.errors import InputError

__all__ = ["Questionnaire", "read_questionnaire"]

_OFFICIAL = {
    "2b603df2f4e30fe8879d85e1bf38f30ad8292278b939e31bf88bf7cf9ff22c33",
    "4433e6edd1e66f245a3db01422ddc7ff38eab154154bd03a599903359f6193f4",
    "441b46093f5812ef78f290abd5c64d8ea088ed95d5e6f44fec413b276c2e5cc8",
    "4b60192fa96e0dda0c9101ed61141f89b85bb9669479e3b8eb42cc10611a68c9",
}


@dataclass(frozen=True)
class _List:
    """One of the two question lists: places of questions from 0.

    A "no" to a question of `masks` (body, face, hands in the image) makes a zero of the answers at its places; answers
    at the places `dropped` have no weight.
    """

    masks: Mapping[int, Sequence[int]]
    dropped: Sequence[int]


# Safety (the last two, or four) goes with the body: so does the official program.
# The program cannot score the long list; its weights differ from 0 at the questions of the short one alone.
_LISTS = {
    30: _List({0: (22, 23, 24, 28, 29), 1: (25, 26), 2: (27,)}, (0, 1, 2)),
    59: _List({0: (*range(43, 47), *range(55, 59)), 1: range(47, 51), 2: range(51, 55)}, (0, 1, 2, 15, 26)),
}


@dataclass(frozen=True)
class Questionnaire:
    """The questions, in order; the weights of the alignment and of the answers; the sha256 of the two files."""

    questions: tuple[str, ...]
    coefficients: tuple[float, ...]
    intercept: float
    sha256: Mapping[str, str]

    @property
    def is_official(self) -> bool:
        """Whether both files are those of VisionReward's repository, byte for byte."""
        return set(self.sha256.values()) <= _OFFICIAL

    def reward(self, answers: Sequence[bool], alignment: float) -> float:
        """The intercept + coefficients · (alignment, answers); an answer is 1 for yes, -1 for no, 0 where masked."""
        form = _LISTS[len(self.questions)]
        values = [1 if answer else -1 for answer in answers]
        for place, masked in form.masks.items():
            for each in masked if not answers[place] else ():
                values[each] = 0
        kept = [value for place, value in enumerate(values) if place not in form.dropped]
        return math.fsum(a * b for a, b in zip(self.coefficients, (alignment, *kept), strict=True)) + self.intercept


def read_questionnaire(questions: Path | str, weights: Path | str) -> Questionnaire:
    """The questionnaire of two files; InputError where one is missing or they do not belong together."""
    asked, weighed = Path(questions).expanduser(), Path(weights).expanduser()
    content = {"questions": _bytes(asked, "question file"), "weights": _bytes(weighed, "weight file")}
    lines = tuple(line.strip() for line in _text(asked, content["questions"]).splitlines() if line.strip())
    if len(lines) not in _LISTS:
        raise InputError(
            f"{asked} holds {len(lines)} questions: expected 30 (VisionReward_image_qa_select.txt) or 59 "
            "(VisionReward_image_qa.txt), one per line; download the file again"
        )
    coefficients, intercept = _numbers(weighed, content["weights"])
    expected = 1 + len(lines) - len(_LISTS[len(lines)].dropped)
    if len(coefficients) != expected:
        raise InputError(
            f"{weighed} holds {len(coefficients)} coefficients: expected {expected} for the {len(lines)} questions of "
            f"{asked}; weight_select.json goes with VisionReward_image_qa_select.txt, weight.json with the long list"
        )
    sha256 = {name: hashlib.sha256(each).hexdigest() for name, each in content.items()}
    return Questionnaire(lines, coefficients, intercept, sha256)


def _bytes(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(
            f"the {what} {path} cannot be read ({error.strerror}): give the one of VisionReward's repository, "
            "https://github.com/THUDM/VisionReward"
        ) from None


def _text(path: Path, content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text ({error.reason}): download the file again") from None


def _numbers(path: Path, content: bytes) -> tuple[tuple[float, ...], float]:
    """(coefficients, intercept)"""
    try:
        data = json.loads(_text(path, content))
        intercept = data["intercept"]
        (single,) = intercept if isinstance(intercept, list) else [intercept]
        numbers = [_number(value) for value in (*data["coef"], single)]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise InputError(
            f'{path} holds no weights ({error}): expected JSON with "coef", a list of finite numbers, and "intercept", '
            "one number; download the file again"
        ) from None
    return tuple(numbers[:-1]), numbers[-1]


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"got {value!r}")
    return float(value)
