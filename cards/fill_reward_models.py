"""Writes the cards of the reward models from what is known (facts.json) and what was measured (measured.json).

python cards/fill_reward_models.py [--check]

With `--check` nothing is written; every card that differs is named, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

from widespectrum.rewards import REWARD_MODELS
from widespectrum.rewards.facts import Facts, cited, facts, options_of, sections, usage

FOLDER = Path(__file__).resolve().parent / "reward_models"
GROUPS = {
    "parity": "Parity",
    "bf16": "bfloat16 against float32",
    "speed": "Speed",
    "memory": "Memory",
}
_INDEX = re.compile(r"(<!-- models -->\n).*?(<!-- end of models -->)", re.DOTALL)

Measured = Mapping[str, Mapping[str, Any]]


def read_measured(path: Path = FOLDER / "measured.json") -> Measured:
    """What was measured, by name; ValueError for a name without a card, or a group that no card has."""
    found: Measured = json.loads(path.read_text(encoding="utf-8"))
    for name, groups in found.items():
        unknown = set(groups) - {*GROUPS, "machine", "date"}
        if facts(name) is None or unknown:
            what = f"unknown groups {', '.join(sorted(unknown))}" if unknown else "no card"
            raise ValueError(f"{path}: {name!r} has {what}; expected {', '.join(GROUPS)}, machine and date")
    return found


def _cell(text: str) -> str:
    return text.replace("|", r"\|")


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(_cell(text) for text in line)} |" for line in lines)


def _measured(groups: Mapping[str, Any]) -> str:
    """One line per figure; a group without figures says so."""
    rows = []
    for key, title in GROUPS.items():
        figures = groups.get(key) or {title: "not measured yet"}
        rows += [[title if label == title else f"{title}: {label}", str(value)] for label, value in figures.items()]
    where = ", ".join(str(groups[key]) for key in ("machine", "date") if groups.get(key))
    return _table(["what", "figure"], rows) + (f"\n\nMeasured on: {where}." if where else "")


def _link(known: Facts) -> str:
    if known.hub:
        return f"[{known.hub}](https://huggingface.co/{known.hub})"
    return "none of the authors" if known.tolerance else "no weights are loaded"


def _window(known: Facts) -> str:
    if known.text[0].startswith("Not read"):
        return "none: the prompt is not read"
    return str(known.window) if known.window else "all"


def card(name: str, known: Facts, measured: Measured) -> str:
    """The card of one reward model."""
    parts, (python, command) = sections(name), usage(name)
    statements = [known.network, *(text for each in parts.values() for text in each)]
    listed = {title: "".join(f"- {text}\n" for text in each) for title, each in parts.items()}
    return Template((FOLDER / "template.md").read_text(encoding="utf-8")).substitute(
        name=name,
        title=known.title,
        summary=REWARD_MODELS[name].summary,
        paper=known.paper,
        network=known.network,
        code=f"[{known.code}](https://github.com/{known.code}), {known.version}",
        license=known.license,
        weights_license=known.weights_license,
        hub=_link(known),
        window=_window(known),
        python=python,
        command=command,
        options=_table(["option", "what it says"], [[f"`{key}`", text] for key, text in options_of(name).items()]),
        sections="\n".join(f"## {title}\n\n{text}" for title, text in listed.items()),
        measured=_measured(measured.get(name, {})) if known.tolerance else "Nothing: no weights are loaded.",
        sources="\n".join(f"- [{key}]: {text}" for key, text in cited(statements).items()),
    )


def index(readme: str, known: Mapping[str, Facts]) -> str:
    """The README with the table of all cards."""
    rows = [
        [f"[{name}]({name}.md)", REWARD_MODELS[name].summary, each.license, _link(each), _window(each)]
        for name, each in known.items()
    ]
    table = _table(["name", "what it is", "license of the code", "weights on the Hub", "tokens of a prompt"], rows)
    return _INDEX.sub(lambda found: f"{found[1]}{table}\n{found[2]}", readme)


def pages() -> dict[Path, str]:
    """Every page with its text."""
    known = {name: found for name in REWARD_MODELS if (found := facts(name))}
    measured = read_measured()
    made = {FOLDER / f"{name}.md": card(name, each, measured) for name, each in known.items()}
    readme = FOLDER / "README.md"
    return {**made, readme: index(readme.read_text(encoding="utf-8"), known)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the cards, or with `--check` name those that differ and return 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; name every card that differs")
    options = parser.parse_args(arguments)
    made = pages()
    differing = [path for path, text in made.items() if not path.is_file() or path.read_text(encoding="utf-8") != text]
    if not options.check:
        for path in differing:
            path.write_text(made[path], encoding="utf-8")
    print("\n".join(f"{path.name} differs" for path in differing) or "every card is as it is made")
    return int(options.check and bool(differing))


if __name__ == "__main__":
    raise SystemExit(main())
