"""What the verbs of the command line share: which run is meant, holding its lock, and how a verb ends."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .errors import InputError, RunFolderError

if TYPE_CHECKING:
    from .config import ModelChoice, RunConfig
    from .engine import Failure
    from .run_models import Models

__all__ = ["OutOption", "RunArgument", "choices", "chosen_models", "exit_on", "say", "settle", "target", "working_on"]

FAILURES_SHOWN = 50

RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="A run file (TOML) or a run folder.")]
OutOption = Annotated[Path | None, typer.Option("--out", help="The run folder; default: runs/<name of the run file>.")]


def say(text: str) -> None:
    """Print a line."""
    typer.echo(text)


def target(run: Path, out: Path | None) -> tuple[Path, RunConfig]:
    """The run folder and the configuration that RUN and --out mean."""
    from .config import read_run_file

    if run.is_dir():
        if out is not None and out.resolve() != run.resolve():
            raise InputError(f"{run} is a run folder, so --out {out} contradicts it: leave --out away")
        return run, read_run_file(run)
    return out or Path("runs") / run.stem, read_run_file(run)


def _same_command() -> str:
    return shlex.join(["widespectrum", *sys.argv[1:]])


@contextmanager
def working_on(folder: Path) -> Iterator[None]:
    """Hold the lock of the run; on Ctrl-C say what is kept and how to go on."""
    from .runs import locked

    with locked(folder):
        try:
            yield
        except KeyboardInterrupt:
            say(f"\nStopped. Every finished batch is kept. To go on: {_same_command()}")
            raise typer.Exit(130) from None


def settle(folder: Path, config: RunConfig, failures: list[Failure]) -> None:
    """Record the run as complete where nothing is left to do."""
    from . import run_models, runs

    if not failures and run_models.finished(folder, config):
        runs.finish(folder)


def exit_on(failures: list[Failure]) -> None:
    """Print what failed and end with exit code 2 where only input is at fault, else with 1."""
    from .stages import is_stopped

    if not failures:
        return
    failed = failures[:-1] if is_stopped(failures) else failures
    for failure in failed[:FAILURES_SHOWN]:
        typer.echo(f"failed: {failure.reason}", err=True)
    if len(failed) > FAILURES_SHOWN:
        typer.echo(f"failed: {len(failed) - FAILURES_SHOWN:,} more", err=True)
    if is_stopped(failures):
        typer.echo(f"Stopped: {failures[-1].reason}. To go on: {_same_command()}", err=True)
    is_input = all(failure.cause == "input" for failure in failures)
    if not is_stopped(failures):
        again = "Correct what is said above; then" if is_input else "To try these again"
        typer.echo(f"Nothing else was lost. {again}: {_same_command()}", err=True)
    raise typer.Exit(2 if is_input else 1)


def chosen_models(
    run: Path, folder: Path, config: RunConfig, kind: str, names: list[str] | None
) -> tuple[RunConfig, Models]:
    """The configuration of a stage by itself, with the models of `kind` that `names` mean instead of its own."""
    import dataclasses
    from typing import Any

    from . import run_models, runs, store

    manifest = runs.check_run(folder, config)
    if not store.parts(folder, "images"):
        raise RunFolderError(
            f"{folder} holds no images to {'score' if kind == 'reward_models' else 'judge'}: run the generate stage "
            "first"
        )
    own = {choice.label: choice for choice in getattr(config, kind)}
    chosen: dict[str, Any] = {}
    if names:
        chosen[kind] = tuple(own[name] if name in own else choices([name])[0] for name in names)
    config = dataclasses.replace(config, **chosen)
    run_models.check_named(run, config, kind)
    return config, run_models.load_models(config, manifest.specs.get("reward_models", {}))


def choices(texts: list[str] | None) -> tuple[ModelChoice, ...]:
    """The models that `name[option=value]` texts mean."""
    from .config import parse_model

    return tuple(parse_model(text) for text in texts or ())
