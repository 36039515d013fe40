"""Where the faces of an image are: dlib's detector of frontal faces, which is compiled into the library."""

from __future__ import annotations

import hashlib
from functools import cache
from typing import Any, TypeAlias

import numpy as np
from PIL.Image import Image, Resampling

from widespectrum.prompts.images import to_rgb
from widespectrum.types import Parameter

__all__ = ["MARGIN", "SHARE", "WORKING_SIZE", "Box", "crop_face", "detector_facts", "find_faces"]

Box: TypeAlias = tuple[int, int, int, int]
"""(left, top, right, bottom) in pixels of the image; right and bottom lie outside."""

WORKING_SIZE = 1024
"""Faces are looked for at this long side, whatever the size of the image. The detector sees those of 80 pixels and
more, so that a face has to fill about a twelfth of it."""

SHARE = 0.5
"""What a face needs of the highest confidence in its image: folds and badges that look a little like a face beside a
real one, and may be larger than it, have less."""

MARGIN = 0.3
"""What a crop shows around a face on each side, as a share of the longer side of its box."""


@cache
def _detector() -> Any:
    import dlib

    return dlib.get_frontal_face_detector()


@cache
def detector_facts() -> dict[str, Parameter]:
    """What decides which part of an image is taken for the face."""
    import dlib

    # The library writes its detector in one form on all machines; the file of the library differs from one to another.
    (weights,) = _detector().__getstate__()
    return {
        "detector": f"dlib-{dlib.__version__}",
        "detector_sha256": hashlib.sha256(weights).hexdigest()[:16],
        "detector_size": WORKING_SIZE,
        "detector_share": SHARE,
        "margin": MARGIN,
    }


def find_faces(image: Image) -> list[Box]:
    """The faces that look more or less toward the viewer, the largest first; cut off at the edges of the image.

    Not found are profiles, faces bent far down or hidden in part, and those shorter than a twelfth of the long side.
    Source: histograms of oriented gradients, Dalal and Triggs 2005, as trained in dlib (King 2009, JMLR 10).
    """
    rgb = to_rgb(image)
    scale = WORKING_SIZE / max(rgb.size)
    width, height = (max(1, round(side * scale)) for side in rgb.size)
    resized = rgb.resize((width, height), Resampling.BICUBIC)
    boxes, confidences, _ = _detector().run(np.asarray(resized))
    across, down = rgb.width / width, rgb.height / height
    found = []
    for box, confidence in zip(boxes, confidences, strict=True):
        left, top = max(0, round(box.left() * across)), max(0, round(box.top() * down))
        right = min(rgb.width, round((box.right() + 1) * across))
        bottom = min(rgb.height, round((box.bottom() + 1) * down))
        if confidence >= SHARE * max(confidences) and left < right and top < bottom:
            found.append((left, top, right, bottom))
    # By place where two are of one size, so that the order is always the same.
    return sorted(found, key=lambda box: (-(box[2] - box[0]) * (box[3] - box[1]), box))


def crop_face(image: Image, box: Box) -> Image:
    """A square of `image` around `box` with MARGIN on each side; moved inward, and then made smaller, at the edges.

    Square, because matching models squash what they are shown.
    """
    left, top, right, bottom = box
    side = min(round(max(right - left, bottom - top) * (1 + 2 * MARGIN)), *image.size)
    x = min(max(0, round((left + right - side) / 2)), image.width - side)
    y = min(max(0, round((top + bottom - side) / 2)), image.height - side)
    return image.crop((x, y, x + side, y + side))
