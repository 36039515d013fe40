"""The verb `publish`: what a name stands for, and what has to be right before anything is sent."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from . import __version__
from .errors import InputError, UnknownNameError
from .published import published_path

if TYPE_CHECKING:
    from .hub import Publication, Target
    from .hub_plan import RepoType

__all__ = ["publish"]

Kind = Literal["dataset", "metric", "leaderboard"]


def _names() -> dict[str, Kind]:
    """Everything that can be published."""
    builders = sorted(path.parent.name for path in published_path("dataset_builders").glob("*/build.py"))
    metrics = sorted(path.parent.name for path in published_path("metrics").glob("*/README.md"))
    return {
        **dict.fromkeys(builders, "dataset"),
        **dict.fromkeys(metrics, "metric"),
        "leaderboard": "leaderboard",
    }


def _folder(name: str, kind: Kind, given: Path | None) -> Path:
    """The folder to publish."""
    if given is not None:
        folder = given
    elif kind == "dataset":
        folder = Path("build") / name
    else:
        folder = published_path("leaderboard") if kind == "leaderboard" else published_path("metrics", name)
    if given is not None and not folder.is_dir():
        raise InputError(f"--from: expected a folder to publish, and there is none at {folder}")
    if not (folder / "README.md").is_file():
        build = f": build it first (widespectrum build {name} --out {folder})" if kind == "dataset" else ""
        raise InputError(f"--from: {folder} holds no README.md to publish{build}")
    return folder


def _check_metric(name: str, folder: Path, repo: str) -> None:
    """Refuse what `evaluate.load` could not load from its Space."""
    from . import vendor

    if repo.rpartition("/")[2] != name:
        raise InputError(
            f"--repo: `evaluate.load` wants the Space of a metric to be called like its script: "
            f"expected {repo.rpartition('/')[0] or 'ORG'}/{name}, got {repo!r}"
        )
    if not (folder / f"{name}.py").is_file():
        raise InputError(f"--from: {folder} holds no {name}.py, the script of the metric")
    with tempfile.TemporaryDirectory() as alone:
        (Path(alone) / name).symlink_to(folder.resolve())
        if problems := vendor.check(metrics=Path(alone)):
            raise InputError(f"{'; '.join(problems)}: run `python -m widespectrum.vendor`")


def _check(folder: Path, repo_type: RepoType) -> None:
    """Print everything that is wrong with a folder and end with exit code 2; or do nothing."""
    from .publishing.check import problems

    if found := problems(folder, repo_type):
        for problem in found:
            typer.echo(str(problem), err=True)
        count = "a problem" if len(found) == 1 else f"{len(found)} problems"
        typer.echo(f"error: {folder} has {count}, so nothing was sent", err=True)
        raise typer.Exit(2)


def _outcome(made: Publication, target: Target) -> str:
    if made.pull_request:
        return f"proposed: {made.pull_request}; once it is merged, publish without --pr to set the tag {target.tag}"
    if made.tag is None:
        return f"nothing to propose: {made.url} holds the same already"
    return f"published: {made.url}/tree/{made.tag} (commit {made.commit})"


def publish(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A dataset, a metric, or leaderboard.")],
    repo: Annotated[str, typer.Option("--repo", metavar="ORG/NAME", help="The repository on the Hub.")],
    folder: Annotated[
        Path | None,
        typer.Option("--from", metavar="DIR", help="What is published; default: build/NAME, or the metric's folder."),
    ] = None,
    pr: Annotated[bool, typer.Option("--pr", help="Open a pull request instead of pushing.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Send nothing; show every file and the card.")] = False,
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    version: Annotated[str, typer.Option(metavar="X.Y.Z", help="The tag, without its v.")] = __version__,
    message: Annotated[str, typer.Option(metavar="TEXT", help="The title of the commits.")] = "",
) -> None:
    """Publish a dataset, a metric or the leaderboard on the Hub.

    The token is that of HF_TOKEN or of `hf auth login`. After a failure, the same command goes on where it stopped.

    Example: widespectrum publish wide_spectrum_prompts --repo my-org/wide_spectrum_prompts --dry-run
    """
    names = _names()
    if name not in names:
        raise UnknownNameError(f"nothing called {name!r} is published: expected one of {', '.join(names)}")
    kind = names[name]
    repo_type: RepoType = "dataset" if kind == "dataset" else "space"
    chosen = _folder(name, kind, folder)
    if kind == "metric":
        _check_metric(name, chosen, repo)
    _check(chosen, repo_type)
    if kind == "dataset" and not dry_run:  # a dry run changes nothing, here neither
        from .publishing.croissant import write_croissant

        write_croissant(chosen, name, repo, version)

    from .hub import Target, publish_folder

    target = Target(
        repo_id=repo,
        repo_type=repo_type,
        version=version,
        private=private,
        message=message,
    )
    try:
        made = publish_folder(chosen, target, create_pr=pr, dry_run=dry_run, say=typer.echo)
    except KeyboardInterrupt:
        typer.echo("\nStopped. Whole commits are kept; the same command goes on.", err=True)
        raise typer.Exit(130) from None
    if not dry_run:
        typer.echo(_outcome(made, target))
