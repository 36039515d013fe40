"""Image-text models by name: `transformers:<folder or repo>[@revision]`, `open_clip:<arch>@<tag or file>`.

A model is known by a spec that pins it: the commit of its repository, or the sha256 of its local files. The weights are
loaded when the first image or text is embedded. Nothing is unpickled and no code of a repository is run.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from widespectrum._compat import ensure_torchvision
from widespectrum.errors import InputError, MissingExtraError, ModelError, WideSpectrumError
from widespectrum.hub import download_snapshot, resolve_revision
from widespectrum.types import ModelSpec

__all__ = ["EmbeddingModel", "Prepared", "load_model"]

Prepared = Mapping[str, NDArray[Any]]
"""One image as a model's preprocessing leaves it, every array with a first axis of length 1."""

_FORMS = (
    "transformers:<folder or repo>[@revision], open_clip:<arch>@<pretrained tag or file>, open_clip:<folder> or "
    "open_clip:hf-hub:<repo>[@revision]"
)
_EXTRAS = {"transformers": "embeddings", "open_clip": "open-clip"}
_DTYPES = {"float32": "fp32", "bfloat16": "pure_bf16"}
_TEXTS = ("*.json", "*.txt", "*.model")
_WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.pth")


@dataclass(frozen=True)
class _Towers:
    """A loaded model: `prepare` may run in many threads, the other two return a torch tensor (N, D)."""

    prepare: Callable[[Image.Image], Prepared]
    images: Callable[[Prepared], Any]
    texts: Callable[[list[str]], Any]


@dataclass(frozen=True)
class EmbeddingModel:
    """An image-text model with two towers; `spec` is all that identifies it."""

    spec: ModelSpec
    _load: Callable[[], _Towers]

    @cached_property
    def _towers(self) -> _Towers:
        return self._load()

    def prepare(self, image: Image.Image) -> Prepared:
        """What the image tower reads of an RGB image; may be called from many threads."""
        return self._towers.prepare(image)

    def load(self) -> None:
        """Load the weights now."""
        _ = self._towers

    def encode_images(self, images: Sequence[Prepared]) -> NDArray[np.float32]:
        """Embeddings (N, D), as long as the model makes them."""
        joined = {key: np.concatenate([image[key] for image in images]) for key in images[0]}
        return _array(lambda: self._towers.images(joined))

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embeddings (N, D), as long as the model makes them; a text beyond the model's token limit is cut there."""
        return _array(lambda: self._towers.texts(list(texts)))


def load_model(name: str, *, device: str | None = None, dtype: str = "float32") -> EmbeddingModel:
    """The model called `name`, on `device` (a GPU where there is one, else the CPU), computing in `dtype`.

    A folder works offline. A repository of the Hub is taken at `revision`: 40 hexadecimal digits, or a branch or tag
    (the default branch where it is left out), which is resolved to its commit. `spec` holds that commit.
    `dtype` is float32, or bfloat16, which is faster and less exact.

    Raises InputError for a name that is none or cannot be loaded, MissingExtraError where the library is not installed.
    """
    library, _, rest = name.partition(":")
    if library not in _EXTRAS or not rest:
        raise InputError(f"{name!r} is no image-text model: expected {_FORMS}")
    if dtype not in _DTYPES:
        raise InputError(f"expected a dtype of {' or '.join(_DTYPES)}, got {dtype!r}")
    for package in ("torch", library):
        if importlib.util.find_spec(package) is None:
            extra = _EXTRAS[library]
            raise MissingExtraError(f"{name!r} needs {package}: pip install 'widespectrum[{extra}]'")
    find = _find_transformers if library == "transformers" else _find_open_clip
    return find(rest, device, dtype)


def _array(encode: Callable[[], Any]) -> NDArray[np.float32]:
    import torch

    try:
        with torch.inference_mode():
            found: NDArray[np.float32] = encode().float().cpu().numpy()
    except torch.OutOfMemoryError as error:
        raise ModelError("the model has not enough memory: take a smaller batch size, or another device") from error
    return found


def _device(device: str | None) -> str:
    import torch

    found = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(1, device=found)
    except (AssertionError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"the device {found!r} cannot be used here ({reason}): expected cuda or cpu") from None
    return found


