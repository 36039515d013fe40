"""The figures against scikit-learn and scipy, and what is said where they are undefined."""

import numpy as np
import pytest
import scipy.stats
from sklearn.metrics import accuracy_score, cohen_kappa_score

from widespectrum.train_judge.card import figure_table
from widespectrum.train_judge.data import Example
from widespectrum.train_judge.validation import figures


@pytest.fixture(scope="module")
def answered():
    """Examples of two dimensions, and probabilities that follow the targets of one of them."""
    rng = np.random.default_rng(3)
    examples = [Example(row, name, int(rng.integers(3))) for row in range(60) for name in ("clarity", "emotion")]
    chances = rng.dirichlet([1, 1, 1], len(examples))
    for chance, example in zip(chances, examples, strict=True):
        chance[example.target] += 0.6 * (example.dimension == "clarity")
    return examples, chances / chances.sum(axis=1, keepdims=True)


def test_figures_agree_with_other_implementations(answered):
    examples, chances = answered
    found = figures(examples, chances, {row: str(row) for row in range(60)}, ("clarity", "emotion"))
    for name, given in found.items():
        rows = [k for k, example in enumerate(examples) if example.dimension == name]
        targets, answers = [examples[k].target for k in rows], chances[rows].argmax(axis=1)
        assert given["n"] == given["n_images"] == 60
        assert given["n_target"] == np.bincount(targets, minlength=3).tolist()
        kappa = cohen_kappa_score(targets, answers, weights="quadratic")
        assert given["quadratic_kappa"] == pytest.approx(kappa, abs=1e-12)
        assert given["accuracy"] == pytest.approx(accuracy_score(targets, answers), abs=1e-12)
        assert given["majority_baseline"] == pytest.approx(max(np.bincount(targets)) / 60, abs=1e-12)
        rank = scipy.stats.spearmanr(chances[rows] @ [0, 1, 2], targets).statistic
        assert given["spearman"] == pytest.approx(rank, abs=1e-12)
        is_no_better = given["accuracy"] <= given["majority_baseline"]
        assert ("no higher than majority_baseline" in given["notes"].get("accuracy", "")) == is_no_better
        for figure in ("quadratic_kappa", "accuracy", "majority_baseline", "spearman"):
            assert given[f"{figure}_ci_low"] <= given[figure] <= given[f"{figure}_ci_high"]
    assert found["clarity"]["quadratic_kappa_ci_low"] > 0.5 > found["emotion"]["quadratic_kappa_ci_high"]


def test_rows_with_one_image_are_drawn_together(answered):
    examples, chances = answered
    one = [k for k, example in enumerate(examples) if example.dimension == "clarity"]
    own = figures([examples[k] for k in one], chances[one], {row: str(row) for row in range(60)}, ("clarity",))
    shared = figures([examples[k] for k in one], chances[one], {row: str(row // 20) for row in range(60)}, ("clarity",))
    assert shared["clarity"]["n_images"] == 3
    assert shared["clarity"]["accuracy"] == own["clarity"]["accuracy"]
    for figure in ("accuracy", "spearman"):
        assert shared["clarity"][f"{figure}_ci_low"] != own["clarity"][f"{figure}_ci_low"]


def test_what_is_undefined_says_so():
    examples = [Example(row, "hands", 1) for row in range(4)]
    found = figures(examples, np.tile([0.2, 0.7, 0.1], (4, 1)), {row: str(row) for row in range(4)}, ("face", "hands"))
    assert found["face"] == {
        "n": 0,
        "n_images": 0,
        "notes": {"n": "undefined: validation holds no example of this dimension"},
    }
    hands = found["hands"]
    assert "quadratic_kappa" not in hands
    assert "spearman" not in hands
    assert hands["notes"]["n_target"] == "no validation example has the target 0 or 2"
    assert hands["notes"]["n_answer"] == "the judge never answers 0 or 2"
    assert hands["notes"]["quadratic_kappa"].startswith("undefined")
    assert hands["notes"]["accuracy"].startswith("no higher than majority_baseline")
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in figure_table(found).splitlines()[2:]]
    assert cells[0] == ["face", *["undefined"] * 4, "0", "none"]
    assert cells[1][1:3] == ["undefined"] * 2
    assert cells[1][5:] == ["4", "0 / 4 / 0"]
