"""The verdict judge: a vision-language model behind an endpoint says which of two images fits a prompt better."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from widespectrum.chat import Reply
from widespectrum.protocols import Abstention, Answer, Question, Tokens
from widespectrum.types import Prompt

from .endpoint import Form, VisionChatJudge

__all__ = ["SCHEMA", "VLMJudge"]

# The reason stands first, in the alphabet too, in which servers may sort: a model that writes word after word then
# compares before it decides, instead of defending what it began with.
SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "reason": {"type": "string"},
        "verdict": {"type": "string", "enum": ["first", "second", "tie"]},
    },
    "required": ["reason", "verdict"],
    "additionalProperties": False,
}


CAPTIONS = ("The first image:", "The second image:")
"""What stands before each image, so that no model has to count them."""


class VLMJudge(VisionChatJudge):
    """Sees the prompt and two images, and says which does more of what the prompt asks for, effects included.

    A question shows the image first in the order "first" (and "both"), its rival first in the order "second"; nothing
    in the request tells which is which. The outcome is 1 where the image is chosen, 0 where its rival is, 0.5 for a
    tie; `rationale` is the reason that the model gave. The pipeline asks in both orders, and disagreement is a tie.
    """

    adapter = "vlm"
    dimensions = ("overall",)
    texts: ClassVar[Mapping[str, str]] = {"instruction": "verdict"}
    output_tokens = 80

    def estimate(self, prompt: Prompt, dimension: str, sizes: Sequence[tuple[int, int]]) -> Tokens | None:
        """What one order takes, about images of these (width, height)."""
        return self._tokens(_text(prompt), SCHEMA, sizes)

    def _form(self, question: Question) -> Form | Abstention:
        if question.rival is None or question.dimension != "overall":
            return Abstention("the verdict judge only compares two images under a prompt")
        images = [question.image, question.rival]
        shown = images[::-1] if question.order == "second" else images
        return Form(_text(question.prompt), SCHEMA, shown, CAPTIONS)

    def _answer(self, question: Question, reply: Reply) -> Answer:
        chosen = reply.value["verdict"]
        shown = "second" if question.order == "second" else "first"
        outcome = 0.5 if chosen == "tie" else float(chosen == shown)
        return Answer(outcome, reply.value["reason"], reply.raw)


def _text(prompt: Prompt) -> str:
    return f"The request:\n\n{prompt.text}\n\nThe two images follow."
