from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from widespectrum.generators.effects import EFFECTS, STRENGTHS, VISIBLE_DIMENSIONS, Pixels, apply_effect
from widespectrum.judges.measures import MEASURES, brightness, edge_sharpness, lighting_distinction, noise_level
from widespectrum.prompts import load_prompt_set, open_photograph

PATHS = sorted(set(load_prompt_set("photographs").photographs.values()))


def photograph(index: int, side: int = 256) -> Pixels:
    image = open_photograph(PATHS[index])
    image.thumbnail((side, side))
    return np.asarray(image, dtype=np.float64) / 255


def test_the_measures_cover_what_pixels_can_show() -> None:
    assert tuple(MEASURES) == VISIBLE_DIMENSIONS


@pytest.mark.parametrize("name", EFFECTS)
def test_every_effect_lowers_its_dimension(name: str) -> None:
    measure = MEASURES[EFFECTS[name].dimension]
    steady = 0
    for index in range(len(PATHS)):
        image = photograph(index)
        ratings = [measure(apply_effect(name, image, s, np.random.default_rng(index))) for s in STRENGTHS]
        assert all(0 <= rating <= 2 for rating in ratings)
        assert ratings[0] - ratings[1] > 0.01, (PATHS[index].stem, ratings)
        assert ratings[0] - ratings[4] > 0.3, (PATHS[index].stem, ratings)
        steady += all(high > low for high, low in pairwise(ratings))
    assert steady >= len(PATHS) - 1


@pytest.mark.parametrize("sigma", [0.02, 0.05, 0.1])
def test_noise_level_against_the_truth(sigma: float) -> None:
    noise = np.random.default_rng(0).normal(0.5, sigma, (200, 200))
    assert noise_level(noise) == pytest.approx(sigma, rel=0.03)


def test_noise_level_ignores_edges() -> None:
    step = np.zeros((100, 100))
    step[:, 50:] = 1
    assert noise_level(step) == 0


def test_edge_sharpness_of_squares_and_a_ramp() -> None:
    x = np.arange(240.0)
    squares = np.add.outer(x // 24, x // 24) % 2
    assert edge_sharpness(squares) == pytest.approx(1)
    ramp = np.multiply.outer(x, x) / 240**2
    assert edge_sharpness(ramp) == pytest.approx(2 / 20, rel=0.2)  # 2 pixels of 1/12 of 240
    assert edge_sharpness(np.ones((50, 50))) == 0


def test_brightness_and_lighting_by_hand() -> None:
    assert brightness(np.full((2, 2, 3), 0.5)) == pytest.approx(1.5)
    assert brightness(np.zeros((2, 2, 3))) == 0
    half = np.zeros((10, 10, 3))
    half[:5] = 0.8
    assert lighting_distinction(half) == pytest.approx(1.6)


@pytest.mark.parametrize("dimension", MEASURES)
@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 40, 3), (64, 64, 3)])
def test_flat_and_tiny_images_are_rated(dimension: str, value: float, shape: tuple[int, int, int]) -> None:
    assert 0 <= MEASURES[dimension](np.full(shape, value)) <= 2


def test_extremes_stay_on_the_scale() -> None:
    noise = np.random.default_rng(1).integers(0, 2, (80, 80, 3)).astype(np.float64)
    for measure in MEASURES.values():
        assert 0 <= measure(noise) <= 2
