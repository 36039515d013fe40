"""Reward models: (image, prompt) → score."""

from __future__ import annotations

from pathlib import Path

from widespectrum import registry
from widespectrum.errors import InputError
from widespectrum.protocols import RewardModel
from widespectrum.registry import Entry
from widespectrum.types import Parameter

__all__ = ["REWARD_MODELS", "entry_of", "load_reward_model"]

_PACKAGES = ("torch", "transformers", "tokenizers", "safetensors", "accelerate", "ftfy")


def _neural(target: str, summary: str, **params: Parameter) -> Entry:
    """A reward model with weights."""
    return Entry(
        target=f"widespectrum.rewards.{target}", summary=summary, extra="rewards", packages=_PACKAGES, params=params
    )


REWARD_MODELS: dict[str, Entry] = {
    "hps": _neural("clip_openai:ClipOpenAIReward", "Human Preference Score v1: CLIP ViT-L/14 tuned", model="hps"),
    "hpsv2": _neural("hpsv2:HpsV2Reward", "Human Preference Score v2.0: CLIP ViT-H/14 tuned", version="v2.0"),
    "hpsv2.1": _neural("hpsv2:HpsV2Reward", "Human Preference Score v2.1: CLIP ViT-H/14 tuned", version="v2.1"),
    "hpsv3": _neural("hpsv3:HPSv3Reward", "Human Preference Score v3: Qwen2-VL-7B with a ranking head"),
    "pickscore": _neural("pickscore:PickScoreReward", "PickScore v1: CLIP ViT-H/14 tuned on Pick-a-Pic"),
    "imagereward": _neural("imagereward:ImageReward", "ImageReward v1.0: BLIP-large with a reward head"),
    "mps": _neural("mps:MpsReward", "MPS (overall): CLIP ViT-H/14 with cross-attention under a condition"),
    "clip-l": _neural("clip_openai:ClipOpenAIReward", "CLIP ViT-L/14: cosine of image and prompt", model="clip-l"),
    "blip-l": _neural("blip:BlipReward", "BLIP-large, image-text matching (COCO)"),
    "laion-aesthetic": _neural("laion:LaionAestheticReward", "LAION aesthetic predictor V2; blind to the prompt"),
    "visionreward": Entry(
        target="widespectrum.rewards.visionreward:VisionReward",
        summary="VisionReward's questions, answered by any vision-language model",
        extra="judges",
        packages=("openai", "jsonschema"),
    ),
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


def entry_of(name: str) -> Entry:
    """The entry of a name in the table, or of `clip:<repo>@<revision>`; UnknownNameError for any other."""
    kind, colon, source = name.partition(":")
    if colon and kind == "clip":
        if not source:
            raise InputError(f"expected clip:<repo>@<revision> or clip:<folder>, got {name!r}")
        return _neural("any_clip:AnyClipReward", f"cosine of image and prompt in {source}", source=source)
    return registry.lookup("reward model", REWARD_MODELS, name)


def load_reward_model(
    name: str,
    *,
    checkpoint: Path | str | None = None,
    tokenizer: Path | str | None = None,
    device: str = "auto",
    dtype: str = "float32",
    **options: Parameter | Path,
) -> RewardModel:
    """The reward model called `name`: one of REWARD_MODELS, or any CLIP or SigLIP as `clip:<repo>@<revision>`.

    `checkpoint` is a file or folder in the format in which the authors publish it; without one it is downloaded from
    the Hub, where the authors offer it there. `tokenizer` is a vocabulary (file or folder) instead of the one that
    belongs to the model. `device` is `auto` (a GPU where there is one), `cpu`, `cuda`, `cuda:1` and so on. `dtype`
    float32 gives the official numbers; bfloat16 and float16 are faster and less exact. `widespectrum models show NAME`
    lists the `options` of a model. The weights are loaded when the first image is scored.

    UnknownNameError for a name that is in no table, MissingExtraError where packages are missing, InputError for a
    file or an option that is wrong.

    >>> load_reward_model("sharpness").spec.name
    'sharpness'
    """
    entry = entry_of(name)
    shared = {"checkpoint": checkpoint, "tokenizer": tokenizer, "device": device, "dtype": dtype}
    # Models without weights do not have these options: what is left at its default is not passed on.
    given = {key: value for key, value in shared.items() if value not in (None, "auto", "float32")}
    model: RewardModel = registry.load("reward model", {name: entry}, name, {**given, **options})
    return model
