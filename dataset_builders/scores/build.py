"""Builds the dataset `scores` from a finished run: what reward models answered and what follows from it, no images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import datasets
import typer

from widespectrum import store
from widespectrum.publishing import markdown_table, save_card
from widespectrum.run_datasets import RunOptions, model_table, pack_run

__all__ = ["FEATURES", "build"]

CONFIGS = ("scores", "results")
FEATURES = {config: datasets.Features.from_arrow_schema(store.SCHEMAS[config]) for config in CONFIGS}


def build(
    out: Annotated[Path, typer.Option("--out", help="The folder to write.")] = Path("build/scores"),
    *,
    run: Annotated[Path, typer.Option(help="The folder of a finished run.")],
    license: Annotated[
        str, typer.Option(help="License of the figures (an id of the Hub), where the prompts are your own.")
    ] = "",
) -> str:
    """Make the scores and results of a finished run a dataset as they stand, without images.

    Example: widespectrum build scores --run runs/first --out build/scores
    """
    packed = pack_run(run, out, CONFIGS, RunOptions(license=license))
    absent = f"Not in this run: {', '.join(packed.absent)}." if packed.absent else ""
    values = {"models": markdown_table(["kind", "name", "spec"], model_table(run)), "absent": absent}
    save_card(out, "scores", values, default="scores")
    return f"{packed}\nin {out}"
