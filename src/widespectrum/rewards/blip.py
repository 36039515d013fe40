"""BLIP-L: the probability that prompt and image match, or the cosine of their features.

Li et al. 2022, arXiv 2201.12086. The large model, fine-tuned for retrieval on COCO.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

from PIL.Image import Image

from widespectrum.errors import InputError

from .base import NeuralReward, Prepared
from .blip_towers import WINDOW, BlipTokens, Layout, Towers, build_towers, read_layout
from .checkpoints import Checkpoint, HubFiles, Weights, empty, fill
from .preprocessing import squash
from .tokenization import TextTokenizer, load_bert

__all__ = ["BlipReward"]

Head = Literal["itm", "itc"]

_HINT = "give model_large_retrieval_coco.pth, or a folder of transformers' BlipForImageTextRetrieval, as checkpoint"

# BLIP was trained at 224 pixels and fine-tuned at 384: a file of the first kind is interpolated to run at the second.
_SIZES = {224: 384}


@dataclass(frozen=True, slots=True)
class _Network:
    towers: Towers
    heads: Any


class BlipReward(NeuralReward):
    """BLIP-L for retrieval. `head` itm: probability of a match, 0 to 1; itc: cosine, -1 to 1; higher is better.

    `checkpoint` is BLIP's file ({"model": ...}; momentum encoders and queues are left out), or a folder of transformers
    with its config.json, which then gives heads, epsilons and image size. Images are squashed to 384 x 384. (In BLIP's
    file the grid of the position embedding says the size; only the pretraining grid, 224, is interpolated to 384, as
    BLIP's loader does.) `tokenizer` is BERT's vocabulary (file or folder; default: the one in the folder, else that of
    bert-base-uncased on the Hub). The heads compute in float32 whatever the dtype. A prompt is cut to 35 tokens.
    """

    window = WINDOW

    def __init__(
        self,
        *,
        checkpoint: Path | str | None = None,
        tokenizer: Path | str | None = None,
        device: str = "auto",
        dtype: str = "float32",
        batch_size: int | None = None,
        head: Head = "itm",
    ) -> None:
        if head not in get_args(Head):
            raise InputError(f"blip-l: expected head itm (match probability) or itc (cosine); got {head!r}")
        files = ("model.safetensors", "pytorch_model.bin", "config.json", "vocab.txt")
        super().__init__(
            family="blip",
            name="blip-l",
            checkpoint=Checkpoint(
                "blip-l",
                checkpoint,
                hub=HubFiles("Salesforce/blip-itm-large-coco", files),
                hint=_HINT,
                weights=("model.safetensors", "pytorch_model.bin", "model_large_retrieval_coco.pth", "*.pth"),
            ),
            device=device,
            dtype=dtype,
            batch_size=batch_size,
            tokenizer=tokenizer,
            params={"head": head},
        )
        self.head: Head = head

    @cached_property
    def _weights(self) -> Weights:
        return self.checkpoint.open()

    @cached_property
    def settings(self) -> Path | None:
        """`config.json` beside the weights in transformers' form, `med_config.json` beside BLIP's own."""
        of_hub = any(name.startswith("vision_model.") for name in self._weights.shapes)
        return self.checkpoint.file("config.json" if of_hub else "med_config.json")

    @cached_property
    def _layout(self) -> Layout:
        heads = [f"{part}.{leaf}" for part in self._parts for leaf in ("weight", "bias")]
        cross = self.head == "itm"
        return read_layout(self._weights, config=self.settings, sizes=_SIZES, heads=heads, cross=cross)

    @cached_property
    def text_tokenizer(self) -> TextTokenizer:
        """BERT's, with the vocabulary beside the weights where none was given."""
        return load_bert(self.tokenizer_path or self.checkpoint.file("vocab.txt", "*vocab*.txt", "tokenizer.json"))

    @cached_property
    def _tokens(self) -> BlipTokens:
        return BlipTokens(self.text_tokenizer)

    def _load(self) -> _Network:
        import torch

        cross = self.head == "itm"
        towers = build_towers(self._weights, self._layout, cross=cross, dtype=self.torch_dtype, device=self.device)
        shapes = self._weights.shapes
        sizes = {name: shapes[f"{name}.weight"] for name in self._parts}
        heads = empty(lambda: torch.nn.ModuleDict({name: torch.nn.Linear(*size[::-1]) for name, size in sizes.items()}))
        names = {name: name for name, _ in heads.named_parameters()}
        fill(heads, self._weights, names, dtype=torch.float32, device=self.device)
        return _Network(towers, heads)

    @property
    def _parts(self) -> tuple[str, ...]:
        return ("itm_head",) if self.head == "itm" else ("vision_proj", "text_proj")

    def prepare(self, image: Image) -> Prepared:
        """RGB, then squashed to the square that the model reads."""
        return squash(image, self._layout.image_size)

    def _encode(self, pixels: Any) -> Any:
        states = self.network.towers.images(pixels)
        return states if self.head == "itm" else self._project("vision_proj", states[:, 0])

    def _compare(self, features: Any, prompts: list[str]) -> Any:
        if self.head == "itm":
            return self.network.heads["itm_head"](self._read(prompts, features).float()).softmax(dim=-1)[:, 1]
        texts = list(dict.fromkeys(prompts))
        found = self._project("text_proj", self._read(texts))
        return (features * found[[texts.index(prompt) for prompt in prompts]]).sum(dim=-1)

    def _read(self, prompts: list[str], images: Any = None) -> Any:
        towers = self.network.towers
        ids, mask = self._tokens.batch(prompts, rows=towers.rows, where=self._weights.where)
        return towers.texts(ids.to(self.device), mask.to(self.device), images)

    def _project(self, part: str, states: Any) -> Any:
        import torch

        return torch.nn.functional.normalize(self.network.heads[part](states.float()), dim=-1)
