"""The page of a metric: a table in, from a CSV file or typed, and figures with intervals, plots and remarks out.

Every metric folder is published alone, so this file lies in each of them, the same to the byte; `app.py` has the rest.
"""

from __future__ import annotations

import csv
import inspect
from pathlib import Path

import gradio as gr
import pandas as pd

HEADERS = {"figure": "130px", "value": "75px", "95 % interval": "120px", "part": "100px", "meaning": "680px"}
USE = """Edit the table (a right-click adds and removes rows and columns) or load a CSV file, then press Compute.
Column names are as above. The table numbers its rows from 1, a message from 0: its row 2 is number 3 of the table.
"""


def read_csv(path):
    """A CSV file as a table of text."""
    try:
        with Path(path).open(newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file, strict=True) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"expected a CSV file in UTF-8, got one that is not ({error}); export it anew") from None
    if len(rows) < 2:
        got = "only a header" if rows else "an empty file"
        raise ValueError(f"expected a CSV file with a header and at least one row, got {got}")
    header, *body = rows
    if len(header) == 1 and (";" in header[0] or "\t" in header[0]):
        raise ValueError("expected columns separated by commas, got semicolons or tabs; save the file with commas")
    for number, row in enumerate(body):
        if len(row) != len(header):
            raise ValueError(f"row {number} (counted from 0): expected {len(header)} cells, got {len(row)}")
    return pd.DataFrame(body, columns=header)


def inputs(metric, kinds, frame):
    """The keywords of `metric.compute` in a table, and the columns that are none; an empty cell is a missing value."""
    parameters = inspect.signature(metric._compute).parameters.values()
    required = [each.name for each in parameters if each.default is each.empty]
    known = required + [each.name for each in parameters if each.default is None]
    cells = frame.rename(columns=as_text).map(as_text)
    cells = cells.loc[:, cells.columns != ""]  # a column without a name, such as the index that pandas writes
    missing, repeated = [name for name in required if name not in cells], cells.columns[cells.columns.duplicated()]
    if missing:
        raise ValueError(f"expected the columns {', '.join(required)}; the table lacks {', '.join(missing)}")
    if len(repeated):
        raise ValueError(f"expected every column once, got {repeated[0]!r} several times; rename or remove one")
    filled = cells.ne("")
    cells = cells[filled.any(axis=1)[::-1].cummax()[::-1]]  # empty rows at the end are none
    if cells.empty:
        raise ValueError("expected at least one row, got an empty table; fill it in or load a CSV file")
    used = [name for name in known if name in required or (name in cells and filled[name].any())]
    given = {name: [convert(name, row, cell, kinds) for row, cell in enumerate(cells[name])] for name in used}
    return given, [name for name in cells if name not in known]


def as_text(cell):
    """A cell as stripped text; "" where there is none."""
    return "" if cell is None or cell != cell else str(cell).strip()


def convert(name, row, text, kinds):
    """A cell as what its column holds, a number unless `kinds` says otherwise; None where it is empty."""
    try:
        return kinds.get(name, float)(text) if text else None
    except ValueError:
        raise ValueError(f"{name}, row {row} (counted from 0): expected numbers such as 0.5, got {text!r}") from None


def blocks(result, part="all"):
    """Every part of a result by name: the whole, and the nested results with figures of their own."""
    yield part, result
    for name, value in result.items():
        if isinstance(value, dict) and name.startswith("by_"):
            for key, block in value.items():
                yield from blocks(block, str(key) if part == "all" else f"{part}, {key}")
        elif isinstance(value, dict) and "notes" in value:
            yield from blocks(value, name if part == "all" else f"{part}, {name}")


def figure_rows(result, meanings):
    """One row per figure, as in `HEADERS`."""
    rows = []
    for part, block in blocks(result):
        for name, value in block.items():
            if isinstance(value, int | float) and not name.endswith(("_low", "_high")):
                ends = [block[f"{name}_ci_{end}"] for end in ("low", "high") if f"{name}_ci_{end}" in block]
                interval = f"[{', '.join(f'{end:.3g}' for end in ends)}]" if ends else ""
                number = f"{value:.4g}" if isinstance(value, float) else str(value)
                rows.append([name.replace("_", " "), number, interval, part, meanings.get(name, "")])
    return rows


def remarks(result, unused):
    """A list in Markdown: columns not used, and every part's cautions, absent figures and incomplete inputs."""
    lines, seen = [f"`{name}`: this column is not used, since it is no input of the metric" for name in unused], set()
    for part, block in blocks(result):
        told = [*block.get("cautions", {}).items(), *block.get("notes", {}).items()]
        for name, count in block.get("undefined_resamples", {}).items():
            told.append((name, f"undefined in {count} of the resamples, which its interval leaves out"))
        shares = block.get("coverage", {}).items()
        told += [(name, f"counts in {share:.0%} of the rows") for name, share in shares if 0 < share < 1]
        of = "" if part == "all" else f" ({part})"
        lines += [f"`{name}`{of}: {text}" for name, text in told if (name, text) not in seen]  # once for all parts
        seen.update(told)
    return "\n".join(["### Remarks", *(f"* {line}" for line in lines or ["none"])])


def forest(axes, block, references):
    """Estimates with intervals, one line each; a grey bar marks the reference value where there is one."""
    names = [name for name in references if name in block]
    for line, name in enumerate(names):
        low, high = (block.get(f"{name}_ci_{end}", block[name]) for end in ("low", "high"))
        axes.plot([low, high], [line, line], color="tab:blue", linewidth=2)
        axes.plot(block[name], line, "o", color="tab:blue")
        if references[name] is not None:
            axes.plot(references[name], line, "|", color="gray", markersize=16, markeredgewidth=2)
    axes.set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
    axes.set_ylim(max(len(names), 1) - 0.5, -0.5)
    axes.grid(axis="x", alpha=0.3)


def build(title, text, metric, kinds, example, meanings, draw):
    """The page; `draw(result, given)` makes its two plots."""

    def load(path):
        frame = shown(read_csv, path)
        shown(inputs, metric, kinds, frame)
        return frame

    def compute(frame):
        given, unused = shown(inputs, metric, kinds, frame)
        result = shown(metric.compute, **given)
        return *draw(result, given), figure_rows(result, meanings), remarks(result, unused)

    with gr.Blocks(title=title) as page:
        gr.Markdown(f"# {title}\n{text}\n\n{USE}")
        file = gr.UploadButton("Load a CSV file", file_types=[".csv"])
        table = gr.Dataframe(example, show_label=False, interactive=True, show_row_numbers=True, max_height=360)
        button = gr.Button("Compute", variant="primary")
        with gr.Row():
            plots = [gr.Plot(show_label=False), gr.Plot(show_label=False)]
        figures = gr.Dataframe(
            headers=[*HEADERS], column_widths=[*HEADERS.values()], show_label=False, wrap=True, max_height=800
        )
        told = gr.Markdown()
        outputs = [*plots, figures, told]
        # no old figures may stand beside a new table or a message, and no old table beside a new file
        nothing = [None] * len(outputs)
        emptied = file.upload(lambda: [example.head(0), *nothing], outputs=[table, *outputs], api_visibility="private")
        emptied.then(load, file, table, api_name="load")
        cleared = button.click(lambda: nothing, outputs=outputs, api_visibility="private")
        cleared.then(compute, table, outputs, api_name="compute")
    return page


def shown(function, *arguments, **keywords):
    """What `function` gives, its ValueError as a message on the page."""
    try:
        return function(*arguments, **keywords)
    except ValueError as error:
        raise gr.Error(str(error), duration=None, print_exception=False) from None
