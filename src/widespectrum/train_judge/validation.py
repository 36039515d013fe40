"""How well a dimension judge agrees with the people who annotated, dimension by dimension."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from widespectrum.functional import judge_agreement, spearman

from .data import Example

__all__ = ["CLASSES", "figures"]

Floats = NDArray[np.float64]

CLASSES = (0, 1, 2)
_FIGURES = ("quadratic_kappa", "accuracy", "majority_baseline")
_RESAMPLES = 2000
_LEVEL = 0.95


def figures(
    examples: Sequence[Example], probabilities: Floats, images: Mapping[int, str], dimensions: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """The figures of every dimension, from `probabilities` (n, 3) of the answers 0, 1 and 2 to the examples.

    `quadratic_kappa` and `accuracy` are those of the likeliest answer against the target; `majority_baseline` is the
    accuracy of always giving the commonest target of these examples; `spearman` is the rank correlation of the expected
    value Σ k·P(k) with the target. Each has `_ci_low` and `_ci_high`, by 2,000 resamples of images. `n_target` and
    `n_answer` count the classes. `notes` say what is undefined and why, and which class no example has.
    """
    found = {}
    for dimension in dimensions:
        rows = [k for k, example in enumerate(examples) if example.dimension == dimension]
        given = np.array([examples[k].target for k in rows], dtype=np.float64)
        # Two rows with the same image are one image: they are drawn together.
        clusters = [images[examples[k].row] for k in rows]
        found[dimension] = _figures(given, np.asarray(probabilities, dtype=np.float64)[rows], clusters)
    return found


def _figures(given: Floats, probabilities: Floats, clusters: Sequence[str]) -> dict[str, Any]:
    if not len(given):
        return {"n": 0, "n_images": 0, "notes": {"n": "undefined: validation holds no example of this dimension"}}
    answer, expected = probabilities.argmax(axis=1), probabilities @ np.array(CLASSES, dtype=np.float64)
    agreement = judge_agreement(
        answer.tolist(),
        given.tolist(),
        categories=CLASSES,
        tie=None,
        prompt_id=list(clusters),
        image_seed=list(range(len(given))),
        n_resamples=_RESAMPLES,
        confidence_level=_LEVEL,
    )
    result: dict[str, Any] = {"n": len(given), "n_images": len(set(clusters))}
    names = [f"{name}{end}" for name in _FIGURES for end in ("", "_ci_low", "_ci_high")]
    result |= {name: agreement[name] for name in names if name in agreement}
    # One image in two rows has one J, but for rounding, which must not decide their ranks.
    ranks = spearman(expected.round(6), given, clusters, n_resamples=_RESAMPLES, confidence_level=_LEVEL)
    result |= {name.replace("rho", "spearman"): value for name, value in ranks.items() if name.startswith("rho")}
    result |= {"n_target": agreement["n_reference"], "n_answer": agreement["n_verdict"]}
    result["confusion_matrix"] = agreement["confusion_matrix"]
    result["notes"] = _notes(result, agreement)
    return result


def _notes(result: Mapping[str, Any], agreement: Mapping[str, Any]) -> dict[str, str]:
    notes = {name: agreement["notes"][name] for name in _FIGURES if name in agreement["notes"]}
    # The clusters of these figures are images.
    notes |= {
        name: text.replace("prompts", "images") for name, text in agreement["cautions"].items() if name in _FIGURES
    }
    if "spearman" not in result:
        notes["spearman"] = "undefined: the targets, or the expected values, are all the same"
    for kind, says in (("n_target", "no validation example has the target"), ("n_answer", "the judge never answers")):
        if absent := [str(k) for k, n in zip(CLASSES, result[kind], strict=True) if not n]:
            notes[kind] = f"{says} {' or '.join(absent)}"
    return notes
