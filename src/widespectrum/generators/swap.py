"""The denoising network of a pipeline taken from another file; the pipeline's own is never loaded."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NoReturn

from widespectrum._compat import ensure_torchvision
from widespectrum.errors import InputError
from widespectrum.rewards.containers import reading
from widespectrum.rewards.filling import empty
from widespectrum.rewards.identity import listed

from .layout import INDEX, components, read_json, shapes, shards

__all__ = ["load_transformer"]

_PREFIXES = ("model.diffusion_model.", "diffusion_model.", "_orig_mod.", "module.", "transformer.", "unet.", "model.")
_ORIGINAL = (
    "a Flux transformer under its original names",
    "a Stable Diffusion 3 transformer under its original names",
)
_LOOKS = (
    (r"lora_|\.lora\.|\.lokr_", "a LoRA (give it as lora=...)"),
    (r"^double_blocks\.", _ORIGINAL[0]),
    (r"^single_transformer_blocks\.", "a Flux transformer"),
    (r"^joint_blocks\.", _ORIGINAL[1]),
    (r"^(layers|noise_refiner)\.\d", "a Z-Image transformer"),
    (r"^transformer_blocks\.", "a transformer of diffusers"),
    (r"^(down|mid|up)_blocks?\.|^input_blocks\.", "a UNet"),
    (r"^(encoder|decoder)\.(down|up|mid|conv)", "an image coder (VAE)"),
    (r"^(encoder\.block|shared|text_model|model\.layers)", "a text encoder"),
)


def load_transformer(
    folder_of_pipeline: Path, path: Path, *, dtype: Any, name: str, backbone: str = "transformer"
) -> Any:
    """The network in `path`, built as the pipeline's config says, in `dtype` and evaluation mode, on the CPU.

    `path` is a safetensors file, a folder with one or with shards and their index, or a pipeline whose network is
    taken. Its tensors have the names of diffusers, also behind a common prefix, or original ones that diffusers
    converts. `folder_of_pipeline` gives the class and the config of its part `backbone`; `name` is the generator's.

    InputError unless every tensor is there, none is left over and all have the right shape.
    """
    ensure_torchvision()
    import torch
    from safetensors.torch import load_file

    kind, config = _architecture(folder_of_pipeline, backbone, name)
    files = _files(path, backbone, name)
    _check_config(files[0].parent, config, kind, name)
    network = empty(lambda: kind.from_config(config))
    expected = {key: tuple(each.shape) for key, each in network.state_dict().items()}
    # the headers first: tens of gigabytes are not read to find that they do not fit
    came = {key: shape for file in files for key, shape in shapes(file).items()}
    bare = _bare(came)
    original = _looks(bare.values()) in _ORIGINAL and _converter(kind) is not None
    if not original:
        _check(expected, {bare[key]: shape for key, shape in came.items()}, path, name)
    state = {bare[key]: each for file in files for key, each in load_file(file).items()}
    if original:
        state = _converted(state, kind, config, path, name)
        _check(expected, {key: tuple(each.shape) for key, each in state.items()}, path, name)
    with torch.no_grad():
        # what diffusers itself keeps in full precision
        keep = set(kind._keep_in_fp32_modules or ())
        # one by one, so that all of it is never there twice
        for key, each in state.items():
            if each.is_floating_point():
                state[key] = each.to(torch.float32 if keep & set(key.split(".")) else dtype)
        network.load_state_dict(state, strict=True, assign=True)
    network.register_to_config(_name_or_path=str(path))
    return network.requires_grad_(False).eval()


def _architecture(folder: Path, backbone: str, name: str) -> tuple[Any, dict[str, Any]]:
    """The class of the pipeline's network and its config."""
    import diffusers

    part = components(folder).get(backbone)
    kind = getattr(diffusers, part[1], None) if part and part[0] == "diffusers" else None
    if kind is None:
        raise InputError(f"{name}: {folder / INDEX} names no {backbone} of diffusers, so none can be replaced")
    config = folder / backbone / "config.json"
    if not config.is_file():
        raise InputError(f"{name}: incomplete download: {folder} lacks {backbone}/config.json: download it again")
    return kind, read_json(config)


