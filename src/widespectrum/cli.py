"""The command line: one verb per stage. Every error of the user's is one sentence and exit code 2."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from . import (
    __version__,
    cli_annotate,
    cli_build,
    cli_generate,
    cli_import,
    cli_judge,
    cli_judge_report,
    cli_models,
    cli_publish,
    cli_score,
    cli_train,
)
from .cli_generate import DevicesOption, MaxCallsOption, MaxCostOption
from .cli_power import power
from .cli_shared import OutOption, RunArgument, chosen_models, exit_on, say, settle, target, working_on
from .errors import BudgetSpentError, HubError, InputError, ModelError, WideSpectrumError

if TYPE_CHECKING:
    from .config import RunConfig
    from .run_models import Resources

__all__ = ["app", "main"]

_DISK_ERRORS = (
    errno.EACCES,
    errno.EDQUOT,
    errno.EEXIST,
    errno.ENAMETOOLONG,
    errno.ENOENT,
    errno.EISDIR,
    errno.ENOSPC,
    errno.ENOTDIR,
    errno.EPERM,
    errno.EROFS,
)
"""What the user's disk and paths can be the cause of; any other OSError is a fault of ours and keeps its traceback."""


class _Group(TyperGroup):
    """Prints our own errors as one sentence."""

    def invoke(self, ctx: Any) -> Any:
        """Run the verb."""
        try:
            return super().invoke(ctx)
        except WideSpectrumError as error:
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(1 if isinstance(error, BudgetSpentError | HubError | ModelError) else 2) from error
        except OSError as error:
            if error.errno not in _DISK_ERRORS:
                raise
            where = f"{error.filename}: " if error.filename else ""
            typer.echo(f"error: {where}{error.strerror}: check the path, its permissions and the space left", err=True)
            raise typer.Exit(2) from error


app = typer.Typer(
    cls=_Group,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Do image generators and reward models still do what a person asks for when it is not beautiful?",
)


def main() -> None:
    """Entry point of the command `widespectrum`."""
    app()


def _print_version(wanted: bool) -> None:
    if wanted:
        say(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_print_version, is_eager=True)] = False,
) -> None:
    pass


app.command()(cli_generate.generate)


@app.command()
def score(
    run: Annotated[Path, typer.Argument(metavar="RUN|TABLE", help="A run, or a table (.csv, .jsonl, .parquet).")],
    out: Annotated[
        Path | None, typer.Option("--out", help="The run folder; of a TABLE the file of scores (CSV/JSONL).")
    ] = None,
    reward_model: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME,...", help="Use these instead of the run file's; may be repeated."),
    ] = None,
) -> None:
    """Score the images of a run, or of a table, under prompts.

    Of a run both images of every pair under both prompts; of a table each image under the prompt in its row: it has the
    columns image (a path) and prompt.

    Example: widespectrum score runs/demo --reward-model sharpness,exposure
    """
    names = cli_score.split_names(reward_model)
    cli_score.check_kind(run)
    if cli_score.is_table(run):
        _, failures = cli_score.score_table(run, out, names, say)
        exit_on(failures)
        return
    _score_run(run, out, names)


def _score_run(run: Path, out: Path | None, names: list[str]) -> None:
    from . import run_models, runs, stages

    folder, config = target(run, out)
    own = {choice.label for choice in config.reward_models}
    config, models = chosen_models(run, folder, config, "reward_models", names)
    with working_on(folder):
        run_models.register(folder, models, ["reward_models"])
        try:
            failures = stages.score(folder, config, models, say)
        finally:
            # Nobody waits for one that was only tried and gave nothing.
            runs.withdraw(folder, "reward_models", models.reward_models.keys() - own)
        settle(folder, config, failures)
    exit_on(failures)


app.command()(cli_judge.judge)


@app.command()
def evaluate(run: RunArgument, out: OutOption = None) -> None:
    """Compute every metric of a run, with intervals.

    Example: widespectrum evaluate runs/demo
    """
    from . import results, runs, tables

    folder, config = target(run, out)
    runs.check_run(folder, config)
    with working_on(folder):
        results.evaluate(folder, config)
        runs.save_run_file(folder, config)
    say(tables.headline(folder))


