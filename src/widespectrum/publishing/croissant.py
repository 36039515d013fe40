"""The Croissant description of a dataset folder: JSON-LD with the fields for responsible AI.

Croissant 1.0 (<http://mlcommons.org/croissant/1.0>) and its RAI vocabulary. The words about collection, biases and use
come from `cards/rai.json`, everything else from the folder.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from huggingface_hub import DatasetCard

from widespectrum import __version__
from widespectrum.published import published_path
from widespectrum.store import write_file

from .configs import configs_of, splits_of
from .provenance import read_provenance

__all__ = ["FILE_NAME", "describe", "write_croissant"]

FILE_NAME = "croissant.json"
RELEASED = "2026-11-21"
"""The day of this version: the clock has no place in a file that is compared by its bytes."""
CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
_LICENSES = {
    "apache-2.0": "https://www.apache.org/licenses/LICENSE-2.0",
    "cc-by-2.0": "https://creativecommons.org/licenses/by/2.0/",
    "cc-by-4.0": "https://creativecommons.org/licenses/by/4.0/",
    "cc0-1.0": "https://creativecommons.org/publicdomain/zero/1.0/",
}
_PARQUET = "application/x-parquet"


def _data_type(kind: pa.DataType) -> str:
    """The schema.org type of a column's values."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _data_type(kind.value_type)
    if pa.types.is_struct(kind):
        return "sc:ImageObject"
    if pa.types.is_boolean(kind):
        return "sc:Boolean"
    if pa.types.is_integer(kind):
        return "sc:Integer"
    return "sc:Float" if pa.types.is_floating(kind) else "sc:Text"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _file(out: Path, path: Path, base: str) -> dict[str, Any]:
    name = path.relative_to(out).as_posix()
    return {
        "@type": "cr:FileObject",
        "@id": name,
        "name": name,
        "contentUrl": f"{base}{name}",
        "contentSize": f"{path.stat().st_size} B",
        "encodingFormat": _PARQUET,
        "sha256": _sha256(path),
    }


def _field(record_set: str, source: str, field: pa.Field) -> dict[str, Any]:
    of: dict[str, Any] = {"fileObject": {"@id": source}, "extract": {"column": field.name}}
    if pa.types.is_struct(field.type):
        of["transform"] = {"jsonPath": "bytes"}
    is_list = pa.types.is_list(field.type) or pa.types.is_large_list(field.type)
    return {
        "@type": "cr:Field",
        "@id": f"{record_set}/{field.name}",
        "name": f"{record_set}/{field.name}",
        "dataType": _data_type(field.type),
        **({"repeated": True} if is_list else {}),
        "source": of,
    }


def _record_sets(out: Path, config: str, split: str, files: list[Path]) -> list[dict[str, Any]]:
    """One record set per Parquet file: a file is what a checksum and a source can name."""
    made = []
    for index, path in enumerate(files):
        name = f"{config}/{split}" + (f"/{index:05d}" if len(files) > 1 else "")
        source = path.relative_to(out).as_posix()
        fields = [_field(name, source, field) for field in pq.read_schema(path)]
        made.append({"@type": "cr:RecordSet", "@id": name, "name": name, "field": fields})
    return made


def _description(text: str, name: str) -> str:
    """The first paragraph of a card; the name of the dataset where it has none."""
    blocks = re.split(r"\n\s*\n", text.strip())
    return next((" ".join(block.split()) for block in blocks if block and not block.startswith("#")), name)


def _rai(name: str) -> Mapping[str, Any]:
    table = json.loads((published_path("cards") / "rai.json").read_text(encoding="utf-8"))
    fields: Mapping[str, Any] = {**table["all"], **table.get(name, {})}
    return {f"rai:{key}": value for key, value in fields.items()}


def describe(out: Path, name: str, repo_id: str = "", version: str = __version__) -> dict[str, Any]:
    """The JSON-LD of the dataset folder `out`, of which the card is there.

    Without `repo_id` the file addresses are relative to the folder, so that it can be checked where it lies; with it
    they are those of the tag `v<version>` on the Hub.
    """
    card = DatasetCard((out / "README.md").read_text(encoding="utf-8"))
    page = f"https://huggingface.co/datasets/{repo_id}" if repo_id else "https://huggingface.co/datasets"
    files = {(config, split): paths for config in configs_of(out) for split, paths in splits_of(out, config).items()}
    licenses = sorted({read_provenance(out / config).license for config in configs_of(out)} - {""})
    base = f"{page}/resolve/v{version}/" if repo_id else ""
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "name": name,
        "description": _description(card.text, name),
        "conformsTo": ["http://mlcommons.org/croissant/1.0", "http://mlcommons.org/croissant/RAI/1.0"],
        "license": [_LICENSES.get(license, license) for license in licenses],
        "url": page,
        "version": version,
        "datePublished": RELEASED,
        "citeAs": _citation(),
        "creator": {"@type": "sc:Organization", "name": "The widespectrum authors"},
        "keywords": list(card.data.get("tags", [])),
        "inLanguage": "en",
        "isLiveDataset": False,
        **_rai(name),
        "distribution": [_file(out, path, base) for paths in files.values() for path in paths],
        "recordSet": [
            made for (config, split), paths in files.items() for made in _record_sets(out, config, split, paths)
        ],
    }


def _citation() -> str:
    return (
        "@software{widespectrum, author = {The widespectrum authors}, title = {widespectrum: do image generators and "
        f"reward models still do what a person asks for}}, version = {{{__version__}}}, year = {{2026}}}}"
    )


def write_croissant(out: Path, name: str, repo_id: str = "", version: str = __version__) -> None:
    """Write `croissant.json` into the dataset folder `out`."""
    text = json.dumps(describe(out, name, repo_id, version), indent=2, ensure_ascii=False)
    write_file(out / FILE_NAME, (text + "\n").encode())
