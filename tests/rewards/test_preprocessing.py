"""Against Pillow step by step, transformers' processor, and bicubic interpolation written out in float64."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import PIL.Image
import pytest
import transformers

from tests.rewards.awkward import IMAGES
from widespectrum.errors import InputError
from widespectrum.rewards.preprocessing import OPENAI_MEAN, OPENAI_STD, clip_crop, longest_side, qwen_resize, squash

BLACK = -OPENAI_MEAN[1] / OPENAI_STD[1]


def noise(width, height, channels=3, seed=0):
    values = np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return PIL.Image.fromarray(values.squeeze(-1) if channels == 1 else values)


def see_through_palette():
    image = noise(300, 277).quantize(64)
    image.info["transparency"] = bytes(range(64))
    return image


EVERY = {
    **IMAGES,
    "see-through palette": see_through_palette(),
    "one bit": noise(240, 300, 1).convert("1"),
    "16 bits": PIL.Image.fromarray(np.random.default_rng(1).integers(0, 400, (260, 300)).astype(np.uint16)),
    "CMYK": noise(300, 230).convert("CMYK"),
    "odd margin": noise(299, 224),
    "one pixel": noise(1, 1),
}


def unnormalized(pixels):
    return pixels.astype(np.float64) * np.array(OPENAI_STD)[:, None, None] + np.array(OPENAI_MEAN)[:, None, None]


def rgb(image):
    """0 to 255, shape (height, width, 3); alpha does not count."""
    return np.asarray(image.convert("RGBA" if image.mode in ("LA", "P", "RGBA") else "RGB"))[..., :3]


def levels(image):
    return np.moveaxis(rgb(image), -1, 0)


@pytest.mark.parametrize("name", EVERY)
def test_openai_scales_and_crops_in_the_image_s_own_mode(name):
    image = EVERY[name]
    width, height = image.size
    size = (224, height * 224 // width) if width <= height else (width * 224 // height, 224)
    # np.round rounds halves to even, as OpenAI's crop does.
    left, top = (int(np.round((side - 224) / 2)) for side in size)
    if image.mode == "P":
        scaled = image.resize(size, PIL.Image.Resampling.NEAREST)
    elif image.mode in ("LA", "RGBA"):
        scaled = image.convert(image.mode[:-1] + "a").resize(size, PIL.Image.Resampling.BICUBIC).convert(image.mode)
    else:
        scaled = image.resize(size, PIL.Image.Resampling.BICUBIC)
    expected = levels(scaled.crop((left, top, left + 224, top + 224)))
    got = clip_crop(image, rgb_first=False)
    assert got.dtype == np.float32
    np.testing.assert_allclose(unnormalized(got) * 255, expected, atol=1e-4)


def processor():
    name = "CLIPImageProcessorPil" if hasattr(transformers, "CLIPImageProcessorPil") else "CLIPImageProcessor"
    return getattr(transformers, name)()


# transformers takes one pixel for one channel.
@pytest.mark.parametrize("name", [name for name in EVERY if name != "one pixel"])
def test_rgb_first_is_transformers_processor_bit_for_bit(name):
    image = EVERY[name]
    expected = processor()(PIL.Image.fromarray(rgb(image)), return_tensors="np")["pixel_values"][0]
    np.testing.assert_array_equal(clip_crop(image, rgb_first=True), expected)


@pytest.mark.parametrize(("width", "openai", "hf"), [(299, 38, 37), (300, 38, 38), (301, 38, 38), (227, 2, 1)])
def test_halves_of_an_odd_margin(width, openai, hf):
    ramp = PIL.Image.fromarray(np.tile(np.arange(width) % 256, (224, 1)).astype(np.uint8)).convert("RGB")
    for first, left in ((False, openai), (True, hf)):
        assert round(unnormalized(clip_crop(ramp, rgb_first=first))[0, 0, 0] * 255) == left


def test_alpha_weighs_colors_where_the_mode_is_kept():
    pixels = np.zeros((448, 448, 4), dtype=np.uint8)
    pixels[:, ::2] = (255, 0, 0, 255)
    pixels[:, 1::2] = (0, 255, 0, 0)
    image = PIL.Image.fromarray(pixels)
    kept = unnormalized(clip_crop(image, rgb_first=False))[:, 112, 112]
    dropped = unnormalized(clip_crop(image, rgb_first=True))[:, 112, 112]
    np.testing.assert_allclose(kept, [1, 0, 0], atol=0.01)
    np.testing.assert_allclose(dropped, [0.5, 0.5, 0], atol=0.01)


@pytest.mark.parametrize("name", EVERY)
def test_squash(name):
    resized = PIL.Image.fromarray(rgb(EVERY[name])).resize((384, 384), PIL.Image.Resampling.BICUBIC)
    got = squash(EVERY[name], 384)
    assert (got.shape, got.dtype) == ((3, 384, 384), np.float32)
    np.testing.assert_allclose(unnormalized(got) * 255, levels(resized), atol=1e-4)


def keys(x, a):
    """Keys' cubic kernel."""
    x = abs(x)
    if x < 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0


