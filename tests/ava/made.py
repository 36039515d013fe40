"""Made-up files of the shape of AVA, with embeddings in which a photograph is planted for every query."""

import json

import numpy as np
from PIL import Image

from widespectrum.ava.queries import query_set, query_texts

QUERIES = query_set()
TEXTS = query_texts(QUERIES)
COUNT = len(QUERIES) + 10
DROPPED = 61
"""Photograph n (1 to 60) is planted for query n; 61 looks like a watermark; the others like nothing."""


def make_ava(folder, model="transformers:tiny@v1"):
    """AVA's files, photographs (60 is missing, 59 is no image), and embeddings of photographs and of query texts."""
    lines = [f"{n} {n} 0 0 {n} 0 5 0 0 0 0 0 1 0 7" for n in range(1, COUNT + 1)]
    (folder / "AVA.txt").write_text("\n".join(lines) + "\n")
    (folder / "challenges.txt").write_text("7 Blurry_Mess\n")
    (folder / "tags.txt").write_text("1 Abstract\n")
    (folder / "images").mkdir()
    for n in range(1, 60):
        Image.new("RGB", (20, 16), (4 * n, 255 - 4 * n, 90)).save(folder / "images" / f"{n}.jpg", quality=95)
    (folder / "images" / "59.jpg").write_bytes(b"no image")
    dimension = len(TEXTS) + 1
    axes, images = np.eye(len(TEXTS), dimension), np.zeros((COUNT, dimension))
    for n, query in enumerate(QUERIES):
        images[n, TEXTS.index(query.text)], images[n, -1] = 3, 4
    images[DROPPED - 1, TEXTS.index(QUERIES[0].text)] = images[DROPPED - 1, TEXTS.index(QUERIES[0].negatives[0])] = 1
    images[DROPPED:, -1] = 1
    for name, array in (("photographs", images.astype(np.float16)), ("texts", axes.astype(np.float32))):
        (folder / name).mkdir()
        np.save(folder / name / "embeddings.npy", array)
        (folder / name / "model.json").write_text(json.dumps({"model": model, "dimension": dimension}))
    np.save(folder / "photographs" / "ids.npy", np.arange(1, COUNT + 1))
    (folder / "texts" / "queries.json").write_text(json.dumps(TEXTS))
    return folder


def select(builder, ava, out, **options):
    """The step `select` with the embeddings of `make_ava`."""
    given = {"embeddings": ava / "photographs", "query_embeddings": ava / "texts", "thresholds": "clip", **options}
    return builder.select(out, **given)
