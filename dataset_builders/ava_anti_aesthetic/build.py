"""Builds the dataset `ava_anti_aesthetic` in steps: read, embed, select, recaption, counterpart; `build` packs them."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Annotated

import datasets
import typer

from widespectrum.ava import steps
from widespectrum.ava.captioning import check_root
from widespectrum.ava.card import card_values, provenance
from widespectrum.ava.configs import FEATURES, make_configs, photograph_files
from widespectrum.ava.embedding import load_model
from widespectrum.ava.pack import Material, gather
from widespectrum.errors import InputError
from widespectrum.publishing import load_split, save_card, save_config
from widespectrum.publishing.image_configs import REJECTED, forget_images, save_images
from widespectrum.publishing.images import Packed, Packing

__all__ = ["FEATURES", "VERBS", "build"]

NAME = "ava_anti_aesthetic"
CAP = 0.05

Out = Annotated[Path, typer.Option("--out", help="The dataset folder.")]
Work = Annotated[Path | None, typer.Option(metavar="DIR", help="Folder of the steps; default: .work in --out.")]
Root = Annotated[Path, typer.Option("--ava-root", metavar="DIR", help="Your copy of AVA: <id>.jpg.")]
OUT = Path(f"build/{NAME}")


def read(
    ava_txt: Annotated[Path, typer.Option(metavar="FILE", help="AVA.txt.")],
    out: Out = OUT,
    *,
    challenges: Annotated[Path | None, typer.Option(help="challenges.txt; default: beside AVA.txt.")] = None,
    tags: Annotated[Path | None, typer.Option(help="tags.txt; default: beside AVA.txt.")] = None,
    styles: Annotated[Path | None, typer.Option(help="style_image_lists; default: beside AVA.txt.")] = None,
    work: Work = None,
) -> str:
    """Read the votes, challenges, tags and styles of AVA.

    Example: widespectrum build ava_anti_aesthetic read --ava-txt AVA/AVA.txt
    """
    return steps.read(work or out / ".work", ava_txt, challenges=challenges, tags=tags, styles=styles)


def embed(
    ava_root: Root,
    model: Annotated[str, typer.Option(help="transformers:<repo or folder>[@revision] or open_clip:<arch>@<tag>.")],
    out: Out = OUT,
    *,
    batch_size: Annotated[int, typer.Option(min=1)] = 32,
    device: Annotated[str | None, typer.Option(help="cuda or cpu; default: a GPU where there is one.")] = None,
    dtype: Annotated[str, typer.Option(help="float32 or bfloat16.")] = "float32",
    work: Work = None,
) -> str:
    """Embed your photographs; goes on where it stopped.

    Example: widespectrum build ava_anti_aesthetic embed --ava-root AVA/images --model open_clip:ViT-L-14@openai
    """
    loaded = load_model(model, device=device, dtype=dtype)
    return steps.embed(work or out / ".work", ava_root, loaded, batch_size=batch_size)


def select(
    out: Out = OUT,
    *,
    embeddings: Annotated[Path | None, typer.Option(metavar="DIR", help="Default: those of the step embed.")] = None,
    query_embeddings: Annotated[Path | None, typer.Option(metavar="DIR", help="Embeddings of the query texts.")] = None,
    model: Annotated[str | None, typer.Option(help="Or: the model to embed the query texts with.")] = None,
    dtype: Annotated[str, typer.Option(help="float32 or bfloat16, as in the step embed.")] = "float32",
    queries: Annotated[Path | None, typer.Option(help="Your own queries (JSON); default: ours.")] = None,
    share: Annotated[float | None, typer.Option(help="Of all images, the share that a query keeps.")] = None,
    thresholds: Annotated[str, typer.Option(help="Or: cosines to start from, clip or siglip.")] = "",
    cap: Annotated[float | None, typer.Option(help="Largest share of the pool that one query may make.")] = None,
    like_authors: Annotated[Path | None, typer.Option(metavar="CSV", help="Replay ava_commit_index.csv.")] = None,
    recorded: Annotated[
        Path | None, typer.Option(metavar="CSV", help="Take over, or compare, ava_commits.csv.")
    ] = None,
    work: Work = None,
) -> str:
    """Select photographs by text queries, thresholds and negative queries.

    `.work/select/calibrated.json` then holds the queries with the cosines that their shares came to, for --queries.
    The cap is 0.05, none with --like-authors. With --recorded alone the authors' recorded selection is taken over.

    Example: widespectrum build ava_anti_aesthetic select --model open_clip:ViT-L-14@openai
    """
    wanted = steps.Wanted(
        queries=queries,
        like_authors=like_authors,
        recorded=recorded,
        share=share,
        family=thresholds,
        cap=CAP if cap is None and like_authors is None and recorded is None else cap,
    )
    source = query_embeddings or (partial(load_model, model, dtype=dtype) if model else None)
    return steps.select_photographs(work or out / ".work", wanted, embeddings, source)


def recaption(
    ava_root: Root,
    vlm: Annotated[str, typer.Option(help="openai:<model>@<base-url> (key: OPENAI_API_KEY).")],
    out: Out = OUT,
    *,
    limit: Annotated[int | None, typer.Option(min=1, help="Look at no more than this many now.")] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests at a time.")] = 4,
    work: Work = None,
) -> str:
    """Let a vision-language model reject ordinary photographs and describe the others; goes on where it stopped.

    Example: widespectrum build ava_anti_aesthetic recaption --ava-root AVA/images --vlm openai:qwen3-vl@http://localhost:8000/v1
    """
    folder = work or out / ".work"
    typer.echo(f"{len(steps.selected_ids(folder)):,} photographs are selected; each is one request or more to {vlm}")
    return steps.recaption_selected(folder, ava_root, vlm, limit=limit, concurrency=concurrency)


def counterpart(
    generator: Annotated[str, typer.Option(metavar="NAME", help="A generator, such as name[option=value].")],
    out: Out = OUT,
    *,
    ava_root: Annotated[Path | None, typer.Option(metavar="DIR", help="For generators that edit photographs.")] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    batch_size: Annotated[int, typer.Option(min=1)] = 8,
    work: Work = None,
) -> str:
    """Make the clean counterpart of every photograph that was kept; goes on where it stopped.

    This is meant for a text-to-image generator, which comes with the generators that have weights; those without
    weights start from your photographs (--ava-root) and show only that the step runs. `widespectrum models` lists all.

    Example: widespectrum build ava_anti_aesthetic counterpart --generator "identity[size=512]" --ava-root AVA/images
    """
    return steps.make_clean(work or out / ".work", generator, seed=seed, root=ava_root, batch_size=batch_size)


def _put_photographs(out: Path, material: Material, root: Path, rights: str) -> dict[str, Packed]:
    """Write the config `photographs` with the files of the user's copy of AVA in it."""
    check_root(root)
    terms = provenance(material, "photographs", with_images=True, rights=rights)
    packing = Packing(key="ava_id", root=root)
    packed = save_images(out, "photographs", photograph_files(material, root), FEATURES["photographs"], packing, terms)
    if left := sum(len(each.rejected) for each in packed.values()):
        typer.echo(f"{left:,} photographs are missing or damaged: {out / 'photographs' / REJECTED}")
    return packed


