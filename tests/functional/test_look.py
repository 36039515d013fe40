"""`look_statistics`: closed forms, scikit-image and PIL as oracles, manipulations one at a time."""

import numpy as np
import PIL.Image
import pytest
import skimage.data
from scipy import stats
from scipy.ndimage import gaussian_filter
from scipy.special import ndtr
from skimage.color import rgb2hsv
from skimage.measure import blur_effect
from skimage.restoration import denoise_bilateral
from skimage.transform import downscale_local_mean
from sklearn.datasets import load_sample_image

from widespectrum.functional import look_shift, look_statistics
from widespectrum.functional._look import COMMON, LOOKS, _averaged, _common_size

PHOTOGRAPHS = {
    "astronaut": skimage.data.astronaut,
    "coffee": skimage.data.coffee,
    "motorcycle": lambda: skimage.data.stereo_motorcycle()[0],
    "palace": lambda: load_sample_image("china.jpg"),
}


def as_image(values):
    return np.clip(values, 0, 255).round().astype(np.uint8)


def blurred(image, width, mask=1.0):
    """Gaussian blur of `width` pixels at the common size, where `mask` is 1."""
    scale = np.sqrt(image.shape[0] * image.shape[1]) / COMMON
    soft = gaussian_filter(image.astype(float), (width * scale, width * scale, 0), mode="nearest")
    return as_image(soft * mask + image * (1 - mask))


def border(image):
    """1 in a frame that covers a bit more than half of the image, 0 inside."""
    rows, columns = (np.abs(np.linspace(-1, 1, size)) for size in image.shape[:2])
    return np.clip((np.maximum(rows[:, None], columns) - 0.65) / 0.05, 0, 1)[..., None]


def smoothed(image):
    """Fine texture taken away, edges kept."""
    spatial = 3 * np.sqrt(image.shape[0] * image.shape[1]) / COMMON
    return as_image(255 * denoise_bilateral(image, sigma_color=0.05, sigma_spatial=spatial, channel_axis=2))


def desaturated(image):
    return as_image(0.5 * image + 0.5 * (image @ [0.299, 0.587, 0.114])[..., None])


MANIPULATIONS = {
    "veiled": lambda image: as_image(image * 0.6 + 80),
    "darker": lambda image: as_image(image * 0.6),
    "desaturated": desaturated,
    "blurred": lambda image: blurred(image, 2),
    "border blurred": lambda image: blurred(image, 6, border(image)),
    "smoothed": smoothed,
}


@pytest.fixture(scope="module", params=PHOTOGRAPHS)
def looks(request):
    """The statistics of one photograph as it is and after each manipulation, as changes from the photograph."""
    image = PHOTOGRAPHS[request.param]()
    before = look_statistics(image)
    assert before["notes"] == {}
    table = {name: look_statistics(change(image)) for name, change in MANIPULATIONS.items()}
    return before, table


def test_brightness_reacts_to_light_alone(looks):
    before, table = looks
    change = {name: look["brightness"] - before["brightness"] for name, look in table.items()}
    assert change["veiled"] > 0.08
    assert change["darker"] < -0.1
    assert max(abs(change[name]) for name in ("desaturated", "blurred", "border blurred", "smoothed")) < 0.01


def test_saturation_reacts_to_color_alone(looks):
    before, table = looks
    change = {name: look["saturation"] - before["saturation"] for name, look in table.items()}
    assert change["desaturated"] < -0.3 * before["saturation"]
    # exposure cancels out, a veil of light does not: it takes saturation away
    assert max(abs(change[name]) for name in ("darker", "blurred", "border blurred", "smoothed")) < 0.015


def test_sharpness_reacts_to_blur_of_the_whole_image(looks):
    before, table = looks
    change = {name: look["sharpness"] - before["sharpness"] for name, look in table.items()}
    assert change.pop("blurred") < -0.1
    assert max(map(abs, change.values())) < 0.06
    assert max(abs(change[name]) for name in ("veiled", "darker", "desaturated")) < 0.003


