"""torchvision is the oracle: our resizing without it gives the same bits."""

import numpy as np
import PIL.Image
import pytest
import torch
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Normalize, Resize, ToTensor
from torchvision.transforms import functional as tv

from widespectrum.rewards.preprocessing import OPENAI_MEAN, OPENAI_STD, clip_crop, longest_side, squash

BICUBIC = InterpolationMode.BICUBIC
NORMALIZE = Normalize(OPENAI_MEAN, OPENAI_STD)


def noise(width, height, mode="RGB"):
    values = np.random.default_rng(width).integers(0, 256, (height, width, 4), dtype=np.uint8)
    return PIL.Image.fromarray(values).convert(mode)


IMAGES = [
    *(noise(*size) for size in [(7, 5), (1600, 90), (60, 700), (900, 900), (227, 512), (224, 299), (224, 150)]),
    *(noise(301, 260, mode) for mode in ("L", "LA", "RGBA", "1", "CMYK", "I;16", "F")),
    noise(260, 301).quantize(32),
]


def named(image):
    return f"{image.mode} {image.width}x{image.height}"


def rgb(image):
    return image.convert("RGB")


@pytest.mark.parametrize("image", IMAGES, ids=named)
def test_clip_crop_and_squash(image):
    official = Compose([Resize(224, interpolation=BICUBIC), CenterCrop(224), rgb, ToTensor(), NORMALIZE])
    np.testing.assert_array_equal(clip_crop(image, rgb_first=False), official(image).numpy())
    official = Compose([rgb, Resize((384, 384), interpolation=BICUBIC), ToTensor(), NORMALIZE])
    np.testing.assert_array_equal(squash(image, 384), official(image).numpy())


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("image", IMAGES, ids=named)
def test_longest_side(image, antialias):
    tensor = tv.to_tensor(rgb(image))
    scale = 224 / max(image.size)
    size = [round(image.height * scale), round(image.width * scale)]
    bars = [224 - side for side in size]
    tensor = tv.resize(tensor, size, BICUBIC, antialias=antialias)
    tensor = tv.pad(tensor, [bars[1] // 2, bars[0] // 2, bars[1] - bars[1] // 2, bars[0] - bars[0] // 2])
    assert isinstance(tensor, torch.Tensor)
    np.testing.assert_array_equal(longest_side(image, 224, antialias=antialias), NORMALIZE(tensor).numpy())
