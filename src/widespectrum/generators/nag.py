"""Normalized attention guidance (NAG): image tokens are led away from what they would be under a negative text.

In every attention over text and image, z+ is what an image token gets with the positive text and z- with the negative
one; z~ = phi z+ - (phi - 1) z-, cut down to tau times the size of z+, is blended with z+. Source: Chen et al.,
arXiv 2505.21179.

What its description leaves open, and what is done here:

* The guidance acts on the heads joined together, before the output projection; sizes are sums of absolute values over
  all channels of a token, and are taken in float32.
* The negative text is padded to the window just as the positive one.
* The text tokens of both sides run on unguided, each with its own copy of the image tokens. Both copies are led by the
  pooled embedding of the positive text, so that they stay the same and z+ and z- differ by the text tokens alone. (The
  authors' Flux gives the negative side its own pooled embedding, and the copies drift apart in the later blocks.)
* Every step and every joint attention is guided; SD3.5-medium's second attention sees image tokens and stays plain.
* An empty negative text stands for the positive one: z- = z+, and for tau >= 1 the image is that of the plain pipeline.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from widespectrum.errors import InputError

from .joint_attention import Order, check_negative, encode, merge_heads, order_of
from .joint_attention import attending as attending_jointly

__all__ = ["arguments", "attending", "check", "guide"]


def check(scale: float, tau: float, blend: float) -> None:
    """InputError unless scale >= 1, tau > 0 and 0 <= blend <= 1, all finite."""
    if not 1 <= scale < math.inf:
        raise InputError(f"NAG: scale must be a number of 1 (no guidance) or more; got {scale!r}")
    if not 0 < tau < math.inf:
        raise InputError(f"NAG: tau must be a number above 0, the largest growth of an attention output; got {tau!r}")
    if not 0 <= blend <= 1:
        raise InputError(f"NAG: blend must be a number from 0 (no guidance) to 1; got {blend!r}")


def guide(positive: Any, negative: Any, *, scale: float, tau: float, blend: float) -> Any:
    """z~ = scale z+ - (scale - 1) z-, scaled by tau / rho where rho = |z~|_1 / |z+|_1 > tau; blend z~ + (1 - blend) z+.

    positive (z+) and negative (z-): (..., channels), sizes taken per token over the channels. Returns their shape and
    type. With blend 0, or where z- = z+ and tau >= 1, exactly z+. A token of size 0 is not moved.
    """
    import torch

    # Differences first: at scale 15 the two products would lose four bits of what they have in common.
    origin = positive.to(torch.promote_types(positive.dtype, torch.float32))
    guided = origin + (scale - 1) * (origin - negative)
    size, limit = guided.abs().sum(dim=-1, keepdim=True), tau * origin.abs().sum(dim=-1, keepdim=True)
    guided = torch.where(size > limit, guided * (limit / size), guided)
    return (origin + blend * (guided - origin)).to(positive.dtype)


def arguments(pipeline: Any, prompts: Sequence[str], negatives: Sequence[str], window: int) -> dict[str, Any]:
    """What the pipeline of Flux or SD3 is called with inside `attending`, beside what else it needs.

    `prompt_embeds` are the tokens of each prompt, padded to `window` as the pipeline does it, then as many of its
    negative text; `pooled_prompt_embeds` are the prompts'. SD3's pipeline needs a guidance_scale of at most 1 with
    them. InputError for a negative text of more than `window` tokens.
    """
    import torch

    for text in negatives:
        check_negative(pipeline, text, window)
    positive, pooled = encode(pipeline, list(prompts), window)
    against = [negative or prompt for prompt, negative in zip(prompts, negatives, strict=True)]
    negative = encode(pipeline, against, window)[0]
    return {"prompt_embeds": torch.cat([positive, negative], dim=1), "pooled_prompt_embeds": pooled}


@contextmanager
def attending(pipeline: Any, scale: float, tau: float, blend: float) -> Iterator[None]:
    """Inside, the pipeline called with `arguments` draws by NAG; afterwards it is as before, whatever happened.

    The transformer is given every batch twice, with the positive and with the negative text, and answers with the first
    half. InputError for options that cannot be, see `check`.
    """
    check(scale, tau, blend)
    transformer = pipeline.transformer
    guidance = _Guidance(order_of(transformer), {"scale": scale, "tau": tau, "blend": blend})
    # Such hooks run around whatever offloading does to the transformer's forward.
    hooks = [
        transformer.register_forward_pre_hook(guidance.double, with_kwargs=True),
        transformer.register_forward_hook(guidance.halve),
    ]
    try:
        with attending_jointly(transformer, guidance.attend):
            yield
    finally:
        for hook in hooks:
            hook.remove()


class _Guidance:
    """One run of the transformer: what goes in, its attentions, what comes out."""

    def __init__(self, order: Order, options: dict[str, float]) -> None:
        self._order, self._options = order, options
        self._text_tokens = 0

    def double(self, _module: Any, args: tuple[Any, ...], inputs: dict[str, Any]) -> tuple[tuple[Any, ...], Any]:
        """Every input twice, but the positive text first and the negative one second."""
        import torch

        inputs = dict(inputs)
        for name in ("hidden_states", "timestep", "guidance", "pooled_projections"):
            if inputs.get(name) is not None:
                inputs[name] = torch.cat([inputs[name]] * 2)
        inputs["encoder_hidden_states"] = torch.cat(inputs["encoder_hidden_states"].chunk(2, dim=1))
        self._text_tokens = inputs["encoder_hidden_states"].shape[1]
        if "txt_ids" in inputs:
            inputs["txt_ids"] = inputs["txt_ids"][: self._text_tokens]
        return args, inputs

    def attend(self, query: Any, key: Any, value: Any) -> Any:
        """Plain attention, its image tokens guided, the same ones in both halves of the batch."""
        import torch

        tokens = merge_heads(torch.nn.functional.scaled_dot_product_attention(query, key, value))
        cut = self._text_tokens if self._order == "PNI" else tokens.shape[1] - self._text_tokens
        first, second = tokens[:, :cut], tokens[:, cut:]
        image = (second if self._order == "PNI" else first).chunk(2)
        guided = torch.cat([guide(*image, **self._options)] * 2)
        return torch.cat([first, guided] if self._order == "PNI" else [guided, second], dim=1)

    def halve(self, _module: Any, _args: tuple[Any, ...], output: Any) -> Any:
        """The half of the positive text."""
        half = output[0].chunk(2)[0]
        return (half,) if isinstance(output, tuple) else type(output)(sample=half)
