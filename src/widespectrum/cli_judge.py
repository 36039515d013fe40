"""The verb `judge`."""

from __future__ import annotations

from typing import Annotated

import typer

from .cli_generate import MaxCallsOption, MaxCostOption, resources
from .cli_shared import OutOption, RunArgument, chosen_models, exit_on, say, settle, target, working_on

__all__ = ["judge"]


def judge(
    run: RunArgument,
    out: OutOption = None,
    judge: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Use this one instead of the run file's; may be repeated."),
    ] = None,
    max_calls: MaxCallsOption = None,
    max_cost: MaxCostOption = None,
) -> None:
    """Ask for verdicts and ratings of every image pair.

    What it takes is printed before anything is asked; judges behind an endpoint are asked in both orders.

    Example: widespectrum judge runs/demo --judge pixel
    """
    from . import run_models, runs, stages

    folder, config = target(run, out)
    own = {choice.label for choice in config.judges}
    config, models = chosen_models(run, folder, config, "judges", judge)
    run_models.limit_judges(config, models, resources(None, max_calls, max_cost).budget)
    with working_on(folder):
        run_models.register(folder, models, ["judges"])
        try:
            failures = stages.judge(folder, config, models, say)
        finally:
            runs.withdraw(folder, "judges", models.judges.keys() - own)
        settle(folder, config, failures)
    exit_on(failures)
