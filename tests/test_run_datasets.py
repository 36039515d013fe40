"""A run folder as a dataset: linked as it stands, checked, and loaded with `datasets` alone."""

import json
import os
import shutil
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from widespectrum import run_models, runs, stages, store
from widespectrum.config import parse_run_file
from widespectrum.errors import InputError, RunFolderError
from widespectrum.published import load_module
from widespectrum.publishing import read_provenance
from widespectrum.publishing.check import problems
from widespectrum.run_datasets import RunOptions, pack_run

BUILDERS = Path(__file__).resolve().parents[1] / "dataset_builders"
TABLES = ("prompts", "images", "scores", "verdicts", "abstentions", "results")
PHOTOGRAPHS = """
[prompts]
set = "photographs"

[[generators]]
name = "identity"
size = 16
"""

pytestmark = [
    # `datasets` leaves the card open, which Python reports as a ResourceWarning.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def image_pairs():
    return load_module(BUILDERS / "image_pairs" / "build.py")


@pytest.fixture
def run(finished_run, tmp_path):
    return shutil.copytree(finished_run, tmp_path / "run")


@pytest.fixture(scope="module")
def shipped(tmp_path_factory):
    """A finished run on the photographs that ship with scikit-image and scikit-learn: images, nothing scored."""
    pytest.importorskip("skimage")
    folder = tmp_path_factory.mktemp("shipped") / "run"
    config = parse_run_file(PHOTOGRAPHS)
    models, prompt_set = run_models.load_models(config), stages.prompt_set_of(config)
    with runs.locked(folder):
        stages.start(folder, config, models, prompt_set)
        assert not stages.generate(folder, config, models, prompt_set, print)
        runs.finish(folder)
    return folder


def test_parts_are_the_files_of_the_run(finished_run, tmp_path):
    out = tmp_path / "out"
    packed = pack_run(finished_run, out, TABLES, RunOptions(rights="mine"))
    assert packed.absent == [table for table in TABLES if not (finished_run / table).is_dir()]
    for table in packed.rows:
        parts = sorted((finished_run / table).glob("*.parquet"))
        made = sorted((out / table).glob("*.parquet"))
        assert [path.name for path in made] == [
            f"test-{number:05d}-of-{len(parts):05d}.parquet" for number in range(len(parts))
        ]
        assert all(one.samefile(other) for one, other in zip(parts, made, strict=True))
        assert packed.rows[table] == store.read(finished_run, table).num_rows
    assert (out / "results" / "evaluation.json").read_bytes() == (
        finished_run / "results" / "evaluation.json"
    ).read_bytes()


def test_another_disk_gets_copies(finished_run, tmp_path, monkeypatch):
    def no_link(*arguments):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", no_link)
    pack_run(finished_run, tmp_path / "out", ("images",), RunOptions(rights="mine"))
    for part, made in zip(
        store.parts(finished_run, "images"), sorted((tmp_path / "out/images").glob("*.parquet")), strict=True
    ):
        assert not part.samefile(made)
        assert part.read_bytes() == made.read_bytes()


def test_it_loads_without_this_package(finished_run, tmp_path, image_pairs):
    out = tmp_path / "out"
    said = image_pairs.build(out, run=finished_run, rights="taken by me", license="cc-by-4.0")
    assert said.startswith("prompts ")
    assert problems(out) == []
    for config in ("prompts", "images", "scores", "verdicts", "results"):
        loaded = datasets.load_dataset(str(out), config, split="test", cache_dir=str(tmp_path / "cache"))
        assert loaded.features == image_pairs.FEATURES[config]
        assert loaded.num_rows == store.read(finished_run, config).num_rows
    streamed = datasets.load_dataset(str(out), "images", split="test", streaming=True)
    first = next(row for row in streamed if row["status"] == "ok")
    assert first["image"].size == (first["width"], first["height"])
    assert datasets.load_dataset(str(out), split="test[:2]", cache_dir=str(tmp_path / "cache")).num_rows == 2
    card = (out / "README.md").read_text(encoding="utf-8")
    assert "| generator | photo-effects[size=48,strength=3] |" in card
    assert "$" not in card
    assert "**verdicts**: answers of judges" in card


def test_scores_carry_no_image(finished_run, tmp_path):
    builder = load_module(BUILDERS / "scores" / "build.py")
    out = tmp_path / "out"
    builder.build(out, run=finished_run, license="cc0-1.0")
    assert sorted(path.name for path in out.iterdir() if path.is_dir()) == ["results", "scores"]
    assert problems(out) == []
    loaded = datasets.load_dataset(str(out), "scores", split="test", cache_dir=str(tmp_path / "cache"))
    assert loaded.features == builder.FEATURES["scores"]
    assert "license: cc0-1.0" in (out / "README.md").read_text(encoding="utf-8")


def test_what_only_the_user_can_know_is_left_open(finished_run, tmp_path, image_pairs):
    out = tmp_path / "out"
    image_pairs.build(out, run=finished_run)
    found = {(problem.code, problem.where) for problem in problems(out)}
    assert ("license-missing", "scores/provenance.json") in found
    assert ("rights-unclear", "images/provenance.json") in found
    made = read_provenance(out / "images")
    assert set(made.image_rights) == {"garden.png", "street.png"}
    assert set(made.models) == {"identity[size=48]", "photo-effects[size=48,strength=3]"}
    assert set(read_provenance(out / "scores").models) > set(made.models)
    with pytest.raises(InputError, match="the rights of every image are unclear: state them with --rights"):
        pack_run(finished_run, out, TABLES, RunOptions(leave_out_unclear=True))


GIVEN = """
[prompts]
{prompts}

[[generators]]
name = "identity"
size = 16

[[generators]]
name = "folder"
folder = "{folder}"
"""


@pytest.mark.parametrize("source", ["photos", "run"])
def test_images_from_elsewhere_are_not_declared_as_made_here(run, photos, tmp_path, source):
    prompts = {
        "photos": f'set = "photographs"\nphotos = "{photos}"',
        "run": f'run = "{run}"\ngenerator = "photo-effects[size=48,strength=3]"',
    }
    (tmp_path / "given").mkdir()
    config = parse_run_file(GIVEN.format(prompts=prompts[source], folder=tmp_path / "given"), check_paths=False)
    prompt_set = stages.prompt_set_of(config)
    for prompt in prompt_set.prompts:
        shutil.copyfile(photos / "garden.png", tmp_path / "given" / f"{prompt.prompt_id}.png")
    models = run_models.load_models(config)
    made = tmp_path / "made"
    with runs.locked(made):
        stages.start(made, config, models, prompt_set)
        assert not stages.generate(made, config, models, prompt_set, print)
        runs.finish(made)
    pack_run(made, tmp_path / "out", TABLES, RunOptions())
    rights = dict(read_provenance(tmp_path / "out" / "images").image_rights)
    assert rights["folder"] == "unclear: given to the run as they are, nobody stated their rights"
    if source == "run":
        of_inputs = "unclear: made from the images of another run, nobody stated their rights"
        assert rights["identity[size=16]"] == of_inputs
    else:
        assert set(rights) == {"folder", "garden.png", "street.png"}
    pack_run(made, tmp_path / "stated", TABLES, RunOptions(rights="mine"))
    stated = read_provenance(tmp_path / "stated" / "images").image_rights
    assert set(stated.values()) == {"clear: mine"}


def test_images_of_unclear_rights_are_left_out_and_listed(shipped, tmp_path, image_pairs):
    whole, clear = tmp_path / "whole", tmp_path / "clear"
    image_pairs.build(whole, run=shipped)
    assert [problem.code for problem in problems(whole)] == ["rights-unclear"]
    assert "'motorcycle'" in problems(whole)[0].message
    said = image_pairs.build(clear, run=shipped, leave_out_unclear=True)
    # 1 caption and 13 wide-spectrum prompts; a caption has as many rows as there are pairs of it.
    assert "left out 26 images of motorcycle: unclear rights" in said
    assert "not in this run: scores, verdicts, abstentions, results" in said
    assert problems(clear) == []
    loaded = {name: datasets.Dataset.from_parquet(str(folder / "images/*.parquet"), cache_dir=str(tmp_path / "cache"))
              for name, folder in (("whole", whole), ("clear", clear))}  # fmt: skip
    subset = {row["prompt_id"]: row["subset"] for row in store.read(shipped, "prompts").to_pylist()}
    expected = [row for row in loaded["whole"].to_list() if subset[row["prompt_id"]] != "motorcycle"]
    assert loaded["clear"].to_list() == expected
    assert loaded["clear"].features == image_pairs.FEATURES["images"]
    assert "motorcycle" not in read_provenance(clear / "images").image_rights
    assert read_provenance(clear / "images").options["left_out"] == {"motorcycle": 26}
    assert "left out 26 images of motorcycle" in (clear / "README.md").read_text(encoding="utf-8")


def test_a_rebuild_replaces_the_parts_of_an_earlier_one(shipped, tmp_path):
    out = tmp_path / "out"
    pack_run(shipped, out, TABLES, RunOptions())
    pack_run(shipped, out, TABLES, RunOptions(leave_out_unclear=True))
    pack_run(shipped, out, TABLES, RunOptions())
    before = sorted(path for path in out.rglob("*") if path.is_file())
    assert not [path for path in before if path.name.startswith(".tmp-")]
    (out / "images" / "test-00000-of-00099.parquet").write_bytes(b"")
    shutil.copytree(out / "prompts", out / "scores")
    pack_run(shipped, out, TABLES, RunOptions())
    assert sorted(path for path in out.rglob("*") if path.is_file()) == before


def change_image(run):
    """Store other bytes under the id of the first image, with sound checksums."""
    path = store.parts(run, "images")[0]
    rows = pq.read_table(path).to_pylist()
    rows[0]["image"]["bytes"] += b"\0"
    pq.write_table(pa.Table.from_pylist(rows, schema=store.SCHEMAS["images"]), path)


def flip_byte(run):
    path = store.parts(run, "scores")[0]
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)


