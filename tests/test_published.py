import sys

import pytest

from widespectrum import published
from widespectrum.errors import InputError
from widespectrum.published import load_module, metric_path, published_path


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """The folder of an installed package, without a clone around it."""
    package = tmp_path / "lib" / "site-packages" / "widespectrum"
    package.mkdir(parents=True)
    monkeypatch.setattr(published, "_PACKAGE", package)
    return package


def test_the_folders_of_the_clone_are_found():
    for kind in ("cards", "dataset_builders", "leaderboard", "metrics"):
        assert published_path(kind).is_dir()
        assert published_path(kind).name == kind
    assert (published_path("dataset_builders", "wide_spectrum_prompts") / "build.py").is_file()
    assert metric_path("reward_bias") == str(published_path("metrics") / "reward_bias")


def test_the_wheel_carries_a_copy(installed):
    (installed / "_published" / "metrics" / "x").mkdir(parents=True)
    assert published_path("metrics", "x") == installed / "_published" / "metrics" / "x"


def test_an_installation_without_them_says_so(installed):
    with pytest.raises(InputError, match="this installation carries no metrics: reinstall widespectrum"):
        published_path("metrics")


@pytest.mark.parametrize("name", ["", ".", "..", "../metrics", "reward", "__pycache__", "/", "reward_bias/app.py"])
def test_an_unknown_name_lists_the_known_ones(name):
    with pytest.raises(InputError) as error:
        published_path("metrics", name)
    known = sorted(path.name for path in published_path("metrics").iterdir() if path.name[0] != "_")
    assert str(error.value) == f"unknown name {name!r} in metrics; expected one of {', '.join(known)}"
    assert "reward_bias" in known


def test_a_module_is_loaded_by_its_path(tmp_path):
    file = tmp_path / "things" / "build.py"
    file.parent.mkdir()
    file.write_text("ANSWER = 42\nhere = __file__\n")
    module = load_module(file)
    assert module.ANSWER == 42
    assert module.here == str(file)
    assert sys.modules.pop(module.__name__) is module
    assert "build" not in sys.modules


def test_what_is_no_module(tmp_path):
    with pytest.raises(InputError, match="is not a Python file"):
        load_module(tmp_path / "build.txt")
