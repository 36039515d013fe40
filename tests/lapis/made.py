"""A made-up annotation file of the shape of LAPIS: 26 styles, 7 genres, 40 raters."""

import csv

import numpy as np
import PIL.Image

from widespectrum.lapis.annotations import COLUMNS, options

STYLES, GENRES = options()["styles"], options()["genres"]
TRAITS = {"age": "age", "nationality": "nationality", "demo_gender": "gender", "demo_edu": "education"}
TRAITS |= {"demo_colorblind": "colorblind"}


def people(count, rng):
    """The answers of some raters; now and then one gives none."""
    answers = options()["answers"]
    made = []
    for rater in range(count):
        person = {
            "participant_id": 3 * rater,
            "age": int(rng.integers(18, 73)),
            "nationality": str(rng.choice(["british", "polish", "italian"], p=[0.6, 0.3, 0.1])),
            **{name: str(rng.choice(known)) for name, known in answers.items()},
            **{name: int(rng.integers(0, 7)) for name in COLUMNS if "VAIAK" in name},
        }
        if rng.random() < 0.2:
            person[str(rng.choice(list(TRAITS)))] = ""
        made.append(person)
    return made


def paintings():
    """Every style with one to seven genres, 1 to 4 paintings each."""
    made = []
    for row, style in enumerate(STYLES):
        for column, genre in enumerate(GENRES[: 1 + row % 7]):
            for copy in range(1 + (row + column) % 4):
                name = f"{style.lower()}_{genre.split()[0]}-{copy}.jpg"
                made.append({"file": f"{genre}/{name}", "image_id": 1000 + len(made), "style": style, "genre": genre})
    return made


def ratings():
    rng = np.random.default_rng(0)
    raters = people(40, rng)
    made = []
    for painting in paintings():
        for rater in rng.choice(len(raters), int(rng.integers(3, 25)), replace=False):
            made.append(
                {**painting, **raters[rater], "response": round(float(rng.uniform(0, 100)), 2), "title": "x, y"}
            )
    return made


def write(path, rows, columns=(*COLUMNS, "title")):
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return path


NAMES = [painting["file"].split("/")[1] for painting in paintings()]


def make_copy(folder):
    """A copy of LAPIS: ratings, lists, and the first twenty paintings."""
    for name in ("annotation", "imageset", "images"):
        (folder / name).mkdir(parents=True)
    write(folder / "annotation" / "LAPIS_individualratings_metaANDdemodata.csv", ratings())
    lists = {"Train": NAMES[:100], "Val": NAMES[100:120], "Test": NAMES[120:-1]}
    for name, listed in lists.items():
        (folder / "imageset" / f"{name}ImageSet.txt").write_text("\n".join(listed), encoding="utf-8")
    for name in NAMES[:20]:
        PIL.Image.effect_noise((24, 16), 50).convert("RGB").save(folder / "images" / name)
    return folder