def _find_transformers(rest: str, device: str | None, dtype: str) -> EmbeddingModel:
    folder, name, pin = _folder(rest, "model*.safetensors")
    if not any(folder.glob("*.safetensors")):
        raise InputError(f"{rest} has no weights in safetensors, which is the only format read: convert it first")
    spec = _spec("transformers", name, pin, {"dtype": dtype})
    return EmbeddingModel(spec, lambda: _transformers(folder, _device(device), dtype))


def _find_open_clip(rest: str, device: str | None, dtype: str) -> EmbeddingModel:
    repo = rest.removeprefix("hf-hub:")
    if repo != rest or Path(rest).is_dir():
        folder, name, pin = _folder(repo, "open_clip*.safetensors", hub=repo != rest)
        if not (folder / "open_clip_config.json").is_file():
            raise InputError(f"{repo} holds no open_clip_config.json: expected a model that open_clip saved")
        spec = _spec("open_clip", name, pin, {"dtype": dtype})
        return EmbeddingModel(spec, lambda: _open_clip(f"local-dir:{folder}", None, {}, _device(device), dtype))
    arch, at, source = rest.partition("@")
    if not at or not source:
        raise InputError(f"open_clip:{rest} names no weights: expected {_FORMS}")
    config = _architecture(arch)
    if Path(source).is_file():
        weights, pin, options = Path(source), {"sha256": _sha256(Path(source))}, dict[str, Any]()
    else:
        weights, pin, options = _tagged(arch, source, config)
    spec = _spec("open_clip", arch, pin, {"dtype": dtype, "pretrained": Path(source).name})
    return EmbeddingModel(spec, lambda: _open_clip(arch, weights, options, _device(device), dtype))


def _spec(library: str, name: str, pin: Mapping[str, str], params: Mapping[str, str]) -> ModelSpec:
    """A spec pinned by a commit (its revision) or by a sha256 (among its parameters)."""
    plain = re.sub(r"[:@?]", "-", name)
    more = {key: value for key, value in pin.items() if key != "revision"}
    return ModelSpec(adapter=library, name=plain, revision=pin.get("revision"), params={**params, **more})


def _folder(text: str, weights: str, *, hub: bool = False) -> tuple[Path, str, dict[str, str]]:
    """(folder, name, pin) of a local folder, or of `repo[@revision]` on the Hub, with `weights` and no others."""
    if not hub and (folder := Path(text)).is_dir():
        files = sorted(path for pattern in (*_TEXTS, *_WEIGHTS) for path in folder.glob(pattern))
        return folder, folder.resolve().name, {"sha256": _digest(files)}
    repo, _, revision = text.partition("@")
    with _hub(text):
        commit = resolve_revision(repo, "model", revision or None)
        at = download_snapshot(repo, "model", commit, patterns=[*_TEXTS, weights], but_not=["*/*"])
    return at, repo, {"revision": commit}


def _digest(files: Sequence[Path]) -> str:
    """sha256 over the names and contents of files."""
    lines = [f"{path.name} {_sha256(path)}\n" for path in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _hub(text: str) -> Iterator[None]:
    """Say what was wanted of the Hub and what can be given instead."""
    try:
        yield
    except WideSpectrumError as error:
        raise type(error)(
            f"{text!r} is no folder here and could not be had from the Hub; {str(error).removesuffix('.')} (expected "
            f"{_FORMS}; offline, give a folder, or a revision of 40 hexadecimal digits that was downloaded before)"
        ) from error


def _architecture(arch: str) -> dict[str, Any]:
    """open_clip's configuration of an architecture that can be had without the Hub."""
    ensure_torchvision()
    import open_clip

    config: dict[str, Any] | None = open_clip.get_model_config(arch)
    if config is None:
        raise InputError(
            f"open_clip has no architecture {arch!r}; open_clip.list_models() lists all. Expected {_FORMS}"
        )
    if repo := config["text_cfg"].get("hf_tokenizer_name"):
        raise InputError(f"{arch} takes its tokenizer from the Hub, unpinned: use open_clip:hf-hub:{repo} or a folder")
    return config


def _tagged(arch: str, tag: str, config: Mapping[str, Any]) -> tuple[Path, dict[str, str], dict[str, Any]]:
    """(weights, pin, preprocessing) of a tag of open_clip's own table, from the Hub at the commit of today."""
    import open_clip

    entry = open_clip.get_pretrained_cfg(arch, tag)
    repo, _, file = entry.get("hf_hub", "").rpartition("/")
    if not repo:
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(arch)) or "none"
        raise InputError(f"{tag!r} is neither a file nor a pretrained tag of {arch}; its tags: {tags}")
    if (trained := entry.get("quick_gelu", False)) != config.get("quick_gelu", False):
        other = f"{arch}-quickgelu" if trained else arch.removesuffix("-quickgelu")
        raise InputError(f"{tag} was trained with another activation function than {arch} has: use {other}@{tag}")
    stem = Path(file or "open_clip_pytorch_model.bin").stem
    with _hub(f"open_clip:{arch}@{tag}"):
        commit = resolve_revision(repo, "model")
        for each in filter(None, ("open_clip_model.safetensors", f"{stem}.safetensors", f"{stem}.bin", file)):
            weights = download_snapshot(repo, "model", commit, patterns=[each]) / each
            if weights.is_file():
                return weights, {"revision": commit}, dict(entry)
    raise InputError(f"{repo} holds no weights of {arch}@{tag}: give a file instead of {tag}")


