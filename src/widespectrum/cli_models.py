"""The verb `models`: what there is, and what is known of one."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["app"]

app = typer.Typer(invoke_without_command=True, rich_markup_mode=None)


@app.callback()
def models(context: typer.Context) -> None:
    """List models and prompt sets, or say more of one.

    Example: widespectrum models
    """
    if context.invoked_subcommand is None:
        from . import tables

        typer.echo(tables.model_list())


@app.command()
def show(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Names that `widespectrum models` lists.")],
) -> None:
    """Say what is known of a model: checkpoint, preprocessing, window, range, options, traps.

    Example: widespectrum models show pickscore
    """
    from . import tables

    typer.echo("\n\n".join(tables.model_page(name) for name in names))