def test_background_blur_reacts_to_blur_of_a_part(looks):
    before, table = looks
    change = {name: look["background_blur"] - before["background_blur"] for name, look in table.items()}
    assert change.pop("border blurred") > 0.3
    assert max(map(abs, change.values())) < 0.1
    assert max(abs(change[name]) for name in ("veiled", "darker", "desaturated")) < 0.02


def test_texture_reacts_to_smoothing_that_keeps_edges(looks):
    before, table = looks
    factor = {name: look["texture"] / before["texture"] for name, look in table.items()}
    assert factor["smoothed"] < 0.72
    assert factor["blurred"] < 0.5  # blur takes fine detail away as well
    assert 0.5 < factor["border blurred"] < 1.4
    for name in ("darker", "desaturated"):
        assert factor[name] == pytest.approx(1, abs=0.05)


def edge(width, size=512):
    """A step from dark to light, blurred to a Gaussian width in pixels of the common size."""
    step = ndtr((np.arange(size) - size / 2 + 0.5) * COMMON / size / width)
    return as_image(np.broadcast_to((30 + 180 * step)[None, :, None], (size, size, 3)))


@pytest.mark.parametrize("width", [0.5, 1, 2, 4, 8])
def test_sharpness_of_a_lone_edge_is_the_closed_form(width):
    look = look_statistics(edge(width))
    assert look["sharpness"] == pytest.approx(1 - np.sqrt((width**2 + 1) / (width**2 + 16)), abs=0.015)
    assert look["background_blur"] < 0.07
    assert look["texture"] < 2e-3


def test_sharpness_falls_as_scikit_image_sees_blur_rise():
    image = skimage.data.astronaut()
    versions = [blurred(image, width) for width in (0.01, 0.5, 1, 2, 4, 8)]
    ours = [look_statistics(version)["sharpness"] for version in versions]
    theirs = [blur_effect(version, channel_axis=2) for version in versions]
    assert stats.spearmanr(ours, theirs).statistic == pytest.approx(-1)


def test_brightness_and_saturation_agree_with_pil_and_scikit_image():
    image = skimage.data.coffee()
    look = look_statistics(image)
    gray = np.asarray(PIL.Image.fromarray(image).convert("L"))
    assert look["brightness"] == pytest.approx(gray.mean() / 255, abs=1e-3)
    hsv = rgb2hsv(_common_size(image / 255))
    assert look["saturation"] == pytest.approx((hsv[..., 1] * hsv[..., 2]).sum() / hsv[..., 2].sum())


def test_texture_is_the_amplitude_of_fine_noise():
    rng = np.random.default_rng(0)
    shape = (COMMON, COMMON, 1)
    looks = [look_statistics(as_image(128 + np.repeat(rng.normal(0, sd, shape), 3, 2)))["texture"] for sd in (4, 8, 16)]
    assert looks[1] / looks[0] == pytest.approx(2, rel=0.05)
    assert looks[2] / looks[1] == pytest.approx(2, rel=0.05)
    # white noise less its Gaussian blur: variance 1 - 2 G(0) + 1/(4π), median of a normal's size 0.6745
    expected = 0.6745 * np.sqrt(1 - 2 * 0.1592 + 0.0796) * 16 / 128
    assert looks[2] == pytest.approx(expected, rel=0.03)


def test_area_average_agrees_with_scikit_image_and_with_overlaps_written_out():
    rng = np.random.default_rng(0)
    pixels = rng.uniform(size=(12, 9, 3))
    assert np.allclose(_averaged(pixels, 4), downscale_local_mean(pixels, (3, 1, 1)))
    assert np.allclose(_averaged(pixels, 12), pixels)
    edges = np.linspace(0, 12, 6)
    overlap = np.minimum(edges[1:, None], np.arange(1, 13)) - np.maximum(edges[:-1, None], np.arange(12))
    weights = np.maximum(overlap, 0) / (12 / 5)
    assert np.allclose(_averaged(pixels, 5), np.tensordot(weights, pixels, axes=1))


