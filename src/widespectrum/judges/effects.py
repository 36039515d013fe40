"""The effect judge: a vision-language model behind an endpoint says how far main concept and effects show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from widespectrum.chat import Reply
from widespectrum.protocols import Abstention, Answer, Question, Tokens
from widespectrum.types import Prompt

from .endpoint import Form, VisionChatJudge

__all__ = ["EffectJudge"]

EFFECTS, MAIN_CONCEPT = "effects", "main concept"


class EffectJudge(VisionChatJudge):
    """Rates one image: the main concept, and the share of the effects of the prompt that it shows.

    One request answers both dimensions. "main concept" is the model's number from 0 to 100, divided by 100, for the
    plain caption of the pair (the prompt itself where there is none); nothing is deducted for an effect that hides it.
    "effects" is the mean of its numbers for the effects, divided by 100. The effects looked for are the words of the
    prompt that ask for each of its dimensions (`effects`) or, where the prompt does not say which they are, a plain
    description of the dimension. `details` holds the list and every number, in both answers.
    """

    adapter = "vlm-effects"
    dimensions = (EFFECTS, MAIN_CONCEPT)
    texts: ClassVar[Mapping[str, str]] = {"instruction": "effects", "descriptions": "effect_descriptions"}
    output_tokens = 120

    def estimate(self, prompt: Prompt, dimension: str, sizes: Sequence[tuple[int, int]]) -> Tokens | None:
        """What the request about one image takes; None for the main concept, which the request of "effects" answers."""
        if dimension != EFFECTS:
            return None
        looked_for = self._looked_for(prompt)
        return self._tokens(_text(prompt, prompt.text, looked_for), _schema(len(looked_for)), sizes)

    def _looked_for(self, prompt: Prompt) -> Sequence[str]:
        described = dict(line.split(": ", 1) for line in self._texts["descriptions"].text.splitlines())
        return prompt.effects or [described[name] for name in prompt.dimensions]

    def _form(self, question: Question) -> Form | Abstention:
        if question.rival is not None or question.dimension not in self.dimensions:
            return Abstention("the effect judge only rates the effects and the main concept of one image")
        looked_for = self._looked_for(question.prompt)
        if question.dimension == EFFECTS and not looked_for:
            return Abstention("the prompt asks for no effect")
        text = _text(question.prompt, _main_concept(question), looked_for)
        return Form(text, _schema(len(looked_for)), [question.image])

    def _answer(self, question: Question, reply: Reply) -> Answer:
        prompt, value = question.prompt, reply.value
        pairs = zip(prompt.dimensions, self._looked_for(prompt), strict=True)
        effects = [
            {"dimension": dimension, "looked_for": words, "visible": value[f"effect_{number}"]}
            for number, (dimension, words) in enumerate(pairs, start=1)
        ]
        main = value["main_concept"]
        shares = [each["visible"] for each in effects] if question.dimension == EFFECTS else [main]
        details = {"effects": effects, "main_concept": {"looked_for": _main_concept(question), "visible": main}}
        return Answer(sum(shares) / len(shares) / 100, value["description"], reply.raw, details)


def _main_concept(question: Question) -> str:
    return question.prompt.text if question.original is None else question.original.text


def _text(prompt: Prompt, main_concept: str, looked_for: Sequence[str]) -> str:
    listed = "\n".join(f"{number}. {words}" for number, words in enumerate(looked_for, start=1))
    return (
        f"The request:\n\n{prompt.text}\n\nThe main concept:\n\n{main_concept}\n\n"
        f"The effects to look for:\n\n{listed or 'none'}\n\nThe image follows."
    )


def _schema(effects: int) -> dict[str, Any]:
    # A property per effect and no list: the schema then sees to it that none is missing, doubled or misplaced. The
    # description stands first, in the alphabet too, so that the model looks before it rates.
    number = {"type": "integer", "minimum": 0, "maximum": 100}
    numbers = [*(f"effect_{each}" for each in range(1, effects + 1)), "main_concept"]
    properties = {"description": {"type": "string"}, **dict.fromkeys(numbers, number)}
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
