"""A table of image files and prompts → scores, one line each, in a file that a later run takes up.

The table is CSV, JSON lines or Parquet with the columns `image` (a path, relative to the folder of the table) and
`prompt`. Scores go to a file of CSV or JSON lines, one line per image, prompt and reward model. What could not be
scored is missing there, and is tried again when the same command is given again.
"""

from __future__ import annotations

import csv
import dataclasses
import fcntl
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL.Image import Image

from .engine import Failure, local
from .engine.local import salvage
from .errors import InputError, ModelError, RunFolderError
from .images import decode
from .prompts.tables import read_table
from .protocols import RewardModel
from .scoring import opened, prepares, read_text, score_images
from .types import ModelSpec

__all__ = ["ScoredRow", "score_file"]

_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredRow:
    """One line of the output: the score of an image of the table under its prompt.

    `truncated` and `special` are those of `widespectrum.types.Score`; `spec` says what the model was.
    """

    image: str
    prompt: str
    reward_model: str
    score: float
    truncated: bool | None
    special: bool | None
    spec: str


_FIELDS = [field.name for field in dataclasses.fields(ScoredRow)]
_HEADER = ",".join(f'"{name}"' for name in _FIELDS) + "\n"


@dataclass(frozen=True, slots=True)
class _Asked:
    """One row of the table."""

    row: int
    image: str
    prompt: str


@dataclass(frozen=True, slots=True)
class _Ready:
    """An image with the rows that ask about it, and what each reward model reads of it; a text says why it cannot.

    `unreadable` says why the image cannot be opened at all; `inputs` are empty then.
    """

    rows: Mapping[str, Sequence[_Asked]]
    inputs: Mapping[str, Any]
    unreadable: str = ""

    def numbers(self, label: str = "") -> str:
        """The rows that ask about the image: those of one reward model, or all."""
        asked = self.rows[label] if label else [each for rows in self.rows.values() for each in rows]
        rows = sorted({each.row for each in asked})
        return f"row{'s' if len(rows) > 1 else ''} {', '.join(map(str, rows))}"


