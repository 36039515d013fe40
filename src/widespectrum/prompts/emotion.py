"""The config `emotion`: the same portrait asked for with six emotions, and each emotion against the happy control.

One row is a pair of prompts of one template that differ in the emotion alone: `wide_spectrum_prompt` names `emotion`,
`original_prompt` names `control_emotion`. The control is happy, the emotion that models favor; for happy itself it is
neutral. The two splits hold the two directions in which an editor can be asked to change a face:

* `test`, direction `forward` (30 templates x 6 emotions): start from the image of the control, ask for the emotion;
* `reverse` (30 x 5, happy left out: that would be `forward` to neutral again): start from the image of the emotion, ask
  for happy.

In both, `source_emotion` is what the starting image shows and `prompt` is the text to give, which names
`target_emotion`. A pair keeps its `pair_id` and its two prompts in both directions, because the rewards of
`reward_bias` (form `emotion`) ask only which face is happy: I_o and p_o belong to `original_prompt`, I_a and p_a to
`wide_spectrum_prompt`. Who only generates from text takes `test` and the column `prompt`: each template once with each
emotion; the form `generated_emotion` wants `template_id` as its prompt_id.
"""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import Any, Literal, TypeAlias

from .pairs import PAIR_COLUMNS, pair_row

__all__ = [
    "CONTROL",
    "FEATURES",
    "PROBE_FEATURES",
    "Direction",
    "emotion_nouns",
    "emotion_rows",
    "emotion_splits",
    "probe_rows",
]

Direction: TypeAlias = Literal["forward", "reverse"]

CONTROL = "happy"
"""The emotion against which the others are held."""

FEATURES = {
    **PAIR_COLUMNS,
    "template_id": "string",
    "emotion": "string",
    "control_emotion": "string",
    "direction": "string",
    "source_emotion": "string",
    "target_emotion": "string",
    "prompt": "string",
    "template": "string",
    "subject": "string",
    "age": "string",
    "setting": "string",
    "medium": "string",
}
"""The columns of `emotion_rows` with their types. `subset` is the emotion, so that results are sliced by it."""

PROBE_FEATURES = {"probe": "string", "emotion": "string", "text": "string", "wording": "string", "source": "string"}
"""The columns of `probe_rows` with their types."""

_DIMENSIONS = ("emotion",)


@cache
def _texts() -> dict[str, Any]:
    texts: dict[str, Any] = json.loads(resources.files(__package__).joinpath("emotion.json").read_text("utf-8"))
    return texts


def emotion_nouns() -> dict[str, str]:
    """The six emotions, in the adjective form of the columns, each with its noun."""
    return dict(_texts()["emotions"])


def _row(entry: dict[str, str], emotion: str, direction: Direction) -> dict[str, Any]:
    control = "neutral" if emotion == CONTROL else CONTROL
    original, wide = (entry["template"].format(emotion=name) for name in (control, emotion))
    forward = direction == "forward"
    row = {
        **pair_row(f"{entry['template_id']}/{emotion}", original, wide, _DIMENSIONS, emotion),
        "emotion": emotion,
        "control_emotion": control,
        "direction": direction,
        "source_emotion": control if forward else emotion,
        "target_emotion": emotion if forward else control,
        "prompt": wide if forward else original,
        **entry,
    }
    return {name: row[name] for name in FEATURES}


def emotion_rows(direction: Direction = "forward") -> list[dict[str, Any]]:
    """The rows of one direction with the columns FEATURES: 180 forward, 150 in reverse; templates stay together."""
    emotions = [name for name in emotion_nouns() if direction == "forward" or name != CONTROL]
    return [_row(entry, emotion, direction) for entry in _texts()["templates"] for emotion in emotions]


def emotion_splits() -> dict[str, list[dict[str, Any]]]:
    """The rows of the two splits: `test` (forward) and `reverse`."""
    return {"test": emotion_rows("forward"), "reverse": emotion_rows("reverse")}


def probe_rows() -> list[dict[str, str]]:
    """What to ask a matching model about the cropped face: each probe wording filled in with each emotion.

    Columns PROBE_FEATURES. The wording `published` is the one of Guo, Qian, Hasan and Du, ICML 2026 (arXiv 2512.11883),
    as printed; the others are this package's. Read several: one wording compares texts as well as faces.
    """
    rows = (
        {**probe, "emotion": emotion, "text": probe["wording"].format(emotion=emotion, noun=noun)}
        for probe in _texts()["probes"]
        for emotion, noun in emotion_nouns().items()
    )
    return [{name: row[name] for name in PROBE_FEATURES} for row in rows]
