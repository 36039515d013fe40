"""Expressed emotion: does the face show the emotion that the prompt names?"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from statistics import fmean

from PIL.Image import Image

from widespectrum.prompts.emotion import emotion_nouns, probe_rows
from widespectrum.protocols import Abstention, Answer, Failure, Question
from widespectrum.types import ModelSpec, Prompt, digest

from .content import BlipJudge, Reply
from .faces import Box, crop_face, detector_facts, find_faces

__all__ = ["EmotionJudge", "emotions_in"]

_DIMENSION = "emotion"


@cache
def _probes() -> dict[str, dict[str, str]]:
    """Emotion → name of a wording → the wording with this emotion."""
    found: dict[str, dict[str, str]] = {}
    for row in probe_rows():
        found.setdefault(row["emotion"], {})[row["probe"]] = row["text"]
    return found


@cache
def _names() -> re.Pattern[str]:
    words = (f"(?P<{emotion}>\\b(?:{emotion}|{noun})\\b)" for emotion, noun in emotion_nouns().items())
    return re.compile("|".join(words), re.IGNORECASE)


def emotions_in(prompt: Prompt) -> list[str]:
    """Which of the six emotions a prompt names: its subset, as in the config `emotion`, else those in its words.

    Words are read of prompts that ask for the dimension emotion: the words of that effect where they are known, else
    the whole text. An emotion is named by its adjective or its noun (sad, sadness).
    """
    if prompt.subset in emotion_nouns():
        return [prompt.subset]
    if _DIMENSION not in prompt.dimensions:
        return []
    text = prompt.effects[prompt.dimensions.index(_DIMENSION)] if prompt.effects else prompt.text
    return list(dict.fromkeys(str(match.lastgroup) for match in _names().finditer(text)))


@dataclass(frozen=True, slots=True)
class _View:
    """What is shown of an image: its largest face, or all of it where none is found."""

    image: Image
    face: Box | None
    faces: int


def _view(image: Image) -> _View:
    faces = find_faces(image)
    return _View(crop_face(image, faces[0]), faces[0], len(faces)) if faces else _View(image, None, 0)


class EmotionJudge(BlipJudge):
    """Rates `expressed emotion`: how well the face matches texts that name the emotion of the prompt, 0 to 1.

    The largest face is cropped (`widespectrum.judges.faces`); where none is found, the whole image is shown. The rating
    is the mean, over the probe wordings of `widespectrum.prompts.emotion`, of BLIP-ITM's probability that crop and
    wording match. `details` hold `emotion`, `face` (its box, null where the whole image was shown), `faces` (how many
    were found) and `probes` (the probability for each wording).

    Source: Guo, Qian, Hasan and Du, ICML 2026 (arXiv 2512.11883) for the measure with the wording `published`;
    detector, margin and the other wordings are this package's.
    """

    dimensions = ("expressed emotion",)

    @cached_property
    def spec(self) -> ModelSpec:
        """BLIP, the digest of the wordings, and the detector of faces."""
        blip = self.model.spec
        params = {**blip.params, **detector_facts(), "probes": digest(_probes())[:16]}
        if blip.revision is not None:
            params["commit"] = blip.revision
        return ModelSpec(adapter="emotion", name=blip.name, revision="v1", params=params)

    def keep_to(self, spec: ModelSpec) -> None:
        """Stay at the commit of a run that was begun before; call it first."""
        self.model.checkpoint.keep_to(str(spec.params.get("commit", "")))

    def judge(self, questions: Sequence[Question]) -> list[Reply]:
        """One answer, abstention or failure per question."""
        replies: dict[int, Reply | None] = {row: self.declined(question) for row, question in enumerate(questions)}
        rows = [row for row, reply in replies.items() if reply is None]
        images = {id(questions[row].image): questions[row].image for row in rows}
        views = {key: _view(image) for key, image in images.items()}
        asked = [(row, probe) for row in rows for probe in _probes()[_emotion(questions[row])].items()]
        shown = [views[id(questions[row].image)].image for row, _ in asked]
        values = self.matches(shown, [text for _, (_, text) in asked])
        found: dict[int, dict[str, float]] = {row: {} for row in rows}
        for (row, (name, _)), value in zip(asked, values, strict=True):
            found[row][name] = value
        for row, probes in found.items():
            replies[row] = _answer(_emotion(questions[row]), views[id(questions[row].image)], probes)
        return [reply for reply in replies.values() if reply is not None]

    def declined(self, question: Question) -> Abstention | Failure | None:
        """Why a question is not put to the model, if it is not."""
        if declined := super().declined(question):
            return declined
        names = emotions_in(question.prompt)
        if len(names) > 1:
            return Abstention(f"the prompt names several emotions: {', '.join(names)}")
        return None if names else Abstention("the prompt names no emotion")


def _emotion(question: Question) -> str:
    (emotion,) = emotions_in(question.prompt)
    return emotion


def _answer(emotion: str, view: _View, probes: dict[str, float]) -> Answer:
    face = None if view.face is None else list(view.face)
    return Answer(
        fmean(probes.values()), details={"emotion": emotion, "face": face, "faces": view.faces, "probes": probes}
    )
