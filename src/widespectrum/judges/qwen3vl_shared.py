"""Many questions about one image: what stands before the questions is read once, and each question against its keys."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from .qwen3vl import Encoded, Picture, Qwen3VL

__all__ = ["SharedReader"]


class SharedReader:
    """Reads conversations of which the texts after the last image differ and the rest is often the same.

    What comes before them is always read by itself, so that it does not depend on how many follow; the last one that
    was read is kept.
    """

    def __init__(self, model: Qwen3VL) -> None:
        self._model = model
        self._head: tuple[list[int], tuple[Picture, ...]] | None = None
        self._cache: Any = None
        self._next = 0

    def logits(self, encoded: Sequence[Encoded]) -> Any:
        """As `Qwen3VL.last_logits` of the collated batch, by rounding; those about one image should stand together."""
        import torch

        found = []
        for head, group in groupby(encoded, key=self._head_of):
            if head != self._head:
                self._read(*head)
            found.append(self._tails([each.ids[len(head[0]) :] for each in group]))
        return torch.cat(found)

    def _head_of(self, each: Encoded) -> tuple[list[int], tuple[Picture, ...]]:
        """Everything to the last image token."""
        image = self._model.network.config.image_token_id
        length = len(each.ids) - each.ids[::-1].index(image) if each.pictures else 1
        return each.ids[:length], each.pictures

    def _read(self, ids: list[int], pictures: tuple[Picture, ...]) -> None:
        """Keys and values of a head, and the position after it."""
        from transformers import DynamicCache

        network = self._model.network
        # Gone first: on a GPU the old one takes the memory of the new one.
        self._head, self._cache = None, DynamicCache(config=network.config.text_config)
        batch = self._model.collate([Encoded(ids, pictures)])
        batch = {name: tensor.to(self._model.device) for name, tensor in batch.items()}
        positions, _ = network.model.get_rope_index(**batch)
        network.model(**batch, position_ids=positions, past_key_values=self._cache, use_cache=True)
        self._head, self._next = (ids, pictures), int(positions.max()) + 1

    def _tails(self, tails: Sequence[list[int]]) -> Any:
        """(N, vocabulary) in float32 at the end of each tail."""
        import torch

        network, device = self._model.network, self._model.device
        length = max(map(len, tails))
        # What fills up stands after what is read, and so changes nothing.
        ids = torch.tensor([tail + [0] * (length - len(tail)) for tail in tails], device=device)
        cache = copy.deepcopy(self._cache)
        cache.batch_repeat_interleave(len(tails))
        positions = torch.arange(self._next, self._next + length, device=device).expand(3, len(tails), -1)
        read = network.model(input_ids=ids, position_ids=positions, past_key_values=cache, use_cache=True)
        ends = torch.tensor([len(tail) - 1 for tail in tails], device=device)
        return network.lm_head(read.last_hidden_state[torch.arange(len(tails), device=device), ends]).float()
