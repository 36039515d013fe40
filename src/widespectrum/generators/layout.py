"""What lies in a folder with a pipeline of diffusers, and whether it is whole; nothing but headers is read."""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
from collections.abc import Collection, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, TypeAlias

from widespectrum.errors import InputError
from widespectrum.rewards.containers import reading, stored_tensors
from widespectrum.rewards.identity import listed

__all__ = [
    "FILES",
    "INDEX",
    "VARIANTS",
    "Kind",
    "check_layout",
    "check_pipeline",
    "components",
    "kind_of",
    "read_files",
    "read_json",
    "shapes",
    "shards",
]

Kind: TypeAlias = Literal["pipeline", "transformer", "lora"]

INDEX = "model_index.json"
FILES = ("*.json", "*.txt", "*.model", "*.jinja", "*.safetensors")
"""The files of a pipeline's parts that are read: configs, vocabularies, weights."""
VARIANTS = ("*.fp16*", "*.non_ema*", "*.fp32*", "*.bf16*", "*flax*", "*onnx*", "*openvino*")
"""Other forms of the same weights, which are not."""

_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_NO_WEIGHTS = re.compile(r"(Tokenizer|Scheduler|Processor|FeatureExtractor)(Fast|Pil)?$")
_AGAIN = "download it again"


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. InputError where it cannot be read or holds something else."""
    try:
        with reading(path):
            found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise InputError(f"{path} is damaged: expected a JSON object: {_AGAIN}")
    return found


def components(folder: Path) -> dict[str, tuple[str, str]]:
    """The parts that model_index.json names: {folder: (library, class)}. InputError where it would run own code."""
    found = {}
    for part, entry in read_json(folder / INDEX).items():
        if part.startswith("_") or not isinstance(entry, list) or len(entry) != 2 or entry == [None, None]:
            continue
        library, kind = entry
        if not isinstance(library, str) or not isinstance(kind, str) or Path(part).name != part:
            raise InputError(f"{folder / INDEX} is damaged, its entry {part!r} is no part of a pipeline: {_AGAIN}")
        if library not in ("diffusers", "transformers") and not _is_pipeline_module(library):
            raise InputError(
                f"{folder / INDEX}: {part} is {library}.{kind}, code of its own, which is never run: expected classes "
                "of diffusers and transformers"
            )
        found[part] = (library, kind)
    return found


def _is_pipeline_module(name: str) -> bool:
    """Whether diffusers keeps some classes of this family (such as the safety checker) beside its pipelines."""
    spec = importlib.util.find_spec("diffusers")
    places = (spec and spec.submodule_search_locations) or []
    return name.isidentifier() and any((Path(place) / "pipelines" / name).is_dir() for place in places)


def kind_of(path: Path) -> Kind:
    """What a folder or a safetensors file holds, told by its content. InputError where it is none of the three."""
    if path.is_dir():
        if (path / INDEX).is_file():
            return "pipeline"
        if (path / "adapter_config.json").is_file() or (path / "pytorch_lora_weights.safetensors").is_file():
            return "lora"
        if any((path / part / "config.json").is_file() for part in ("transformer", "unet")):
            return "transformer"
    names = {name for file in _weight_files(path) for name in stored_tensors(file)}
    if any(re.search(r"lora|\.lokr_|\.hada_", name) for name in names):
        return "lora"
    if any(
        re.search(r"(transformer|double|single|joint)_blocks\.0\.|^(unet\.|module\.)?down_blocks\.0\.", name)
        for name in names
    ):
        return "transformer"
    raise InputError(
        f"{path}: expected a pipeline ({INDEX} and the folders that it names), a transformer or a LoRA; "
        + (f"its tensors are {listed(names)}" if names else "it holds no safetensors weights")
    )


def _weight_files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    with reading(path):
        return sorted(each for each in path.glob("*.safetensors") if not _is_variant(each.name))


def _is_variant(name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in VARIANTS)


def check_layout(folder: Path, name: str) -> None:
    """InputError unless this is a folder with a model_index.json; `name` is the generator's, for messages."""
    expected = f"expected a pipeline: {INDEX} and the folders that it names, as save_pretrained writes them"
    if not folder.exists():
        raise InputError(f"{name}: there is nothing at {str(folder)!r}: {expected}")
    if not (folder / INDEX).is_file():
        raise InputError(f"{name}: {folder} has no {INDEX}: {expected}{_instead(folder)}")


def check_pipeline(folder: Path, wanted_class: str, name: str, without: Collection[str] = ()) -> None:
    """InputError unless the folder holds a whole pipeline of the class, as `save_pretrained` writes it.

    `name` is the generator's, for messages; `without` names the parts whose weights are not needed. Of weights only
    the headers are read.
    """
    check_layout(folder, name)
    came = read_json(folder / INDEX).get("_class_name")
    if not isinstance(came, str):
        raise InputError(f"{name}: {folder / INDEX} names {came!r}, code of its own, which is never run: give another")
    if came != wanted_class:
        others = _generators_of(came)
        advice = f"it runs as {' or '.join(others)}" if others else f"give a checkpoint of {wanted_class}"
        raise InputError(f"{name} runs checkpoints of {wanted_class}; {folder} holds one of {came}: {advice}")
    for part, (library, kind) in components(folder).items():
        _check_part(folder / part, library, kind, name, weights=part not in without)


