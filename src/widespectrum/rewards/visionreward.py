"""VisionReward-Image's sum of weighted yes/no questions, answered by any vision-language model behind an endpoint."""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image

from widespectrum.chat import BadReplyError, Chat, Endpoint, Question
from widespectrum.chat.pictures import source
from widespectrum.errors import InputError, ModelError
from widespectrum.types import ModelSpec

from .inputs import check_inputs
from .visionreward_questions import read_questionnaire

__all__ = ["VisionReward"]

Alignment = Literal["yes-no", "none"]

_SCHEMA = {
    "type": "object",
    "properties": {"answer": {"type": "string", "enum": ["yes", "no"]}},
    "required": ["answer"],
    "additionalProperties": False,
}
# The resolution at which VisionReward's own model looks.
_MAX_SIDE = 1344

Asked = tuple[str, str]
"""(sha256 of an image's upright RGB pixels, question)"""


class VisionReward:
    """intercept + coefficients · (alignment, answers): see `Questionnaire.reward` of `.visionreward_questions`.

    The model at `endpoint` (`openai:<model>@<base URL>`, key in OPENAI_API_KEY) is asked every question of the file
    `questions` about an image once, whatever the number of prompts: 30 or 59 requests. `weights` is the file that
    belongs to it. From -2.54 to 4.89 with the official files.

    **An approximation.** Published VisionReward numbers come from its own 19B model and from VQAScore (a probability by
    clip-flant5-xxl) as the alignment of image and prompt, neither of which is used here. `alignment` "yes-no" asks the
    model, with one more request per image and prompt, whether the image shows what the prompt says: 1 for yes, 0 for
    no. "none" leaves the term out (0): then the prompt changes nothing. The spec names it, the model, its temperature
    (the official model takes the likeliest answer, as 0 does) and the sha256 of the files.

    Requests and replies go to the file `journal`; what is answered there is not asked again. A question without a yes
    or a no is a ModelError, never a "no". `concurrency` requests are on their way at a time. Images are sent upright,
    in RGB, no side above 1344 pixels; transparent parts lie over white.
    """

    def __init__(
        self,
        *,
        endpoint: str,
        questions: Path | str,
        weights: Path | str,
        alignment: Alignment = "yes-no",
        journal: Path | str = "visionreward.jsonl",
        temperature: float = 0.0,
        concurrency: int = 4,
    ) -> None:
        if alignment not in get_args(Alignment):
            raise InputError(f"alignment must be one of {', '.join(get_args(Alignment))}; got {alignment!r}")
        self._endpoint = Endpoint.parse(endpoint)
        self._form = read_questionnaire(questions, weights)
        self._alignment, self._journal = alignment, Path(journal).expanduser()
        self._temperature, self._concurrency = temperature, concurrency
        self._known: dict[str, tuple[bool, ...]] = {}
        self.spec = ModelSpec(
            adapter="visionreward",
            name="visionreward",
            revision="v1",
            params={
                "model": self._endpoint.model,
                "alignment": alignment,
                "temperature": float(temperature),
                "official_files": self._form.is_official,
                **self._form.sha256,
            },
        )

    def score(self, images: Sequence[Image], prompts: Sequence[str]) -> NDArray[np.float64]:
        """Shape (N,): the reward of `images[i]` under `prompts[i]`.

        Raises InputError for images and prompts that cannot be asked about, a missing API key and a journal that cannot
        be used; ModelError where a question gets no answer. What was answered is kept all the same.
        """
        check_inputs("visionreward", images, prompts)
        distinct = {id(image): image for image in images}
        names = {key: source(image, f"image {n}") for n, (key, image) in enumerate(distinct.items(), start=1)}
        pictures = {names[key]: image for key, image in distinct.items()}
        rows = [(names[id(image)], prompt) for image, prompt in zip(images, prompts, strict=True)]
        new = [image for image in pictures if image not in self._known]
        wanted = [(image, question) for image in new for question in self._form.questions]
        aligned = [(image, _about(prompt)) for image, prompt in rows] if self._alignment == "yes-no" else []
        found = self._ask(pictures, list(dict.fromkeys(wanted + aligned)))
        self._known |= {image: tuple(found[image, question] for question in self._form.questions) for image in new}
        alignments = [float(found[asked]) for asked in aligned] or [0.0] * len(rows)
        values = [self._form.reward(self._known[row[0]], each) for row, each in zip(rows, alignments, strict=True)]
        return np.array(values, dtype=np.float64)

    def requests(self, images: int, rows: int) -> int:
        """How many requests `images` images under `rows` prompts take, at most."""
        return images * len(self._form.questions) + (rows if self._alignment == "yes-no" else 0)

    def close(self) -> None:
        """Close the connections and the journal, which another process may then use; scoring opens them again."""
        if "_chat" in self.__dict__:
            self._chat.close()
            del self._chat

    @cached_property
    def _chat(self) -> Chat:
        chat = Chat(
            self._endpoint,
            self._journal,
            temperature=self._temperature,
            concurrency=self._concurrency,
            max_side=_MAX_SIDE,
        )
        # It stays open, because opening reads the whole journal.
        weakref.finalize(self, chat.close)
        return chat

    def _ask(self, pictures: dict[str, Image], wanted: Sequence[Asked]) -> dict[Asked, bool]:
        """Whether the answer is yes, for all that is wanted."""
        if not wanted:
            return {}
        asked = {_key(*each): each for each in wanted}
        found: dict[Asked, bool] = {}
        bad: list[BadReplyError] = []
        for key, reply in self._chat.ask_all(_question(key, each, pictures) for key, each in asked.items()):
            if isinstance(reply, BadReplyError):
                bad.append(reply)
            else:
                found[asked[key]] = reply["answer"] == "yes"
        if bad:
            raise ModelError(f"{len(bad)} of {len(asked)} questions got neither yes nor no; the first: {bad[0]}")
        return found


def _about(prompt: str) -> str:
    """The question that stands for VQAScore."""
    return f'Does the image show what this text says? "{prompt}"'


def _key(image: str, question: str) -> str:
    """The key in the journal."""
    return f"{image[:16]} {hashlib.sha256(question.encode(errors='surrogatepass')).hexdigest()[:16]}"


def _question(key: str, asked: Asked, pictures: dict[str, Image]) -> Question:
    image, question = asked
    return Question(key, [{"role": "user", "content": question}], _SCHEMA, [pictures[image]])
