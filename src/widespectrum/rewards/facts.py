"""What is known of each reward model and where it is known from: `widespectrum models show NAME`, and the model cards.

The statements stand in facts.json. Each ends with the key of its source in brackets, such as [code] or [memory].
"""

from __future__ import annotations

import importlib
import inspect
import json
import re
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from . import entry_of

__all__ = ["Facts", "cited", "describe", "facts", "options_of", "sections", "usage"]

_FILE = Path(__file__).with_name("facts.json")
_WIDTH = 110
_SOURCE = re.compile(r"\[([a-z]+)\]")

Sections = dict[str, list[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known of one reward model.

    `version` is the commit or release of the official code in the repository `code`; `hub` the repository with the
    weights, or empty; `window` the tokens that are read of a prompt, None where nothing is cut off; `tolerance` the
    agreement with the official code that is asked for, empty where there is no official number to agree with; `options`
    explains the options that only this model has; `example` are options that it cannot do without.
    """

    title: str
    paper: str
    network: str
    code: str
    version: str
    license: str
    weights_license: str
    hub: str
    checkpoint: tuple[str, ...]
    accepts: str
    vocabulary: str
    image: tuple[str, ...]
    text: tuple[str, ...]
    window: int | None
    score: tuple[str, ...]
    compare: tuple[str, ...]
    batches: str
    biases: tuple[str, ...]
    traps: tuple[str, ...]
    choices: tuple[str, ...]
    parity: tuple[str, ...]
    cost: str
    tolerance: str
    options: Mapping[str, str] = field(default_factory=dict)
    example: Mapping[str, str] = field(default_factory=dict)


def facts(name: str) -> Facts | None:
    """What is known of the reward model `name`; None for one that has no card, such as `sharpness`."""
    found = _data()["models"].get(name)
    if found is None:
        return None
    shared, test = _data()["shared"], f"tests/rewards/test_{_module(name)}.py"
    parity = [*(shared["parity"] if found["tolerance"] else ()), *found.get("parity", ())]
    filled = [text.replace("{test}", test).replace("{tolerance}", found["tolerance"]) for text in parity]
    common = [*shared["choices"], *shared["flags"]] if found["tolerance"] else []
    values: dict[str, Any] = {**found, "choices": [*found["choices"], *common], "parity": filled}
    return Facts(**{key: _whole(value) for key, value in values.items()})


def options_of(name: str) -> dict[str, str]:
    """The options of a reward model: its explanation, and the default where there is one."""
    known = facts(name)
    explained = {**_data()["shared"]["options"], **(known.options if known else {})}
    found = {}
    for option, default in _declared(name).items():
        says = "needed" if default is inspect.Parameter.empty else f"default {_plain(default)}"
        parts = [explained.get(option, ""), "" if default is None and option in explained else f"({says})"]
        found[option] = " ".join(filter(None, parts))
    return found


def usage(name: str) -> tuple[str, str]:
    """How to use a reward model: (lines of Python, a command line)."""
    known = facts(name)
    options = dict(known.example) if known else {}
    given = [f'"{name}"', *(f'{key}="{value}"' for key, value in options.items())]
    call = f"load_reward_model({', '.join(given)})"
    if len(call) > 100:
        call = "\n".join(["load_reward_model(", *(f"    {each}," for each in given), ")"])
    python = f"""from PIL import Image
from widespectrum import load_reward_model

model = {call}
model.score([Image.open("bus.png")], ["a yellow bus on a street, blurred and underexposed"])"""
    inside = ",".join(f"{key}={value}" for key, value in options.items())
    return python, f'widespectrum score images.csv --reward-model "{name}{f"[{inside}]" if inside else ""}"'


def sections(name: str) -> Sections:
    """Title to statements, in the order of the card; empty for a model that has none."""
    known = facts(name)
    if known is None:
        return {}
    window = f"Window: {known.window} tokens, start and end included; the rest of a prompt is cut off [code]"
    whole = [] if known.text[0].startswith("Not read") else ["Window: none; nothing is cut off [here]"]
    return {
        "Checkpoint": [
            *known.checkpoint,
            *([f"Hub: {known.hub} [code]"] if known.hub else []),
            f"Taken: {known.accepts}",
            f"Vocabulary: {known.vocabulary}",
        ],
        "Image, step by step": list(known.image),
        "Prompt, step by step": [*known.text, *([window] if known.window else whole)],
        "Score": list(known.score),
        "Comparability and batches": [*known.compare, known.batches],
        "Known biases": list(known.biases),
        "Traps in the official code and around it": list(known.traps),
        "What this package decides": list(known.choices),
        "Parity": list(known.parity),
        "Cost": [known.cost],
    }


def cited(statements: Iterable[str]) -> dict[str, str]:
    """The sources of some statements: key to explanation, in the order of facts.json."""
    keys = {key for text in statements for key in _SOURCE.findall(text)}
    return {key: text for key, text in _data()["sources"].items() if key in keys}


def describe(name: str) -> str:
    """What `widespectrum models show NAME` prints; UnknownNameError for a name that is in no table."""
    entry, known = entry_of(name), facts(name)
    head = [f"{name}: {entry.summary}"]
    if known:
        head += [f"{known.title} ({known.paper}). {known.network}", f"Code: {known.code}, {known.version}"]
        head += [f"License of the code: {known.license}; of the weights: {known.weights_license}"]
        head += [f"Card: cards/reward_models/{name}.md"]
    head += [f'Needs: pip install "widespectrum[{entry.extra}]"' if entry.extra else "Needs nothing else installed"]
    parts: Sections = {"Options": [f"{key}: {text}" for key, text in options_of(name).items()], **sections(name)}
    lines = [textwrap.fill(each, _WIDTH, subsequent_indent="  ") for each in head]
    for title, statements in parts.items():
        lines += ["", title, *(_item(each) for each in statements or ["none"])]
    python, command = usage(name)
    lines += ["", "In Python", textwrap.indent(python, "  "), "", "On the command line", f"  {command}"]
    sources = cited(text for each in [head, *sections(name).values()] for text in each)
    if sources:
        lines += ["", "Sources", *(_item(f"[{key}] {text}") for key, text in sources.items())]
    return "\n".join(lines)


def _item(text: str) -> str:
    return textwrap.fill(text, _WIDTH, initial_indent="  - ", subsequent_indent="    ", break_on_hyphens=False)


def _plain(default: Any) -> str:
    """A default as it is written on the command line."""
    return "none" if default is None else str(default).lower() if isinstance(default, bool) else str(default)


@lru_cache(maxsize=1)
def _data() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(_FILE.read_text(encoding="utf-8"))
    return found


def _whole(value: Any) -> Any:
    """A value of the file with what it refers to: `@name` stands for the shared statements of that name."""
    shared = _data()["shared"]["statements"]
    if isinstance(value, list):
        return tuple(each for text in value for each in (shared[text[1:]] if text.startswith("@") else [text]))
    return shared[value[1:]][0] if isinstance(value, str) and value.startswith("@") else value


def _module(name: str) -> str:
    return entry_of(name).target.partition(":")[0].rpartition(".")[2]


def _declared(name: str) -> dict[str, Any]:
    """Option to default. The packages that the model needs to run need not be there."""
    entry = entry_of(name)
    module, _, attribute = entry.target.partition(":")
    parameters = inspect.signature(getattr(importlib.import_module(module), attribute)).parameters.values()
    return {each.name: each.default for each in parameters if each.name not in entry.params}
