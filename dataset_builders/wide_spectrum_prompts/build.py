"""Builds the dataset `wide_spectrum_prompts`: Parquet and a card, loadable without a script."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from string import Template

import datasets

from widespectrum.generators.effects import EFFECTS
from widespectrum.generators.photo_effects import requested_effects
from widespectrum.prompts import PROMPT_SETS, load_prompt_set
from widespectrum.registry import unknown_name
from widespectrum.types import DIMENSIONS, Prompt

__all__ = ["FEATURES", "build"]

FEATURES = datasets.Features(
    {
        "prompt_id": datasets.Value("string"),
        "text": datasets.Value("string"),
        "pair_id": datasets.Value("string"),
        "role": datasets.Value("string"),
        "dimensions": datasets.List(datasets.Value("string")),
        "subset": datasets.Value("string"),
    }
)

CARD = Path(__file__).resolve().parents[2] / "cards" / "wide_spectrum_prompts.md"


def _row(prompt: Prompt) -> dict[str, object]:
    return {name: getattr(prompt, name) for name in FEATURES} | {"dimensions": list(prompt.dimensions)}


def _table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(str, cells))} |" for cells in lines)


def _dimension_table(prompts: Sequence[Prompt]) -> str:
    counts = Counter((name, len(prompt.dimensions)) for prompt in prompts for name in prompt.dimensions)
    sizes = sorted({size for _, size in counts})
    rows = [
        [name, *(counts[name, size] for size in sizes), sum(counts[name, size] for size in sizes)]
        for name in DIMENSIONS
    ]
    return _table(["dimension", *(f"k = {size}" for size in sizes), "all"], rows)


def _effect_table(prompts: Sequence[Prompt]) -> str:
    counts = Counter(name for prompt in prompts for name in requested_effects(prompt, seed=0))
    rows = sorted((effect.dimension, name, counts[name]) for name, effect in EFFECTS.items())
    return _table(["dimension", "effect", "prompts"], rows)


def _card(prompts: Sequence[Prompt]) -> str:
    wide = [prompt for prompt in prompts if prompt.role == "wide_spectrum"]
    lengths = [len(prompt.text.split()) for prompt in prompts]
    return Template(CARD.read_text(encoding="utf-8")).substitute(
        pairs=len(wide),
        prompts=len(prompts),
        photographs=len({prompt.subset for prompt in prompts}),
        shortest=min(lengths),
        longest=max(lengths),
        dimension_table=_dimension_table(wide),
        effect_table=_effect_table(wide),
    )


def build(out: Path, *, config: str = "photographs") -> datasets.DatasetDict:
    """Write the config into the folder `out`, for `datasets.load_dataset(str(out))`, and return it.

    Parquet: `<config>/test-00000-of-00001.parquet`; the card: `README.md`. UnknownNameError for another config.
    """
    if config not in PROMPT_SETS:
        raise unknown_name("config", config, PROMPT_SETS, "widespectrum build --help")
    prompts = load_prompt_set(config).prompts
    test = datasets.Dataset.from_list([_row(prompt) for prompt in prompts], features=FEATURES)
    folder = out / config
    folder.mkdir(parents=True, exist_ok=True)
    test.to_parquet(folder / "test-00000-of-00001.parquet")
    (out / "README.md").write_text(_card(prompts), encoding="utf-8")
    return datasets.DatasetDict({"test": test})
