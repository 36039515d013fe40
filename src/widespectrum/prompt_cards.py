"""What the card of `wide_spectrum_prompts` says of each config, counted in the tables that were built."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .generators.effects import EFFECTS
from .generators.photo_effects import requested_effects
from .prompts import load_prompt_set
from .prompts.assignment import SIZES
from .prompts.lengths import LIMITS
from .prompts.tokenizers import Encoder, Unavailable
from .publishing import chi_square_table, configs_of, count_table, load_split, markdown_table
from .publishing.configs import splits_of
from .types import DIMENSIONS

__all__ = ["card_values", "vocabularies"]

Rows = Sequence[Mapping[str, Any]]


def vocabularies(encoders: Mapping[str, Encoder | Unavailable]) -> dict[str, str]:
    """Which vocabulary counted the tokens of each encoder, or why none did: for the provenance."""
    return {
        f"tokens of {name}": encoder.reason if isinstance(encoder, Unavailable) else encoder.vocabulary
        for name, encoder in encoders.items()
    }


def _dimension_table(rows: Rows) -> str:
    pairs = [(name, str(len(row["dimensions"]))) for row in rows for name in row["dimensions"]]
    return count_table(pairs, rows="dimension", columns="k = ")


def _counts(found: Iterable[str], known: Iterable[str] = ()) -> dict[str, int]:
    """How often each value was found, 0 for those of `known` that were not."""
    return {**dict.fromkeys(known, 0), **Counter(found)}


def _balance(rows: Rows, groups: str = "") -> str:
    """χ² of a design: dimensions, k and `groups` (a column), alone and against one another."""
    uses = [(name, str(len(row["dimensions"])), row) for row in rows for name in row["dimensions"]]
    sizes = [str(len(row["dimensions"])) for row in rows]
    shares = {
        "dimensions": _counts((name for name, _, _ in uses), DIMENSIONS),
        "k": _counts(sizes, map(str, SIZES)),
    }
    crossings = {"dimension and k": [(name, size) for name, size, _ in uses]}
    if groups:
        shares[groups] = _counts(row[groups] for row in rows)
        crossings |= {
            f"dimension and {groups}": [(name, row[groups]) for name, _, row in uses],
            f"k and {groups}": [(size, row[groups]) for size, row in zip(sizes, rows, strict=True)],
        }
    return chi_square_table(shares, crossings)


def _length_table(rows: Rows) -> str:
    """Words and tokens of the wide-spectrum prompts, and how many of them an encoder does not read to the end."""
    body = []
    for column in ["words", *(name for name in rows[0] if name.startswith("tokens_") and name != "tokens_note")]:
        counts = [row[column] for row in rows if row[column] is not None]
        encoder = column.removeprefix("tokens_")
        spread = [min(counts), f"{np.median(counts):g}", max(counts)] if counts else ["–"] * 3
        limit = LIMITS.get(encoder)
        lost = [row[f"past_{encoder}_{limit}"] for row in rows] if limit and counts else []
        cut = [limit, sum(map(bool, lost)), sum(map(len, lost))] if lost else ["–"] * 3
        body.append([column, *spread, *cut])
    header = ["", "fewest", "median", "most", "limit", "prompts with a dimension past it", "dimensions past it"]
    return markdown_table(header, body)


def _authored(out: Path) -> dict[str, object]:
    rows = load_split(out, "authored").to_list()
    lite = load_split(out, "authored", "lite").to_list()
    return {
        "authored_pairs": len(rows),
        "lite_pairs": len(lite),
        "authored_dimensions": _dimension_table(rows),
        "authored_subjects": count_table(
            [(row["subset"], str(len(row["dimensions"]))) for row in rows], rows="subject", columns="k = "
        ),
        "authored_balance": _balance(rows, "subset"),
        "lite_dimensions": _dimension_table(lite),
        "lite_balance": _balance(lite, "subset"),
        "authored_styles": ", ".join(f"{name} {n}" for name, n in sorted(Counter(r["style"] for r in rows).items())),
        "authored_lengths": _length_table(rows),
        "tokens_note": rows[0]["tokens_note"] or "All of these vocabularies were at hand.",
    }


def _coco(out: Path) -> dict[str, object]:
    rows = load_split(out, "coco").to_list()
    has_rejected = "rejected" in splits_of(out, "coco")
    problems = load_split(out, "coco", "rejected")["problems"] if has_rejected else []
    reasons = Counter(problem for listed in problems for problem in listed)
    return {
        "coco_pairs": f"{len(rows):,}",
        "coco_dimensions": _dimension_table(rows),
        "coco_balance": _balance(rows),
        "coco_lengths": _length_table(rows),
        "coco_rejected": f"{len(problems):,}",
        "coco_reasons": markdown_table(["reason", "captions"], reasons.most_common(10)) if reasons else "",
    }


def _photographs(out: Path) -> dict[str, object]:
    rows = load_split(out, "photographs").to_list()
    words = [len(row["wide_spectrum_prompt"].split()) for row in rows]
    wide = [prompt for prompt in load_prompt_set("photographs").prompts if prompt.role == "wide_spectrum"]
    counts = Counter(name for prompt in wide for name in requested_effects(prompt, seed=0))
    effects = sorted((effect.dimension, name, counts[name]) for name, effect in EFFECTS.items())
    return {
        "photographs_pairs": len(rows),
        "photographs": len({row["subset"] for row in rows}),
        "photographs_words": f"{min(words)} to {max(words)}",
        "photographs_dimensions": _dimension_table(rows),
        "photographs_effects": markdown_table(["dimension", "effect", "prompts"], effects),
    }


def _emotion(out: Path) -> dict[str, object]:
    rows = load_split(out, "emotion").to_list()
    return {
        "emotion_templates": len({row["template_id"] for row in rows}),
        "emotion_table": count_table([(row["emotion"], row["age"]) for row in rows], rows="emotion", columns=""),
    }


def _critical(out: Path) -> dict[str, object]:
    topics = Counter(load_split(out, "critical")["topic"])
    return {"critical_table": markdown_table(["topic", "pairs"], sorted(topics.items()))}


def _controlled(out: Path) -> dict[str, object]:
    rows = load_split(out, "controlled", columns=["photograph", "effect", "dimension", "strength"]).to_list()
    return {
        "controlled_images": f"{len(rows):,}",
        "controlled_table": count_table(
            [(f"{row['dimension']}: {row['effect']}", str(row["strength"])) for row in rows],
            rows="effect",
            columns="strength ",
        ),
    }


def _left_out(out: Path, config: str) -> str:
    """How many of the user's pictures, or of their edits, a config lists in its `rejected.csv`."""
    path = out / config / "rejected.csv"
    if not path.is_file():
        return "Nothing was left out."
    with path.open(encoding="utf-8", newline="") as file:
        count = sum(1 for _ in csv.DictReader(file))
    return f"Left out: {count:,}, each listed with its reason in `{config}/rejected.csv`."


