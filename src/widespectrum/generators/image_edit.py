"""Image to image: an input image is edited under p_a, to see how far the edit pulls it back to the mainstream look.

The pipeline is the one that diffusers has for the checkpoint; prompts are read, and checkpoints loaded, as by the
text-to-image family of the same checkpoint.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from PIL import ImageOps
from PIL.Image import Image, Resampling

from widespectrum.errors import InputError, MissingExtraError
from widespectrum.hub import download_snapshot
from widespectrum.prompts.images import to_rgb
from widespectrum.protocols import Failure, Refusal
from widespectrum.types import ModelSpec, Prompt

from .diffusion import DiffusionGenerator
from .layout import INDEX, read_json
from .noise import noise_seed
from .photographs import photographs_of

__all__ = ["EDITORS", "STRENGTH", "Editor", "ImageEdit", "fit_to"]

STRENGTH = 0.5
"""The paper's."""


class Editor(NamedTuple):
    """How checkpoints of one class edit: the family of ours that they belong to, and the class of diffusers that edits.

    With `strength` that class starts from the input with noise added, the more the higher the strength; without, it
    reads the input beside the prompt. `package` is what it needs beside the extra `generators`.
    """

    family: str
    pipeline_class: str
    strength: bool = True
    package: str = ""


EDITORS: Mapping[str, Editor] = {
    "FluxPipeline": Editor("flux:Flux", "FluxImg2ImgPipeline"),
    "FluxKontextPipeline": Editor("flux:Flux", "FluxKontextPipeline", strength=False),
    "Flux2KleinPipeline": Editor("flux2_klein:Flux2Klein", "Flux2KleinPipeline", strength=False),
    "QwenImagePipeline": Editor("qwen_image:QwenImage", "QwenImageImg2ImgPipeline"),
    "QwenImageEditPipeline": Editor("qwen_image:QwenImage", "QwenImageEditPipeline", False, "torchvision"),
    "StableDiffusionPipeline": Editor("sd1:StableDiffusion1", "StableDiffusionImg2ImgPipeline"),
    "StableDiffusionXLPipeline": Editor("sdxl:StableDiffusionXL", "StableDiffusionXLImg2ImgPipeline"),
    "StableDiffusion3Pipeline": Editor("sd3:StableDiffusion3", "StableDiffusion3Img2ImgPipeline"),
    "ZImagePipeline": Editor("z_image:ZImage", "ZImageImg2ImgPipeline"),
}
"""The class that a checkpoint's model_index.json names → how it edits."""


def fit_to(image: Image, width: int, height: int) -> Image:
    """A new RGB image of this size without metadata: the largest centered part of its shape, scaled by Lanczos.

    An image that has the size keeps every pixel.
    """
    fitted = ImageOps.fit(to_rgb(image), (width, height), Resampling.LANCZOS)
    fitted.info = {}
    return fitted


class _Unknown(DiffusionGenerator):
    """Checks the options before the class of the checkpoint is known."""

    multiple = 8


class _Edits(DiffusionGenerator):
    """Stands between a family and `DiffusionGenerator`, and draws with the family's editing pipeline."""

    editor: ClassVar[Editor]
    strength = STRENGTH

    def _drawing(self, pipeline: Any) -> Any:
        import diffusers

        # As diffusers' own `from_pipe` does, which would cast every part to one dtype.
        kind = getattr(diffusers, self.editor.pipeline_class)
        given = {**pipeline.config, **pipeline.components, **self._components()}
        taken = inspect.signature(kind.__init__).parameters
        return kind(**{option: value for option, value in given.items() if option in taken})

    def _draw_batch(self, prompts: list[Prompt], seeds: list[int], images: list[Any]) -> list[Any]:
        self._inputs = images
        return super()._draw_batch(prompts, seeds, images)

    def _call(self, generators: list[Any], **arguments: Any) -> Any:
        offered = {"width": self.width, "height": self.height, "strength": self.strength}
        # FLUX Kontext scales its input and its output to sizes of its own unless it is told otherwise.
        offered |= {"max_area": self.width * self.height, "_auto_resize": False}
        accepted = inspect.signature(self.pipeline.__call__).parameters
        taken = {option: value for option, value in offered.items() if option in accepted}
        return self.pipeline(
            **taken,
            **{"num_inference_steps": self.steps, **arguments},
            # What reads its input beside the prompt takes several as several inputs of one image.
            image=self._inputs if self.editor.strength else self._inputs[0],
            generator=generators,
            output_type="np",
        )


