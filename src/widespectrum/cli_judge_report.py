"""The verb `judge-report`: its options, and what it makes of them."""

from __future__ import annotations

from typing import Annotated

import typer

from .cli_shared import OutOption, RunArgument, say, target, working_on

__all__ = ["judge_report"]


def judge_report(
    run: RunArgument,
    out: OutOption = None,
    reference: Annotated[
        str,
        typer.Option(metavar="LABEL", help="The judge that others are compared with; default: people, or the first."),
    ] = "",
) -> None:
    """Say how far judges and people agree.

    Also what sways them and what they cost: judges.html and judges.json.

    Example: widespectrum judge-report runs/first --reference people
    """
    from . import judge_report as report

    folder, _ = target(run, out)
    with working_on(folder):
        figures = report.read_figures(folder, reference)
        path = report.write(folder, figures=figures)
    say(report.headline(figures))
    say(f"judge report: {path}, its figures: {folder / report.NUMBERS}")
