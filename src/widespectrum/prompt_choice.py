"""Where the prompts of a run come from: the table [prompts] of its run file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .toml_reader import Reader, is_int, is_text, place_of

__all__ = ["PromptChoice", "prompts_section"]


_SOURCES = ("set", "file", "run")
_COMPANIONS = {"photos": "set", "captions": "photos", "generator": "run", "seed": "run"}
"""Keys that mean something beside another one only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptChoice:
    """Where the prompts come from: a named set, a table of the user's, or another run; `places` as in `ModelChoice`.

    Of a run its images under p_a are the input images: those by `generator` with `seed`.
    """

    set: str = ""
    file: Path | None = None
    photos: Path | None = None
    captions: Path | None = None
    run: Path | None = None
    generator: str = ""
    seed: int | None = None
    places: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)

    def where(self, message: str) -> str:
        """The beginning of an error about the prompts: the place of what `message` names, or of where they are from."""
        named = [key for key in ("captions", "photos") if (path := getattr(self, key)) and path.name in message]
        named += [key for key in ("generator", "seed") if f"{key} = " in message]
        sources = (self.places[key] for key in ("run", "file", "set") if key in self.places)
        return place_of(self.places, named, " ".join(named)) or next(sources, "")


def prompts_section(reader: Reader, table: Mapping[str, Any], check_paths: bool) -> PromptChoice:
    """The checked table [prompts]; InputError with file and line. Without `check_paths` paths may lead nowhere."""
    if not table:
        return PromptChoice()
    reader.known(table, (*_SOURCES, *_COMPANIONS), "prompts")
    texts = {key: reader.take(table, "prompts", key, is_text, "a non-empty text") for key in table if key != "seed"}
    seed = reader.take(table, "prompts", "seed", is_int(0), "an integer >= 0")
    _check_together(reader, table)
    paths: dict[str, Path] = {}
    for key in ("file", "photos", "captions", "run"):
        if key in texts:
            paths[key] = Path(texts[key]).expanduser()
            if check_paths and not paths[key].exists():
                found = f"there is nothing at {paths[key].resolve()}"
                raise reader.error(f"[prompts] {key} = {texts[key]!r}: {found}", "prompts", key)
    return PromptChoice(
        set=texts.get("set", ""),
        generator=texts.get("generator", ""),
        seed=seed,
        **paths,
        places={key: reader.place("prompts", key) for key in table},
    )


def _check_together(reader: Reader, table: Mapping[str, Any]) -> None:
    """InputError where keys contradict each other, or stand without the one that they belong to."""
    sources = [key for key in _SOURCES if key in table]
    if len(sources) > 1:
        named = " and ".join(map(repr, sources))
        raise reader.error(f"[prompts] takes only one of {named}: delete the other", "prompts", sources[-1])
    if not sources:
        raise reader.error(
            "[prompts] needs 'set' (a named prompt set), 'file' (a prompt table) or 'run' (a run with images)",
            "prompts",
        )
    for key, needed in _COMPANIONS.items():
        if key in table and needed not in table:
            raise reader.error(
                f"[prompts] {key} goes with {needed!r} alone: give that, or delete {key}", "prompts", key
            )
