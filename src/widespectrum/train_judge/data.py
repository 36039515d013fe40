"""The annotated images a dimension judge learns from: read, looked through, and turned into examples.

The schema is that of VisionRewardDB-Image: `image` (encoded bytes) and `annotation`, a struct with one whole number per
dimension. The last rows, in the order in which the data is published, are for validation.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa
from tqdm import tqdm

from widespectrum.errors import InputError, RunFolderError, UnknownNameError
from widespectrum.functional import DIMENSIONS
from widespectrum.hub import download_snapshot, resolve_revision
from widespectrum.images import decode
from widespectrum.prompts.images import to_rgb

from .base import or_local

if TYPE_CHECKING:
    import datasets
    from PIL.Image import Image

__all__ = [
    "ABSENT",
    "LEVELS",
    "Annotated",
    "Example",
    "Material",
    "dimensions_of",
    "look_through",
    "open_data",
    "target",
]

LEVELS = {
    "background": (-1, 2),
    "body": (-4, 1),
    "clarity": (-2, 2),
    "color aesthetic": (-1, 1),
    "color brightness": (-1, 1),
    "detail realism": (-3, 1),
    "detail refinement": (-4, 2),
    "emotion": (-2, 2),
    "face": (-3, 2),
    "hands": (-4, 1),
    "lighting aesthetic": (-1, 2),
    "lighting distinction": (-1, 2),
    "main object": (-1, 1),
    "object pairing": (-1, 1),
    "richness": (-2, 2),
    "safety": (-3, 1),
    "symmetry": (-1, 1),
}
"""Lowest and highest annotation of every dimension of VisionRewardDB-Image. Its "unsafe type" is no dimension: it names
a kind and has no order.
"""

ABSENT = {"body": -4, "face": -3, "hands": -4}
"""The annotation that says that there is none in the image, which is no rating."""

SCHEMA = "the schema of VisionRewardDB-Image: the columns image (encoded images) and annotation (a struct of integers)"
_GROUP = 64
_WIDEST = 200
"""Sides longer than this many times the other are refused by the image processor of Qwen3-VL."""


class Example(NamedTuple):
    """One question and its answer: the image in `row`, the dimension, and the target 0, 1 or 2."""

    row: int
    dimension: str
    target: int


@dataclass(frozen=True, slots=True)
class Annotated:
    """Annotated images: where they come from (`revision` is the commit on the Hub, else empty), and their table."""

    source: str
    revision: str
    table: datasets.Dataset

    def image(self, row: int) -> Image:
        """The image in a row, RGB; RunFolderError where it cannot be decoded."""
        return to_rgb(decode(_content(self.table[row]["image"]), f"{self.source}, row {row}"))


@dataclass(frozen=True, slots=True)
class Material:
    """What there is to learn from and to validate on, and what was left out.

    `images` maps a row to the sha256 of its image, for rows that can be used, `sizes` to its (width, height); `digest`
    is over all images and annotations in their order; `left_out` counts, by reason, images and examples without use.
    """

    train: Sequence[Example]
    validation: Sequence[Example]
    images: Mapping[int, str]
    sizes: Mapping[int, tuple[int, int]]
    digest: str
    left_out: Mapping[str, int]


class _Look(NamedTuple):
    sha256: str
    size: tuple[int, int] | None
    problem: str


def dimensions_of(text: str) -> tuple[str, ...]:
    """The dimensions that an option names: `eleven`, `all`, or names with commas between them; sorted."""
    if text in ("eleven", "all"):
        return DIMENSIONS if text == "eleven" else tuple(LEVELS)
    names = [name.strip().replace("_", " ") for name in text.split(",") if name.strip()]
    for name in names:
        if name not in LEVELS:
            raise UnknownNameError(
                f"--dimensions: unknown {name!r}; expected eleven, all, or some of {', '.join(LEVELS)}"
            )
    if not names:
        raise InputError(f"--dimensions: expected eleven, all, or names with commas between them, got {text!r}")
    return tuple(sorted(set(names)))


def target(dimension: str, annotation: int | None) -> int | str:
    """sign(annotation) + 1: 0 below, 1 at, 2 above the middle; a word for why not, where the annotation is no rating.

    >>> target("richness", -2), target("face", -2), target("face", -3), target("emotion", 7), target("emotion", None)
    (0, 0, 'absent', 'out of range', 'null')
    """
    if annotation is None:
        return "null"
    low, high = LEVELS[dimension]
    if not low <= annotation <= high:
        return "out of range"
    if annotation == ABSENT.get(dimension):
        return "absent"
    return (annotation > 0) - (annotation < 0) + 1


def _parquet_files(data: str, path: Path) -> list[str]:
    """The Parquet files that a path means; of a folder those of the split train, where files are named by split."""
    files = [path] if path.is_file() else sorted(path.rglob("*.parquet"))
    files = [file for file in files if not any(part.startswith(".") for part in file.relative_to(path).parts)]
    files = [file for file in files if file.name.startswith("train")] or files
    if not files or any(file.suffix != ".parquet" for file in files):
        raise InputError(f"{data} holds no Parquet files: expected a dataset of the Hub, a folder or a .parquet file")
    return [str(file) for file in files]


def open_data(data: str, revision: str | None, dimensions: Sequence[str]) -> Annotated:
    """Open DATA: a dataset of the Hub at a revision, a folder with Parquet files, or one such file.

    InputError in one sentence where there is none, it cannot be read, or it has not the columns of
    VisionRewardDB-Image; HubError where the Hub cannot be reached.
    """
    path = Path(data).expanduser()
    if path.exists() and revision is not None:
        raise InputError(f"--revision {revision}: {data} is on this machine, only a dataset of the Hub has revisions")
    if path.exists():
        return Annotated(path.resolve().name, "", _table(data, _parquet_files(data, path), dimensions))
    if data.count("/") != 1 or data.startswith((".", "/", "~")):
        raise InputError(f"{data}: there is nothing; expected a folder, a .parquet file, or a dataset of the Hub")
    with or_local("a folder with its Parquet files"):
        commit = resolve_revision(data, "dataset", revision)
        folder = download_snapshot(data, "dataset", commit, patterns=["*.parquet"])
    return Annotated(data, commit, _table(data, _parquet_files(data, folder), dimensions))


def _table(data: str, files: list[str], dimensions: Sequence[str]) -> datasets.Dataset:
    import datasets
    from datasets.exceptions import DatasetsError

    try:
        table = datasets.load_dataset("parquet", data_files=files, split="train")
    except (DatasetsError, OSError, ValueError, pa.ArrowException) as error:
        reason = (str(error.__cause__ or error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"{data} cannot be read as Parquet files of one schema ({reason}): download it again"
        ) from None
    _check_schema(data, table.features, dimensions)
    # Encoded images are kept as they are: an image that cannot be decoded has to be counted, not to end the reading.
    return table.select_columns(["image", "annotation"]).cast_column("image", datasets.Image(decode=False))


def _check_schema(data: str, features: Mapping[str, Any], dimensions: Sequence[str]) -> None:
    """InputError where the columns are not those of VisionRewardDB-Image, as far as they are used."""
    import datasets

    if missing := [name for name in ("image", "annotation") if name not in features]:
        raise InputError(
            f"{data} has no column {' and no column '.join(missing)} (it has {', '.join(features)}): expected {SCHEMA}"
        )
    image, annotation = features["image"], features["annotation"]
    is_bytes = isinstance(image, datasets.Value) and image.dtype in ("binary", "large_binary")
    if not (is_bytes or isinstance(image, datasets.Image) or (isinstance(image, dict) and "bytes" in image)):
        raise InputError(f"{data}: the column image holds {_readable(image)}: expected {SCHEMA}")
    if not isinstance(annotation, dict):
        raise InputError(f"{data}: the column annotation holds {_readable(annotation)}: expected {SCHEMA}")
    if lacking := [name for name in dimensions if name not in annotation]:
        raise InputError(f"{data}: annotation lacks {', '.join(lacking)}: expected {SCHEMA}")
    for name in dimensions:
        if not getattr(annotation[name], "dtype", "").startswith(("int", "uint")):
            raise InputError(f"{data}: annotation {name!r} holds {_readable(annotation[name])}: expected {SCHEMA}")


def _readable(feature: Any) -> str:
    return str(getattr(feature, "dtype", None) or type(feature).__name__)


def _content(image: Mapping[str, Any] | None) -> bytes:
    return (image or {}).get("bytes") or b""


def _look(image: Mapping[str, Any] | None) -> _Look:
    """Decode one image in full, so that none fails hours later."""
    content = _content(image)
    digest = hashlib.sha256(content).hexdigest()
    if not content:
        return _Look(digest, None, "images without bytes")
    try:
        width, height = decode(content, "image").size
    except RunFolderError:
        return _Look(digest, None, "images that cannot be decoded")
    if max(width, height) > _WIDEST * min(width, height):
        return _Look(digest, None, f"images with one side more than {_WIDEST} times the other")
    return _Look(digest, (width, height), "")


def _looks(table: datasets.Dataset) -> Iterator[_Look]:
    """A look at every image, in the order of the rows; few are in memory at a time."""
    with (
        ThreadPoolExecutor(os.cpu_count()) as pool,
        tqdm(total=len(table), desc="images looked through", unit="", delay=2, leave=False) as progress,
    ):
        for rows in table.select_columns(["image"]).iter(_GROUP):
            yield from pool.map(_look, rows["image"])
            progress.update(len(rows["image"]))


def look_through(data: Annotated, dimensions: Sequence[str], validation: int) -> Material:
    """Look at every image and annotation: which examples there are, and what is left out and why.

    The last `validation` rows are for validation; an image that is among them is left out of training wherever it
    stands. InputError where there are too few rows, or a dimension has no example to learn from.
    """
    total = len(data.table)
    if not 0 < validation < total:
        raise InputError(
            f"--validation {validation}: expected from 1 to {total - 1} rows, as {data.source} has {total:,}"
        )
    annotations = data.table["annotation"][:]
    looks = list(_looks(data.table))
    counts: Counter[str] = Counter()
    train, held = _split(looks, annotations, dimensions, validation, counts)
    _check_examples(data.source, train, dimensions)
    lines = (
        f"{look.sha256} {json.dumps(given, sort_keys=True)}\n" for look, given in zip(looks, annotations, strict=True)
    )
    used = sorted({example.row for example in (*train, *held)})
    return Material(
        train=train,
        validation=held,
        images={row: looks[row].sha256 for row in used},
        sizes={row: size for row in used if (size := looks[row].size) is not None},
        digest=hashlib.sha256("".join(lines).encode()).hexdigest(),
        left_out=dict(sorted(counts.items())),
    )


def _split(
    looks: Sequence[_Look],
    annotations: Sequence[Mapping[str, int | None] | None],
    dimensions: Sequence[str],
    validation: int,
    counts: Counter[str],
) -> tuple[list[Example], list[Example]]:
    """The examples to learn from and to validate on; `counts` is added to."""
    start = len(looks) - validation
    held = {look.sha256 for look in looks[start:]}
    found: tuple[list[Example], list[Example]] = ([], [])
    for row, (look, annotation) in enumerate(zip(looks, annotations, strict=True)):
        problem = look.problem
        if not problem and row < start and look.sha256 in held:
            problem = "training images that are also in validation"
        if problem or annotation is None:
            counts[problem or "images without annotation"] += 1
            continue
        found[row >= start].extend(_examples(row, annotation, dimensions, counts))
    return found


def _examples(
    row: int, annotation: Mapping[str, int | None], dimensions: Sequence[str], counts: Counter[str]
) -> Iterator[Example]:
    for dimension in dimensions:
        answer = target(dimension, annotation[dimension])
        if isinstance(answer, str):
            counts[f"{dimension}: {answer}"] += 1
        else:
            yield Example(row, dimension, answer)


def _check_examples(source: str, train: Sequence[Example], dimensions: Sequence[str]) -> None:
    known = {example.dimension for example in train}
    if lacking := [name for name in dimensions if name not in known]:
        raise InputError(
            f"{source} has no example to learn {', '.join(lacking)} from: leave "
            f"{'it' if len(lacking) == 1 else 'them'} out of --dimensions"
        )
