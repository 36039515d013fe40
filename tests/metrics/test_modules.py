"""The published metric folders: they load and compute alone, and agree with the functions they copy."""

import importlib.util
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import evaluate
import numpy as np
import pytest

from widespectrum import functional

METRICS = Path(__file__).resolve().parents[2] / "metrics"
NAMES = ["anti_aesthetic_adherence", "reward_bias"]
ALONE = """
import importlib.abc, json, sys

class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "widespectrum":
            raise ImportError("this process has no widespectrum")

sys.meta_path.insert(0, Blocked())
import evaluate
results = []
for folder in sys.argv[1:]:
    metric = evaluate.load(folder)
    names = {"reward_bias": ["r_io_po", "r_io_pa", "r_ia_po", "r_ia_pa"]}.get(metric.name, ["r_io_po", "r_ia_po"])
    rewards = {name: [float(i + 2 * k) for k in range(4)] for i, name in enumerate(names)}
    results.append(metric.compute(**rewards, verdict=[1, 0, 0.5, None], n_resamples=20))
assert not any(name.partition(".")[0] == "widespectrum" for name in sys.modules)
print(json.dumps(results))
"""


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


def test_the_folders_load_and_compute_without_the_package(tmp_path):
    environment = os.environ | {"HF_MODULES_CACHE": str(tmp_path), "HF_EVALUATE_OFFLINE": "1"}
    command = [sys.executable, "-c", ALONE, *(str(METRICS / name) for name in NAMES)]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    adherence, bias = json.loads(done.stdout.splitlines()[-1])
    assert (adherence["delta_reward"], adherence["success_rate"]) == (1.0, pytest.approx(1 / 3))
    assert (bias["image_prior"], bias["accuracy"]) == (2.0, 0.5)


@pytest.mark.parametrize("name", NAMES)
def test_the_published_cases(name):
    for case in cases(name):
        result = load(name).compute(**case["inputs"], **case["keywords"], n_resamples=20)
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


@pytest.mark.parametrize("name", NAMES)
def test_every_keyword_of_the_function_is_a_keyword_of_the_module(name):
    function = inspect.signature(getattr(functional, name)).parameters
    method = inspect.signature(load(name)._compute).parameters
    assert {key: value.default for key, value in method.items()} == {
        key: value.default for key, value in function.items()
    }


@pytest.mark.parametrize("name", NAMES)
def test_unknown_configurations_are_rejected(name):
    with pytest.raises(ValueError, match=f"{name} has no configuration 'other'"):
        load(name, "other")


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
