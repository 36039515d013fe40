"""A pipeline of diffusers from a folder, or one sentence that says what is wrong with the folder.

Libraries fill what a folder lacks with random weights or an empty vocabulary, and only log it: images would be made,
and mean nothing. Here every weight and every vocabulary is in the folder.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from widespectrum.devices import is_out_of_memory
from widespectrum.errors import InputError, MissingExtraError, WideSpectrumError
from widespectrum.rewards.identity import listed

from .layout import components

__all__ = ["load_pipeline"]

_CAUSES = (ArithmeticError, AssertionError, AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError)


def load_pipeline(folder: Path, pipeline_class: str, *, name: str, dtype: Any, parts: Mapping[str, Any]) -> Any:
    """The pipeline of the class in `folder`, with `parts` in the place of its own; `name` is for messages.

    Images are those of `from_pretrained` with the same arguments. InputError where weights or vocabularies are missing
    or do not fit, MissingExtraError where a package is.
    """
    import diffusers

    with _reading(folder, name):
        encoders = _encoders(folder, [*parts], dtype=dtype, name=name)
        made = getattr(diffusers, pipeline_class).from_pretrained(
            folder, dtype=dtype, use_safetensors=True, local_files_only=True, **encoders, **parts
        )
    for part, module in made.components.items():
        if part not in parts:
            _check_part(folder / part, module, name)
    return made


def _encoders(folder: Path, without: list[str], *, dtype: Any, name: str) -> dict[str, Any]:
    """The parts that are models of transformers, {name: model}."""
    import transformers

    found = {}
    for part, (library, kind) in components(folder).items():
        # Models of transformers are also listed under the module of the pipeline.
        known: Any = getattr(transformers, kind, None) if library != "diffusers" and part not in without else None
        is_model = isinstance(known, type) and issubclass(known, transformers.PreTrainedModel)
        if not is_model:
            continue
        found[part], said = known.from_pretrained(
            folder / part,
            dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
        # What reads prompts is asked for its hidden states; a language model's last layer may be left out of it.
        unused = "lm_head." if part.startswith("text_encoder") else ()
        missing = [key for key in said["missing_keys"] if not key.startswith(unused)]
        _refuse(folder / part, "lacks weights", missing, name)
        _refuse(folder / part, "holds weights of another shape", [each[0] for each in said["mismatched_keys"]], name)
    return found


def _check_part(folder: Path, part: Any, name: str) -> None:
    """InputError where diffusers left weights empty, or where a tokenizer was made without its vocabulary."""
    import torch
    import transformers

    if isinstance(part, torch.nn.Module):
        _refuse(folder, "lacks weights", [key for key, each in part.named_parameters() if each.is_meta], name)
    tokenizer = getattr(part, "tokenizer", part)
    if isinstance(tokenizer, transformers.PreTrainedTokenizerBase):
        names = dict(tokenizer.vocab_files_names)
        whole = names.pop("tokenizer_file", "")
        in_parts = bool(names) and all((folder / each).is_file() for each in names.values())
        if whole and not in_parts and not (folder / whole).is_file():
            _refuse(folder, "lacks the vocabulary", [whole], name)


def _refuse(folder: Path, what: str, keys: Any, name: str) -> None:
    if keys:
        raise InputError(f"{name}: {folder} {what}: {listed(keys)}: download it again, or give another")


@contextmanager
def _reading(folder: Path, name: str) -> Iterator[None]:
    """What the libraries raise, as one sentence."""
    try:
        yield
    except WideSpectrumError:
        raise
    except ImportError as error:
        raise MissingExtraError(
            f"{name}: {folder} needs a package that is not installed ({_reason(error)}): install it"
        ) from error
    except _CAUSES as error:
        if is_out_of_memory(error):
            raise
        raise InputError(
            f"{name}: {folder} cannot be loaded ({_reason(error)}): expected a pipeline as save_pretrained writes it: "
            "download it again, or give another"
        ) from error


def _reason(error: Exception) -> str:
    """What a library says, shortened."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text if len(text) <= 200 else f'{text[:200]}...'}"