@contextmanager
def _loading(what: str) -> Iterator[None]:
    """Turn what the libraries raise on unsuitable files into one sentence."""
    try:
        yield
    except UnpicklingError as error:
        raise InputError(
            f"{what} could not be loaded: it holds more than numbers; convert it to safetensors"
        ) from error
    except (OSError, ValueError, RuntimeError, KeyError, ImportError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"{what} could not be loaded as an image-text model ({reason})") from error


def _transformers(folder: Path, device: str, dtype: str) -> _Towers:
    ensure_torchvision()
    import torch
    from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    with _loading(str(folder)), _quiet():
        model, report = AutoModel.from_pretrained(
            folder,
            use_safetensors=True,
            dtype=getattr(torch, dtype),
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **local,
        )
        # torchvision resizes tensors in its own way: with Pillow the result is the same in every environment.
        processor = AutoImageProcessor.from_pretrained(folder, backend="pil", **local)
        tokenizer = AutoTokenizer.from_pretrained(folder, **local)
        if not (hasattr(model, "get_image_features") and hasattr(model, "get_text_features")):
            raise InputError(f"{folder} holds a {type(model).__name__}: expected a model of images and texts like CLIP")
        lacking = sorted({*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])})
        if lacking:
            raise InputError(
                f"{folder} lacks weights or has them in another size, the first is {lacking[0]}: copy it again"
            )
        length = min(model.config.text_config.max_position_embeddings, tokenizer.model_max_length)
    model = model.to(device).eval()

    def images(batch: Prepared) -> Any:
        tensors = {key: torch.from_numpy(array).to(device) for key, array in batch.items()}
        tensors["pixel_values"] = tensors["pixel_values"].to(model.dtype)
        return _features(model.get_image_features(**tensors))

    def texts(batch: list[str]) -> Any:
        # SigLIP was trained on padded texts; CLIP does not see the padding.
        tokens = tokenizer(batch, padding="max_length", truncation=True, max_length=length, return_tensors="pt")
        return _features(model.get_text_features(**tokens.to(device)))

    return _Towers(lambda image: dict(processor(images=image, return_tensors="np")), images, texts)


def _features(output: Any) -> Any:
    """The tensor itself: transformers 5 wraps it."""
    return getattr(output, "pooler_output", output)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the bar and the report that transformers shows while it loads; what is missing is an error here."""
    from transformers.utils import logging

    shown, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if shown:
            logging.enable_progress_bar()


def _open_clip(name: str, weights: Path | None, preprocessing: Mapping[str, Any], device: str, dtype: str) -> _Towers:
    ensure_torchvision()
    import open_clip
    import torch
    from open_clip.transform import PreprocessCfg, image_transform_v2

    with _loading(f"open_clip:{name}"):
        model = open_clip.create_model(
            name,
            pretrained=str(weights) if weights else None,
            precision=_DTYPES[dtype],
            device=device,
            force_preprocess_cfg=dict(preprocessing),
            require_pretrained=True,
            weights_only=True,
        ).eval()
        transform = image_transform_v2(PreprocessCfg(**model.visual.preprocess_cfg), is_train=False)
        tokenizer = open_clip.get_tokenizer(name)

    def images(batch: Prepared) -> Any:
        return model.encode_image(torch.from_numpy(batch["pixel_values"]).to(device, getattr(torch, dtype)))

    return _Towers(
        lambda image: {"pixel_values": transform(image).numpy()[None]},
        images,
        lambda batch: model.encode_text(tokenizer(batch).to(device)),
    )
