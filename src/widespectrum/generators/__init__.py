"""Generators: prompt → image.

A checkpoint of a known family is one entry: its repository, the commit where it is known (else that of the day is
resolved at first use and written into the manifest), and its settings, which are the published ones.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TypeAlias

from widespectrum import registry
from widespectrum.protocols import Generator
from widespectrum.registry import Entry
from widespectrum.types import Parameter

__all__ = ["BASES", "GENERATORS", "known_bases", "load_generator"]

_Settings: TypeAlias = dict[str, Parameter]

_PACKAGES = ("torch", "diffusers", "transformers", "accelerate", "peft", "safetensors", "sentencepiece")

_FLUX: _Settings = {
    "repo": "black-forest-labs/FLUX.1-dev@3de623fc3c33e44ffbe2bad470d0f45bccf2eb21",
    "steps": 32,
    "guidance": 3.5,
}
_KREA: _Settings = {"repo": "black-forest-labs/FLUX.1-Krea-dev", "steps": 32, "guidance": 3.5}
_SD35_MEDIUM: _Settings = {
    "repo": "stabilityai/stable-diffusion-3.5-medium@b940f670f0eda2d07fbb75229e779da1ad11eb80",
    "steps": 40,
    "guidance": 4.0,
}
_SDXL: _Settings = {
    "repo": "stabilityai/stable-diffusion-xl-base-1.0@462165984030d82259a11f4367a4eed129e94a7b",
    "steps": 50,
    "guidance": 5.0,
    "dtype": "float16",
}
_SD15: _Settings = {
    "repo": "stable-diffusion-v1-5/stable-diffusion-v1-5@451f4fe16113bff5a5d2269ed5ad43b0592e9a14",
    "steps": 64,
    "guidance": 7.5,
    "width": 512,
    "height": 512,
    "dtype": "float16",
}


def _local(target: str, summary: str, settings: _Settings, **params: Parameter) -> Entry:
    """A checkpoint of a family of pipelines, which runs on this machine."""
    return Entry(
        target=f"widespectrum.generators.{target}",
        summary=summary,
        extra="generators",
        packages=_PACKAGES,
        params=params,
        defaults=settings,
    )


def _api(target: str, summary: str, sdk: str, settings: _Settings) -> Entry:
    """A generator behind an API, asked through the library `sdk`."""
    return Entry(
        target=f"widespectrum.generators.{target}",
        summary=summary,
        extra="api",
        packages=(sdk, "httpx"),
        defaults=settings,
    )


_FAMILIES: dict[str, Entry] = {
    "flux-dev": _local("flux:Flux", "FLUX.1 dev", _FLUX),
    "flux-krea": _local("flux:Flux", "FLUX.1 Krea dev, from flux-dev-raw", _KREA),
    "dance-flux": _local(
        "flux:Flux",
        "FLUX.1 dev aligned by DanceGRPO on HPSv2.1 and CLIP; base flux-dev",
        {**_FLUX, "transformer": "xzyhku/flux_hpsv2.1_dancegrpo/checkpoint-ema-300-0"},
    ),
    "pref-flux": _local(
        "flux:Flux",
        "FLUX.1 dev aligned by Pref-GRPO; base flux-dev",
        {"repo": "CodeGoat24/FLUX.1-dev-PrefGRPO", "steps": 32, "guidance": 3.5},
    ),
    "flux-dev-lora": replace(
        _local("flux:Flux", "FLUX.1 dev with a LoRA of yours, its weight a dial (lora_weight)", _FLUX), needs=("lora",)
    ),
    "flux-dev-vsf": _local(
        "flux:Flux",
        "FLUX.1 dev with value sign flip under p_a; I_o is flux-dev's, without the negative prompt",
        {**_FLUX, "guidance": 0.0, "original_guidance": 3.5, "alpha": 2.0},
        attention="vsf",
    ),
    "flux-dev-nag": _local(
        "flux:Flux",
        "FLUX.1 dev with normalized attention guidance under p_a; I_o is flux-dev's, without the negative prompt",
        {**_FLUX, "scale": 4.0},
        attention="nag",
    ),
    "flux-krea-nag": _local(
        "flux:Flux",
        "FLUX.1 Krea dev with normalized attention guidance under p_a; I_o is flux-krea's, without the negative prompt",
        {**_KREA, "scale": 4.0},
        attention="nag",
    ),
    "flux-schnell": _local(
        "flux:Flux",
        "FLUX.1 schnell, distilled",
        {
            "repo": "black-forest-labs/FLUX.1-schnell@741f7c3ce8b383c54771c7003378a50191e9efe9",
            "steps": 8,
            "guidance": 0.0,
            "window": 256,
        },
    ),
    "sdxl": _local("sdxl:StableDiffusionXL", "Stable Diffusion XL base 1.0", _SDXL),
    "playground-v2.5": _local(
        "sdxl:StableDiffusionXL",
        "Playground v2.5, aligned; base sdxl",
        {
            **_SDXL,
            "repo": "playgroundai/playground-v2.5-1024px-aesthetic@1e032f13f2fe6db2dc49947dbdbd196e753de573",
            "guidance": 3.0,
        },
    ),
    "sd3.5-medium": _local("sd3:StableDiffusion3", "Stable Diffusion 3.5 medium", _SD35_MEDIUM),
    "sd3.5m-geneval": _local(
        "sd3:StableDiffusion3",
        "Stable Diffusion 3.5 medium aligned by Flow-GRPO on GenEval; base sd3.5-medium",
        {**_SD35_MEDIUM, "lora": "jieliu/SD3.5M-FlowGRPO-GenEval"},
    ),
    "sd3.5m-pickscore": _local(
        "sd3:StableDiffusion3",
        "Stable Diffusion 3.5 medium aligned by Flow-GRPO on PickScore; base sd3.5-medium",
        {**_SD35_MEDIUM, "lora": "jieliu/SD3.5M-FlowGRPO-PickScore"},
    ),
    "sd3.5-large": _local(
        "sd3:StableDiffusion3",
        "Stable Diffusion 3.5 large",
        {
            **_SD35_MEDIUM,
            "repo": "stabilityai/stable-diffusion-3.5-large@ceddf0a7fdf2064ea28e2213e3b84e4afa170a0f",
        },
    ),
    "alchemist": _local(
        "sd3:StableDiffusion3",
        "Stable Diffusion 3.5 large tuned on Alchemist; base sd3.5-large",
        {"repo": "yandex/stable-diffusion-3.5-large-alchemist", "steps": 40, "guidance": 4.0},
    ),
    "qwen-image": _local(
        "qwen_image:QwenImage",
        "Qwen-Image",
        {
            "repo": "Qwen/Qwen-Image@75e0b4be04f60ec59a75f475837eced720f823b6",
            "steps": 50,
            "guidance": 4.0,
        },
    ),
    "flux2-klein-9b": _local(
        "flux2_klein:Flux2Klein",
        "FLUX.2 klein 9B, distilled",
        {
            "repo": "black-forest-labs/FLUX.2-klein-9B@92196c8e11f7b6cf2b7493e037d8c5345c559216",
            "steps": 4,
            "guidance": 1.0,
        },
    ),
    "z-image": _local(
        "z_image:ZImage",
        "Z-Image",
        {
            "repo": "Tongyi-MAI/Z-Image@04cc4abb7c5069926f75c9bfde9ef43d49423021",
            "steps": 50,
            "guidance": 3.5,
        },
    ),
    "z-image-turbo": _local(
        "z_image:ZImage",
        "Z-Image Turbo, distilled",
        {
            "repo": "Tongyi-MAI/Z-Image-Turbo@f332072aa78be7aecdf3ee76d5c247082da564a6",
            "steps": 8,
            "guidance": 0.0,
        },
    ),
    "glm-image": _local("glm_image:GlmImage", "GLM-Image", {"repo": "zai-org/GLM-Image", "steps": 50, "guidance": 5.0}),
    "longcat-image": _local(
        "longcat:LongCatImage",
        "LongCat-Image",
        {"repo": "meituan-longcat/LongCat-Image", "steps": 50, "guidance": 4.0},
    ),
    "sd1.5": _local("sd1:StableDiffusion1", "Stable Diffusion 1.5", _SD15),
    "sd1.5-dpo": _local(
        "sd1:StableDiffusion1",
        "Stable Diffusion 1.5 aligned by Diffusion-DPO; base sd1.5",
        {**_SD15, "transformer": "mhdang/dpo-sd1.5-text2image-v1/unet"},
    ),
    "image-edit": _local(
        "image_edit:ImageEdit", "an image edited under p_a by any image-to-image pipeline; I_o is the input", _FLUX
    ),
}

_APIS: dict[str, Entry] = {
    "gpt-image-1.5": _api(
        "openai_images:OpenAIImages", "GPT Image 1.5 by OpenAI", "openai", {"model": "gpt-image-1.5", "quality": "high"}
    ),
    "gpt-image-1-mini": _api(
        "openai_images:OpenAIImages",
        "GPT Image 1 mini by OpenAI",
        "openai",
        {"model": "gpt-image-1-mini", "quality": "high"},
    ),
    "nano-banana": _api(
        "chat_images:ChatImages",
        "Nano Banana (Gemini 2.5 Flash Image) by a chat endpoint: OpenRouter, Google",
        "openai",
        {"model": "google/gemini-2.5-flash-image"},
    ),
    "seedream-4": _api(
        "replicate_images:ReplicateImages", "Seedream 4 by Replicate", "replicate", {"model": "bytedance/seedream-4"}
    ),
    "qwen-image-replicate": _api(
        "replicate_images:ReplicateImages", "Qwen-Image by Replicate", "replicate", {"model": "qwen/qwen-image"}
    ),
}

GENERATORS: dict[str, Entry] = {
    "identity": Entry(
        target="widespectrum.generators.identity:Identity",
        summary="gives back the photograph whatever the prompt says: the floor",
    ),
    "photo-effects": Entry(
        target="widespectrum.generators.photo_effects:PhotoEffects",
        summary="applies the requested effects to the photograph, at a strength from 0 to 4",
        extra="demo",
        packages=("skimage",),
    ),
    "folder": Entry(
        target="widespectrum.generators.folder:Folder",
        summary="images that already exist, from a folder",
    ),
    **{name: entry.named(name) for name, entry in (_FAMILIES | _APIS).items()},
}

BASES: dict[str, str] = {
    "dance-flux": "flux-dev",
    "pref-flux": "flux-dev",
    "flux-dev-lora": "flux-dev",
    "flux-dev-vsf": "flux-dev",
    "flux-dev-nag": "flux-dev",
    "flux-krea-nag": "flux-krea",
    "playground-v2.5": "sdxl",
    "sd3.5m-geneval": "sd3.5-medium",
    "sd3.5m-pickscore": "sd3.5-medium",
    "alchemist": "sd3.5-large",
    "sd1.5-dpo": "sd1.5",
}
"""What a generator was aligned, tuned or changed from."""


_OF_THE_CHANGE = ("lora_weight", "original_guidance", "alpha", "offset", "scale", "tau", "blend")
"""Options that only the changed generator has."""


def known_bases(labels: Iterable[str]) -> dict[str, str]:
    """Label → label of its base, where both are among `labels`: of BASES, with the same options.

    >>> known_bases(["flux-dev", "dance-flux[steps=8]", "flux-dev-nag[scale=10]"])
    {'flux-dev-nag[scale=10]': 'flux-dev'}
    """
    labels = set(labels)
    found = {}
    for label in sorted(labels):
        name, _, given = label.removesuffix("]").partition("[")
        shared = ",".join(each for each in given.split(",") if each.partition("=")[0] not in _OF_THE_CHANGE)
        base = BASES.get(name, "") + (f"[{shared}]" if shared else "")
        if base in labels:
            found[label] = base
    return found


def load_generator(name: str, **options: Parameter) -> Generator:
    """The generator called `name`, made with `options`; `widespectrum models show NAME` lists them.

    Weights are loaded, and keys of an API are read, when the first image is asked for. UnknownNameError for a name that
    is in no table, MissingExtraError where packages are missing, InputError for an option that is wrong.

    >>> load_generator("identity").spec.name
    'identity'
    """
    generator: Generator = registry.load("generator", GENERATORS, name, options)
    return generator
