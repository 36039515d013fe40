"""Answers of raters → verdict records of the run, or a table for use elsewhere; and how far each rater is."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from widespectrum import runs, store
from widespectrum.errors import InputError
from widespectrum.types import Verdict

from .items import Choice, Key
from .log import RaterLog, read_logs
from .study import Study, spec_of

__all__ = [
    "PASS_RATE",
    "POOLED",
    "Export",
    "answer_table",
    "chosen",
    "pass_rate",
    "pooled",
    "status",
    "verdicts",
    "write",
]

PASS_RATE = 0.75
"""A rater who gives the known answer to less than this share of the attention checks is left out by default."""

POOLED = "people"
"""The label of the majority of the raters."""

_LABEL = "human:"
_KEY = store.KEYS["verdicts"]


@dataclass(frozen=True, slots=True)
class Export:
    """Whose answers are exported, and a sentence on each rater whose are not, or only because that was asked for."""

    logs: tuple[RaterLog, ...]
    said: tuple[str, ...]


def pass_rate(log: RaterLog) -> float | None:
    """The share of the attention checks so far that a rater passed; None before the first."""
    passed, answered = log.checks()
    return passed / answered if answered else None


def _state(log: RaterLog) -> str:
    rate = pass_rate(log)
    if rate is not None and rate < PASS_RATE:
        return "failed"
    return "finished" if log.is_finished else "unfinished"


def _rate_text(log: RaterLog) -> str:
    passed, answered = log.checks()
    return f"{passed} of {answered} checks passed" if answered else "no checks answered"


def chosen(run: Path, *, include_failed: bool, include_unfinished: bool) -> Export:
    """The raters who are exported: those who have finished and pass the checks, and on demand the others."""
    asked = {"failed": include_failed, "unfinished": include_unfinished}
    why = {"failed": f"below {PASS_RATE:.0%}", "unfinished": "not finished"}
    logs, said = [], []
    for log in read_logs(run).values():
        reasons = [reason for reason in (_state(log), "" if log.is_finished else "unfinished") if reason in asked]
        if log.torn:
            said.append(f"{log.path}: the last line was cut off by a crash; it never counted")
        missing = [reason for reason in dict.fromkeys(reasons) if not asked[reason]]
        told = ", ".join(why[reason] for reason in dict.fromkeys(reasons))
        line = f"{log.code}: {len(log.given)} of {len(log.items)} answered, {_rate_text(log)}"
        if missing:
            options = " ".join(f"--include-{reason}" for reason in missing)
            said.append(f"{line}: left out ({told}); {options} takes it in")
            continue
        said.append(line + (f": taken in although {told}" if reasons else ""))
        logs.append(log)
    return Export(tuple(logs), tuple(said))


def _row(key: Key, judge: str, outcome: float, order: Any, details: str = "") -> Verdict:
    return Verdict(
        prompt_id=key[0],
        image_id=key[1],
        rival_id=key[2],
        dimension="overall",
        judge=judge,
        outcome=outcome,
        order=order,
        rationale="",
        details=details,
    )


def verdicts(log: RaterLog) -> list[Verdict]:
    """Two rows per pair that a rater has answered: the order that was shown, and both. Checks are no verdicts."""
    judge = f"{_LABEL}{log.code}"
    answered = [(item, item.outcome(given.choice)) for item, given in log.answered() if item.kind == "pair"]
    return [_row(item.key, judge, outcome, order) for item, outcome in answered for order in (item.order, "both")]


def pooled(logs: Iterable[RaterLog]) -> list[Verdict]:
    """The majority per pair: the image that more than half of its raters chose, else a tie; two raters or more."""
    answers: dict[Key, dict[str, float]] = {}
    for log in logs:
        for item, given in log.answered():
            if item.kind == "pair":
                answers.setdefault(item.key, {})[log.code] = item.outcome(given.choice)
    rows = []
    for key, by_code in sorted(answers.items()):
        outcomes = list(by_code.values())
        if len(outcomes) > 1:
            won = [outcome for outcome in (0.0, 1.0) if outcomes.count(outcome) * 2 > len(outcomes)]
            rows.append(_row(key, POOLED, won[0] if won else 0.5, "both", json.dumps({"raters": by_code})))
    return rows


def _of_people(labels: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.or_(pc.starts_with(labels, _LABEL), pc.equal(labels, POOLED))


def _there(run: Path) -> dict[tuple[Any, ...], dict[str, Any]]:
    table = store.read(run, "verdicts")
    rows = table.filter(_of_people(table["judge"])).to_pylist()
    return {tuple(row[name] for name in _KEY): row for row in rows}


def _take_out(run: Path) -> None:
    """Remove people from the verdicts and the manifest; part by part, so that a crash leaves no verdict twice."""
    manifest = runs.read_manifest(run)
    judges = {
        label: spec
        for label, spec in manifest.specs.get("judges", {}).items()
        if label != POOLED and not label.startswith(_LABEL)
    }
    for path in store.parts(run, "verdicts"):
        with store.reading(path):
            part = pq.read_table(path)
        rest = part.filter(pc.invert(_of_people(part["judge"])))
        if rest.num_rows == 0:
            path.unlink()
        elif rest.num_rows < part.num_rows:
            sink = pa.BufferOutputStream()
            pq.write_table(rest, sink, compression="zstd", write_page_checksum=True)
            store.write_file(path, sink.getvalue().to_pybytes())
    runs.write_manifest(run, dataclasses.replace(manifest, specs={**manifest.specs, "judges": judges}))


def _refuse_changes(
    study: Study, there: Mapping[tuple[Any, ...], Mapping[str, Any]], wanted: Sequence[Verdict]
) -> None:
    """InputError where a verdict that was exported is another one by now, or none."""
    now = {tuple(getattr(row, name) for name in _KEY): row for row in wanted}
    for key, row in there.items():
        new = now.get(key)
        if new is not None and (new.outcome, new.details) == (row["outcome"], row["details"]):
            continue
        pair = study.pairs.get((row["prompt_id"], row["image_id"], row["rival_id"]))
        where = f"pair {pair.pair_id!r} of {pair.generator}" if pair else f"prompt {row['prompt_id']}"
        change = "is not among the answers any more" if new is None else "is not the same any more"
        raise InputError(
            f"the verdict of {row['judge']} on {where}, exported before, {change}: nothing was written; --replace "
            "takes every verdict of people out and writes those of today"
        )


def write(study: Study, logs: Sequence[RaterLog], *, replace: bool) -> int:
    """Append the verdicts that the run does not hold yet; how many. Call it with the run locked.

    With `replace`, those that it holds are taken out first. InputError where they would have to be.
    """
    was = runs.read_manifest(study.run).status
    rows = [*pooled(logs), *(row for log in logs for row in verdicts(log))]
    if replace:
        _take_out(study.run)
    there = _there(study.run)
    _refuse_changes(study, there, rows)
    # People come first where no other judge is: the first one listed is the one whose verdicts count by default.
    labels = {POOLED: spec_of("people", "majority")} if any(row.judge == POOLED for row in rows) else {}
    labels |= {f"{_LABEL}{log.code}": spec_of("human", log.code) for log in logs}
    for label, spec in labels.items():
        runs.register(study.run, "judges", label, spec)
    new = [row for row in rows if tuple(getattr(row, name) for name in _KEY) not in there]
    store.append(study.run, "verdicts", new)
    if was == "complete":
        runs.finish(study.run)
    return len(new)


def answer_table(study: Study, logs: Sequence[RaterLog]) -> pd.DataFrame:
    """One row per rater and pair. `shown_first` is the role of the image in the first place; `outcome` 1 for I_a."""
    rows = []
    for log in logs:
        for item, given in log.answered():
            if item.kind == "pair":
                rows.append(_answer(study, log, item.key, item.order, given.choice, given.time))
                rows[-1]["outcome"] = item.outcome(given.choice)
    return pd.DataFrame(rows, columns=_COLUMNS)


_COLUMNS = (
    *("rater", "pair_id", "generator", "seed", "prompt", "prompt_id", "image_id", "rival_id"),
    *("shown_first", "answer", "outcome", "time", "check_pass_rate"),
)


def _answer(study: Study, log: RaterLog, key: Key, order: str, choice: Choice, time: str) -> dict[str, Any]:
    pair = study.pairs[key]
    return {
        "rater": log.code,
        "pair_id": pair.pair_id,
        "generator": pair.generator,
        "seed": pair.seed,
        "prompt": pair.prompts["wide_spectrum"].text,
        "prompt_id": key[0],
        "image_id": key[1],
        "rival_id": key[2],
        "shown_first": "wide_spectrum" if order == "first" else "original",
        "answer": choice,
        "time": time,
        "check_pass_rate": pass_rate(log),
    }


def status(study: Study) -> str:
    """A table of how far each rater is, and how many answers the pairs have."""
    logs = read_logs(study.run)
    rows = [("rater", "answered", "of", "checks passed", "state", "last answer (UTC)")]
    for code in sorted({*study.settings.raters, *logs}):
        if code not in logs:
            rows.append((code, "0", "", "", "not begun", ""))
            continue
        log = logs[code]
        checks = "{} of {}".format(*log.checks())
        state = f"below {PASS_RATE:.0%} of checks" if _state(log) == "failed" else _state(log)
        rows.append((code, str(len(log.given)), str(len(log.items)), checks, state, log.last[:19].replace("T", " ")))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    counts = dict.fromkeys(study.keys, 0)
    for log in logs.values():
        for item, _ in log.answered():
            if item.kind == "pair" and item.key in counts:
                counts[item.key] += 1
    shares = [f"{list(counts.values()).count(n)} with {n}" for n in sorted(set(counts.values()))]
    return "\n".join([*lines, f"{len(counts)} pairs, by answers: {', '.join(shares)}"])
