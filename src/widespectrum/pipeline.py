"""The prompts and image pairs of a run, which `generation`, `scoring` and `judging` share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import store
from .engine import Failure
from .errors import RunFolderError
from .types import Prompt, Role

__all__ = ["ROLES", "Pair", "Work", "image_pairs", "read_prompts"]

ROLES: tuple[Role, Role] = ("original", "wide_spectrum")


@dataclass(frozen=True, slots=True)
class Work:
    """What is still to do: `make` takes a batch of `items` and stores the rows that come of it.

    `rows` counts what will be asked. With `prepare`, `make` gets what that makes of each item ahead of time, in
    threads.
    """

    label: str
    items: Sequence[Any]
    rows: int
    make: Callable[[Sequence[Any]], Sequence[Failure] | None]
    prepare: Callable[[Any], Any] | None = None


@dataclass(frozen=True, slots=True)
class Pair:
    """I_o and I_a of one prompt pair by one generator and seed."""

    generator: str
    seed: int
    prompts: Mapping[Role, Prompt]
    image_ids: Mapping[Role, str]

    @property
    def pair_id(self) -> str:
        """The id that both prompts carry."""
        return self.prompts["original"].pair_id


def read_prompts(run: Path) -> list[Prompt]:
    """The prompts of a run, in the order of its prompt set."""
    rows = store.read(run, "prompts").to_pylist()
    lists = ("dimensions", "effects")
    return [Prompt(**{**row, **{name: tuple(row[name]) for name in lists}}) for row in rows]


def image_pairs(run: Path) -> list[Pair]:
    """Every pair of which both images were made, in a fixed order."""
    prompts = {prompt.prompt_id: prompt for prompt in read_prompts(run)}
    found: dict[tuple[str, int, str], dict[Role, tuple[Prompt, str]]] = {}
    columns = ("prompt_id", "generator", "seed", "status", "image_id")
    for row in store.read(run, "images", columns).to_pylist():
        if row["status"] == "ok":
            if row["prompt_id"] not in prompts:
                raise RunFolderError(
                    f"{run} lacks prompts of its images: run `widespectrum run {run}`, which restores them"
                )
            prompt = prompts[row["prompt_id"]]
            key = (row["generator"], row["seed"], prompt.pair_id)
            found.setdefault(key, {})[prompt.role] = (prompt, row["image_id"])
    return [
        Pair(
            generator=generator,
            seed=seed,
            prompts={role: prompt for role, (prompt, _) in both.items()},
            image_ids={role: image_id for role, (_, image_id) in both.items()},
        )
        for (generator, seed, _), both in sorted(found.items())
        if len(both) == len(ROLES)
    ]
