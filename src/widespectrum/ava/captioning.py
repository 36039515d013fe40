"""A vision-language model looks at every selected photograph: ordinary or not, which elements, three captions."""

from __future__ import annotations

import functools
import hashlib
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

import pyarrow as pa
from tqdm import tqdm

from widespectrum.chat import BadReplyError, Chat, Question
from widespectrum.errors import InputError
from widespectrum.prompts.images import open_photograph
from widespectrum.prompts.tables import is_one_line
from widespectrum.types import digest

from .stage import Stage
from .taxonomy import CLASSES, ELEMENTS, element_problems

__all__ = ["CAPTIONS", "UNREAD", "check_root", "photograph_path", "prompt_digest", "recaption", "reply_problems"]

CAPTION_NAMES = ("clean_caption", "anti_aesthetic_caption", "length_matched_clean_caption")

CAPTIONS = pa.schema(
    [
        ("ava_id", pa.int64()),
        ("status", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("elements", pa.list_(pa.string())),
        *((name, pa.string()) for name in CAPTION_NAMES),
        ("image_sha256", pa.string()),
    ]
)
"""One row per photograph that was answered: `kept`, or `rejected` with the reason `ordinary` or `bad reply`."""

UNREAD = pa.schema([("ava_id", pa.int64()), ("reason", pa.string()), ("detail", pa.string())])
"""Photographs that could not be shown to the model: `missing image` or `damaged image`; tried again on every run."""

_LONGEST_CLEAN = 4
_LENGTH_TOLERANCE = 0.2
_ROWS_PER_PART = 50
_DETAIL = 2000


@functools.cache
def _prompt() -> Mapping[str, Any]:
    text = resources.files(__package__).joinpath("caption_prompt.json").read_text(encoding="utf-8")
    content: dict[str, Any] = json.loads(text)
    return content


def prompt_digest() -> str:
    """What identifies the prompt, its rules and the taxonomy it shows."""
    return f"version {_prompt()['version']}, {digest([_prompt(), CLASSES])[:16]}"


@functools.cache
def _user_text() -> str:
    lines = [f"- {element}: {meaning}" for element, meaning in ELEMENTS.items()]
    return Template("\n".join(_prompt()["user"])).substitute(taxonomy="\n".join(lines))


@functools.cache
def _effect_words() -> re.Pattern[str]:
    return re.compile(rf"\b(?:{'|'.join(_prompt()['effect_words'])})\b", re.IGNORECASE)


def _schema() -> dict[str, Any]:
    """The JSON schema of a reply."""
    properties = {
        "ordinary": {"type": "boolean"},
        "elements": {"type": "array", "items": {"type": "string", "enum": list(ELEMENTS)}},
        **{name: {"type": "string"} for name in CAPTION_NAMES},
    }
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _text_problems(name: str, text: str) -> Iterator[str]:
    if not text.strip():
        yield f"{name} is empty"
    elif text != text.strip() or not is_one_line(text) or not unicodedata.is_normalized("NFC", text):
        yield f"{name} is not one line of plain text"


def _effects_in(name: str, text: str) -> Iterator[str]:
    if found := sorted({match[0].lower() for match in _effect_words().finditer(text)}):
        yield f"{name} mentions an effect ({', '.join(found)})"


def _caption_problems(clean: str, anti: str, matched: str) -> Iterator[str]:
    if len(clean.split()) > _LONGEST_CLEAN:
        yield f"clean_caption has {len(clean.split())} words, at most {_LONGEST_CLEAN} are allowed"
    sentences = len([part for part in re.split(r"[.!?]+[\"')\]]*(?:\s+|$)", anti) if part.strip()])
    if sentences not in (2, 3):
        yield f"anti_aesthetic_caption has {sentences} sentences, 2 or 3 are wanted"
    wanted, words = len(anti.split()), len(matched.split())
    if abs(words - wanted) > _LENGTH_TOLERANCE * wanted:
        yield f"length_matched_clean_caption has {words} words, anti_aesthetic_caption has {wanted}"
    yield from _effects_in("clean_caption", clean)
    yield from _effects_in("length_matched_clean_caption", matched)


def reply_problems(reply: Mapping[str, Any]) -> list[str]:
    """What is wrong with a reply beyond its schema; nothing for a photograph that is called ordinary.

    Elements come from the taxonomy, at most one from each class and at least one in all. The clean caption has at most
    4 words, the anti-aesthetic caption 2 or 3 sentences, the length-matched one as many words within 20 %, and neither
    of the clean ones mentions an effect. Whether a caption is true, or has an adjective, is not checked.
    """
    if reply["ordinary"]:
        return []
    problems = list(element_problems(reply["elements"]))
    if not reply["elements"]:
        problems.append("no element is given, and the photograph is not called ordinary")
    problems += [problem for name in CAPTION_NAMES for problem in _text_problems(name, reply[name])]
    return problems + list(_caption_problems(*(reply[name] for name in CAPTION_NAMES)))


def photograph_path(root: Path, ava_id: int) -> Path:
    """Where the user's copy of AVA holds a photograph: `<root>/<id>.jpg`."""
    return root / f"{ava_id}.jpg"


def check_root(root: Path) -> None:
    """InputError where the user's copy of AVA is no folder."""
    if not root.is_dir():
        raise InputError(f"{root.absolute()} is no folder; expected the folder with the photographs <id>.jpg of AVA")


@dataclass(slots=True)
class _Again:
    """A photograph whose last reply broke rules."""

    ava_id: int
    reply: Mapping[str, Any]
    problems: Sequence[str]

    def text(self) -> str:
        said = json.dumps(self.reply, ensure_ascii=False)
        correction = Template(_prompt()["correction"]).substitute(problems="; ".join(self.problems))
        return f"{_user_text()}\n\nYour last reply:\n{said}\n\n{correction}"


@dataclass(slots=True)
class _Round:
    """Photographs that are asked about once: what came of them, and which are to be asked again."""

    root: Path
    hashes: dict[int, str] = field(default_factory=dict)
    unread: list[dict[str, Any]] = field(default_factory=list)
    again: list[_Again] = field(default_factory=list)

    def questions(self, asked: Iterable[int | _Again], suffix: str) -> Iterator[Question]:
        """One question per photograph that can be read; the others are noted in `unread`."""
        for each in asked:
            ava_id, text = (each, _user_text()) if isinstance(each, int) else (each.ava_id, each.text())
            if (content := self._content(ava_id)) is not None:
                system = {"role": "system", "content": _prompt()["system"]}
                yield Question(f"{ava_id}{suffix}", [system, {"role": "user", "content": text}], _schema(), [content])

    def _content(self, ava_id: int) -> bytes | None:
        path = photograph_path(self.root, ava_id)
        try:
            if not path.is_file():
                self._leave_out(ava_id, "missing image", f"no photograph at {path.name}")
                return None
            open_photograph(path)
            content = path.read_bytes()
        except InputError as error:
            self._leave_out(ava_id, "damaged image", str(error).replace(str(path), path.name))
            return None
        self.hashes[ava_id] = hashlib.sha256(content).hexdigest()
        return content

    def _leave_out(self, ava_id: int, reason: str, detail: str) -> None:
        self.unread.append({"ava_id": ava_id, "reason": reason, "detail": detail})


def _row(ava_id: int, sha256: str, reply: Mapping[str, Any] | None, reason: str, detail: str) -> dict[str, Any]:
    captions = reply if reply is not None and not reason else {}
    return {
        "ava_id": ava_id,
        "status": "rejected" if reason else "kept",
        "reason": reason,
        "detail": detail[:_DETAIL],
        "elements": sorted(captions.get("elements", [])),
        **{name: captions.get(name, "") for name in CAPTION_NAMES},
        "image_sha256": sha256,
    }


def _judge(
    ava_id: int, sha256: str, reply: Mapping[str, Any] | BadReplyError, is_last: bool
) -> dict[str, Any] | _Again:
    """The row of a reply, or the photograph to ask about again."""
    if isinstance(reply, BadReplyError):
        return _row(ava_id, sha256, None, "bad reply", f"{reply} The reply: {reply.raw}")
    if reply["ordinary"]:
        return _row(ava_id, sha256, None, "ordinary", "")
    if not (problems := reply_problems(reply)):
        return _row(ava_id, sha256, reply, "", "")
    if not is_last:
        return _Again(ava_id, reply, problems)
    said = json.dumps(reply, ensure_ascii=False)
    return _row(ava_id, sha256, None, "bad reply", f"{'; '.join(problems)}. The reply: {said}")


def _ask(stage: Stage, chat: Chat, batch: _Round, asked: Sequence[int | _Again], suffix: str, is_last: bool) -> None:
    """Ask about every photograph once and store what is settled."""
    rows: list[dict[str, Any]] = []
    bar = tqdm(total=len(asked), desc=f"describe{suffix}", delay=2, leave=False, dynamic_ncols=True)
    try:
        with bar:
            for key, reply in chat.ask_all(batch.questions(asked, suffix)):
                ava_id = int(key.removesuffix(suffix))
                outcome = _judge(ava_id, batch.hashes[ava_id], reply, is_last)
                if isinstance(outcome, _Again):
                    batch.again.append(outcome)
                else:
                    rows.append(outcome)
                if len(rows) >= _ROWS_PER_PART:
                    stage.append("captions", rows, CAPTIONS)
                    rows = []
                bar.update()
    finally:
        stage.append("captions", rows, CAPTIONS)


def recaption(
    stage: Stage, ids: Sequence[int], root: Path, chat: Chat, *, corrections: int = 2, limit: int | None = None
) -> Mapping[str, int]:
    """Ask `chat` about the photographs `<root>/<id>.jpg` that the stage does not hold yet; the counts of all of `ids`.

    At most `limit` are looked at, those first that no run has looked at.
    A reply that breaks the rules is sent back with what is wrong, `corrections` times, and then listed as a rejection.
    Photographs that are missing or damaged are listed in the table `unread` and tried again by the next run. A question
    that gets no answer raises ModelError, after everything else is stored.
    """
    check_root(root)
    earlier = stage.read("unread", UNREAD).to_pylist()
    done, unread = set(stage.read("captions", CAPTIONS)["ava_id"].to_pylist()), {row["ava_id"] for row in earlier}
    # What could not be read the last time comes last: it must not use up the limit of every run.
    todo = sorted((ava_id for ava_id in ids if ava_id not in done), key=lambda ava_id: ava_id in unread)
    asked: Sequence[int | _Again] = todo[:limit]
    batch = _Round(root, unread=[row for row in earlier if row["ava_id"] not in set(asked)])
    try:
        for number in range(corrections + 1):
            suffix = f"/again-{number}" if number else ""
            batch.again = []
            _ask(stage, chat, batch, asked, suffix, number == corrections)
            asked = list(batch.again)
    finally:
        stage.write("unread", pa.Table.from_pylist(batch.unread, schema=UNREAD))
    return _counts(stage, ids)


def _counts(stage: Stage, ids: Sequence[int]) -> Mapping[str, int]:
    """How many of `ids` were kept, and how many not by reason."""
    wanted = set(ids)
    rows = stage.read("captions", CAPTIONS).to_pylist() + stage.read("unread", UNREAD).to_pylist()
    found = Counter(row["reason"] or "kept" for row in rows if row["ava_id"] in wanted)
    return dict(sorted(found.items()))
