"""The clean counterpart of each photograph: what a generator makes of its clean caption."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from PIL.Image import Image
from tqdm import tqdm

from widespectrum import generation, pipeline, store
from widespectrum.errors import InputError, RunFolderError
from widespectrum.prompts.images import open_photograph
from widespectrum.protocols import Generator
from widespectrum.types import Prompt

from .captioning import check_root, photograph_path

__all__ = ["Counterparts", "clean_prompt", "make_counterparts"]


@dataclass(frozen=True, slots=True)
class Counterparts:
    """What one run came to: images and refusals that are there now, why batches failed (they are made by the next run),
    and, for a generator that starts from photographs, which of them could not be opened and why.
    """

    made: int
    refused: int
    failures: list[str]
    left_out: Mapping[int, str]


def clean_prompt(ava_id: int, caption: str) -> Prompt:
    """The prompt of a clean counterpart; another caption has another prompt_id."""
    return Prompt(prompt_id="", text=caption, pair_id=f"ava/{ava_id:07d}", role="original")


def _photograph_of(root: Path, pair_id: str) -> Image:
    return open_photograph(photograph_path(root, int(pair_id.removeprefix("ava/"))))


def _ids_with_photographs(ids: Mapping[int, str], root: Path) -> tuple[set[int], dict[int, str]]:
    """The ids whose photographs open, and why the others do not."""
    left_out: dict[int, str] = {}
    for ava_id in tqdm(ids, desc="open photographs", delay=2, leave=False, dynamic_ncols=True):
        try:
            open_photograph(photograph_path(root, ava_id))
        except InputError as error:
            left_out[ava_id] = str(error)
    return set(ids) - set(left_out), left_out


def _add_prompts(folder: Path, prompts: list[Prompt]) -> None:
    """Store the prompts that are new; RunFolderError where a photograph has another caption than before."""
    known = {prompt.pair_id: prompt.text for prompt in pipeline.read_prompts(folder)}
    for prompt in prompts:
        if (old := known.get(prompt.pair_id, prompt.text)) != prompt.text:
            raise RunFolderError(
                f"{folder}: the counterpart of {prompt.pair_id} was made from {old!r}, and its clean caption is now "
                f"{prompt.text!r}: delete the folder to make the counterparts anew"
            )
    store.append(folder, "prompts", [prompt for prompt in prompts if prompt.pair_id not in known])


def make_counterparts(
    folder: Path,
    captions: Mapping[int, str],
    model: tuple[str, Generator],
    *,
    seed: int = 0,
    root: Path | None = None,
    batch_size: int = 8,
) -> Counterparts:
    """Make what `folder` (the tables `prompts` and `images` of a run) still lacks: an image for each clean caption.

    `captions`: AVA id → clean caption; `model`: the label under which images are stored, and the generator. One that
    starts from images gets the photographs `<root>/<id>.jpg`; one that needs none gets none.
    """
    label, generator = model
    left_out: dict[int, str] = {}
    usable, open_input = set(captions), None
    if generator.needs_images:
        if root is None:
            raise InputError(f"{label} starts from photographs; name the folder that holds them with --ava-root")
        check_root(root)
        usable, left_out = _ids_with_photographs(captions, root)
        open_input = partial(_photograph_of, root)
    prompts = [clean_prompt(ava_id, captions[ava_id]) for ava_id in sorted(usable)]
    _add_prompts(folder, prompts)
    work = generation.planned(folder, label, generator, seeds=(seed,), open_input=open_input)
    failures = generation.make_images(work, group=batch_size, description=f"make counterparts: {label}")
    reasons = [failure.reason for failure in failures]
    statuses = store.read(folder, "images", ["status"])["status"].to_pylist()
    return Counterparts(statuses.count("ok"), statuses.count("refused"), reasons, left_out)
