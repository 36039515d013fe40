"""The config `emotion_edits`: faces edited to each emotion and back, by any generator that starts from images.

The user gives a folder of happy or neutral faces. A vision-language model describes each with the slot `[emotion]`, the
generator edits the face to every other emotion (direction `forward`), and then each result back to where it started
(`reverse`). One row is one edit, from `source_image` to `image`, and holds both prompts of its pair: `original_prompt`
names the emotion of the start, `wide_spectrum_prompt` the other one. The columns mean what they mean in the config
`emotion`, so rows of either direction go into `reward_bias` (form `emotion`); the reverse ones tell a reward model's
dislike of edited pixels from its dislike of an emotion.

No editor is named here: any registered generator that starts from images serves. Those without weights do not edit
faces (`identity` gives the face back, `photo-effects` refuses); a real editor comes with the generators with weights.

Everything made is kept in the folder `work`, images and refusals as the tables of a run, and the replies in the journal
of the `Chat`, which belongs there too. A rerun makes only what is missing and gives the same rows.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from PIL.Image import Image

from widespectrum import generation, store
from widespectrum.chat import BadReplyError, Chat, Question
from widespectrum.errors import InputError, ModelError
from widespectrum.generators.photographs import check_size, fit
from widespectrum.images import ImageReader, encode
from widespectrum.photo_prompts import Photograph, read_photographs
from widespectrum.prompts import open_photograph
from widespectrum.prompts.emotion import Direction, emotion_nouns
from widespectrum.prompts.pairs import PAIR_COLUMNS, pair_prompts, pair_row
from widespectrum.prompts.tables import is_one_line
from widespectrum.protocols import Generator
from widespectrum.types import Prompt, digest

__all__ = [
    "FEATURES",
    "INSTRUCTION",
    "REJECTED_FEATURES",
    "SLOT",
    "START_EMOTIONS",
    "VERSION",
    "EditOptions",
    "EmotionEdits",
    "emotion_edits",
    "fill",
]

VERSION = "v1"
"""Of the instruction; it changes with its text."""

SLOT = "[emotion]"

INSTRUCTION = """\
You see a picture of one person's face. Write `template`: one English sentence of at most 40 words from which an image
generator could make a similar picture. Say who is shown, the hair, the clothes, the surroundings, the framing and the
light. Write the placeholder [emotion] exactly once, where an adjective for the facial expression belongs, as in "with a
clearly [emotion] expression". Say nothing else about feelings, eyes, mouth or expression: they will change while the
rest stays. Name no real person."""

START_EMOTIONS = ("happy", "neutral")

REJECTED_FEATURES = {
    "face": "string",
    "emotion": "string",
    "direction": "string",
    "generator": "string",
    "seed": "int64",
    "reason": "string",
}
"""The columns of what was left out. Where a whole face was, `emotion`, `direction` and `generator` are empty, `seed` is
None."""

FEATURES = {
    **PAIR_COLUMNS,
    "face": "string",
    "emotion": "string",
    "control_emotion": "string",
    "direction": "string",
    "source_emotion": "string",
    "target_emotion": "string",
    "prompt": "string",
    "template": "string",
    "generator": "string",
    "seed": "int64",
    "source_image": "image",
    "source_image_id": "string",
    "image": "image",
    "image_id": "string",
    "width": "int32",
    "height": "int32",
}
"""The columns of the rows with their types. `face` is the file name; `prompt` is the one that the generator was given;
the ids of images are the sha256 of their PNG bytes; width and height are those of `image`."""

_BATCH = 8
_LONGEST_TEMPLATE = 60
_SCHEMA = {
    "type": "object",
    "properties": {"template": {"type": "string"}},
    "required": ["template"],
    "additionalProperties": False,
}
_FEELINGS = re.compile(
    r"\b(sad(ly|ness)?|angr(y|ily)|anger|fear(ful)?|afraid|happ(y|ily|iness)|joy(ful)?|disgust(ed)?|cheerful(ly)?|"
    r"smil(e|es|ing)|grin(ning)?|frown(ing)?|scowl(ing)?|laugh(s|ing|ter)?|cr(y|ies|ying)|tears?|"
    r"neutral (face|look|expression))\b",
    re.IGNORECASE,
)

Row: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class EditOptions:
    """What to make: the emotion that all faces show, the others (all five where empty), seeds, longest side in pixels.

    InputError for an emotion, a seed or a size that cannot be.
    """

    start: str = "happy"
    emotions: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0,)
    size: int = 1024

    def __post_init__(self) -> None:
        if self.start not in START_EMOTIONS:
            raise InputError(f"the faces must be {' or '.join(START_EMOTIONS)} to start with; got {self.start!r}")
        possible = [name for name in emotion_nouns() if name != self.start]
        for name in self.emotions:
            if name not in possible or self.emotions.count(name) > 1:
                raise InputError(f"expected each emotion once, out of {', '.join(possible)}; got {name!r}")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise InputError(f"expected seeds from 0 up, each once; got {list(self.seeds)}")
        check_size("emotion_edits", self.size)
        object.__setattr__(self, "emotions", self.emotions or tuple(possible))


class EmotionEdits(NamedTuple):
    """`rows()` gives the rows, one at a time, as often as it is called; `rejected` is what was left out."""

    rows: Callable[[], Iterator[Row]]
    rejected: list[Row]


class _Pair(NamedTuple):
    """A face and an emotion to edit it to: the file, the columns that both directions share, the two prompts."""

    face: Photograph
    columns: Row
    original: Prompt
    wide_spectrum: Prompt


class _Edit(NamedTuple):
    """An edit that was asked for, and its row in the table of images: an image, or a refusal with its reason.

    `source_id` is the image that a reverse edit starts from.
    """

    pair: _Pair
    direction: Direction
    seed: int
    made: Mapping[str, Any]
    source_id: str = ""


def fill(template: str, emotion: str) -> str:
    """`template` with the emotion in the slot, the article before it and the capital at the start set right.

    >>> fill("A [emotion] boy in a tree.", "angry")
    'An angry boy in a tree.'
    """
    article = "an" if emotion[0] in "aeiou" else "a"
    text = re.sub(r"\ban? (?=\[emotion\])", f"{article} ", template)
    text = re.sub(r"\bAn? (?=\[emotion\])", f"{article.capitalize()} ", text).replace(SLOT, emotion)
    return text[0].upper() + text[1:]


def emotion_edits(
    faces: Path, work: Path, *, chat: Chat, generator: Generator, label: str, options: EditOptions
) -> EmotionEdits:
    """Edit every face in the folder `faces` to each emotion and back; `label` is the generator's name in the rows.

    `work` is a folder for what is made on the way. Raises InputError where the generator does not start from images,
    the folder holds no photograph, or none of them can be used; ModelError where the generator or the endpoint fails:
    run again, what is made is kept.
    """
    if not generator.needs_images:
        raise InputError(f"{label} starts from text; emotion edits need a generator that starts from images")
    rejected: list[Row] = []
    templates = _templates(faces, chat, rejected)
    if not templates:
        raise InputError(f"none of the faces in {faces} can be used; {rejected[0]['face']}: {rejected[0]['reason']}")
    pairs = [pair for face, template in templates for pair in _pairs(face, template, options)]
    # Another generator, option or size gets a folder of its own, so that no image passes for another.
    studio = _Studio(work / digest([generator.spec.key, options.size])[:16], generator, label, options.size, pairs)
    for seed in options.seeds:
        studio.make(seed)
    edits = [edit for seed in options.seeds for edit in studio.edits(seed)]
    refused = [edit for edit in edits if not edit.made["image_id"]]
    rejected += [_rejection(edit.pair.face.file, edit.made["detail"], edit, label) for edit in refused]
    return EmotionEdits(lambda: studio.rows(edits), rejected)


def _rejection(face: str, reason: str, edit: _Edit | None = None, label: str = "") -> Row:
    row: Row = {"face": face, "emotion": "", "direction": "", "generator": "", "seed": None, "reason": reason}
    if edit is None:
        return row
    emotion = edit.pair.columns["emotion"]
    return row | {"emotion": emotion, "direction": edit.direction, "generator": label, "seed": edit.seed}


def _templates(faces: Path, chat: Chat, rejected: list[Row]) -> list[tuple[Photograph, str]]:
    """The faces that can be used with their templates, by file name."""
    found: dict[str, Photograph] = {}
    unread: list[dict[str, str]] = []
    usable = []

    def questions() -> Iterator[Question]:
        messages = [{"role": "system", "content": INSTRUCTION}, {"role": "user", "content": "This is the picture."}]
        for photograph, image in read_photographs(faces, unread):
            key = f"face-{VERSION}-{photograph.sha256}"
            found[key] = photograph
            yield Question(key, messages, _SCHEMA, [image])

    for key, reply in chat.ask_all(questions()):
        if isinstance(reply, BadReplyError):
            rejected.append(_rejection(found[key].file, str(reply)))
            continue
        template = unicodedata.normalize("NFC", reply["template"].strip())
        if problem := _problem(template):
            reason = f"the model's reply was not used: {problem}, in {template!r}"
            rejected.append(_rejection(found[key].file, reason))
        else:
            usable.append((found[key], template))
    rejected += [_rejection(each["file"], each["reason"]) for each in unread]
    rejected.sort(key=lambda row: str(row["face"]))
    return sorted(usable, key=lambda item: item[0].file)


def _problem(template: str) -> str:
    """Why a template cannot be used; empty where it can."""
    if template.count(SLOT) != 1:
        return f"{SLOT} occurs {template.count(SLOT)} times, expected once"
    if not is_one_line(template):
        return "line breaks or control characters, expected one sentence"
    if (count := len(template.split())) > _LONGEST_TEMPLATE:
        return f"{count} words, expected at most {_LONGEST_TEMPLATE}"
    if feeling := _FEELINGS.search(template):
        return f"the word {feeling[0]!r}, expected no feeling beside {SLOT}"
    return ""


def _pairs(face: Photograph, template: str, options: EditOptions) -> Iterator[_Pair]:
    """The pairs of one face. Their ids follow its bytes, so that another face under the same name is edited anew."""
    for emotion in options.emotions:
        texts = fill(template, options.start), fill(template, emotion)
        columns = pair_row(f"{face.sha256[:16]}/{emotion}", *texts, ["emotion"], emotion)
        shared = {"face": face.file, "emotion": emotion, "control_emotion": options.start, "template": template}
        yield _Pair(face, columns | shared, *pair_prompts(columns))


class _Studio:
    """Makes the edits and reads them back: `<folder>/<seed>/<direction>/` holds the tables of a run."""

    def __init__(self, folder: Path, generator: Generator, label: str, size: int, pairs: Sequence[_Pair]) -> None:
        self.folder, self.generator, self.label, self.size = folder, generator, label, size
        self.pairs = {str(pair.columns["pair_id"]): pair for pair in pairs}
        self.start = lru_cache(maxsize=1)(self._start)

    def _start(self, face: Path) -> tuple[Image, str, bytes]:
        """A face as its edits start from it, its id and its PNG bytes."""
        image = fit(open_photograph(face), self.size)
        return image, *encode(image)

    def place(self, seed: int, direction: Direction) -> Path:
        """The folder of one seed and direction."""
        return self.folder / str(seed) / direction

    def make(self, seed: int) -> None:
        """Make what is missing of a seed: forward, then in reverse from every image that came of it."""
        prompts = [pair.wide_spectrum for pair in self.pairs.values()]
        self._make(seed, "forward", prompts, lambda pair_id: self.start(self.pairs[pair_id].face.path)[0])
        made, images = self._made(seed, "forward"), ImageReader(self.place(seed, "forward"))
        ids = {name: made[pair.wide_spectrum.prompt_id]["image_id"] for name, pair in self.pairs.items()}
        prompts = [self.pairs[name].original for name, image_id in ids.items() if image_id]
        self._make(seed, "reverse", prompts, lambda pair_id: images.read([ids[pair_id]])[ids[pair_id]])

    def _make(self, seed: int, direction: Direction, prompts: Sequence[Prompt], source: Callable[[str], Image]) -> None:
        """Work off what a seed and direction lack; `source(pair_id)` gives the image to start from."""
        place = self.place(seed, direction)
        store.clean(place)
        store.replace(place, "prompts", prompts)
        work = generation.planned(place, self.generator.spec.name, self.generator, seeds=[seed], open_input=source)
        description = f"edit faces, {direction}, seed {seed}"
        if failures := generation.make_images(work, group=_BATCH, description=description):
            raise ModelError(f"{self.label}, {direction} edits: {failures[0].reason}; run again: what is made is kept")

    def _made(self, seed: int, direction: Direction) -> dict[str, dict[str, Any]]:
        """The table of images of a seed and direction, without the images, by prompt_id."""
        columns = ("prompt_id", "detail", "image_id", "width", "height")
        rows = store.read(self.place(seed, direction), "images", columns).to_pylist()
        return {row["prompt_id"]: row for row in rows}

    def edits(self, seed: int) -> Iterator[_Edit]:
        """Every edit of a seed that was asked for, the two directions of a pair one after the other."""
        forward, reverse = self._made(seed, "forward"), self._made(seed, "reverse")
        for pair in self.pairs.values():
            first = forward[pair.wide_spectrum.prompt_id]
            yield _Edit(pair, "forward", seed, first)
            if first["image_id"]:
                yield _Edit(pair, "reverse", seed, reverse[pair.original.prompt_id], first["image_id"])

    def rows(self, edits: Sequence[_Edit]) -> Iterator[Row]:
        """The rows of the edits that gave an image."""
        readers = {place: ImageReader(place) for place in {self.place(edit.seed, edit.direction) for edit in edits}}
        for edit in edits:
            if edit.made["image_id"]:
                content = readers[self.place(edit.seed, edit.direction)].content(edit.made["image_id"])
                if edit.direction == "forward":
                    _, source_id, source = self.start(edit.pair.face.path)
                else:
                    source_id = edit.source_id
                    source = readers[self.place(edit.seed, "forward")].content(source_id)
                images = {"source_image": _picture(source_id, source), "source_image_id": source_id}
                row = self._row(edit) | images | {"image": _picture(edit.made["image_id"], content)}
                yield {name: row[name] for name in FEATURES}

    def _row(self, edit: _Edit) -> Row:
        """The row of an edit but for its images."""
        forward, columns = edit.direction == "forward", edit.pair.columns
        emotions = columns["control_emotion"], columns["emotion"]
        source, target = emotions if forward else emotions[::-1]
        return {
            **columns,
            "direction": edit.direction,
            "source_emotion": source,
            "target_emotion": target,
            "prompt": (edit.pair.wide_spectrum if forward else edit.pair.original).text,
            "generator": self.label,
            "seed": edit.seed,
            **{name: edit.made[name] for name in ("image_id", "width", "height")},
        }


def _picture(image_id: str, content: bytes) -> dict[str, Any]:
    return {"bytes": content, "path": f"{image_id[:16]}.png"}
