"""The judge report of a run: how far judges and people agree, in one HTML file and in JSON."""

from __future__ import annotations

import json
from pathlib import Path

from widespectrum import store
from widespectrum.report.templating import template

from .figures import Figures, agreement_rows, read_figures
from .page import content
from .plain import as_json, headline

__all__ = ["FILE", "NUMBERS", "agreement_rows", "headline", "read_figures", "write"]

FILE = "judges.html"
NUMBERS = "judges.json"


def write(run: Path, reference: str = "", figures: Figures | None = None) -> Path:
    """Write the judge report to `<run>/judges.html`, the same figures to `<run>/judges.json`; the path of the first.

    `reference` is the judge that others are compared with where there is room for one alone; empty: the people, or
    else a rater, or else the first judge. InputError where it is no judge of the run, or no pair was judged;
    MissingExtraError without Jinja2.
    """
    page = template("judges.html.j2", __name__)
    figures = figures or read_figures(run, reference)
    path = run / FILE
    store.write_file(path, page.render(content(figures)).encode())
    text = json.dumps(as_json(figures), indent=1, ensure_ascii=False, allow_nan=False)
    store.write_file(run / NUMBERS, f"{text}\n".encode())
    return path
