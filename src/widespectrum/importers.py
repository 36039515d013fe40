"""Scores that others computed → our long score table, in a run folder that `evaluate` reads like any other.

The paper's table has one row per image pair: `model_tag`, `prompt_index`, and per reward model the four scores
`<prefix>_oiop`, `_oidp`, `_diop`, `_didp` (first two letters the image, last two the prompt; o = original, d = the
wide-spectrum one). It carries neither texts nor images, so its ids are `external:<source>:<index>`.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import runs, store
from .config import parse_run_file
from .errors import InputError
from .prompts.tables import is_one_line, read_csv_records
from .types import ModelSpec, Role, Score

__all__ = ["import_scores"]

GENERATORS = {
    "nano-banana": "nano-banana",
    "stable_diffusion_xl": "sdxl",
    "flux_krea": "flux-krea",
    "flux_dev": "flux-dev",
    "grpo_flux": "pref-flux",
    "playground": "playground-v2.5",
    "sd3_medium_grpo": "sd3.5m-pickscore",
    "sd3_medium_grpo_geneval": "sd3.5m-geneval",
    "stable_diffusion_3.5_medium": "sd3.5-medium",
    "dance_flux": "dance-flux",
}
"""The authors' tags → our names; another tag keeps its own name."""

REWARD_MODELS = {"hpsv3": "hpsv3", "hpsv2": "hpsv2.1", "image_reward": "imagereward"}
"""Column prefix → our name. The authors' `hpsv2` columns are HPSv2.1."""

CELLS: Mapping[str, tuple[Role, Role]] = {
    "oiop": ("original", "original"),
    "oidp": ("original", "wide_spectrum"),
    "diop": ("wide_spectrum", "original"),
    "didp": ("wide_spectrum", "wide_spectrum"),
}

BASES = {"dance-flux": "flux-dev", "playground-v2.5": "sdxl", "sd3.5m-pickscore": "sd3.5-medium"}

_SCORE_COLUMNS = tuple(f"{prefix}_{cell}" for prefix in REWARD_MODELS for cell in CELLS)
_COLUMNS = ("model_tag", "prompt_index", *_SCORE_COLUMNS)

_DECIMAL = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
_INDEX = re.compile(r"[0-9]{1,9}")
_LARGEST_REWARD = 1e6
"""No reward model answers beyond this: a larger number is a slip, such as a lost decimal point."""


@dataclass(frozen=True, slots=True)
class _Row:
    line: int
    tag: str
    index: int
    values: tuple[float, ...]


def _value(path: Path, line: int, name: str, text: str) -> float:
    where = f"{path}, line {line}: column {name!r}"
    if not _DECIMAL.fullmatch(text.strip()):
        raise InputError(f"{where} must hold a plain decimal number, got {text[:40]!r}")
    value = float(text)
    if not abs(value) <= _LARGEST_REWARD:
        raise InputError(f"{where} holds {text[:40]!r}, but no reward is beyond ±{_LARGEST_REWARD:.0f}; correct it")
    return value


def _index(path: Path, line: int, text: str) -> int:
    if not _INDEX.fullmatch(text.strip()):
        raise InputError(f"{path}, line {line}: prompt_index must be an integer from 0 to 999999999, got {text[:40]!r}")
    return int(text)


def _read_rows(path: Path) -> list[_Row]:
    """The rows of a score table; InputError with line and column for anything unexpected."""
    if path.is_dir():
        raise InputError(f"{path}: expected a CSV file, got a folder")
    if not path.is_file():
        raise InputError(f"{path}: there is no such file; expected the authors' score table as CSV")
    (_, header), *records = read_csv_records(path, "line")
    _check_header(path, header)
    return [_row(path, line, header, cells) for line, cells in records]


def _check_header(path: Path, header: Sequence[str]) -> None:
    if missing := [name for name in _COLUMNS if name not in header]:
        raise InputError(f"{path}: the columns {', '.join(missing)} are missing; add them to the header and every row")
    if repeated := [name for name, count in Counter(header).items() if count > 1]:
        raise InputError(f"{path}: the header names column {repeated[0]!r} more than once; remove all but one")


def _check_tag(path: Path, line: int, tag: str) -> None:
    """A tag must give a name that a run can hold beside the reward models."""
    if not tag:
        raise InputError(f"{path}, line {line}: column 'model_tag' is empty; expected the name of a generator")
    if not is_one_line(tag):
        raise InputError(f"{path}, line {line}: model_tag must be one line of printable text, got {tag!r}")
    name = GENERATORS.get(tag, tag)
    if name in REWARD_MODELS.values():
        raise InputError(f"{path}, line {line}: model_tag {tag!r} is the name of a reward model; rename the generator")
    try:
        ModelSpec(adapter="external", name=name)
    except InputError as error:
        raise InputError(f"{path}, line {line}: model_tag {tag!r} cannot name a generator: {error}") from None


