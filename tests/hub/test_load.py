"""Published with the command line, read by a process that knows the Hub's address and nothing of this package."""

import hashlib
import json
import os
from pathlib import Path

import datasets
import numpy as np
import PIL.Image
import pytest
from reader import digest
from typer.testing import CliRunner

from tests.ava.made import make_ava
from tests.ava.made import select as select_planted
from tests.lapis.made import make_copy
from widespectrum import __version__, controlled
from widespectrum.cli import app
from widespectrum.hub_plan import select
from widespectrum.prompts.private import SECRET
from widespectrum.published import load_module, published_path
from widespectrum.publishing import Provenance, save_config

READER = Path(__file__).with_name("reader.py")
STRANGER = {name: None for name in os.environ if name.startswith("HF_")} | {
    "HF_TOKEN": None,
    "HF_HUB_DISABLE_XET": None,
    "HF_UPDATE_DOWNLOAD_COUNTS": "0",
}
CARD = """---
license: cc-by-4.0
configs:
- config_name: prompts
  default: true
  data_files:
  - {split: test, path: prompts/test-*.parquet}
  - {split: lite, path: prompts/lite-*.parquet}
- config_name: images
  data_files:
  - {split: test, path: images/test-*.parquet}
---

# A small dataset
"""


def build_small(out):
    """A dataset of two configs, one with images."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (5, 12, 16, 3), dtype=np.uint8)
    features = datasets.Features(
        {"text": datasets.Value("string"), "dimensions": datasets.List(datasets.Value("string"))}
    )
    rows = [{"text": f"a café, number {number}", "dimensions": ["color"] * number} for number in range(7)]
    prompts = datasets.Dataset.from_list(rows, features=features)
    images = datasets.Dataset.from_dict(
        {"image": [PIL.Image.fromarray(each) for each in pixels], "pair_id": list("abcde")},
        features=datasets.Features({"image": datasets.Image(), "pair_id": datasets.Value("string")}),
    )
    terms = {"license": "cc-by-4.0", "license_reason": "made here"}
    splits = {"test": prompts, "lite": prompts.select(range(2))}
    save_config(out, "prompts", splits, Provenance(**terms))
    rights = {"all": "clear: drawn by a random generator"}
    save_config(out, "images", {"test": images}, Provenance(**terms, image_rights=rights))
    (out / "README.md").write_text(CARD)
    files = sorted(path.relative_to(out).as_posix() for path in out.glob("*/*.parquet"))
    listed = [{"@id": name, "sha256": hashlib.sha256((out / name).read_bytes()).hexdigest()} for name in files]
    (out / "croissant.json").write_text(json.dumps({"distribution": listed}))


def command(*arguments):
    return CliRunner().invoke(app, [*map(str, arguments)])


def build(name, out, *options):
    done = command("build", name, "--out", out, *options)
    assert done.exit_code == 0, done.output


def build_prompts(out, given):
    """The configs that need nothing of the user's; `controlled` on one photograph of the smallest size."""
    photos = given("tmp_path") / "photos"
    photos.mkdir()
    garden = PIL.Image.open(given("photos") / "garden.png")
    garden.resize((controlled.SMALLEST, 96)).save(photos / "garden.png")
    own = ("--photos", photos, "--rights", "taken by me, CC BY 4.0")
    build("wide_spectrum_prompts", out, "--size", controlled.SMALLEST, *own)


def build_private(out, given):
    given("monkeypatch").setenv(SECRET, "correct horse battery staple, and more")
    captions = given("tmp_path") / "captions_mine.json"
    texts = [f"A {noun} waits near a {place}." for noun in ("dog", "girl", "horse") for place in ("bridge", "lake")]
    entries = [{"id": number, "image_id": number, "caption": text} for number, text in enumerate(texts)]
    captions.write_text(json.dumps({"annotations": entries}))
    wanted = ("--config", "private", "--captions", captions, "--pairs", 4, "--rotation", "2026-12")
    build("wide_spectrum_prompts", out, *wanted)


def build_ava(out, given, model="transformers:tiny@v1"):
    ava = make_ava(given("tmp_path"), model)
    module = load_module(published_path("dataset_builders", "ava_anti_aesthetic") / "build.py")
    module.read(ava / "AVA.txt", out)
    select_planted(module, ava, out)
    build("ava_anti_aesthetic", out)


def build_unpinned(out, given):
    build_ava(out, given, model="transformers:tiny")


def build_lapis(out, given):
    copy = make_copy(given("tmp_path") / "LAPIS")
    build("lapis_subset", out, "--lapis-root", copy)
    build("lapis_subset", out, "--lapis-root", copy, "--size", 120)


def build_pairs(out, given):
    build("image_pairs", out, "--run", given("finished_run"), "--rights", "taken by me", "--license", "cc-by-4.0")


def build_unclear(out, given):
    build("image_pairs", out, "--run", given("finished_run"), "--license", "cc-by-4.0")


