import subprocess
import sys

import pytest

from widespectrum.config import parse_model
from widespectrum.errors import InputError, MissingExtraError, UnknownNameError
from widespectrum.registry import Entry, label, load, lookup, missing_packages, unknown_name

TABLE = {
    "rule": Entry(target="widespectrum.judges.rule:RuleJudge", summary="one option with a default"),
    "sharpness": Entry(
        target="widespectrum.rewards.pixels:PixelReward", summary="its option is taken", params={"measure": "sharpness"}
    ),
    "measured": Entry(target="widespectrum.rewards.pixels:PixelReward", summary="an option without a default"),
    "random": Entry(target="widespectrum.rewards.controls:RandomReward", summary="no options"),
    "elsewhere": Entry(
        target="no_such_module:Model", summary="not installed", extra="rewards", packages=("numpy", "no_such_package")
    ),
}


def test_a_name_is_made_with_the_options_given():
    assert load("judge", TABLE, "rule").spec.params == {"reward_model": "oracle"}
    assert load("judge", TABLE, "rule", {"reward_model": "x"}).spec.params == {"reward_model": "x"}
    assert load("reward model", TABLE, "sharpness").spec.name == "sharpness"
    assert load("reward model", TABLE, "measured", {"measure": "exposure"}).spec.name == "exposure"
    assert lookup("judge", TABLE, "rule") is TABLE["rule"]


def test_an_unknown_name_gives_the_nearest_and_the_list():
    with pytest.raises(UnknownNameError) as error:
        load("reward model", TABLE, "sharpnes")
    assert (
        str(error.value)
        == "unknown reward model 'sharpnes': did you mean sharpness? `widespectrum models` lists every name"
    )
    with pytest.raises(UnknownNameError, match=r"^unknown judge 'qqq': `widespectrum models` lists every name$"):
        lookup("judge", TABLE, "qqq")
    message = str(unknown_name("config", "rules", {"rule": 1, "ruler": 2, "other": 3}, "the command"))
    assert message == "unknown config 'rules': did you mean rule or ruler? `the command` lists every name"


def test_a_missing_extra_gives_the_pip_command():
    assert missing_packages(TABLE["elsewhere"]) == ["no_such_package"]
    assert missing_packages(TABLE["rule"]) == []
    with pytest.raises(MissingExtraError) as error:
        load("reward model", TABLE, "elsewhere")
    assert str(error.value) == (
        "reward model 'elsewhere' needs no_such_package, which is not installed: pip install \"widespectrum[rewards]\""
    )


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("rule", {"reward": 1}, "judge 'rule' has no option 'reward'; its options: reward_model"),
        ("random", {"seed": 1}, "judge 'random' has no option 'seed'; its options: none"),
        ("sharpness", {"measure": "exposure"}, "judge 'sharpness' has no option 'measure'; its options: none"),
        (
            "measured",
            {},
            "judge 'measured' needs the option 'measure': write measured[measure=...], "
            "or measure = ... in the run file",
        ),
    ],
)
def test_wrong_options(name, options, message):
    with pytest.raises(InputError) as error:
        load("judge", TABLE, name, options)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (None, "m"),
        ({}, "m"),
        ({"strength": 2}, "m[strength=2]"),
        ({"b": True, "a": 0.5}, "m[a=0.5,b=true]"),
        ({"a": "word"}, "m[a=word]"),
    ],
)
def test_labels(options, expected):
    assert label("m", options) == expected


@pytest.mark.parametrize("text", ["m", "m[strength=2]", "m[a=0.5,b=word]", "m[a=true]"])
def test_a_label_is_what_the_command_line_takes(text):
    choice = parse_model(text)
    assert parse_model(label(choice.name, choice.options)) == choice


def test_a_module_is_imported_when_its_name_is_asked_for():
    code = """
import sys
from widespectrum.registry import load
from widespectrum.rewards import REWARD_MODELS
assert "widespectrum.rewards.pixels" not in sys.modules
load("reward model", REWARD_MODELS, "sharpness")
assert "widespectrum.rewards.pixels" in sys.modules
assert "widespectrum.rewards.controls" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
