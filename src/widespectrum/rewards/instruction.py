"""HPSv3's instruction, read from the official package, and the conversation that it is a part of.

The instruction belongs to its authors and is not a part of this package: it is read, as text and without running it,
from the file of theirs that the user has, and its sha256 is compared.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import re
from dataclasses import dataclass, field
from pathlib import Path

from widespectrum.errors import InputError

from .tokenization import QWEN_SPECIAL, TextTokenizer, no_unicode

__all__ = ["SHA256", "Conversation", "read_instruction"]

SHA256 = "0393599dad45a971903d1d62a3acf9bad3ccccdafa7f40f680523419e1f68b7a"
"""Of the instruction of hpsv3 1.0.0, 2,523 characters with the slot `{text_prompt}`, in UTF-8."""

_SLOT = "{text_prompt}"
_PACKAGE, _FILE = "hpsv3", "data_collator_qwen.py"
_REMEDY = f"run pip install --no-deps hpsv3==1.0.0, or give its {_FILE} as instruction_file"
_LARGEST_FILE = 1 << 20

_FIRST_SPECIAL = 151643
"""The id of the first of `QWEN_SPECIAL`; the others follow."""

_AS_TEXT = ("<|Reward|>", "<|image_pad|>")
"""Strings that are text in a prompt: as tokens they would move the place that is read, or stand for an image."""

_SPECIAL = re.compile("(" + "|".join(re.escape(name) for name in QWEN_SPECIAL if name not in _AS_TEXT) + ")")

_OPENING = "system\nYou are a helpful assistant."
_QUESTION = "\nPlease provide the overall ratings of this image: "


def read_instruction(path: Path | None = None) -> str:
    """The official instruction, with the slot `{text_prompt}`.

    `path` is a Python file of the official package, a text file with the instruction alone, or a folder with the
    package; without it the installed package hpsv3 is looked up. Nothing of the package is imported.
    InputError where there is none, or where its sha256 is not `SHA256`.
    """
    file = _installed() if path is None else _within(path) if path.is_dir() else path
    text = _text(file)
    for candidate in (text, *_strings(text)):
        if hashlib.sha256(candidate.encode("utf-8", "surrogatepass")).hexdigest() == SHA256:
            return candidate
    raise InputError(
        f"{file} does not hold HPSv3's instruction, whose sha256 begins with {SHA256[:16]}: another one gives other "
        f"scores; {_REMEDY}"
    )


def _installed() -> Path:
    """The file in the installed package; finding the package does not import it."""
    spec = importlib.util.find_spec(_PACKAGE)
    folders = [Path(folder) for folder in (spec.submodule_search_locations or ())] if spec else []
    for folder in folders:
        if (file := folder / "dataset" / _FILE).is_file():
            return file
    raise InputError(f"hpsv3 needs the instruction of its authors, and their package is not installed: {_REMEDY}")


def _within(folder: Path) -> Path:
    places = ("", "dataset", f"{_PACKAGE}/dataset")
    for place in places:
        if (file := folder / place / _FILE).is_file():
            return file
    raise InputError(f"{folder} holds no {_FILE}: {_REMEDY}")


def _text(file: Path) -> str:
    try:
        if file.stat().st_size > _LARGEST_FILE:
            raise InputError(f"{file} is too large to be HPSv3's instruction (over {_LARGEST_FILE:,} bytes): {_REMEDY}")
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file} cannot be read as HPSv3's instruction ({error}): {_REMEDY}") from None


def _strings(source: str) -> list[str]:
    """Every text constant of a Python source, which is parsed and not run; none where it is no Python."""
    try:
        nodes = ast.walk(ast.parse(source))
    # What the parser raises for text that is no Python, or made to break it.
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    return [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]


@dataclass(frozen=True, slots=True)
class Conversation:
    """The token ids of the official conversation about an image and a prompt, up to the token that is read.

    `before` stands before the image tokens; `after` between them and the prompt, the same for every prompt.
    """

    before: list[int]
    after: list[int]
    _instruction: str = field(repr=False)
    _tokenizer: TextTokenizer = field(repr=False)

    @classmethod
    def of(cls, instruction: str, tokenizer: TextTokenizer) -> Conversation:
        """The conversation with this instruction, in the ids of `tokenizer`."""
        start, end, image, image_end = (
            _id(name) for name in ("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>")
        )
        before = [start, *tokenizer.ids(_OPENING), end, *tokenizer.ids("\n"), start, *tokenizer.ids("user\n"), image]
        # The space before the prompt may become one token with it: what is shared ends before the space.
        fixed = tokenizer.ids(instruction.partition(_SLOT)[0].rstrip())
        return cls(before, [image_end, *fixed], instruction, tokenizer)

    def tail(self, prompt: str) -> list[int]:
        """The ids from the prompt to `<|Reward|>`.

        The text is tokenized as a whole, so that tokens across the edges of the prompt are the official ones. Special
        tokens in the prompt are read as in the official code, but for those of `_AS_TEXT`.
        """
        # The tokenizer would name the instruction.
        if any("\ud800" <= letter <= "\udfff" for letter in prompt):
            raise InputError(no_unicode([prompt]))
        head, _, foot = self._instruction.partition(_SLOT)
        ids = self._ids(head + prompt + foot + _QUESTION)
        shared = len(self.after) - 1
        if ids[:shared] != self.after[1:]:
            raise InputError(
                f"the tokenizer does not split HPSv3's instruction from the prompt {prompt[:60]!r}: give Qwen2-VL's"
            )
        return [*ids[shared:], _id("<|Reward|>")]

    def _ids(self, text: str) -> list[int]:
        pieces = _SPECIAL.split(text)
        return [number for piece in pieces for number in self._piece(piece)]

    def _piece(self, piece: str) -> list[int]:
        return [_id(piece)] if _SPECIAL.fullmatch(piece) else self._tokenizer.ids(piece)


def _id(special: str) -> int:
    return _FIRST_SPECIAL + QWEN_SPECIAL.index(special)
