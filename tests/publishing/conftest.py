"""A small dataset folder of two configs, one with images."""

import io

import datasets
import numpy as np
import PIL.Image
import pytest

from widespectrum.publishing import Provenance, Source, features, save_card, save_config

NAME = "wide_spectrum_prompts"
WORDS = features({"text": "string", "tags": "list<string>", "tokens": "int32", "score": "float64", "kept": "bool"})
PICTURES = features({"name": "string", "image": "image"})


def words(count, word="one"):
    """`count` rows; every third one has nothing but a text."""
    rows = [
        {"text": f"{word} | café {n}", "tags": ["a"] * (n % 5), "tokens": n, "score": n / 7, "kept": n % 2 == 0}
        if n % 3
        else {"text": f"{word} {n}", "tags": None, "tokens": None, "score": None, "kept": None}
        for n in range(max(count, 1))
    ]
    return datasets.Dataset.from_list(rows, features=WORDS).select(range(count))


def png(seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    PIL.Image.fromarray(pixels).save(file := io.BytesIO(), "PNG")
    return file.getvalue()


def pictures(count):
    """`count` rows with an image and one without."""
    rows = [{"name": str(n), "image": {"bytes": png(n), "path": f"{n}.png"}} for n in range(count)]
    return datasets.Dataset.from_list([*rows, {"name": "none", "image": None}], features=PICTURES)


def terms(**more):
    return Provenance(**{"license": "cc-by-4.0", "license_reason": "made here", **more})


RIGHTS = {"image_rights": {"noise": "clear: drawn by a random generator"}}
MADE = {
    "sources": (Source(name="a list", license="CC0", url="https://example.org", sha256="0" * 64),),
    "options": {"seed": 3},
    "models": {"writer": "chat:small@v1"},
}


@pytest.fixture
def good(tmp_path):
    """The folder, with card and croissant.json; nothing is wrong with it."""
    out = tmp_path / "good"
    save_config(out, "words", {"lite": words(2), "test": words(7)}, terms(**MADE))
    save_config(out, "pictures", {"test": pictures(3)}, terms(**RIGHTS))
    save_card(out, NAME, {"dimensions": "none"}, default="words")
    return out