class _Output:
    """The lines that are there, and appends to them; the file belongs to this process until it is closed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._is_csv = path.suffix.lower() == ".csv"
        self.done: dict[tuple[str, str, str], str] = {}
        self._file = path.open("a+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._read()
        except BlockingIOError:
            self._file.close()
            raise InputError(f"{path} is in use by another process: wait for it to end, or stop it") from None
        except InputError:
            self._file.close()
            raise

    def close(self) -> None:
        """Give the file free; one without a line is removed."""
        if not self._file.tell():
            self.path.unlink(missing_ok=True)
        self._file.close()

    def _read(self) -> None:
        """Take up what is there; a line that a killed process left unfinished is cut off."""
        self._file.seek(0)
        content = self._file.read()
        whole = content[: content.rfind(b"\n") + 1]
        # An odd number of quotes: the line break stands inside a prompt.
        while self._is_csv and whole.count(b'"') % 2:
            whole = whole[: whole.rfind(b"\n", 0, -1) + 1]
        try:
            if not (whole or content).startswith(self._beginning[: len(content)]):
                raise ValueError("its beginning is another one")
            rows = self._records(whole.decode())
            self.done = {(row["image"], row["prompt"], row["reward_model"]): row["spec"] for row in rows}
            for spec in set(self.done.values()):
                ModelSpec.parse(spec)
        except (KeyError, TypeError, ValueError, csv.Error) as error:
            raise InputError(
                f"{self.path} is there and does not hold scores ({error}): expected the columns {', '.join(_FIELDS)}; "
                "choose another file with --out"
            ) from None
        if whole != content:
            self._file.truncate(len(whole))
            self._file.seek(0, os.SEEK_END)

    @property
    def _beginning(self) -> bytes:
        """How every file of ours begins."""
        return _HEADER.encode() if self._is_csv else b'{"image": '

    def _records(self, text: str) -> list[dict[str, Any]]:
        if self._is_csv:
            rows: list[dict[str, Any]] = list(csv.DictReader(io.StringIO(text, newline="")))
        else:
            rows = [json.loads(line) for line in text.split("\n") if line.strip()]
        for number, row in enumerate(rows, start=1):
            if list(row) != _FIELDS or not isinstance(row["spec"], str):
                raise ValueError(f"score {number} has other columns")
        return rows

    def check(self, table: Path, asked: Sequence[_Asked]) -> None:
        """InputError where a prompt is too long to be read back from this file."""
        longest = csv.field_size_limit() if self._is_csv else None
        for each in asked:
            if longest is not None and len(each.prompt) >= longest:
                raise InputError(
                    f"{table}, row {each.row}: the prompt has {len(each.prompt):,} characters, a CSV file takes fewer "
                    f"than {longest:,}: shorten it, or give a file ending in .jsonl as --out"
                )

    def append(self, rows: Sequence[ScoredRow]) -> None:
        """Add lines so that a crash loses no finished one."""
        if not rows:
            return
        buffer = io.StringIO(newline="")
        if self._is_csv:
            buffer.write("" if self._file.tell() else _HEADER)
            # Quoted, because a prompt may hold any kind of line break.
            writer = csv.DictWriter(buffer, _FIELDS, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
            writer.writerows(dataclasses.asdict(row) for row in rows)
        else:
            buffer.writelines(json.dumps(dataclasses.asdict(row), ensure_ascii=False) + "\n" for row in rows)
        self._file.write(buffer.getvalue().encode())
        self._file.flush()
        os.fsync(self._file.fileno())
        self.done |= {(row.image, row.prompt, row.reward_model): row.spec for row in rows}


def _json_lines(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f"{path}, line {number}: not JSON ({error}): expected one object per line") from None
        if not isinstance(row, dict):
            raise InputError(f"{path}, line {number}: expected an object with image and prompt, got {line[:60]!r}")
        yield number, row


def _read_asked(path: Path) -> list[_Asked]:
    """The rows of a table of images and prompts; InputError with the row for anything unexpected."""
    if path.suffix.lower() == ".jsonl":
        try:
            rows = list(_json_lines(path))
        except UnicodeDecodeError as error:
            raise InputError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from None
    else:
        rows = list(read_table(path, ("image", "prompt"), None))
    found = []
    for number, row in rows:
        for name in ("image", "prompt"):
            if not isinstance(row.get(name), str):
                raise InputError(f"{path}, row {number}: expected a text as {name}, got {row.get(name)!r}")
        if any("\ud800" <= letter <= "\udfff" for letter in row["image"] + row["prompt"]):
            raise InputError(f"{path}, row {number}: half of a surrogate pair is no text: write the row in UTF-8 again")
        if not row["image"].strip():
            raise InputError(f"{path}, row {number}: the path of the image is empty")
        found.append(_Asked(number, row["image"], row["prompt"]))
    if not found:
        raise InputError(f"{path} has no rows; expected the columns image and prompt, and a row for each score")
    return found


def _open_image(path: Path) -> Image:
    """The decoded image as it is stored: its mode is kept and its EXIF orientation left alone, as reward models do."""
    try:
        content = path.read_bytes()
    # a path with a null character is a ValueError
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{path} cannot be opened ({reason}): paths are relative to the folder of the table") from None
    try:
        return decode(content, str(path), formats=_FORMATS)
    except RunFolderError as error:
        raise InputError(str(error)) from None


def score_file(
    table: Path, out: Path, models: Mapping[str, RewardModel], *, batch_size: int = 16
) -> tuple[int, list[Failure]]:
    """Score what `out` does not hold yet; how many scores were added, and what failed.

    InputError for a table or an output file that cannot be read, and where `out` holds scores of another model under
    the same name.
    """
    asked = _read_asked(table)
    specs, failures = _specs(models)
    output = _Output(out)
    try:
        output.check(table, asked)
        _check_specs(out, output.done, specs)
        before = len(output.done)
        usable, refused = opened({label: models[label] for label in specs})
        todo = _todo(asked, list(usable), output.done)
        prepare, make = partial(_prepare, table.parent, usable), partial(_make, usable, specs, output)
        found = local.run(make, todo, batch_size=batch_size, description="score", prepare=prepare)
        return len(output.done) - before, [*failures, *refused, *found]
    finally:
        output.close()


def _specs(models: Mapping[str, RewardModel]) -> tuple[dict[str, str], list[Failure]]:
    """The specs of the models by label, and why some have none."""
    specs, failures = {}, []
    for label, model in models.items():
        try:
            specs[label] = str(model.spec)
        except InputError as error:
            failures.append(Failure(str(error), "input", label))
    return specs, failures


def _todo(
    asked: Sequence[_Asked], labels: Sequence[str], done: Mapping[tuple[str, str, str], str]
) -> list[tuple[str, dict[str, list[_Asked]]]]:
    """Image by image, what each reward model has to score."""
    todo: dict[str, dict[str, list[_Asked]]] = {}
    for label in labels:
        for each in asked:
            if (each.image, each.prompt, label) not in done:
                todo.setdefault(each.image, {}).setdefault(label, []).append(each)
    return list(todo.items())


def _prepare(
    folder: Path, models: Mapping[str, RewardModel], item: tuple[str, Mapping[str, Sequence[_Asked]]]
) -> _Ready:
    name, rows = item
    try:
        image = _open_image(folder / name)
    except InputError as error:
        return _Ready(rows, {}, str(error))
    return _Ready(rows, {label: _input(models[label], image) for label in rows})


def _make(
    models: Mapping[str, RewardModel], specs: Mapping[str, str], output: _Output, batch: Sequence[_Ready]
) -> list[Failure]:
    rows, failures = _score_batch(batch, models, specs)
    output.append(rows)
    return failures


def _check_specs(out: Path, done: Mapping[tuple[str, str, str], str], specs: Mapping[str, str]) -> None:
    for (_, _, label), spec in done.items():
        if label in specs and ModelSpec.parse(spec).key != ModelSpec.parse(specs[label]).key:
            raise InputError(
                f"{out} holds scores of {label} = {spec}, which is now {specs[label]}: choose another file with --out"
            )


def _input(model: RewardModel, image: Image) -> Any:
    if not prepares(model):
        return image
    try:
        return model.prepare(image)
    except InputError as error:
        return str(error)


def _score_batch(
    batch: Sequence[_Ready], models: Mapping[str, RewardModel], specs: Mapping[str, str]
) -> tuple[list[ScoredRow], list[Failure]]:
    rows: list[ScoredRow] = []
    opened = [ready for ready in batch if not ready.unreadable]
    failures = [Failure(f"{ready.numbers()}: {ready.unreadable}", "input") for ready in batch if ready.unreadable]
    shared: dict[Any, Any] = {}
    for label in dict.fromkeys(label for ready in opened for label in ready.rows):
        asking = [ready for ready in opened if label in ready.rows]
        fit = [ready for ready in asking if not isinstance(ready.inputs[label], str)]
        unfit = [ready for ready in asking if isinstance(ready.inputs[label], str)]
        failures += [Failure(f"{ready.numbers(label)}: {ready.inputs[label]}", "input", label) for ready in unfit]
        made, failed = salvage(partial(_score, models[label], label, shared, specs[label]), fit)
        rows += [row for _, found in made for row in found]
        for which, error in failed:
            numbers = "; ".join(ready.numbers(label) for ready in which)
            failures.append(Failure(f"{numbers}: {error}", "model", label))
    return rows, failures


def _score(
    model: RewardModel, label: str, shared: dict[Any, Any], spec: str, batch: Sequence[_Ready]
) -> list[list[ScoredRow]]:
    """The rows of each image."""
    # A table may ask the same twice.
    asked = [list({each.prompt: each for each in ready.rows[label]}.values()) for ready in batch]
    image_rows = np.repeat(np.arange(len(batch)), [len(rows) for rows in asked])
    rows = [each for own in asked for each in own]
    inputs = [ready.inputs[label] for ready in batch]
    values = score_images(model, inputs, [each.prompt for each in rows], (image_rows, np.arange(len(rows))), shared)
    if values.shape != (len(rows),) or not np.isfinite(values).all():
        raise ModelError(f"gave scores that are not {len(rows)} finite numbers")
    found: list[list[ScoredRow]] = [[] for _ in batch]
    for image, each, value in zip(image_rows, rows, values, strict=True):
        found[image].append(_row(model, label, spec, each, float(value)))
    return found


def _row(model: RewardModel, label: str, spec: str, asked: _Asked, score: float) -> ScoredRow:
    reading = read_text(model, asked.prompt)
    return ScoredRow(
        image=asked.image,
        prompt=asked.prompt,
        reward_model=label,
        score=score,
        truncated=reading.truncated,
        special=reading.special,
        spec=spec,
    )
