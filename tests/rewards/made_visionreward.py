"""Questions and weights of VisionReward's form, made up."""

import json
from pathlib import Path
from typing import Any

QUESTIONS = [f"Is number {number} to be seen?" for number in range(30)]
COEFFICIENTS = [0.5, *((-1) ** number * 2.0**-number for number in range(27))]
"""No two are equal, so that an answer at the wrong place shows."""


def files(folder: Path) -> dict[str, Any]:
    """What load_reward_model("visionreward", ...) takes beside an endpoint."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "questions.txt").write_text("\n".join(QUESTIONS), encoding="utf-8")
    weights = {"coef": COEFFICIENTS, "intercept": [0.25]}
    (folder / "weights.json").write_text(json.dumps(weights), encoding="utf-8")
    return {
        "questions": folder / "questions.txt",
        "weights": folder / "weights.json",
        "journal": folder / "journal.jsonl",
    }
