"""The published metric folders: they load and compute alone, and agree with the functions they copy."""

import doctest
import importlib.util
import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import evaluate
import numpy as np
import pandas as pd
import PIL.Image
import pytest

from widespectrum import functional

METRICS = Path(__file__).resolve().parents[2] / "metrics"
NAMES = ["anti_aesthetic_adherence", "judge_agreement", "reward_bias"]
ALONE = """
import importlib.abc, json, sys

class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "widespectrum":
            raise ImportError("this process has no widespectrum")

sys.meta_path.insert(0, Blocked())
import evaluate
calls = json.load(sys.stdin)
results = [evaluate.load(folder, form).compute(**given) for folder, form, given in calls]
assert not any(name.partition(".")[0] == "widespectrum" for name in sys.modules)
print(json.dumps(results))
"""
FORMS = {
    ("anti_aesthetic_adherence", "default"): "anti_aesthetic_adherence",
    ("judge_agreement", "default"): "judge_agreement",
    ("reward_bias", "default"): "reward_bias",
    ("reward_bias", "comparison"): "compare_reward_models",
    ("reward_bias", "emotion"): "emotion_bias",
    ("reward_bias", "generated_emotion"): "generated_emotion",
    ("reward_bias", "image_to_image"): "image_to_image",
    ("reward_bias", "look"): "look_shift",
    ("reward_bias", "place"): "leaderboard_place",
    ("reward_bias", "real_images"): "real_image_gap",
    ("reward_bias", "dose_response"): "dose_response",
    ("reward_bias", "social_critique"): "aligned_preference",
}
"""Folder and configuration to the function that it publishes."""


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory):
    """Loads from this checkout alone, never from an earlier copy."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("evaluate.config.HF_MODULES_CACHE", str(tmp_path_factory.mktemp("modules")))
        yield


def load(name, *config):
    return evaluate.load(str(METRICS / name), *config)


def cases(name):
    spec = importlib.util.spec_from_file_location(f"{name}_cases", METRICS / name / "tests.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.test_cases


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Function to a call of it that can be written as JSON: random numbers for columns, every keyword that it has."""
    rng, n, folder = np.random.default_rng(0), 24, tmp_path_factory.mktemp("images")
    images = [str(folder / f"{k}.png") for k in range(4)]
    for path in images:
        PIL.Image.fromarray(rng.integers(0, 256, (390, 400, 3), dtype=np.uint8)).save(path)
    keys = {"prompt_id": [k % 8 for k in range(n)], "image_seed": list(range(n))}
    names = {"group": [f"g{k % 3}" for k in range(n)], "verdict": rng.choice([0, 0.5, 1], n).tolist()}
    emotions = ["angry", "happy", "sad"] * 8
    extra = {name: {} for name in FORMS.values()}
    extra |= dict.fromkeys(("reward_bias", "compare_reward_models"), names)
    extra["anti_aesthetic_adherence"] = {"verdict": names["verdict"], "dimensions": [["clarity"], ["emotion"]] * 12}
    answers = ("verdict", "reference", "verdict_first", "verdict_second")
    extra["judge_agreement"] = {name: [None, *rng.choice([0, 0.5, 1], n - 1).tolist()] for name in answers}
    extra["judge_agreement"]["group"] = names["group"]
    extra["emotion_bias"] = {name: rng.normal(size=n).tolist() for name in ("r_io_po", "r_ia_po")}
    extra["emotion_bias"] |= {"emotion": ["angry", "fearful", "sad"] * 8}
    extra["generated_emotion"] = {"match": rng.uniform(size=n).tolist(), "emotion": emotions}
    extra["image_to_image"] = {name: rng.uniform(0, 100, n).tolist() for name in ("content_input", "content_output")}
    extra["image_to_image"] |= {name: rng.uniform(0, 2, (n, 11)).tolist() for name in ("j_input", "j_output")}
    extra["look_shift"] = {
        "photograph": images[:2],
        "generated": images[2:],
        "prompt_id": ["a", "b"],
        "image_seed": [0, 0],
    }
    extra["leaderboard_place"] = {"leaderboard": {"one": -1.0, "other": 1.0}}
    extra["real_image_gap"] = {"elements": [["blur"], ["blur", "decay"], []] * 8}
    extra["aligned_preference"] = {"topic": ["war", "waste", "neutral"] * 8, "control": "neutral"}
    extra["dose_response"] = {"strength": [0.0, 1.0, 2.0] * 8, "requested": [1, 1, 1, 0, 0, 0] * 4}
    extra["dose_response"] |= {"series": [k // 6 for k in range(n)], "prompt_id": [k // 12 for k in range(n)]}
    calls = {}
    for name, own in extra.items():
        own = {key: keys[key] for key in keys if key in {each.name for each in parameters(name)}} | own
        required = [each.name for each in parameters(name) if each.default is each.empty and each.name not in own]
        calls[name] = {column: rng.normal(size=n).tolist() for column in required} | own | {"n_resamples": 20}
    return calls


def parameters(name):
    return inspect.signature(getattr(functional, name)).parameters.values()


def bare(name, given):
    """What the function itself gives, with images opened for it."""
    if name == "look_shift":
        given = given | {side: [PIL.Image.open(path) for path in given[side]] for side in ("photograph", "generated")}
    return getattr(functional, name)(**given)


def test_every_form_loads_alone_without_the_package_and_equals_the_function(tmp_path, inputs):
    environment = os.environ | {"HF_MODULES_CACHE": str(tmp_path), "HF_EVALUATE_OFFLINE": "1"}
    calls = [(str(METRICS / folder), form, inputs[name]) for (folder, form), name in FORMS.items()]
    command, text = [sys.executable, "-c", ALONE], json.dumps(calls)
    done = subprocess.run(
        command, env=environment, cwd=tmp_path, input=text, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    for name, result in zip(FORMS.values(), json.loads(done.stdout.splitlines()[-1]), strict=True):
        assert result == json.loads(json.dumps(bare(name, inputs[name]))), name


@pytest.mark.parametrize("name", NAMES)
def test_the_published_cases(name):
    given = cases(name)
    assert {case.get("form", "default") for case in given} == {form for folder, form in FORMS if folder == name}
    for case in given:
        result = load(name, case.get("form")).compute(**case["inputs"], **case["keywords"], n_resamples=20)
        assert {key: result[key] for key in case["result"]} == pytest.approx(case["result"])


@pytest.mark.parametrize("seed", range(3))
def test_reward_bias_equals_the_function(seed):
    rng = np.random.default_rng(seed)
    names = ("r_io_po", "r_io_pa", "r_ia_po", "r_ia_pa")
    given = dict(zip(names, rng.normal(size=(4, 30)), strict=True))
    given |= {"verdict": rng.choice([0, 0.5, 1], 30), "prompt_id": np.arange(30) % 10, "group": np.arange(30) // 10}
    given |= {"n_resamples": 50, "seed": seed, "confidence_level": 0.9}
    assert load("reward_bias").compute(**given) == functional.reward_bias(**given)


def test_adherence_equals_the_function():
    rng = np.random.default_rng(0)
    given = {f"r_{image}_po{end}": list(rng.normal(size=20)) for image in ("io", "ia") for end in ("", "_base")}
    for end in ("", "_base"):
        given |= {
            f"{kind}_{image}{end}": rng.uniform(0, 100, 20) for kind in ("effect", "content") for image in ("io", "ia")
        }
        given |= {f"j_{image}{end}": rng.uniform(0, 2, (20, 11)) for image in ("io", "ia")}
        given |= {f"verdict{end}": rng.choice([0, 0.5, 1], 20), f"status{end}": ["ok"] * 19 + ["refused"]}
    given |= {"dimensions": [["clarity", "emotion"]] * 20, "prompt_id": np.arange(20) % 10, "image_seed": np.arange(20)}
    given |= {"n_resamples": 50, "seed": 3}
    given["r_ia_po"][19] = None
    assert load("anti_aesthetic_adherence").compute(**given) == functional.anti_aesthetic_adherence(**given)


@pytest.mark.parametrize(("folder", "form"), FORMS)
def test_the_columns_of_the_function_are_features_and_every_keyword_is_one_of_the_module(folder, form):
    metric, own = load(folder, form), list(parameters(FORMS[folder, form]))
    assert list(metric.features) == [each.name for each in own if each.kind is each.POSITIONAL_OR_KEYWORD]
    method = inspect.signature(metric._compute).parameters.values()
    assert {each.name: each.default for each in method} == {each.name: each.default for each in own}


def test_the_rewards_are_the_features_of_the_default():
    assert list(load("reward_bias").features) == ["r_io_po", "r_io_pa", "r_ia_po", "r_ia_pa"]
    assert list(load("anti_aesthetic_adherence").features) == ["r_io_po", "r_ia_po"]
    assert list(load("judge_agreement").features) == ["verdict", "reference"]


@pytest.mark.parametrize("name", NAMES)
def test_unknown_configurations_are_rejected(name):
    with pytest.raises(ValueError, match=f"{name} has no configuration 'other'; there is default"):
        load(name, "other")


def test_a_misspelt_configuration_is_told_the_nearest():
    with pytest.raises(ValueError, match=r"no configuration 'emotions' \(did you mean 'emotion'\?\)"):
        load("reward_bias", "emotions")


@pytest.mark.parametrize(("folder", "form"), FORMS)
def test_unknown_and_missing_inputs_give_one_sentence_and_the_module_stays_usable(folder, form, inputs):
    metric, given = load(folder, form), inputs[FORMS[folder, form]]
    with pytest.raises(ValueError, match=r"unknown input 'prompt_ids' \(did you mean 'prompt_id'\?\); expected one of"):
        metric.compute(**given, prompt_ids=given["prompt_id"])
    for name in [each.name for each in parameters(FORMS[folder, form]) if each.default is each.empty]:
        with pytest.raises(ValueError, match=rf"expected the inputs .*, got no {name}; give each"):
            metric.compute(**given | {name: None})
    assert metric.compute(**given) == bare(FORMS[folder, form], given)


def test_columns_may_be_added_in_batches():
    metric, rng = load("reward_bias"), np.random.default_rng(0)
    given = dict(zip(metric.features, rng.normal(size=(4, 12)), strict=True))
    for rows in (slice(5), slice(5, None)):
        metric.add_batch(**{name: values[rows] for name, values in given.items()})
    verdict = [1, 0] * 6
    assert metric.compute(verdict=verdict) == functional.reward_bias(**given, verdict=verdict)


REWARDS = {
    "r_io_po": [1.0, 5.0, 2.0],
    "r_io_pa": [1.0, 2.0, 4.0],
    "r_ia_po": [0.0, 3.0, 1.0],
    "r_ia_pa": [2.0, 1.0, 6.0],
}
FORMS_OF_A_COLUMN = {
    "Series": pd.Series,
    "filtered Series": lambda column: pd.Series([9.0, *column])[[False, True, True, True]],
    "float32": np.float32,
    "objects": lambda column: np.array(column, dtype=object),
    "tuple": tuple,
    "generator": lambda column: (item for item in column),
}


@pytest.mark.parametrize("form", FORMS_OF_A_COLUMN)
@pytest.mark.parametrize("name", ["compute", "add_batch"])
def test_columns_may_be_of_any_form(form, name):
    metric, given = load("reward_bias"), {key: FORMS_OF_A_COLUMN[form](column) for key, column in REWARDS.items()}
    if name == "add_batch":
        metric.add_batch(**given)
        given = {}
    assert metric.compute(**given, n_resamples=10) == functional.reward_bias(**REWARDS, n_resamples=10)


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (3.0, r"r_io_pa: expected one value per row, got 3\.0; give a list or array"),
        (np.float64(3), r"r_io_pa: expected one value per row, got shape \(\); give a flat list or array"),
        ("abc", "r_io_pa: expected one value per row, got a str; give a list or array"),
        (np.zeros((3, 2)), r"r_io_pa: expected one value per row, got shape \(3, 2\); give a flat list or array"),
        ([1, "a", 2], r"r_io_pa, row 1 \(counted from 0\): expected a number, got 'a'; convert it"),
        (pd.Series(["1", "2", "3"]), r"r_io_pa, row 0 \(counted from 0\): expected a number, got '1'; convert it"),
        ([1, 2, [3.0]], r"r_io_pa, row 2 \(counted from 0\): expected a number, got \[3\.0\]; convert it"),
        ([1, 2, 10**400], r"r_io_pa, row 2 .* within the range of float64, got 10{76}\.\.\.; rescale it"),
        ([1.0], "r_io_pa: expected 3 rows like r_io_po, got 1; give one value per row"),
        ([], "r_io_pa: expected 3 rows like r_io_po, got 0; give one value per row"),
        (
            [1, None, 2],
            r"r_io_pa, row 1 \(counted from 0\): expected a finite number, got None; correct it or leave it out",
        ),
    ],
)
def test_a_bad_column_gives_one_sentence_and_the_module_stays_usable(column, message):
    metric = load("reward_bias")
    with pytest.raises(ValueError, match=f"^{message}$"):
        metric.compute(**REWARDS | {"r_io_pa": column})
    assert metric.compute(**REWARDS, n_resamples=10)["n_pairs"] == 3


def test_a_part_of_the_columns_after_a_batch_gives_one_sentence():
    metric = load("reward_bias")
    metric.add_batch(**REWARDS)
    with pytest.raises(
        ValueError, match=r"^expected the columns r_io_po, .*, got no r_io_pa and no r_ia_po and no r_ia_pa"
    ):
        metric.compute(r_io_po=[1.0])
    assert metric.compute(n_resamples=10)["n_pairs"] == 3


def test_a_refused_row_may_hold_anything_but_text():
    given = {"r_io_po": [1.0, np.nan, 2.0], "r_ia_po": [0.0, np.inf, None], "status": ["ok", "refused", "ok"]}
    result = load("anti_aesthetic_adherence").compute(**given, n_resamples=10)
    assert result == functional.anti_aesthetic_adherence(**given, n_resamples=10)
    with pytest.raises(ValueError, match=r"^r_ia_po, row 1 .*: expected a number, got 'none'; convert it$"):
        load("anti_aesthetic_adherence").compute(**given | {"r_ia_po": [0.0, "none", None]})


@pytest.fixture(scope="module")
def picture():
    return np.random.default_rng(0).integers(0, 256, (390, 400, 3), dtype=np.uint8)


def test_pictures_may_be_of_any_form(picture, tmp_path):
    path = tmp_path / "picture.png"
    PIL.Image.fromarray(picture).save(path)
    metric, expected = load("reward_bias", "look"), functional.look_shift([picture] * 4, [picture] * 4, n_resamples=10)
    with PIL.Image.open(path) as opened:
        lists = [path, str(path), opened, path.read_bytes()], np.stack([picture] * 4), pd.Series([opened] * 4)
        for generated in lists:
            assert metric.compute(photograph=iter([picture] * 4), generated=generated, n_resamples=10) == expected


@pytest.mark.parametrize(
    ("make", "got"),
    [
        (lambda picture, folder: 3, r"3; replace it or leave out the row"),
        (lambda picture, folder: None, r"None; replace it or leave out the row"),
        (lambda picture, folder: "none.png", r"'none\.png'; replace it or leave out the row"),
        (lambda picture, folder: folder / "text.png", r"\w*Path\('.*; replace it or leave out the row"),
        (lambda picture, folder: folder / "cut.png", r"\w*Path\('.*; replace it or leave out the row"),
        (
            lambda picture, folder: picture / 255,
            r"an array of float64 of shape \(390, 400, 3\); convert it to .*uint8\)",
        ),
        (lambda picture, folder: picture.tolist(), r"\[\[\[[^;]{74}\.\.\.; make it a uint8 array"),
    ],
)
def test_what_is_no_picture_is_named_with_its_row_and_the_module_stays_usable(make, got, picture, tmp_path):
    metric, image = load("reward_bias", "look"), PIL.Image.fromarray(picture)
    image.save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:9999])
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(ValueError, match=rf"^generated, row 1 \(counted from 0\): expected an image: .*, got {got}$"):
        metric.compute(photograph=[image] * 2, generated=[image, make(picture, tmp_path)])
    assert metric.compute(photograph=[image], generated=[image], n_resamples=10)["n_pairs"] == 1


