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

from widespectrum import __version__
from widespectrum.cli import app
from widespectrum.hub_plan import select
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


def datasets_to_publish():
    """(name, how to build it into a folder) of every dataset that goes through the whole way."""
    return [("wide_spectrum_prompts", build_small)]


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


@pytest.mark.parametrize(("name", "build"), datasets_to_publish(), ids=lambda value: getattr(value, "__name__", value))
def test_a_dataset_is_published_and_read_in_every_way(hub, run, tmp_path, name, build):
    folder = tmp_path / "build"
    folder.mkdir()
    build(folder)
    done = run("-m", "widespectrum", "publish", name, "--repo", f"acme/{name}", "--from", folder)
    assert done.returncode == 0, done.stderr
    repo = hub.repo("datasets", f"acme/{name}")
    head = repo.at("main").oid
    assert done.stdout.endswith(f"published: {hub.url}/datasets/acme/{name}/tree/v{__version__} (commit {head})\n")
    read = said(run(READER, "dataset", f"acme/{name}", f"v{__version__}", head, **STRANGER))
    here = local_digests(folder)
    assert read["splits"].keys() == here.keys()
    for split, table in here.items():
        rows = digest(table)
        assert read["splits"][split] == {
            "features": str(table.features),
            **dict.fromkeys(("rows", "streamed", "tag", "sha"), rows),
            "slice": digest(table.select(range(min(2, len(table))))),
        }
    assert set(read["default"].values()) <= {each["rows"] for each in read["splits"].values()}
    files = select(folder, "dataset").files
    assert {path: sha for path, sha in read["files"].items() if path != ".gitattributes"} == {
        path: file.sha256 for path, file in files.items()
    }


def test_every_metric_is_published_and_computes_for_a_stranger(here, hub, run):
    folders = sorted(path.parent for path in published_path("metrics").glob("*/README.md"))
    names = [folder.name for folder in folders]
    for name in names:
        done = CliRunner().invoke(app, ["publish", name, "--repo", f"acme/{name}"])
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
