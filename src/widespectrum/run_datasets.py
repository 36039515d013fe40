"""A finished run folder → configs of a dataset, its Parquet parts byte for byte."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from . import runs, store
from .config import RunConfig, read_run_file
from .controlled import photograph_rights
from .errors import InputError, RunFolderError
from .prompts import PROMPT_SETS
from .publishing import Provenance, Source, write_provenance
from .publishing.provenance import FILE_NAME as PROVENANCE
from .results import read_evaluation
from .types import ModelSpec, RunManifest

__all__ = ["Packed", "RunOptions", "model_table", "pack_run"]

TABLES = ("prompts", "images", "scores", "verdicts", "abstentions", "results")
_MODELS = {
    "prompts": (),
    "images": ("generators",),
    "scores": ("generators", "reward_models"),
    "verdicts": ("generators", "judges"),
    "abstentions": ("generators", "judges"),
    "results": ("generators", "reward_models", "judges"),
}
"""The models without which a table would be another one."""

NOTES = "evaluation.json"
"""Beside the results: what they rest on, and why estimates are absent."""

_OURS = "cc-by-4.0"

_FROM_INPUTS = ("identity", "image-edit", "photo-effects")
"""Adapters of generators that start from input images."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """What the user says about a run beyond what its folder holds.

    `license` is a license id of the Hub for the tables, `rights` a statement about the images, where the run itself
    cannot tell; `leave_out_unclear` leaves out images whose rights are unclear.
    """

    license: str = ""
    rights: str = ""
    leave_out_unclear: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """What was packed: rows by config, the tables that the run has not got, images left out by whose they are."""

    rows: Mapping[str, int]
    absent: Sequence[str]
    left_out: Mapping[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [", ".join(f"{config} {count:,} rows" for config, count in self.rows.items())]
        if self.absent:
            lines.append(f"not in this run: {', '.join(self.absent)}")
        lines += [f"left out {count:,} images of {name}: unclear rights" for name, count in self.left_out.items()]
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class _Owners:
    """Whose images a run holds: rights by owner, and the owner of each image."""

    rights: Mapping[str, str]
    by_subset: bool
    subsets: Mapping[str, str]

    def of(self, prompt_id: str, generator: str) -> str:
        by_subset = self.by_subset and generator not in self.rights
        return self.subsets.get(prompt_id, "") if by_subset else generator

    def right(self, owner: str) -> str:
        return self.rights.get(owner, "unclear: unknown")


@dataclass(frozen=True, slots=True)
class _Images:
    """The images of a run: how many of each owner lie in each part, and how many of whom are left out."""

    owners: _Owners
    counts: Mapping[Path, Mapping[str, int]]
    left_out: Mapping[str, int]

    def _gone(self, path: Path) -> int:
        return sum(self.counts[path].get(owner, 0) for owner in self.left_out)

    def is_whole(self, path: Path) -> bool:
        return self._gone(path) == 0

    def rows_left(self, path: Path) -> int:
        return int(pq.read_metadata(path).num_rows) - self._gone(path)

    def provenance(self, made: Provenance) -> Provenance:
        there = {owner for found in self.counts.values() for owner in found} - set(self.left_out)
        told = {"left_out": dict(self.left_out)} if self.left_out else {}
        rights = {owner: self.owners.right(owner) for owner in sorted(there)}
        reason = f"{made.license_reason}; every image keeps the terms of what it was made from"
        return replace(made, license_reason=reason, options={**made.options, **told}, image_rights=rights)


def _finished(run: Path) -> RunManifest:
    """The manifest of a run that is complete; RunFolderError with the command that makes it so."""
    manifest = runs.read_manifest(run)
    if manifest.status != "complete":
        raise RunFolderError(f"{run} is not finished: run `widespectrum run {run}` and build again")
    return manifest


def _files(run: Path, table: str) -> list[Path]:
    if table != "results":
        return store.parts(run, table)
    if not (run / "results").is_dir():
        return []
    read_evaluation(run)
    return [run / "results" / "results.parquet"]


def _check_part(path: Path, table: str) -> None:
    """Every page of a part that carries no images, and its columns; RunFolderError as `store.read`."""
    with store.reading(path):
        schema = pq.read_schema(path)
        if table != "images":
            pq.read_table(path, page_checksum_verification=True)
    expected = store.SCHEMAS[table]
    if schema.names != expected.names or schema.types != expected.types:
        raise RunFolderError(
            f"{path} has the columns {schema.names}; expected {expected.names}: delete it and run again"
        )


def _image_groups(path: Path) -> Iterator[pa.Table]:
    """The row groups of a part, each image's bytes compared with its id."""
    file = pq.ParquetFile(path, page_checksum_verification=True)
    for group in range(file.num_row_groups):
        with store.reading(path):
            table = file.read_row_group(group)
        images = table.column("image")
        for image_id, image in zip(table.column("image_id").to_pylist(), images, strict=True):
            content = image["bytes"].as_buffer() if image.is_valid else None
            if (image_id or content is not None) and (
                content is None or hashlib.sha256(content).hexdigest() != image_id
            ):
                raise RunFolderError(
                    f"{path}: the bytes of image {image_id[:12]!r} are not the ones that were written: delete the file "
                    "and run again"
                )
        yield table


