"""What a metric module says about inputs that its kernel does not take, or lacks."""

import pytest

from widespectrum.functional._arguments import columns_of, require_arguments, require_choice


def kernel(reward, other, *, topic, prompt_id=None):
    """Takes two columns, one keyword that it needs and one that it does not."""


def test_columns_are_what_is_taken_by_position():
    assert columns_of(kernel) == ["reward", "other"]


def test_what_is_right_passes():
    require_arguments(kernel, {"reward": [1], "other": [2], "topic": ["a"]})
    require_arguments(kernel, {"topic": ["a"], "prompt_id": None}, stored=("reward", "other"))
    require_choice("there is no form", "b", ("a", "b"))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"topics": 1},
            r"unknown input 'topics' \(did you mean 'topic'\?\); expected one of reward, other, topic, prompt_id",
        ),
        ({"zzz": 1}, "unknown input 'zzz'; expected one of reward, other, topic, prompt_id"),
        ({}, "expected the inputs reward, other, topic, got no reward and no other and no topic; give each"),
        (
            {"reward": [1], "other": None, "topic": 1},
            "expected the inputs reward, other, topic, got no other; give each",
        ),
    ],
)
def test_what_is_wrong_gives_one_sentence(given, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        require_arguments(kernel, given)


@pytest.mark.parametrize(
    ("name", "choices", "message"),
    [
        (
            "emotions",
            ("default", "emotion"),
            r"x has no form 'emotions' \(did you mean 'emotion'\?\); there is default and emotion",
        ),
        ("z", ("default", "a", "b"), "x has no form 'z'; there is default, a and b"),
        ("z", ("default",), "x has no form 'z'; there is default alone"),
    ],
)
def test_an_unknown_choice_names_the_others(name, choices, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        require_choice("x has no form", name, choices)
