"""Judges on BLIP-ITM, and the first of them: is what the prompt names still in the image?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

from PIL.Image import Image

from widespectrum.protocols import Abstention, Answer, Failure, Question
from widespectrum.rewards.blip import BlipReward
from widespectrum.rewards.blip_towers import WINDOW
from widespectrum.types import ModelSpec

__all__ = ["BlipJudge", "ContentJudge", "Reply"]

Reply: TypeAlias = Answer | Abstention | Failure


class BlipJudge:
    """What the judges share that ask BLIP-L for the probability that an image and a text match.

    The options are those of the reward model `blip-l`: `checkpoint` and `tokenizer` are files or folders (default: the
    Hub), `device`, `dtype` and `batch_size` say how it computes. Batches and order change nothing beyond rounding.
    """

    dimensions: tuple[str, ...] = ()

    def __init__(
        self,
        *,
        checkpoint: Path | str | None = None,
        tokenizer: Path | str | None = None,
        device: str = "auto",
        dtype: str = "float32",
        batch_size: int | None = None,
    ) -> None:
        self.model = BlipReward(
            checkpoint=checkpoint, tokenizer=tokenizer, device=device, dtype=dtype, batch_size=batch_size, head="itm"
        )

    def open(self) -> None:
        """Load vocabulary and weights now. InputError where a file is not what it should be."""
        self.model.open()

    def declined(self, question: Question) -> Abstention | Failure | None:
        """Why a question is not put to the model, if it is not."""
        if question.rival is not None or question.dimension not in self.dimensions:
            what = "one image" if question.rival is None else "two images"
            return Abstention(f"BLIP is not asked for {question.dimension!r} of {what}")
        try:
            question.image.load()
        # Pillow decodes when the pixels are first read, and raises these for damaged files and closed images.
        except (OSError, SyntaxError, ValueError) as error:
            return Failure(f"the image of pair {question.prompt.pair_id} cannot be decoded: {error}", "input")
        return None

    def matches(self, images: Sequence[Image], texts: Sequence[str]) -> list[float]:
        """The probability that `images[i]` and `texts[i]` match; an image that stands in several rows is encoded once.

        ModelError for lack of memory, InputError for weights that are not what they should be.
        """
        return [float(value) for value in self.model.score(images, texts)] if images else []


class ContentJudge(BlipJudge):
    """Rates `content`: BLIP-ITM's probability that an image and its prompt match, 0 to 1.

    It is the score of the reward model `blip-l`. BLIP reads 35 tokens: `details` say how many the prompt has, start and
    end included, and whether it was cut (`truncated`). Source: Guo, Qian, Hasan and Du, ICML 2026 (arXiv 2512.11883).
    """

    dimensions = ("content",)

    @cached_property
    def spec(self) -> ModelSpec:
        """That of the reward model, under the name of the judge."""
        return replace(self.model.spec, adapter="blip-itm")

    def keep_to(self, spec: ModelSpec) -> None:
        """Stay at the commit of a run that was begun before; call it first."""
        self.model.keep_to(spec)

    def judge(self, questions: Sequence[Question]) -> list[Reply]:
        """One answer, abstention or failure per question."""
        replies: dict[int, Reply | None] = {row: self.declined(question) for row, question in enumerate(questions)}
        rows = [row for row, reply in replies.items() if reply is None]
        texts = [questions[row].prompt.text for row in rows]
        values = self.matches([questions[row].image for row in rows], texts)
        lengths = self.model.count_tokens(texts) if texts else []
        for row, value, tokens in zip(rows, values, lengths, strict=True):
            replies[row] = Answer(value, details={"truncated": tokens > WINDOW, "tokens": tokens})
        return [reply for reply in replies.values() if reply is not None]
