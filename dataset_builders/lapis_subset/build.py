"""Builds the dataset `lapis_subset` from the user's own copy of LAPIS: aggregates of ratings, no rater, no painting."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import datasets
import typer

from widespectrum import lapis
from widespectrum.chat import Chat, Endpoint
from widespectrum.errors import InputError
from widespectrum.lapis.means import MINIMUM
from widespectrum.publishing import (
    Provenance,
    configs_of,
    count_table,
    features,
    file_source,
    load_split,
    markdown_table,
    read_provenance,
    save_card,
    save_config,
)
from widespectrum.publishing.configs import splits_of
from widespectrum.publishing.image_configs import REJECTED, forget_images, save_images, stated_rights
from widespectrum.publishing.images import Packing

__all__ = ["FEATURES", "build"]

FEATURES = {config: features(lapis.COLUMNS) for config in ("subset", "all")}
"""Config → columns; with the paintings attached there are more: image, sha256, width, height."""

NAME = "lapis_subset"
ANNOTATIONS = "annotation/LAPIS_individualratings_metaANDdemodata.csv"
URL = "https://github.com/Anne-SofieMaerten/LAPIS"
TERMS = "LAPIS: given out by its authors on request, without a license of its own"
REASON = (
    "aggregates of the ratings of LAPIS, whose authors give it out on request; ask them before you publish. Paintings "
    "belong to their painters and owners and are not part of this dataset"
)
UNCLEAR = "they belong to their painters and owners"
_OF_CARD = ["style", "genre", "official_split", "n", "mean", "age_means"]

Rows = list[dict[str, Any]]


def _caption(rows: Rows, root: Path, captioner: str, journal: Path) -> str:
    """Write captions into the rows; what came of it."""
    endpoint = Endpoint.parse(captioner)
    found, problems = lapis.image_files(root, [row["file"] for row in rows])
    with Chat(endpoint, journal) as chat:
        captions = lapis.caption_paintings(chat, found)
    for row in rows:
        missing = f"no image: {problems[row['file']]}" if row["file"] in problems else None
        row["caption"], row["caption_problem"] = captions.get(row["file"], (None, missing))
    without = sum(row["caption"] is None for row in rows)
    return f"{len(rows) - without:,} captions; {without:,} paintings have none, see caption_problem"


def _read(path: Path, root: Path | None, minimum: int) -> tuple[Rows, list[str], bool]:
    """One row per painting, notices, and whether the official splits are known."""
    annotations = lapis.read_annotations(path)
    lists, users = (Path(root or "") / name for name in ("imageset", "userset"))
    splits = lapis.read_image_splits(lists) if root is not None and lists.is_dir() else None
    rows, notices = lapis.painting_rows(annotations, splits, minimum=minimum)
    if root is not None and users.is_dir():
        train, test = lapis.read_user_folds(users)[0]
        if unlisted := annotations.raters.keys() - train - test:
            notices.append(f"{len(unlisted):,} raters are in no official fold")
    return rows, notices, splits is not None


def _put_paintings(
    out: Path, config: str, parts: Mapping[str, Rows], root: Path, provenance: Provenance
) -> tuple[dict[str, datasets.Dataset], str]:
    """Write the config with the files of the user's copy of LAPIS in it; its rows without them, and what came of it."""
    folder = lapis.image_folder(root)
    splits = {split: ((row, folder / row["file"]) for row in rows) for split, rows in parts.items()}
    packed = save_images(out, config, splits, FEATURES[config], Packing(key="file", root=folder), provenance)
    left = sum(len(each.rejected) for each in packed.values())
    notice = f"{left:,} paintings are missing or damaged" + (f": {out / config / REJECTED}" if left else "")
    names = [*FEATURES[config], "sha256", "width", "height"]
    return {split: load_split(out, config, split, names) for split, each in packed.items() if each.rows}, notice


def _by_split(rows: Rows) -> dict[str, Rows]:
    """The rows of each official split; those in none are in `unlisted`."""
    names = ("train", "validation", "test")
    found = {name: [row for row in rows if row["official_split"] == name] for name in names}
    found["unlisted"] = [row for row in rows if row["official_split"] is None]
    return {name: listed for name, listed in found.items() if listed}


