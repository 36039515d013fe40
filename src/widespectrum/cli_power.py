"""The verb `power`: its options, and what it makes of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from .errors import InputError

__all__ = ["power"]

Number = TypeVar("Number", int, float)


def _numbers(option: str, text: str, kind: Callable[[str], Number], example: str) -> tuple[Number, ...]:
    try:
        return tuple(dict.fromkeys(kind(part) for part in text.split(",")))
    except ValueError:
        raise InputError(
            f"{option}: expected numbers with commas between them, such as {example}; got {text!r}"
        ) from None


def power(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a finished run.")],
    metric: Annotated[
        str,
        typer.Option(help="What is compared; a wrong name lists the right ones; default: the first."),
    ] = "",
    difference: Annotated[
        str, typer.Option(metavar="D,D,...", help="Differences to be told; default: small ones.")
    ] = "",
    power: Annotated[float, typer.Option(help="The chance that a true difference is shown.")] = 0.8,
    seeds: Annotated[str, typer.Option(metavar="N,N,...", help="Seeds per prompt.")] = "1,2,4,8",
    models: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Repeat it: compare these alone; default: all pairs.")
    ] = None,
    comparisons: Annotated[int, typer.Option(help="How many pairs of models are to be told apart together.")] = 1,
) -> None:
    """Plan a comparison: how many prompts and seeds tell two models apart, by the variances of a finished run.

    Example: widespectrum power runs/demo --metric both_ways_accuracy --difference 0.05,0.1
    """
    from .power import Plan, plan_text

    plan = Plan(
        metric=metric,
        differences=_numbers("--difference", difference, float, "0.05,0.1") if difference else (),
        seeds=_numbers("--seeds", seeds, int, "1,2,4"),
        models=tuple(models or ()),
        power=power,
        comparisons=comparisons,
    )
    typer.echo(plan_text(run, plan))
