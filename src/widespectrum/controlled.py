"""The config `controlled`: photographs with one effect at a time, at five strengths; a pinned test of reward models.

Here the truth is known by construction: the image shows what `wide_spectrum_prompt` asks for, `original_prompt` does
not ask for it, and strength 0 is the untouched photograph. A reward model that reads its prompt lets the reward under
`wide_spectrum_prompt` rise with `strength`, and the one under `original_prompt` fall. Score `image` under both prompts
and hand the rewards to `dose_response`: `series` is `pair_id`, `requested` is true under `wide_spectrum_prompt`.

The images come from the generator `photo-effects`: six photographs x 13 effects x 5 strengths are 390 rows, 81 MB as
PNG at the default size (23 MB at 256, 49 MB at 384). Equal options give equal pixels: `DIGEST` is that of the default
rows. The PNG bytes, and with them `image_id`, may change with the version of zlib.

Only photographs whose rights are clear are taken unless `unclear` asks for all. `motorcycle` is left out, since its
package states no license. `astronaut` shows a living person: keep it to the purpose of showing image effects.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from PIL.Image import Image
from tqdm import tqdm

from widespectrum import registry
from widespectrum.errors import InputError
from widespectrum.generators import load_generator
from widespectrum.images import encode
from widespectrum.prompts import load_prompt_set, open_photograph
from widespectrum.prompts.images import StoredImage
from widespectrum.prompts.pairs import PAIR_COLUMNS, pair_prompts, pair_row
from widespectrum.prompts.photographs import with_effect
from widespectrum.types import digest

__all__ = [
    "DIGEST",
    "FEATURES",
    "SIZE",
    "SMALLEST",
    "STRENGTHS",
    "controlled_rows",
    "generator_specs",
    "image_rights",
    "left_out",
    "photograph_rights",
    "pixel_digest",
]

SIZE = 512
"""The default for the longest side of an image, in pixels; smaller photographs are not enlarged."""

SMALLEST = 128
"""Below this side the weakest blurs and the finest blocks change no pixel, and strength 1 would be strength 0."""

STRENGTHS = (0, 1, 2, 3, 4)
"""From the untouched photograph to a drastic effect."""

FEATURES = {
    "row_id": "string",
    **PAIR_COLUMNS,
    "photograph": "string",
    "dimension": "string",
    "effect": "string",
    "strength": "int32",
    "image": "image",
    "image_id": "string",
    "pixel_sha256": "string",
    "width": "int32",
    "height": "int32",
    "license": "string",
    "credit": "string",
}
"""The columns of `controlled_rows` with their types. `image_id` is the sha256 of the PNG bytes, `pixel_sha256` that of
`RGB <width> <height>` with a line feed and the RGB bytes, row by row."""

DIGEST = "dfa9007cfd8d4b5c283f0f9ae40afad54b3aa2655e755283f8b1662dde614010"
"""`pixel_digest` of the rows that `controlled_rows()` gives without options."""


class _Photograph(NamedTuple):
    name: str
    path: Path | StoredImage
    caption: str
    license: str
    credit: str


@cache
def photograph_rights() -> dict[str, dict[str, str]]:
    """The rights in the photographs of the prompt set `photographs`, by name; not to be changed by callers.

    Each has status (`clear` or `unclear`), license, credit and url, some a note.
    """
    file = resources.files("widespectrum.prompts").joinpath("photograph_rights.json")
    rights: dict[str, dict[str, str]] = json.loads(file.read_text(encoding="utf-8"))
    return rights


def left_out() -> dict[str, str]:
    """The shipped photographs that are not taken by default, each with its reason."""
    rights = photograph_rights().items()
    return {name: entry["note"] for name, entry in rights if entry["status"] != "clear"}


def image_rights(
    photos: Path | None = None, captions: Path | None = None, *, unclear: bool = False, rights: str = ""
) -> dict[str, str]:
    """What a Provenance says about each photograph, beginning with `clear:` or `unclear:`.

    `rights` is the user's own statement about the photographs in `photos`; without it they are unclear.
    """
    if photos is not None:
        own = f"clear: {rights}" if rights else "unclear: nobody stated who holds the rights in these photographs"
        return {item.name: own for item in _photographs(photos, captions, unclear)}
    status = {name: entry["status"] for name, entry in photograph_rights().items()}
    shipped = _photographs(None, captions, unclear)
    return {item.name: f"{status[item.name]}: {item.license}; {item.credit}" for item in shipped}


def _photographs(photos: Path | None, captions: Path | None, unclear: bool) -> list[_Photograph]:
    """The photographs to use, in their order."""
    prompts = load_prompt_set("photographs", photos=photos, captions=captions)
    known = photograph_rights() if photos is None else {}
    found = {}
    for prompt in prompts.prompts:
        rights: Mapping[str, str] = known.get(prompt.subset, {})
        if prompt.role == "original" and (unclear or rights.get("status") != "unclear"):
            path = prompts.photographs[prompt.pair_id]
            credit = f"{rights['credit']}, {rights['url']}" if rights else ""
            found[prompt.subset] = _Photograph(prompt.subset, path, prompt.text, rights.get("license", ""), credit)
    return list(found.values())


@cache
def _sentences() -> dict[str, tuple[str, str]]:
    """Effect → its dimension and the sentence that asks for it by its name."""
    from widespectrum.generators.effects import EFFECTS

    file = resources.files("widespectrum.prompts").joinpath("templates.json")
    templates: dict[str, list[str]] = json.loads(file.read_text(encoding="utf-8"))
    return {
        name: (effect.dimension, next(text for text in templates[effect.dimension] if name in text.lower()))
        for name, effect in EFFECTS.items()
    }


def _open(path: Path) -> Image:
    photograph = open_photograph(path)
    if max(photograph.size) < SMALLEST:
        width, height = photograph.size
        raise InputError(
            f"{path} has {width} x {height} pixels: expected a longer side of at least {SMALLEST}, or weak effects do "
            "not show; use a larger copy, or remove it"
        )
    return photograph


def _pair(photograph: _Photograph, effect: str) -> dict[str, Any]:
    dimension, sentence = _sentences()[effect]
    texts = photograph.caption, with_effect(photograph.caption, sentence)
    return pair_row(f"{photograph.name}/{effect}", *texts, [dimension], photograph.name)


def _with_image(pair: Mapping[str, Any], strength: int, image: Image) -> dict[str, Any]:
    image_id, content = encode(image)
    effect = pair["pair_id"].rpartition("/")[2]
    header = f"RGB {image.width} {image.height}\n".encode()
    return {
        **pair,
        "row_id": f"{pair['pair_id']}/{strength}",
        "photograph": pair["subset"],
        "dimension": pair["dimensions"][0],
        "effect": effect,
        "strength": strength,
        "image": {"bytes": content, "path": f"{image_id[:16]}.png"},
        "image_id": image_id,
        "pixel_sha256": hashlib.sha256(header + image.tobytes()).hexdigest(),
        "width": image.width,
        "height": image.height,
    }


def _image(size: int, strength: int, pair: Mapping[str, Any], photograph: Image, seed: int) -> Image:
    generator = load_generator("photo-effects", strength=strength, size=size)
    (image,) = generator.generate([pair_prompts(pair)[1]], seeds=[seed], images=[photograph])
    if not isinstance(image, Image):
        raise InputError(f"photo-effects made no image for {pair['pair_id']!r}: {image.reason}")
    return image


def controlled_rows(
    photos: Path | None = None,
    captions: Path | None = None,
    *,
    size: int = SIZE,
    seed: int = 0,
    unclear: bool = False,
) -> Iterator[dict[str, Any]]:
    """The rows with the columns FEATURES, one at a time, so that no more than one image is held.

    `photos` and `captions` (a CSV with the columns file and caption) are the user's own photographs in place of the
    shipped ones; their license and credit are empty. Raises InputError where these cannot be used or are smaller than
    SMALLEST, or an option is out of range; MissingExtraError without the packages of the extra `demo`.
    """
    load_generator("photo-effects", size=size)  # a wrong option or a missing package is named before the work begins
    if size < SMALLEST:
        raise InputError(f"the size must be at least {SMALLEST} pixels, or weak effects do not show; got {size}")
    bar = tqdm(_photographs(photos, captions, unclear), desc="photographs", delay=2, leave=False, dynamic_ncols=True)
    for item in bar:
        photograph = _open(item.path)
        for effect in _sentences():
            pair = _pair(item, effect)
            for strength in STRENGTHS:
                row = _with_image(pair, strength, _image(size, strength, pair, photograph, seed))
                row |= {"license": item.license, "credit": item.credit}
                yield {name: row[name] for name in FEATURES}


def generator_specs(size: int = SIZE) -> dict[str, str]:
    """The label and the ModelSpec text of the generators that make the images, one per strength."""
    generators = {strength: load_generator("photo-effects", strength=strength, size=size) for strength in STRENGTHS}
    options = ({"strength": strength, "size": size} for strength in generators)
    labels = [registry.label("photo-effects", each) for each in options]
    return {label: str(generator.spec) for label, generator in zip(labels, generators.values(), strict=True)}


def pixel_digest(rows: Iterable[Mapping[str, Any]]) -> str:
    """sha256 (64 hex digits) over the ids and the pixels of rows, in their order; see DIGEST."""
    return digest([[row["row_id"], row["pixel_sha256"]] for row in rows])