def _owner_counts(paths: Sequence[Path], owners: _Owners) -> dict[Path, dict[str, int]]:
    """How many images of each owner lie in each part; reads and checks every image."""
    counts: dict[Path, dict[str, int]] = {}
    total = sum(pq.read_metadata(path).num_rows for path in paths)
    with tqdm(total=total, desc="check images", unit=" images", delay=2, leave=False) as bar:
        for path in paths:
            found = counts.setdefault(path, {})
            for table in _image_groups(path):
                bar.update(table.num_rows)
                for row in table.select(["prompt_id", "generator", "status"]).to_pylist():
                    if row["status"] == "ok":
                        owner = owners.of(row["prompt_id"], row["generator"])
                        found[owner] = found.get(owner, 0) + 1
    return counts


def _from_elsewhere(config: RunConfig, generators: Mapping[str, ModelSpec], stated: str) -> dict[str, str]:
    """The rights in images that were not made in this run, or that were made from such: label → statement."""
    reasons = {"external": "imported", "folder": "given to the run as they are"}
    if config.prompts.run is not None:
        reasons |= dict.fromkeys(_FROM_INPUTS, "made from the images of another run")
    return {
        label: f"clear: {stated}" if stated else f"unclear: {reasons[spec.adapter]}, nobody stated their rights"
        for label, spec in generators.items()
        if spec.adapter in reasons
    }


def _owners(run: Path, config: RunConfig, manifest: RunManifest, stated: str) -> _Owners:
    """Photographs own the images made from them; images made from text alone are those of their generator."""
    generators = {label: ModelSpec.parse(text) for label, text in manifest.specs.get("generators", {}).items()}
    elsewhere = _from_elsewhere(config, generators, stated)
    subsets = {
        row["prompt_id"]: row["subset"] for row in store.read(run, "prompts", ("prompt_id", "subset")).to_pylist()
    }
    if config.prompts.photos is not None:
        own = f"clear: {stated}" if stated else "unclear: nobody stated who holds the rights in these photographs"
        return _Owners(dict.fromkeys(sorted(set(subsets.values())), own) | elsewhere, True, subsets)
    if config.prompts.set == "photographs":
        known = photograph_rights()
        rights = {
            name: "{status}: {license}; {credit}, {url}".format(**known[name])
            for name in dict.fromkeys(subsets.values())
            if name in known
        }
        return _Owners(rights | elsewhere, True, subsets)
    made = {label: f"clear: {stated or f'made from text by {spec}'}" for label, spec in generators.items()}
    return _Owners(made | elsewhere, False, subsets)


def _license(config: RunConfig, stated: str) -> tuple[str, str]:
    """License id and its reason; an empty id where only the user can know."""
    if stated:
        return stated, "stated when the dataset was built"
    if config.prompts.set in PROMPT_SETS and config.prompts.photos is None:
        return _OURS, f"prompts of the set {config.prompts.set}, written for this project, and figures of a run"
    return "", "the prompts are not ours, and nobody stated their license"


def _provenance(run: Path, table: str, manifest: RunManifest, options: RunOptions) -> Provenance:
    config = read_run_file(run)
    license, reason = _license(config, options.license)
    made: dict[str, Any] = {
        "seeds": list(config.seeds),
        "created": manifest.created,
        "benchmark_version": manifest.benchmark_version,
        "git_commit": manifest.git_commit or "",
    }
    if table == "results":
        evaluation = read_evaluation(run)
        made |= {
            "verdict_judge": evaluation.verdict_judge,
            "judges": evaluation.judges,
            "functional_digest": evaluation.functional_digest,
        }
    return Provenance(
        license=license,
        license_reason=reason,
        sources=tuple(
            Source(name=name, license=license or "unknown", sha256=revision)
            for name, revision in manifest.datasets.items()
        ),
        options=made,
        models={label: text for kind in _MODELS[table] for label, text in manifest.specs.get(kind, {}).items()},
    )


def _place(path: Path, target: Path) -> None:
    """Make `target` the same file as `path`, or a copy of it on another disk, in one step."""
    # Renaming one name of a file to another of its names does nothing.
    if target.exists() and target.samefile(path):
        return
    temporary = target.with_name(f".tmp-{target.name}")
    temporary.unlink(missing_ok=True)
    try:
        os.link(path, temporary)
    except OSError:
        shutil.copyfile(path, temporary)
    temporary.replace(target)