def _instead(path: Path) -> str:
    """What lies there in place of a pipeline, and how that is given."""
    if (path / "scheduler").is_dir():
        return f"; the download is incomplete: {_AGAIN}"
    try:
        kind = kind_of(path)
    except InputError:
        return ""
    return f"; this is a {'LoRA' if kind == 'lora' else kind}: give it as {kind}=..."


def _generators_of(pipeline_class: str) -> list[str]:
    """The names of the table whose checkpoints are of this class."""
    from widespectrum.generators import GENERATORS

    found = []
    for name, entry in GENERATORS.items():
        module, _, attribute = entry.target.partition(":")
        if importlib.util.find_spec(module) is not None:
            family = getattr(importlib.import_module(module), attribute, None)
            if getattr(family, "pipeline_class", None) == pipeline_class:
                found.append(name)
    return found[:4]


def _check_part(folder: Path, library: str, kind: str, name: str, *, weights: bool) -> None:
    """InputError where files of a part are missing or cut short."""
    with reading(folder):
        there = {each.name for each in folder.iterdir()} if folder.is_dir() else set()
    if _NO_WEIGHTS.search(kind):
        missing = ["scheduler_config.json"] if kind.endswith("Scheduler") else []
        lacks = [each for each in missing if each not in there] or ([] if there else ["(its files)"])
    else:
        stem = "diffusion_pytorch_model" if library == "diffusers" else "model"
        lacks = [] if "config.json" in there else ["config.json"]
        lacks += _missing_weights(folder, stem, name) if weights else []
    for config in there & {"config.json", "scheduler_config.json"}:
        read_json(folder / config)
    if lacks:
        more = f" and {len(lacks) - 3} more" if len(lacks) > 3 else ""
        files = ", ".join(f"{folder.name}/{each}" for each in lacks[:3])
        raise InputError(f"{name}: incomplete download: {folder.parent} lacks {files}{more}: {_AGAIN}")


def _missing_weights(folder: Path, stem: str, name: str) -> list[str]:
    """The weight files that are not there. InputError for pickles, damaged files and shards that lack tensors."""
    single = f"{stem}.safetensors"
    index = folder / f"{single}.index.json"
    if not index.is_file() and not (folder / single).is_file():
        with reading(folder):
            pickles = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
            variants = sorted(path.name for path in folder.glob("*.safetensors") if _is_variant(path.name))
        if pickles or variants:
            why = "which are pickled and never loaded" if pickles else "another form of the weights"
            raise InputError(
                f"{name}: {folder} holds {listed(pickles or variants)}, {why}: expected {single} or its shards"
            )
        return [single]
    if index.is_file():
        files = shards(index)
        missing = sorted(file for file in files if not (folder / file).is_file())
        if not missing:
            for file, tensors in files.items():
                if lost := tensors - stored_tensors(folder / file).keys():
                    raise InputError(f"{folder / file} lacks {listed(lost)}, which {index.name} names: {_AGAIN}")
        return missing
    stored_tensors(folder / single)
    return []


def shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of all tensors of a safetensors file by name. InputError where it is damaged, or no such file."""
    from safetensors import safe_open

    stored_tensors(file)
    with reading(file):
        with file.open("rb") as opened_bytes:
            is_safe = opened_bytes.read(9)[8:] == b"{"
        if not is_safe:
            raise InputError(f"{file} is no safetensors file: others are pickled and never loaded: convert it")
        with safe_open(file, framework="numpy") as opened:
            return {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118


def shards(index: Path) -> dict[str, set[str]]:
    """The files that an index of shards names, each with the names of its tensors. InputError where it is none."""
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise InputError(f'{index} is no index of weights (expected {{"weight_map": ...}}): {_AGAIN}')
    files: dict[str, set[str]] = {}
    for tensor, file in places.items():
        if not isinstance(file, str) or Path(file).name != file:
            raise InputError(f"{index} names a file outside its folder ({file!r}): {_AGAIN}")
        files.setdefault(file, set()).add(tensor)
    return files


def read_files(folder: Path) -> Iterator[Path]:
    """The files of a folder that a model is made of, in order: of a pipeline those of its parts, else all."""
    parts = {INDEX: 0, **dict.fromkeys(components(folder), 0)} if (folder / INDEX).is_file() else None
    with reading(folder):
        for path in sorted(folder.rglob("*")):
            inside = path.relative_to(folder)
            hidden = any(piece.startswith(".") for piece in inside.parts)
            wanted = any(fnmatchcase(path.name, pattern) for pattern in FILES) and not _is_variant(path.name)
            if path.is_file() and wanted and not hidden and (parts is None or inside.parts[0] in parts):
                yield path
