"""The verb `train-judge`: its options, and what it makes of them."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["train_judge"]


def train_judge(
    data: Annotated[
        str, typer.Argument(metavar="DATA", help="A dataset of the Hub, a folder with Parquet files, or one such file.")
    ],
    out: Annotated[Path, typer.Option("--out", help="The folder of the judge.")] = Path("judges/dimension"),
    revision: Annotated[str | None, typer.Option(help="Commit, branch or tag of DATA on the Hub.")] = None,
    base: Annotated[
        str, typer.Option(metavar="REPO[@REVISION]", help="The Qwen3-VL that is trained further, or its folder.")
    ] = "Qwen/Qwen3-VL-4B-Instruct",
    dimensions: Annotated[
        str, typer.Option(metavar="D,D,...", help="Names with commas between them, `eleven`, or `all`.")
    ] = "eleven",
    validation: Annotated[int, typer.Option(help="So many of the last rows are not trained on, but validated.")] = 743,
    max_pixels: Annotated[
        int, typer.Option(help="Images are made smaller than this (width x height), aspect ratio kept.")
    ] = 512 * 512,
    epochs: Annotated[int, typer.Option(help="How often every example is seen.")] = 1,
    learning_rate: Annotated[float, typer.Option(help="The highest learning rate.")] = 1e-4,
    batch_size: Annotated[int, typer.Option(help="Examples that are computed together.")] = 8,
    accumulation: Annotated[int, typer.Option(help="Batches of one optimizer step.")] = 4,
    warmup: Annotated[float, typer.Option(help="The share of the steps in which the learning rate rises.")] = 0.03,
    seed: Annotated[int, typer.Option(help="Of the first weights, the dropout and the order of the examples.")] = 0,
    save_every: Annotated[int, typer.Option(help="Steps between checkpoints, of which the last two are kept.")] = 200,
    checkpointing: Annotated[
        bool, typer.Option(help="Gradient checkpointing: takes less memory and about a third more time.")
    ] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and stop.")] = False,
) -> None:
    """Train the dimension judge J on annotated images.

    J is a LoRA of Qwen3-VL; it is validated on every dimension. DATA has the schema of VisionRewardDB-Image: columns
    image and annotation. The same command goes on from the last checkpoint in --out.

    Example: widespectrum train-judge zai-org/VisionRewardDB-Image --out judges/j --dry-run
    """
    from . import train_judge as training

    options = training.Options(
        base=base,
        dimensions=training.dimensions_of(dimensions),
        validation=validation,
        max_pixels=max_pixels,
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
        accumulation=accumulation,
        warmup=warmup,
        seed=seed,
        save_every=save_every,
        checkpointing=checkpointing,
    )
    try:
        training.train_judge(data, out, options, revision=revision, dry_run=dry_run, say=typer.echo)
    except KeyboardInterrupt:
        checkpoint = training.last_checkpoint(out)
        kept = f"The checkpoint of step {checkpoint.name.split('-')[1]} is kept" if checkpoint else "No checkpoint yet"
        typer.echo(f"\nStopped. {kept}. To go on: {shlex.join(['widespectrum', *sys.argv[1:]])}")
        raise typer.Exit(130) from None
