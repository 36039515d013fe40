"""The report of a run: one HTML file that holds everything it shows and loads nothing from outside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from widespectrum import store
from widespectrum.generators import known_bases

from .curves import slope_table
from .gallery import read_gallery, read_refused
from .headline import (
    comparison_table,
    cut_table,
    generator_table,
    generator_tables_by_reward_model,
    judge_tables,
    reward_model_table,
)
from .material import Material, read_material
from .plots import dose_response, heatmap, prior_against_match
from .sentences import absent_parts, cautions, gaps, statement
from .templating import template

__all__ = ["FILE", "write"]

FILE = "report.html"


def _content(material: Material) -> dict[str, Any]:
    return {
        "name": material.run.resolve().name,
        "manifest": material.manifest,
        "level": f"{100 * material.level:g}\u00a0%",
        "reward_models": material.reward_models,
        "bases": material.config.evaluate.bases or known_bases(material.manifest.specs["generators"]),
        "statement": statement(material),
        "cautions": cautions(material),
        "absent_parts": absent_parts(material),
        "gaps": gaps(material),
        "bias_table": reward_model_table(material),
        "comparison_table": comparison_table(material),
        "cut_table": cut_table(material),
        "generator_table": generator_table(material),
        "judge_tables": judge_tables(material),
        "generator_tables": generator_tables_by_reward_model(material),
        "prior_plot": prior_against_match(material),
        "dose_plots": dose_response(material),
        "slope_table": slope_table(material),
        "heatmap": heatmap(material),
        "gallery": read_gallery(material),
        "refused": read_refused(material.run),
    }


def write(run: Path) -> Path:
    """Write the report of an evaluated run to `<run>/report.html` and return its path.

    RunFolderError where the run is not evaluated; MissingExtraError without Jinja2 or matplotlib.
    """
    page_template = template("report.html.j2")
    page = page_template.render(_content(read_material(run)))
    path = run / FILE
    store.write_file(path, page.encode())
    return path
