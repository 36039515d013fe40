"""The verb `annotate`: people judge the image pairs of a run in a browser; their verdicts are exported."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .cli_shared import say
from .errors import InputError

if TYPE_CHECKING:
    from .annotate.study import Study

__all__ = ["annotate"]

_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def annotate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder with images.")],
    table: Annotated[
        Path | None, typer.Argument(metavar="FILE.csv", help="With --export: write this table instead.")
    ] = None,
    raters: Annotated[str | None, typer.Option(metavar="A1,A2,...", help="The codes; default: open codes.")] = None,
    overlap: Annotated[int | None, typer.Option(help="Raters per pair, of given codes.  [default: 2]")] = None,
    pairs: Annotated[int | None, typer.Option(help="Judge this many pairs, drawn by --seed.  [default: all]")] = None,
    per_rater: Annotated[int | None, typer.Option(help="Pairs for each open code.  [default: 40]")] = None,
    generator: Annotated[
        list[str] | None, typer.Option(metavar="LABEL", help="Only pairs of this generator; may be repeated.")
    ] = None,
    checks: Annotated[float | None, typer.Option(help="Attention checks per pair.  [default: 0.1]")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the draw, the order and the sides.  [default: 0]")] = None,
    host: Annotated[str, typer.Option(help="The address to serve at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0 takes a free one.")] = 7860,
    export: Annotated[bool, typer.Option("--export", help="Write the verdicts of people into the run.")] = False,
    status: Annotated[bool, typer.Option("--status", help="Say how far each rater is.")] = False,
    include_failed: Annotated[
        bool, typer.Option("--include-failed", help="Export raters who missed too many attention checks, too.")
    ] = False,
    include_unfinished: Annotated[
        bool, typer.Option("--include-unfinished", help="Export raters who have not answered everything, too.")
    ] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="With --export: write every verdict of people anew.")
    ] = False,
) -> None:
    """Let people judge the image pairs of a run.

    It serves a page that asks which image of a pair fits its prompt better. A study stays as it was started; the same
    command goes on with it.

    Example: widespectrum annotate runs/demo --raters heron-1,heron-2,heron-3 --pairs 40
    """
    given = {
        "raters": None if raters is None else tuple(code.strip().lower() for code in raters.split(",")),
        "overlap": overlap,
        "pairs": pairs,
        "per_rater": per_rater,
        "generators": tuple(generator) if generator else None,
        "checks": checks,
        "seed": seed,
    }
    codes = given["raters"]
    settings = {name: value for name, value in given.items() if value is not None}
    if isinstance(codes, tuple):
        # One rater alone cannot overlap with anybody.
        settings.setdefault("overlap", min(2, len(codes)))
    _check_use(settings, table, export=export, status=status, marks=[include_failed, include_unfinished, replace])
    if status:
        _status(run)
    elif export:
        _export(run, table, include_failed=include_failed, include_unfinished=include_unfinished, replace=replace)
    else:
        _serve(run, settings, host, port)


def _check_use(settings: dict[str, Any], table: Path | None, *, export: bool, status: bool, marks: list[bool]) -> None:
    if export and status:
        raise InputError("--export and --status: give one of them")
    if (export or status) and settings:
        raise InputError(
            f"--{next(iter(settings)).replace('_', '-')} belongs to the start of a study: leave it away beside "
            "--export and --status"
        )
    if not export and (table is not None or any(marks)):
        raise InputError("FILE.csv, --include-failed, --include-unfinished and --replace belong to --export: add it")
    if table is not None and table.suffix != ".csv":
        raise InputError(f"{table}: expected a name that ends in .csv")
    if table is not None and marks[-1]:
        raise InputError("--replace is for the verdicts of the run, and a table is always written anew: leave it away")


def _study(run: Path) -> Study:
    from .annotate.study import open_study
    from .runs import read_manifest

    read_manifest(run)
    return open_study(run)


def _status(run: Path) -> None:
    from .annotate import export

    say(export.status(_study(run)))


def _export(run: Path, table: Path | None, *, include_failed: bool, include_unfinished: bool, replace: bool) -> None:
    from . import store
    from .annotate import export
    from .runs import locked

    study = _study(run)
    taken = export.chosen(run, include_failed=include_failed, include_unfinished=include_unfinished)
    for line in taken.said:
        say(line)
    if table is not None:
        answers = export.answer_table(study, taken.logs)
        table.parent.mkdir(parents=True, exist_ok=True)
        store.write_file(table, answers.to_csv(index=False).encode())
        say(f"{len(answers)} answers of {len(taken.logs)} raters: {table}")
        return
    with locked(run):
        new = export.write(study, taken.logs, replace=replace)
    say(f"{new} verdict rows of {len(taken.logs)} raters added to {run}. Next: widespectrum report {run}")


def _serve(run: Path, settings: dict[str, Any], host: str, port: int) -> None:
    from .annotate import app
    from .annotate.desk import Desk
    from .annotate.log import folder_of, serving
    from .annotate.study import open_study
    from .runs import read_manifest

    read_manifest(run)
    app.require_gradio()
    with serving(run):
        study = open_study(run, settings)
        for line in study.planned():
            say(line)
        listener = app.bound(host, port)
        pages = app.application(Desk(study, say))
        shown = f"[{host}]" if ":" in host else host
        if host not in _LOOPBACK:
            say("Whoever reaches this address can take part, and nothing is encrypted: put a server with TLS before it")
        say(f"answers: {folder_of(run)}")
        say(f"open http://{shown}:{listener.getsockname()[1]}/ (Ctrl-C ends it; the same command goes on)")
        with suppress(KeyboardInterrupt):
            app.serve(pages, listener)
    say("Stopped. Every answer is kept.")