def _rewrite(path: Path, target: Path, images: _Images) -> None:
    """Write a part without the images that are left out; the bytes of the others stay what they are."""
    temporary = target.with_name(f".tmp-{target.name}")
    schema = store.SCHEMAS["images"]
    settings = {"compression": "NONE", "use_dictionary": False, "write_page_checksum": True}
    with pq.ParquetWriter(temporary, schema, **settings) as writer:
        for table in _image_groups(path):
            rows = table.select(["prompt_id", "generator", "status"]).to_pylist()
            owners = [images.owners.of(row["prompt_id"], row["generator"]) for row in rows]
            kept = [
                row["status"] != "ok" or owner not in images.left_out for row, owner in zip(rows, owners, strict=True)
            ]
            writer.write_table(table.filter(pa.array(kept)).cast(schema))
    temporary.replace(target)


def _settle(folder: Path, files: Sequence[Path], images: _Images | None = None) -> int:
    """Put the parts of one config in place and remove those of an earlier build; its rows.

    Of `images` parts are written anew where an image is left out of them, or dropped where nothing stays.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # Without its terms a config is not published: they go first and come back last.
    (folder / PROVENANCE).unlink(missing_ok=True)
    kept = [path for path in files if images is None or images.rows_left(path)]
    targets = [folder / f"test-{number:05d}-of-{len(kept):05d}.parquet" for number in range(len(kept))]
    for path, target in zip(kept, targets, strict=True):
        if images is None or images.is_whole(path):
            _place(path, target)
        else:
            _rewrite(path, target, images)
    for path in set(folder.glob("*.parquet")) - set(targets):
        path.unlink()
    return sum(pq.read_metadata(path).num_rows for path in targets)


def _left_out(counts: Mapping[Path, Mapping[str, int]], owners: _Owners) -> dict[str, int]:
    """How many images there are of each owner whose rights are unclear; InputError where there are no others."""
    total = Counter[str]()
    for found in counts.values():
        total.update(found)
    gone = {owner: count for owner, count in sorted(total.items()) if owners.right(owner).startswith("unclear")}
    if gone and len(gone) == len(total):
        raise InputError("the rights of every image are unclear: state them with --rights, or build scores alone")
    return gone


def _check_places(run: Path, out: Path) -> None:
    if not (run / "manifest.json").is_file():
        raise InputError(f"{run} is no run folder: it has no manifest.json; give the folder of a finished run")
    if out.resolve().is_relative_to(run.resolve()):
        raise InputError(f"{out} lies inside the run {run}: choose another folder with --out")


def _remove(folder: Path) -> None:
    """Remove the config of an earlier build."""
    if (folder / PROVENANCE).is_file():
        shutil.rmtree(folder)


def pack_run(run: Path, out: Path, tables: Sequence[str], options: RunOptions) -> Packed:
    """Make each of `tables` that the run holds a config of the dataset folder `out`; what was packed.

    Parts are linked, or copied to another disk, as they are: `<config>/test-00000-of-0000N.parquet`. Before that every
    part is read: its columns, its checksums, and of each image the sha256 that is its id. RunFolderError where the run
    is not finished, damaged, or older than its results; InputError where no image with clear rights would be left.
    """
    _check_places(run, out)
    with runs.locked(run):
        manifest = _finished(run)
        found = {table: files for table in tables if (files := _files(run, table))}
        if not found:
            raise RunFolderError(f"{run} holds none of {', '.join(tables)}: run `widespectrum run {run}` first")
        images = _checked(run, found, manifest, options)
        rows = {}
        for table, files in found.items():
            made = _provenance(run, table, manifest, options)
            of_images = images if table == "images" else None
            rows[table] = _settle(out / table, files, of_images)
            write_provenance(out / table, made if of_images is None else of_images.provenance(made))
            if table == "results":
                _place(run / "results" / NOTES, out / "results" / NOTES)
    absent = [table for table in tables if table not in found]
    for table in absent:
        _remove(out / table)
    return Packed(rows=rows, absent=absent, left_out=images.left_out)


def _checked(run: Path, found: Mapping[str, Sequence[Path]], manifest: RunManifest, options: RunOptions) -> _Images:
    """Read every part; what there is to know of the images."""
    for table, files in found.items():
        for path in files:
            _check_part(path, table)
    owners = _owners(run, read_run_file(run), manifest, options.rights)
    counts = _owner_counts(found.get("images", ()), owners)
    return _Images(owners, counts, _left_out(counts, owners) if options.leave_out_unclear else {})


def model_table(run: Path) -> list[tuple[str, str, str]]:
    """Kind, label and spec of every model of a run, as its card lists them."""
    specs = runs.read_manifest(run).specs
    return [
        (kind.replace("_", " ").removesuffix("s"), label, text)
        for kind, table in specs.items()
        for label, text in table.items()
    ]
