"""`aas_benchmark_final` → a run folder with prompts, images, scores and verdicts.

One row per pair and generator: prompts, both images, three reward models × four scores, and what the authors' judges
said. Judges of the run: `authors` stands for the three that the paper's tables rest on (the verdict of
Qwen3-VL-235B-A22B-Instruct, main concept and effects by a VLM, the eleven dimensions by their fine-tuned judge, which
read padding for all but the longest prompt); `gpt-5-chat` and `glm-4.5v` gave second and third verdicts (the third
one's name is the one in their released script), `blip-itm` the choice of BLIP. Each pair was shown once, in an order
that nobody recorded, so a verdict has the order `both` alone. BLIP's probabilities, two of four cells, are left out.
"""

from __future__ import annotations

import json
import math
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from widespectrum import runs, store
from widespectrum.config import RunConfig, parse_run_file
from widespectrum.errors import InputError
from widespectrum.importers import BASES, CELLS, GENERATORS, REWARD_MODELS
from widespectrum.types import DIMENSIONS, ModelSpec, Prompt, Role, Score, Verdict

from .images import store_images
from .parquet import IMAGE, INTEGER, NUMBER, NUMBERS, TEXT, Kind, Source, Where, list_of, row_name, struct_of

__all__ = ["import_benchmark"]

HUB_ID = "weathon/aas_benchmark_final"
JUDGES = {"llm_selected": "authors", "sec_llm_selected": "gpt-5-chat", "third_llm_selected": "glm-4.5v"}
JUDGES |= {"blip_selected": "blip-itm"}
_OUTCOMES = {1: 1.0, 0: 0.0, -1: 0.5}
_SIDES: Mapping[str, Role] = {"original": "original", "distorted": "wide_spectrum"}
_IMAGES: Mapping[Role, str] = {"original": "image_original", "wide_spectrum": "image_distorted"}

_HPSV3 = {f"hpsv3_{cell}": NUMBERS for cell in CELLS}
_RATER = struct_of({"scores": NUMBERS, "preds": list_of(INTEGER, "lists of whole numbers")})
_JUDGED = {f"llm_{side}_{what}": NUMBER for side in _SIDES for what in ("main_concepts", "special_effects")}
_REASONS = {f"llm_{side}_reasoning": TEXT for side in _SIDES}
_BOTH_HPSV3 = Kind(
    "a struct of four lists, or of such a struct under hpsv3_reward",
    struct_of({}, _HPSV3 | {"hpsv3_reward": struct_of(_HPSV3)}).fits,
)
COLUMNS: Mapping[str, Kind] = {
    "image_original": IMAGE,
    "image_distorted": IMAGE,
    "index": INTEGER,
    "prompt_original": TEXT,
    "prompt_distorted": TEXT,
    "selected_dims": TEXT,
    "llm_judge": struct_of(_JUDGED, _REASONS),
    "hpsv2_reward": struct_of({f"hpsv2_{cell}": NUMBER for cell in CELLS}),
    "image_reward": struct_of({f"image_reward_{cell}": NUMBER for cell in CELLS}),
    "hpsv3_reward": _BOTH_HPSV3,
    "rater": struct_of(dict.fromkeys(_SIDES, _RATER)),
    **dict.fromkeys(JUDGES, INTEGER),
    "blip_score": list_of(NUMBERS, "lists of lists of numbers"),
    "model": TEXT,
}


@dataclass(frozen=True, slots=True)
class _Row:
    """One pair of one generator, without its images. `values` are 12 scores in the order of REWARD_MODELS × CELLS."""

    where: Where
    tag: str
    index: int
    prompts: Mapping[Role, Prompt]
    values: tuple[float, ...]
    verdicts: Mapping[str, float]
    ratings: tuple[tuple[Role, str, float, str], ...]

    @property
    def generator(self) -> str:
        return GENERATORS.get(self.tag, self.tag)


