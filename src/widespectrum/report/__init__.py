"""The report of a run: one HTML file that holds everything it shows and loads nothing from outside."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from widespectrum import store
from widespectrum.errors import MissingExtraError
from widespectrum.generators import known_bases

from .curves import slope_table
from .gallery import read_gallery, read_refused
from .headline import comparison_table, cut_table, generator_table, generator_tables_by_reward_model, reward_model_table
from .material import Material, read_material
from .plots import dose_response, heatmap, prior_against_match
from .sentences import absent_parts, cautions, gaps, statement

if TYPE_CHECKING:
    from jinja2 import Template
    from markupsafe import Markup

__all__ = ["FILE", "write"]

FILE = "report.html"


def _breakable(label: str) -> Markup:
    """A label that may be broken before its options: `photo-effects[size=256,strength=1]`."""
    from markupsafe import Markup, escape

    return escape(label).replace("[", Markup("<wbr>[")).replace(",", Markup(",<wbr>"))


def _sub(text: str) -> Markup:
    """`r(I_o,p_a)` with its indices set low."""
    from markupsafe import Markup, escape

    return Markup(re.sub(r"\b([pI])_([oa])\b", r"\1<sub>\2</sub>", str(escape(text))))


def _template() -> Template:
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError as error:
        raise MissingExtraError(
            'the report needs Jinja2, which is not installed: pip install "widespectrum[demo]"'
        ) from error
    environment = Environment(
        loader=PackageLoader(__name__), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"breakable": _breakable, "sub": _sub}
    return environment.get_template("report.html.j2")


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
    template = _template()
    page = template.render(_content(read_material(run)))
    path = run / FILE
    store.write_file(path, page.encode())
    return path
