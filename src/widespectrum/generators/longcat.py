"""LongCat-Image: prompts are read by Qwen2.5-VL, what is in quotation marks letter by letter."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from types import FunctionType, MethodType
from typing import Any

from widespectrum.errors import InputError
from widespectrum.types import ModelSpec, Prompt

from .diffusion import DiffusionGenerator

__all__ = ["LongCatImage", "split_quoted"]

APOSTROPHE = re.compile("[a-zA-Z]+'[a-zA-Z]+")
MARKS = (("'", "'"), ('"', '"'), ("\u2018", "\u2019"), ("\u201c", "\u201d"))
QUOTED = re.compile("(" + "|".join(f"{start}[^{start}{end}]*?{end}" for start, end in MARKS) + ")")


def split_quoted(prompt: str) -> list[tuple[str, bool]]:
    """The parts of `prompt`, and of each whether it is in quotation marks; an apostrophe within a word is no mark.

    >>> split_quoted("The dog's sign says 'OPEN'.")
    [("The dog's sign says ", False), ("'OPEN'", True), ('.', False)]
    """
    parts, start = [], 0
    for masked in QUOTED.split(APOSTROPHE.sub(lambda word: word[0].replace("'", "x"), prompt)):
        part = prompt[start : start + len(masked)]
        start += len(masked)
        if part:
            parts.append((part, QUOTED.match(part) is not None))
    return parts


class LongCatImage(DiffusionGenerator):
    """`LongCatImagePipeline` of diffusers, every guided step rescaled to the length of the unguided one (`cfg_renorm`).

    It never rewrites a prompt. Prompts of 512 tokens are read, the instruction around them not counted; what is in
    quotation marks counts a token or more per letter.

    Where two words have an apostrophe, such as "dog's" and "it's", the pipeline garbles one of them, another one in
    every process; here they are read as they are written (`apostrophes` in the spec). All other prompts are read as the
    pipeline reads them.
    """

    family = "longcat-image"
    pipeline_class = "LongCatImagePipeline"
    multiple = 16
    window = 512
    long_prompts = "fail above 512 tokens"

    def _check_options(self) -> None:
        super()._check_options()
        if self.offload == "sequential":
            # It sends the prompt to where the weights are, which then is nowhere.
            raise InputError(f"{self.name}: its pipeline cannot be offloaded layer by layer: give offload=model")

    @cached_property
    def spec(self) -> ModelSpec:
        """What identifies the images; hashes local files, or asks the Hub for commits, on first use."""
        self._configure({"cfg_renorm": True, "prompt_rewrite": False, "apostrophes": "as written"})
        return super().spec

    def _components(self) -> dict[str, Any]:
        # It only serves to rewrite prompts, and to load it takes torchvision.
        return {"text_processor": None}

    def _prepare(self, pipeline: Any) -> None:
        encode = type(pipeline)._encode_prompt
        if "split_quotation" not in encode.__globals__:
            raise InputError(
                f"{self.name}: this version of diffusers splits prompts in another way than 0.42, with which images "
                "were checked: install diffusers 0.42"
            )
        names = {**encode.__globals__, "split_quotation": split_quoted}
        pipeline._encode_prompt = MethodType(FunctionType(encode.__code__, names), pipeline)

    def count_tokens(self, prompts: Sequence[str]) -> list[int]:
        """Tokens of the prompt alone."""
        return [len(self._tokens(prompt)) for prompt in prompts]

    def _tokens(self, prompt: str) -> list[int]:
        pieces = [list(part) if quoted else [part] for part, quoted in split_quoted(prompt)]
        texts = [text for piece in pieces for text in piece]
        rows = self.pipeline.tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
        return [token for row in rows for token in row]

    def _arguments(self, prompts: list[Prompt]) -> dict[str, Any]:
        return {
            **super()._arguments(prompts),
            # One for every prompt: the pipeline does not repeat a single one. The empty one is its default.
            "negative_prompt": [""] * len(prompts),
            "enable_cfg_renorm": True,
            "enable_prompt_rewrite": False,
        }
