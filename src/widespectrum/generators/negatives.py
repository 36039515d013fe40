"""Families of pipelines whose attention can be changed so that it takes a negative prompt: Flux and Stable Diffusion 3.

With a method, only prompts of the wide spectrum are drawn with it: the original of a pair is the base generator's own
image, made without a negative prompt, as the method is the user's answer to a prompt that was not followed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from widespectrum.errors import InputError
from widespectrum.protocols import Failure
from widespectrum.types import Parameter, Prompt

from . import nag, vsf
from .diffusion import DiffusionGenerator

__all__ = ["METHODS", "NegativeGenerator"]

METHODS: Mapping[str, Mapping[str, float]] = {
    "vsf": {"alpha": 2.0, "offset": 0.0},
    "nag": {"scale": 4.0, "tau": 5.0, "blend": 0.4},
}
"""The options of each method and what they are unless given."""

VSF_WINDOW = 256
"""Tokens that value sign flip reads, by its authors' settings."""


class NegativeGenerator(DiffusionGenerator):
    """A checkpoint of a family that takes `attention`: `vsf`, value sign flip, or `nag`, normalized attention guidance.

    `alpha` and `offset` are parameters of vsf, `scale` (the authors' 4, 10 and 15), `tau` and `blend` of nag; see
    `widespectrum.generators.vsf` and `.nag`. With either, a prompt of the wide spectrum needs a negative prompt and is
    drawn with `guidance`; an original is drawn plainly with `original_guidance` (None: `guidance`). `window` is the
    number of tokens that T5 reads (None: that of the family). Everything else is said in `DiffusionGenerator`.
    """

    tokenizer: ClassVar[str]
    """The part of the pipeline that makes T5's tokens."""
    two_passes: ClassVar[bool] = False
    """Whether a guidance above 1 draws every step a second time, with the empty prompt."""

    def __init__(
        self,
        *,
        name: str,
        repo: str = "",
        checkpoint: str | Path | None = None,
        dtype: str = "bfloat16",
        steps: int,
        guidance: float,
        original_guidance: float | None = None,
        width: int = 1024,
        height: int = 1024,
        window: int | None = None,
        attention: Literal["", "vsf", "nag"] = "",
        alpha: float = 2.0,
        offset: float = 0.0,
        scale: float = 4.0,
        tau: float = 5.0,
        blend: float = 0.4,
        lora: str = "",
        lora_weight: float = 1.0,
        transformer: str = "",
        device: str = "auto",
        offload: str = "none",
        batch_size: int = 1,
    ) -> None:
        super().__init__(
            name=name,
            repo=repo,
            checkpoint=checkpoint,
            dtype=dtype,
            steps=steps,
            guidance=guidance,
            width=width,
            height=height,
            lora=lora,
            lora_weight=lora_weight,
            transformer=transformer,
            device=device,
            offload=offload,
            batch_size=batch_size,
        )
        if attention not in ("", *METHODS):
            raise InputError(f"{name}: attention must be {', '.join(METHODS)} or empty; got {attention!r}")
        self.attention = attention
        self._set_window(window)
        self._set_guidance(original_guidance)
        given = {"alpha": alpha, "offset": offset, "scale": scale, "tau": tau, "blend": blend}
        self.settings = self._checked(given)
        if attention:
            known: dict[str, Parameter] = {"attention": attention, "original_guidance": self.original_guidance}
            self._configure({**known, **self.settings})

    def _set_window(self, window: int | None) -> None:
        if window is not None:
            if type(window) is not int or not 1 <= window <= 512:
                raise InputError(f"{self.name}: window must be a whole number of tokens from 1 to 512; got {window!r}")
            self.window = window
        self.method_window = min(self.window, VSF_WINDOW) if self.attention == "vsf" else self.window
        methods = f" ({self.method_window} with {self.attention})" if self.method_window < self.window else ""
        self.long_prompts = f"fail above {self.window} tokens of T5{methods}; CLIP reads 77"

    def _set_guidance(self, original: float | None) -> None:
        if original is not None and not self.attention:
            raise InputError(
                f"{self.name}: original_guidance belongs to attention=vsf and nag; without them both prompts of a pair "
                "have the same guidance: leave it away"
            )
        self.original_guidance = self.guidance if original is None else float(original)
        if not 0 <= self.original_guidance < 1000:
            raise InputError(f"{self.name}: original_guidance must be 0 or more; got {original!r}")
        if self.attention and self.two_passes and self.guidance > 1:
            raise InputError(
                f"{self.name}: attention={self.attention} draws with a guidance of at most 1, got {self.guidance:g}: "
                f"give guidance=0 and original_guidance={self.guidance:g}"
            )

    def _checked(self, given: Mapping[str, float]) -> dict[str, float]:
        """The options of the method; InputError for one that cannot be or that belongs to another method."""
        for method, defaults in METHODS.items():
            for option, default in defaults.items():
                if isinstance(given[option], bool) or not isinstance(given[option], int | float):
                    raise InputError(f"{self.name}: {option} must be a number; got {given[option]!r}")
                if method != self.attention and given[option] != default:
                    raise InputError(f"{self.name}: {option} belongs to attention={method}: leave it away")
        settings = {option: float(given[option]) for option in METHODS.get(self.attention, {})}
        if self.attention == "vsf":
            vsf.check(**settings)
        elif self.attention == "nag":
            nag.check(**settings)
        return settings

    def check(self, prompts: Sequence[Prompt]) -> None:
        """InputError where a prompt of the wide spectrum lacks the negative prompt that the method needs."""
        super().check(prompts)
        missing = [prompt for prompt in prompts if self._takes_negative(prompt) and not prompt.negative_prompt.strip()]
        if missing:
            raise InputError(
                f"{self.name} needs a negative prompt, in few words what to avoid, for every wide_spectrum prompt: "
                f"{len(missing):,} of {len(prompts):,} prompts lack it, the first of pair {missing[0].pair_id!r}; "
                "a prompt table takes a column negative_prompt"
            )

    def _too_long(self, prompt: Prompt, tokens: int) -> Failure:
        return (self._takes_negative(prompt) and self._too_long_for_method(prompt)) or super()._too_long(prompt, tokens)

    def count_tokens(self, prompts: Sequence[str]) -> list[int]:
        """T5's tokens of every prompt, the end included, before anything is cut off; loads the pipeline."""
        tokenizer = getattr(self.pipeline, self.tokenizer)
        return [len(ids) for ids in tokenizer(list(prompts), verbose=False).input_ids]

    def batch_key(self, prompt: Prompt) -> tuple[int, ...]:
        """Prompts drawn with the method and without it are never drawn together."""
        return (int(self._takes_negative(prompt)), *self.count_tokens([prompt.text]))

    def _takes_negative(self, prompt: Prompt) -> bool:
        return bool(self.attention) and prompt.role == "wide_spectrum"

    def _arguments(self, prompts: list[Prompt]) -> dict[str, Any]:
        guidance = self.original_guidance if prompts[0].role == "original" else self.guidance
        texts = [prompt.text for prompt in prompts]
        return {"prompt": texts, "guidance_scale": guidance, "max_sequence_length": self.window}

    def _draw(self, prompts: list[Prompt], generators: list[Any], images: list[Any]) -> list[Any]:
        if not self._takes_negative(prompts[0]):
            return super()._draw(prompts, generators, images)
        answers: list[Any] = [self._too_long_for_method(prompt) for prompt in prompts]
        rows = [row for row, answer in enumerate(answers) if answer is None]
        if rows:
            drawn = self._draw_method([prompts[row] for row in rows], [generators[row] for row in rows])
            for row, picture in zip(rows, drawn, strict=True):
                answers[row] = picture
        return answers

    def _too_long_for_method(self, prompt: Prompt) -> Failure | None:
        texts = {"prompt": prompt.text, "negative prompt": prompt.negative_prompt}
        for (what, _), tokens in zip(texts.items(), self.count_tokens(list(texts.values())), strict=True):
            if tokens > self.method_window:
                return Failure(
                    f"the {what} of pair {prompt.pair_id!r} ({prompt.role}) has {tokens:,} tokens, {self.name} reads "
                    f"{self.method_window:,} with {self.attention}: shorten it",
                    "input",
                )
        return None

    def _draw_method(self, prompts: list[Prompt], generators: list[Any]) -> list[Any]:
        """The images of prompts of the wide spectrum that fit the window, one batch."""
        texts = [prompt.text for prompt in prompts]
        negatives = [prompt.negative_prompt for prompt in prompts]
        if self.attention == "nag":
            arguments = nag.arguments(self.pipeline, texts, negatives, self.method_window)
            attending = nag.attending(self.pipeline, **self.settings)
        else:
            arguments = vsf.arguments(self.pipeline, texts, negatives, self.method_window)
            counts = vsf.negative_tokens(self.pipeline, negatives)
            positive = arguments["prompt_embeds"].shape[1] - max(counts)
            attending = vsf.attending(self.pipeline, positive, counts, **self.settings)
        with attending:
            drawn = self._call(generators, guidance_scale=self.guidance, **arguments)
        return self._pictures(prompts, drawn.images)
