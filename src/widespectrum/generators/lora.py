"""A LoRA is merged into a pipeline: all of it, or an error says what does not fit."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from widespectrum._compat import ensure_torchvision
from widespectrum.errors import InputError
from widespectrum.rewards.containers import reading
from widespectrum.rewards.identity import listed

from .layout import read_json, shapes

__all__ = ["merge_lora"]

_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_OF_DIFFUSERS = "pytorch_lora_weights.safetensors"
_PICKLES = (".bin", ".pt", ".pth", ".ckpt")
_ADAPTER = "widespectrum"
# without it, peft asks the Hub for the base model
_TENSORS: dict[str, Any] = {"save_embedding_layers": False}
_WRAPPER = "base_model.model."
_LORA = re.compile(r"(?P<layer>.+)\.lora_(?P<side>[AB])\.(weight|bias)")


def merge_lora(pipeline: Any, path: Path, weight: float, *, name: str, backbone: str) -> None:
    """Add `weight` times the LoRA at `path` to the weights of the pipeline.

    `path` is in the form of PEFT (a folder with adapter_config.json, for the part of the pipeline called `backbone`),
    or a safetensors file in any form that diffusers reads (those of diffusers and kohya among them), or a folder with
    one. `weight` 0 leaves the pipeline as it is, 1 gives what PEFT and diffusers give. `name` is the generator's.

    InputError where not every tensor of the LoRA finds its place: it is for another model, damaged, or pickled.
    """
    ensure_torchvision()
    file = _file(path, name)
    _check_numbers(file, name)
    if file.name == _WEIGHTS:
        _merge_peft(pipeline, file.parent, weight, name, backbone)
    else:
        _merge_diffusers(pipeline, file, weight, name, backbone)


def _file(path: Path, name: str) -> Path:
    """The file with the weights. InputError where there is none, or more than one."""
    with reading(path):
        files = sorted(each for each in path.iterdir() if each.is_file()) if path.is_dir() else [path]
    found = [each for each in files if each.suffix == ".safetensors"]
    named = [each for each in found if each.name in (_WEIGHTS, _OF_DIFFUSERS)]
    if len(named or found) == 1:
        file = (named or found)[0]
        if file.name == _WEIGHTS and not (file.parent / _CONFIG).is_file():
            raise InputError(f"{name}: {file} has no {_CONFIG} beside it, which says how strong it is: add it")
        return file
    if len(found) > 1:
        raise InputError(
            f"{name}: {path} holds several files ({listed(each.name for each in found)}): name one of them"
        )
    pickles = [each.name for each in files if each.suffix in _PICKLES]
    came = f"{listed(pickles)}, which is pickled and never loaded: convert it" if pickles else "none: give another"
    raise InputError(f"{name}: expected a LoRA in a safetensors file; {path} holds {came}")


def _check_numbers(file: Path, name: str) -> None:
    """InputError for a damaged file and for one whose numbers are not finite."""
    from safetensors import safe_open

    tensors = shapes(file)
    with reading(file), safe_open(file, framework="pt") as opened:
        for tensor in tensors:
            if not opened.get_tensor(tensor).float().isfinite().all():
                raise InputError(f"{name}: {file} is damaged, {tensor} holds numbers that are not finite: give another")


def _merge_peft(pipeline: Any, folder: Path, weight: float, name: str, backbone: str) -> None:
    from peft import PeftConfig, PeftModel, get_peft_model_state_dict
    from peft.tuners.lora import LoraLayer

    described = read_json(folder / _CONFIG)
    if described.get("peft_type") != "LORA":
        raise InputError(f"{name}: {folder} holds {described.get('peft_type')!r}, expected a LoRA: give another")
    target, came = getattr(pipeline, backbone), shapes(folder / _WEIGHTS)
    bare = {tensor.removeprefix(_WRAPPER): shape for tensor, shape in came.items()}
    refuse = _Refusal(name, folder, str(described.get("base_model_name_or_path") or ""))
    refuse.unless_fits({backbone: target}, {f"{backbone}.{tensor}": shape for tensor, shape in bare.items()})
    try:
        model = PeftModel(target, PeftConfig.from_pretrained(str(folder)))
        expected = {tensor: tuple(each.shape) for tensor, each in get_peft_model_state_dict(model, **_TENSORS).items()}
        refuse.unless_same(expected, came)
        model.unload()
        model = PeftModel.from_pretrained(target, str(folder))
    except (ValueError, TypeError, RuntimeError, KeyError) as error:
        refuse.because(error)
    for module in model.modules():
        if isinstance(module, LoraLayer):
            module.scale_layer(weight)
    merged = model.unload() if weight == 0 else model.merge_and_unload()
    setattr(pipeline, backbone, merged)


def _merge_diffusers(pipeline: Any, file: Path, weight: float, name: str, backbone: str) -> None:
    from peft import get_peft_model_state_dict

    refuse = _Refusal(name, file, "")
    if any("dora_scale" in tensor for tensor in shapes(file)):
        raise InputError(f"{name}: {file} is a DoRA, of which diffusers would leave out the scales: give a plain LoRA")
    place = {"weight_name": file.name, "use_safetensors": True, "local_files_only": True}
    parts = {part: getattr(pipeline, part, None) for part in getattr(pipeline, "_lora_loadable_modules", [backbone])}
    parts = {part: module for part, module in parts.items() if module is not None}
    try:
        came, alphas = _converted(pipeline, file.parent, place, parts)
        refuse.unless_fits(parts, came)
        with warnings.catch_warnings():
            # of the alphas that diffusers hands on under names that PEFT does not know
            warnings.filterwarnings("ignore", message="The following alpha_pattern keys")
            pipeline.load_lora_weights(str(file.parent), adapter_name=_ADAPTER, **place)
        used = {part: module for part, module in parts.items() if any(key.startswith(f"{part}.") for key in came)}
        loaded = {
            f"{part}.{key}": tuple(each.shape)
            for part, module in used.items()
            for key, each in get_peft_model_state_dict(module, adapter_name=_ADAPTER, **_TENSORS).items()
        }
        refuse.unless_same(loaded, came)
        _scale(used, alphas)
    except (ValueError, TypeError, RuntimeError, KeyError, IndexError, AttributeError) as error:
        refuse.because(error)
    if weight != 0:
        pipeline.fuse_lora(components=list(used), lora_scale=weight, adapter_names=[_ADAPTER])
    pipeline.unload_lora_weights()


def _scale(parts: Mapping[str, Any], alphas: Mapping[str, float]) -> None:
    """Scale every layer by its own alpha over its rank: diffusers takes one alpha for all layers of a UNet."""
    from peft.tuners.lora import LoraLayer

    for part, module in parts.items() if alphas else ():
        for key, layer in module.named_modules():
            if isinstance(layer, LoraLayer) and _ADAPTER in layer.scaling:
                rank = layer.r[_ADAPTER]
                layer.scaling[_ADAPTER] = alphas.get(f"{part}.{key}", rank) / rank


def _converted(
    pipeline: Any, folder: Path, place: Mapping[str, Any], parts: Mapping[str, Any]
) -> tuple[dict[str, tuple[int, ...]], dict[str, float]]:
    """The shapes of the LoRA's tensors under the names that diffusers gives them in the pipeline, and alphas by layer.

    The alphas are those that still stand beside the tensors: in most forms diffusers has multiplied them in.
    """
    more = {"unet_config": parts["unet"].config} if "unet" in parts else {}
    found = pipeline.lora_state_dict(str(folder), **place, **more)
    state, beside = found if isinstance(found, tuple) else (found, None)
    names = _renamed({key: key for key in state if "alpha" not in key}, parts)
    scaled = {key.removesuffix(".alpha"): float(alpha) for key, alpha in (beside or {}).items()}
    alphas = {_layer(new): scaled[key] for new, old in names.items() for key in (old, _layer(old)) if key in scaled}
    return {new: tuple(state[old].shape) for new, old in names.items()}, alphas


def _layer(tensor: str) -> str:
    return re.split(r"\.lora[._]", tensor)[0]


def _renamed(state: dict[str, str], parts: Mapping[str, Any]) -> dict[str, str]:
    """The same values under the names that their keys have in the pipeline."""
    tools: Any = import_module("diffusers.utils")
    named: dict[str, str] = {}
    for part, module in parts.items():
        own = {key.removeprefix(f"{part}."): state.pop(key) for key in list(state) if key.startswith(f"{part}.")}
        if own and part.startswith("text_encoder"):
            own = tools.convert_state_dict_to_peft(tools.convert_state_dict_to_diffusers(own))
            if not hasattr(module, "text_model"):
                own = {key.removeprefix("text_model."): each for key, each in own.items()}
        elif own and not any("lora_A" in key for key in own):
            own = tools.convert_unet_state_dict_to_peft(own)
        named |= {f"{part}.{key}": each for key, each in own.items()}
    return named | state


class _Refusal:
    """The ways in which a LoRA does not fit, as one sentence each; `base` is the model that it says it is for."""

    def __init__(self, name: str, path: Path, base: str) -> None:
        self.name, self.path = name, path
        self.base = f"; it says that it is for {base}" if base else ""

    def _say(self, what: str) -> NoReturn:
        raise InputError(
            f"{self.name}: the LoRA {self.path} {what}{self.base}: give one of this model, whole"
        ) from None

    def because(self, error: Exception) -> NoReturn:
        """What the library that merges it says."""
        if isinstance(error, InputError):
            raise error
        self._say(f"cannot be merged ({' '.join(str(error).split())[:200]})")

    def unless_fits(self, parts: Mapping[str, Any], came: Mapping[str, tuple[int, ...]]) -> None:
        """InputError unless the layers of all tensors are there, and as wide."""
        reasons = {key: reason for key, shape in came.items() if (reason := _misfit(parts, key, shape))}
        if reasons or not came:
            fit = f"{len(came) - len(reasons)} of its {len(came)} tensors find their place"
            key, reason = next(iter(reasons.items()), ("", ""))
            layers = ", ".join(_layers(parts))
            self._say(f"does not fit: {fit}; {key} {reason}; layers of {' and '.join(parts)} are {layers}")

    def unless_same(self, wanted: Mapping[str, tuple[int, ...]], came: Mapping[str, tuple[int, ...]]) -> None:
        """InputError unless what the pipeline takes is just what came."""
        missing, left = wanted.keys() - came.keys(), came.keys() - wanted.keys()
        other = [key for key in wanted.keys() & came.keys() if wanted[key] != came[key]]
        if missing or left or other:
            taken = f"{len(came) - len(left) - len(other)} of its {len(came)} tensors find their place"
            more = [f"{len(each)} {what} ({listed(each)})" for each, what in _named(missing, left, other) if each]
            self._say(f"does not fit: {taken}, {', '.join(more)}")


def _named(missing: Iterable[str], left: Iterable[str], other: Iterable[str]) -> list[tuple[list[str], str]]:
    return [(list(missing), "are missing"), (list(left), "would be left out"), (list(other), "have another shape")]


def _misfit(parts: Mapping[str, Any], key: str, shape: tuple[int, ...]) -> str:
    """Why a tensor has no place in the pipeline; empty where it has one."""
    part, _, inner = key.partition(".")
    found = _LORA.fullmatch(inner)
    if part not in parts:
        return "is of no part that can take a LoRA"
    if found is None:
        # biases, magnitudes and whole layers: what takes them is checked once they are loaded
        return "" if ".lora_" in inner or inner.endswith((".weight", ".bias")) else "is no tensor of a LoRA"
    try:
        weight = parts[part].get_submodule(found["layer"]).weight
    except AttributeError:
        return "belongs to no layer that is here"
    axis = 1 if found["side"] == "A" else 0
    if key.endswith(".bias") or len(shape) <= axis or weight.ndim <= axis or shape[axis] == weight.shape[axis]:
        return ""
    return f"is made for a width of {shape[axis]}, the layer has {weight.shape[axis]}"


def _layers(parts: Mapping[str, Any]) -> list[str]:
    """Some layers that can take a LoRA, those of attention first."""
    from torch.nn import Linear

    names = [
        f"{part}.{key}" for part, own in parts.items() for key, each in own.named_modules() if type(each) is Linear
    ]
    return sorted(names, key=lambda name: "attn" not in name)[:3]
