"""A reward model's scores turned into verdicts, so that reward models, models and people are compared alike."""

from __future__ import annotations

from collections.abc import Sequence

from widespectrum.errors import ModelError
from widespectrum.protocols import Abstention, Answer, Question
from widespectrum.types import ModelSpec

__all__ = ["RuleJudge"]


class RuleJudge:
    """The image with the higher score under the prompt wins; equal scores are a tie."""

    dimensions = ("overall",)

    def __init__(self, *, reward_model: str = "oracle") -> None:
        self._reward_model = reward_model
        self.spec = ModelSpec(adapter="rule", name="rule", revision="v1", params={"reward_model": reward_model})

    def judge(self, questions: Sequence[Question]) -> list[Answer | Abstention]:
        """One verdict per question; an abstention where an image has no rival.

        ModelError where the reward model did not score both images: that is unfinished work, not a judgment.
        """
        return [self._answer(question) for question in questions]

    def _answer(self, question: Question) -> Answer | Abstention:
        if question.rival is None or question.dimension != "overall":
            return Abstention("the rule judge only compares two images under a prompt")
        if self._reward_model not in question.rewards:
            raise ModelError(
                f"no scores of {self._reward_model} for pair {question.prompt.pair_id}: "
                "score it first, then judge again"
            )
        image, rival = question.rewards[self._reward_model]
        outcome = 0.5 if image == rival else float(image > rival)
        return Answer(outcome, f"{self._reward_model}: {image:.6g} against {rival:.6g}")
