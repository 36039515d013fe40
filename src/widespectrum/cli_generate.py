"""The verb `generate`."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .cli_shared import OutOption, choices, exit_on, say, settle, target, working_on
from .errors import InputError, MissingExtraError

if TYPE_CHECKING:
    from .config import RunConfig
    from .run_models import Resources

__all__ = ["DevicesOption", "MaxCallsOption", "MaxCostOption", "generate", "resources"]

DevicesOption = Annotated[
    str | None,
    typer.Option(
        metavar="DEVICE,...", help="Where generators with weights compute, as cuda:0,cuda:1: spread over all."
    ),
]
MaxCallsOption = Annotated[int | None, typer.Option(min=1, help="Stop before more API calls are made.")]
MaxCostOption = Annotated[float | None, typer.Option(help="Stop before it costs more, in US dollars.")]


def resources(devices: str | None, max_calls: int | None, max_cost: float | None) -> Resources:
    """What --devices, --max-calls and --max-cost mean; InputError for a device that cannot be used."""
    from .budget import Budget
    from .run_models import Resources

    limited = max_calls is not None or max_cost is not None
    budget = Budget(max_calls=max_calls, max_cost=max_cost) if limited else None
    return Resources(devices=_devices(devices), budget=budget)


def _devices(text: str | None) -> tuple[str, ...]:
    from .devices import usable_device

    names = tuple(name.strip() for name in text.split(",")) if text is not None else ()
    if not all(names):
        raise InputError(f"--devices {text!r}: expected devices with commas between them, such as cuda:0,cuda:1")
    if names and importlib.util.find_spec("torch") is None:
        raise MissingExtraError('--devices needs torch, which is not installed: pip install "widespectrum[generators]"')
    for name in names:
        usable_device(name)
    return names


def _composed(
    generator: list[str] | None, prompts: str | None, photos: Path | None, captions: Path | None, source: str | None
) -> RunConfig:
    """The run file that the options of `generate` stand for."""
    from .config import parse_prompts, parse_run_file, write_run_text

    if not generator or not prompts:
        raise InputError("give a run file, or both --generator and --prompts")
    given = {"photos": photos, "captions": captions, "generator": source}
    table = {**parse_prompts(prompts), **{key: str(each) for key, each in given.items() if each is not None}}
    return parse_run_file(write_run_text(table, {"generators": choices(generator)}), "")


def generate(
    run: Annotated[Path | None, typer.Argument(metavar="RUN", help="A run file (TOML) or a run folder.")] = None,
    out: OutOption = None,
    generator: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Without RUN: a generator; may be repeated.")
    ] = None,
    prompts: Annotated[
        str | None,
        typer.Option(metavar="SET|FILE|RUN", help="Without RUN: a prompt set, a prompt table, or a run with images."),
    ] = None,
    photos: Annotated[Path | None, typer.Option(metavar="DIR", help="Without RUN: your own photographs.")] = None,
    captions: Annotated[Path | None, typer.Option(metavar="CSV", help="Captions of --photos: file,caption.")] = None,
    input: Annotated[
        str | None, typer.Option(metavar="NAME", help="Whose images of the run in --prompts are edited.")
    ] = None,
    devices: DevicesOption = None,
    max_calls: MaxCallsOption = None,
    max_cost: MaxCostOption = None,
    check: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Only try this generator on two prompts; may be repeated.")
    ] = None,
) -> None:
    """Make the images of a run that are still missing.

    Example: widespectrum generate --generator "photo-effects[strength=2]" --prompts photographs --out runs/first
    """
    composing = [generator, prompts, photos, captions, input]
    if check:
        _check(check, [run, out, *composing, devices, max_calls, max_cost])
        return
    if run is None:
        config, folder = _composed(generator, prompts, photos, captions, input), out or Path("runs/generate")
    elif any(composing):
        raise InputError(
            f"{run} already says what to generate: leave --generator, --prompts, --photos, --captions, --input away"
        )
    else:
        folder, config = target(run, out)
    _generate(folder, config, resources(devices, max_calls, max_cost))


def _generate(folder: Path, config: RunConfig, resources: Resources) -> None:
    from . import run_models, stages

    models, prompt_set = run_models.load_models(config), stages.prompt_set_of(config)
    models = run_models.equip(config, models, resources)
    run_models.check_prompts(config, models, prompt_set)
    with working_on(folder):
        stages.start(folder, config, models, prompt_set, ("generators",))
        failures = stages.generate(folder, config, models, prompt_set, say, resources)
        settle(folder, config, failures)
    exit_on(failures)


def _check(names: list[str], others: list[object]) -> None:
    """Try the generators, each on two prompts."""
    if any(other is not None for other in others):
        raise InputError("--check tries generators by itself: leave RUN and every other option away")
    from .check import check_generator

    for choice in choices(names):
        check_generator(choice, say)