def _check_names(path: Path, tags: Iterable[str]) -> None:
    """No two tags may become one generator: their scores would be mixed."""
    owners: dict[str, str] = {}
    for tag in tags:
        name = GENERATORS.get(tag, tag)
        if (other := owners.setdefault(name, tag)) != tag:
            raise InputError(f"{path}: the tags {other!r} and {tag!r} both stand for generator {name!r}; rename one")


def _row(path: Path, line: int, header: Sequence[str], cells: Sequence[str]) -> _Row:
    if len(cells) != len(header):
        raise InputError(f"{path}, line {line}: {len(cells)} cells, expected {len(header)} columns")
    named = dict(zip(header, cells, strict=True))
    tag = named["model_tag"].strip()
    _check_tag(path, line, tag)
    index = _index(path, line, named["prompt_index"])
    return _Row(line, tag, index, tuple(_value(path, line, name, named[name]) for name in _SCORE_COLUMNS))


def _block(path: Path, tag: str, rows: Iterable[_Row]) -> dict[int, _Row]:
    """The rows of one generator by prompt index; InputError where two have the same."""
    block: dict[int, _Row] = {}
    for row in rows:
        if (other := block.setdefault(row.index, row)) is not row:
            raise InputError(
                f"{path}, lines {other.line} and {row.line}: {tag!r} has prompt_index {row.index} twice; "
                "expected one row per prompt"
            )
    return block


def _blocks(path: Path, rows: list[_Row]) -> tuple[dict[str, dict[int, _Row]], list[str]]:
    """The rows of each generator by prompt index, without repeated blocks; a notice for each block left out."""
    by_tag: dict[str, list[_Row]] = {}
    for row in rows:
        by_tag.setdefault(row.tag, []).append(row)
    _check_names(path, by_tag)
    blocks: dict[str, dict[int, _Row]] = {}
    notices = []
    for tag, own in by_tag.items():
        block = _block(path, tag, own)
        values = {index: row.values for index, row in block.items()}
        twin = next((t for t, other in blocks.items() if {i: r.values for i, r in other.items()} == values), None)
        if twin is None:
            blocks[tag] = block
        else:
            notices.append(f"left out {tag!r}: its {len(block):,} rows repeat those of {twin!r}")
    return blocks, notices


def _counted(n: int, noun: str) -> str:
    return f"{n:,} {noun}{'s' * (n != 1)}"


def _scores(source: str, blocks: Mapping[str, Mapping[int, _Row]]) -> Iterator[Score]:
    for tag, block in blocks.items():
        generator = GENERATORS.get(tag, tag)
        for index, row in block.items():
            pair_id = f"external:{source}:{index}"
            cells = ((model, *cell) for model in REWARD_MODELS.values() for cell in CELLS.values())
            for (model, image_role, prompt_role), value in zip(cells, row.values, strict=True):
                yield Score(
                    pair_id=pair_id,
                    generator=generator,
                    image_seed=0,
                    image_role=image_role,
                    prompt_role=prompt_role,
                    image_id=f"{pair_id}:{generator}:{image_role}",
                    prompt_id=f"{pair_id}:{prompt_role}",
                    reward_model=model,
                    value=value,
                    truncated=None,
                )


def _run_text(path: Path, generators: set[str]) -> str:
    bases = ", ".join(f'"{a}" = "{b}"' for a, b in BASES.items() if {a, b} <= generators)
    return (
        f"# Scores imported from {path.name}: nothing to generate, score or judge.\n[evaluate]\nbases = {{ {bases} }}\n"
    )


def import_scores(path: Path, run: Path) -> list[str]:
    """Read the table at `path` into the run folder `run`; what is worth a notice.

    A block of one generator whose scores repeat another's is left out. The seed of the images is not known; 0 stands
    for it.
    """
    blocks, notices = _blocks(path, _read_rows(path))
    if not blocks:
        raise InputError(f"{path} holds no rows")
    generators = {GENERATORS.get(tag, tag) for tag in blocks}
    models = {"generators": sorted(generators), "reward_models": REWARD_MODELS.values()}
    specs = {kind: [ModelSpec(adapter="external", name=name) for name in names] for kind, names in models.items()}
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    config = parse_run_file(_run_text(path, generators), str(run / "run.toml"))
    with runs.locked(run):
        runs.open_run(run, config, datasets={path.name: digest}, prompts=())
        for kind, named in specs.items():
            for spec in named:
                runs.register(run, kind, spec.name, spec)
        done = store.keys(run, "scores")
        scores = _scores(path.stem, blocks)
        todo = [score for score in scores if tuple(getattr(score, name) for name in store.KEYS["scores"]) not in done]
        store.append(run, "scores", todo)
        runs.finish(run)
    rows = sum(len(block) for block in blocks.values())
    counts = f"{_counted(rows, 'pair')} of {_counted(len(blocks), 'generator')}"
    return [*notices, f"{counts} under {len(REWARD_MODELS)} reward models"]
