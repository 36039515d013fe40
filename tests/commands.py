"""The command line in this process."""

import re

from typer.testing import CliRunner

from widespectrum.cli import app


def invoke(*arguments):
    """What a command printed, and its exit code."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def files(folder):
    """Every file with its time of change; the lock is written whenever it is taken."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.name != ".lock"} | dict.fromkeys(
        folder.rglob(".lock")
    )


def refused(folder, *arguments):
    """The sentence with which the command refuses; it must leave everything as it is."""
    before = files(folder)
    result = invoke(*arguments)
    assert result.exit_code == 2, result.output
    assert files(folder) == before
    assert re.fullmatch(r"error: [^\n]+\n", result.stderr)
    assert result.stdout == ""
    return result.stderr.removeprefix("error: ").strip()
