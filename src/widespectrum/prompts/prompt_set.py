"""A prompt set: prompts in pairs, and the photographs that stand behind them where there are any."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from tqdm import tqdm

from widespectrum.types import Prompt, digest

__all__ = ["PromptSet"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptSet:
    """Prompts in pairs. `photographs` maps a pair_id to its photograph; empty where generators start from text."""

    name: str
    prompts: tuple[Prompt, ...]
    photographs: Mapping[str, Path]

    @property
    def revision(self) -> str:
        """sha256 (64 hex digits) over the prompts and the bytes of the photographs; reads every photograph."""
        bar = tqdm(set(self.photographs.values()), desc="hash photographs", delay=2, leave=False, dynamic_ncols=True)
        files = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in bar}
        photographs = {pair_id: files[path] for pair_id, path in self.photographs.items()}
        return digest([[asdict(prompt) for prompt in self.prompts], photographs])
