"""GLM-Image: a language model writes the image in coarse tokens, a diffusion model paints it from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PIL.Image import Image

from widespectrum.errors import InputError
from widespectrum.protocols import Failure, Refusal
from widespectrum.types import Prompt

from .diffusion import DiffusionGenerator

__all__ = ["GlmImage"]

IMAGE_TOKEN = "<|image|>"


class GlmImage(DiffusionGenerator):
    """`GlmImagePipeline` of diffusers.

    The language model samples, seeded with the seed of the noise, for each prompt by itself: the pipeline would seed it
    with the first of a batch, and change the random numbers of the caller. Its random numbers are those of the device
    that computes: unlike the noise they differ between a GPU and the CPU.

    The language model reads the whole prompt, a second encoder the texts in quotation marks, of which the pipeline cuts
    each at 2,048 tokens. Prompts above 2,048 tokens of either fail. Prompts are drawn together only where their
    quoted texts are equally long, because the pipeline pads them without a mask.
    """

    family = "glm-image"
    pipeline_class = "GlmImagePipeline"
    multiple = 32
    window = 2048
    long_prompts = "fail above 2048 tokens"

    def check(self, prompts: Sequence[Prompt]) -> None:
        """InputError for a prompt with the token that stands for an image: the language model would look for one."""
        super().check(prompts)
        for prompt in prompts:
            if IMAGE_TOKEN in prompt.text:
                raise InputError(
                    f"{self.name}: the prompt of pair {prompt.pair_id!r} ({prompt.role}) contains {IMAGE_TOKEN}, which "
                    "stands for an image that is not there: leave it out"
                )

    def count_tokens(self, prompts: Sequence[str]) -> list[int]:
        """The larger of the tokens that the language model reads and those of the longest quoted text."""
        return [max(self._read_tokens(prompt), *self._quoted_tokens(prompt)) for prompt in prompts]

    def _read_tokens(self, prompt: str) -> int:
        processor = self.pipeline.processor
        chat = [{"role": "user", "content": [{"type": "text", "text": prompt}]}]
        text = processor.apply_chat_template(chat, tokenize=False)
        return len(processor(text=[text], target_h=self.height, target_w=self.width)["input_ids"][0])

    def _quoted_tokens(self, prompt: str) -> list[int]:
        texts = self.pipeline.get_glyph_texts(prompt)[0] or [""]
        return [len(ids) for ids in self.pipeline.tokenizer(texts, verbose=False)["input_ids"]]

    def batch_key(self, prompt: Prompt) -> tuple[int, ...]:
        """Prompts are drawn together where their quoted texts have as many tokens, one by one."""
        return (hash(tuple(self._quoted_tokens(prompt.text))), self._read_tokens(prompt.text))

    def _draw(self, prompts: list[Prompt], generators: list[Any], images: list[Any]) -> list[Image | Refusal | Failure]:
        import torch

        written = [self._write(prompt, generator) for prompt, generator in zip(prompts, generators, strict=True)]
        rows = [row for row, tokens in enumerate(written) if tokens is not None]
        answers: list[Image | Refusal | Failure] = [self._unfinished(prompt) for prompt in prompts]
        if rows:
            chosen = [prompts[row] for row in rows]
            arguments = {**self._arguments(chosen), "prior_token_ids": torch.cat([written[row] for row in rows])}
            drawn = self._pictures(chosen, self._call([generators[row] for row in rows], **arguments).images)
            for row, answer in zip(rows, drawn, strict=True):
                answers[row] = answer
        return answers

    def _write(self, prompt: Prompt, generator: Any) -> Any:
        """The coarse tokens of one image, (1, tokens); None where the language model stopped before its end."""
        import torch

        device = torch.device(self.device)
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            try:
                tokens, _, _ = self.pipeline.generate_prior_tokens(
                    prompt=[prompt.text], height=self.height, width=self.width, generator=generator
                )
            except RuntimeError as error:
                if "is invalid for input of size" not in str(error):
                    raise
                return None
        return tokens

    def _unfinished(self, prompt: Prompt) -> Failure:
        return Failure(
            f"the language model of {self.name} stopped before the image of pair {prompt.pair_id!r} ({prompt.role}) "
            "was complete: another seed may help",
            "model",
        )

    def _arguments(self, prompts: list[Prompt]) -> dict[str, Any]:
        return {**super()._arguments(prompts), "max_sequence_length": self.window}
