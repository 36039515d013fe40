"""The weight-free judge: measures both images, blind to the prompt, in the dimensions that the prompt asks for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
from PIL.Image import Image, Resampling

from widespectrum.prompts.images import to_rgb
from widespectrum.protocols import Abstention, Answer, Question
from widespectrum.types import ModelSpec

from .measures import MEASURES, Pixels

__all__ = ["PixelJudge", "rate"]

MARGIN = 0.02
"""The mean change of J, out of 2, up to which two images count as equal."""

WORKING_SIZE = 512
"""Larger images are measured at this long side, so that noise and blocks weigh alike at every resolution."""

Rate = Callable[[str, int], float]


def _pixels(image: Image) -> Pixels:
    rgb = to_rgb(image)
    if max(rgb.size) > WORKING_SIZE:
        rgb = rgb.copy()
        rgb.thumbnail((WORKING_SIZE, WORKING_SIZE), Resampling.LANCZOS)
    return np.asarray(rgb, dtype=np.float64) / 255


def rate(image: Image, dimension: str) -> float:
    """J(image, dimension) in [0, 2], 2 = conventionally good; see `widespectrum.judges.measures`."""
    return MEASURES[dimension](_pixels(image))


class PixelJudge:
    """Rates an image on a dimension as J / 2, and says which of two images shows more of what the prompt asks for.

    The verdict is 1 where the mean of J over the requested dimensions is lower for the image than for its rival by
    more than MARGIN, 0 where it is higher by more, else a tie. The measures are plain formulas and can be wrong about
    an image: a blur that removes much noise raises its clarity.
    """

    spec = ModelSpec(adapter="pixel", name="pixel", revision="v1")
    dimensions = ("overall", *MEASURES)

    def judge(self, questions: Sequence[Question]) -> list[Answer | Abstention]:
        """One answer per question; an abstention where a dimension cannot be measured."""
        images = [image for question in questions for image in (question.image, question.rival) if image is not None]
        by_id = {id(image): image for image in images}
        rated = cache(lambda dimension, image_id: rate(by_id[image_id], dimension))
        return [_answer(question, rated) for question in questions]


def _answer(question: Question, rated: Rate) -> Answer | Abstention:
    if question.rival is not None and question.dimension == "overall":
        return _verdict(question, id(question.image), id(question.rival), rated)
    if question.rival is not None or question.dimension not in MEASURES:
        return Abstention(f"pixels cannot answer {question.dimension!r} about {_number(question)}")
    rating = rated(question.dimension, id(question.image))
    return Answer(rating / 2, f"J = {rating:.3f}")


def _number(question: Question) -> str:
    return "one image" if question.rival is None else "two images"


def _verdict(question: Question, image: int, rival: int, rated: Rate) -> Answer | Abstention:
    requested = question.prompt.dimensions
    if not requested:
        return Abstention("the prompt asks for no dimension")
    if unseen := [name for name in requested if name not in MEASURES]:
        return Abstention(f"pixels cannot tell {' or '.join(unseen)}")
    pairs = [(rated(name, image), rated(name, rival)) for name in requested]
    drop = float(np.mean([other - own for own, other in pairs]))
    outcome = 0.5 if abs(drop) <= MARGIN else float(drop > 0)
    numbers = [f"{name} {own:.3f} against {other:.3f}" for name, (own, other) in zip(requested, pairs, strict=True)]
    return Answer(outcome, f"J: {', '.join(numbers)}")
