"""Reading tables of the user, strictly: every error names the file and the row.

Rows count as a spreadsheet shows them: in a CSV file row 1 is the header, in a Parquet file row 1 is the first row.
"""

from __future__ import annotations

import csv
import io
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from widespectrum.errors import InputError
from widespectrum.types import Prompt

__all__ = ["read_prompts", "read_table"]

Row: TypeAlias = tuple[int, Mapping[str, Any]]

_PROMPT_COLUMNS = ("pair_id", "role", "text", "dimensions")
_OPTIONAL_PROMPT_COLUMNS = ("subset", "prompt_id")


def _read_csv(path: Path) -> tuple[list[str], list[Row]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
        lines = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text (byte {error.start}); save it as CSV in UTF-8") from None
    except csv.Error as error:
        raise InputError(f"{path} is not valid CSV: {error}") from None
    header = lines[0] if lines else []
    rows: list[Row] = []
    for number, cells in enumerate(lines[1:], start=2):
        if not cells:
            continue
        if len(cells) != len(header):
            raise InputError(f"{path}, row {number}: expected {len(header)} cells as in the header, got {len(cells)}")
        rows.append((number, dict(zip(header, cells, strict=True))))
    return header, rows


def _read_parquet(path: Path) -> tuple[list[str], list[Row]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except pa.ArrowInvalid as error:
        raise InputError(f"{path} is not a readable Parquet file: {error}") from None
    return table.column_names, list(enumerate(table.to_pylist(), start=1))


def read_table(path: Path, required: Collection[str], optional: Collection[str] = ()) -> list[Row]:
    """The rows of a CSV or Parquet file with their numbers; InputError unless its columns are the expected ones."""
    readers = {".csv": _read_csv, ".parquet": _read_parquet}
    if path.suffix.lower() not in readers:
        raise InputError(f"expected a table ending in .csv or .parquet, got {path}")
    if not path.is_file():
        raise InputError(f"no file at {path}")
    header, rows = readers[path.suffix.lower()](path)
    for name in required:
        if name not in header:
            found = ", ".join(header) or "none"
            raise InputError(f"{path} has no column {name!r}; expected {', '.join(required)}, found {found}")
    for name in header:
        if name not in (*required, *optional):
            expected = ", ".join([*required, *optional])
            raise InputError(f"{path} has an unknown column {name!r}; expected {expected}")
        if header.count(name) > 1:
            raise InputError(f"{path} has the column {name!r} twice; remove one")
    if not rows:
        raise InputError(f"{path} has no rows below its header")
    return rows


def _cell(where: str, row: Mapping[str, Any], name: str) -> str:
    value = row.get(name, "")
    if not isinstance(value, str):
        raise InputError(f"{where}: {name} must be text, got {value!r}")
    return unicodedata.normalize("NFC", value.strip())


def _dimensions(where: str, value: Any) -> tuple[str, ...]:
    """`value` is a list of names, or one text with `|` between them."""
    names = value.split("|") if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"{where}: dimensions must be a list of names or a text 'a|b', got {value!r}")
    return tuple(name.strip() for name in names if name.strip())


def _prompt(where: str, row: Mapping[str, Any]) -> Prompt:
    fields: dict[str, Any] = {name: _cell(where, row, name) for name in ("pair_id", "role", "text")}
    fields |= {name: _cell(where, row, name) for name in _OPTIONAL_PROMPT_COLUMNS}
    try:
        return Prompt(**{"prompt_id": "", **fields}, dimensions=_dimensions(where, row["dimensions"]))
    except InputError as error:
        message = str(error)
        raise InputError(message if message.startswith(where) else f"{where}: {message}") from None


def _check_pairs(path: Path, numbered: Sequence[tuple[int, Prompt]]) -> None:
    """Every pair has one prompt of each role, and these differ."""
    first: dict[tuple[str, str], tuple[int, str]] = {}
    for number, prompt in numbered:
        key = (prompt.pair_id, prompt.role)
        if key in first:
            raise InputError(
                f"{path}, row {number}: pair {prompt.pair_id!r} already has a prompt of role {prompt.role!r} "
                f"in row {first[key][0]}; give each pair its own pair_id"
            )
        first[key] = number, prompt.text
    for (pair_id, role), (number, text) in first.items():
        other = "original" if role == "wide_spectrum" else "wide_spectrum"
        if (pair_id, other) not in first:
            raise InputError(f"{path}, row {number}: pair {pair_id!r} has only the role {role!r}; add {other!r}")
        # Under equal prompts every reward model matches them equally well, whatever it sees.
        if first[pair_id, other][1] == text:
            raise InputError(
                f"{path}, row {number}: both prompts of pair {pair_id!r} read {text!r}; change one or remove the pair"
            )


def read_prompts(path: Path) -> tuple[Prompt, ...]:
    """The prompts in a CSV or Parquet table of the user.

    Columns: pair_id, role (`original` or `wide_spectrum`), text, dimensions (`a|b` in CSV, a list in Parquet; empty
    for an original), and if wanted subset and prompt_id. InputError with file and row for anything else.
    """
    rows = read_table(path, _PROMPT_COLUMNS, _OPTIONAL_PROMPT_COLUMNS)
    numbered = [(number, _prompt(f"{path}, row {number}", row)) for number, row in rows]
    _check_pairs(path, numbered)
    return tuple(prompt for _, prompt in numbered)
