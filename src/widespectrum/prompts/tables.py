"""Reading tables of the user, strictly: every error names the file and the row.

Rows count as a spreadsheet shows them: in a CSV file row 1 is the header, in a Parquet file row 1 is the first row.
"""

from __future__ import annotations

import csv
import itertools
import unicodedata
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

from widespectrum.errors import InputError
from widespectrum.types import Prompt, Role

__all__ = ["is_one_line", "iterate_csv_records", "read_csv_records", "read_prompts", "read_table"]

Row: TypeAlias = tuple[int, Mapping[str, Any]]

_PROMPT_COLUMNS = ("pair_id", "role", "text", "dimensions")
_OPTIONAL_PROMPT_TEXTS = ("subset", "prompt_id", "negative_prompt")
_OPTIONAL_PROMPT_COLUMNS = (*_OPTIONAL_PROMPT_TEXTS, "effects")
_PAIR_COLUMNS = ("pair_id", "original_prompt", "wide_spectrum_prompt", "dimensions")
_PAIR_ROLES: tuple[Role, Role] = ("original", "wide_spectrum")


def is_one_line(text: str) -> bool:
    """Whether a text holds no control character, line break or broken byte, and so can stand in a terminal table."""
    return not any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in text)


def _utf8(line: str) -> str:
    """`line` itself; UnicodeEncodeError where it holds a byte that was not UTF-8 and was read as a surrogate."""
    line.encode()
    return line


def _csv_advice(error: UnicodeEncodeError | csv.Error) -> str:
    """What is wrong and what to do, in the words of someone who looks at the table and not at the parser."""
    if isinstance(error, UnicodeEncodeError):
        return "expected UTF-8 text, got other bytes; save the table as CSV in UTF-8"
    reason = str(error)
    if "unexpected end of data" in reason:
        return "a cell opens with a quote that is never closed; close it, or remove it"
    if "expected after" in reason:
        return "only a comma may follow a closing quote; write a quote inside a quoted cell twice"
    if "field limit" in reason:
        return f"a cell is longer than {csv.field_size_limit()} characters; close its quote, or shorten it"
    return f"this is not valid CSV ({reason}); correct it"


def iterate_csv_records(path: Path, unit: Literal["row", "line"]) -> Iterator[tuple[int, list[str]]]:
    """As `read_csv_records`, one record at a time, and a file without any is not refused."""
    # Bad bytes pass the decoder, which reads ahead, so that the record which holds them can be named.
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.reader(map(_utf8, file), strict=True)
        for row in itertools.count(1):
            number = row if unit == "row" else reader.line_num + 1
            try:
                cells = next(reader, None)
            except (UnicodeEncodeError, csv.Error) as error:
                raise InputError(f"{path}, {unit} {number}: {_csv_advice(error)}") from None
            if cells is None:
                return
            if len(cells) > 1 or "".join(cells).strip():
                yield number, cells


def read_csv_records(path: Path, unit: Literal["row", "line"]) -> list[tuple[int, list[str]]]:
    """The header and the other records of a CSV file, without blank ones, each with its number.

    A record may span several lines: `unit` says whether it is counted as a row, or named by the line where it starts.
    InputError with that number for broken CSV, and for a file that is empty or has other separators than commas.
    """
    records = list(iterate_csv_records(path, unit))
    if not records:
        raise InputError(f"{path} is empty; expected a CSV file that begins with a header")
    number, header = records[0]
    if len(header) == 1 and (";" in header[0] or "\t" in header[0]):
        raise InputError(f"{path}, {unit} {number}: columns must be separated by commas, got {header[0][:80]!r}")
    return records


def _read_csv(path: Path) -> tuple[list[str], list[Row]]:
    (_, header), *records = read_csv_records(path, "row")
    rows: list[Row] = []
    for number, cells in records:
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


def _open_table(path: Path) -> tuple[list[str], list[Row]]:
    """The columns and the numbered rows of a CSV or Parquet file."""
    readers = {".csv": _read_csv, ".parquet": _read_parquet}
    if path.is_dir():
        raise InputError(f"expected a table ending in .csv or .parquet, got the folder {path.absolute()}")
    if path.suffix.lower() not in readers:
        raise InputError(f"expected a table ending in .csv or .parquet, got {path}")
    if not path.is_file():
        raise InputError(f"no file at {path.absolute()}; relative paths start at the folder in which the command runs")
    header, rows = readers[path.suffix.lower()](path)
    for name in header:
        if header.count(name) > 1:
            raise InputError(f"{path} has the column {name!r} twice; remove one")
    return header, rows