def _files(path: Path, backbone: str, name: str) -> list[Path]:
    """The files with the weights. InputError where there are none, or more than one model."""
    if path.is_file():
        if path.suffix != ".safetensors":
            raise InputError(f"{name}: {path} is no safetensors file; others are pickled and never loaded: convert it")
        return [path]
    folder = path / backbone if (path / backbone / "config.json").is_file() else path
    with reading(folder):
        indexes = sorted(folder.glob("*.safetensors.index.json"))
        found = sorted(folder.glob("*.safetensors"))
    if len(indexes) == 1:
        wanted = sorted(shards(indexes[0]))
        if missing := [file for file in wanted if not (folder / file).is_file()]:
            raise InputError(f"{name}: incomplete download: {folder} lacks {listed(missing)}: download it again")
        return [folder / file for file in wanted]
    named = [each for each in found if each.name == "diffusion_pytorch_model.safetensors"] or found
    if len(named) != 1 or indexes:
        held = listed(each.name for each in (*indexes, *found)) or "none"
        raise InputError(
            f"{name}: expected one safetensors file, or shards with an index, in {folder}; it holds {held}"
        )
    return named


def _check_config(folder: Path, config: Mapping[str, Any], kind: Any, name: str) -> None:
    """InputError where the file lies beside a config that builds another network."""
    if not (folder / "config.json").is_file():
        return
    own = read_json(folder / "config.json")
    if own.get("_class_name", kind.__name__) != kind.__name__:
        raise InputError(
            f"{name}: {folder} holds a {own['_class_name']}, the pipeline has a {kind.__name__}: give another"
        )
    shared = [key for key in own.keys() & config.keys() if not key.startswith("_") and key != "sample_size"]
    other = sorted(key for key in shared if json.dumps(own[key]) != json.dumps(config[key]))
    if other:
        came = ", ".join(f"{key} {own[key]!r} where the pipeline has {config[key]!r}" for key in other[:3])
        raise InputError(
            f"{name}: {folder} holds a {kind.__name__} of another build: {came}: give one for this pipeline"
        )


def _bare(names: Collection[str]) -> dict[str, str]:
    """Every name without the prefixes that all of them have: {name: bare name}."""
    bare = {name: name for name in names}
    while prefix := next((each for each in _PREFIXES if all(name.startswith(each) for name in bare.values())), ""):
        if not bare:
            break
        bare = {name: short.removeprefix(prefix) for name, short in bare.items()}
    return bare


def _converter(kind: Any) -> Any:
    from diffusers.loaders.single_file_model import SINGLE_FILE_LOADABLE_CLASSES

    known: dict[str, Any] = SINGLE_FILE_LOADABLE_CLASSES
    return known.get(kind.__name__, {}).get("checkpoint_mapping_fn")


def _converted(state: dict[str, Any], kind: Any, config: dict[str, Any], path: Path, name: str) -> dict[str, Any]:
    """The tensors under the names of diffusers. InputError where it cannot convert all of them."""
    count = len(state)
    try:
        found: dict[str, Any] = _converter(kind)(checkpoint=state, config=config)
    except (KeyError, ValueError, RuntimeError, IndexError) as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:150]}"
        raise InputError(
            f"{name}: {path} has the original names of a {kind.__name__}, but diffusers cannot convert it ({reason}): "
            "give one with the names of diffusers"
        ) from None
    # the converters take out what they have converted
    if state:
        raise InputError(
            f"{name}: {path}: of {count} tensors {len(state)} belong nowhere ({listed(state)}): give another"
        )
    return found


def _check(expected: Mapping[str, Any], came: Mapping[str, Any], path: Path, name: str) -> None:
    """InputError with the counts of what is missing, left over or of another shape."""
    missing, left = expected.keys() - came.keys(), came.keys() - expected.keys()
    wrong = sorted(key for key in expected.keys() & came.keys() if expected[key] != came[key])
    if not missing and not left and not wrong:
        return
    parts = [f"{len(each)} {what} ({listed(each)})" for each, what in ((missing, "missing"), (left, "unknown")) if each]
    if wrong:
        first = f"{wrong[0]} has {came[wrong[0]]}, not {expected[wrong[0]]}"
        parts.append(f"{len(wrong)} of another shape ({first})")
    _refuse(f"of the {len(expected)} tensors of the network {', '.join(parts)}", came, path, name)


def _refuse(what: str, came: Collection[str], path: Path, name: str) -> NoReturn:
    looks = _looks(came)
    like = f"; it looks like {looks}" if looks else ""
    raise InputError(f"{name}: {path} does not fit: {what}{like}: give another file, or download it again")


def _looks(names: Collection[str]) -> str:
    """What a file looks like by the names of its tensors; empty where that cannot be told."""
    return next((like for pattern, like in _LOOKS if any(re.search(pattern, name) for name in names)), "")