@pytest.mark.parametrize("images", [3, "a.png", {"a": 1}])
def test_pictures_come_in_a_list(images, picture):
    with pytest.raises(ValueError, match=r"^generated: expected a list of images, got a \w+; put one image in a list$"):
        load("reward_bias", "look").compute(photograph=[picture], generated=images)
    with pytest.raises(
        ValueError, match=r"^generated: expected 1 rows like photograph, got 2; give one value per row$"
    ):
        load("reward_bias", "look").compute(photograph=[picture], generated=[picture] * 2)


def test_a_bad_row_is_named_through_evaluate_and_the_module_stays_usable():
    metric, pair = load("reward_bias"), {"r_io_po": [1.0, 2.0], "r_io_pa": [1.0, 2.0], "r_ia_po": [0.0, 3.0]}
    with pytest.raises(ValueError, match=r"r_ia_pa, row 1 .*got nan"):
        metric.compute(**pair, r_ia_pa=[1.0, float("nan")])
    with pytest.raises(ValueError, match=r"row 1 .*repeats the key of row 0 \(prompt_id='a'\)"):
        metric.compute(**pair, r_ia_pa=[1.0, 2.0], prompt_id=["a", "a"])
    assert metric.compute(**pair, r_ia_pa=[1.0, 2.0], n_resamples=10)["n_pairs"] == 2


