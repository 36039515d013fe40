"""Generators: prompt → image."""

from __future__ import annotations

from widespectrum import registry
from widespectrum.protocols import Generator
from widespectrum.registry import Entry
from widespectrum.types import Parameter

__all__ = ["GENERATORS", "load_generator"]

GENERATORS: dict[str, Entry] = {
    "identity": Entry(
        target="widespectrum.generators.identity:Identity",
        summary="gives back the photograph whatever the prompt says: the floor",
    ),
    "photo-effects": Entry(
        target="widespectrum.generators.photo_effects:PhotoEffects",
        summary="applies the requested effects to the photograph, at a strength from 0 to 4",
        extra="demo",
        packages=("skimage",),
    ),
}


def load_generator(name: str, **options: Parameter) -> Generator:
    """The generator called `name`, made with `options`."""
    generator: Generator = registry.load("generator", GENERATORS, name, options)
    return generator
