"""Qwen3-VL from a folder as its authors publish it, or one sentence that says what is wrong with the folder.

transformers fills what a checkpoint lacks with random weights, and peft what a LoRA lacks, and they only log it: here
everything is in the folders.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from widespectrum._compat import ensure_torchvision
from widespectrum.devices import is_out_of_memory
from widespectrum.errors import InputError, WideSpectrumError

__all__ = ["check_folder", "is_lora", "load_images", "load_network", "load_tokenizer", "quiet"]

_LOCAL: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
_KIND = "qwen3_vl"
_CAUSES = (ArithmeticError, AssertionError, AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError)
_LARGEST_CONFIG = 1 << 20


def check_folder(folder: Path) -> None:
    """InputError where a folder is no checkpoint of Qwen3-VL, as far as its config.json tells."""
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}: expected a checkpoint of Qwen3-VL")
    found = read_config(folder / "config.json").get("model_type")
    if found != _KIND:
        raise InputError(
            f"{folder} holds a model of type {found!r}: expected one of {_KIND!r}, such as Qwen3-VL-8B-Instruct"
        )


def is_lora(folder: Path) -> bool:
    """Whether a folder holds a LoRA as peft saves it, not a whole model. InputError where it holds neither."""
    if (folder / "adapter_config.json").is_file():
        settings = read_config(folder / "adapter_config.json")
        if (kind := settings.get("peft_type")) != "LORA":
            raise InputError(f"{folder} holds an adapter of type {kind!r}: expected LORA")
        # peft imports the module that this names.
        if settings.get("megatron_config"):
            raise InputError(f"{folder} holds a LoRA for Megatron: expected one of transformers")
        if not (folder / "adapter_model.safetensors").is_file():
            raise InputError(f"{folder} lacks adapter_model.safetensors: save the LoRA again with save_pretrained")
        return True
    if not (folder / "config.json").is_file():
        raise InputError(
            f"{folder} holds neither adapter_config.json nor config.json: expected the folder of a LoRA that peft "
            "saved, or of a whole model"
        )
    return False


def read_config(file: Path) -> dict[str, Any]:
    """A JSON object of a checkpoint. InputError where it is none."""
    try:
        if file.stat().st_size > _LARGEST_CONFIG:
            raise ValueError(f"it has more than {_LARGEST_CONFIG:,} bytes")
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{file} cannot be read ({error}): copy the checkpoint again") from None
    if not isinstance(found, dict):
        raise InputError(f"{file} is no JSON object: copy the checkpoint again")
    return found


def load_network(folder: Path, adapter: Path | None, *, device: str, dtype: Any) -> Any:
    """Qwen3VLForConditionalGeneration of a folder, with a LoRA where `adapter` is given; in eval mode.

    InputError where weights are missing or of another shape.
    """
    ensure_torchvision()
    with _loading(folder), quiet():
        from transformers import Qwen3VLForConditionalGeneration

        network, report = Qwen3VLForConditionalGeneration.from_pretrained(
            folder,
            dtype=dtype,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **_LOCAL,
        )
        lacking = sorted({*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])})
        if lacking:
            raise InputError(
                f"{folder} lacks {len(lacking)} weights or has them in another shape, the first is {lacking[0]}: "
                "copy it again"
            )
    if adapter is not None:
        with _loading(adapter), quiet():
            network = _with_lora(network, adapter, dtype)
    return network.to(device).eval().requires_grad_(False)


def _with_lora(network: Any, adapter: Path, dtype: Any) -> Any:
    """The network inside a PeftModel. InputError where the file holds other weights than the LoRA has."""
    from peft import PeftModel
    from peft.utils import get_peft_model_state_dict
    from safetensors import safe_open

    made = PeftModel.from_pretrained(network, str(adapter), torch_device="cpu")
    with safe_open(adapter / "adapter_model.safetensors", framework="pt") as file:
        held = set(file.keys())
    # Without this peft asks the Hub whether the vocabulary of the base was changed.
    expected = get_peft_model_state_dict(made, save_embedding_layers=False).keys()
    if wrong := sorted(held ^ expected):
        raise InputError(
            f"{adapter} is no LoRA of this base: {len(wrong)} weights are missing or left over, the first is "
            f"{wrong[0]}; give the base with which it was trained"
        )
    return made.to(dtype)


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a checkpoint. InputError where it lacks its vocabulary."""
    ensure_torchvision()
    if not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json")):
        raise InputError(f"{folder} holds no tokenizer.json or vocab.json: copy the tokenizer of Qwen3-VL there")
    with _loading(folder), quiet():
        from transformers import AutoTokenizer

        found = AutoTokenizer.from_pretrained(folder, **_LOCAL)
        if not hasattr(found, "backend_tokenizer"):
            raise InputError(f"{folder} holds a {type(found).__name__}: expected the tokenizer of Qwen3-VL")
        return found


def load_images(folder: Path, max_pixels: int) -> Any:
    """What cuts images into patches, with Pillow: torchvision resizes in its own way, and is not everywhere.

    No image has more than `max_pixels` after it was resized, its aspect ratio kept.
    """
    ensure_torchvision()
    if not any((folder / name).is_file() for name in ("preprocessor_config.json", "processor_config.json")):
        raise InputError(f"{folder} holds no preprocessor_config.json: copy that of Qwen3-VL there")
    with _loading(folder), quiet():
        from transformers import AutoImageProcessor

        made = AutoImageProcessor.from_pretrained(folder, backend="pil", **_LOCAL)
        smallest = min(made.size["shortest_edge"], max_pixels)
        made.size = {"shortest_edge": smallest, "longest_edge": max_pixels}
        return made


@contextmanager
def _loading(folder: Path) -> Iterator[None]:
    """What the libraries raise, as one sentence."""
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError

    try:
        yield
    except WideSpectrumError:
        raise
    except (*_CAUSES, SafetensorError, StrictDataclassError) as error:
        if is_out_of_memory(error):
            raise
        text = " ".join(str(error).split())
        reason = f"{type(error).__name__}: {text if len(text) <= 200 else f'{text[:200]}...'}"
        raise InputError(f"{folder} cannot be loaded ({reason}): copy it again, or give another") from error


@contextmanager
def quiet() -> Iterator[None]:
    """Silence what transformers and peft show and warn of while they load; what is missing is an error here."""
    from transformers.utils import logging

    shown, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(verbosity)
        if shown:
            logging.enable_progress_bar()
