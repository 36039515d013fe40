"""MPS: the preference model whose image tokens read the part of the prompt that its condition points at."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL.Image import Image

from widespectrum.errors import InputError

from .base import NeuralReward, Prepared
from .checkpoints import Checkpoint, empty, fill
from .clip_reward import normalized
from .clip_towers import CONTEXT, Towers, build_towers, check_tokens, image_size, tower_weights
from .mps_cross import attend, build, cross_size, cross_weights, names, read_angles, read_prompts
from .preprocessing import clip_crop
from .tokenization import TextTokenizer, load_clip_bpe

__all__ = ["CONDITION", "MpsReward"]

CONDITION = (
    "light, color, clarity, tone, style, ambiance, artistry, shape, face, hair, hands, limbs, structure, instance, "
    "texture, quantity, attributes, position, number, location, word, things."
)
"""What the released model was trained to look at ("overall"), word for word."""

_HINT = (
    "MPS is on no Hub of its authors: download MPS_overall_checkpoint.pth by the link in the README of "
    "github.com/Kwai-Kolors/MPS and pass its path as checkpoint"
)
_PLACES = "model.vision_model.embeddings.position_embedding.weight"
_PROMPTS_KEPT = 1024


@dataclass(frozen=True, slots=True)
class _Network:
    """Both towers, the cross model, its rotary angles, and the tokens of the condition (77, D) in float32."""

    towers: Towers
    cross: Any
    angles: Any
    condition: Any


@dataclass(frozen=True, slots=True)
class _ReadPrompt:
    """A prompt as the cross model reads it: keys and values of every layer, tokens to be read, feature of length 1."""

    keys: Any
    kept: Any
    feature: Any


class MpsReward(NeuralReward):
    """exp(logit_scale) times the cosine of the prompt and of the image after reading the prompt; higher is better.

    A token of the prompt is read if its greatest dot product with a token of the condition is more than
    `mask_threshold` times that of the best token of the same prompt: 0.3 in the evaluation behind the published
    figures, 0.01 in the README's example. Source: Zhang et al., "Learning Multi-Dimensional Human Preference for
    Text-to-Image Generation", 2024, and github.com/Kwai-Kolors/MPS.
    """

    window = CONTEXT

    def __init__(
        self,
        *,
        checkpoint: Path | str | None = None,
        tokenizer: Path | str | None = None,
        device: str = "auto",
        dtype: str = "float32",
        batch_size: int | None = None,
        mask_threshold: float = 0.3,
    ) -> None:
        if (
            isinstance(mask_threshold, bool)
            or not isinstance(mask_threshold, int | float)
            or not 0 < mask_threshold < 1
        ):
            raise InputError(
                "mps: mask_threshold must be a number between 0 and 1, such as 0.3 (published figures) or 0.01 "
                f"(README); got {mask_threshold!r}"
            )
        self.mask_threshold = float(mask_threshold)
        super().__init__(
            family="mps",
            name="mps",
            checkpoint=Checkpoint("mps", checkpoint, hint=_HINT, weights=("MPS_overall_checkpoint.pth",)),
            device=device,
            dtype=dtype,
            batch_size=batch_size,
            tokenizer=tokenizer,
            params={"mask_threshold": self.mask_threshold},
        )
        self._prompts: OrderedDict[str, _ReadPrompt] = OrderedDict()

    @cached_property
    def text_tokenizer(self) -> TextTokenizer:
        """CLIP's, as transformers reads it."""
        return load_clip_bpe(self.tokenizer_path, "transformers")

    def _load(self) -> _Network:
        import torch

        weights = self.checkpoint.open()
        (of_towers, more), (of_cross, none) = tower_weights(weights, prefix="model."), cross_weights(weights)
        weights.require([*of_towers, *of_cross], more=more or none)
        check_tokens(weights, self.text_tokenizer.size, prefix="model.")
        size = cross_size(weights)
        towers = build_towers(weights, dtype=self.torch_dtype, device=self.device, activation="gelu", prefix="model.")
        cross = empty(lambda: build(size))
        fill(cross, weights, names(size), dtype=self.torch_dtype, device=self.device)
        angles = read_angles(weights, size, weights.shapes[_PLACES][0]).to(self.device)
        with torch.inference_mode():
            condition = towers.text_tokens(self._ids([CONDITION]))[0].float()
        return _Network(towers, cross, angles, condition)

    def _ids(self, prompts: list[str]) -> Any:
        import torch

        return torch.from_numpy(self.text_tokenizer.batch(prompts, CONTEXT))

    @cached_property
    def image_size(self) -> int:
        """Pixels of the side of the square that the image tower reads."""
        return image_size(self.checkpoint.open(), prefix="model.")

    def prepare(self, image: Image) -> Prepared:
        """RGB, shortest side 224 (bicubic), center crop, CLIP's mean and deviation."""
        return clip_crop(image, self.image_size, rgb_first=True)

    def _encode(self, pixels: Any) -> Any:
        return self.network.towers.image_tokens(pixels)

    def _compare(self, features: Any, prompts: list[str]) -> Any:
        import torch

        read = self._read(prompts)
        keys, kept, texts = (
            torch.stack([getattr(read[prompt], part) for prompt in prompts]) for part in _ReadPrompt.__slots__
        )
        images = attend(self.network.cross, self.network.angles, features, keys, kept)
        return self.network.towers.scale * (normalized(images) * texts).sum(dim=-1)

    def _read(self, prompts: list[str]) -> dict[str, _ReadPrompt]:
        """Every distinct prompt as it is read, the latest of them kept for later calls."""
        distinct = list(dict.fromkeys(prompts))
        missing = [prompt for prompt in distinct if prompt not in self._prompts]
        if missing:
            self._prompts |= dict(zip(missing, self._read_anew(missing), strict=True))
        found = {prompt: self._prompts[prompt] for prompt in distinct}
        while len(self._prompts) > _PROMPTS_KEPT:
            self._prompts.popitem(last=False)
        return found

    def _read_anew(self, prompts: list[str]) -> list[_ReadPrompt]:
        import torch

        ids = self._ids(prompts)
        tokens = self.network.towers.text_tokens(ids)
        keys = read_prompts(self.network.cross, tokens)
        likeness = (tokens.float() @ self.network.condition.T).amax(dim=-1)
        # The released code divides by the greatest of the whole batch, so that its scores change with the batch.
        kept = likeness / likeness.amax(dim=-1, keepdim=True) > self.mask_threshold
        ends = tokens[torch.arange(len(ids)), ids.argmax(dim=-1)]
        return [_ReadPrompt(*parts) for parts in zip(keys, kept, normalized(ends), strict=True)]
