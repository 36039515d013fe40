from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from widespectrum.generators.effects import EFFECTS, STRENGTHS, VISIBLE_DIMENSIONS, Pixels, apply_effect
from widespectrum.prompts import load_prompt_set, open_photograph
from widespectrum.types import DIMENSIONS

PATHS = sorted(set(load_prompt_set("photographs").photographs.values()))


def photograph(index: int, side: int) -> Pixels:
    image = open_photograph(PATHS[index])
    image.thumbnail((side, side))
    return np.asarray(image, dtype=np.float64) / 255


def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def distance(first: Pixels, second: Pixels) -> float:
    return float(np.sqrt(((first - second) ** 2).mean()))


def test_the_table_covers_six_dimensions() -> None:
    assert set(VISIBLE_DIMENSIONS) < set(DIMENSIONS)
    assert len(VISIBLE_DIMENSIONS) == 6
    assert len(EFFECTS) == 13


@pytest.mark.parametrize("name", EFFECTS)
@pytest.mark.parametrize("index", range(len(PATHS)))
def test_effects_stay_in_range_and_grow(name: str, index: int) -> None:
    image = photograph(index, 128)
    made = [apply_effect(name, image, strength, rng()) for strength in STRENGTHS]
    assert np.array_equal(made[0], image)
    for array in made:
        assert array.shape == image.shape
        assert array.dtype == np.float64
        assert array.min() >= 0
        assert array.max() <= 1
    distances = [distance(image, array) for array in made]
    assert all(low < high for low, high in pairwise(distances)), distances


@pytest.mark.parametrize("name", EFFECTS)
def test_the_input_is_left_alone_and_the_draw_decides(name: str) -> None:
    image = photograph(0, 64)
    before = image.copy()
    first, second = (apply_effect(name, image, 3, rng()) for _ in range(2))
    assert np.array_equal(image, before)
    assert np.array_equal(first, second)


@pytest.mark.parametrize("name", EFFECTS)
@pytest.mark.parametrize("shape", [(1, 16, 3), (16, 1, 3), (5, 7, 3)])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_tiny_and_flat_images(name: str, shape: tuple[int, int, int], value: float) -> None:
    for strength in STRENGTHS:
        made = apply_effect(name, np.full(shape, value), strength, rng())
        assert made.shape == shape
        assert np.isfinite(made).all()


# Noise is drawn anew at another size, and median cut may choose other colors.
@pytest.mark.parametrize("name", [name for name in EFFECTS if name not in ("grainy noise", "posterization")])
def test_large_and_small_copies_come_out_alike(name: str) -> None:
    large = photograph(PATHS.index(next(path for path in PATHS if path.stem == "astronaut")), 512)
    small = large.reshape(256, 2, 256, 2, 3).mean(axis=(1, 3))
    made = apply_effect(name, large, 3, rng()).reshape(256, 2, 256, 2, 3).mean(axis=(1, 3))
    expected = apply_effect(name, small, 3, rng())
    assert distance(made, expected) < 0.4 * distance(small, expected)


def test_noise_has_the_promised_deviation() -> None:
    gray = np.full((200, 300, 3), 0.5)
    made = apply_effect("grainy noise", gray, 2, rng())
    assert (made - gray).std() == pytest.approx(0.14, rel=0.02)


def test_posterization_and_pixelation_leave_few_colors() -> None:
    image = photograph(0, 128)
    colors = np.unique(apply_effect("posterization", image, 4, rng()).reshape(-1, 3), axis=0)
    assert len(colors) <= 3
    squares = np.unique(apply_effect("pixelation", image, 4, rng()).reshape(-1, 3), axis=0)
    assert len(squares) <= 18 * 18


def test_blurs_keep_the_mean_of_a_point_and_spread_it() -> None:
    point = np.zeros((129, 129, 3))
    point[64, 64] = 1
    for name in ("gaussian blur", "motion blur"):
        made = apply_effect(name, point, 3, rng())
        assert made.sum() == pytest.approx(3, rel=1e-6)
        assert made.max() < 0.2
    line = apply_effect("motion blur", point, 4, rng())[..., 0]
    y, x = np.nonzero(line > 1e-9)
    spread = np.linalg.eigvalsh(np.cov(x, y))
    assert spread[1] > 20 * spread[0]
