"""Every public name is listed, in order, and says what it is."""

import ast
import importlib
import re
from pathlib import Path

import pytest

import widespectrum

PACKAGE = Path(widespectrum.__file__).parent
PATHS = [path for path in sorted(PACKAGE.rglob("*.py")) if "_published" not in path.parts and path.stem != "__main__"]


def module_name(path):
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


NAMES = [module_name(path) for path in PATHS]


def definitions(name):
    """The functions and classes that a module defines at its top, by name."""
    tree = ast.parse(PATHS[NAMES.index(name)].read_text(encoding="utf-8"))
    return {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}


def place(name):
    """Where ruff (RUF022) sorts a name: constants, then classes, then the rest; numbers by their value."""
    kind = 0 if name.isupper() else 1 if name[0].isupper() else 2
    return kind, [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


@pytest.mark.parametrize("name", NAMES)
def test_public_names_are_listed_in_order_and_resolve(name):
    module = importlib.import_module(name)
    listed = getattr(module, "__all__", [])
    assert list(listed) == sorted(set(listed), key=place)
    for each in listed:
        assert not each.startswith("_")
        assert getattr(module, each) is not None


@pytest.mark.parametrize("name", NAMES)
def test_a_module_with_public_functions_or_classes_lists_names_and_says_what_it_is(name):
    public = {each for each in definitions(name) if not each.startswith("_")}
    module = importlib.import_module(name)
    # Of a private module its package lists the names.
    is_private = name.rpartition(".")[2].startswith("_")
    assert hasattr(module, "__all__") or is_private or not public
    assert module.__doc__


@pytest.mark.parametrize("name", NAMES)
def test_every_listed_function_and_class_has_a_docstring(name):
    module = importlib.import_module(name)
    own = definitions(name)
    for each in getattr(module, "__all__", []):
        if each in own:
            assert ast.get_docstring(own[each]), f"{name}.{each}"
        elif callable(found := getattr(module, each)) and getattr(found, "__module__", "").startswith("widespectrum"):
            assert found.__doc__, f"{name}.{each}"


def test_no_module_takes_a_private_name_from_another():
    for path in PATHS:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").startswith("widespectrum")):
                private = [alias.name for alias in node.names if re.match(r"_[^_]", alias.name)]
                assert not private, f"{path.name} imports {private}"


def test_the_package_lists_what_it_offers():
    assert "metric_path" in widespectrum.__all__
    assert set(widespectrum.__all__) <= set(dir(widespectrum))
    for name in widespectrum.__all__:
        assert getattr(widespectrum, name).__doc__
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        _ = widespectrum.nonsense


def test_the_names_of_the_package_are_the_ones_that_type_checkers_see():
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    declared = {}
    for node in block.body:
        declared |= {alias.name: f"widespectrum.{node.module}" for alias in node.names}
    assert set(declared) == set(widespectrum.__all__)
    for name, module in declared.items():
        assert getattr(widespectrum, name) is getattr(importlib.import_module(module), name)
