"""Judges: a question about one or two images → an answer."""

from __future__ import annotations

from widespectrum import registry
from widespectrum.protocols import Judge
from widespectrum.registry import Entry
from widespectrum.types import Parameter

__all__ = ["JUDGES", "load_judge"]

JUDGES: dict[str, Entry] = {
    "pixel": Entry(
        target="widespectrum.judges.pixel:PixelJudge",
        summary="measures the six dimensions that pixels can show, blind to the prompt; abstains on the others",
        extra="demo",
        packages=("skimage",),
    ),
    "rule": Entry(
        target="widespectrum.judges.rule:RuleJudge",
        summary="the image to which a reward model gives the higher score wins",
    ),
}


def load_judge(name: str, **options: Parameter) -> Judge:
    """The judge called `name`, made with `options`."""
    judge: Judge = registry.load("judge", JUDGES, name, options)
    return judge
