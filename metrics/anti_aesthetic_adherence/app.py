"""A page for `anti_aesthetic_adherence`: a CSV of rewards in, the figures out."""

from __future__ import annotations

import csv
from pathlib import Path

import evaluate
import gradio as gr

METRIC = evaluate.load(str(Path(__file__).with_name("anti_aesthetic_adherence.py")))
NUMBERS = (
    "r_io_po",
    "r_ia_po",
    "verdict",
    "effect_io",
    "effect_ia",
    "content_io",
    "content_ia",
    "r_ia_po_base",
    "verdict_base",
)
NAMES = ("status", "prompt_id", "image_seed")
HELP = """# Anti-aesthetic adherence
One row per prompt pair. Columns `r_io_po, r_ia_po` (one reward model); optional `verdict, effect_io, effect_ia,
content_io, content_ia, r_ia_po_base, verdict_base, status, prompt_id, image_seed`.
"""


def read_columns(path):
    """The known columns of a CSV file; an empty cell is a missing value."""
    with Path(path).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if not rows:
        raise ValueError("expected a CSV file with a header and at least one row, got none")
    missing = [name for name in NUMBERS[:2] if name not in rows[0]]
    if missing:
        raise ValueError(f"expected the columns {', '.join(NUMBERS[:2])}; the file lacks {', '.join(missing)}")
    columns = {name: [row[name] for row in rows] for name in NAMES if name in rows[0]}
    for name in NUMBERS:
        if name in rows[0]:
            columns[name] = [number(row[name], name, line) for line, row in enumerate(rows, start=2)]
    return columns


def number(text, name, line):
    """A cell as a number; None where it is empty."""
    if not (text or "").strip():
        return None
    try:
        return float(text)
    except (TypeError, ValueError):
        raise ValueError(f"line {line}, column {name}: expected a number, got {text!r}") from None


def table(path):
    """Rows of name, value and interval for every estimate, and of name and reason for every absent one."""
    result = METRIC.compute(**read_columns(path))
    rows = []
    for name, value in result.items():
        if f"{name}_ci_low" in result:
            rows.append(
                [name, round(value, 4), round(result[f"{name}_ci_low"], 4), round(result[f"{name}_ci_high"], 4)]
            )
        elif isinstance(value, int | float) and not name.endswith(("_low", "_high")):
            rows.append([name, value, None, None])
    return rows, [[name, reason] for name, reason in result["notes"].items()]


def show(path):
    """`table` with its errors shown on the page."""
    if path is None:
        raise gr.Error("choose a CSV file first")
    try:
        return table(path)
    except ValueError as error:
        raise gr.Error(str(error)) from error


with gr.Blocks(title="Anti-aesthetic adherence") as demo:
    gr.Markdown(HELP)
    file = gr.File(label="CSV file", file_types=[".csv"], type="filepath")
    button = gr.Button("Compute", variant="primary")
    figures = gr.Dataframe(headers=["name", "value", "ci_low", "ci_high"], label="Figures, with 95 % intervals")
    notes = gr.Dataframe(headers=["name", "why it is absent"], label="Not given")
    button.click(show, inputs=file, outputs=[figures, notes])

if __name__ == "__main__":
    demo.launch()
