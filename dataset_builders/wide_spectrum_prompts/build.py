"""Builds the dataset `wide_spectrum_prompts`: Parquet and a card, loadable without a script."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import datasets
import typer

from widespectrum import controlled, emotion_edits, photo_prompts, prompt_cards
from widespectrum.errors import InputError
from widespectrum.picture_configs import describe_photographs, edit_faces
from widespectrum.prompts import load_prompt_set
from widespectrum.prompts.coco import Caption, draw_captions, read_captions, rewrite_captions, unusable_row
from widespectrum.prompts.critical import FEATURES as CRITICAL_COLUMNS
from widespectrum.prompts.critical import critical_rows
from widespectrum.prompts.emotion import FEATURES as EMOTION_COLUMNS
from widespectrum.prompts.emotion import PROBE_FEATURES, emotion_splits, probe_rows
from widespectrum.prompts.lengths import LENGTH_COLUMNS, add_lengths, open_encoders
from widespectrum.prompts.pairs import LITE_PAIRS, PAIR_COLUMNS, authored_pairs, pair_row
from widespectrum.prompts.private import draw_secretly, read_secret, write_commitment
from widespectrum.prompts.rewriting import open_rewriter
from widespectrum.publishing import Provenance, Source, features, file_source, save_card, save_config, table_on_disk
from widespectrum.registry import unknown_name
from widespectrum.store import write_file

__all__ = ["FEATURES", "VERBS", "build"]

_WRITTEN = {**PAIR_COLUMNS, "effects": "list<string>", "negative_prompt": "string"}
_CAPTION = {"caption_id": "int64", "image_id": "int64", "rewriter_request": "string", "rewriter_reply": "string"}
_COCO = {**_WRITTEN, **LENGTH_COLUMNS, **_CAPTION, "problems": "list<string>"}
_COLUMNS = {
    "authored": {**_WRITTEN, "style": "string", **LENGTH_COLUMNS},
    "coco": _COCO,
    "controlled": controlled.FEATURES,
    "critical": CRITICAL_COLUMNS,
    "emotion": EMOTION_COLUMNS,
    "emotion_probes": PROBE_FEATURES,
    "emotion_edits": emotion_edits.FEATURES,
    "photo": photo_prompts.features(),
    "photographs": {**PAIR_COLUMNS, "effects": "list<string>"},
    "private": _COCO,
}
FEATURES = {config: features(columns) for config, columns in _COLUMNS.items()}
"""Config → columns; a tokenizer of the user adds its column to `authored`, `coco` and `private`."""

_ours = partial(Provenance, license="cc-by-4.0", license_reason="texts written for this dataset")
_of_coco = partial(
    Provenance, license="cc-by-4.0", license_reason="captions by the COCO Consortium (CC BY 4.0), changed"
)

PRIVATE_PAIRS = 60

Row = dict[str, Any]
Made = tuple[Mapping[str, datasets.Dataset], Provenance]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the user asked for, beside the config."""

    out: Path
    captions: Path | None
    rewriter: str
    pairs: int | None
    seed: int
    rotation: str
    tokenizers: tuple[str, ...]
    photos: Path | None
    photo_captions: Path | None
    rights: str
    size: int


def _table(config: str, rows: Iterable[Mapping[str, Any]]) -> datasets.Dataset:
    """Rows as a table with the columns of the config, and after them what a tokenizer of the user added."""
    listed = list(rows)
    extra = {name: "int32" for name in listed[0] if name not in FEATURES[config]}
    columns = features({**_COLUMNS[config], **extra})
    return datasets.Dataset.from_list([{name: row[name] for name in columns} for row in listed], features=columns)


def _authored(options: Options) -> Made:
    rows = []
    for pair in authored_pairs():
        dimensions = sorted(pair["effects"])
        row = pair_row(pair["pair_id"], pair["caption"], pair["prompt"], dimensions, pair["subject"])
        effects = [pair["effects"][name] for name in dimensions]
        rows.append({**row, "effects": effects, "negative_prompt": pair["negative"], "style": pair["style"]})
    encoders = open_encoders(options.tokenizers)
    add_lengths(rows, encoders)
    splits = {"test": _table("authored", rows), "lite": _table("authored", rows[:LITE_PAIRS])}
    return splits, _ours(options=prompt_cards.vocabularies(encoders))


