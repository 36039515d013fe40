"""Factual captions of paintings by a vision-language model: one sentence on what is to be seen, nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from widespectrum.chat import BadReplyError, Chat, Question
from widespectrum.prompts.tables import is_one_line

__all__ = ["caption_paintings", "caption_problem"]

SYSTEM = "You describe paintings for a catalog. You state what is visible and nothing else."
REQUEST = (
    "Describe this painting in one factual sentence of at most 30 words. Name its subjects, where they are and what "
    "they do; of an abstract painting name shapes, colors and their arrangement. Do not judge it, do not interpret it, "
    "and do not name artist, title, style or period."
)
SCHEMA = {
    "type": "object",
    "properties": {"caption": {"type": "string"}},
    "required": ["caption"],
    "additionalProperties": False,
}
_MOST_WORDS, _FEWEST_WORDS = 40, 3
_JUDGING = re.compile(r"\b(beautiful|stunning|masterful|masterpiece|exquisite|striking|lovely|ugly|evocative)\b", re.I)
_SENTENCES = re.compile(r"(?<!\bSt)(?<!\bMr)(?<!\bDr)[.!?](?=\s)")


def caption_problem(caption: str) -> str:
    """What is wrong with a caption; empty where nothing is."""
    words = len(caption.split())
    if not caption.strip() or not is_one_line(caption):
        return "it is not one line of text"
    if not _FEWEST_WORDS <= words <= _MOST_WORDS:
        return f"it has {words} words, expected {_FEWEST_WORDS} to {_MOST_WORDS}"
    if _SENTENCES.search(caption.strip()):
        return "it is more than one sentence"
    if found := _JUDGING.search(caption):
        return f"it judges ({found[0].lower()})"
    return ""


def _questions(images: Mapping[str, Path]) -> Iterator[Question]:
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": REQUEST}]
    for name, path in images.items():
        yield Question(name, messages, SCHEMA, [path.read_bytes()])


def caption_paintings(chat: Chat, images: Mapping[str, Path]) -> dict[str, tuple[str | None, str | None]]:
    """File name → (caption, None), or (None, why there is none). Paintings that are in the chat's journal cost nothing.

    Raises what `Chat.ask_all` raises where the endpoint does not answer.
    """
    found: dict[str, tuple[str | None, str | None]] = {}
    answers: Any = chat.ask_all(_questions(images))
    for name, reply in tqdm(answers, total=len(images), desc="caption", delay=2, leave=False):
        if isinstance(reply, BadReplyError):
            found[name] = None, f"no reply that fits: {reply.raw[:200]!r}"
            continue
        caption = " ".join(reply["caption"].split())
        problem = caption_problem(caption)
        found[name] = (None, f"{problem}: {caption[:200]!r}") if problem else (caption, None)
    return found
