"""What the wheel carries: the package, its data, and the published folders."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(folder)]
    subprocess.run([*command, str(ROOT)], check=True, timeout=120)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def python(unpacked, code):
    """Run `code` against the unpacked wheel, away from the clone."""
    environment = {**os.environ, "PYTHONPATH": str(unpacked)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=unpacked, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_published_folders_are_found_inside_the_wheel(unpacked):
    code = "import widespectrum as w; print(w.__file__); print(w.metric_path('reward_bias'))"
    module, metric = python(unpacked, code).splitlines()
    assert Path(module).is_relative_to(unpacked)
    assert Path(metric) == unpacked / "widespectrum" / "_published" / "metrics" / "reward_bias"
    assert (Path(metric) / "_reward_bias.py").is_file()


def test_a_metric_a_builder_and_the_ranking_run_from_the_wheel(unpacked, tmp_path):
    code = f"""
from pathlib import Path
import evaluate
from widespectrum import metric_path
from widespectrum.published import load_module, published_path
result = evaluate.load(metric_path("reward_bias")).compute(r_io_po=[4], r_io_pa=[3], r_ia_po=[1], r_ia_pa=[4])
out = Path({str(tmp_path)!r})
builder = load_module(published_path("dataset_builders", "wide_spectrum_prompts") / "build.py")
made = builder.build(out / "prompts", config=["emotion"])
load_module(published_path("leaderboard") / "rank.py").rank([], out=out / "ranking")
print(result["both_ways_accuracy"], made.num_rows)
"""
    assert python(unpacked, code).splitlines()[-1] == "1.0 {'test': 180, 'reverse': 150}"
    assert (tmp_path / "ranking" / "ranking.md").is_file()
    assert sorted(path.name for path in (tmp_path / "prompts").iterdir()) == ["README.md", "croissant.json", "emotion"]


def files_of(root):
    """The files of a folder, without what Python and editors leave behind."""
    found = (path.relative_to(root) for path in root.rglob("*") if path.is_file())
    return {path for path in found if "__pycache__" not in path.parts and not path.name.startswith(".")}


def test_data_files_are_there(unpacked):
    source = files_of(ROOT / "src" / "widespectrum")
    data = {path.as_posix() for path in source if path.suffix != ".py"}
    assert {"py.typed", "demo.toml", "prompts/photographs.json", "prompts/stop_words.txt", "ava/queries.json"} <= data
    packed = files_of(unpacked / "widespectrum")
    assert source == {path for path in packed if path.parts[0] != "_published"}


@pytest.mark.parametrize("folder", ["cards", "dataset_builders", "leaderboard", "metrics"])
def test_published_folders_are_whole(unpacked, folder):
    assert files_of(unpacked / "widespectrum" / "_published" / folder) == files_of(ROOT / folder)