def _number(where: Where, name: str, value: Any, low: float = -1e6, high: float = 1e6) -> float:
    if value is None or not math.isfinite(value) or not low <= value <= high:
        raise InputError(f"{row_name(where)}: {name} must be a number from {low:g} to {high:g}, got {value!r}")
    return float(value)


def _hpsv3(where: Where, row: Mapping[str, Any]) -> Mapping[str, Any]:
    """The four lists [mu, second head], which most rows nest once more under the same key."""
    given: Mapping[str, Any] = row["hpsv3_reward"] or {}
    cells = {name: value for name, value in given.items() if name in _HPSV3 and value is not None}
    cells = cells or (given.get("hpsv3_reward") or {})
    for name in _HPSV3:
        if len(cells.get(name) or ()) != 2:
            raise InputError(
                f"{row_name(where)}: hpsv3_reward.{name} must be a list [mu, second head], got {cells.get(name)!r}"
            )
    return {name: cells[name][0] for name in _HPSV3}


def _values(where: Where, row: Mapping[str, Any]) -> tuple[float, ...]:
    given = {"hpsv3": _hpsv3(where, row), "hpsv2": row["hpsv2_reward"] or {}, "image_reward": row["image_reward"] or {}}
    names = [(prefix, f"{prefix}_{cell}") for prefix in REWARD_MODELS for cell in CELLS]
    return tuple(_number(where, name, given[prefix].get(name)) for prefix, name in names)


def dimension_names(where: Where, given: Any) -> tuple[str, ...]:
    """The authors' names of dimensions in our spelling."""
    if not isinstance(given, list) or not all(isinstance(name, str) for name in given):
        raise InputError(f"{row_name(where)}: the dimensions must be a list of names, got {given!r}")
    plain = (" ".join(name.lower().replace("_", " ").split()) for name in given)
    return tuple(name.replace("colour", "color") for name in plain)


def make_pair(where: Where, index: int, texts: Sequence[str | None], dimensions: tuple[str, ...]) -> dict[Role, Prompt]:
    """Both prompts of the pair `aas:<index>`; InputError with the row for what is no prompt."""
    clean = [unicodedata.normalize("NFC", (text or "").strip()) for text in texts]
    if clean[0] == clean[1]:
        raise InputError(f"{row_name(where)}: both prompts read {clean[0]!r}; expected two different ones")
    roles: Mapping[Role, tuple[str, ...]] = {"original": (), "wide_spectrum": dimensions}
    try:
        return {
            role: Prompt(prompt_id="", text=text, pair_id=f"aas:{index}", role=role, dimensions=names)
            for text, (role, names) in zip(clean, roles.items(), strict=True)
        }
    except InputError as error:
        raise InputError(f"{row_name(where)}: {error}") from None


def _prompts(where: Where, row: Mapping[str, Any]) -> dict[Role, Prompt]:
    try:
        given = json.loads(row["selected_dims"] or "")
    except ValueError:
        raise InputError(
            f"{row_name(where)}: selected_dims must be a JSON list, got {row['selected_dims']!r}"
        ) from None
    texts = (row["prompt_original"], row["prompt_distorted"])
    return make_pair(where, row["index"], texts, dimension_names(where, given))


def _verdicts(where: Where, row: Mapping[str, Any]) -> dict[str, float]:
    """Judge → outcome for I_a; a judge that said nothing is absent."""
    found = {}
    for column, judge in JUDGES.items():
        if (given := row[column]) is not None:
            if given not in _OUTCOMES:
                raise InputError(f"{row_name(where)}: {column} must be 1, 0 or -1 (a tie), got {given!r}")
            found[judge] = _OUTCOMES[given]
    return found


