"""Keeps the kernel copies in `metrics/*` equal to their source: `python -m widespectrum.vendor [--check]`.

A metric folder must work with nothing of this package installed, so it carries copies of the kernels. Which ones is
read from the metric script's own `from ._x import ...` lines, the only form that `evaluate` recognises; since it does
not follow the imports of a copied file, the script must name every kernel that its kernels need.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from .errors import InputError

__all__ = ["check", "functional_digest", "main", "write"]

KERNELS = Path(__file__).parent / "functional"
METRICS = Path(__file__).parents[2] / "metrics"

# a comment after the names makes `evaluate` look for a download address there
_EVALUATE_IMPORT = re.compile(r"^from \.(\w+) import \w+(?: as \w+)?(?:, \w+(?: as \w+)?)*$", re.MULTILINE)


def functional_digest() -> str:
    """sha256 over the names and bytes of the kernels' source files, in order of their names."""
    total = hashlib.sha256()
    for path in sorted(KERNELS.glob("*.py")):
        total.update(f"{path.name} {path.stat().st_size}\n".encode())
        total.update(path.read_bytes())
    return total.hexdigest()


def _relative_imports(path: Path) -> set[str]:
    """The sibling modules that a file imports, however it is written; `from . import x` counts as ''."""
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    return {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level}


def _named_kernels(script: Path) -> set[str]:
    """The kernels that `evaluate` will find in a metric script."""
    return set(_EVALUATE_IMPORT.findall(script.read_text(encoding="utf-8")))


def _script_problems(script: Path, kernels: Path) -> list[str]:
    """What keeps `evaluate` from loading a script together with its kernels."""
    named = _named_kernels(script)
    where = f"{script.parent.name}/{script.name}"
    problems = [
        f"{where}: write the import of {name or 'a sibling'!r} as one line `from .{name or '_x'} import a, b` at "
        "column 0 without a comment"
        for name in sorted(_relative_imports(script) - named)
    ]
    for name in sorted(named):
        source = kernels / f"{name}.py"
        if not source.is_file():
            problems.append(f"{where}: imports {name!r}, but there is no functional/{name}.py")
            continue
        problems += [
            f"{where}: functional/{name}.py imports {needed or '.'!r}; import a name from it in {script.name} too"
            for needed in sorted(_relative_imports(source) - named)
        ]
    return problems


def _scripts(metrics: Path) -> list[Path]:
    """The script of every metric folder: the file called like its folder."""
    if not metrics.is_dir():
        raise InputError(f"expected the metric folders in {metrics}; run this from a clone of the repository")
    folders = sorted(path for path in metrics.iterdir() if path.is_dir() and not path.name.startswith((".", "__")))
    for folder in folders:
        if not (folder / f"{folder.name}.py").is_file():
            raise InputError(f"expected the metric script {folder.name}/{folder.name}.py, found none; add it")
    return [folder / f"{folder.name}.py" for folder in folders]


def _copies(script: Path) -> set[str]:
    return {path.stem for path in script.parent.glob("_*.py")}


def check(metrics: Path | None = None, kernels: Path | None = None) -> list[str]:
    """One sentence per copy that differs, is missing or is superfluous, and per import that cannot load."""
    metrics, kernels = metrics or METRICS, kernels or KERNELS
    problems = []
    for script in _scripts(metrics):
        problems += _script_problems(script, kernels)
        named, copies = _named_kernels(script), _copies(script)
        folder = script.parent
        problems += [f"{folder.name}/{name}.py is missing" for name in sorted(named - copies)]
        problems += [
            f"{folder.name}/{name}.py is superfluous: {script.name} does not import it"
            for name in sorted(copies - named)
        ]
        for name in sorted(named & copies):
            source = kernels / f"{name}.py"
            if source.is_file() and source.read_bytes() != (folder / f"{name}.py").read_bytes():
                problems.append(f"{folder.name}/{name}.py differs from functional/{name}.py")
    return problems


def write(metrics: Path | None = None, kernels: Path | None = None) -> list[Path]:
    """Makes the copies equal to their source and removes superfluous ones; returns the files that changed."""
    metrics, kernels = metrics or METRICS, kernels or KERNELS
    changed = []
    for script in _scripts(metrics):
        problems = _script_problems(script, kernels)
        if problems:
            raise InputError("; ".join(problems))
        named = _named_kernels(script)
        for name in sorted(_copies(script) - named):
            changed.append(script.with_name(f"{name}.py"))
            changed[-1].unlink()
        for name in sorted(named):
            source, copy = (kernels / f"{name}.py").read_bytes(), script.with_name(f"{name}.py")
            if not copy.is_file() or copy.read_bytes() != source:
                copy.write_bytes(source)
                changed.append(copy)
    return changed


def main(arguments: Sequence[str] | None = None) -> int:
    """The command: writes the copies, or with `--check` reports what is wrong and returns 1."""
    parser = argparse.ArgumentParser(prog="python -m widespectrum.vendor", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; report each wrong copy and exit with 1")
    options = parser.parse_args(arguments)
    try:
        lines = check() if options.check else [f"wrote {path.parent.name}/{path.name}" for path in write()]
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    print("\n".join(lines) or "every copy equals its source")
    if options.check and lines:
        print("run `python -m widespectrum.vendor` to make the copies anew")
    return int(options.check and bool(lines))


if __name__ == "__main__":
    raise SystemExit(main())
