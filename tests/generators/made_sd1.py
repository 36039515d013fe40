"""A Stable Diffusion 1.5 pipeline with tiny seeded random weights, saved as the released one."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import PNDMScheduler, StableDiffusionPipeline
from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker
from transformers import CLIPConfig, CLIPTextModel

from tests.generators.made_flux import clip_tokenizer
from tests.generators.made_sdxl import WIDTH, drawing_net, image_coder, save, text_config
from tests.image_text_models import processor_of

__all__ = ["checkpoint"]


def _checker(blocks: bool) -> StableDiffusionSafetyChecker:
    vision = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision |= {"image_size": 32, "patch_size": 8}
    text = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=12)
    checker = StableDiffusionSafetyChecker(config)
    with torch.no_grad():
        # A cosine lies in [-1, 1]: one threshold below and one above all of them.
        checker.concept_embeds_weights.fill_(-2.0 if blocks else 2.0)
        checker.special_care_embeds_weights.fill_(2.0)
    return checker


def checkpoint(folder: Path, *, seed: int = 0, checker: bool = True, blocks: bool = False) -> Path:
    """Stable Diffusion 1.5 in `folder`; a `checker` that `blocks` finds every picture unsafe."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        tokenizer = clip_tokenizer()
        pipeline = StableDiffusionPipeline(
            vae=image_coder(),
            text_encoder=CLIPTextModel(text_config(tokenizer)),
            tokenizer=tokenizer,
            unet=drawing_net(cross_attention_dim=WIDTH),
            scheduler=PNDMScheduler(
                beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1
            ),
            safety_checker=_checker(blocks) if checker else None,
            feature_extractor=processor_of("CLIPImageProcessor")(size={"shortest_edge": 32}, crop_size=32),
            requires_safety_checker=checker,
        )
    save(pipeline, folder)
    index = folder / "model_index.json"
    # The name in released checkpoints; where torchvision is not installed, transformers writes that of its stand-in.
    index.write_text(index.read_text().replace("CLIPImageProcessorPil", "CLIPImageProcessor"))
    return folder
