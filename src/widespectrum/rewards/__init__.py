"""Reward models: (image, prompt) → score."""

from __future__ import annotations

from widespectrum import registry
from widespectrum.protocols import RewardModel
from widespectrum.registry import Entry
from widespectrum.types import Parameter

__all__ = ["REWARD_MODELS", "load_reward_model"]

REWARD_MODELS: dict[str, Entry] = {
    "colorfulness": Entry(
        target="widespectrum.rewards.pixels:PixelReward",
        summary="how colorful the image is (Hasler and Süsstrunk 2003); blind to the prompt",
        params={"measure": "colorfulness"},
    ),
    "sharpness": Entry(
        target="widespectrum.rewards.pixels:PixelReward",
        summary="variance of the Laplacian of the luma; blind to the prompt",
        params={"measure": "sharpness"},
    ),
    "exposure": Entry(
        target="widespectrum.rewards.pixels:PixelReward",
        summary="closeness to mid-gray, less the clipped pixels; blind to the prompt",
        params={"measure": "exposure"},
    ),
    "random": Entry(
        target="widespectrum.rewards.controls:RandomReward",
        summary="a hash of image and prompt: the control that knows nothing",
    ),
    "oracle": Entry(
        target="widespectrum.rewards.controls:OracleReward",
        summary="1 for the image that the prompt made, else 0: the control that is always right",
    ),
}


def load_reward_model(name: str, **options: Parameter) -> RewardModel:
    """The reward model called `name`, made with `options`."""
    model: RewardModel = registry.load("reward model", REWARD_MODELS, name, options)
    return model
