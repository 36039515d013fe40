"""The config `photo`: prompts that evoke the photographs of a folder, for the photo-to-prompt protocol.

The protocol (Breunig 2025, on FLUX.1-Krea): vague prompts show what a generator knows, specific ones show its taste.
So a vision-language model describes each photograph in one paragraph suited to evoke a similar image, a generator draws
it, and the look of the drawn image is compared with that of the photograph (`look_shift`). The short plain caption
beside it is the vague prompt of the same picture.

The photographs stay with the user: a row holds the file name, the sha256 of its bytes and its size. What cannot be used
is listed with its reason. Replies are kept in the journal of the `Chat`, so that a rerun asks only what is missing.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from PIL.Image import Image
from tqdm import tqdm

from widespectrum.chat import BadReplyError, Chat, Question
from widespectrum.errors import InputError
from widespectrum.prompts import open_photograph
from widespectrum.prompts.photographs import photographs_in
from widespectrum.prompts.tables import is_one_line

__all__ = [
    "INSTRUCTION",
    "REJECTED_FEATURES",
    "VERSION",
    "PhotoPrompts",
    "Photograph",
    "features",
    "photo_prompts",
    "read_photographs",
]

VERSION = "v1"
"""Of the instruction; it changes with its text."""

INSTRUCTION = """\
You see a photograph. Write two texts about it, in English.

caption: one plain sentence of at most 15 words that names what is shown. No judgment, and nothing about light, style or
quality.

prompt: one paragraph of 60 to 120 words from which an image generator could make a similar image. Say what is in the
picture and where, from which viewpoint and how it is framed, then the light, the colors, the focus, grain and other
traits of the picture itself, and its mood. Keep its flaws: where something is blurred, dark, cluttered, ugly or badly
framed, say so and do not improve on it. Begin with the picture, not with an order such as "create".

Describe only what can be seen. Name no real person and no photographer."""

CAPTION_WORDS = (3, 20)
PROMPT_WORDS = (40, 150)

REJECTED_FEATURES = {"file": "string", "reason": "string"}
"""The columns of the rejections with their types."""

_FEATURES = {
    "file": "string",
    "sha256": "string",
    "width": "int32",
    "height": "int32",
    "caption": "string",
    "prompt": "string",
    "model": "string",
    "instruction": "string",
}
_SCHEMA = {
    "type": "object",
    "properties": {"caption": {"type": "string"}, "prompt": {"type": "string"}},
    "required": ["caption", "prompt"],
    "additionalProperties": False,
}


class Photograph(NamedTuple):
    """A file of the user: its name, where it is, the sha256 of its bytes, its size in pixels when upright."""

    file: str
    path: Path
    sha256: str
    width: int
    height: int


class PhotoPrompts(NamedTuple):
    """`rows()` gives the rows with the columns `features()`, as often as it is called; `rejected` is what was left out,
    with the columns REJECTED_FEATURES. Both by file name.
    """

    rows: Callable[[], Iterator[dict[str, Any]]]
    rejected: list[dict[str, str]]


def features(*, with_images: bool = False) -> dict[str, str]:
    """The columns of the rows with their types. `instruction` is the version of the text that the model was given."""
    return _FEATURES | ({"image": "image"} if with_images else {})


def read_photographs(folder: Path, rejected: list[dict[str, str]]) -> Iterator[tuple[Photograph, Image]]:
    """The photographs directly in `folder`, by name, each decoded when its turn comes.

    Files that cannot be used, and files with the same bytes as an earlier one, are added to `rejected`. InputError
    where there is no such folder or no photograph in it.
    """
    first: dict[str, str] = {}
    for path in tqdm(photographs_in(folder), desc="read photographs", delay=2, leave=False, dynamic_ncols=True):
        file = unicodedata.normalize("NFC", path.name.encode("utf-8", "backslashreplace").decode())
        try:
            image = open_photograph(path)
            sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        except (InputError, OSError) as error:
            rejected.append({"file": file, "reason": str(error).replace(str(path), file)})
            continue
        if sha256 in first:
            rejected.append({"file": file, "reason": f"has the same bytes as {first[sha256]}"})
            continue
        first[sha256] = file
        yield Photograph(file, path, sha256, *image.size), image


def photo_prompts(photos: Path, chat: Chat, *, with_images: bool = False) -> PhotoPrompts:
    """A caption and a prompt for every photograph in the folder `photos`, by the model behind `chat`.

    `with_images` adds the files as they are, their metadata included: only for photographs that may be passed on.

    Raises InputError where the folder holds no photograph or not one of them gave a row; what `Chat.ask_all` raises
    where the model cannot be asked: run again, answered questions are not asked twice.
    """
    found: dict[str, Photograph] = {}
    described: list[tuple[Photograph, dict[str, str]]] = []
    rejected: list[dict[str, str]] = []
    for key, reply in chat.ask_all(_questions(photos, found, rejected)):
        file = found[key].file
        if isinstance(reply, BadReplyError):
            rejected.append({"file": file, "reason": str(reply)})
            continue
        texts = {name: unicodedata.normalize("NFC", reply[name].strip()) for name in ("caption", "prompt")}
        if problem := _problem(texts):
            rejected.append({"file": file, "reason": f"the model's reply was not used: {problem}"})
        else:
            described.append((found[key], texts | {"model": chat.endpoint.model, "instruction": VERSION}))
    described.sort(key=lambda item: item[0].file)
    rejected.sort(key=lambda row: row["file"])
    if not described:
        first = f"{rejected[0]['file']}: {rejected[0]['reason']}"
        raise InputError(f"none of the {len(rejected)} photographs in {photos} gave a prompt; the first, {first}")
    return PhotoPrompts(lambda: _rows(described, with_images), rejected)


def _questions(photos: Path, found: dict[str, Photograph], rejected: list[dict[str, str]]) -> Iterator[Question]:
    """One question per photograph; what it is about goes into `found` under its key."""
    messages = [{"role": "system", "content": INSTRUCTION}, {"role": "user", "content": "This is the photograph."}]
    for photograph, image in read_photographs(photos, rejected):
        key = f"photo-{VERSION}-{photograph.sha256}"
        found[key] = photograph
        yield Question(key, messages, _SCHEMA, [image])


def _problem(texts: Mapping[str, str]) -> str:
    """Why the reply cannot be used; empty where it can."""
    for name, (least, most) in (("caption", CAPTION_WORDS), ("prompt", PROMPT_WORDS)):
        count = len(texts[name].split())
        if not least <= count <= most:
            return f"its {name} has {count} words, expected {least} to {most}"
        if not is_one_line(texts[name]):
            return f"its {name} has line breaks or control characters, expected one paragraph"
    return ""


def _rows(described: Sequence[tuple[Photograph, Mapping[str, str]]], with_images: bool) -> Iterator[dict[str, Any]]:
    for photograph, texts in described:
        facts = {name: getattr(photograph, name) for name in ("file", "sha256", "width", "height")}
        yield {**facts, **texts, **({"image": _image(photograph)} if with_images else {})}


def _image(photograph: Photograph) -> dict[str, Any]:
    content = photograph.path.read_bytes()
    if hashlib.sha256(content).hexdigest() != photograph.sha256:
        raise InputError(f"{photograph.path} was changed while the others were read: run again")
    return {"bytes": content, "path": photograph.file}
