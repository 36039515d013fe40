from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from scipy.stats import kstest

from widespectrum.errors import InputError
from widespectrum.rewards.controls import OracleReward, RandomReward


def test_random_is_uniform_and_fixed_by_pixels_size_and_prompt() -> None:
    image = Image.new("RGB", (4, 3), "red")
    prompts = [f"prompt {number}" for number in range(2000)]
    values = RandomReward().score([image] * len(prompts), prompts)
    assert kstest(values, "uniform").pvalue > 0.01
    assert np.array_equal(values, RandomReward().score([image.copy()] * len(prompts), prompts))
    others = [Image.new("RGB", (3, 4), "red"), Image.new("RGB", (4, 3), (254, 0, 0))]
    for other in others:
        assert RandomReward().score([other], prompts[:1])[0] != values[0]


def test_oracle_knows_the_prompt_of_an_image() -> None:
    image = Image.new("RGB", (2, 2))
    image.info["prompt"] = "a bus"
    assert OracleReward().score([image, image], ["a bus", "a bus in darkness"]).tolist() == [1.0, 0.0]


def test_oracle_refuses_images_from_elsewhere() -> None:
    with pytest.raises(InputError, match="only images of a run"):
        OracleReward().score([Image.new("RGB", (2, 2))], ["a bus"])
