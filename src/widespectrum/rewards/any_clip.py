"""Any CLIP or SigLIP of transformers or open_clip as a reward model: the cosine of image and prompt."""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL.Image import Image

from widespectrum.embedding_models import EmbeddingModel, full_name, load_model
from widespectrum.embedding_towers import Towers
from widespectrum.errors import InputError
from widespectrum.types import ModelSpec

from .base import Prepared, TwoTowerReward
from .checkpoints import Checkpoint
from .clip_reward import normalized

__all__ = ["AnyClipReward"]

_FORMS = "clip:<repo>@<revision>, such as clip:openai/clip-vit-base-patch32@main, or clip:<folder>"
_LIBRARIES = ("transformers:", "open_clip:")
_REPO = re.compile(r"[\w.-]+/[\w.-]+(@\S+)?")
_NARROWEST = 500


class AnyClipReward(TwoTowerReward):
    """The cosine of image and prompt, from -1 to 1, by the model that `source` names, for SigLIP as well.

    No scale, bias, softmax or sigmoid is applied, so that models compare; scores of different models do not.
    `source` is a folder, `<repo>@<revision>` on the Hub (written down as a commit; the default branch where there is no
    revision), or a full name of `widespectrum.embedding_models.load_model`. A folder or repository that holds an
    open_clip_config.json is read by open_clip, any other by transformers. `checkpoint` is a folder that takes the place
    of `source`, which is then any label.

    Image and prompt are prepared as the library does with the settings beside the weights, images with Pillow:
    transformers reads RGB, alpha dropped; open_clip scales in the image's own mode. EXIF orientation is ignored. A
    prompt beyond `window` is cut there.
    """

    def __init__(
        self,
        *,
        source: str,
        checkpoint: Path | str | None = None,
        tokenizer: Path | str | None = None,
        device: str = "auto",
        dtype: str = "float32",
        batch_size: int | None = None,
    ) -> None:
        name = f"clip:{source}"
        if tokenizer is not None:
            raise InputError(f"{name} reads the tokenizer that lies beside its weights: leave the option tokenizer out")
        self._source = _source(source, checkpoint)
        self._loading = threading.RLock()
        folder = self._source if Path(self._source).is_dir() else None
        super().__init__(
            family="clip",
            name=name,
            # What is downloaded of a repository is the affair of `load_model`.
            checkpoint=Checkpoint(name, folder, hint=f"expected {_FORMS}"),
            device=device,
            dtype=dtype,
            batch_size=batch_size,
        )

    @cached_property
    def spec(self) -> ModelSpec:
        """What identifies the scores: the commit of the repository, or the sha256 over the files of the folder."""
        found = self._model().spec
        params = {"library": found.adapter, **found.params}
        return ModelSpec(adapter="clip", name=found.name, revision=found.revision, params=params)

    def _model(self) -> EmbeddingModel:
        # Images are prepared in several threads, and the first of them loads the weights for all.
        with self._loading:
            return self._found

    @cached_property
    def _found(self) -> EmbeddingModel:
        name = self._source if self._source.startswith(_LIBRARIES) else full_name(self._source)
        return load_model(name, device=self.device, dtype=self.dtype)

    def _load(self) -> Towers:
        with self._loading:
            return self._model().towers

    @cached_property
    def window(self) -> int:  # type: ignore[override]  # known when the model is
        """Tokens that the text tower reads."""
        return int(self.network.window)

    def prepare(self, image: Image) -> Prepared:
        """Shape (3, height, width), as the library prepares it; InputError where that cannot be done."""
        width, height = image.size
        if max(width, height) > _NARROWEST * min(width, height):
            raise InputError(
                f"an image of {width} x {height} pixels is too narrow, {self.name} reads images up to 1:{_NARROWEST}; "
                "crop it"
            )
        towers = self.network
        try:
            made = towers.prepare(image)
        except (OSError, ValueError) as error:
            what = f"{self.name} cannot read an image of mode {image.mode}"
            raise InputError(f"{what} ({error}): save it as PNG in RGB") from None
        if set(made) != {"pixel_values"}:
            raise InputError(f"{self.name} reads images in patches of any number, which is not supported: take another")
        pixels: Prepared = made["pixel_values"][0]
        return pixels

    def _encode(self, pixels: Any) -> Any:
        return normalized(self.network.images({"pixel_values": pixels}))

    def _encode_texts(self, prompts: list[str]) -> Any:
        return normalized(self.network.texts(prompts))

    def count_tokens(self, prompts: Sequence[str]) -> list[int]:
        """Tokens of every prompt, those that the model adds included, before anything is cut off."""
        return [len(self.network.tokens(prompt)) for prompt in prompts]

    def has_special(self, prompts: Sequence[str]) -> list[bool]:
        """Whether the tokenizer reads a part of a prompt as a special token."""
        return [self.network.special(prompt) for prompt in prompts]


def _source(source: str, checkpoint: Path | str | None) -> str:
    """Where the model is; InputError where that can be neither a folder nor a repository."""
    if checkpoint is not None:
        folder = Path(checkpoint).expanduser()
        if not folder.is_dir():
            expected = "expected one that transformers or open_clip saved"
            raise InputError(f"clip:{source}: no folder at {checkpoint}: {expected}")
        return str(folder)
    folder = Path(source).expanduser()
    if source.startswith(_LIBRARIES) or _REPO.fullmatch(source) or folder.is_dir():
        return str(folder) if folder.is_dir() else source
    raise InputError(f"clip:{source} names neither a folder that is there nor a repository: expected {_FORMS}")