def bicubic(old, new, antialias):
    """Weights (new, old): with antialias the kernel is widened when shrinking and cut at the border, else clamped."""
    weights = np.zeros((new, old))
    step = old / new
    for row in range(new):
        center = (row + 0.5) * step - 0.5
        if antialias:
            width = max(step, 1.0)
            for column in range(old):
                weights[row, column] = keys((column - center) / width, -0.5)
            weights[row] /= weights[row].sum()
        else:
            for column in range(math.floor(center) - 1, math.floor(center) + 3):
                weights[row, min(max(column, 0), old - 1)] += keys(column - center, -0.75)
    return weights


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("name", EVERY)
def test_longest_side(name, antialias):
    image = EVERY[name]
    width, height = image.size
    new_height, new_width = (round(side * (224 / max(width, height))) for side in (height, width))
    scaled = np.einsum(
        "yh,chw,xw->cyx",
        bicubic(height, new_height, antialias),
        levels(image) / 255,
        bicubic(width, new_width, antialias),
        optimize=True,
    )
    expected = np.zeros((3, 224, 224))
    top, left = (224 - new_height) // 2, (224 - new_width) // 2
    expected[:, top : top + new_height, left : left + new_width] = scaled
    got = longest_side(image, 224, antialias=antialias)
    assert (got.shape, got.dtype) == ((3, 224, 224), np.float32)
    # torch computes where a pixel falls in float32.
    np.testing.assert_allclose(unnormalized(got), expected, atol=2e-4)


def test_bars_are_black_and_the_wider_ones_on_the_right_and_at_the_bottom():
    for size, first, last in [((448, 225), 56, 168), ((150, 224), 37, 187), ((90, 1600), 105, 118), ((7, 5), 32, 192)]:
        pixels = longest_side(PIL.Image.new("RGB", size, "white"), 224, antialias=True)
        across = pixels[1, :, 0] if size[0] > size[1] else pixels[1, 0]
        black = np.isclose(across, BLACK, atol=1e-6).nonzero()[0].tolist()
        assert black == [*range(first), *range(last, 224)]


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        *(((side, side), (448, 448)) for side in (512, 640, 896, 1024, 1280)),
        ((768, 768), (420, 420)),  # where exact arithmetic gives 448
        ((1, 1), (448, 448)),
        ((7, 5), (532, 392)),
        ((1600, 90), (1904, 112)),
        ((200, 1), (6356, 56)),
        ((20000, 100), (6328, 28)),
    ],
)
def test_qwen_sizes(size, expected):
    resized = qwen_resize(noise(*size, channels=4))
    assert (resized.mode, resized.size) == ("RGB", expected)


def test_qwen_resize_is_pillow_s_bicubic_without_alpha():
    image = noise(300, 200, channels=4)
    expected = PIL.Image.fromarray(np.asarray(image)[..., :3]).resize((560, 392), PIL.Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(np.asarray(qwen_resize(image)), np.asarray(expected))


@pytest.mark.parametrize(
    ("prepare", "size", "expected"),
    [
        (qwen_resize, (1607, 8), "1607 x 8 pixels is too narrow: .* ratio 200.875, HPSv3 reads images up to 200; crop"),
        (
            lambda image: longest_side(image, 224, antialias=True),
            (3, 1600),
            "nothing is left of its shortest side",
        ),
        (lambda image: clip_crop(image, rgb_first=True), (1, 669), "longest side would have 149,856, at most 149,796"),
        (lambda image: clip_crop(image, rgb_first=False), (0, 5), "0 x 5 pixels has nothing to score"),
        (lambda image: squash(image, 384), (5, 0), "5 x 0 pixels has nothing to score"),
    ],
)
def test_images_without_a_scaled_form(prepare, size, expected):
    with pytest.raises(InputError, match=expected):
        prepare(PIL.Image.new("RGB", size))


def test_a_very_narrow_image_is_still_read():
    assert clip_crop(noise(1, 600), rgb_first=False).shape == (3, 224, 224)


def test_threads_agree_and_images_stay_as_they_are():
    steps = [lambda image, first=first: clip_crop(image, rgb_first=first) for first in (True, False)]
    steps += [lambda image: longest_side(image, 224, antialias=True), lambda image: squash(image, 96)]
    images = [image for image in EVERY.values() if image.width < 900]
    before = [(image.mode, image.size, dict(image.info), image.tobytes()) for image in images]
    for step in steps:
        alone = [step(image) for image in images]
        with ThreadPoolExecutor(4) as threads:
            for got, expected in zip(threads.map(step, images * 2), alone * 2, strict=True):
                np.testing.assert_array_equal(got, expected)
    assert before == [(image.mode, image.size, dict(image.info), image.tobytes()) for image in images]
