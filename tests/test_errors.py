import re

import pytest

from widespectrum import errors


def drawn_tree():
    """Class name → name of the class above it, read from the drawing in the module's docstring."""
    above, parents = [], {}
    for line in errors.__doc__.splitlines():
        match = re.match(r"    ([│├└─ ]*)(\w+Error)\b", line)
        if match:
            depth = len(match[1]) // 4
            parents[match[2]] = above[depth - 1] if depth else "Exception"
            above[depth:] = [match[2]]
    return parents


def test_the_drawing_shows_the_classes():
    parents = drawn_tree()
    assert set(parents) == set(errors.__all__)
    for name, parent in parents.items():
        assert getattr(errors, name).__bases__[0].__name__ == parent


@pytest.mark.parametrize("name", errors.__all__)
def test_messages_are_kept(name):
    assert str(getattr(errors, name)("expected a, got b: do c")) == "expected a, got b: do c"


def test_wrong_input_is_a_value_error_and_a_failed_model_is_not():
    assert issubclass(errors.InputError, ValueError)
    assert not issubclass(errors.ModelError, errors.InputError)
    assert not issubclass(errors.RunFolderError, errors.InputError)
