"""Miniature copies of the authors' datasets, with the same features."""

import io
import json

import datasets
import numpy as np
import PIL.Image

from widespectrum.importers import _SCORE_COLUMNS as SCORE_COLUMNS
from widespectrum.importers import CELLS

NUMBER, INTEGER, TEXT = datasets.Value("float64"), datasets.Value("int64"), datasets.Value("string")


LISTS = {f"hpsv3_{cell}": datasets.List(NUMBER) for cell in CELLS}


RATED = {"scores": datasets.List(NUMBER), "preds": datasets.List(INTEGER)}


JUDGED = [f"llm_{side}_{what}" for side in ("original", "distorted") for what in ("main_concepts", "special_effects")]


FEATURES = {
    "image_original": datasets.Image(),
    "image_distorted": datasets.Image(),
    "index": INTEGER,
    "prompt_original": TEXT,
    "prompt_distorted": TEXT,
    "selected_dims": TEXT,
    "llm_judge": dict.fromkeys(JUDGED, INTEGER) | {"llm_original_reasoning": TEXT, "llm_distorted_reasoning": TEXT},
    "hpsv2_reward": {f"hpsv2_{cell}": NUMBER for cell in CELLS},
    "image_reward": {f"image_reward_{cell}": NUMBER for cell in CELLS},
    "hpsv3_reward": {**LISTS, "hpsv3_reward": LISTS},
    "rater": {"original": RATED, "distorted": RATED},
    "llm_selected": INTEGER,
    "sec_llm_selected": INTEGER,
    "third_llm_selected": INTEGER,
    "blip_score": datasets.List(datasets.List(NUMBER)),
    "blip_selected": INTEGER,
    "model": TEXT,
}


DIMS = [["clarity", "emotion"], ["main object"], ["richness", "background", "color aesthetic"], ["object pairing"]]


PAIRS = 4


PAIR_FEATURES = {"original_prompt": TEXT, "disorted_long_prompt": TEXT, "selected": datasets.List(TEXT), "desc": TEXT}


def png(seed):
    """A small noisy picture, its bytes as PNG."""
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    PIL.Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def scores(tag, index):
    """The twelve scores of a pair, in the order of the numeric table."""
    rng = np.random.default_rng([sum(map(ord, tag)), index])
    return [round(float(value), 6) for value in rng.normal(size=len(SCORE_COLUMNS))]


def row(tag, index, *, values_of=None):
    named = dict(zip(SCORE_COLUMNS, scores(values_of or tag, index), strict=True))
    lists = {name: [named[name], -5.0] for name in LISTS}
    nested = {**dict.fromkeys(LISTS), "hpsv3_reward": lists} if index % 2 else {**lists, "hpsv3_reward": None}
    seed = 1000 * sum(map(ord, tag)) + index
    return {
        "image_original": {"bytes": png([seed, 0]), "path": None},
        "image_distorted": {"bytes": png([seed, 1]), "path": None},
        "index": index,
        "prompt_original": f"a thing number {index}",
        "prompt_distorted": f"a spoiled thing number {index} ",
        "selected_dims": json.dumps(DIMS[index]),
        "llm_judge": dict.fromkeys(JUDGED, 40) | {"llm_original_reasoning": "r", "llm_distorted_reasoning": "r"},
        "hpsv2_reward": {f"hpsv2_{cell}": named[f"hpsv2_{cell}"] for cell in CELLS},
        "image_reward": {f"image_reward_{cell}": named[f"image_reward_{cell}"] for cell in CELLS},
        "hpsv3_reward": nested,
        "rater": {
            side: {"scores": [0.1 * k for k in range(11)], "preds": [0] * 11} for side in ("original", "distorted")
        },
        "llm_selected": (1, 0, -1, 1)[index],
        "sec_llm_selected": 1,
        "third_llm_selected": None if index == 3 else -1,
        "blip_score": [[0.1, 0.9], [0.2, 0.8]],
        "blip_selected": 0,
        "model": tag,
    }


def rows(*tags):
    return [row(tag, index) for tag in tags for index in range(PAIRS)]


def write(folder, made, features=FEATURES, name="train-00000-of-00001"):
    folder.mkdir(parents=True, exist_ok=True)
    datasets.Dataset.from_list(made, features=datasets.Features(features)).to_parquet(folder / f"{name}.parquet")
    return folder


def pair(original, wide, selected=("clarity",)):
    return {"original_prompt": original, "disorted_long_prompt": wide, "selected": list(selected), "desc": "d"}