def build(
    out: Out = OUT,
    *,
    with_images: Annotated[
        bool, typer.Option("--with-images", help="Put your photographs inside; not to publish.")
    ] = False,
    ava_root: Annotated[Path | None, typer.Option(metavar="DIR", help="Your copy of AVA: <id>.jpg.")] = None,
    rights: Annotated[str, typer.Option(help="Your right to pass the photographs on, and their license.")] = "",
    votes: Annotated[bool, typer.Option(help="Whether votes, challenge, tags and styles are included.")] = True,
    work: Work = None,
) -> datasets.DatasetDict:
    """Pack what the steps have made so far, for `datasets.load_dataset(folder, config)`, and write the card.

    Ids and text only; with --with-images the files of your own copy of AVA too, as they are. Rows whose photograph is
    missing or damaged are then left out and listed in `photographs/rejected.csv`; a rerun goes on where it stopped.

    Example: widespectrum build ava_anti_aesthetic --out build/ava_anti_aesthetic
    """
    root = ava_root if with_images else None
    if with_images and root is None:
        raise InputError("the photographs come from your own copy of AVA; name its folder with --ava-root")
    folder = work or out / ".work"
    material = gather(folder, with_votes=votes)
    configs = make_configs(folder, material)
    packed = None if root is None else _put_photographs(out, material, root, rights)
    for config, splits in configs.items():
        if config != "photographs" or packed is None:
            forget_images(out, config)
            save_config(out, config, splits, provenance(material, config, with_images=with_images, rights=rights))
    for config in set(FEATURES) - set(configs):
        shutil.rmtree(out / config, ignore_errors=True)  # of an earlier build
    save_card(out, NAME, card_values(material, packed, rights), default="photographs")
    photographs = configs["photographs"]
    if packed is not None:
        names = [*FEATURES["photographs"], "sha256", "width", "height"]
        photographs = {split: load_split(out, "photographs", split, names) for split in packed if packed[split].rows}
    others = {config: splits["test"] for config, splits in configs.items() if config != "photographs"}
    return datasets.DatasetDict({**photographs, **others})


VERBS = {
    "read": read,
    "embed": embed,
    "select": select,
    "recaption": recaption,
    "counterpart": counterpart,
    "build": build,
}
