"""Faces on real photographs: found at every size, and nowhere else."""

from functools import cache

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter

from widespectrum.judges.faces import MARGIN, crop_face, detector_facts, find_faces
from widespectrum.prompts import load_prompt_set, open_photograph

PHOTOGRAPHS = {pair.partition("/")[0]: place for pair, place in load_prompt_set("photographs").photographs.items()}
FACE = (224, 115)
"""Between the eyes and the mouth of the astronaut, in her photograph of 512 x 512."""


@cache
def astronaut():
    return open_photograph(PHOTOGRAPHS["astronaut"])


def resized(side):
    return lambda image: image.resize((side, side), Image.Resampling.LANCZOS)


CHANGES = {
    "128": resized(128),
    "256": resized(256),
    "1024": resized(1024),
    "gray": lambda image: image.convert("L"),
    "alpha": lambda image: image.convert("RGBA"),
    "palette": lambda image: image.quantize(64),
    "dark": lambda image: ImageEnhance.Brightness(image).enhance(0.3),
    "blurred": lambda image: image.filter(ImageFilter.GaussianBlur(3)),
    "turned left": lambda image: image.rotate(20, Image.Resampling.BICUBIC, center=FACE),
    # In this one a part of the suit looks like a larger face.
    "turned right": lambda image: image.rotate(-15, Image.Resampling.BICUBIC, center=FACE),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_the_one_face_is_found_whatever_was_done_to_the_photograph(change):
    image = change(astronaut())
    ((left, top, right, bottom),) = find_faces(image)
    scale = image.width / 512
    assert (left + right) / 2 / scale == pytest.approx(FACE[0], abs=12)
    assert (top + bottom) / 2 / scale == pytest.approx(FACE[1], abs=15)
    assert 60 < (right - left) / scale < 120


@pytest.mark.parametrize("name", sorted(set(PHOTOGRAPHS) - {"astronaut"}))
def test_no_face_is_found_where_there_is_none(name):
    assert find_faces(open_photograph(PHOTOGRAPHS[name])) == []


@pytest.mark.parametrize("size", [(1, 1), (3, 700), (900, 20)])
def test_images_too_small_or_narrow_for_a_face(size):
    assert find_faces(Image.fromarray(np.full((*size[::-1], 3), 90, dtype=np.uint8))) == []


def test_faces_come_largest_first_and_are_cut_at_the_edges():
    scene = Image.new("RGB", (768, 512), "gray")
    scene.paste(resized(256)(astronaut()), (512, 128))
    scene.paste(astronaut(), (0, 0))
    (large, small) = find_faces(scene)
    assert large[2] < 300 < 512 < small[0]
    assert large[2] - large[0] > 1.5 * (small[2] - small[0])
    # Of the face at the left edge a part is missing.
    ((left, top, right, bottom),) = find_faces(astronaut().crop((194, 0, 450, 256)))
    assert left == 0
    assert right - left < bottom - top


@pytest.mark.parametrize(
    "box, expected",
    [
        ((100, 80, 150, 130), (85, 65, 165, 145)),
        ((100, 80, 140, 130), (80, 65, 160, 145)),
        ((0, 0, 50, 50), (0, 0, 80, 80)),
        ((250, 150, 300, 200), (220, 120, 300, 200)),
        ((20, 10, 200, 190), (10, 0, 210, 200)),
    ],
)
def test_a_crop_is_square_with_the_margin_and_stays_inside(box, expected):
    assert MARGIN == 0.3
    rows, columns = np.mgrid[:200, :300]
    places = np.stack([rows, columns % 256, columns // 256], axis=-1).astype(np.uint8)
    left, top, right, bottom = expected
    crop = crop_face(Image.fromarray(places), box)
    assert np.array_equal(np.asarray(crop), places[top:bottom, left:right])


def test_what_identifies_the_detector():
    import dlib

    assert detector_facts() == {
        "detector": f"dlib-{dlib.__version__}",
        "detector_sha256": "f3f7aa833fb4a14a",
        "detector_size": 1024,
        "detector_share": 0.5,
        "margin": 0.3,
    }