def _photo(out: Path) -> dict[str, object]:
    rows = load_split(out, "photo", columns=["caption", "prompt", "model"]).to_list()
    lengths = {name: sorted(len(row[name].split()) for row in rows) for name in ("caption", "prompt")}
    return {
        "photo_rows": f"{len(rows):,}",
        "photo_models": ", ".join(f"`{name}`" for name in sorted({row["model"] for row in rows})),
        "photo_lengths": markdown_table(
            ["text", "fewest words", "median", "most"],
            [[name, words[0], int(np.median(words)), words[-1]] for name, words in lengths.items()],
        ),
        "photo_left_out": _left_out(out, "photo"),
    }


def _emotion_edits(out: Path) -> dict[str, object]:
    columns = ["face", "emotion", "control_emotion", "direction", "seed"]
    rows = load_split(out, "emotion_edits", columns=columns).to_list()
    edits = [(row["emotion"], row["direction"]) for row in rows]
    return {
        "edits_rows": f"{len(rows):,}",
        "edits_faces": f"{len({row['face'] for row in rows}):,}",
        "edits_start": rows[0]["control_emotion"],
        "edits_seeds": ", ".join(map(str, sorted({row["seed"] for row in rows}))),
        "edits_table": count_table(edits, rows="emotion", columns=""),
        "edits_left_out": _left_out(out, "emotion_edits"),
    }


_DESCRIBE: Mapping[str, Callable[[Path], dict[str, object]]] = {
    "authored": _authored,
    "coco": _coco,
    "photographs": _photographs,
    "emotion": _emotion,
    "critical": _critical,
    "controlled": _controlled,
    "photo": _photo,
    "emotion_edits": _emotion_edits,
}


def card_values(out: Path) -> dict[str, object]:
    """The placeholders of the card, for the configs that the dataset folder `out` holds."""
    values: dict[str, object] = {"dimensions": ", ".join(DIMENSIONS)}
    for config in configs_of(out):
        values |= _DESCRIBE[config](out) if config in _DESCRIBE else {}
    return values
