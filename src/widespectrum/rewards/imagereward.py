"""ImageReward: BLIP with a head that was trained on rankings of generated images.

The BERT of BLIP looks at the image while it reads the prompt; five linear layers make a number of its [CLS] state,
which is standardized with the mean and deviation of the training scores. Xu et al. 2023, arXiv 2304.05977.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL.Image import Image

from widespectrum.errors import InputError

from .base import NeuralReward, Prepared
from .blip_towers import WINDOW, BlipTokens, Layout, Towers, build_towers, read_layout
from .checkpoints import Checkpoint, HubFiles, Weights
from .preprocessing import clip_crop
from .tokenization import TextTokenizer, load_bert

__all__ = ["ImageReward"]

MEAN, DEVIATION = 0.16717362830052426, 1.0333394966054072
"""Of the rewards in the training data, as the official code has them."""

# The five linear layers; between them lie dropouts and nothing else.
_HEAD = (0, 2, 4, 6, 7)
_HINT = "give ImageReward.pt, or the folder with it and med_config.json, as checkpoint"


@dataclass(frozen=True, slots=True)
class _Network:
    towers: Towers
    weight: Any
    bias: float


class ImageReward(NeuralReward):
    """ImageReward v1.0: an unbounded score, about -2.3 to 2; higher is better.

    `checkpoint` is ImageReward.pt or its folder; a med_config.json there gives the heads and the epsilon of the text
    tower. `tokenizer` is a BERT vocabulary (file or folder; default: a vocab.txt in the folder, else the Hub's
    bert-base-uncased). The head computes in float64 whatever the dtype. A prompt is cut to 35 tokens.
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
    ) -> None:
        hub = HubFiles("THUDM/ImageReward", ("ImageReward.pt", "med_config.json"))
        super().__init__(
            family="imagereward",
            name="imagereward",
            checkpoint=Checkpoint("imagereward", checkpoint, hub=hub, hint=_HINT, weights=("ImageReward.pt", "*.pt")),
            device=device,
            dtype=dtype,
            batch_size=batch_size,
            tokenizer=tokenizer,
        )

    @cached_property
    def _weights(self) -> Weights:
        return self.checkpoint.open()

    @cached_property
    def settings(self) -> Path | None:
        """`med_config.json` beside the weights."""
        return self.checkpoint.file("med_config.json")

    @cached_property
    def _layout(self) -> Layout:
        heads = [f"mlp.layers.{number}.{leaf}" for number in _HEAD for leaf in ("weight", "bias")]
        return read_layout(self._weights, prefix="blip.", config=self.settings, heads=heads)

    @cached_property
    def text_tokenizer(self) -> TextTokenizer:
        """BERT's, with the vocabulary beside the weights where none was given."""
        return load_bert(self.tokenizer_path or self.checkpoint.file("vocab.txt", "*vocab*.txt"))

    @cached_property
    def _tokens(self) -> BlipTokens:
        return BlipTokens(self.text_tokenizer)

    def _load(self) -> _Network:
        layout = self._layout
        weight, bias = self._head()
        towers = build_towers(self._weights, layout, cross=True, dtype=self.torch_dtype, device=self.device)
        return _Network(towers, weight, bias)

    def _head(self) -> tuple[Any, float]:
        """The five layers as one, in float64: without activations their product is the same function, rounded less."""
        layers = [f"mlp.layers.{number}" for number in _HEAD]
        read = self._weights.read([f"{layer}.{leaf}" for layer in layers for leaf in ("weight", "bias")])
        sizes = [(1,), *(tuple(read[f"{layer}.weight"].shape) for layer in layers[::-1])]
        width = self._weights.shapes["blip.text_encoder.embeddings.word_embeddings.weight"][1]
        if any(after[-1] != before[0] for after, before in zip(sizes, [*sizes[1:], (width,)], strict=True)):
            raise InputError(
                f"{self._weights.where}: expected five layers of a head from {width} numbers to 1, got the shapes "
                f"{sizes[:0:-1]}; download it again"
            )
        weight, bias = read[f"{layers[-1]}.weight"].double(), read[f"{layers[-1]}.bias"].double()
        for layer in layers[-2::-1]:
            bias = bias + weight @ read[f"{layer}.bias"].double()
            weight = weight @ read[f"{layer}.weight"].double()
        return weight[0], bias.item()

    def prepare(self, image: Image) -> Prepared:
        """Shortest side resized and center cropped in the image's own mode, then RGB, as openai/CLIP does."""
        return clip_crop(image, self._layout.image_size, rgb_first=False)

    def _encode(self, pixels: Any) -> Any:
        return self.network.towers.images(pixels)

    def _compare(self, features: Any, prompts: list[str]) -> Any:
        towers = self.network.towers
        ids, mask = self._tokens.batch(prompts, rows=towers.rows, where=self._weights.where)
        state = towers.texts(ids.to(features.device), mask.to(features.device), features)
        return (state.double().cpu() @ self.network.weight + self.network.bias - MEAN) / DEVIATION
