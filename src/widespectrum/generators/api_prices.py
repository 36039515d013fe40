"""Published list prices of image APIs, in US dollars."""

from __future__ import annotations

import functools
import json
from importlib import resources

__all__ = ["list_price", "list_prices"]


@functools.cache
def _prices() -> dict[str, dict[str, dict[str, float]]]:
    text = resources.files("widespectrum.generators").joinpath("api_prices.json").read_text(encoding="utf-8")
    models: dict[str, dict[str, dict[str, float]]] = json.loads(text)["models"]
    return models


def list_prices(model: str) -> dict[str, dict[str, float]]:
    """US dollars for an image of `model`, by size and quality ("" where there is no choice); empty if unknown.

    From published price lists, which may be out of date: `api_prices.json` says when they were read.
    """
    return _prices().get(model, {})


def list_price(model: str, size: str = "", quality: str = "") -> float | None:
    """US dollars for one image, as `list_prices` has them; None where the price is unknown.

    >>> list_price("gpt-image-1.5", "1024x1024", "high")
    0.133
    """
    return list_prices(model).get(size, {}).get(quality)
