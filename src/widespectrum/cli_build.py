"""The verb `build`: every dataset builder brings its own steps and options, as the signatures of its functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer

from .errors import UnknownNameError
from .published import load_module, published_path
from .registry import unknown_name

__all__ = ["SETTINGS", "build"]

SETTINGS = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
"""Of the command `build` itself: what follows the name belongs to the builder."""


_STOPPED = 130
"""The exit code after Ctrl-C."""


def _names() -> list[str]:
    folder = published_path("dataset_builders")
    return sorted(path.parent.name for path in folder.glob("*/build.py"))


def _verbs(name: str) -> dict[str, Callable[..., Any]]:
    """The steps of a builder, `build` among them."""
    if name not in _names():
        raise unknown_name("dataset", name, dict.fromkeys(_names()), "widespectrum build --help")
    module = load_module(published_path("dataset_builders", name) / "build.py")
    verbs: dict[str, Callable[..., Any]] = getattr(module, "VERBS", {"build": module.build})
    return verbs


def _first_line(function: Callable[..., Any]) -> str:
    return (function.__doc__ or "").strip().partition("\n")[0]


def _run(label: str, function: Callable[..., Any], arguments: list[str]) -> Any:
    """Parse `arguments` by the signature of `function` and call it."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(context_settings={"help_option_names": ["-h", "--help"]})(function)
    return typer.main.get_command(app).main(arguments, prog_name=label, standalone_mode=False)


def _summary(made: Any) -> str:
    if hasattr(made, "items"):
        return ", ".join(f"{split} {table.num_rows:,} rows" for split, table in made.items())
    return str(made)


def build(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="A dataset.", show_default=False)] = "--help",
) -> None:
    """Build a dataset: Parquet files and a card.

    `widespectrum build NAME --help` shows the options of one dataset; some are built in steps.

    Example: widespectrum build wide_spectrum_prompts --out build/prompts
    """
    if name in ("-h", "--help"):
        typer.echo(f"{context.get_help()}\n\nDatasets:\n" + "\n".join(f"  {each}" for each in _names()))
        return
    verbs, arguments = _verbs(name), list(context.args)
    if arguments and not arguments[0].startswith("-"):
        if arguments[0] not in verbs:
            steps = ", ".join(verbs)
            raise UnknownNameError(f"{name} has no step {arguments[0]!r}; its steps: {steps}")
        verb = arguments.pop(0)
    else:
        verb = "build"
    made = _run(f"widespectrum build {name}" + ("" if verb == "build" else f" {verb}"), verbs[verb], arguments)
    if isinstance(made, int) and made:
        if made == _STOPPED:
            typer.echo("Stopped. What is finished is kept; the same command goes on.", err=True)
        raise typer.Exit(made)
    if len(verbs) > 1 and {"-h", "--help"} & set(arguments) and verb == "build":
        typer.echo("\nSteps:\n" + "\n".join(f"  {each:14} {_first_line(verbs[each])}" for each in verbs))
    elif made is not None and not isinstance(made, int):
        typer.echo(f"{name}: {_summary(made)}")
