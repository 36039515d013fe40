"""The images of one run as the inputs of another."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from widespectrum import run_models, runs, stages, store
from widespectrum.config import PromptChoice, RunConfig, parse_run_file
from widespectrum.errors import InputError, RunFolderError
from widespectrum.images import ImageReader
from widespectrum.pipeline import read_prompts
from widespectrum.prompts import open_photograph
from widespectrum.prompts.images import StoredImage
from widespectrum.run_inputs import prompts_of_run

EFFECTS = "photo-effects[size=48,strength=3]"


def wide_images(run: Path, generator: str) -> dict[str, str]:
    """pair_id → image_id of I_a, read off the tables."""
    pairs = {prompt.prompt_id: prompt.pair_id for prompt in read_prompts(run) if prompt.role == "wide_spectrum"}
    rows = store.read(run, "images", ("prompt_id", "generator", "image_id")).to_pylist()
    return {
        pairs[row["prompt_id"]]: row["image_id"]
        for row in rows
        if row["generator"] == generator and row["prompt_id"] in pairs
    }


def made(images: dict[str, str]) -> dict[str, str]:
    """Those that were not refused."""
    return {pair_id: image_id for pair_id, image_id in images.items() if image_id}


def change_images(run: Path, keep: pc.Expression) -> None:
    """Leave only some of the images in the run."""
    table = store.read(run, "images").filter(keep)
    shutil.rmtree(run / "images")
    store.append(run, "images", table)


def test_the_wide_spectrum_images_become_the_inputs(tiny_run: Path) -> None:
    found = prompts_of_run(tiny_run, generator=EFFECTS)
    expected = made(wide_images(tiny_run, EFFECTS))
    assert found.prompts == tuple(prompt for prompt in read_prompts(tiny_run) if prompt.pair_id in expected)
    assert {pair_id: image.image_id for pair_id, image in found.photographs.items()} == expected
    pair_id, image = next(iter(found.photographs.items()))
    opened = open_photograph(image)
    (stored,) = ImageReader(tiny_run).read([expected[pair_id]]).values()
    assert (opened.mode, opened.info) == ("RGB", {})
    assert np.array_equal(np.asarray(opened), np.asarray(stored))
    assert open_photograph(image) is not opened
    # Of eleven dimensions of two photographs, pixels can show six.
    assert found.notice == (
        f"inputs: 12 images under p_a by {EFFECTS}, seed 0, of {tiny_run}; "
        "left out 10 pairs without one (10 refused, 0 not made)"
    )
    whole = prompts_of_run(tiny_run, generator="identity[size=48]")
    assert whole.prompts == tuple(read_prompts(tiny_run))
    assert whole.notice == f"inputs: 22 images under p_a by identity[size=48], seed 0, of {tiny_run}"


def test_other_images_make_another_revision(tiny_run: Path) -> None:
    found, again = (prompts_of_run(tiny_run, generator=EFFECTS) for _ in range(2))
    assert found.revision == again.revision
    (one, image), (two, other), *_ = found.photographs.items()
    changed = {**found.photographs, one: other, two: image}
    assert dataclasses.replace(found, photographs=changed).revision != found.revision


def test_pairs_without_an_image_are_left_out_and_counted(run_copy: Path) -> None:
    pairs = sorted(made(wide_images(run_copy, EFFECTS)))
    prompts = {prompt.pair_id: prompt for prompt in read_prompts(run_copy) if prompt.role == "wide_spectrum"}
    change_images(run_copy, ~pc.is_in(pc.field("prompt_id"), pa.array([prompts[pair].prompt_id for pair in pairs[:2]])))
    found = prompts_of_run(run_copy, generator=EFFECTS)
    assert sorted(found.photographs) == pairs[2:]
    assert sorted({prompt.pair_id for prompt in found.prompts}) == pairs[2:]
    assert found.notice.endswith("; left out 12 pairs without one (10 refused, 2 not made)")
    change_images(run_copy, pc.field("status") == "refused")
    with pytest.raises(InputError, match="refused every wide-spectrum prompt with seed 0: nothing to start from"):
        prompts_of_run(run_copy, generator=EFFECTS)


def test_whose_images_must_be_clear(tiny_run: Path, run_copy: Path) -> None:
    with pytest.raises(
        InputError, match=r"several generators: say whose .* generator = NAME .* it has: identity\[size"
    ):
        prompts_of_run(tiny_run)
    with pytest.raises(InputError, match=r"\[prompts\] generator = 'flux': .* no images by it; it has: identity\[size"):
        prompts_of_run(tiny_run, generator="flux")
    with pytest.raises(InputError, match=r"\[prompts\] seed = 7: .* no images by photo-effects.* with it; it has: 0$"):
        prompts_of_run(tiny_run, generator=EFFECTS, seed=7)
    change_images(run_copy, pc.field("generator") == EFFECTS)
    assert prompts_of_run(run_copy).revision == prompts_of_run(tiny_run, generator=EFFECTS, seed=0).revision
    shutil.rmtree(run_copy / "images")
    with pytest.raises(InputError, match="holds no images under wide-spectrum prompts: run its generate stage first"):
        prompts_of_run(run_copy)
    with pytest.raises(RunFolderError, match=r"is no run folder: it has no manifest\.json"):
        prompts_of_run(tiny_run.parent)


def test_the_lowest_seed_is_the_default(run_copy: Path) -> None:
    change_images(run_copy, pc.field("generator") == EFFECTS)
    table = store.read(run_copy, "images")
    shutil.rmtree(run_copy / "images")
    for seed in (5, 3):
        seeds = pa.array([seed] * table.num_rows, pa.int64())
        store.append(run_copy, "images", table.set_column(3, table.schema.field("seed"), seeds))
    assert "seed 3, of" in prompts_of_run(run_copy).notice
    assert "seed 5, of" in prompts_of_run(run_copy, seed=5).notice


def test_a_run_on_the_images_of_another_one(tiny_run: Path, tmp_path: Path) -> None:
    """Identity gives back its inputs, under both prompts."""
    text = f'[prompts]\nrun = "{tiny_run}"\ngenerator = "{EFFECTS}"\n[[generators]]\nname = "identity"\nsize = 48\n'
    config = parse_run_file(text)
    assert config.prompts == PromptChoice(run=tiny_run, generator=EFFECTS)
    models, inputs = run_models.load_models(config), stages.prompt_set_of(config)
    run, said = tmp_path / "run", list[str]()
    with runs.locked(run):
        stages.start(run, config, models, inputs)
        assert not stages.generate(run, config, models, inputs, said.append)
    assert inputs.notice in said
    assert wide_images(run, "identity[size=48]") == made(wide_images(tiny_run, EFFECTS))
    image_ids = store.read(run, "images", ("image_id",))["image_id"].to_pylist()
    assert len(image_ids) == 2 * len(set(image_ids))
    assert runs.read_manifest(run).datasets == {tiny_run.name: inputs.revision}
    others = prompts_of_run(tiny_run, generator="identity[size=48]")
    with runs.locked(run), pytest.raises(RunFolderError, match=r"prompts or photographs of .* have changed"):
        stages.start(run, config, models, others)
    for change in ({"generator": "identity[size=48]"}, {"seed": 1}, {"run": tmp_path}):
        other: RunConfig = dataclasses.replace(config, prompts=dataclasses.replace(config.prompts, **change))
        with pytest.raises(RunFolderError, match="holds a run of another run file"):
            runs.check_run(run, other)


def test_a_damaged_image_is_named(run_copy: Path) -> None:
    change_images(run_copy, pc.field("generator") == EFFECTS)
    image = next(iter(prompts_of_run(run_copy).photographs.values()))
    assert isinstance(image, StoredImage)
    with pytest.raises(RunFolderError, match=r"the image 000000000000 is not in this run"):
        open_photograph(StoredImage("0" * 64, image.read))
