"""Attention over text and image tokens together, as in the transformers of Flux and SD3, with its inner step left open.

Also what VSF and NAG share beside it: how their texts are encoded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, TypeAlias

from widespectrum._compat import ensure_torchvision
from widespectrum.errors import InputError

__all__ = [
    "Attend",
    "JointProcessor",
    "Order",
    "attending",
    "check_negative",
    "encode",
    "merge_heads",
    "order_of",
    "token_counts",
]

Attend: TypeAlias = Callable[[Any, Any, Any], Any]
"""(query, key, value), each (batch, heads, tokens, channels of a head) -> (batch, tokens, channels)."""

Order: TypeAlias = Literal["PNI", "IPN"]
"""Which tokens come first: those of the positive text (P), of the negative text (N), of the image (I)."""

_PROJECTIONS = {
    "image": ("to_q", "to_k", "to_v", "norm_q", "norm_k"),
    "text": ("add_q_proj", "add_k_proj", "add_v_proj", "norm_added_q", "norm_added_k"),
}


class JointProcessor:
    """A diffusers attention processor: projections and rotary phases are the model's, `attend` does the rest.

    It serves FluxAttention (two streams, or one in which the text is already joined to the image) and the joint
    Attention of SD3, the last block included, which drops its text.
    """

    def __init__(self, attend: Attend, order: Order) -> None:
        self._attend, self._text_first = attend, order == "PNI"

    def __call__(
        self,
        attn: Any,
        hidden_states: Any,
        encoder_hidden_states: Any = None,
        attention_mask: Any = None,
        image_rotary_emb: Any = None,
    ) -> Any:
        """What diffusers' own processor of the module gives: image tokens, or a pair of image and text tokens."""
        import torch
        from diffusers.models.embeddings import apply_rotary_emb

        if attention_mask is not None:
            raise TypeError("VSF and NAG set the attention mask themselves; got another one")
        streams = [_project(attn, hidden_states, "image")]
        if encoder_hidden_states is not None:
            streams.insert(0 if self._text_first else 1, _project(attn, encoder_hidden_states, "text"))
        query, key, value = (torch.cat(parts, dim=1) for parts in zip(*streams, strict=True))
        if image_rotary_emb is not None:
            query, key = (apply_rotary_emb(each, image_rotary_emb, sequence_dim=1) for each in (query, key))
        tokens = self._attend(*(each.transpose(1, 2) for each in (query, key, value)))
        return tokens if encoder_hidden_states is None else self._split(attn, tokens, encoder_hidden_states.shape[1])

    def _split(self, attn: Any, tokens: Any, length: int) -> tuple[Any, Any]:
        """The streams of image and text again, each through its output projection."""
        cut = length if self._text_first else tokens.shape[1] - length
        text, image = (tokens[:, :cut], tokens[:, cut:]) if self._text_first else (tokens[:, cut:], tokens[:, :cut])
        for layer in attn.to_out:
            image = layer(image)
        return image, text if attn.context_pre_only else attn.to_add_out(text)


def _project(attn: Any, tokens: Any, stream: str) -> tuple[Any, Any, Any]:
    """Query, key and value: (batch, tokens, heads, channels of a head), normalized where the model does it."""
    to_query, to_key, to_value, norm_query, norm_key = (getattr(attn, name) for name in _PROJECTIONS[stream])
    query, key, value = (layer(tokens).unflatten(-1, (attn.heads, -1)) for layer in (to_query, to_key, to_value))
    return query if norm_query is None else norm_query(query), key if norm_key is None else norm_key(key), value


def merge_heads(tokens: Any) -> Any:
    """(batch, heads, tokens, channels of a head) -> (batch, tokens, channels)."""
    return tokens.transpose(1, 2).flatten(2)


def order_of(transformer: Any) -> Order:
    """The order in which the transformer joins its tokens. InputError for any but that of Flux or SD3."""
    ensure_torchvision()
    from diffusers import FluxTransformer2DModel, SD3Transformer2DModel

    if isinstance(transformer, FluxTransformer2DModel):
        return "PNI"
    if isinstance(transformer, SD3Transformer2DModel):
        return "IPN"
    raise InputError(f"VSF and NAG work with the transformers of Flux and SD3; got {type(transformer).__name__}")


@contextmanager
def attending(transformer: Any, attend: Attend) -> Iterator[None]:
    """Inside, every attention over text and image runs through `attend`; afterwards the transformer is as before.

    The second attention of SD3.5-medium's first blocks sees image tokens alone and stays as it is.
    """
    joint = JointProcessor(attend, order_of(transformer))
    before = transformer.attn_processors
    transformer.set_attn_processor(
        {name: own if name.endswith(".attn2.processor") else joint for name, own in before.items()}
    )
    try:
        yield
    finally:
        transformer.set_attn_processor(dict(before))


def encode(pipeline: Any, texts: list[str], window: int) -> tuple[Any, Any]:
    """Embeddings (batch, tokens, channels) and pooled ones (batch, channels), as the pipeline itself makes them.

    T5's part has exactly `window` tokens: shorter texts are padded, longer ones cut.
    """
    import torch

    with torch.no_grad():
        if order_of(pipeline.transformer) == "PNI":
            tokens, pooled, _ = pipeline.encode_prompt(prompt=texts, prompt_2=None, max_sequence_length=window)
        else:
            tokens, _, pooled, _ = pipeline.encode_prompt(
                prompt=texts,
                prompt_2=None,
                prompt_3=None,
                do_classifier_free_guidance=False,
                max_sequence_length=window,
            )
    return tokens, pooled


def token_counts(pipeline: Any, text: str) -> tuple[int, int]:
    """Tokens of `text` without padding that the transformer sees: from CLIP (Flux: none) and from T5."""
    if order_of(pipeline.transformer) == "PNI":
        return 0, len(pipeline.tokenizer_2(text).input_ids)
    clip = max(len(tokenizer(text).input_ids) for tokenizer in (pipeline.tokenizer, pipeline.tokenizer_2))
    t5 = 0 if pipeline.text_encoder_3 is None else len(pipeline.tokenizer_3(text).input_ids)
    return min(clip, pipeline.tokenizer_max_length), t5


def check_negative(pipeline: Any, text: str, window: int) -> None:
    """InputError for a negative text of more than `window` tokens of T5."""
    count = token_counts(pipeline, text)[1]
    if count > window:
        raise InputError(
            f"the negative prompt {text!r} has {count} tokens, {window} can be read: shorten it to a few words"
        )
