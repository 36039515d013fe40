"""The arrows between modules point one way, from the bottom of the table below to its top."""

import ast
import graphlib
import sys
from pathlib import Path

import pytest

import widespectrum

PACKAGE = Path(widespectrum.__file__).parent
ROOT = Path(__file__).resolve().parents[1]

LAYERS = (
    ("functional",),
    ("errors", "specs", "types"),
    (
        *("_compat", "attach", "budget", "chat", "config", "devices", "embedding_models", "embedding_towers", "hub"),
        *("hub_errors", "hub_plan", "images", "option_table", "prompt_choice", "prompts", "protocols", "published"),
        *("publishing", "registry", "store", "toml_reader", "vendor"),
    ),
    ("engine", "generators", "judges", "rewards"),
    (
        *("columns", "comparisons", "doses", "emotion_faces", "estimates", "expense", "generation", "importers"),
        *("judge_estimates", "judging", "outcomes", "pipeline", "repeats", "results", "run_inputs", "runs", "scoring"),
    ),
    (
        *("annotate", "authors", "ava", "controlled", "judge_report", "lapis", "photo_prompts"),
        *("check", "power", "report", "run_datasets", "run_models", "score_files", "stages", "tables"),
        *("thumbnails", "train_judge"),
    ),
    ("emotion_edits", "prompt_cards"),
    ("picture_configs",),
    (
        *(
            "__main__",
            "cli",
            "cli_annotate",
            "cli_build",
            "cli_generate",
            "cli_import",
            "cli_judge",
            "cli_judge_report",
        ),
        *("cli_models", "cli_power", "cli_publish", "cli_score", "cli_shared", "cli_train"),
    ),
)
"""Modules and sub-packages of widespectrum; one may import its own layer and those above it in this table."""

LEVEL = {unit: level for level, layer in enumerate(LAYERS) for unit in layer}

PUBLISHED = ("cards", "dataset_builders", "leaderboard", "metrics")
METRICS_MAY_IMPORT = {"datasets", "evaluate", "numpy", "scipy"}


def module_name(path):
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py")) if "_published" not in path.parts}


def imported(path, package=""):
    """(module, names) of every import in a file, wherever it stands; relative ones are made absolute."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, []) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            yield ".".join([*above, *([node.module] if node.module else [])]), [alias.name for alias in node.names]


def own_imports(name):
    """The modules of this package that a module imports; its face, `widespectrum` itself, is looked at further down."""
    path = MODULES[name]
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found = set()
    for module, names in imported(path, package):
        if module.partition(".")[0] == "widespectrum":
            found |= {f"{module}.{each}" if f"{module}.{each}" in MODULES else module for each in names} or {module}
    return found - {"widespectrum"}


def unit(module):
    """The line of the table to which a module belongs."""
    return module.split(".")[1]


BELOW_ROOT = [name for name in MODULES if name != "widespectrum"]


def test_every_module_has_its_layer():
    assert {unit(name) for name in BELOW_ROOT} == set(LEVEL)
    assert len(LEVEL) == sum(map(len, LAYERS))


@pytest.mark.parametrize("name", BELOW_ROOT)
def test_imports_point_up_the_table(name):
    for target in own_imports(name):
        assert LEVEL[unit(target)] <= LEVEL[unit(name)], f"{name} imports {target}"


def test_the_kernels_import_nothing_of_the_package_and_the_records_only_the_errors():
    for name in BELOW_ROOT:
        own = {unit(target) for target in own_imports(name)}
        if name.startswith("widespectrum.functional"):
            assert own <= {"functional"}
        if name == "widespectrum.errors":
            assert own == set()
        if name in ("widespectrum.specs", "widespectrum.types"):
            assert own <= {"errors", "specs"}


def outside_imports(path):
    """What a file imports from outside the standard library and its own package."""
    found = {module.partition(".")[0] for module, _ in imported(path, "widespectrum.x.y")}
    return found - sys.stdlib_module_names - {"widespectrum"}


def test_what_the_lowest_layers_import_from_outside():
    for name, path in MODULES.items():
        if name.startswith("widespectrum.functional"):
            assert outside_imports(path) <= {"numpy", "scipy"}, name
        if name in ("widespectrum", "widespectrum.errors", "widespectrum.types", "widespectrum.config"):
            assert outside_imports(path) == set(), name


def test_there_is_no_cycle():
    graph = {name: own_imports(name) for name in BELOW_ROOT}
    order = list(graphlib.TopologicalSorter(graph).static_order())
    assert set(order) == set(BELOW_ROOT)


def test_of_the_face_of_the_package_modules_take_the_version_alone():
    for name in BELOW_ROOT:
        path = MODULES[name]
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        for module, names in imported(path, package):
            if module == "widespectrum":
                assert names, f"{name} imports widespectrum as a whole"
                taken = {each for each in names if f"widespectrum.{each}" not in MODULES}
                assert taken <= {"__version__"}, f"{name} imports {taken} from widespectrum"


def test_the_package_does_not_import_what_it_publishes():
    for name, path in MODULES.items():
        assert not {module.partition(".")[0] for module, _ in imported(path, name)} & set(PUBLISHED), name


PAGES = ("app.py", "page.py")
METRIC_FILES = [path for path in sorted((ROOT / "metrics").glob("*/*.py")) if path.name not in PAGES]


@pytest.mark.parametrize("path", METRIC_FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_metrics_import_neither_the_package_nor_anything_heavy(path):
    siblings = {file.stem for file in path.parent.glob("*.py")}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            assert node.level == 1
            assert node.module in siblings
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            outside = {name.partition(".")[0] for name in names} - sys.stdlib_module_names
            assert outside <= METRICS_MAY_IMPORT


def test_there_are_metrics_and_their_pages_do_not_import_the_package():
    assert len({path.parent for path in METRIC_FILES}) >= 3
    for page in (path for name in PAGES for path in (ROOT / "metrics").glob(f"*/{name}")):
        outside = {module.partition(".")[0] for module, _ in imported(page)} - sys.stdlib_module_names
        assert outside <= METRICS_MAY_IMPORT | {"gradio", "matplotlib", "page", "pandas"}
