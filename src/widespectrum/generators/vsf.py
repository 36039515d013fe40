"""Value sign flip (VSF): a negative text whose values enter the attention of the image with the opposite sign.

The tokens are P of the positive text, N0 of the negative text and I of the image. In every attention over text and
image a copy N1 of the negative tokens is appended: K_N1 = K_N0 (after the rotary phases, so that those match) and
V_N1 = -alpha V_N0. One forward pass, no classifier-free guidance. Source: https://github.com/weathon/VSF.

What its description leaves open, and what is done here:

* The positive text is padded to the window, as in the plain pipeline; the negative one has its real tokens alone,
  encoded without padding, since padding would be subtracted as well. In a batch shorter ones are padded and masked.
* The pooled embedding is that of the positive text. (The authors' Flux pipeline moves it away from the negative one by
  a tenth, their pipeline for SD3 does not.)
* Every attention takes part, in Flux those of the blocks with one stream too; N1 asks nothing. SD3.5-medium's second
  attention sees image tokens only and stays plain.
* An empty negative text has no tokens: its image is that of the plain pipeline.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

from widespectrum.errors import InputError

from .joint_attention import Attend, Order, check_negative, encode, merge_heads, order_of, token_counts
from .joint_attention import attending as attending_jointly

__all__ = ["arguments", "attend", "attending", "check", "flipped_attention", "mask", "negative_tokens"]


def check(alpha: float, offset: float) -> None:
    """InputError unless alpha > 0 and offset >= 0, both finite."""
    if not 0 < alpha < math.inf:
        raise InputError(f"VSF: alpha must be a number above 0, the strength of the negative prompt; got {alpha!r}")
    if not 0 <= offset < math.inf:
        raise InputError(
            "VSF: offset must be a number of 0 or more, by which the image sees less of the negative prompt (with 1e9 "
            f"nothing); got {offset!r}"
        )


def mask(
    n_positive: int,
    n_negative: int,
    n_image: int,
    offset: float,
    *,
    order: Order,
    real: Sequence[int] | None = None,
) -> Any:
    """What is added to the attention's logits, float32: 0 where a query sees a key, -inf where it does not.

    Rows are the queries in `order` (Flux `PNI`, SD3 `IPN`; N is N0), columns the keys in the same order and N1 behind
    them. I sees P, I and, by -offset, N1; P sees P and I; N0 sees N0; nothing else.

    Without `real` the shape is (queries, keys). With it, the numbers of negative tokens in each row of a batch, it is
    (batch, 1, queries, keys): tokens from there up to n_negative are padding, which no other token sees.
    """
    import torch

    counts = {"P": n_positive, "N": n_negative, "I": n_image}
    span: dict[str, slice] = {}
    queries = 0
    for name in order:
        span[name] = slice(queries, queries + counts[name])
        queries += counts[name]
    flipped = slice(queries, queries + n_negative)
    bias = torch.full((queries, queries + n_negative), -math.inf)
    for query, key in (("I", "P"), ("I", "I"), ("P", "P"), ("P", "I"), ("N", "N")):
        bias[span[query], span[key]] = 0
    bias[span["I"], flipped] = -offset
    if real is None:
        return bias
    rows = bias.repeat(len(real), 1, 1, 1)
    first = span["N"].start
    for row, length in zip(rows[:, 0], real, strict=True):
        row[span["I"], flipped.start + length :] = -math.inf
        # A padding query still sees something: a softmax over nothing is not a number.
        row[first : first + length, first + length : span["N"].stop] = -math.inf
    return rows


def flipped_attention(query: Any, key: Any, value: Any, bias: Any, *, negative: slice, alpha: float) -> Any:
    """Attention over the keys and, behind them, N1: the keys of `negative` again, their values times -alpha.

    query, key and value: (batch, heads, tokens, channels); bias: what `mask` gives. Returns the query's shape.
    """
    import torch

    keys = torch.cat([key, key[:, :, negative]], dim=2)
    values = torch.cat([value, -alpha * value[:, :, negative]], dim=2)
    return torch.nn.functional.scaled_dot_product_attention(query, keys, values, attn_mask=bias.to(query))


def attend(positive: int, negative: Sequence[int], alpha: float, offset: float, order: Order) -> Attend:
    """The inner step of an attention with `positive` tokens and, by row of the batch, `negative` ones.

    No option is checked: alpha = -1 with offset 0 gives ordinary attention of the image to the negative text.
    """
    longest = max(negative)
    real = None if min(negative) == longest else negative

    @cache
    def bias(n_image: int, dtype: Any, device: Any) -> Any:
        return mask(positive, longest, n_image, offset, order=order, real=real).to(device, dtype)

    def flip(query: Any, key: Any, value: Any) -> Any:
        n_image = query.shape[2] - positive - longest
        start = positive if order == "PNI" else n_image + positive
        span = slice(start, start + longest)
        added = bias(n_image, query.dtype, query.device)
        return merge_heads(flipped_attention(query, key, value, added, negative=span, alpha=alpha))

    return flip


def negative_tokens(pipeline: Any, negatives: Sequence[str]) -> list[int]:
    """Tokens of every negative text without padding: T5's in Flux, CLIP's and T5's in SD3; 0 where it is empty."""
    return [sum(token_counts(pipeline, text)) if text else 0 for text in negatives]


def arguments(pipeline: Any, prompts: Sequence[str], negatives: Sequence[str], window: int) -> dict[str, Any]:
    """What the pipeline of Flux or SD3 is called with inside `attending`, beside what else it needs.

    `prompt_embeds` are the tokens of each prompt, padded to `window` as the pipeline does it, then those of its
    negative text, then zeros up to the longest of them; `pooled_prompt_embeds` are the prompts'. SD3's pipeline needs a
    guidance_scale of at most 1 with them. InputError for a negative text of more than `window` tokens.
    """
    import torch

    positive, pooled = encode(pipeline, list(prompts), window)
    encoded = {text: _encode_negative(pipeline, text, window) for text in negatives if text}
    empty = positive.new_zeros(0, positive.shape[-1])
    rows = torch.nn.utils.rnn.pad_sequence([encoded.get(text, empty) for text in negatives], batch_first=True)
    return {"prompt_embeds": torch.cat([positive, rows], dim=1), "pooled_prompt_embeds": pooled}


def _encode_negative(pipeline: Any, text: str, window: int) -> Any:
    """(tokens, channels): those of the text alone, of CLIP, which come first and see nothing behind them, and of T5."""
    import torch

    check_negative(pipeline, text, window)
    clip, t5 = token_counts(pipeline, text)
    tokens = encode(pipeline, [text], t5)[0][0]
    return torch.cat([tokens[:clip], tokens[len(tokens) - t5 :]])


@contextmanager
def attending(
    pipeline: Any, positive_tokens: int, negative_tokens: int | Sequence[int], alpha: float, offset: float
) -> Iterator[None]:
    """Inside, the pipeline called with `arguments` draws by VSF; afterwards it is as before, whatever happened.

    `positive_tokens` are those of a prompt with its padding, `negative_tokens` what the function of this name counts
    (one number: the same in every row); both sum up to the tokens of `prompt_embeds`, the longest negative counting.
    InputError for an alpha of 0 or less or a negative offset.
    """
    check(alpha, offset)
    counts = [negative_tokens] if isinstance(negative_tokens, int) else list(negative_tokens)
    order = order_of(pipeline.transformer)
    with attending_jointly(pipeline.transformer, attend(positive_tokens, counts, alpha, offset, order)):
        yield