def test_rewards_may_all_be_missing_through_evaluate():
    result = load("anti_aesthetic_adherence").compute(r_io_po=[None] * 2, r_ia_po=[None] * 2, verdict=[1, 0])
    assert (result["success_rate"], result["coverage"]["r_ia_po"]) == (0.5, 0)
    assert "delta_reward" in result["notes"]


def test_near_equal_scores_are_no_ties():
    near = np.nextafter(1.0, 2.0)
    result = load("reward_bias").compute(r_io_po=[1.0], r_io_pa=[1.0], r_ia_po=[0.0], r_ia_pa=[near])
    assert result["accuracy_under_wide_spectrum"] == 1


@pytest.mark.parametrize("name", NAMES)
def test_cards_have_front_matter_and_every_section(name):
    card = (METRICS / name / "README.md").read_text(encoding="utf-8")
    front = card.split("---\n")[1]
    for key in ("title:", "- evaluate", "- metric", "sdk: gradio", "app_file: app.py", "license: apache-2.0"):
        assert key in front
    headings = ["Description", "How to Use", "Inputs", "Output Values", "Examples", "Limitations and Bias", "Citation"]
    positions = [card.index(f"\n## {heading}\n") for heading in [*headings, "Further References"]]
    assert positions == sorted(positions)
    assert "### Values from Popular Papers" in card


@pytest.mark.parametrize("name", NAMES)
def test_the_code_of_the_cards_prints_what_they_say(name, monkeypatch):
    find = evaluate.load
    monkeypatch.setattr(
        evaluate, "load", lambda path, form=None, revision="": find(str(METRICS / Path(path).name), form)
    )
    card, names, told = (METRICS / name / "README.md").read_text(encoding="utf-8"), {}, []
    for text in re.findall(r"^```python\n(.*?)^```", card, re.DOTALL | re.MULTILINE):
        if ">>>" not in text:
            exec(text, names)
            continue
        example = doctest.DocTestParser().get_doctest(text, names, name, None, 0)
        assert doctest.DocTestRunner().run(example, out=told.append, clear_globs=False).failed == 0, "".join(told)
    assert "result" in names
    forms = {form for folder, form in FORMS if folder == name} - {"default"}
    assert forms == set(re.findall(r'evaluate\.load\("widespectrum/\w+", "(\w+)"', card))