def _ratings(where: Where, row: Mapping[str, Any]) -> Iterator[tuple[Role, str, float, str]]:
    """(image role, dimension, share of the scale, who said so)."""
    judged = row["llm_judge"] or {}
    # Where nobody was asked the authors stored zeros without a reason.
    asked = any(judged.get(name) for name in (*_JUDGED, *_REASONS))
    for side, role in _SIDES.items():
        for what, dimension in (("main_concepts", "main concept"), ("special_effects", "effects")):
            if asked:
                name = f"llm_{side}_{what}"
                yield role, dimension, _number(where, f"llm_judge.{name}", judged.get(name), 0, 100) / 100, "VLM"
        scores = ((row["rater"] or {}).get(side) or {}).get("scores") or []
        if scores and len(scores) != len(DIMENSIONS):
            raise InputError(
                f"{row_name(where)}: rater.{side}.scores must hold {len(DIMENSIONS)} numbers, got {len(scores)}"
            )
        for dimension, score in zip(DIMENSIONS, scores, strict=bool(scores)):
            yield role, dimension, _number(where, f"rater.{side}.scores", score, 0, 2) / 2, "dimension judge"


def _row(where: Where, row: Mapping[str, Any]) -> _Row:
    if row["index"] is None or row["index"] < 0:
        raise InputError(f"{row_name(where)}: index must be a whole number from 0, got {row['index']!r}")
    tag = (row["model"] or "").strip()
    try:
        ModelSpec(adapter="external", name=GENERATORS.get(tag, tag))
    except InputError as error:
        raise InputError(f"{row_name(where)}: model {tag!r} cannot name a generator: {error}") from None
    return _Row(
        where=where,
        tag=tag,
        index=row["index"],
        prompts=_prompts(where, row),
        values=_values(where, row),
        verdicts=_verdicts(where, row),
        ratings=tuple(_ratings(where, row)),
    )


def _read_rows(source: Source) -> list[_Row]:
    """Every row without its images; InputError where a pair is there twice or its prompts differ between rows."""
    rows, pairs, prompts = [], dict[tuple[str, int], Where](), dict[int, _Row]()
    for where, cells in source.rows([name for name in COLUMNS if name not in _IMAGES.values()]):
        row = _row(where, cells)
        if (other := pairs.setdefault((row.tag, row.index), where)) != where:
            raise InputError(f"{row_name(where)}: {row.tag!r} already has index {row.index} in {row_name(other)}")
        first = prompts.setdefault(row.index, row)
        if first.prompts != row.prompts:
            raise InputError(
                f"{row_name(where)}: the prompts of index {row.index} are not those of {row_name(first.where)}"
            )
        rows.append(row)
    return rows


def _without_repeats(rows: Sequence[_Row]) -> tuple[list[_Row], list[str]]:
    """The rows without blocks whose scores repeat another generator's, and a notice for each block left out."""
    blocks: dict[str, dict[int, _Row]] = {}
    for row in rows:
        blocks.setdefault(row.tag, {})[row.index] = row
    kept: dict[str, dict[int, tuple[float, ...]]] = {}
    notices = []
    for tag, block in blocks.items():
        values = {index: row.values for index, row in sorted(block.items())}
        twin = next((other for other, theirs in kept.items() if theirs == values), None)
        if twin is None:
            kept[tag] = values
        else:
            notices.append(f"left out {tag!r}: its {len(block):,} rows repeat the scores of {twin!r}")
    names = Counter(GENERATORS.get(tag, tag) for tag in kept)
    if twice := [name for name, count in names.items() if count > 1]:
        raise InputError(f"two models of {rows[0].where[0]} both stand for generator {twice[0]!r}; rename one")
    return [row for row in rows if row.tag in kept], notices


def _config(run: Path, generators: set[str]) -> RunConfig:
    bases = ", ".join(f'"{one}" = "{base}"' for one, base in BASES.items() if {one, base} <= generators)
    text = (
        f"# Imported from {HUB_ID}: nothing to generate, score or judge.\n"
        f'[evaluate]\nverdict_judge = "authors"\nbases = {{ {bases} }}\n'
    )
    return parse_run_file(text, str(run / "run.toml"))


