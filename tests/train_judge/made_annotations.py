"""A small data set in the schema of VisionRewardDB-Image, in which brightness decides "color brightness"."""

import io
from pathlib import Path

import datasets
import numpy as np
import PIL.Image

KEYS = (
    *("symmetry", "richness", "color aesthetic", "detail realism", "safety", "body", "lighting aesthetic"),
    *("lighting distinction", "background", "emotion", "main object", "color brightness", "face", "hands", "clarity"),
    *("detail refinement", "unsafe type", "object pairing"),
)
"""As the card of the data set has them."""

FEATURES = datasets.Features(
    {
        "internal_id": datasets.Value("string"),
        "url": datasets.Value("string"),
        "image": datasets.Image(),
        "prompt": datasets.Value("string"),
        "annotation": {key: datasets.Value("int64") for key in KEYS},
        "meta_result": datasets.List(datasets.Value("int64")),
        "meta_mask": datasets.List(datasets.Value("int64")),
    }
)

SIZES = ((128, 128), (192, 96), (80, 200), (256, 128), (140, 180))
LIGHT = (20, 128, 235)


def picture(number: int) -> tuple[bytes, int]:
    """The bytes of an image as PNG, and its brightness: -1, 0 or 1."""
    rng = np.random.default_rng(number)
    bright = number % 3 - 1
    width, height = SIZES[number % len(SIZES)]
    pixels = np.clip(LIGHT[bright + 1] + rng.normal(0, 8, (height, width, 3)), 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    PIL.Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue(), bright


def rows(count: int) -> list[dict]:
    """Rows with every annotation at 0 but brightness; no hands in any, a face in every second one."""
    made = []
    for number in range(count):
        content, bright = picture(number)
        annotation = dict.fromkeys(KEYS, 0) | {"color brightness": bright, "hands": -4, "face": -3 if number % 2 else 1}
        made.append(
            {
                "internal_id": str(number),
                "url": "",
                "image": {"bytes": content, "path": f"{number}.png"},
                "prompt": f"image {number}",
                "annotation": annotation,
                "meta_result": [1, 0],
                "meta_mask": [1, 1],
            }
        )
    return made


def save(folder: Path, made: list[dict], features: datasets.Features = FEATURES) -> Path:
    """The folder, with the rows in Parquet files named as on the Hub."""
    (folder / "data").mkdir(parents=True)
    half = len(made) // 2
    for number, part in enumerate((made[:half], made[half:])):
        table = datasets.Dataset.from_list(part, features=features)
        table.to_parquet(folder / "data" / f"train-{number:05d}-of-00002.parquet")
    return folder
