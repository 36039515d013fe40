"""Several judges of a run taken together: what more than half of them say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from widespectrum.errors import InputError
from widespectrum.protocols import Abstention, Answer, Failure, Question
from widespectrum.registry import imported
from widespectrum.types import ModelSpec

__all__ = ["MajorityJudge"]

_WORDS = {1.0: "the image", 0.0: "its rival", 0.5: "a tie"}


class MajorityJudge:
    """The answer that more than half of `judges` give (labels, with semicolons between them); a tie where none has
    so many.

    Every row is a vote over the same rows of the judges: that of an order over their answers in this order, the
    aggregate over their aggregates, which is where a judge whose answer changes with the order counts as a tie. A judge
    that abstained has no vote, and more than half of all are needed all the same; where too few are left for that, the
    majority abstains. InputError for fewer than two judges.

    The specs of the judges belong to its own: `bind` tells them.
    """

    dimensions = ("overall",)
    votes = True

    def __init__(self, *, judges: str) -> None:
        self.judges = _labels(judges)
        self.spec = self._spec({})

    def _spec(self, keys: Mapping[str, str]) -> ModelSpec:
        params = {"judges": ";".join(f"{label} {keys[label][:16]}" if keys else label for label in self.judges)}
        return ModelSpec(adapter="majority", name="majority", revision="v1", params=params)

    def bind(self, specs: Mapping[str, ModelSpec]) -> None:
        """Take the specs of the judges into its own.

        InputError where one of them is not in `specs`, or gives no verdicts on pairs.
        """
        unknown = [label for label in self.judges if label not in specs]
        if unknown:
            raise InputError(
                f"judges: the majority needs the verdicts of {unknown[0]!r}, which is no judge of this run; it has: "
                f"{', '.join(specs) or 'no other judge'}"
            )
        for label in self.judges:
            if not _compares(specs[label]):
                raise InputError(
                    f"judges: {label!r} rates images one by one, and a majority needs verdicts on pairs: leave it out"
                )
        self.spec = self._spec({label: spec.key for label, spec in specs.items()})

    def judge(self, questions: Sequence[Question]) -> list[Answer | Abstention | Failure]:
        """One answer per question; a failure where one of the judges has not answered yet."""
        return [self._answer(question) for question in questions]

    def _answer(self, question: Question) -> Answer | Abstention | Failure:
        if question.rival is None or question.dimension != "overall":
            return Abstention("a majority only compares two images under a prompt")
        if waiting := [label for label in self.judges if label not in question.verdicts]:
            them = "them" if len(waiting) > 1 else "it"
            return Failure(f"{', '.join(waiting)} gave no verdict yet: judge with {them} first, then again", "model")
        votes = {label: question.verdicts[label] for label in self.judges}
        counts = Counter(vote for vote in votes.values() if vote is not None)
        needed = len(votes) // 2 + 1
        if counts.total() < needed:
            return Abstention(f"only {counts.total()} of {len(votes)} judges answered")
        outcome = next((vote for vote, count in counts.items() if count >= needed), 0.5)
        said = "; ".join(f"{label} {'abstained' if vote is None else _WORDS[vote]}" for label, vote in votes.items())
        return Answer(outcome, said, details={"votes": votes})


def _compares(spec: ModelSpec) -> bool:
    """Whether a judge compares two images; of people and those of other programs it is not known beforehand."""
    from . import JUDGES

    entry = JUDGES.get(spec.adapter)
    return entry is None or "overall" in imported(entry).dimensions


def _labels(text: str) -> tuple[str, ...]:
    """The labels in `a,b[x=1,y=2];c`: what stands in brackets belongs to a label."""
    labels, depth, current = [], 0, ""
    for character in text:
        depth += (character == "[") - (character == "]")
        if character in ",;" and depth == 0:
            labels.append(current.strip())
            current = ""
        else:
            current += character
    labels = [label for label in (*labels, current.strip()) if label]
    if len(labels) < 2 or len(set(labels)) < len(labels):
        raise InputError(
            f"judges is {text!r}, expected the labels of two or more different judges of the run, such as "
            "judges = 'vlm-a; vlm-b; vlm-c'"
        )
    return tuple(labels)
