"""A conversation as Qwen3-VL reads it: its chat template and vocabulary, with every text of ours left text.

What looks like a special token in a prompt (`<|im_end|>`, `<|image_pad|>`, `<think>`) is spelled in ordinary tokens;
only the chat template writes special ones.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from widespectrum.errors import InputError
from widespectrum.rewards.tokenization import no_unicode

__all__ = ["ChatText", "chat_template"]

IMAGE = "<|image_pad|>"
"""What the chat template writes in the place of an image, once, whatever its size."""

_SLOT = "\U000f8000{}\U000f8001"
_SLOTS = re.compile("\U000f8000([0-9]+)\U000f8001")


class ChatText:
    """The ids of conversations of a system text and one message of the user, up to where the answer begins."""

    def __init__(self, tokenizer: Any, template: str, where: Path) -> None:
        from tokenizers import Tokenizer

        self._tokenizer, self._template, self._where = tokenizer, template, where
        added = {str(token): number for number, token in tokenizer.added_tokens_decoder.items()}
        self._special = added
        longest_first = sorted(added, key=len, reverse=True)
        self._split = re.compile("(" + "|".join(map(re.escape, longest_first)) + ")") if added else re.compile("(?!)")
        # Without the added tokens every text is only text.
        plain = {**json.loads(tokenizer.backend_tokenizer.to_str()), "added_tokens": []}
        self._plain = Tokenizer.from_str(json.dumps(plain))

    def plain_ids(self, text: str) -> list[int]:
        """The ids of a text in which nothing is special. InputError for half of a surrogate pair."""
        try:
            return list(self._plain.encode(text, add_special_tokens=False).ids)
        except TypeError:
            raise InputError(no_unicode([text])) from None

    def ids(self, system: str, parts: Sequence[str | int]) -> list[int]:
        """The ids of the conversation; a number in `parts` is an image of so many tokens. No system text: no turn."""
        texts = ([system] if system else []) + [part for part in parts if isinstance(part, str)]
        counts = iter([part for part in parts if isinstance(part, int)])
        found: list[int] = []
        text = ""
        for piece, special in self._pieces(self._rendered(bool(system), parts), texts):
            if not special:
                text += piece
                continue
            # Joined before they are tokenized: a token may reach from the template into a text.
            found += self.plain_ids(text) if text else []
            text = ""
            found += [self._special[piece]] * (next(counts) if piece == IMAGE else 1)
        return found + (self.plain_ids(text) if text else [])

    def _rendered(self, system: bool, parts: Sequence[str | int]) -> str:
        """The conversation as the chat template writes it, with numbered slots in the place of the texts."""
        from jinja2 import TemplateError

        numbers = iter(range(len(parts) + 1))
        messages: list[dict[str, Any]] = []
        if system:
            messages.append({"role": "system", "content": _SLOT.format(next(numbers))})
        content = [
            {"type": "image"} if isinstance(part, int) else {"type": "text", "text": _SLOT.format(next(numbers))}
            for part in parts
        ]
        messages.append({"role": "user", "content": content})
        try:
            rendered = self._tokenizer.apply_chat_template(
                messages, chat_template=self._template, tokenize=False, add_generation_prompt=True
            )
        except (TemplateError, TypeError, ValueError) as error:
            raise InputError(
                f"{self._where}: its chat template fails ({error}): copy the chat template of Qwen3-VL"
            ) from None
        slots = [int(number) for number in _SLOTS.findall(rendered)]
        images = sum(isinstance(part, int) for part in parts)
        if slots != list(range(len(parts) - images + system)) or rendered.count(IMAGE) != images:
            raise InputError(
                f"{self._where}: its chat template does not show every text and image once and in their order: "
                "copy the chat template of Qwen3-VL"
            )
        return str(rendered)

    def _pieces(self, rendered: str, texts: Sequence[str]) -> list[tuple[str, bool]]:
        """(text, whether it is a special token), the slots filled."""
        found: list[tuple[str, bool]] = []
        # Every second piece is the number of a slot, and every second one within the others a special token.
        for place, piece in enumerate(_SLOTS.split(rendered)):
            if place % 2:
                found.append((texts[int(piece)], False))
            else:
                found += [(each, bool(number % 2)) for number, each in enumerate(self._split.split(piece)) if each]
        return found


def chat_template(folder: Path, tokenizer: Any) -> str:
    """The chat template of a checkpoint: chat_template.jinja, chat_template.json, or that of the tokenizer.

    InputError where there is none.
    """
    try:
        if (file := folder / "chat_template.jinja").is_file():
            return file.read_text(encoding="utf-8")
        if (file := folder / "chat_template.json").is_file():
            found = json.loads(file.read_text(encoding="utf-8"))["chat_template"]
        else:
            found = tokenizer.chat_template
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file} is no chat template ({error}): copy that of Qwen3-VL") from None
    if not isinstance(found, str):
        raise InputError(f"{folder} holds no chat template: copy chat_template.jinja or chat_template.json of Qwen3-VL")
    return found