def build_scores(out, given):
    build("scores", out, "--run", given("finished_run"), "--license", "cc0-1.0")


DATASETS = {
    "wide_spectrum_prompts": (build_prompts, "authored", 6),
    "ava_anti_aesthetic": (build_ava, "photographs", 2),
    "lapis_subset": (build_lapis, "subset", 2),
    "image_pairs": (build_pairs, "images", 6),
    "scores": (build_scores, "scores", 2),
}
"""How each dataset is built from what is at hand, its default config, and how many configs it has."""


def said(done):
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def local_digests(folder):
    """What reader.py is to find, from the Parquet files as they lie here."""
    found = {}
    for path in sorted(folder.glob("*/*.parquet")):
        split = f"{path.parent.name}/{path.name.partition('-')[0]}"
        found.setdefault(split, []).append(str(path))
    return {
        split: datasets.Dataset.from_parquet(paths, cache_dir=str(folder / ".cache")) for split, paths in found.items()
    }


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
@pytest.mark.parametrize("name", DATASETS)
def test_a_dataset_is_built_published_and_read_in_every_way(here, hub, run, request, tmp_path, name):
    make, default, configs = DATASETS[name]
    folder = tmp_path / "build"
    make(folder, request.getfixturevalue)
    done = command("publish", name, "--repo", f"acme/{name}", "--from", folder)
    assert done.exit_code == 0, done.output
    repo = hub.repo("datasets", f"acme/{name}")
    head = repo.at("main").oid
    assert done.stdout.endswith(f"published: {hub.url}/datasets/acme/{name}/tree/v{__version__} (commit {head})\n")
    read = said(run(READER, "dataset", f"acme/{name}", f"v{__version__}", head, **STRANGER))
    local = local_digests(folder)
    assert read["splits"].keys() == local.keys()
    for split, table in local.items():
        rows = digest(table)
        assert read["splits"][split] == {
            "features": str(table.features),
            **dict.fromkeys(("rows", "streamed", "tag", "sha"), rows),
            "slice": digest(table.select(range(min(2, len(table))))),
        }
    assert len({split.partition("/")[0] for split in local}) == configs
    assert {f"{default}/{split}": rows for split, rows in read["default"].items()} == {
        split: each["rows"] for split, each in read["splits"].items() if split.startswith(f"{default}/")
    }
    files = select(folder, "dataset").files
    assert {path: sha for path, sha in read["files"].items() if path != ".gitattributes"} == {
        path: file.sha256 for path, file in files.items()
    }


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("wide_spectrum_prompts", build_private, "private: a private split must stay private; publish its commitment"),
        ("image_pairs", build_unclear, "images/provenance.json: images of 'garden.png': unclear: "),
        ("ava_anti_aesthetic", build_unpinned, "photographs/provenance.json: model 'embeddings' is not pinned to a re"),
    ],
    ids=["private", "unclear rights", "unpinned model"],
)
def test_what_must_not_go_out_is_refused(here, hub, request, tmp_path, name, make, message):
    folder = tmp_path / "build"
    make(folder, request.getfixturevalue)
    done = command("publish", name, "--repo", f"acme/{name}", "--from", folder)
    *found, last = done.stderr.splitlines()
    assert (done.exit_code, hub.log) == (2, [])
    assert [line for line in found if line.startswith(message)], found
    assert last.endswith("so nothing was sent")


def test_every_metric_is_published_and_computes_for_a_stranger(here, hub, run):
    folders = sorted(path.parent for path in published_path("metrics").glob("*/README.md"))
    names = [folder.name for folder in folders]
    for name in names:
        done = command("publish", name, "--repo", f"acme/{name}")
        assert done.exit_code == 0, done.output
    read = said(run(READER, "metrics", __version__, *[f"acme/{name}" for name in names], **STRANGER))
    for folder in folders:
        cases = load_module(folder / "tests.py").test_cases
        for case, result in zip([*cases, cases[0]], read[f"acme/{folder.name}"], strict=True):
            wanted = case["result"]
            assert {key: result[key] for key in wanted} == pytest.approx(wanted, abs=1e-9, nan_ok=True)
        repo = hub.repo("spaces", f"acme/{folder.name}")
        wanted = {path.name for path in folder.iterdir() if path.is_file()} | {".gitattributes"}
        assert (repo.files.keys(), repo.sdk, set(repo.tags)) == (wanted, "gradio", {f"v{__version__}"})


def test_without_xet_and_large_file_storage(hub, run, tmp_path):
    build_small(tmp_path / "build")
    hub.api.lfs = False
    options = ("--repo", "acme/small", "--from", tmp_path / "build")
    done = run("-m", "widespectrum", "publish", "wide_spectrum_prompts", *options, HF_HUB_DISABLE_XET=None)
    assert done.returncode == 0, done.stderr
    assert hub.count("POST", "/objects/batch") == 0
    assert hub.count("GET", "xet") == 0
    assert len(hub.repo("datasets", "acme/small").files) == 8
