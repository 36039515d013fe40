"""The LoRA and its training, by peft and the Trainer of transformers."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from widespectrum._compat import ensure_torchvision
from widespectrum.devices import is_out_of_memory
from widespectrum.errors import ModelError
from widespectrum.judges.dimension_text import ANSWERS, dimension_conversation
from widespectrum.judges.qwen3vl_files import quiet
from widespectrum.store import write_file

from .data import Annotated, Example
from .folder import ADAPTER, CHECKPOINTS, TEMPORARY, last_checkpoint, mark_whole
from .plan import Cost, Options

if TYPE_CHECKING:
    from PIL.Image import Image

    from widespectrum.judges.qwen3vl import Encoded, Picture, Qwen3VL

    from .base import Base

__all__ = ["TRAINED", "batch_of", "cost_of", "encode", "fit", "precision", "save_adapter"]

RANK = 32
ALPHA = 64
DROPOUT = 0.05
_LOGGED_EVERY = 10
_KEPT = 2
_WORKERS = 8
# The image tower stays as it is: its features are those the language model was trained on, nothing has to be kept of
# it for gradients, and servers of LoRAs (vLLM) take those of the language model alone.
TARGETS = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"

TRAINED = {"rank": RANK, "alpha": ALPHA, "dropout": DROPOUT, "targets": TARGETS}
"""What is trained, for the record."""

Validate = Callable[[int], dict[str, Any]]


def precision() -> str:
    """The dtype of the base: bfloat16 on a GPU, float32 without one. The LoRA is trained in float32 in both."""
    import torch

    return "bfloat16" if torch.cuda.is_available() else "float32"


def _lora() -> Any:
    from peft import LoraConfig

    return LoraConfig(
        r=RANK, lora_alpha=ALPHA, lora_dropout=DROPOUT, target_modules=TARGETS, bias="none", task_type="CAUSAL_LM"
    )


def cost_of(folder: Path, tokens: int) -> Cost:
    """What the network in `folder` takes, from its config.json alone: no weights are loaded."""
    ensure_torchvision()
    import torch
    from peft import get_peft_model
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    config = Qwen3VLConfig.from_pretrained(folder, local_files_only=True)
    with torch.device("meta"), quiet():
        network = get_peft_model(Qwen3VLForConditionalGeneration(config), _lora())
    trained, parameters = network.get_nb_trainable_parameters()
    text = config.text_config
    return Cost(
        parameters=parameters - trained,
        trained=trained,
        bytes=2 if precision() == "bfloat16" else 4,
        tokens=tokens,
        layers=text.num_hidden_layers,
        width=text.hidden_size,
        inner=text.intermediate_size,
    )


def encode(reader: Qwen3VL, shown: Image | Picture, dimension: str) -> Encoded:
    """The conversation of an example, as the judge has it when it is used, up to where the answer begins."""
    system, text = dimension_conversation(dimension)
    return reader.encode(system, [shown, text])


def batch_of(qwen: Qwen3VL, data: Annotated, examples: Sequence[Example], answers: Sequence[int]) -> dict[str, Any]:
    """All that `model(**batch)` needs to give the loss of these examples; `answers` are the ids of 0, 1 and 2."""
    import torch

    given = torch.tensor([[answers[example.target]] for example in examples])
    # The last position of a left-padded batch is each prompt's own last token. Labels that are shifted already need no
    # answer behind the prompt; every other position has none.
    return {
        **qwen.collate(
            [encode(qwen, data.image(example.row), example.dimension) for example in examples], padding_side="left"
        ),
        "labels": given,
        "shift_labels": given,
        "logits_to_keep": 1,
        "use_cache": False,
    }


def _arguments(options: Options, out: Path) -> Any:
    import torch
    from transformers import TrainingArguments

    on_gpu = torch.cuda.is_available()
    made = TrainingArguments(
        output_dir=str(out / CHECKPOINTS),
        num_train_epochs=options.epochs,
        learning_rate=options.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=options.warmup,
        per_device_train_batch_size=options.batch_size,
        gradient_accumulation_steps=options.accumulation,
        bf16=on_gpu,
        use_cpu=not on_gpu,
        seed=options.seed,
        save_steps=options.save_every,
        save_total_limit=_KEPT,
        logging_steps=_LOGGED_EVERY,
        report_to="none",
        remove_unused_columns=False,
        dataloader_num_workers=min(_WORKERS, os.cpu_count() or 1) if on_gpu else 0,
        dataloader_pin_memory=on_gpu,
    )
    # Images of a batch lie end to end in one tensor, which DataParallel would cut in the wrong places.
    made._n_gpu = min(made.n_gpu, 1)
    return made


def _compute_twice(module: Any) -> None:
    """Gradient checkpointing of the one part that is trained, by the name that this version of transformers has."""
    new = getattr(module, "activation_checkpointing_enable", None)
    (new or module.gradient_checkpointing_enable)({"use_reentrant": False})


def _callback(out: Path, epochs: int, validate: Validate) -> Any:
    from transformers import TrainerCallback

    class Keeper(TrainerCallback):  # type: ignore[misc]
        """Marks checkpoints that are whole, and validates between epochs."""

        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            mark_whole(out / CHECKPOINTS / f"checkpoint-{state.global_step}")

        def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            # After the last epoch the saved adapter is validated.
            if round(state.epoch) < epochs:
                state.log_history.append(
                    {"step": state.global_step, "epoch": state.epoch, **validate(round(state.epoch))}
                )

    return Keeper()


@contextmanager
def _in_memory() -> Iterator[None]:
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            raise ModelError(
                "the memory does not suffice for this training: give a smaller --batch-size with a larger "
                "--accumulation, a smaller --max-pixels, or keep --checkpointing on"
            ) from error
        raise


def fit(
    qwen: Qwen3VL, data: Annotated, examples: Sequence[Example], options: Options, out: Path, validate: Validate
) -> list[dict[str, Any]]:
    """Train a LoRA on `qwen`, going on from the last checkpoint in `out`; the log, an entry every ten steps.

    The loss is on the answer alone, at the position after which the judge reads its answer. `validate` is called with
    the number of the epoch between epochs. ModelError for a lack of memory.
    """
    ensure_torchvision()
    from peft import get_peft_model
    from transformers import Trainer, set_seed

    set_seed(options.seed)
    with quiet():
        qwen.model = get_peft_model(qwen.network, _lora())
    if options.checkpointing:
        _compute_twice(qwen.network.model.language_model)
    answers = qwen.token_ids(ANSWERS)
    trainer = Trainer(
        model=qwen.model,
        args=_arguments(options, out),
        train_dataset=list(examples),
        data_collator=lambda examples: batch_of(qwen, data, examples, answers),
        callbacks=[_callback(out, options.epochs, validate)],
    )
    checkpoint = last_checkpoint(out)
    with _in_memory():
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    return list(trainer.state.log_history)


def save_adapter(model: Any, out: Path, base: Base) -> None:
    """Write the LoRA in the layout of peft; the weights last and in one step, so that they stand for a whole one."""
    with tempfile.TemporaryDirectory(dir=out, prefix=TEMPORARY) as made:
        model.save_pretrained(made, save_embedding_layers=False)
        settings = json.loads((Path(made) / "adapter_config.json").read_text(encoding="utf-8"))
        # Not the folder on this machine from which it was loaded.
        settings |= {"base_model_name_or_path": base.name, "revision": base.pin.get("revision")}
        write_file(out / "adapter_config.json", (json.dumps(settings, indent=2, sort_keys=True) + "\n").encode())
        write_file(out / ADAPTER, (Path(made) / ADAPTER).read_bytes())
