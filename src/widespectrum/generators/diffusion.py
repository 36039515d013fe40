"""What every family of diffusers pipelines has in common; a family says what its pipeline is called with.

The pipeline is loaded when the first image is asked for. Images equal, pixel for pixel, those of the pipeline itself
called with the same arguments.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import numpy as np
from PIL.Image import Image

from widespectrum._compat import ensure_torchvision
from widespectrum.devices import free_memory, is_out_of_memory, peak_memory, usable_device
from widespectrum.errors import InputError, ModelError
from widespectrum.protocols import Failure, Refusal
from widespectrum.types import ModelSpec, Parameter, Prompt

from .noise import noise, noise_seed
from .sources import Source, check_pipeline

__all__ = ["DTYPES", "OFFLOADS", "DiffusionGenerator"]

DTYPES = ("float32", "bfloat16", "float16")
OFFLOADS = ("none", "model", "sequential")
LARGEST_SIDE = 4096

_Answer: TypeAlias = Image | Refusal | Failure


class DiffusionGenerator:
    """A checkpoint of one family of pipelines.

    `repo` is a pipeline on the Hub, `org/repo[@revision]` (without a revision the commit of today, which goes into the
    spec), `checkpoint` a local folder with one instead. `transformer` replaces the denoising network, `lora` is merged
    into it with the weight `lora_weight`; both are a local path or `org/repo[/folder or file][@revision]`.

    `steps` and `guidance` hold for both prompts of a pair. `width` and `height` are in pixels. `device` is `auto` (a
    GPU where there is one), `cpu`, `cuda`, `cuda:1` and so on; `offload` keeps the parts that do not compute in the
    memory of the machine: `model` by part, `sequential` by layer (slow). `batch_size` images are drawn together; with 1
    an image does not depend on what else is drawn; in larger batches it does by rounding, in half precision visibly.

    InputError for an option that cannot be.
    """

    needs_images = False

    family: ClassVar[str]
    """The adapter in the spec."""
    pipeline_class: ClassVar[str]
    """The class in diffusers."""
    multiple: ClassVar[int] = 16
    """Both sides of an image are multiples of it."""
    window: int
    """Tokens of the longest prompt, start and end included, that is read in full."""
    long_prompts: str
    """What happens to long prompts, in a few words for the spec."""
    backbone: ClassVar[str] = "transformer"
    """The part that denoises: where LoRA and another transformer go."""

    def __init__(
        self,
        *,
        name: str,
        repo: str = "",
        checkpoint: str | Path | None = None,
        dtype: str = "bfloat16",
        steps: int,
        guidance: float,
        width: int = 1024,
        height: int = 1024,
        lora: str = "",
        lora_weight: float = 1.0,
        transformer: str = "",
        device: str = "auto",
        offload: str = "none",
        batch_size: int = 1,
    ) -> None:
        self.name, self.dtype, self.offload, self.batch_size = name, dtype, offload, batch_size
        self.steps, self.guidance, self.width, self.height = steps, guidance, width, height
        self.lora_weight = lora_weight
        self._check_options()
        self.guidance, self.lora_weight = float(guidance), float(lora_weight)
        repo, _, revision = repo.partition("@")
        replaced = (self.backbone,) if transformer else ()
        self.source = Source(name, checkpoint, repo=repo, revision=revision or None, what="pipeline", without=replaced)
        self.lora = Source(name, lora, what="lora") if lora else None
        self.transformer = Source(name, transformer, what="transformer") if transformer else None
        # "auto" and "cpu" are always there: torch is not imported to look.
        self._device = device if device in ("auto", "cpu") else usable_device(device)
        self._params: dict[str, Parameter] = {}

    def _check_options(self) -> None:
        for option, value, allowed in (("dtype", self.dtype, DTYPES), ("offload", self.offload, OFFLOADS)):
            if value not in allowed:
                raise InputError(f"{self.name}: {option} must be {', '.join(allowed)}; got {value!r}")
        for option in ("steps", "batch_size"):
            if type(getattr(self, option)) is not int or getattr(self, option) < 1:
                raise InputError(
                    f"{self.name}: {option} must be a whole number of 1 or more; got {getattr(self, option)!r}"
                )
        for option, low, high in (("guidance", 0, 1000), ("lora_weight", -100, 100)):
            number = getattr(self, option)
            if isinstance(number, bool) or not isinstance(number, int | float) or not low <= number <= high:
                raise InputError(f"{self.name}: {option} must be a number from {low} to {high}; got {number!r}")
        for side in (self.width, self.height):
            if type(side) is not int or side % self.multiple or not self.multiple <= side <= LARGEST_SIDE:
                raise InputError(
                    f"{self.name}: width and height must be multiples of {self.multiple} up to {LARGEST_SIDE} pixels; "
                    f"got {self.width} x {self.height}"
                )

    def _configure(self, params: Mapping[str, Parameter]) -> None:
        """Add what else changes the images to the spec; a family calls it at the end of its constructor."""
        self._params |= params

    @cached_property
    def spec(self) -> ModelSpec:
        """What identifies the images; hashes local files, or asks the Hub for commits, on first use."""
        pin: dict[str, Parameter] = {**self.source.pin}
        revision = pin.pop("revision", None)
        if revision is not None:
            pin["repo"] = self.source.repo
        for part, source in (("lora", self.lora), ("transformer", self.transformer)):
            if source is not None:
                pin[part] = source.pinned
        if self.lora is not None:
            pin["lora_weight"] = self.lora_weight
        names = ("dtype", "steps", "guidance", "width", "height", "long_prompts")
        params = {name: getattr(self, name) for name in names} | self._params | pin
        return ModelSpec(
            adapter=self.family, name=self.name, revision=None if revision is None else str(revision), params=params
        )

    def keep_to(self, spec: ModelSpec) -> None:
        """Stay at the commits of a run that was begun before, where no revision is given; call it first."""
        self.source.keep_to(f"{spec.params.get('repo', '')}@{spec.revision or ''}")
        for part, source in (("lora", self.lora), ("transformer", self.transformer)):
            if source is not None:
                source.keep_to(str(spec.params.get(part, "")))

    @cached_property
    def device(self) -> str:
        """Where the pipeline computes."""
        return usable_device(self._device)

    @cached_property
    def folder(self) -> Path:
        """The pipeline on this disk, downloaded where it is on the Hub; of its weights only the headers are read."""
        if self.offload != "none" and self.device == "cpu":
            raise InputError(f"{self.name}: offload={self.offload} needs a GPU, there is none here: leave it away")
        folder = self.source.path
        check_pipeline(folder, self.pipeline_class, self.name, without=self.source.without)
        return folder

    @cached_property
    def pipeline(self) -> Any:
        """The loaded pipeline."""
        import torch

        folder = self.folder
        ensure_torchvision()
        with _quiet(), self._memory(loading=True):
            from .loading import load_pipeline
            from .lora import merge_lora
            from .swap import load_transformer

            dtype = getattr(torch, self.dtype)
            parts = self._components()
            if self.transformer is not None:
                parts[self.backbone] = load_transformer(
                    folder, self.transformer.path, dtype=dtype, name=self.name, backbone=self.backbone
                )
            made = load_pipeline(folder, self.pipeline_class, name=self.name, dtype=dtype, parts=parts)
            if self.lora is not None:
                merge_lora(made, self.lora.path, self.lora_weight, name=self.name, backbone=self.backbone)
            self._prepare(made)
            made = self._drawing(made)
            made.set_progress_bar_config(disable=True)
            self._place(made)
        return made

    def _components(self) -> dict[str, Any]:
        """Parts of the pipeline that are not the checkpoint's."""
        return {}

    def _prepare(self, pipeline: Any) -> None:
        """Change the pipeline once, after it was loaded."""

    def _drawing(self, pipeline: Any) -> Any:
        """The pipeline that draws, made of the one that was loaded."""
        return pipeline

    def _place(self, pipeline: Any) -> None:
        if self.offload == "none":
            pipeline.to(self.device)
        elif self.offload == "model":
            pipeline.enable_model_cpu_offload(device=self.device)
        else:
            pipeline.enable_sequential_cpu_offload(device=self.device)

    def open(self) -> None:
        """Load the pipeline now. InputError where a file is not what it should be, HubError where the Hub fails."""
        _ = self.pipeline

    def peak_memory(self) -> int:
        """Bytes: the most memory that was taken on the GPU; without one, by this process."""
        return peak_memory(self.device)

    def close(self) -> None:
        """Drop the pipeline and give its memory back; the next image loads it again."""
        # Also where it could not be loaded: some of it may be there.
        self.__dict__.pop("pipeline", None)
        free_memory(self.device)

    def noise_seed(self, prompt: Prompt, seed: int) -> int:
        """The seed of the noise for both images of the prompt's pair; see `widespectrum.generators.noise`."""
        return noise_seed(seed, prompt.pair_id)

    def check(self, prompts: Sequence[Prompt]) -> None:
        """InputError where these prompts cannot be drawn at all, or a local checkpoint cannot; nothing is loaded."""
        if self.source.is_local:
            _ = self.folder

    def count_tokens(self, prompts: Sequence[str]) -> list[int]:
        """Tokens of every prompt, start and end included, before anything is cut off."""
        raise TypeError(f"{type(self).__name__} does not define count_tokens")

    def batch_key(self, prompt: Prompt) -> tuple[int, ...]:
        """What batches are sorted by: prompts that differ in the first number are never drawn together."""
        return (0, *self.count_tokens([prompt.text]))

    def generate(
        self, prompts: Sequence[Prompt], *, seeds: Sequence[int], images: Sequence[Image] | None = None
    ) -> list[_Answer]:
        """One image, refusal or failure per prompt. A prompt that is too long is a failure, never cut off.

        `seeds` are the seeds of the run, one per prompt. InputError where the pipeline cannot be loaded; ModelError
        where memory does not suffice for any of them.
        """
        given: Sequence[Image | None] = images or [None] * len(prompts)
        if not len(prompts) == len(seeds) == len(given):
            raise InputError(
                f"{self.name} needs one seed{' and one image' * self.needs_images} per prompt; got {len(prompts)} "
                f"prompts, {len(seeds)} seeds{f', {len(given)} images' * self.needs_images}"
            )
        if not prompts:
            return []
        self.check(prompts)
        answers: dict[int, _Answer] = {}
        for row, tokens in enumerate(self.count_tokens([prompt.text for prompt in prompts])):
            if tokens > self.window:
                answers[row] = self._too_long(prompts[row], tokens)
        for rows in self._batches(prompts, [row for row in range(len(prompts)) if row not in answers]):
            drawn = self._draw_batch(
                [prompts[row] for row in rows], [seeds[row] for row in rows], [given[r] for r in rows]
            )
            answers.update(zip(rows, drawn, strict=True))
        return [answers[row] for row in range(len(prompts))]

    def _too_long(self, prompt: Prompt, tokens: int) -> Failure:
        return Failure(
            f"the prompt of pair {prompt.pair_id!r} ({prompt.role}) has {tokens:,} tokens, {self.name} reads "
            f"{self.window:,}: shorten it",
            "input",
        )

    def _batches(self, prompts: Sequence[Prompt], rows: list[int]) -> Iterator[list[int]]:
        """Rows that are drawn together."""
        if self.batch_size == 1:
            yield from ([row] for row in rows)
            return
        keys = {row: self.batch_key(prompts[row]) for row in rows}
        for _, group in groupby(sorted(rows, key=lambda row: keys[row]), key=lambda row: keys[row][0]):
            members = list(group)
            yield from (members[start : start + self.batch_size] for start in range(0, len(members), self.batch_size))

    def _draw_batch(self, prompts: list[Prompt], seeds: list[int], images: list[Any]) -> list[_Answer]:
        generators = [noise(self.noise_seed(prompt, seed)) for prompt, seed in zip(prompts, seeds, strict=True)]
        with _quiet(), self._memory():
            return self._draw(prompts, generators, images)

    def _draw(self, prompts: list[Prompt], generators: list[Any], images: list[Any]) -> list[_Answer]:
        """The answers to one batch; `generators` hold the noise, `images` what an edit starts from (else None)."""
        return self._pictures(prompts, self._call(generators, **self._arguments(prompts)).images)

    def _call(self, generators: list[Any], **arguments: Any) -> Any:
        """What the pipeline gives for one batch; its `images` are float, (B, height, width, 3), in [0, 1]."""
        size = {"width": self.width, "height": self.height}
        return self.pipeline(
            **{**size, "num_inference_steps": self.steps, **arguments}, generator=generators, output_type="np"
        )

    def _arguments(self, prompts: list[Prompt]) -> dict[str, Any]:
        """What the pipeline is called with for these prompts, beside size, steps and noise."""
        return {"prompt": [prompt.text for prompt in prompts], "guidance_scale": self.guidance}

    def _pictures(self, prompts: Sequence[Prompt], pixels: Any) -> list[_Answer]:
        """The images of one batch, rounded as diffusers rounds them; a failure where a number is not finite."""
        from diffusers.image_processor import VaeImageProcessor

        answers: list[_Answer] = []
        for prompt, each in zip(prompts, np.asarray(pixels), strict=True):
            if np.isfinite(each).all():
                answers.append(VaeImageProcessor.numpy_to_pil(each)[0])
            else:
                wider = "float32" if self.dtype == "bfloat16" else "bfloat16 or float32"
                advice = f"give dtype={wider}" if self.dtype != "float32" else "the checkpoint may be damaged"
                answers.append(
                    Failure(
                        f"{self.name} made no finite pixels for pair {prompt.pair_id!r} ({prompt.role}) in "
                        f"{self.dtype}: {advice}",
                        "model",
                    )
                )
        return answers

    @contextmanager
    def _memory(self, *, loading: bool = False) -> Iterator[None]:
        """A lack of memory is a ModelError that says which option helps."""
        try:
            yield
        except (MemoryError, OSError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            where = "the machine" if self.device == "cpu" else "the GPU"
            during = " when its weights were loaded" if loading else ""
            options = self._lighter(loading)
            advice = f"give {' or '.join(options)}" if options else "make some of it free, or take one with more"
            raise ModelError(f"{self.name} ran out of memory on {where}{during}: {advice}") from error

    def _lighter(self, loading: bool) -> list[str]:
        """The options with which less memory is taken."""
        further = {"none": ["offload=model"], "model": ["offload=sequential"]} if self.device != "cpu" else {}
        options = further.get(self.offload, [])
        if loading:
            return options + ["dtype=bfloat16"] * (self.dtype == "float32")
        return ["a smaller batch_size"] * (self.batch_size > 1) + options + ["a smaller width and height"]


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep off the terminal what diffusers and transformers tell their developers, such as warnings of their own calls.

    What a user has to know of it (a prompt cut off, numbers that are not finite, a LoRA that does not fit) is looked
    for.
    """
    ensure_torchvision()
    from diffusers.utils import logging as of_diffusers
    from transformers.utils import logging as of_transformers

    before = [(log, log.get_verbosity(), log.is_progress_bar_enabled()) for log in (of_diffusers, of_transformers)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for log, _, _ in before:
            log.set_verbosity_error()
            log.disable_progress_bar()
        try:
            yield
        finally:
            for log, verbosity, bar in before:
                log.set_verbosity(verbosity)
                if bar:
                    log.enable_progress_bar()