def drop_column(run):
    path = store.parts(run, "scores")[0]
    pq.write_table(pq.read_table(path).drop_columns(["truncated"]), path)


def add_scores(run):
    table = store.read(run, "scores").slice(0, 1)
    store.append(run, "scores", table.set_column(7, "reward_model", pa.array(["another"])))


def unfinish(run):
    manifest = json.loads((run / "manifest.json").read_text())
    (run / "manifest.json").write_text(json.dumps({**manifest, "status": "started"}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (unfinish, "is not finished: run `widespectrum run "),
        (add_scores, "are older than its tables or its [evaluate] settings: run `widespectrum evaluate "),
        (change_image, "are not the ones that were written: delete the file and run again"),
        (flip_byte, "part-000000-"),
        (drop_column, "has the columns ['pair_id', "),
        (
            lambda run: (run / "results/results.parquet").unlink(),
            "results.parquet is missing: run `widespectrum evaluate",
        ),
    ],
)
def test_a_run_that_is_not_in_order_is_refused_and_nothing_is_written(run, tmp_path, damage, message):
    damage(run)
    with pytest.raises(RunFolderError) as error:
        pack_run(run, tmp_path / "out", TABLES, RunOptions(rights="mine"))
    assert message in str(error.value)
    assert not (tmp_path / "out").exists()


def test_wrong_places(run, tmp_path):
    with pytest.raises(
        InputError, match=r"is no run folder: it has no manifest\.json; give the folder of a finished run"
    ):
        pack_run(tmp_path, tmp_path / "out", TABLES, RunOptions())
    assert not (tmp_path / ".lock").exists()
    with pytest.raises(InputError, match=r"lies inside the run .*: choose another folder with --out"):
        pack_run(run, run / "out", TABLES, RunOptions())
    shutil.rmtree(run / "scores")
    shutil.rmtree(run / "results")
    with pytest.raises(RunFolderError, match="holds none of scores, results: run `widespectrum run"):
        pack_run(run, tmp_path / "out", ("scores", "results"), RunOptions())