def _card_values(out: Path) -> dict[str, object]:
    """Counts of every config in the folder, for its card."""
    minima = [read_provenance(out / config).options["min_raters"] for config in configs_of(out)]
    values: dict[str, object] = {"minimum": min(minima)}
    for config in configs_of(out):
        rows = [row for split in splits_of(out, config) for row in load_split(out, config, split, _OF_CARD).to_list()]
        cells = [(row["style"] or "(none)", row["genre"] or "(none)") for row in rows]
        listed = [row["official_split"] or "in none" for row in rows]
        means = [mean for row in rows for mean in row["age_means"]]
        values |= {
            f"{config}_count": f"{len(rows):,}",
            f"{config}_ratings": f"{sum(row['n'] for row in rows):,}",
            f"{config}_mean": f"{sum(row['mean'] for row in rows) / len(rows):.1f}",
            f"{config}_cells": count_table(cells, rows="style", columns=""),
            f"{config}_splits": markdown_table(
                ["official split", "paintings"], [[name, listed.count(name)] for name in dict.fromkeys(sorted(listed))]
            ),
            f"{config}_null_means": f"{sum(mean is None for mean in means):,} of {len(means):,}",
        }
    return values


def build(
    out: Annotated[Path, typer.Option("--out", help="The folder to write.")] = Path(f"build/{NAME}"),
    *,
    lapis_root: Annotated[
        Path | None,
        typer.Option("--lapis-root", metavar="DIR", help="Your copy of LAPIS: annotation, imageset, images."),
    ] = None,
    annotations: Annotated[Path | None, typer.Option(metavar="CSV", help=f"Default: {ANNOTATIONS} in it.")] = None,
    size: Annotated[int | None, typer.Option(min=1, help="Paintings in the subset; without it the config all.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the draw.")] = 0,
    min_raters: Annotated[int, typer.Option(min=MINIMUM, help="So many raters stand behind every figure.")] = MINIMUM,
    captioner: Annotated[str | None, typer.Option(help="openai:<model>@<base-url> (key: OPENAI_API_KEY).")] = None,
    with_images: Annotated[
        bool, typer.Option("--with-images", help="Put your paintings inside; not to publish.")
    ] = False,
    rights: Annotated[str, typer.Option(help="Your right to pass the paintings on, and their license.")] = "",
) -> datasets.DatasetDict:
    """Write the config `subset` (with --size) or `all`, and the card of what the folder holds.

    Every row is a painting: mean and spread of its ratings, means of groups of raters, style, genre, official split.
    With --with-images the files of your copy are inside, as they are; rows whose painting is missing or damaged are
    then left out and listed in `rejected.csv` beside the Parquet files, and a rerun goes on where it stopped.

    Example: widespectrum build lapis_subset --lapis-root LAPIS --size 1000 --out build/lapis_subset
    """
    if lapis_root is None and (annotations is None or with_images or captioner):
        raise InputError("give your copy of LAPIS with --lapis-root DIR; ratings and paintings come from nowhere else")
    path = annotations or Path(lapis_root or "") / ANNOTATIONS
    rows, notices, has_splits = _read(path, lapis_root, min_raters)
    config = "all" if size is None else "subset"
    rows = rows if size is None else lapis.stratified_subset(rows, size, seed=seed)
    if captioner and lapis_root is not None:
        notices.append(_caption(rows, lapis_root, captioner, out / ".work" / f"{config}.jsonl"))
    parts = _by_split(rows) if size is None and has_splits else {"test": rows}
    asked = {"size": size, "seed": seed, "min_raters": min_raters, "captioner": captioner}
    provenance = Provenance(
        license="other",
        license_reason=REASON,
        sources=(file_source(path, name="annotations of LAPIS", license=TERMS, url=URL),),
        options={name: value for name, value in asked.items() if value is not None},
        image_rights={"paintings of LAPIS": stated_rights(rights, UNCLEAR)} if with_images else {},
    )
    if with_images and lapis_root is not None:
        tables, notice = _put_paintings(out, config, parts, lapis_root, provenance)
        notices.append(notice)
    else:
        forget_images(out, config)
        tables = {split: datasets.Dataset.from_list(part, features=FEATURES[config]) for split, part in parts.items()}
        save_config(out, config, tables, provenance)
    save_card(out, NAME, _card_values(out), default="subset")
    for notice in notices:
        typer.echo(notice)
    return datasets.DatasetDict(tables)