class ImageEdit:
    """A checkpoint that edits an input image: image to image by any pipeline of `EDITORS`.

    Under p_a the image is the edit of the input. Under p_o it is the input itself, unedited and of the same size. So
    the two images of a pair are the input and its edit, and every difference between them is what the edit did: the
    paper's experiment, with the I_a of another run as inputs. Inputs are cropped at the center to the shape of `width`
    x `height` and scaled by Lanczos.

    `strength`, above 0 and up to 1, says how much noise the input gets, and which share of `steps` is drawn. What is
    made to edit (FLUX Kontext, FLUX.2 Klein, Qwen-Image-Edit) takes none; the spec says so, and such checkpoints draw
    one image at a time. All other options are those of `DiffusionGenerator`. InputError for an option that cannot be.
    """

    needs_images = True

    def __init__(
        self,
        *,
        name: str,
        repo: str = "",
        checkpoint: str | Path | None = None,
        dtype: str = "bfloat16",
        steps: int,
        guidance: float,
        strength: float = STRENGTH,
        width: int = 1024,
        height: int = 1024,
        lora: str = "",
        lora_weight: float = 1.0,
        transformer: str = "",
        device: str = "auto",
        offload: str = "none",
        batch_size: int = 1,
    ) -> None:
        self._options: dict[str, Any] = {
            "name": name,
            "checkpoint": checkpoint,
            "dtype": dtype,
            "steps": steps,
            "guidance": guidance,
            "width": width,
            "height": height,
            "lora": lora,
            "lora_weight": lora_weight,
            "transformer": transformer,
            "device": device,
            "offload": offload,
        }
        unknown = _Unknown(repo=repo, batch_size=batch_size, **self._options)
        is_number = isinstance(strength, int | float) and not isinstance(strength, bool)
        if not is_number or not 0 < strength <= 1:
            raise InputError(f"{name}: strength must be a number above 0 and up to 1; got {strength!r}")
        self.name, self.strength, self.batch_size = name, float(strength), batch_size
        self.width, self.height = width, height
        self._source, self._repo = unknown.source, repo
        if checkpoint is not None:
            # Nothing is asked of the network: what does not fit is told now.
            _ = self.editor

    def _checkpoint_class(self) -> str:
        """The class that the checkpoint's index names; of a checkpoint on the Hub only the index is downloaded."""
        if (local := self._options["checkpoint"]) is not None:
            folder = Path(local).expanduser()
        else:
            folder = download_snapshot(self._source.repo, "model", self._source.pin["revision"], patterns=[INDEX])
        if not (folder / INDEX).is_file():
            raise InputError(f"{self.name}: {self._source.repo} has no {INDEX}: expected a pipeline of diffusers")
        came = str(read_json(folder / INDEX).get("_class_name"))
        if came not in EDITORS:
            given = local or self._source.repo
            raise InputError(
                f"{self.name} edits with checkpoints of {', '.join(EDITORS)}; {given} holds one of {came}: give another"
            )
        if (package := EDITORS[came].package) and importlib.util.find_spec(package) is None:
            raise MissingExtraError(
                f'{self.name}: checkpoints of {came} need {package}, which is not installed: pip install "widespectrum'
                '[generators,open-clip]"'
            )
        return came

    @cached_property
    def editor(self) -> DiffusionGenerator:
        """What draws; nothing is loaded yet."""
        came = self._checkpoint_class()
        editor = EDITORS[came]
        if editor.strength and int(self._options["steps"] * self.strength) < 1:
            raise InputError(
                f"{self.name}: strength {self.strength:g} of {self._options['steps']} steps leaves no step to draw: "
                "give a higher strength or more steps"
            )
        if not editor.strength and self.strength != STRENGTH:
            raise InputError(
                f"{self.name}: {came} takes no strength, it reads the input beside the prompt: leave it away"
            )
        module, _, attribute = editor.family.partition(":")
        family = getattr(importlib.import_module(f"{__package__}.{module}"), attribute)
        content = {"family": "image-edit", "pipeline_class": came, "editor": editor}
        repo = self._repo if self._options["checkpoint"] else f"{self._source.repo}@{self._source.pin['revision']}"
        made = type("Edits", (family, _Edits), content)(
            repo=repo, batch_size=self.batch_size if editor.strength else 1, **self._options
        )
        made.strength = self.strength
        made._configure(
            {
                "edit": editor.pipeline_class,
                "strength": self.strength if editor.strength else "not taken",
                "fit": "center crop, Lanczos",
                "original": "the input",
            }
        )
        edits: DiffusionGenerator = made
        return edits

    @property
    def spec(self) -> ModelSpec:
        """What identifies the images; hashes local files, or asks the Hub for commits, on first use."""
        return self.editor.spec

    def keep_to(self, spec: ModelSpec) -> None:
        """Stay at the commits of a run that was begun before, where no revision is given; call it first."""
        self._source.keep_to(f"{spec.params.get('repo', '')}@{spec.revision or ''}")
        self.editor.keep_to(spec)

    def open(self) -> None:
        """Load the pipeline now. InputError where a file is not what it should be, HubError where the Hub fails."""
        self.editor.open()

    def check(self, prompts: Sequence[Prompt]) -> None:
        """InputError where these prompts cannot be drawn at all; nothing is loaded."""
        self.editor.check(prompts)

    def batch_key(self, prompt: Prompt) -> tuple[int, ...]:
        """As of the family; originals, of which nothing is drawn, stand apart."""
        return (-1,) if prompt.role == "original" else self.editor.batch_key(prompt)

    def noise_seed(self, prompt: Prompt, seed: int) -> int:
        """The seed of the noise that the input of the prompt's pair gets; see `widespectrum.generators.noise`."""
        return noise_seed(seed, prompt.pair_id)

    def peak_memory(self) -> int:
        """Bytes: the most memory that was taken on the GPU; without one, by this process."""
        return self.editor.peak_memory()

    def close(self) -> None:
        """Drop the pipeline and give its memory back; the next image loads it again."""
        if "editor" in self.__dict__:
            self.editor.close()

    def generate(
        self, prompts: Sequence[Prompt], *, seeds: Sequence[int], images: Sequence[Image] | None = None
    ) -> list[Image | Refusal | Failure]:
        """Per prompt the edit of its image, for an original the image itself, a refusal or a failure.

        `images` are the inputs, one per prompt, and `seeds` the seeds of the run. InputError where there are no inputs
        or the pipeline cannot be loaded; ModelError where memory does not suffice for any of them.
        """
        given = photographs_of(self.name, prompts, seeds, images)
        answers: list[Image | Refusal | Failure] = [fit_to(image, self.width, self.height) for image in given]
        rows = [row for row, prompt in enumerate(prompts) if prompt.role == "wide_spectrum"]
        inputs = [answer for answer in answers if isinstance(answer, Image)]
        drawn = self.editor.generate(
            [prompts[row] for row in rows], seeds=[seeds[row] for row in rows], images=[inputs[row] for row in rows]
        )
        for row, answer in zip(rows, drawn, strict=True):
            answers[row] = answer
        return answers
