"""What is known of each generator: `widespectrum models show NAME`."""

from __future__ import annotations

import textwrap
from typing import Any

from widespectrum.option_table import WIDTH, about, option_lines, shown, wrapped
from widespectrum.registry import Entry, imported, lookup, options_of

from . import BASES, GENERATORS
from .negatives import METHODS

__all__ = ["MEANINGS", "describe"]

MEANINGS: dict[str, str] = {
    "name": "what it is called in the spec",
    "repo": "a pipeline on the Hub: org/repo[@revision]",
    "checkpoint": "a local folder with the pipeline instead",
    "dtype": "float32, bfloat16 or float16",
    "steps": "steps of denoising, for both prompts",
    "guidance": "guidance scale, for both prompts",
    "original_guidance": "vsf, nag: guidance scale under p_o, which is drawn without them",
    "width": "pixels",
    "height": "pixels",
    "window": "tokens that are read of a prompt; longer ones are refused",
    "lora": "a LoRA to merge: a path or org/repo[/folder or file][@revision]",
    "lora_weight": "how strongly it is merged",
    "transformer": "another denoising network: a path or org/repo[/folder or file][@revision]",
    "attention": "vsf (value sign flip) or nag (normalized attention guidance); both need negative prompts",
    "alpha": "vsf: the weight of the flipped values",
    "offset": "vsf: how much the attention to them is lowered",
    "scale": "nag: how far to go away from the negative prompt",
    "tau": "nag: the largest growth of a token, in the 1-norm",
    "blend": "nag: the share of the guided output",
    "strength": "how much of the input is given up, above 0 up to 1",
    "device": "auto, cpu, cuda, cuda:1 ...",
    "offload": "none, model or sequential: keep off the GPU what does not compute",
    "batch_size": "images that are drawn together",
    "model": "the vendor's name of the model",
    "quality": "the vendor's word for the quality",
    "base_url": "where the API is",
    "concurrency": "requests at a time",
    "attempts": "how often a request is tried",
    "timeout": "seconds until a request is given up",
    "price": "US dollars for an image, for estimate and limits",
    "folder": "where the images are",
    "size": "longest side in pixels",
}
"""What an option means, for every option of every generator."""

_OWN = {"photo-effects": {"strength": "of every effect, from 0 (none) to 4 (drastic)"}}
_METHODS = {"vsf": "value sign flip", "nag": "normalized attention guidance"}


def describe(name: str) -> str:
    """What the generator `name` is and takes, as text for the terminal. UnknownNameError for a name in no table."""
    entry = lookup("generator", GENERATORS, name)
    given = options_of(entry)
    head = textwrap.wrap(f"{name}: {entry.summary}", WIDTH, subsequent_indent="  ")
    lines = [*head, *_facts(name, entry, given), "", "options (NAME[option=value,...])"]
    meanings = {**MEANINGS, **_OWN.get(name, {}), **_with_method(str(entry.params.get("attention", "")))}
    for option, default in given.items():
        if meanings[option]:
            lines += option_lines(
                option, "as above" if option == "repo" and default else shown(default), meanings[option]
            )
    return "\n".join(lines)


def _with_method(method: str) -> dict[str, str]:
    """What options mean where the method is fixed; nothing for those of the others."""
    if not method:
        return {}
    others = [option for each, options in METHODS.items() if each != method for option in options]
    return {
        **dict.fromkeys(others, ""),
        "guidance": "guidance scale under p_a",
        "original_guidance": "guidance scale under p_o, which is drawn without the method; –: the same",
    }


def _facts(name: str, entry: Entry, given: dict[str, Any]) -> list[str]:
    """The lines above the options."""
    family = imported(entry)
    repo, method = str(given.get("repo") or ""), str(entry.params.get("attention", ""))
    found = {
        "family": f"{family.family}, {family.pipeline_class} of diffusers" if hasattr(family, "pipeline_class") else "",
        "weights": repo
        and f"{repo} on the Hub{'' if '@' in repo else ', at the commit of the day, which is recorded'}",
        "attention": f"{method}, {_METHODS[method]}: needs negative prompts" if method else "",
        "long prompts": _long_prompts(family),
        "aligned or changed from": BASES.get(name, ""),
        "starts from": "images" if family.needs_images else "",
        "needs": f'pip install "widespectrum[{entry.extra}]"' if entry.extra else "",
    }
    paragraphs = [f"  {title}: {text}" for title, text in found.items() if text]
    return wrapped([*paragraphs, "", *(f"  {each}" for each in about(family, "DiffusionGenerator"))])


def _long_prompts(family: Any) -> str:
    policy = getattr(family, "long_prompts", "")
    return policy if isinstance(policy, str) else ""
