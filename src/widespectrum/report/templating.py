"""The templates of pages that hold everything they show, and what their texts are put through."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from widespectrum.errors import MissingExtraError

if TYPE_CHECKING:
    from jinja2 import Template
    from markupsafe import Markup

__all__ = ["template"]


def _breakable(label: str) -> Markup:
    """A label that may be broken before its options: `photo-effects[size=256,strength=1]`."""
    from markupsafe import Markup, escape

    return escape(label).replace("[", Markup("<wbr>[")).replace(",", Markup(",<wbr>"))


def _sub(text: str) -> Markup:
    """`r(I_o,p_a)` with its indices set low."""
    from markupsafe import Markup, escape

    return Markup(re.sub(r"\b([pI])_([oa])\b", r"\1<sub>\2</sub>", str(escape(text))))


def template(name: str, package: str = "widespectrum.report") -> Template:
    """A template of `package`, which may include those of the report. MissingExtraError without Jinja2.

    Whatever is shown is escaped.
    """
    try:
        from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
    except ImportError as error:
        raise MissingExtraError(
            'the report needs Jinja2, which is not installed: pip install "widespectrum[demo]"'
        ) from error
    packages = dict.fromkeys((package, "widespectrum.report"))
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(each) for each in packages]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"breakable": _breakable, "sub": _sub}
    return environment.get_template(name)