@app.command()
def report(run: RunArgument, out: OutOption = None) -> None:
    """Write the report of an evaluated run: one HTML file.

    Example: widespectrum report runs/demo
    """
    from . import report as report_module
    from . import runs
    from .config import read_run_file

    folder, config = target(run, out)
    runs.check_run(folder, config)
    if config.evaluate != read_run_file(folder).evaluate:
        raise InputError(f"{folder} was evaluated with other settings than {run} asks for: evaluate it again first")
    with working_on(folder):
        say(f"report: {report_module.write(folder)}")


@app.command()
def rank(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of finished runs.")],
    out: Annotated[Path, typer.Option("--out", help="The folder for ranking.parquet and ranking.md.")] = Path(
        "ranking"
    ),
) -> None:
    """Rank finished runs together with the published figures.

    Example: widespectrum rank runs/demo --out ranking
    """
    say(f"ranking: {_rank(runs, out)}")


app.command(short_help="Say how many prompts and seeds tell two models apart.")(power)


def _rank(runs: list[Path], out: Path) -> Path:
    from .published import load_module, published_path

    load_module(published_path("leaderboard") / "rank.py").rank(runs, out=out)
    return out / "ranking.md"


def _run(folder: Path, config: RunConfig, resources: Resources | None = None) -> None:
    """Every stage of a run, from where it stands; then its tables on the terminal."""
    from . import report as report_module
    from . import results, run_models, stages, store, tables

    resources = resources or run_models.Resources()
    models, prompt_set = run_models.load_models(config), stages.prompt_set_of(config)
    models = run_models.equip(config, models, resources)
    run_models.check_prompts(config, models, prompt_set)
    with working_on(folder):
        stages.start(folder, config, models, prompt_set)
        failures = stages.generate(folder, config, models, prompt_set, say, resources)
        if stages.is_stopped(failures):
            exit_on(failures)
        failures += stages.score(folder, config, models, say)
        failures += stages.judge(folder, config, models, say)
        if stages.is_stopped(failures):
            exit_on(failures)
        has_scores = bool(store.parts(folder, "scores"))
        if has_scores:
            results.evaluate(folder, config)
            report_module.write(folder)
        settle(folder, config, failures)
    exit_on(failures)
    if not has_scores:
        say("nothing to evaluate: no image pair was scored")
        return
    say(tables.headline(folder))
    say(f"report:  {folder / 'report.html'}")


@app.command()
def run(
    run: RunArgument,
    out: OutOption = None,
    devices: DevicesOption = None,
    max_calls: MaxCallsOption = None,
    max_cost: MaxCostOption = None,
) -> None:
    """Do every stage of a run file, or what is left of it.

    That is: generate, score, judge, evaluate, report. The same command goes on where it was stopped.

    Example: widespectrum run runs/first.toml --out runs/first
    """
    _run(*target(run, out), cli_generate.resources(devices, max_calls, max_cost))


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", help="The run folder.")] = Path("runs/demo"),
    photos: Annotated[Path | None, typer.Option(metavar="DIR", help="Your own photographs instead.")] = None,
    captions: Annotated[Path | None, typer.Option(metavar="CSV", help="Captions of --photos: file,caption.")] = None,
) -> None:
    """Go the whole way once on photographs, without weights.

    It makes images, scores, verdicts, a report and a ranking.

    Example: widespectrum demo --photos my/photos --out runs/mine
    """
    from .config import demo_config

    _run(out, demo_config(photos, captions))
    say(f"ranking: {_rank([out], out / 'ranking')}")


app.command("judge-report")(cli_judge_report.judge_report)
app.command()(cli_annotate.annotate)
app.command("train-judge")(cli_train.train_judge)
app.add_typer(cli_models.app, name="models")
app.command(context_settings=cli_build.SETTINGS)(cli_build.build)
app.command()(cli_publish.publish)
app.command("import-dataset")(cli_import.import_dataset)


@app.command("import-scores")
def import_scores(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="The authors' score table (CSV).")],
    out: Annotated[Path | None, typer.Option("--out", help="The run folder; default: runs/<name of the file>.")] = None,
) -> None:
    """Read the paper's score table into a run folder.

    It can then be evaluated like any other run.

    Example: widespectrum import-scores scores_3300.csv --out runs/paper && widespectrum evaluate runs/paper
    """
    from . import importers

    folder = out or Path("runs") / path.stem
    for line in importers.import_scores(path, folder):
        say(line)
    say(f"imported into {folder}. Next: widespectrum evaluate {folder}")
