"""The whole of a training: look at the data, say what will be done, train, validate, write the card."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import platform
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax
from tqdm import tqdm

from widespectrum.devices import free_memory, usable_device
from widespectrum.errors import MissingExtraError
from widespectrum.judges.dimension_text import ANSWERS, RECIPE, recipe
from widespectrum.judges.qwen3vl import Qwen3VL
from widespectrum.judges.qwen3vl_files import load_images, load_tokenizer
from widespectrum.judges.qwen3vl_text import ChatText, chat_template
from widespectrum.store import write_file

from .base import Base, find_base
from .card import card, figure_table
from .data import Annotated, Example, Material, look_through, open_data
from .folder import ADAPTER, CHECKPOINTS, last_checkpoint, locked, open_folder, record_of, refuse_foreign, write_json
from .plan import Options, plan_lines, steps_of
from .training import TRAINED, cost_of, encode, fit, precision, save_adapter
from .validation import figures

__all__ = ["VALIDATION", "predict", "train_judge"]

CARD = "README.md"
LOG = "log.jsonl"
VALIDATION = "validation.json"
_PACKAGES = ("accelerate", "datasets", "numpy", "peft", "pillow", "torch", "transformers", "widespectrum")
_NEEDED = ("accelerate", "peft", "torch", "transformers")

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class _Training:
    """What belongs to one training."""

    data: Annotated
    material: Material
    base: Base
    options: Options
    out: Path
    say: Say


def train_judge(
    data: str, out: Path, options: Options, *, revision: str | None = None, dry_run: bool = False, say: Say = print
) -> None:
    """Train a dimension judge on DATA and write it to the folder `out`, or go on with what is there.

    `out` ends as the folder of a LoRA, with its record (training.json), its log (log.jsonl), its figures
    (validation.json) and its card (README.md). InputError for what is wrong with the data, the base or an option;
    RunFolderError where `out` holds something else; ModelError for a lack of memory; HubError.
    """
    if missing := [name for name in _NEEDED if importlib.util.find_spec(name) is None]:
        raise MissingExtraError(
            f'train-judge needs {", ".join(missing)}, which is not installed: pip install "widespectrum[judges]"'
        )
    refuse_foreign(out)
    known = record_of(out)
    # A repository without a revision stays at the commit at which the training was begun.
    if revision is None and known and known["data"]["source"] == data:
        revision = known["data"]["revision"] or None
    commit = known["identity"].get("base_revision") if known and known.get("base") == options.base else None
    annotated = open_data(data, revision, options.dimensions)
    base = find_base(options.base, commit)
    material = look_through(annotated, options.dimensions, options.validation)
    training = _Training(annotated, material, base, options, out, say)
    for line in plan_lines(annotated, material, options, cost_of(base.folder, _longest(training))):
        say(line)
    if dry_run:
        say("dry run: nothing was trained or written")
        return
    with locked(out):
        _go(training)


def _longest(training: _Training) -> int:
    """The tokens of the longest example: the largest image with each of the questions."""
    folder, sizes = training.base.folder, training.material.sizes
    tokenizer = load_tokenizer(folder)
    text = ChatText(tokenizer, chat_template(folder, tokenizer), folder)
    reader = Qwen3VL(None, tokenizer, load_images(folder, training.options.max_pixels), text)
    picture = reader.picture(training.data.image(max(sizes, key=lambda row: sizes[row][0] * sizes[row][1])))
    return max(len(encode(reader, picture, dimension).ids) for dimension in training.options.dimensions)


def _go(training: _Training) -> None:
    out, say = training.out, training.say
    record = open_folder(out, _record(training))
    if not (out / ADAPTER).exists():
        # Figures of other weights.
        (out / VALIDATION).unlink(missing_ok=True)
        _train(training)
        free_memory(usable_device("auto"))
    if not (out / VALIDATION).exists():
        say(f"validating on {len(training.material.validation):,} examples")
        write_json(out / VALIDATION, _validation(training))
    found = json.loads((out / VALIDATION).read_text(encoding="utf-8"))
    write_file(out / CARD, card(record, found, out.resolve().name).encode())
    # They hold the optimizer's numbers too; the adapter is what is left of the last one.
    shutil.rmtree(out / CHECKPOINTS, ignore_errors=True)
    say(figure_table(found["dimensions"]))
    base = "" if "revision" in training.base.pin else f",base={training.options.base}"
    say(f'judge: {out}. To use it: widespectrum judge RUN --judge "dimension[adapter={out}{base}]"')


def _record(training: _Training) -> dict[str, Any]:
    """What training.json says: what decides on the weights, and with what they were made."""
    options, data, base = training.options, training.data, training.base
    asked = recipe(options.max_pixels, options.dimensions)
    identity = {
        "data_sha256": training.material.digest,
        **{f"base_{name}": value for name, value in base.pin.items()},
        **options.identity,
        **{f"recipe_{name}": asked[name] for name in ("instruction", "version")},
        **TRAINED,
        "precision": precision(),
    }
    packages = {"python": platform.python_version()}
    packages |= {name: importlib.metadata.version(name) for name in _PACKAGES}
    trained, held = training.material.train, training.material.validation
    counts = {
        "training_images": len({example.row for example in trained}),
        "training_examples": len(trained),
        "validation_images": len({example.row for example in held}),
        "validation_examples": len(held),
        "steps": steps_of(len(trained), options),
        "left_out": dict(training.material.left_out),
    }
    return {
        "data": {"source": data.source, "revision": data.revision},
        "base": base.name,
        "identity": identity,
        "counts": counts,
        "device": _device_name(),
        "packages": packages,
    }


def _device_name() -> str:
    import torch

    return str(torch.cuda.get_device_name()) if torch.cuda.is_available() else "CPU"


def _train(training: _Training) -> None:
    out, options, say = training.out, training.options, training.say
    if checkpoint := last_checkpoint(out):
        say(f"going on after step {int(checkpoint.name.split('-')[1]):,}")
    # Beside the adapter, whose weights come last and stand for a whole one.
    write_json(out / RECIPE, recipe(options.max_pixels, options.dimensions))
    qwen = _opened(training, None)

    def validate(epoch: int) -> dict[str, Any]:
        qwen.model.eval()
        found = _figures(training, qwen)
        qwen.model.train()
        say(f"after epoch {epoch}:\n{figure_table(found)}")
        return {"validation": found}

    log = fit(qwen, training.data, training.material.train, options, out, validate)
    write_file(out / LOG, "".join(json.dumps(entry) + "\n" for entry in log).encode())
    save_adapter(qwen.model, out, training.base)


def _opened(training: _Training, adapter: Path | None) -> Qwen3VL:
    return Qwen3VL.open(
        training.base.with_weights(),
        adapter=adapter,
        device="auto",
        dtype=precision(),
        max_pixels=training.options.max_pixels,
    )


def _validation(training: _Training) -> dict[str, Any]:
    """The figures of the adapter as it was saved, read as a judge reads it."""
    return {
        "data": training.data.source,
        "revision": training.data.revision,
        "rows": f"the last {training.options.validation}",
        "intervals": "95 %, percentiles of 2,000 resamples of images",
        "dimensions": _figures(training, _opened(training, training.out)),
    }


def _figures(training: _Training, qwen: Qwen3VL) -> dict[str, dict[str, Any]]:
    examples = training.material.validation
    probabilities = predict(qwen, training.data, examples, training.options.batch_size)
    return figures(examples, probabilities, training.material.images, training.options.dimensions)


def predict(qwen: Qwen3VL, data: Annotated, examples: Sequence[Example], batch_size: int) -> NDArray[np.float64]:
    """(n, 3): the probabilities of the answers 0, 1 and 2 to each example, which add up to 1."""
    tokens = qwen.token_ids(ANSWERS)
    found = [np.empty((0, 3))]
    with tqdm(total=len(examples), desc="validation", unit="", delay=2, leave=False) as progress:
        # Those of one image stand together, and it is read once.
        for row, asked in groupby(examples, key=lambda example: example.row):
            picture = qwen.picture(data.image(row))
            encoded = [encode(qwen, picture, example.dimension) for example in asked]
            found.append(softmax(qwen.next_log_probabilities(encoded, tokens, batch_size=batch_size), axis=1))
            progress.update(len(encoded))
    return np.concatenate(found)
