"""Image-text models by name: `transformers:<folder or repo>[@revision]`, `open_clip:<arch>@<tag or file>`.

A model is known by a spec that pins it: the commit of its repository, or the sha256 of its local files. The weights are
loaded when the first image or text is embedded. Of a pickle nothing but numbers is read, and no code of a repository
is run.
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
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from widespectrum._compat import ensure_torchvision
from widespectrum.embedding_towers import Prepared, Towers, open_clip_towers, transformers_towers
from widespectrum.errors import InputError, MissingExtraError, ModelError, WideSpectrumError
from widespectrum.hub import download_snapshot, resolve_revision
from widespectrum.types import ModelSpec

__all__ = ["EmbeddingModel", "full_name", "load_model"]

_FORMS = (
    "transformers:<folder or repo>[@revision], open_clip:<arch>@<pretrained tag or file>, open_clip:<folder> or "
    "open_clip:hf-hub:<repo>[@revision]"
)
_EXTRAS = {"transformers": "embeddings", "open_clip": "open-clip"}
_DTYPES = ("float32", "bfloat16", "float16")
_TEXTS = ("*.json", "*.txt", "*.model")
_WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.pth")
_OPEN_CLIP = "open_clip_config.json"


@dataclass(frozen=True)
class EmbeddingModel:
    """An image-text model with two towers; `spec` is all that identifies it."""

    spec: ModelSpec
    _load: Callable[[], Towers]

    @cached_property
    def towers(self) -> Towers:
        """The loaded model."""
        return self._load()

    def prepare(self, image: Image.Image) -> Prepared:
        """What the image tower reads of an image; may be called from many threads."""
        return self.towers.prepare(image)

    def load(self) -> None:
        """Load the weights now."""
        _ = self.towers

    def encode_images(self, images: Sequence[Prepared]) -> NDArray[np.float32]:
        """Embeddings (N, D), as long as the model makes them."""
        joined = {key: np.concatenate([image[key] for image in images]) for key in images[0]}
        return _array(lambda: self.towers.images(joined))

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embeddings (N, D), as long as the model makes them; a text beyond the model's token limit is cut there."""
        return _array(lambda: self.towers.texts(list(texts)))


def load_model(name: str, *, device: str | None = None, dtype: str = "float32") -> EmbeddingModel:
    """The model called `name`, on `device` (a GPU where there is one, else the CPU), computing in `dtype`.

    A folder works offline. A repository of the Hub is taken at `revision`: 40 hexadecimal digits, or a branch or tag
    (the default branch where it is left out), which is resolved to its commit. `spec` holds that commit.
    `dtype` is float32, or bfloat16 or float16, which are faster and less exact.

    Raises InputError for a name that is none or cannot be loaded, MissingExtraError where the library is not installed.
    """
    library, _, rest = name.partition(":")
    if library not in _EXTRAS or not rest:
        raise InputError(f"{name!r} is no image-text model: expected {_FORMS}")
    if dtype not in _DTYPES:
        raise InputError(f"expected a dtype of {', '.join(_DTYPES)}; got {dtype!r}")
    for package in ("torch", library):
        if importlib.util.find_spec(package) is None:
            extra = _EXTRAS[library]
            raise MissingExtraError(f"{name!r} needs {package}: pip install 'widespectrum[{extra}]'")
    find = _find_transformers if library == "transformers" else _find_open_clip
    return find(rest, device, dtype)


def full_name(text: str) -> str:
    """The name, as `load_model` reads it, of the model in a folder or in `repo[@revision]` on the Hub.

    With an open_clip_config.json it is open_clip's, else that of transformers. Of the Hub the name holds the commit.
    """
    if Path(text).is_dir():
        return f"open_clip:{text}" if (Path(text) / _OPEN_CLIP).is_file() else f"transformers:{text}"
    repo, _, revision = text.partition("@")
    with _hub(text):
        commit = resolve_revision(repo, "model", revision or None)
        at = download_snapshot(repo, "model", commit, patterns=[_OPEN_CLIP])
    return f"open_clip:hf-hub:{repo}@{commit}" if (at / _OPEN_CLIP).is_file() else f"transformers:{repo}@{commit}"


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
    kinds = ("model*.safetensors", "pytorch_model*.bin")
    folder, name, pin = _folder(rest, kinds)
    if not any(any(folder.glob(kind)) for kind in kinds):
        raise InputError(f"{rest} has no weights: expected {' or '.join(kinds)}, as transformers saves them")
    spec = _spec("transformers", name, pin, {"dtype": dtype})
    return EmbeddingModel(spec, lambda: transformers_towers(folder, _device(device), dtype))


def _find_open_clip(rest: str, device: str | None, dtype: str) -> EmbeddingModel:
    repo = rest.removeprefix("hf-hub:")
    if repo != rest or Path(rest).is_dir():
        folder, name, pin = _folder(repo, ("open_clip*.safetensors", "open_clip*.bin"), hub=repo != rest)
        if not (folder / _OPEN_CLIP).is_file():
            raise InputError(f"{repo} holds no {_OPEN_CLIP}: expected a model that open_clip saved")
        spec = _spec("open_clip", name, pin, {"dtype": dtype})
        return EmbeddingModel(spec, lambda: open_clip_towers(f"local-dir:{folder}", None, {}, _device(device), dtype))
    arch, at, source = rest.partition("@")
    if not at or not source:
        raise InputError(f"open_clip:{rest} names no weights: expected {_FORMS}")
    config = _architecture(arch)
    if Path(source).is_file():
        weights, pin, options = Path(source), {"sha256": _sha256(Path(source))}, dict[str, Any]()
    else:
        weights, pin, options = _tagged(arch, source, config)
    spec = _spec("open_clip", arch, pin, {"dtype": dtype, "pretrained": Path(source).name})
    return EmbeddingModel(spec, lambda: open_clip_towers(arch, weights, options, _device(device), dtype))


def _spec(library: str, name: str, pin: Mapping[str, str], params: Mapping[str, str]) -> ModelSpec:
    """A spec pinned by a commit (its revision) or by a sha256 (among its parameters)."""
    plain = re.sub(r"[:@?]", "-", name)
    more = {key: value for key, value in pin.items() if key != "revision"}
    return ModelSpec(adapter=library, name=plain, revision=pin.get("revision"), params={**params, **more})


def _folder(text: str, kinds: Sequence[str], *, hub: bool = False) -> tuple[Path, str, dict[str, str]]:
    """(folder, name, pin) of a local folder, or of `repo[@revision]` on the Hub with the first kind of its weights."""
    if not hub and (folder := Path(text)).is_dir():
        files = sorted(path for pattern in (*_TEXTS, *_WEIGHTS) for path in folder.glob(pattern))
        return folder, folder.resolve().name, {"sha256": _digest(files)}
    repo, _, revision = text.partition("@")
    with _hub(text):
        commit = resolve_revision(repo, "model", revision or None)
        for kind in kinds:
            at = download_snapshot(repo, "model", commit, patterns=[*_TEXTS, kind], but_not=["*/*"])
            if any(at.glob(kind)):
                break
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
