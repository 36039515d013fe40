from __future__ import annotations

from pathlib import Path

import pytest

from tests.generators.made_z_image import checkpoint
from tests.generators.modern import FAMILIES, ORIGINAL, WIDE, counted, load


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("z-image") / "pipeline")


@pytest.mark.parametrize(("name", "images_per_pass"), [("z-image-turbo", 1), ("z-image", 2)])
def test_turbo_computes_once_per_step(name: str, images_per_pass: int, folder: Path) -> None:
    generator = load(FAMILIES[name], folder, steps=8)
    passes = counted(generator.pipeline.transformer)
    generator.generate([ORIGINAL], seeds=[0])
    assert len(passes) == 8
    assert {len(each["args"][0]) for each in passes} == {images_per_pass}


def test_turbo_takes_eight_steps_without_guidance(folder: Path) -> None:
    generator = load(FAMILIES["z-image-turbo"], folder)
    assert generator.guidance == 0
    assert load(FAMILIES["z-image"], folder).guidance == 3.5


def test_prompts_are_not_changed_by_the_pipeline(folder: Path) -> None:
    # It writes the chat into the list of prompts that it is given.
    generator = load(FAMILIES["z-image"], folder)
    prompts = [ORIGINAL, WIDE]
    generator.generate(prompts, seeds=[0, 0])
    assert prompts == [ORIGINAL, WIDE]