def _check_columns(path: Path, header: list[str], required: Collection[str], optional: Collection[str] | None) -> None:
    for name in required:
        if name not in header:
            found = ", ".join(header) or "none"
            raise InputError(f"{path} has no column {name!r}; expected {', '.join(required)}, found {found}")
    for name in header if optional is not None else ():
        if name not in (*required, *(optional or ())):
            expected = ", ".join([*required, *(optional or ())])
            raise InputError(f"{path} has an unknown column {name!r}; expected {expected}")


def read_table(path: Path, required: Collection[str], optional: Collection[str] | None = ()) -> list[Row]:
    """The rows of a CSV or Parquet file with their numbers; InputError unless its columns are the expected ones.

    With `optional` None, further columns are allowed and kept.
    """
    header, rows = _open_table(path)
    _check_columns(path, header, required, optional)
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


def _effects(where: str, value: Any) -> tuple[str, ...]:
    """The words that ask for each dimension: a list, or one text with `|` between them; empty where there are none."""
    words = [part for part in value.split("|") if part.strip()] if isinstance(value, str) else value or []
    if not isinstance(words, list) or not all(isinstance(each, str) for each in words):
        raise InputError(f"{where}: effects must be a list of texts or a text 'a|b', got {value!r}")
    return tuple(unicodedata.normalize("NFC", each.strip()) for each in words)


def _prompt(where: str, row: Mapping[str, Any]) -> Prompt:
    # Whoever fills this column for some prompts leaves it null for the others.
    row = {**row, "negative_prompt": "" if row.get("negative_prompt") is None else row["negative_prompt"]}
    fields: dict[str, Any] = {name: _cell(where, row, name) for name in ("pair_id", "role", "text")}
    fields |= {name: _cell(where, row, name) for name in _OPTIONAL_PROMPT_TEXTS}
    try:
        return Prompt(
            **{"prompt_id": "", **fields},
            dimensions=_dimensions(where, row["dimensions"]),
            effects=_effects(where, row.get("effects")),
        )
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


def _pair(where: str, row: Mapping[str, Any]) -> tuple[Prompt, Prompt]:
    """The two prompts of a row that holds a pair; optional cells may be null."""
    row = {name: "" if value is None and name not in _PAIR_COLUMNS else value for name, value in row.items()}
    pair_id, subset = _cell(where, row, "pair_id"), _cell(where, row, "subset")
    prompts = []
    for role in _PAIR_ROLES:
        fields = {"pair_id": pair_id, "role": role, "subset": subset, "text": _cell(where, row, f"{role}_prompt")}
        fields["prompt_id"] = _cell(where, row, f"{role}_prompt_id")
        asked: dict[str, Any] = {"dimensions": [], "effects": []}
        if role == "wide_spectrum":
            asked = {name: row.get(name) for name in ("dimensions", "effects", "negative_prompt")}
        prompts.append(_prompt(where, {**fields, **asked}))
    return prompts[0], prompts[1]


def read_prompts(path: Path) -> tuple[Prompt, ...]:
    """The prompts in a CSV or Parquet table of the user, with a row for each prompt or for each pair.

    Per prompt: pair_id, role (`original` or `wide_spectrum`), text, dimensions (`a|b` in CSV, a list in Parquet; empty
    for an original), and if wanted effects (the words that ask for each dimension), negative_prompt (what to avoid;
    empty or null for an original), subset and prompt_id. Per pair: pair_id, original_prompt, wide_spectrum_prompt,
    dimensions, and whatever else a published dataset holds. InputError with file and row for anything else.
    """
    header, rows = _open_table(path)
    per_pair = "wide_spectrum_prompt" in header
    _check_columns(path, header, *((_PAIR_COLUMNS, None) if per_pair else (_PROMPT_COLUMNS, _OPTIONAL_PROMPT_COLUMNS)))
    if not rows:
        raise InputError(f"{path} has no rows below its header")
    numbered: list[tuple[int, Prompt]] = []
    for number, row in rows:
        where = f"{path}, row {number}"
        found = _pair(where, row) if per_pair else (_prompt(where, row),)
        numbered += [(number, prompt) for prompt in found]
    _check_pairs(path, numbered)
    return tuple(prompt for _, prompt in numbered)
