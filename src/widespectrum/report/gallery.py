"""The gallery of a report: image pairs with their prompts, scores and verdict, and the prompts that were refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from widespectrum import store
from widespectrum.columns import CELLS, KEY
from widespectrum.functional import prior_and_match
from widespectrum.thumbnails import Thumbnails

from .material import Material

__all__ = ["Gallery", "Refused", "read_gallery", "read_refused"]

LIMIT = 120
SEED = 0


class ScoreRow(NamedTuple):
    """The four scores of one pair by one reward model as text, its Q and X, and which image it prefers."""

    reward_model: str
    scores: list[str]
    prior: float
    match: float
    prefers: list[bool]


class Pair(NamedTuple):
    """One card."""

    pair_id: str
    generator: str
    seed: int
    dimensions: str
    prompt_original: str
    prompt_wide_spectrum: str
    image_original: str
    image_wide_spectrum: str
    verdict: float | None
    verdict_text: str
    scores: list[ScoreRow]


class Gallery(NamedTuple):
    """The chosen pairs out of `total`."""

    pairs: list[Pair]
    total: int


class Refused(NamedTuple):
    """A prompt that generators refused, for one reason."""

    pair_id: str
    text: str
    reason: str
    generators: list[str]


VERDICTS = {1.0: "I_a fits p_a better", 0.5: "tie", 0.0: "I_o fits p_a better"}


def _score_text(value: float) -> str:
    size = abs(value)
    digits = 0 if size >= 1000 else 1 if size >= 100 else 2 if size >= 10 else 3
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")


def _score_rows(rows: pd.DataFrame) -> dict[tuple[Any, ...], list[ScoreRow]]:
    """Key of the pair → one row per reward model."""
    found: dict[tuple[Any, ...], list[ScoreRow]] = {}
    for model, part in rows.groupby("reward_model", sort=True):
        cells = [part[name].to_numpy(dtype=np.float64) for name in CELLS.values()]
        keys = part[KEY].itertuples(index=False, name=None)
        for key, prior, match, *values in zip(keys, *prior_and_match(*cells), *cells, strict=True):
            io_po, io_pa, ia_po, ia_pa = values
            prefers = [io_po > ia_po, io_pa > ia_pa, ia_po > io_po, ia_pa > io_pa]
            texts = [_score_text(value) for value in values]
            found.setdefault(key, []).append(ScoreRow(str(model), texts, prior, match, prefers))
    return found


def _choose(pairs: pd.DataFrame) -> pd.DataFrame:
    """At most LIMIT rows: prompt pairs in a random order drawn by SEED, each with all its generators."""
    if len(pairs) <= LIMIT:
        return pairs
    names = sorted(set(pairs["pair_id"]))
    place = dict(zip(np.random.default_rng(SEED).permutation(names), range(len(names)), strict=True))
    order = pairs["pair_id"].map(place).sort_values(kind="stable").index
    return pairs.loc[order[:LIMIT]].sort_values(KEY)


def read_gallery(material: Material) -> Gallery | None:
    """The pairs to show; None where the run holds no images."""
    if not store.parts(material.run, "images"):
        return None
    every = material.image_pairs
    chosen = _choose(every)
    rows = material.pairs.merge(chosen[KEY], on=KEY)
    scores, thumbnails = _score_rows(rows), Thumbnails(material.run)
    texts = dict(store.read(material.run, "prompts").to_pandas().set_index("prompt_id")["text"])
    cards = [
        Pair(
            pair_id=row.pair_id,
            generator=row.generator,
            seed=row.image_seed,
            dimensions=", ".join(row.dimensions),
            prompt_original=row.cluster,
            prompt_wide_spectrum=texts[row.prompt_pa],
            image_original=thumbnails.uri(row.image_io),
            image_wide_spectrum=thumbnails.uri(row.image_ia),
            verdict=row.verdict if row.verdict in VERDICTS else None,
            verdict_text=VERDICTS.get(row.verdict, "no verdict"),
            scores=scores[(row.pair_id, row.generator, row.image_seed)],
        )
        for row in chosen.itertuples(index=False)
    ]
    return Gallery(cards, len(every))


def read_refused(run: Path) -> list[Refused]:
    """Every refused prompt with the reason and the generators that gave it."""
    images = store.read(run, "images", ("prompt_id", "generator", "status", "detail")).to_pandas()
    prompts = store.read(run, "prompts").to_pandas()
    rows = images[images["status"] == "refused"].merge(prompts, on="prompt_id")
    groups: Any = rows.groupby(["pair_id", "text", "detail"], sort=True)["generator"]
    return [Refused(pair, text, detail, sorted(set(names))) for (pair, text, detail), names in groups]
