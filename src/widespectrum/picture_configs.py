"""The configs of `wide_spectrum_prompts` that are made from pictures of the user by a vision-language model."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import datasets
import typer

from . import emotion_edits, photo_prompts, prompt_cards
from .chat import Chat, Endpoint
from .config import parse_model
from .errors import InputError
from .generators import load_generator
from .prompts.photographs import photographs_in
from .publishing import Provenance, features, save_card, save_config, table_on_disk
from .registry import label
from .store import write_file

__all__ = ["describe_photographs", "edit_faces"]

NAME = "wide_spectrum_prompts"
OutOption = Annotated[Path, typer.Option("--out", help="The folder to write.")]
VlmOption = Annotated[
    str, typer.Option(metavar="openai:MODEL@URL", help="Who looks at the pictures (key: OPENAI_API_KEY).")
]
RightsOption = Annotated[str, typer.Option(help="Who holds the rights in the pictures, and their license.")]

Rejected = Sequence[Mapping[str, Any]]


def _without_url(endpoint: str) -> str:
    """`openai:<model>`: where the user's server is concerns nobody."""
    return endpoint.rpartition("@")[0] or endpoint


def _own_rights(pictures: str, rights: str) -> dict[str, str]:
    unclear = "unclear: nobody stated with --rights who holds the rights in them"
    return {pictures: f"clear: {rights.strip()}" if rights.strip() else unclear}


def _list_rejected(path: Path, columns: Iterable[str], rejected: Rejected) -> None:
    """List what was left out with its reason; no file where nothing was."""
    if not rejected:
        path.unlink(missing_ok=True)
        return
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rejected)
    write_file(path, text.getvalue().encode())


def _save(out: Path, config: str, table: datasets.Dataset, provenance: Provenance, rejected: Rejected) -> str:
    """Write a config with the list of what it leaves out, and the card; what there is now."""
    listed = out / config / "rejected.csv"
    columns = photo_prompts.REJECTED_FEATURES if config == "photo" else emotion_edits.REJECTED_FEATURES
    save_config(out, config, {"test": table}, provenance)
    _list_rejected(listed, columns, rejected)
    save_card(out, NAME, prompt_cards.card_values(out), default="authored")
    left_out = f"{len(rejected):,} left out: {listed}" if rejected else "none left out"
    return f"{table.num_rows:,} rows in {out / config}, {left_out}"


def describe_photographs(
    photos: Annotated[Path, typer.Option(help="A folder of photographs.")],
    vlm: VlmOption,
    out: OutOption = Path("build") / NAME,
    with_images: Annotated[
        bool, typer.Option("--with-images", help="Put the files into the dataset, as they are, metadata included.")
    ] = False,
    rights: RightsOption = "",
) -> str:
    """Write the config photo: a caption and a prompt for every photograph, by a vision-language model.

    Replies are kept in `OUT/.work`: a stopped build goes on. What cannot be used is listed in `photo/rejected.csv`.

    Example: widespectrum build wide_spectrum_prompts photo --photos my/photos --vlm openai:MODEL@URL
    """
    endpoint, count = Endpoint.parse(vlm), len(photographs_in(photos))
    typer.echo(f"photographs: {count:,}; each is one request or more to {vlm}, unless it was answered before")
    with Chat(endpoint, out / ".work" / "photo.jsonl") as chat:
        made = photo_prompts.photo_prompts(photos, chat, with_images=with_images)
    table = table_on_disk(made.rows(), features(photo_prompts.features(with_images=with_images)))
    terms = "; the photographs keep their own terms" if with_images else ""
    provenance = Provenance(
        license="cc-by-4.0",
        license_reason=f"texts by a model about the user's photographs{terms}",
        options={"vlm": _without_url(vlm), "instruction": photo_prompts.VERSION},
        image_rights=_own_rights("the photographs", rights) if with_images else {},
    )
    return _save(out, "photo", table, provenance, made.rejected)


def _edits_table(made: emotion_edits.EmotionEdits, name: str) -> datasets.Dataset:
    """The edits as a table; InputError where the generator made none."""
    table = table_on_disk(made.rows(), features(emotion_edits.FEATURES))
    if not table.num_rows:
        refused = [row for row in made.rejected if row["emotion"]]
        raise InputError(
            f"{name} refused all {len(refused):,} edits; the first, {refused[0]['face']} to {refused[0]['emotion']}: "
            f"{refused[0]['reason']}; choose another --generator"
        )
    return table


def edit_faces(
    faces: Annotated[Path, typer.Option(help="A folder of pictures of happy or neutral faces.")],
    vlm: VlmOption,
    generator: Annotated[str, typer.Option(metavar="NAME", help="A generator that edits images.")],
    out: OutOption = Path("build") / NAME,
    start: Annotated[str, typer.Option(help="What the faces show: happy or neutral.")] = "happy",
    emotion: Annotated[list[str] | None, typer.Option(help="Edit to this one only; may be repeated.")] = None,
    seed: Annotated[list[int] | None, typer.Option(min=0, help="Of the edits; may be repeated. Default: 0.")] = None,
    size: Annotated[int, typer.Option(help="Longest side in pixels of a face as it is edited.")] = 1024,
    rights: RightsOption = "",
) -> str:
    """Write the config emotion_edits: faces, their edits to each emotion, and back.

    Edits and replies are kept in `OUT/.work`: a stopped build goes on. What cannot be used, refusals included, is
    listed in `emotion_edits/rejected.csv`.

    Example: widespectrum build wide_spectrum_prompts emotion_edits --faces DIR --vlm openai:MODEL@URL --generator NAME
    """
    emotions, seeds = tuple(emotion or ()), tuple(seed or (0,))
    options = emotion_edits.EditOptions(start=start, emotions=emotions, seeds=seeds, size=size)
    choice, endpoint = parse_model(generator), Endpoint.parse(vlm)
    model, name = load_generator(choice.name, **choice.options), label(choice.name, choice.options)
    edits = 2 * len(options.emotions) * len(options.seeds)
    count = f"faces: {len(photographs_in(faces)):,}"
    typer.echo(f"{count}; each is one request or more to {vlm} and {edits} edits by {name}, unless made before")
    work = out / ".work" / "emotion_edits"
    with Chat(endpoint, work / "chat.jsonl") as chat:
        made = emotion_edits.emotion_edits(faces, work, chat=chat, generator=model, label=name, options=options)
    asked = {"start": start, "emotions": ", ".join(options.emotions), "seeds": list(options.seeds), "size": size}
    provenance = Provenance(
        license="cc-by-4.0",
        license_reason="texts by a model about the user's pictures; the pictures keep their own terms",
        options={"vlm": _without_url(vlm), "instruction": emotion_edits.VERSION, **asked},
        models={name: str(model.spec)},
        image_rights=_own_rights("the faces and their edits", rights),
    )
    return _save(out, "emotion_edits", _edits_table(made, name), provenance, made.rejected)
