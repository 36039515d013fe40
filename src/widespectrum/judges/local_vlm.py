"""The verdict judge on this machine: Qwen3-VL says which of two images fits a prompt better, and how sure it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL.Image import Image

from widespectrum.protocols import Abstention, Answer, Question
from widespectrum.rewards.checkpoints import HubFiles

from .instructions import instruction
from .local import HUB_PATTERNS, LocalJudge, checkpoint_of

__all__ = ["LocalVLMJudge"]

_REPO = "Qwen/Qwen3-VL-8B-Instruct"
_TIE = 2


class LocalVLMJudge(LocalJudge):
    """Sees the prompt and two images; the answer is the likeliest of the tokens 1 (first), 2 (second) and 3 (tie).

    It is asked what the judge behind an endpoint is asked, but for the form of the answer, which is one token: nothing
    is generated, and no reason is given. A question shows the image first in the order "first" (and "both"), its rival
    first in the order "second". The outcome is 1 where the image is chosen, 0 where its rival is, 0.5 for a tie, also
    where two tokens are exactly as likely. `confidence` is the probability of the answer among the three; `details`
    has all three, of the image, the rival and a tie, and their `mass` in the whole vocabulary: where it is small, the
    model would rather say something else.

    `checkpoint` is a folder with a Qwen3-VL in the layout of its authors; without one Qwen3-VL-8B-Instruct of the Hub.
    An image keeps its aspect ratio and has `max_pixels` at most.
    """

    dimensions = ("overall",)
    answers = ("1", "2", "3")

    def __init__(
        self,
        *,
        checkpoint: Path | str | None = None,
        device: str = "auto",
        dtype: str = "bfloat16",
        batch_size: int | None = None,
        max_pixels: int = 1024 * 1024,
    ) -> None:
        super().__init__(
            "qwen3-vl",
            checkpoint_of("qwen3-vl", checkpoint, HubFiles(_REPO, HUB_PATTERNS), "checkpoint"),
            device=device,
            dtype=dtype,
            batch_size=batch_size,
            max_pixels=max_pixels,
        )
        self._verdict, self._form = instruction("verdict"), instruction("verdict_token")

    @property
    def texts(self) -> tuple[str, Mapping[str, str]]:
        """Those of the verdict judge, and the one for an answer of one token."""
        return self._verdict.version, {"instruction": self._verdict.digest, "form": self._form.digest}

    def _conversation(self, question: Question) -> tuple[str, Sequence[str | Image]] | Abstention:
        if question.rival is None or question.dimension != "overall":
            return Abstention("the verdict judge only compares two images under a prompt")
        # The last paragraph of the text asks for JSON.
        system = self._verdict.text.rpartition("\n\n")[0]
        shown = [question.image, question.rival]
        first, second = shown[::-1] if question.order == "second" else shown
        request = f"The request:\n\n{question.prompt.text}\n\n"
        return system, [request, "The first image:\n", first, "\nThe second image:\n", second, f"\n{self._form.text}"]

    def _answer(self, question: Question, probabilities: Sequence[float], mass: float) -> Answer:
        first, second, tie = probabilities
        image_first = question.order != "second"
        image, rival = (first, second) if image_first else (second, first)
        best = max(probabilities)
        likeliest = [place for place, each in enumerate(probabilities) if each == best]
        chosen = likeliest[0] if len(likeliest) == 1 else _TIE
        return Answer(
            outcome=0.5 if chosen == _TIE else float((chosen == 0) == image_first),
            raw=self.answers[chosen],
            details={"probabilities": {"image": image, "rival": rival, "tie": tie}, "mass": mass},
            confidence=probabilities[chosen],
        )
