"""HPSv3: Qwen2-VL-7B with a reward head, asked to rate an image and its prompt (Ma et al. 2025)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image

from widespectrum.errors import InputError

from .base import NeuralReward, Prepared, Rows, computing, distinct_images
from .checkpoints import Checkpoint, HubFiles
from .instruction import Conversation, read_instruction
from .preprocessing import normalized, qwen_resize
from .qwen2vl import QwenReader, build_reader, find_config
from .tokenization import TextTokenizer, load_qwen

__all__ = ["HPSv3Reward"]

_FILE = "HPSv3.safetensors"
_VOCABULARIES = ("tokenizer.json", "vocab.json", "*.tiktoken")


class HPSv3Reward(NeuralReward):
    """The mean that the reward head reads from Qwen2-VL at `<|Reward|>`; higher is better, about -5 to 15.

    `checkpoint` is HPSv3.safetensors or a folder with it. `base` is the folder of the base model with its `config.json`
    and tokenizer; by default what lies beside the checkpoint or in `tokenizer`, and else Qwen2-VL-7B. The instruction
    is read from the installed package hpsv3, which is not imported, or from `instruction_file`: a file of that package,
    or a text file. Image and instruction are read once for all prompts of an image. `<|Reward|>` and `<|image_pad|>` in
    a prompt are text, so that no prompt moves the place at which the reward is read.

    Source: Ma et al., "HPSv3: Towards Wide-Spectrum Human Preference Score", 2025, and github.com/MizzenAI/HPSv3.
    """

    def __init__(
        self,
        *,
        checkpoint: Path | str | None = None,
        tokenizer: Path | str | None = None,
        device: str = "auto",
        dtype: str = "float32",
        batch_size: int | None = None,
        base: Path | str | None = None,
        instruction_file: Path | str | None = None,
    ) -> None:
        super().__init__(
            family="hpsv3",
            name="hpsv3",
            checkpoint=Checkpoint("hpsv3", checkpoint, hub=HubFiles("MizzenAI/HPSv3", (_FILE,)), weights=(_FILE,)),
            device=device,
            dtype=dtype,
            batch_size=batch_size,
            tokenizer=tokenizer,
        )
        self._given = None if checkpoint is None else Path(checkpoint).expanduser()
        self._base = _existing("base", base)
        if self._base is not None and not (self._base / "config.json").is_file():
            raise InputError(
                f"hpsv3: {base} holds no config.json: give the folder of the base model (Qwen2-VL) as base"
            )
        file = _existing("instruction_file", instruction_file)
        self._instruction = None if file is None else read_instruction(file)

    def _load(self) -> QwenReader:
        # What may be missing is asked for before the weights, which take long.
        conversation = self._conversation
        tokens = conversation.tail("")[-1] + 1
        weights = self.checkpoint.open()
        return build_reader(weights, tokens=tokens, config=self.settings, dtype=self.torch_dtype, device=self.device)

    @cached_property
    def settings(self) -> Path | None:
        """The base model's `config.json`."""
        return find_config(self._folders) if self._base is None else self._base / "config.json"

    @cached_property
    def _folders(self) -> list[Path]:
        """Where files of the base model may lie; what the Hub has of HPSv3 is the weights alone."""
        given = None if self._given is None else self._given if self._given.is_dir() else self._given.parent
        places = (self._base, self.tokenizer_path, given, given and given / "base")
        return [place for place in places if place is not None and place.is_dir()]

    @cached_property
    def text_tokenizer(self) -> TextTokenizer:
        """Qwen2's, with the vocabulary of the base model where none was given."""
        if self.tokenizer_path is not None:
            return load_qwen(self.tokenizer_path)
        found = (folder for folder in self._folders if any(any(folder.glob(name)) for name in _VOCABULARIES))
        return load_qwen(next(found, None))

    @cached_property
    def _conversation(self) -> Conversation:
        return Conversation.of(self._instruction or read_instruction(), self.text_tokenizer)

    def prepare(self, image: Image) -> Prepared:
        """RGB, sides to multiples of 28 with about 448 x 448 pixels (bicubic), CLIP's mean and deviation."""
        return normalized(qwen_resize(image))

    def score_prepared(
        self,
        prepared: Sequence[Prepared],
        prompts: Sequence[str],
        image_rows: Rows,
        prompt_rows: Rows,
        shared: dict[str, Any] | None = None,
    ) -> NDArray[np.float64]:
        """As `NeuralReward.score_prepared`: image by image, and prompt by prompt, so that nothing depends on others."""
        import torch

        originals, place = distinct_images(prepared)
        rows_of: dict[int, dict[str, list[int]]] = {}
        for row, (image, prompt) in enumerate(zip(image_rows, prompt_rows, strict=True)):
            rows_of.setdefault(originals[place[image]], {}).setdefault(prompts[prompt], []).append(row)
        values = np.empty(len(image_rows), dtype=np.float64)
        with computing(self.name):
            reader, conversation = self.network, self._conversation
            tails = {prompt: conversation.tail(prompt) for rows in rows_of.values() for prompt in rows}
            for number, rows in rows_of.items():
                cache = self._read(prepared[number])
                # Copied at once: on a GPU every copy waits until all is computed.
                found = torch.stack([reader.reward(cache, tails[prompt])[0] for prompt in rows]).tolist()
                for value, own in zip(found, rows.values(), strict=True):
                    values[own] = value
        return self._finite(values, prompt_rows, prompts)

    def _read(self, pixels: Prepared) -> Any:
        """Keys and values of what comes before the prompt."""
        import torch

        image = self.network.image_tokens(torch.tensor(pixels, dtype=self.torch_dtype, device=self.device))
        return self.network.read(self._conversation.before, image, self._conversation.after)


def _existing(option: str, path: Path | str | None) -> Path | None:
    """The path of an option; InputError where nothing is there."""
    if path is not None and not str(path).strip():
        raise InputError(f"hpsv3: the path given as {option} is empty: give a file or folder that exists")
    found = None if path is None else Path(path).expanduser()
    if found is not None and not found.exists():
        raise InputError(
            f"hpsv3: there is nothing at {path}, which was given as {option}: give a file or folder that exists"
        )
    return found
