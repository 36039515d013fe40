"""Qwen3-VL on this machine: conversations with images become what the official model reads, alone or in batches.

The official Qwen3VLProcessor needs torchvision; here the tokenizer, the chat template and the image processor of the
checkpoint do its work, and the ids, patches and grids are the same. Positions, the image tower and everything after it
are the model's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image

from widespectrum.devices import is_out_of_memory, usable_device
from widespectrum.errors import InputError, ModelError

from .qwen3vl_files import check_folder, load_images, load_network, load_tokenizer
from .qwen3vl_text import IMAGE, ChatText, chat_template

__all__ = ["DTYPES", "Encoded", "Picture", "Qwen3VL", "computing", "log_probabilities"]

DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """An image as the model reads it.

    `pixels` is (patches, values of a patch) in float32, `grid` is (frames, rows, columns) of patches, and `tokens` is
    how many tokens that makes.
    """

    pixels: NDArray[np.float32]
    grid: tuple[int, int, int]
    tokens: int


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """One conversation up to where the answer begins: the ids, image tokens included, and the images in their order."""

    ids: list[int]
    pictures: tuple[Picture, ...]


@contextmanager
def computing(name: str) -> Iterator[None]:
    """No gradients; a lack of memory is a ModelError that says what helps."""
    import torch

    try:
        with torch.inference_mode():
            yield
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            raise ModelError(f"{name} ran out of memory: give a smaller batch_size or max_pixels") from error
        raise


def log_probabilities(logits: Any, tokens: Sequence[int]) -> NDArray[np.float64]:
    """(N, tokens): the logarithm of the probability, in the whole vocabulary, that each of `tokens` comes next.

    `logits` is (N, vocabulary). ModelError where one is not finite.
    """
    values: NDArray[np.float64] = logits.double().log_softmax(dim=1)[:, list(tokens)].cpu().numpy()
    if not np.isfinite(values).all():
        raise ModelError("Qwen3-VL gave numbers that are not finite: try dtype bfloat16 or float32")
    return values


class Qwen3VL:
    """A loaded Qwen3-VL. `model` is Qwen3VLForConditionalGeneration, or the PeftModel around it where there is a LoRA.

    `tokenizer` is that of the checkpoint, `processor` its image processor.
    """

    def __init__(self, model: Any, tokenizer: Any, processor: Any, text: ChatText) -> None:
        self.model, self.tokenizer, self.processor = model, tokenizer, processor
        self._text = text

    @classmethod
    def open(cls, checkpoint: Path, *, adapter: Path | None, device: str, dtype: str, max_pixels: int) -> Qwen3VL:
        """Load a folder in the official layout, and with `adapter` a LoRA that peft saved.

        `max_pixels` limits width x height of an image after it was resized, its aspect ratio kept (one that is many
        times longer than wide may have more). InputError where files are missing or do not fit together; ModelError for
        a lack of memory.
        """
        import torch

        check_folder(checkpoint)
        tokenizer = load_tokenizer(checkpoint)
        processor = load_images(checkpoint, max_pixels)
        text = ChatText(tokenizer, chat_template(checkpoint, tokenizer), checkpoint)
        # What is wrong with a chat template shows where it is used.
        text.ids("system", ["text", 1])
        try:
            model = load_network(checkpoint, adapter, device=usable_device(device), dtype=getattr(torch, dtype))
        except (RuntimeError, MemoryError, OSError) as error:
            if is_out_of_memory(error):
                raise ModelError(f"{checkpoint} does not fit into the memory: free some, or give another device") from (
                    error
                )
            raise
        made = cls(model, tokenizer, processor, text)
        made._check(checkpoint)
        return made

    @property
    def network(self) -> Any:
        """Qwen3VLForConditionalGeneration itself; where there is a LoRA, its layers are in it."""
        return self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model

    @property
    def device(self) -> Any:
        """Where it computes."""
        return self.network.device

    def picture(self, image: Image) -> Picture:
        """An image as the model reads it; may run in threads.

        InputError for one that cannot be decoded, or is over 200 times longer than wide.
        """
        try:
            found = self.processor([image], return_tensors="np")
        # Pillow decodes when the pixels are first read, and raises these for damaged files and closed images.
        except (OSError, SyntaxError, ValueError) as error:
            file = getattr(image, "filename", "")
            raise InputError(
                f"the image{f' {file}' if file else ''} cannot be read ({error}): copy it again, or leave it out"
            ) from error
        frames, rows, columns = (int(side) for side in found["image_grid_thw"][0])
        tokens = frames * rows * columns // self.processor.merge_size**2
        return Picture(np.asarray(found["pixel_values"], dtype=np.float32), (frames, rows, columns), tokens)

    def encode(self, system: str, parts: Sequence[str | Image | Picture]) -> Encoded:
        """A system text (may be empty) and one message of the user, texts and images in their order.

        It ends where the answer begins. Every text is only text, whatever stands in it.
        """
        shown = [part if isinstance(part, str | Picture) else self.picture(part) for part in parts]
        ids = self._text.ids(system, [part if isinstance(part, str) else part.tokens for part in shown])
        return Encoded(ids, tuple(part for part in shown if isinstance(part, Picture)))

    def collate(self, encoded: Sequence[Encoded], padding_side: Literal["left", "right"] = "left") -> dict[str, Any]:
        """Tensors of a batch on the CPU, all that `model(**batch)` needs.

        input_ids, attention_mask and mm_token_type_ids are (N, longest); pixel_values (all patches, values of a patch)
        and image_grid_thw (all images, 3) are there where there is an image.
        """
        import torch

        length = max(len(each.ids) for each in encoded)
        ids = torch.full((len(encoded), length), self._padding, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, each in enumerate(encoded):
            start = length - len(each.ids) if padding_side == "left" else 0
            ids[row, start : start + len(each.ids)] = torch.tensor(each.ids)
            mask[row, start : start + len(each.ids)] = 1
        kinds = (ids == self.network.config.image_token_id).long() * mask
        batch = {"input_ids": ids, "attention_mask": mask, "mm_token_type_ids": kinds}
        if pictures := [picture for each in encoded for picture in each.pictures]:
            batch["pixel_values"] = torch.from_numpy(np.concatenate([picture.pixels for picture in pictures]))
            batch["image_grid_thw"] = torch.tensor([picture.grid for picture in pictures])
        return batch

    def last_logits(self, batch: dict[str, Any]) -> Any:
        """(N, vocabulary) in float32, at the last real token of each row of a collated batch, whatever its padding."""
        import torch

        batch = {name: tensor.to(self.device) for name, tensor in batch.items()}
        hidden = self.network.model(**batch, use_cache=False).last_hidden_state
        mask = batch["attention_mask"]
        last = (mask * torch.arange(mask.shape[1], device=mask.device)).argmax(dim=1)
        return self.network.lm_head(hidden[torch.arange(len(mask), device=mask.device), last]).float()

    def next_logits(self, encoded: Sequence[Encoded], *, batch_size: int) -> Any:
        """(N, vocabulary) in float32 on the CPU: what follows each prompt, at its last real token."""
        import torch

        starts = range(0, len(encoded), batch_size)
        with computing("Qwen3-VL"):
            parts = [self.last_logits(self.collate(encoded[start : start + batch_size])).cpu() for start in starts]
        return torch.cat(parts)

    def next_log_probabilities(
        self, encoded: Sequence[Encoded], tokens: Sequence[int], *, batch_size: int
    ) -> NDArray[np.float64]:
        """(N, tokens): see `log_probabilities`, of what follows each prompt."""
        found = []
        with computing("Qwen3-VL"):
            for start in range(0, len(encoded), batch_size):
                batch = self.collate(encoded[start : start + batch_size])
                found.append(log_probabilities(self.last_logits(batch), tokens))
        return np.concatenate(found)

    def token_ids(self, words: Sequence[str]) -> list[int]:
        """The id of each word. InputError where one is not a single token of this vocabulary, and of its own."""
        found = {word: self._text.plain_ids(word) for word in words}
        ids = [each[0] for each in found.values() if len(each) == 1]
        wrong = [word for word, each in found.items() if len(each) != 1 or ids.count(each[0]) > 1]
        if wrong:
            raise InputError(
                f"the tokenizer of {self.tokenizer.name_or_path} does not read {', '.join(map(repr, wrong))} as one "
                "token each: give a checkpoint of Qwen3-VL"
            )
        return [found[word][0] for word in words]

    @property
    def _padding(self) -> int:
        padding = self.tokenizer.pad_token_id
        return 0 if padding is None else int(padding)

    def _check(self, checkpoint: Path) -> None:
        """InputError where tokenizer, image processor and network are not those of one model."""
        config, own = self.network.config, self.tokenizer.convert_tokens_to_ids(IMAGE)
        vision, size = config.vision_config, config.text_config.vocab_size
        sides = (vision.patch_size, vision.temporal_patch_size, vision.spatial_merge_size)
        cut = tuple(getattr(self.processor, name, None) for name in ("patch_size", "temporal_patch_size", "merge_size"))
        for what, expected, came in (
            (f"the id of {IMAGE}", config.image_token_id, own),
            ("patch, frames and merge of an image", sides, cut),
        ):
            if expected != came:
                raise InputError(
                    f"{checkpoint}: {what} should be {expected} by config.json, and tokenizer or image processor have "
                    f"{came}: copy all files of one checkpoint of Qwen3-VL"
                )
        if max(self.tokenizer.get_vocab().values()) >= size:
            raise InputError(
                f"{checkpoint}: the tokenizer has more tokens than the model, which has {size}: copy all files of one "
                "checkpoint of Qwen3-VL"
            )