def _photographs(options: Options) -> Made:
    prompts = load_prompt_set("photographs").prompts
    rows = [
        pair_row(plain.pair_id, plain.text, wide.text, wide.dimensions, plain.subset) | {"effects": list(wide.effects)}
        for plain, wide in zip(prompts[::2], prompts[1::2], strict=True)
    ]
    return {"test": _table("photographs", rows)}, _ours()


def _emotion(options: Options) -> Made:
    return {split: _table("emotion", rows) for split, rows in emotion_splits().items()}, _ours()


def _emotion_probes(options: Options) -> Made:
    return {"test": _table("emotion_probes", probe_rows())}, _ours()


def _critical(options: Options) -> Made:
    return {"test": _table("critical", critical_rows())}, _ours()


def _controlled(options: Options) -> Made:
    own = options.photos, options.photo_captions
    rows = controlled.controlled_rows(*own, size=options.size, seed=options.seed)
    table = table_on_disk(rows, FEATURES["controlled"])
    left_out = {f"left out: {name}": why for name, why in controlled.left_out().items()} if not options.photos else {}
    reason = "prompts written for this dataset; every photograph keeps its own terms"
    made = Provenance(
        license="cc-by-4.0",
        license_reason=reason,
        options={"seed": options.seed, "size": options.size, **left_out},
        models=controlled.generator_specs(options.size),
        image_rights=controlled.image_rights(*own, rights=options.rights),
    )
    return {"test": table}, made


def _captions(options: Options) -> tuple[list[Caption], Source]:
    if options.captions is None:
        raise InputError("this config is made from captions: give COCO's captions_*.json, --captions FILE")
    captions = read_captions(options.captions)
    name, url = options.captions.name, "https://cocodataset.org"
    return captions, file_source(options.captions, name=name, license="CC BY 4.0", url=url)


def _rewritten(options: Options, config: str, captions: list[Caption], passed_over: Mapping[Caption, str]) -> list[Row]:
    """The rows that rewriting gives, after them those of captions that were passed over."""
    journal = options.out / ".work" / f"{config}.jsonl"
    with open_rewriter(options.rewriter, journal, seed=options.seed) as rewriter:
        rows = list(rewrite_captions(captions, rewriter, seed=options.seed))
    return rows + [unusable_row(caption, reason) for caption, reason in passed_over.items()]


def _split(options: Options, config: str, rows: list[Row], source: Source) -> Made:
    """What passed in `test`, what did not in `rejected`."""
    encoders = open_encoders(options.tokenizers)
    add_lengths(rows, encoders)
    splits = {
        "test": [row for row in rows if not row["problems"]],
        "rejected": [row for row in rows if row["problems"]],
    }
    # Where the user's server is concerns nobody.
    rewriter = options.rewriter.rpartition("@")[0] or options.rewriter
    asked = {"rewriter": rewriter, "seed": options.seed, **prompt_cards.vocabularies(encoders)}
    tables = {split: _table(config, listed) for split, listed in splits.items() if listed}
    if "test" not in tables:
        listed = options.out / ".work" / f"{config}-rejected.jsonl"
        write_file(listed, "".join(f"{json.dumps(row)}\n" for row in rows).encode())
        raise InputError(
            f"no prompt passed the rule check; the first problem: {rows[0]['problems'][0]}; all are listed in {listed}"
        )
    return tables, _of_coco(sources=(source,), options=asked)


def _coco(options: Options) -> Made:
    captions, source = _captions(options)
    drawn, passed_over = draw_captions(captions, options.pairs, seed=options.seed)
    return _split(options, "coco", _rewritten(options, "coco", drawn, passed_over), source)


