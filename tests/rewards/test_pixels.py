from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from scipy.ndimage import laplace

from widespectrum.errors import InputError
from widespectrum.rewards.pixels import PixelReward, colorfulness, exposure, sharpness

RGB = arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3))).map(lambda a: a.astype(np.float64))


def pixels(*colors: tuple[int, int, int]) -> np.ndarray:
    return np.array([colors], dtype=np.float64)


def test_colorfulness_by_hand() -> None:
    assert colorfulness(pixels((80, 80, 80), (200, 200, 200))) == 0
    # Red alone: rg = 255, yb = 127.5, no spread.
    assert colorfulness(pixels((255, 0, 0))) == pytest.approx(0.3 * np.hypot(255, 127.5))
    # Red and cyan: rg = 255 and -255, yb = 127.5 and -127.5: all spread, no mean.
    assert colorfulness(pixels((255, 0, 0), (0, 255, 255))) == pytest.approx(np.hypot(255, 127.5))
    # Red and green: rg = 255 and -255 (mean 0), yb = 127.5 twice (no spread).
    assert colorfulness(pixels((255, 0, 0), (0, 255, 0))) == pytest.approx(255 + 0.3 * 127.5)


@given(RGB)
def test_sharpness_equals_scipy(rgb: np.ndarray) -> None:
    light = rgb @ [0.299, 0.587, 0.114]
    assert sharpness(rgb) == pytest.approx(laplace(light, mode="nearest").var(), abs=1e-6)


def test_sharpness_by_hand() -> None:
    point = np.zeros((3, 3, 3))
    point[1, 1] = 255
    # The Laplacian is -1020 in the middle, 255 at four neighbors, 0 at the corners; its mean is 0.
    assert sharpness(point) == pytest.approx((1020**2 + 4 * 255**2) / 9)
    assert sharpness(np.full((1, 1, 3), 7.0)) == 0


def test_exposure_by_hand() -> None:
    assert exposure(pixels((0, 0, 0))) == exposure(pixels((255, 255, 255))) == pytest.approx(-1.5)
    assert exposure(pixels((127, 127, 127), (128, 128, 128))) == pytest.approx(0, abs=1e-12)
    assert exposure(pixels((5, 5, 5), (250, 250, 250))) == pytest.approx(-1)
    assert exposure(pixels((6, 6, 6), (249, 249, 249))) == pytest.approx(0, abs=1e-12)
    assert exposure(pixels((51, 51, 51))) == pytest.approx(-0.3)


@given(RGB)
def test_order_of_pixels_does_not_matter_for_color(rgb: np.ndarray) -> None:
    assert colorfulness(rgb[::-1, ::-1]) == pytest.approx(colorfulness(rgb))
    assert exposure(rgb[::-1]) == pytest.approx(exposure(rgb))
    assert -1.5 <= exposure(rgb) <= 0


@pytest.mark.parametrize("measure", ["colorfulness", "sharpness", "exposure"])
def test_blind_to_the_prompt(measure: str) -> None:
    model = PixelReward(measure=measure)
    image = Image.effect_noise((20, 30), 40)
    one, other = model.score([image, image], ["a bus", "a cat"])
    assert one == other
    assert model.encode_images([image]).shape == (1, 1)
    assert model.encode_texts(["a", "b"]).shape == (2, 0)
    assert model.encode_images([]).shape == (0, 1)


def test_unknown_measure() -> None:
    with pytest.raises(InputError, match="measure must be one of colorfulness, sharpness, exposure"):
        PixelReward(measure="beauty")