def _scores(row: _Row, images: Mapping[Role, str]) -> Iterator[Score]:
    cells = [(model, *cell) for model in REWARD_MODELS.values() for cell in CELLS.values()]
    for (model, image_role, prompt_role), value in zip(cells, row.values, strict=True):
        yield Score(
            pair_id=row.prompts["original"].pair_id,
            generator=row.generator,
            image_seed=0,
            image_role=image_role,
            prompt_role=prompt_role,
            image_id=images[image_role],
            prompt_id=row.prompts[prompt_role].prompt_id,
            reward_model=model,
            value=value,
            truncated=None,
        )


def _answers(row: _Row, images: Mapping[Role, str]) -> Iterator[Verdict]:
    own, rival, prompt_id = images["wide_spectrum"], images["original"], row.prompts["wide_spectrum"].prompt_id
    found = [
        (own, rival, "overall", judge, outcome, "one order, unrecorded") for judge, outcome in row.verdicts.items()
    ]
    found += [(images[role], "", dimension, "authors", value, who) for role, dimension, value, who in row.ratings]
    for image_id, rival_id, dimension, judge, outcome, rationale in found:
        yield Verdict(
            prompt_id=prompt_id,
            image_id=image_id,
            rival_id=rival_id,
            dimension=dimension,
            judge=judge,
            outcome=outcome,
            order="both",
            rationale=rationale,
        )


def _append_missing(run: Path, table: str, records: Sequence[Any]) -> None:
    """Add the records whose key is not there yet, each key once."""
    keyed = {tuple(getattr(record, name) for name in store.KEYS[table]): record for record in reversed(records)}
    store.append(run, table, [keyed[key] for key in store.missing(run, table, reversed(keyed))])


def import_benchmark(place: Path, run: Path) -> list[str]:
    """Read the dataset in `place` into the run folder `run`; what is worth a notice.

    Images keep the bytes that they have there; their seeds are not known, and 0 stands for them. A second call goes on
    where the first one stopped.
    """
    source = Source.find(HUB_ID, place)
    source.check(COLUMNS, {})
    rows, notices = _without_repeats(_read_rows(source))
    if not rows:
        raise InputError(f"{place} holds no rows")
    generators = {row.generator for row in rows}
    prompts = {row.index: row.prompts for row in rows}
    with runs.locked(run):
        both = [prompt for _, pair in sorted(prompts.items()) for prompt in pair.values()]
        runs.open_run(run, _config(run, generators), datasets={HUB_ID: source.revision()}, prompts=both)
        _register(run, generators)
        keys = {(row.where, role): (row.prompts[role].prompt_id, row.generator) for row in rows for role in _IMAGES}
        images, left_out = store_images(run, source, keys, _IMAGES)
        scored = [(row, images[row.where]) for row in rows if row.where in images]
        _append_missing(run, "scores", [score for row, ids in scored for score in _scores(row, ids)])
        _append_missing(run, "verdicts", [answer for row, ids in scored for answer in _answers(row, ids)])
        runs.finish(run)
    return [*notices, *left_out, *_counts(rows, scored)]


def _register(run: Path, generators: set[str]) -> None:
    named = {"generators": sorted(generators), "reward_models": REWARD_MODELS.values(), "judges": JUDGES.values()}
    for kind, names in named.items():
        for name in names:
            runs.register(run, kind, name, ModelSpec(adapter="external", name=name))


def _counts(rows: Sequence[_Row], scored: Sequence[Any]) -> Iterator[str]:
    unrated = sum(not any(rating[1] == "effects" for rating in row.ratings) for row in rows)
    if unrated:
        yield f"{unrated:,} rows carry no rating of main concept and effects, only the zeros of a judge never asked"
    generators = len({row.generator for row in rows})
    yield f"{len(scored):,} pairs of {generators} generators under {len(REWARD_MODELS)} reward models"