def _private(options: Options) -> Made:
    captions, source = _captions(options)
    drawn, seed = draw_secretly(
        captions, options.pairs or PRIVATE_PAIRS, secret=read_secret(), rotation=options.rotation
    )
    rows = _rewritten(replace(options, seed=seed), "private", drawn, {})
    tables, _ = _split(options, "private", rows, source)
    write_commitment(options.out / "private", tables["test"].to_list(), options.rotation)
    # Neither the seed nor the options go into the provenance: with the seed the split could be drawn again.
    return tables, _of_coco(sources=(source,), options={"rotation": options.rotation})


_CONFIGS: Mapping[str, Callable[[Options], Made]] = {
    "authored": _authored,
    "coco": _coco,
    "controlled": _controlled,
    "critical": _critical,
    "emotion": _emotion,
    "emotion_probes": _emotion_probes,
    "photographs": _photographs,
    "private": _private,
}
STANDING_ALONE = ("authored", "emotion", "emotion_probes", "critical", "photographs", "controlled")
"""The configs that need nothing of the user's, in the order in which they are built by default."""


def build(
    out: Annotated[Path, typer.Option("--out", help="The folder to write.")] = Path("build/wide_spectrum_prompts"),
    *,
    config: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help=f"{', '.join(_CONFIGS)}; may be repeated.")
    ] = None,
    captions: Annotated[Path | None, typer.Option(help="coco, private: COCO's captions_*.json (or .json.xz).")] = None,
    rewriter: Annotated[
        str, typer.Option(help="coco, private: template, or openai:<model>@<base-url> (key: OPENAI_API_KEY).")
    ] = "template",
    pairs: Annotated[
        int | None, typer.Option(min=1, help="coco: how many; all captions by default. private: 60.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="coco, controlled: seed of every draw.")] = 0,
    rotation: Annotated[str, typer.Option(help="private: name of the period, such as 2026-12.")] = "",
    tokenizer: Annotated[
        list[str] | None, typer.Option(metavar="NAME=PATH", help="Count the tokens of this encoder; may be repeated.")
    ] = None,
    photos: Annotated[Path | None, typer.Option(help="controlled: your own photographs.")] = None,
    photo_captions: Annotated[Path | None, typer.Option(help="controlled: their captions, a CSV file,caption.")] = None,
    rights: Annotated[str, typer.Option(help="controlled: who holds the rights in --photos, and their license.")] = "",
    size: Annotated[int, typer.Option(help="controlled: longest side of an image in pixels.")] = controlled.SIZE,
) -> datasets.DatasetDict:
    """Write configs into the folder, for `datasets.load_dataset(folder, config)`, and the card of all that it holds.

    Without --config: authored, emotion, emotion_probes, critical, photographs and controlled, which need nothing of
    yours (the last two: pip install "widespectrum[demo]"). Configs that an earlier build wrote into the folder stay.

    Example: widespectrum build wide_spectrum_prompts --config coco --captions captions_val2017.json --pairs 300
    """
    options = Options(
        out=out,
        captions=captions,
        rewriter=rewriter,
        pairs=pairs,
        seed=seed,
        rotation=rotation,
        tokenizers=tuple(tokenizer or ()),
        photos=photos,
        photo_captions=photo_captions,
        rights=rights,
        size=size,
    )
    names = list(dict.fromkeys(config or STANDING_ALONE))
    if unknown := [name for name in names if name not in _CONFIGS]:
        raise unknown_name("config", unknown[0], _CONFIGS, "widespectrum build wide_spectrum_prompts --help")
    # All are made before the first is written, so that one that cannot be made leaves no folder without its card.
    made = {name: _CONFIGS[name](options) for name in names}
    for name, (splits, provenance) in made.items():
        save_config(out, name, splits, provenance)
    save_card(out, "wide_spectrum_prompts", prompt_cards.card_values(out), default="authored")
    if len(names) == 1:
        return datasets.DatasetDict(made[names[0]][0])
    tables = {f"{name}.{split}": table for name, (splits, _) in made.items() for split, table in splits.items()}
    return datasets.DatasetDict(tables)


VERBS = {"build": build, "photo": describe_photographs, "emotion_edits": edit_faces}
"""The steps of `widespectrum build wide_spectrum_prompts`: the last two look at pictures of the user."""