@pytest.mark.parametrize("factor", [2, 3])
def test_the_resolution_of_an_image_does_not_matter(factor):
    image = skimage.data.astronaut()
    large = image.repeat(factor, axis=0).repeat(factor, axis=1)
    one, other = look_statistics(image), look_statistics(large)
    assert {name: other[name] for name in LOOKS} == pytest.approx({name: one[name] for name in LOOKS}, rel=1e-6)


def test_aspect_is_kept():
    assert _common_size(np.zeros((1000, 500, 3))).shape == (543, 272, 3)
    assert _common_size(np.zeros((COMMON, COMMON, 3))).shape == (COMMON, COMMON, 3)


@pytest.mark.parametrize("turn", [lambda a: a[::-1], lambda a: a[:, ::-1], lambda a: a.swapaxes(0, 1)])
def test_mirroring_and_turning_do_not_matter(turn):
    image = skimage.data.coffee()
    one, other = look_statistics(image), look_statistics(turn(image))
    assert {name: other[name] for name in LOOKS} == pytest.approx({name: one[name] for name in LOOKS}, rel=1e-2)


def test_every_kind_of_image_that_is_taken():
    image = PIL.Image.fromarray(skimage.data.astronaut())
    look = look_statistics(image)
    assert look == look_statistics(np.asarray(image)) == look_statistics(image.convert("RGBA"))
    gray = image.convert("L")
    assert look_statistics(gray) == look_statistics(np.asarray(gray)) == look_statistics(gray.convert("RGB"))
    assert look_statistics(gray.convert("LA")) == look_statistics(gray)
    few = image.quantize(64)
    assert (few.mode, look_statistics(few)) == ("P", look_statistics(few.convert("RGB")))
    assert look_statistics(image.convert("CMYK")) == look_statistics(image.convert("CMYK").convert("RGB"))
    assert look_statistics(gray.convert("1"))["saturation"] == 0
    few.info["transparency"] = 3
    with pytest.raises(ValueError, match="transparent pixels"):
        look_statistics(few)


def test_what_is_undefined_is_absent_and_named():
    shape = (COMMON, COMMON, 3)
    black = look_statistics(np.zeros(shape, dtype=np.uint8))
    assert (black.pop("notes"), black) == (
        {"saturation": "undefined: the image is black"} | dict.fromkeys(LOOKS[2:], "undefined: the image has no edges"),
        {"brightness": 0},
    )
    rng = np.random.default_rng(0)
    grain = as_image(np.repeat(128 + rng.normal(0, 0.5, (1024, 1024, 1)), 3, axis=2))
    assert "sharpness" not in look_statistics(grain)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((400, 400, 3)), r"expected an image of whole numbers from 0 to 255 \(uint8\), got float64"),
        (np.zeros((400, 400, 3), dtype=np.uint16), "got uint16"),
        (PIL.Image.new("F", (400, 400)), "got float32"),
        (PIL.Image.new("I;16", (400, 400)), "got uint16"),
        ("photo.jpg", "whole numbers .*, got <U9"),
        (
            np.zeros((400, 400, 2), dtype=np.uint8),
            r"expected an image of shape \(height, width, 3\), got \(400, 400, 2\)",
        ),
        (np.zeros(160_000, dtype=np.uint8), r"got \(160000,\)"),
        (np.zeros((400, 400, 4), dtype=np.uint8), "expected an opaque image, got transparent pixels"),
        (np.zeros((383, 384, 3), dtype=np.uint8), "expected at least 384² pixels, got 383 x 384"),
        (np.zeros((10, 20_000, 3), dtype=np.uint8), "expected an image with sides of at most 36 to 1, got 10 x 20000"),
    ],
)
def test_a_bad_image_gives_one_sentence(image, message):
    with pytest.raises(ValueError, match=message) as caught:
        look_statistics(image)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=rf"^generated, row 1 \(counted from 0\): .*{message}"):
        look_shift([edge(1), edge(1)], [edge(1), image])
