"""The verb `import-dataset`: what the paper's authors keep on the Hub, in this package's own tables."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["import_dataset"]


def import_dataset(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="aas_benchmark_final, anti_aesthetics_dataset, aas_real_images, lapis or critical_comparsion.",
        ),
    ],
    source: Annotated[
        str | None,
        typer.Argument(metavar="[PATH]", help="A folder with its Parquet files; default: downloaded from the Hub."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="A run folder, or a Parquet file; default: runs/NAME or tables/NAME.parquet."),
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Of the dataset on the Hub: a commit or a tag.")] = None,
) -> None:
    """Read a dataset of the paper's authors.

    aas_benchmark_final becomes a run, anti_aesthetics_dataset a table of prompt pairs, the others become tables for
    the metric reward_bias.

    Example: widespectrum import-dataset aas_benchmark_final downloads/aas_benchmark_final --out runs/paper
    """
    from . import authors

    place = out or authors.default_place(name)
    for line in authors.import_dataset(name, source, place, revision):
        typer.echo(line)
    is_run = authors.AUTHORS_DATASETS[name].makes == "run"
    typer.echo(f"imported into {place}" + (f". Next: widespectrum evaluate {place}" if is_run else ""))
