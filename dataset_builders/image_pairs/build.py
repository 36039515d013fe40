"""Builds the dataset `image_pairs` from a finished run: its prompts, images, scores, verdicts and results."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import datasets
import typer

from widespectrum import store
from widespectrum.publishing import markdown_table, save_card
from widespectrum.run_datasets import RunOptions, model_table, pack_run

__all__ = ["FEATURES", "build"]

CONFIGS = ("prompts", "images", "scores", "verdicts", "abstentions", "results")
FEATURES = {config: datasets.Features.from_arrow_schema(store.SCHEMAS[config]) for config in CONFIGS}


def build(
    out: Annotated[Path, typer.Option("--out", help="The folder to write.")] = Path("build/image_pairs"),
    *,
    run: Annotated[Path, typer.Option(help="The folder of a finished run.")],
    license: Annotated[
        str, typer.Option(help="License of prompts and figures (an id of the Hub), where the prompts are your own.")
    ] = "",
    rights: Annotated[
        str, typer.Option(help="Who holds the rights in the images, where they are made from your own photographs.")
    ] = "",
    leave_out_unclear: Annotated[
        bool, typer.Option("--leave-out-unclear", help="Leave out images whose rights are unclear.")
    ] = False,
) -> str:
    """Make a finished run a dataset as it stands: its Parquet parts, byte for byte, and a card.

    Configs: prompts, images, scores, verdicts, abstentions, results, as far as the run has them. Every image is
    compared with its hash on the way.

    Example: widespectrum build image_pairs --run runs/first --out build/image_pairs
    """
    options = RunOptions(license=license, rights=rights, leave_out_unclear=leave_out_unclear)
    packed = pack_run(run, out, CONFIGS, options)
    values = {
        "models": markdown_table(["kind", "name", "spec"], model_table(run)),
        "left_out": "\n".join(str(packed).splitlines()[1:]) or "Nothing of the run is left out.",
    }
    save_card(out, "image_pairs", values, default="images" if "images" in packed.rows else "scores")
    return f"{packed}\nin {out}"
