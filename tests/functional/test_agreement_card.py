"""The figures that the card of `judge_agreement` prints, recomputed."""

import doctest
import re
import types
from pathlib import Path

import numpy as np
import pytest
from statsmodels.stats.proportion import proportion_confint

from widespectrum.functional import judge_agreement

CARD = Path(__file__).resolve().parents[2] / "metrics" / "judge_agreement" / "README.md"
VERDICTS = (0.0, 0.5, 1.0)


def test_the_papers_figures_of_people_are_no_shares_in_which_neither_side_says_tie():
    """Kappa .80, .923 without ties and .85 with ties as I_o, of 40 pairs: what the card says about them.

    A share of .923 of at most 40 is 12/13, 24/26 or 36/39; .85 of 40 leaves six pairs that differ, but 36/39 at most 4.
    """
    for decided, agreed in ((13, 12), (26, 24)):
        against, crossed = decided - agreed, 6 - (decided - agreed)
        ties = 40 - decided - crossed
        sizes = (agreed + 1, against + 1, crossed + 1, ties + 1, ties + 1)
        wide, upward, mixed, low, high = np.indices(sizes).reshape(5, -1)
        rows = [
            [agreed - wide, low, against - upward],
            [high, ties - low - high, mixed],
            [upward, crossed - mixed, wide],
        ]
        tables = np.moveaxis(np.array(rows), -1, 0)[low + high <= ties]
        assert (tables.sum(axis=(1, 2)) == 40).all()
        assert quadratic_kappas(tables).max() < 0.795
    # some do where the reference's ties alone are dropped
    table = np.array([[13, 2, 0], [4, 4, 6], [0, 0, 11]])
    reference, verdict = (
        np.repeat(np.tile(VERDICTS, 3) if side else np.repeat(VERDICTS, 3), table.ravel()) for side in (0, 1)
    )
    result = judge_agreement(verdict, reference)
    assert result["confusion_matrix"] == table.tolist()
    assert (result["quadratic_kappa"], result["accuracy_ties_merged"]) == pytest.approx((0.80, 0.85))
    assert np.mean((verdict == reference)[reference != 0.5]) == pytest.approx(0.923, abs=0.0005)
    assert result["accuracy_ties_dropped"] == 1


def quadratic_kappas(tables):
    weights = np.subtract.outer(range(3), range(3)) ** 2
    expected = tables.sum(axis=2)[:, :, None] * tables.sum(axis=1)[:, None] / tables.sum(axis=(1, 2))[:, None, None]
    return 1 - (weights * tables).sum(axis=(1, 2)) / (weights * expected).sum(axis=(1, 2))


def test_the_code_of_the_card_prints_what_it_says():
    call, *examples = re.findall(r"```python\n(.*?)```", CARD.read_text(encoding="utf-8"), re.DOTALL)
    assert "evaluate.load(" in call
    names = {"agreement": types.SimpleNamespace(compute=judge_agreement)}
    exec("\n".join(line for line in call.splitlines() if "evaluate" not in line), names)
    for text in examples:
        example = doctest.DocTestParser().get_doctest(text, names, "card", str(CARD), 0)
        told = []
        assert doctest.DocTestRunner().run(example, out=told.append, clear_globs=False).failed == 0, "".join(told)
        names |= example.globs
    assert len(examples) == 3


def test_the_figures_that_the_card_derives_from_the_published_ones():
    card = " ".join(CARD.read_text(encoding="utf-8").split())
    labels = np.repeat(VERDICTS, (28, 1054, 2218))
    always = judge_agreement(np.ones(3300), labels, n_resamples=1)
    assert (round(always["accuracy"], 3), round(always["mae"], 3), always["quadratic_kappa"]) == (0.672, 0.336, 0)
    assert "always answering I_a has accuracy .672, MAE .336 and kappa 0" in card
    assert round(744 / 3300, 4) == 0.2255
    assert [round(end, 2) for end in proportion_confint(24, 26, method="wilson")] == [0.76, 0.98]
    assert not [k for k in range(81) if round(k / 40, 2) == 0.29]
