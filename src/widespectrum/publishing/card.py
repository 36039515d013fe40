"""The card of a dataset: its template, filled in from the folder that was built."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Any

import datasets
import pyarrow.parquet as pq
from datasets.info import DatasetInfosDict
from huggingface_hub import DatasetCard

from widespectrum import __version__
from widespectrum.errors import InputError
from widespectrum.published import published_path
from widespectrum.store import reading, write_file

from .balance import markdown_table
from .configs import configs_of, splits_of
from .provenance import Provenance, read_provenance

__all__ = ["save_card"]

_SECTION = re.compile(r"<!-- config (\w+) -->\n(.*?)<!-- end config -->\n", re.DOTALL)
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def _info(files: Mapping[str, list[Path]]) -> datasets.DatasetInfo:
    """What `datasets` wants to know of a config before it opens its files."""
    splits, first = {}, next(iter(files.values()))[0]
    for split, paths in files.items():
        metadata = []
        for path in paths:
            with reading(path):
                metadata.append(pq.read_metadata(path))
        size = sum(meta.row_group(group).total_byte_size for meta in metadata for group in range(meta.num_row_groups))
        rows = sum(meta.num_rows for meta in metadata)
        splits[split] = datasets.SplitInfo(name=split, num_bytes=size, num_examples=rows)
    return datasets.DatasetInfo(
        features=datasets.Features.from_arrow_schema(pq.read_schema(first)),
        splits=datasets.SplitDict(splits),
        download_size=sum(path.stat().st_size for paths in files.values() for path in paths),
        dataset_size=sum(info.num_bytes for info in splits.values()),
    )


def _size_category(rows: int) -> str:
    return next((name for limit, name in _SIZES if rows < limit), "1M<n<10M")


def _metadata(out: Path, infos: Mapping[str, datasets.DatasetInfo], default: str) -> dict[str, Any]:
    """The part of the front matter that the folder decides."""
    # The default config stands first: tools that know no default take the first.
    ordered = sorted(infos, key=lambda config: (config != default, config))
    configs = []
    for config in ordered:
        files = [{"split": split, "path": f"{config}/{split}-*.parquet"} for split in splits_of(out, config)]
        configs.append({"config_name": config, **({"default": True} if config == default else {}), "data_files": files})
    rows = sum(split.num_examples for info in infos.values() for split in info.splits.values())
    licenses = sorted({read_provenance(out / config).license for config in infos} - {""})
    license = licenses[0] if len(licenses) == 1 else licenses
    return {"license": license, "size_categories": [_size_category(rows)], "configs": configs}


def _config_table(infos: Mapping[str, datasets.DatasetInfo], provenances: Mapping[str, Provenance]) -> str:
    rows = []
    for config, info in infos.items():
        splits = ", ".join(f"{name} {split.num_examples:,}" for name, split in info.splits.items())
        images = "inside" if provenances[config].image_rights else "none"
        rows.append(
            [f"`{config}`", splits, images, f"{provenances[config].license}: {provenances[config].license_reason}"]
        )
    return markdown_table(["config", "rows by split", "images", "license"], rows)


def _provenance_text(provenances: Mapping[str, Provenance]) -> str:
    lines = []
    for config, made in provenances.items():
        lines.append(f"**{config}**\n")
        for source in made.sources:
            digest = f", sha256 `{source.sha256}`" if source.sha256 else ""
            lines.append(f"- from {source.name} ({source.license}){f', <{source.url}>' if source.url else ''}{digest}")
        lines += [f"- {label}: `{spec}`" for label, spec in made.models.items()]
        lines += [f"- option `{name}`: {value}" for name, value in made.options.items()]
        lines += [f"- images of {name}: {text}" for name, text in made.image_rights.items()]
        lines += [f"- {made.license_reason}", ""]
    return "\n".join(lines).strip()


def _body(template: str, configs: list[str], values: Mapping[str, object], path: Path) -> str:
    kept = _SECTION.sub(lambda match: match[2] if match[1] in configs else "", template)
    try:
        return Template(kept).substitute(values)
    except KeyError as error:
        raise InputError(f"{path}: the placeholder {error} has no value; correct the template") from None
    except ValueError as error:
        raise InputError(f"{path}: {error}; write $$ for a dollar sign") from None


def save_card(out: Path, name: str, values: Mapping[str, object] | None = None, *, default: str = "") -> None:
    """Write `README.md` of the dataset folder `out` from the template `cards/<name>.md`, and `croissant.json`.

    The front matter gets license, configs, dataset_info and size from the folder; sections between
    `<!-- config NAME -->` and `<!-- end config -->` stay where the folder holds that config; placeholders `$name` are
    taken from `values`, and these from the folder: `config_table`, `provenance`, `version`.
    """
    from .croissant import write_croissant

    path = published_path("cards") / f"{name}.md"
    card = DatasetCard(path.read_text(encoding="utf-8"))
    infos = {config: _info(splits_of(out, config)) for config in configs_of(out)}
    if not infos:
        raise InputError(f"{out.absolute()} holds no config of a dataset: build one first")
    provenances = {config: read_provenance(out / config) for config in infos}
    given = {
        "config_table": _config_table(infos, provenances),
        "provenance": _provenance_text(provenances),
        "version": __version__,
    }
    metadata = _metadata(out, infos, default if default in infos else next(iter(infos)))
    for key, value in metadata.items():
        card.data[key] = value
    DatasetInfosDict(infos).to_dataset_card_data(card.data)
    card.text = _body(card.text, list(infos), {**given, **(values or {})}, path)
    write_file(out / "README.md", str(card).encode())
    write_croissant(out, name)
