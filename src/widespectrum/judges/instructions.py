"""The instruction texts of judges: files with a version, in the folder `prompts`, named in specs by their sha256."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib import resources

from widespectrum.errors import InputError

__all__ = ["Instruction", "instruction"]


@dataclass(frozen=True, slots=True)
class Instruction:
    """One text: `sha256` (64 hex digits) is that of `text` in UTF-8."""

    name: str
    version: str
    text: str
    sha256: str

    @property
    def digest(self) -> str:
        """The first 16 hex digits of `sha256`, which a spec holds."""
        return self.sha256[:16]


@cache
def instruction(name: str, version: str = "v1") -> Instruction:
    """The text of `prompts/<name>.<version>.txt`, without blank lines at its ends.

    A changed text gets a new version and a new file, so that old verdicts can still be explained.
    InputError where there is no such file; it lists those that there are.
    """
    folder = resources.files(__package__).joinpath("prompts")
    known = sorted(file.name for file in folder.iterdir() if file.name.endswith(".txt"))
    file = f"{name}.{version}.txt"
    if file not in known:
        raise InputError(f"there is no instruction {file}; there are {', '.join(known)}: name one of them")
    # Line ends of a checkout on Windows must not give another digest.
    text = folder.joinpath(file).read_text(encoding="utf-8").strip()
    return Instruction(name, version, text, hashlib.sha256(text.encode()).hexdigest())
