"""The two towers of an image-text model, as transformers or open_clip computes them out of files on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from numpy.typing import NDArray
from PIL import Image

from widespectrum._compat import ensure_torchvision
from widespectrum.errors import InputError

__all__ = ["Prepared", "Towers", "open_clip_towers", "transformers_towers"]

Prepared = Mapping[str, NDArray[Any]]
"""One image as a model's preprocessing leaves it, every array with a first axis of length 1."""

_PRECISIONS = {"float32": "fp32", "bfloat16": "pure_bf16", "float16": "pure_fp16"}
# Without the form, an image 3 pixels high is taken for channels. Alpha is dropped beforehand: some versions lay it over
# white, some drop it, and some models have no rule for it.
_FORM = {"return_tensors": "np", "input_data_format": "channels_last"}
_LOCAL: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}


@dataclass(frozen=True)
class Towers:
    """A loaded model. `prepare` may run in many threads.

    `images` takes what `prepare` made of several images, joined, as arrays or tensors; it and `texts` return a torch
    tensor (N, D). `window` is the number of tokens that the text tower reads; `tokens` gives all those of a text, start
    and end included where the model has them, and `special` says whether a part of the text is read as one of these.
    """

    prepare: Callable[[Image.Image], Prepared]
    images: Callable[[Mapping[str, Any]], Any]
    texts: Callable[[list[str]], Any]
    window: int
    tokens: Callable[[str], list[int]]
    special: Callable[[str], bool]


def _opaque(image: Image.Image) -> Image.Image:
    """The image without the alpha of a palette, of which Pillow warns when it drops it."""
    if isinstance(image.info.get("transparency"), bytes):
        image = image.copy()
        del image.info["transparency"]
    return image


@contextmanager
def _loading(what: str) -> Iterator[None]:
    """Turn what the libraries raise on unsuitable files into one sentence."""
    from safetensors import SafetensorError

    try:
        yield
    except UnpicklingError as error:
        raise InputError(
            f"{what} could not be loaded: it holds more than numbers; convert it to safetensors"
        ) from error
    except (SafetensorError, OSError, ValueError, RuntimeError, KeyError, ImportError, EOFError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"{what} could not be loaded as an image-text model ({reason})") from error


def transformers_towers(folder: Path, device: str, dtype: str) -> Towers:
    """The model that transformers saved in `folder`; InputError where there is none, or a part of it is lacking."""
    ensure_torchvision()
    import torch
    from transformers import AutoTokenizer

    with _loading(str(folder)), _quiet():
        model = _model(folder, dtype)
        processor = _processor(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder, **_LOCAL)
        length = min(model.config.text_config.max_position_embeddings, tokenizer.model_max_length)
    model = model.to(device).eval()

    def images(batch: Mapping[str, Any]) -> Any:
        tensors = {key: torch.as_tensor(array).to(device) for key, array in batch.items()}
        tensors["pixel_values"] = tensors["pixel_values"].to(model.dtype)
        return _features(model.get_image_features(**tensors))

    def texts(batch: list[str]) -> Any:
        # SigLIP was trained on padded texts; CLIP does not see the padding.
        tokens = tokenizer(batch, padding="max_length", truncation=True, max_length=length, return_tensors="pt")
        read = {key: tokens[key].to(device) for key in ("input_ids", "attention_mask") if key in tokens}
        return _features(model.get_text_features(**read))

    return Towers(
        lambda image: dict(processor(_opaque(image).convert("RGB"), **_FORM)),
        images,
        texts,
        length,
        lambda text: _ids(tokenizer, text),
        lambda text: _has_special(tokenizer, text),
    )


def _model(folder: Path, dtype: str) -> Any:
    import torch
    from transformers import AutoModel

    model, report = AutoModel.from_pretrained(
        folder,
        use_safetensors=any(folder.glob("model*.safetensors")),
        **{_dtype_option(): getattr(torch, dtype)},
        output_loading_info=True,
        ignore_mismatched_sizes=True,
        **_LOCAL,
    )
    if not (hasattr(model, "get_image_features") and hasattr(model, "get_text_features")):
        raise InputError(f"{folder} holds a {type(model).__name__}: expected a model of images and texts like CLIP")
    lacking = sorted({*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])})
    if lacking:
        raise InputError(
            f"{folder} lacks weights or has them in another size, the first is {lacking[0]}: copy it again"
        )
    return model


def _processor(folder: Path) -> Any:
    """The preprocessing with Pillow: torchvision resizes in its own way, and is not there in every environment."""
    from transformers import AutoImageProcessor

    option = {"backend": "pil"} if _version() >= (5,) else {"use_fast": False}
    return AutoImageProcessor.from_pretrained(folder, **option, **_LOCAL)


def _version() -> tuple[int, ...]:
    import transformers

    return tuple(int(part) for part in transformers.__version__.split(".")[:2])


def _dtype_option() -> str:
    return "dtype" if _version() >= (4, 56) else "torch_dtype"


def _features(output: Any) -> Any:
    """The tensor itself: transformers 5 wraps it."""
    return getattr(output, "pooler_output", output)


def _ids(tokenizer: Any, text: str) -> list[int]:
    """All tokens of a text by a tokenizer of transformers, which would warn of a long text."""
    return list(tokenizer(text, verbose=False)["input_ids"])


def _has_special(tokenizer: Any, text: str) -> bool:
    special = {number: str(token) for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    found = special.keys() & set(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
    # A letter that the vocabulary lacks becomes the unknown token, which may be one of these.
    return any(number != tokenizer.unk_token_id or special[number] in text for number in found)


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


def open_clip_towers(
    name: str, weights: Path | None, preprocessing: Mapping[str, Any], device: str, dtype: str
) -> Towers:
    """The model that open_clip calls `name`, with `weights` (None: those of the folder that `name` holds)."""
    ensure_torchvision()
    import open_clip
    import torch
    from open_clip.transform import PreprocessCfg, image_transform_v2

    with _loading(f"open_clip:{name}"):
        model = open_clip.create_model(
            name,
            pretrained=str(weights) if weights else None,
            precision=_PRECISIONS[dtype],
            device=device,
            force_preprocess_cfg=dict(preprocessing),
            require_pretrained=True,
            weights_only=True,
        ).eval()
        transform = image_transform_v2(PreprocessCfg(**model.visual.preprocess_cfg), is_train=False)
        tokenizer = open_clip.get_tokenizer(name)

    def images(batch: Mapping[str, Any]) -> Any:
        return model.encode_image(torch.as_tensor(batch["pixel_values"]).to(device, getattr(torch, dtype)))

    return Towers(
        lambda image: {"pixel_values": transform(_opaque(image)).numpy()[None]},
        images,
        lambda batch: model.encode_text(tokenizer(batch).to(device)),
        tokenizer.context_length,
        lambda text: _open_clip_ids(tokenizer, text),
        lambda text: _open_clip_special(tokenizer, text),
    )


def _open_clip_ids(tokenizer: Any, text: str) -> list[int]:
    if hasattr(tokenizer, "sot_token_id"):
        return [tokenizer.sot_token_id, *tokenizer.encode(text), tokenizer.eot_token_id]
    return _ids(tokenizer.tokenizer, tokenizer.clean_fn(text))


def _open_clip_special(tokenizer: Any, text: str) -> bool:
    if hasattr(tokenizer, "sot_token_id"):
        return bool(set(tokenizer.all_special_ids) & set(tokenizer.encode(text)))
    return _has_special(tokenizer.tokenizer, tokenizer.clean_fn(text))
