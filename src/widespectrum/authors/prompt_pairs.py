"""`anti_aesthetics_dataset` → a table of prompt pairs, one row per pair.

Columns there: `original_prompt`, `disorted_long_prompt` (their spelling), `selected` (names of dimensions) and `desc`
(what the rewriter was told, not kept). The pair ids are those of `aas_benchmark_final`, whose prompts are the first 300
rows of this dataset; an id of a prompt changes with its text, so prompts that differ are told apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from widespectrum.errors import InputError
from widespectrum.prompts.pairs import PAIR_COLUMNS, pair_row
from widespectrum.store import write_file
from widespectrum.types import Prompt, Role

from .benchmark import dimension_names, make_pair
from .parquet import TEXT, TEXTS, Kind, Source, Where

__all__ = ["import_prompt_pairs", "write_table"]

HUB_ID = "weathon/anti_aesthetics_dataset"
_TYPES = {"string": pa.string(), "list<string>": pa.list_(pa.string())}
COLUMNS: Mapping[str, Kind] = {
    "original_prompt": TEXT,
    "disorted_long_prompt": TEXT,
    "selected": TEXTS,
    "desc": TEXT,
}
SCHEMA = pa.schema([(name, _TYPES[kind]) for name, kind in PAIR_COLUMNS.items()])
_LISTED = 5


def write_table(path: Path, rows: Sequence[Mapping[str, object]], schema: pa.Schema) -> None:
    """Write rows as one Parquet file, whole or not at all."""
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), sink)
    write_file(path, sink.getvalue().to_pybytes())


def import_prompt_pairs(place: Path, out: Path) -> list[str]:
    """Read the dataset in `place` into the Parquet file `out`; what is worth a notice.

    A row that repeats both texts of an earlier one is left out; pairs that share their original prompt are kept and
    listed, since they are one cluster to every interval.
    """
    source = Source.find(HUB_ID, place)
    source.check(COLUMNS, {})
    pairs: dict[tuple[str, str], dict[Role, Prompt]] = {}
    repeats, sharing = list[str](), dict[str, list[str]]()
    index = -1
    for index, (where, row) in enumerate(source.rows(["original_prompt", "disorted_long_prompt", "selected"])):
        pair = _pair(where, index, row)
        texts = (pair["original"].text, pair["wide_spectrum"].text)
        if pairs.setdefault(texts, pair) is not pair:
            repeats.append(str(index + 1))
            continue
        sharing.setdefault(texts[0], []).append(pair["original"].pair_id)
    if index < 0:
        raise InputError(f"{place} holds no rows")
    write_table(out, [_cells(pair) for pair in pairs.values()], SCHEMA)
    return [*_notices(repeats, sharing), f"{len(pairs):,} prompt pairs"]


def _pair(where: Where, index: int, row: Mapping[str, object]) -> dict[Role, Prompt]:
    texts = [str(row[name] or "") for name in ("original_prompt", "disorted_long_prompt")]
    return make_pair(where, index, texts, dimension_names(where, row["selected"]))


def _cells(pair: Mapping[Role, Prompt]) -> dict[str, object]:
    original, wide = pair["original"], pair["wide_spectrum"]
    return pair_row(original.pair_id, original.text, wide.text, wide.dimensions, HUB_ID.split("/")[1])


def _notices(repeats: Sequence[str], sharing: Mapping[str, Sequence[str]]) -> list[str]:
    shared = [ids for ids in sharing.values() if len(ids) > 1]
    found = []
    if repeats:
        found.append(f"left out {len(repeats):,} rows that repeat an earlier pair: rows {', '.join(repeats)}")
    if shared:
        listed = "; ".join(", ".join(ids) for ids in shared[:_LISTED]) + ("; ..." if len(shared) > _LISTED else "")
        found.append(f"{len(shared):,} original prompts are shared by several pairs: {listed}")
    return found
