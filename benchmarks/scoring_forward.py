"""The least that a reward model must compute: its own modules on tensors that are ready, everything encoded once.

Each function takes a model, what its `prepare` made of every image, and the prompts; what it returns computes the
scores, a tensor (images, prompts).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from widespectrum.rewards.clip_reward import normalized
from widespectrum.rewards.clip_towers import CONTEXT

Forward = Callable[[], torch.Tensor]


def forget(model: Any) -> None:
    """Make every prompt one that has not been read yet."""
    vars(model).pop("_texts", None)
    getattr(model, "_prompts", {}).clear()
    if tokens := vars(model).get("_tokens"):
        tokens._ids.cache_clear()


def _parts(model: Any, prepared: Sequence[Any]) -> list[torch.Tensor]:
    size = model.batch_size
    return [model._pixels(prepared[start : start + size]) for start in range(0, len(prepared), size)]


def two_towers(model: Any, prepared: Sequence[Any], prompts: list[str]) -> Forward:
    """Image tower, text tower, cosine."""
    towers, parts = model.network, _parts(model, prepared)
    ids = torch.from_numpy(model.text_tokenizer.batch(prompts, CONTEXT)).to(model.device)

    def forward() -> torch.Tensor:
        images = torch.cat([normalized(towers.images(part)) for part in parts])
        return model.scale * images @ normalized(towers.texts(ids)).T

    return forward


def image_tower(model: Any, prepared: Sequence[Any], prompts: list[str]) -> Forward:
    """Image tower and head."""
    parts = _parts(model, prepared)

    def forward() -> torch.Tensor:
        images = torch.cat([normalized(model.network.images(part)) for part in parts])
        values = torch.from_numpy(model.combine(images.double().cpu().numpy(), images[:, :0]))
        return values[:, None].expand(-1, len(prompts))

    return forward


def prompt_by_prompt(model: Any, prepared: Sequence[Any], prompts: list[str]) -> Forward:
    """Image tower once, then what the model does with all images of a batch under one prompt, at its own length."""
    parts = _parts(model, prepared)

    def forward() -> torch.Tensor:
        rows = []
        # MPS keeps what it read of a prompt.
        getattr(model, "_prompts", {}).clear()
        for part in parts:
            seen = model._encode(part)
            rows.append(torch.stack([model._compare(seen, [prompt] * len(part)) for prompt in prompts], dim=1))
        return torch.cat(rows)

    return forward


def reader(model: Any, prepared: Sequence[Any], prompts: list[str]) -> Forward:
    """Of each image its tower and all that stands before the prompt, then for each prompt what follows."""
    network, talk = model.network, model._conversation
    tails = [talk.tail(prompt) for prompt in prompts]
    pixels = [torch.from_numpy(each).to(model.device, model.torch_dtype) for each in prepared]

    def forward() -> torch.Tensor:
        rows = []
        for image in pixels:
            cache = network.read(talk.before, network.image_tokens(image), talk.after)
            rows.append(torch.stack([network.reward(cache, tail)[0] for tail in tails]))
        return torch.stack(rows)

    return forward


FORWARDS: dict[str, Callable[[Any, Sequence[Any], list[str]], Forward]] = {
    **dict.fromkeys(("clip-l", "hps", "hpsv2.1", "pickscore"), two_towers),
    "laion-aesthetic": image_tower,
    **dict.fromkeys(("imagereward", "blip-l", "mps"), prompt_by_prompt),
    "hpsv3": reader,
}
