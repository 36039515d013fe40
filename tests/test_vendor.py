"""The copies of the kernels in the metric folders."""

import hashlib
import shutil
from pathlib import Path

import pytest

from widespectrum import vendor
from widespectrum.errors import InputError


@pytest.fixture
def project(tmp_path):
    """A metric whose kernel imports a sibling, with its copies made."""
    kernels, metrics = tmp_path / "functional", tmp_path / "metrics"
    kernels.mkdir()
    (metrics / "m").mkdir(parents=True)
    (kernels / "_a.py").write_text("from ._b import b\n\na = b\n")
    (kernels / "_b.py").write_text("b = 1\n")
    (metrics / "m" / "m.py").write_text("from ._a import a\nfrom ._b import b\n")
    vendor.write(metrics, kernels)
    return metrics, kernels


def test_the_copies_in_this_repository_are_equal():
    assert vendor.check() == []


def test_write_makes_equal_copies_and_then_changes_nothing(project):
    metrics, kernels = project
    for name in ("_a.py", "_b.py"):
        assert (metrics / "m" / name).read_bytes() == (kernels / name).read_bytes()
    assert vendor.check(metrics, kernels) == []
    assert vendor.write(metrics, kernels) == []


def test_check_reports_each_differing_missing_and_superfluous_copy(project):
    metrics, kernels = project
    (metrics / "m" / "_a.py").write_text("a = 2\n")
    (metrics / "m" / "_b.py").unlink()
    (metrics / "m" / "_old.py").write_text("")
    assert vendor.check(metrics, kernels) == [
        "m/_b.py is missing",
        "m/_old.py is superfluous: m.py does not import it",
        "m/_a.py differs from functional/_a.py",
    ]
    assert {path.name for path in vendor.write(metrics, kernels)} == {"_a.py", "_b.py", "_old.py"}
    assert vendor.check(metrics, kernels) == []


def test_a_kernel_that_a_kernel_needs_must_be_named(project):
    metrics, kernels = project
    (metrics / "m" / "m.py").write_text("from ._a import a\n")
    assert "m/m.py: functional/_a.py imports '_b'; import a name from it in m.py too" in vendor.check(metrics, kernels)
    with pytest.raises(InputError, match="imports '_b'"):
        vendor.write(metrics, kernels)


@pytest.mark.parametrize(
    "line",
    [
        "from ._b import b  # comment",
        "from ._b import (b)",
        "from . import _b",
        "if True:\n    from ._b import b",
    ],
)
def test_imports_that_evaluate_does_not_see_are_reported(project, line):
    metrics, kernels = project
    (metrics / "m" / "m.py").write_text(f"from ._a import a\n{line}\n")
    assert any("as one line `from ._" in problem for problem in vendor.check(metrics, kernels))


def test_an_unknown_kernel_is_reported(project):
    metrics, kernels = project
    (metrics / "m" / "m.py").write_text("from ._zzz import z\n")
    assert "m/m.py: imports '_zzz', but there is no functional/_zzz.py" in vendor.check(metrics, kernels)


def test_a_folder_without_its_script_is_an_error(project):
    metrics, kernels = project
    (metrics / "n").mkdir()
    with pytest.raises(InputError, match=r"n/n\.py, found none"):
        vendor.check(metrics, kernels)


def test_without_a_clone_the_command_says_so(project, monkeypatch, capsys):
    monkeypatch.setattr(vendor, "METRICS", Path("/nowhere/metrics"))
    assert vendor.main(["--check"]) == 2
    assert "run this from a clone" in capsys.readouterr().err


def test_the_command_checks_and_writes(project, monkeypatch, capsys):
    metrics, kernels = project
    monkeypatch.setattr(vendor, "METRICS", metrics)
    monkeypatch.setattr(vendor, "KERNELS", kernels)
    assert vendor.main(["--check"]) == 0
    (metrics / "m" / "_b.py").write_text("b = 3\n")
    assert vendor.main(["--check"]) == 1
    assert "m/_b.py differs" in capsys.readouterr().out
    assert vendor.main([]) == 0
    assert "wrote m/_b.py" in capsys.readouterr().out
    assert vendor.main(["--check"]) == 0


def test_the_digest_changes_with_the_source_and_with_nothing_else(tmp_path, monkeypatch):
    original = vendor.functional_digest()
    assert len(original) == 64
    copy = tmp_path / "functional"
    shutil.copytree(vendor.KERNELS, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(vendor, "KERNELS", copy)
    assert vendor.functional_digest() == original
    (copy / "notes.txt").write_text("no source")
    assert vendor.functional_digest() == original
    (copy / "_auroc.py").write_bytes((copy / "_auroc.py").read_bytes() + b"\n")
    assert vendor.functional_digest() != original
    assert vendor.functional_digest() != hashlib.sha256().hexdigest()
