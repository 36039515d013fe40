"""`aas_real_images`, `lapis` and `critical_comparsion` → tables for three forms of the metric `reward_bias`.

Images are not copied: they are photographs and paintings of third parties. What is assumed of columns that the authors
describe nowhere, from the code that they released:

* `aas_real_images`: `image_reward` is misnamed. It holds two HPSv3 scores under the anti-aesthetic caption, of the
  photograph first and of its clean counterpart second. Elements and captions lie in the struct `caption`, or beside it.
* `lapis`: scores are columns, or fields of a struct `scores`, under the name of the reward model.
* `critical_comparsion`: one struct per reward model with the fields `DanceFlux` and `Flux Krea`, the two generators
  that drew the same prompt; DanceFlux is the aligned one. Flux Krea is no base of DanceFlux, but it is whom the authors
  compare it with.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from widespectrum.ava.taxonomy import ELEMENTS
from widespectrum.errors import InputError

from .parquet import IMAGE, NUMBER, NUMBERS, TEXT, TEXTS, Kind, Source, Where, row_name, struct_of
from .prompt_pairs import write_table

__all__ = ["import_critical", "import_paintings", "import_real_images"]

REWARD_MODELS = {
    "blip": "blip-itm",
    "blip_score": "blip-itm",
    "clip": "clip",
    "hps": "hpsv1",
    "hpsv1": "hpsv1",
    "hpsv2": "hpsv2.1",
    "hpsv2.1": "hpsv2.1",
    "hpsv2_reward": "hpsv2.1",
    "hpsv3": "hpsv3",
    "hpsv3_reward": "hpsv3",
    "image_reward": "imagereward",
    "imagereward": "imagereward",
    "mps": "mps",
    "pickscore": "pickscore",
}
"""Column, in lower case → our name of the reward model."""

_CAPTION = {"anti_aesthetic_elements": TEXTS, "clean_caption": TEXT, "anti_aesthetic_caption": TEXT}
_PHOTOGRAPHS = {"image_reward": NUMBERS, "human_score": NUMBER}
_PHOTOGRAPH_EXTRAS = {
    "image": IMAGE,
    "clean_image": IMAGE,
    "file_name": TEXT,
    "filename": TEXT,
    "query": TEXTS,
    "message": TEXTS,
}
_GENERATORS = ("DanceFlux", "Flux Krea")


def _score(where: Where, name: str, value: Any) -> float:
    """A finite number, or the first of a list [mu, second head]."""
    number = value[0] if isinstance(value, list) and value else value
    if not isinstance(number, int | float) or not math.isfinite(number):
        raise InputError(f"{row_name(where)}: {name} must be a finite number, got {value!r}")
    return float(number)


def _text(where: Where, name: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"{row_name(where)}: {name} must be a text, got {value!r}")
    return value.strip()


def _require_rows(place: Path, rows: list[dict[str, Any]]) -> None:
    if not rows:
        raise InputError(f"{place} holds no row that can be used")


def _caption_columns(source: Source) -> dict[str, Kind]:
    """Where elements and captions are: in the struct `caption`, or beside it as columns."""
    found = source.columns()
    if "caption" in found:
        return {"caption": struct_of(_CAPTION, {"thinking": TEXT})}
    if "elements" in found:
        return {"elements": TEXTS, **{name: kind for name, kind in _CAPTION.items() if kind is TEXT}}
    return dict(_CAPTION)


def import_real_images(place: Path, out: Path) -> list[str]:
    """Read `aas_real_images` in `place` into the Parquet file `out`; what is worth a notice.

    Columns: `prompt_id` (the photograph's file name), `r_io_pa` (the clean image under the anti-aesthetic caption),
    `r_ia_pa` (the photograph under it), `elements`, `reward_model`, both captions, `human_score` (AVA's mean vote).
    Photographs without elements, which the authors' captioner found ordinary, are left out and counted; so are labels
    that are no element of the taxonomy, while their photographs stay.
    """
    source = Source.find("weathon/aas_real_images", place)
    required = _caption_columns(source)
    source.check(required | _PHOTOGRAPHS, _PHOTOGRAPH_EXTRAS)
    named = [name for name in ("filename", "file_name") if name in source.columns()][:1]
    rows, places, labels, ordinary = list[dict[str, Any]](), dict[str, Where](), Counter[str](), 0
    for number, (where, cells) in enumerate(source.rows([*required, *_PHOTOGRAPHS, *named])):
        caption = (cells["caption"] or {}) if "caption" in required else cells
        elements = caption.get("anti_aesthetic_elements") or caption.get("elements") or []
        if not elements:
            ordinary += 1
            continue
        name = _text(where, named[0], cells[named[0]]) if named else str(number)
        if (other := places.setdefault(name, where)) != where:
            raise InputError(f"{row_name(where)}: photograph {name!r} is already in {row_name(other)}")
        labels.update(elements)
        own = [one for one in dict.fromkeys(elements) if one in ELEMENTS]
        rows.append(_photograph(where, name, caption, cells) | {"elements": own})
    _require_rows(place, rows)
    write_table(out, rows, _PHOTOGRAPH_SCHEMA)
    return [*_photograph_notices(ordinary, labels), _gap(rows)]


def _photograph_notices(ordinary: int, labels: Mapping[str, int]) -> Iterator[str]:
    if ordinary:
        yield f"left out {ordinary:,} photographs without elements"
    if unknown := [f"{name} ({count})" for name, count in labels.items() if name not in ELEMENTS]:
        yield f"left out labels that name no element of the taxonomy: {', '.join(unknown)}"


def _gap(rows: Sequence[Mapping[str, Any]]) -> str:
    gap = sum(row["r_io_pa"] - row["r_ia_pa"] for row in rows) / len(rows)
    return f"{len(rows):,} photographs, mean gap of HPSv3 {gap:+.2f} (the paper: +5.90)"


_PHOTOGRAPH_SCHEMA = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("r_io_pa", pa.float64()),
        ("r_ia_pa", pa.float64()),
        ("elements", pa.list_(pa.string())),
        ("reward_model", pa.string()),
        ("clean_caption", pa.string()),
        ("anti_aesthetic_caption", pa.string()),
        ("human_score", pa.float64()),
    ]
)


def _photograph(where: Where, name: str, caption: Mapping[str, Any], cells: Mapping[str, Any]) -> dict[str, Any]:
    scores = cells["image_reward"] or []
    if len(scores) != 2:
        raise InputError(
            f"{row_name(where)}: image_reward must be a list of two HPSv3 scores, of the photograph and of its clean "
            f"counterpart, got {scores!r}"
        )
    human = _score(where, "human_score", cells["human_score"])
    if not 1 <= human <= 10:
        raise InputError(f"{row_name(where)}: human_score must be a mean vote from 1 to 10, got {human!r}")
    return {
        "prompt_id": name,
        "r_io_pa": _score(where, "image_reward", scores[1]),
        "r_ia_pa": _score(where, "image_reward", scores[0]),
        "reward_model": "hpsv3",
        "clean_caption": _text(where, "clean_caption", caption["clean_caption"]),
        "anti_aesthetic_caption": _text(where, "anti_aesthetic_caption", caption["anti_aesthetic_caption"]),
        "human_score": human,
    }


def _reward_columns(place: Path, names: Iterable[str]) -> dict[str, str]:
    """Column → our name, for the columns that are named after a reward model; InputError where two are of one."""
    found: dict[str, str] = {}
    for name in names:
        if model := REWARD_MODELS.get(name.lower()):
            if other := next((column for column, known in found.items() if known == model), None):
                raise InputError(f"{place}: {other!r} and {name!r} both hold scores of {model}; remove one")
            found[name] = model
    return found


def _either(first: Kind, second: Kind) -> Kind:
    return Kind(f"{first.words} or {second.words}", lambda given: first.fits(given) or second.fits(given))


def import_paintings(place: Path, out: Path) -> list[str]:
    """Read `lapis` in `place` into the Parquet file `out`; what is worth a notice.

    Columns: `prompt_id` (the row's number), `caption` and one column per reward model, empty where a painting was not
    scored: `leaderboard_place` takes one of them as `reward`.
    """
    source = Source.find("weathon/lapis", place)
    found = source.columns()
    value = _either(NUMBER, NUMBERS)
    nested = "scores" in found and pa.types.is_struct(found["scores"])
    models = _reward_columns(place, [one.name for one in found["scores"]] if nested else found)
    scores = {"scores": struct_of(dict.fromkeys(models, value))} if nested else dict.fromkeys(models, value)
    source.check({"caption": TEXT, **(scores or {"scores": struct_of({"hpsv3": NUMBER})})}, _PAINTING_EXTRAS)
    rows = list[dict[str, Any]]()
    for number, (where, cells) in enumerate(source.rows(["caption", *scores])):
        given = (cells["scores"] or {}) if nested else cells
        own = {
            model: None if given.get(name) is None else _score(where, name, given[name])
            for name, model in models.items()
        }
        rows.append({"prompt_id": str(number), "caption": _text(where, "caption", cells["caption"]), **own})
    _require_rows(place, rows)
    columns = list(models.values())
    text = [("prompt_id", pa.string()), ("caption", pa.string())]
    write_table(out, rows, pa.schema([*text, *((model, pa.float64()) for model in columns)]))
    return [f"{len(rows):,} paintings", *(_mean(model, [row[model] for row in rows]) for model in columns)]


_PAINTING_EXTRAS = {"image": IMAGE, "file_name": TEXT, "filename": TEXT}


def _mean(model: str, values: list[float | None]) -> str:
    given = [value for value in values if value is not None]
    mean = f"mean {sum(given) / len(given):.2f}" if given else "no score"
    published = " (the paper: 5.86)" if model == "hpsv3" else ""
    return f"{model}: {len(given):,} scored, {mean}{published}"


def import_critical(place: Path, out: Path) -> list[str]:
    """Read `critical_comparsion` in `place` into the Parquet file `out`; what is worth a notice.

    Columns: `reward_model`, `prompt_id`, `prompt`, `r_aligned` (DanceFlux), `r_base` (Flux Krea), one row per prompt
    and reward model: `aligned_preference` takes those of one reward model.
    """
    source = Source.find("weathon/critical_comparsion", place)
    models = _reward_columns(place, source.columns())
    pair = struct_of(dict.fromkeys(_GENERATORS, _either(NUMBER, NUMBERS)))
    source.check({"prompt": TEXT, **dict.fromkeys(models or ["hpsv3"], pair)}, dict.fromkeys(_GENERATORS, IMAGE))
    rows, seen = list[dict[str, Any]](), dict[str, Where]()
    for number, (where, cells) in enumerate(source.rows(["prompt", *models])):
        prompt = _text(where, "prompt", cells["prompt"])
        if (other := seen.setdefault(prompt, where)) != where:
            raise InputError(f"{row_name(where)}: this prompt is already in {row_name(other)}")
        for column, model in models.items():
            both = [_score(where, f"{column}.{name}", (cells[column] or {}).get(name)) for name in _GENERATORS]
            ids = {"reward_model": model, "prompt_id": str(number), "prompt": prompt}
            rows.append(ids | dict(zip(("r_aligned", "r_base"), both, strict=True)))
    _require_rows(place, rows)
    text = [(name, pa.string()) for name in ("reward_model", "prompt_id", "prompt")]
    write_table(out, rows, pa.schema([*text, ("r_aligned", pa.float64()), ("r_base", pa.float64())]))
    wins = {
        model: sum(row["r_aligned"] > row["r_base"] for row in rows if row["reward_model"] == model)
        for model in models.values()
    }
    return [f"{len(seen):,} prompts", *(f"{model} takes DanceFlux {won} times" for model, won in wins.items())]
