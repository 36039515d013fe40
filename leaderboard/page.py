"""Turn the rows of `ranking.parquet` into a Markdown page; it knows nothing that the rows do not say."""

from __future__ import annotations

import html
import re
from collections import defaultdict
from pathlib import Path
from typing import Any, TypeAlias

from widespectrum.columns import SUBSETS

__all__ = ["page"]

Row: TypeAlias = dict[str, Any]

_LEGEND = Path(__file__).resolve().with_name("legend.md")
_TITLES = {"generators": "Generators", "reward_models": "Reward models"}
_RUN_COLUMNS = {
    "generators": (
        "success_rate",
        "effect_gain",
        "content_preservation",
        "delta_j_all",
        "delta_j_selected",
        "refusal_rate",
        "failure_rate",
        "coverage/verdict",
    ),
    "reward_models": (
        "both_ways_accuracy",
        "prior_over_match",
        "image_prior",
        "prompt_match",
        "accuracy_under_original",
        "accuracy_under_wide_spectrum",
    ),
}


def page(rows: list[Row]) -> str:
    """The ranking as Markdown: per board its runs, its published figures and what is pending."""
    sections = ["# Ranking", _LEGEND.read_text(encoding="utf-8").strip()]
    for board, title in _TITLES.items():
        tiers: dict[str, list[Row]] = defaultdict(list)
        for row in rows:
            if row["board"] == board:
                tiers[row["tier"]].append(row)
        sections += [f"## {title}", "### Runs", _runs(board, tiers["run"])]
        sections += ["### Published, not recomputed", _published(tiers["published"])]
        if tiers["pending"]:
            columns = ["model", "source", "note"]
            lines = [[row[name] for name in columns] for row in tiers["pending"]]
            sections += ["### Pending: announced, no figures yet", _table(columns, lines)]
    return "\n\n".join(sections) + "\n"


def _runs(board: str, rows: list[Row]) -> str:
    if not rows:
        return "No runs yet."
    # One row stands for each model: its headline, else one over all pairs, else any.
    standing = {row["model"]: row for row in sorted(rows, key=lambda row: (row["headline"], row["subset"] == "all"))}
    heads = sorted(standing.values(), key=_run_order)
    cells = {(row["model"], row["metric"]): row for row in rows if row["subset"] == standing[row["model"]]["subset"]}
    present = {metric for _, metric in cells}
    sets = list(dict.fromkeys(row["comparison"] for row in heads))
    columns = [metric for metric in _RUN_COLUMNS[board] if metric in present]
    lines = [
        [
            *(_places(row), str(row["tie_group"] or "–"), row["model"]),
            *(_estimate(cells.get((row["model"], metric))) for metric in columns),
            *(row["subset"], str(row["n"]) if row["headline"] else "–"),
            *(str(sets.index(row["comparison"]) + 1), row["source"], row["note"]),
        ]
        for row in heads
    ]
    parts = [_table(["places", "tie group", "model", *columns, "subset", "n", "set", "source", "note"], lines)]
    parts.append("\n".join(f"- Set {number}: {_text(text)}" for number, text in enumerate(sets, start=1)))
    if deltas := sorted(metric for metric in present if metric.startswith("delta_reward/")):
        lines = [[row["model"], *(_estimate(cells.get((row["model"], metric))) for metric in deltas)] for row in heads]
        parts += ["Change of reward under the plain prompt:", _table(["model", *deltas], lines)]
    return "\n\n".join(parts)


def _run_order(row: Row) -> tuple[object, ...]:
    """By set, then subset, then place; models without a place come last, those with a headline figure first."""
    subset = SUBSETS.index(row["subset"]) if row["subset"] in SUBSETS else len(SUBSETS)
    value = -row["value"] if row["headline"] else 0.0
    return (row["comparison"], subset, row["rank_low"] is None, not row["headline"], value, row["model"])


def _published(rows: list[Row]) -> str:
    cells = {(row["model"], row["metric"]): row for row in rows}
    sources = {row["model"]: row["source"] for row in rows}
    headlines = {row["model"]: row for row in rows if row["headline"]}
    headline = next(row["metric"] for row in headlines.values())
    columns = sorted(dict.fromkeys(row["metric"] for row in rows), key=lambda metric: metric != headline)
    unlisted = [model for model in sources if model not in headlines]
    order = [*sorted(headlines, key=lambda model: -headlines[model]["value"]), *unlisted]
    lines = [[model, *(_printed(cells.get((model, name))) for name in columns), sources[model]] for model in order]
    about: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        about[row["note"]].append(row)
    notes = [f"- {_text(_owners(owners))}: {_text(note)}" for note, owners in about.items() if note]
    intro = f"In the order of the printed {headline}; no interval, no rank."
    return "\n\n".join([intro, _table(["model", *columns, "source"], lines), "\n".join(notes)])


def _owners(rows: list[Row]) -> str:
    """The cells that a note is about; a note on many of them is about the column."""
    if len(rows) > 4:
        return f"{', '.join(sorted({row['metric'] for row in rows}))} ({len(rows)} cells)"
    return ", ".join(f"{row['metric']} of {row['model']}" for row in rows)


def _printed(row: Row | None) -> str:
    return "–" if row is None else f"{row['value']:.3f}"


def _places(row: Row) -> str:
    low, high = row["rank_low"], row["rank_high"]
    if low is None:
        return "not ranked"
    return str(low) if low == high else f"{low}–{high}"


def _estimate(row: Row | None) -> str:
    if row is None or row["metric"].startswith("coverage/"):
        return _printed(row)  # a share of what was asked for is counted, not estimated
    interval = "no interval" if row["ci_low"] is None else f"{row['ci_low']:.3f} to {row['ci_high']:.3f}"
    return f"{row['value']:.3f} ({interval})"


def _text(cell: str) -> str:
    """A name from a stranger's run as plain text: no markup, no line break, no extra column."""
    return re.sub(r"([\\`*\[\]|])", r"\\\1", html.escape(" ".join(cell.split()), quote=False))


def _table(header: list[str], lines: list[list[str]]) -> str:
    body = [header, ["---"] * len(header), *lines]
    return "\n".join("| " + " | ".join(_text(cell) for cell in line) + " |" for line in body)
