"""A prompt set: prompts in pairs, and the images that stand behind them where there are any."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from tqdm import tqdm

from widespectrum.types import Prompt, digest

from .images import StoredImage

__all__ = ["PromptSet"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptSet:
    """Prompts in pairs. `photographs` maps a pair_id to its input image; empty where generators start from text.

    An input image is a photograph, or an image of another run; `open_photograph` opens both. `notice` says what the
    user is to know of the set, such as which pairs were left out.
    """

    name: str
    prompts: tuple[Prompt, ...]
    photographs: Mapping[str, Path | StoredImage]
    notice: str = ""

    @property
    def revision(self) -> str:
        """sha256 (64 hex digits) over the prompts and the bytes of the input images; reads every photograph."""
        paths = {place for place in self.photographs.values() if isinstance(place, Path)}
        bar = tqdm(paths, desc="hash photographs", delay=2, leave=False, dynamic_ncols=True)
        files = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in bar}
        photographs = {
            pair_id: place.image_id if isinstance(place, StoredImage) else files[place]
            for pair_id, place in self.photographs.items()
        }
        return digest([[asdict(prompt) for prompt in self.prompts], photographs])
