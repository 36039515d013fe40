"""Where a config of a dataset comes from and under which terms: `<config>/provenance.json`, published with it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from widespectrum.errors import InputError
from widespectrum.store import write_file

__all__ = ["FILE_NAME", "Provenance", "Source", "file_source", "read_provenance", "write_provenance"]

FILE_NAME = "provenance.json"
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Something that a config was made from; `sha256` and `url` are empty where there is none."""

    name: str
    license: str
    url: str = ""
    sha256: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """How a config was made.

    `license` is a license id of the Hub; `options` what the build was asked for; `models` label → text of the
    ModelSpec; `image_rights` maps each image or group of images inside the config to a text that begins with `clear:`
    or `unclear:`, and is empty where no image is inside.
    """

    license: str
    license_reason: str
    sources: tuple[Source, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    models: Mapping[str, str] = field(default_factory=dict)
    image_rights: Mapping[str, str] = field(default_factory=dict)


def file_source(path: Path, *, name: str, license: str, url: str = "") -> Source:
    """The source that the user's file is, with its sha256."""
    sha = hashlib.sha256()
    with (
        path.open("rb") as file,
        tqdm(total=path.stat().st_size, unit="B", unit_scale=True, delay=2, leave=False) as bar,
    ):
        while block := file.read(_BLOCK):
            sha.update(block)
            bar.update(len(block))
    return Source(name=name, license=license, url=url, sha256=sha.hexdigest())


def write_provenance(folder: Path, provenance: Provenance) -> None:
    """Write it into the folder of its config."""
    text = json.dumps(asdict(provenance), indent=2, ensure_ascii=False, sort_keys=True)
    write_file(folder / FILE_NAME, (text + "\n").encode())


def read_provenance(folder: Path) -> Provenance:
    """Read it from the folder of its config; InputError where there is none or it is not what was written."""
    path = folder / FILE_NAME
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        made = Provenance(**{**fields, "sources": tuple(Source(**source) for source in fields.get("sources", ()))})
        texts = [made.license, made.license_reason, *made.models.values(), *made.image_rights.values()]
        if not (isinstance(made.options, dict) and all(isinstance(text, str) for text in texts)):
            raise TypeError("a value of another type than it was written with")
    except FileNotFoundError:
        raise InputError(f"{folder} has no {FILE_NAME}, so nobody knows its terms: build this config again") from None
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is damaged ({error}): build this config again") from None
    return made
