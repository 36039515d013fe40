"""The verb `score` on a table of images and prompts, and how models are named on the command line."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from .config import parse_model
from .errors import InputError

if TYPE_CHECKING:
    from .engine import Failure

__all__ = ["check_kind", "is_table", "score_table", "split_names"]

TABLES = (".csv", ".jsonl", ".parquet")


def split_names(texts: Sequence[str] | None) -> list[str]:
    """The names in `a,b[x=1,y=2]`: commas inside brackets part options, the others part names.

    >>> split_names(["pickscore,hpsv2.1[antialias=false,dtype=bfloat16]", "mps"])
    ['pickscore', 'hpsv2.1[antialias=false,dtype=bfloat16]', 'mps']
    """
    return [name.strip() for text in texts or () for name in re.split(r",(?![^\[]*\])", text) if name.strip()]


def is_table(path: Path) -> bool:
    """Whether RUN is a table of images and prompts and not a run."""
    return path.suffix.lower() in TABLES and not path.is_dir()


def check_kind(path: Path) -> None:
    """InputError where RUN is neither a run nor a table."""
    if path.is_file() and path.suffix.lower() not in (".toml", *TABLES):
        raise InputError(
            f"{path} is neither a run nor a table: expected a run folder, a run file (.toml), or a table of images and "
            f"prompts ({', '.join(TABLES)})"
        )


def score_table(
    table: Path, out: Path | None, names: Sequence[str], say: Callable[[str], None]
) -> tuple[Path, list[Failure]]:
    """Score a table with the named reward models; the file that holds the scores, and what failed."""
    from . import run_models, score_files

    if not names:
        raise InputError(f"{table} is a table of images: give --reward-model NAME (`widespectrum models` lists them)")
    suffix = ".jsonl" if table.suffix.lower() == ".jsonl" else ".csv"
    out = out or table.with_name(f"{table.stem}.scores{suffix}")
    if out.suffix.lower() not in (".csv", ".jsonl") or out.is_dir():
        raise InputError(f"expected a file ending in .csv or .jsonl as --out, got {out}")
    if out.exists() and out.resolve() == table.resolve():
        raise InputError(f"--out {out} is the table itself: choose another file")
    models = run_models.load_reward_models(tuple(parse_model(name) for name in names))
    added, failures = score_files.score_file(table, out, models)
    failures = [
        replace(each, reason=f"score {each.model}{': ' if each.model else ''}{each.reason}") for each in failures
    ]
    say(f"score: {added:,} scores added to {out}")
    return out, failures
