"""The config `controlled`: every effect at every strength, the same pixels on every run."""

import hashlib
import io
import re
from itertools import groupby, islice
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from widespectrum import controlled
from widespectrum.controlled import controlled_rows, generator_specs, image_rights, left_out, pixel_digest
from widespectrum.errors import InputError
from widespectrum.functional import dose_response
from widespectrum.generators.effects import EFFECTS
from widespectrum.generators.photographs import fit
from widespectrum.prompts import load_prompt_set, open_photograph
from widespectrum.prompts.pairs import pair_prompts
from widespectrum.types import ModelSpec

CLEAR = ["astronaut", "chelsea", "coffee", "rocket", "china", "flower"]
DIGEST_AT_128 = "3db7f700148ca0ab7d7ab53c3234d05ee84470449270ad6454163c1524ff95b3"


@pytest.fixture(scope="module")
def rows():
    return list(controlled_rows(size=128))


def pixels(row):
    return np.asarray(PIL.Image.open(io.BytesIO(row["image"]["bytes"])))


def series(rows):
    return [list(group) for _, group in groupby(rows, key=lambda row: row["pair_id"])]


def test_every_photograph_of_clear_rights_with_every_effect_at_every_strength(rows):
    assert {tuple(row) for row in rows} == {tuple(controlled.FEATURES)}
    cells = [(row["photograph"], row["effect"], row["strength"]) for row in rows]
    assert cells == [(name, effect, strength) for name in CLEAR for effect in EFFECTS for strength in range(5)]
    assert [row["row_id"] for row in rows] == ["/".join(map(str, cell)) for cell in cells]
    assert list(left_out()) == ["motorcycle"]


def test_the_pixels_are_the_pinned_ones(rows):
    assert pixel_digest(rows) == DIGEST_AT_128
    assert pixel_digest(controlled_rows(size=128, seed=1)) != DIGEST_AT_128


@pytest.mark.slow
def test_the_pixels_of_the_published_rows_are_the_pinned_ones():
    assert pixel_digest(controlled_rows()) == controlled.DIGEST


def test_strength_0_is_the_photograph_and_no_other_strength_is(rows):
    shipped = load_prompt_set("photographs")
    paths = {prompt.subset: shipped.photographs[prompt.pair_id] for prompt in shipped.prompts}
    originals = {name: np.asarray(fit(open_photograph(paths[name]), 128)) for name in CLEAR}
    for group in series(rows):
        assert np.array_equal(pixels(group[0]), originals[group[0]["photograph"]])
        assert len({row["pixel_sha256"] for row in group}) == 5


def test_ids_and_sizes_are_those_of_the_image(rows):
    for row in rows[::17]:
        picture = pixels(row)
        assert (row["height"], row["width"], 3) == picture.shape
        assert row["image_id"] == hashlib.sha256(row["image"]["bytes"]).hexdigest()
        text = f"RGB {row['width']} {row['height']}\n".encode()
        assert row["pixel_sha256"] == hashlib.sha256(text + picture.tobytes()).hexdigest()


def test_the_prompt_asks_for_the_effect_by_its_name_and_for_no_other(rows):
    for row in (group[0] for group in series(rows)):
        original, wide = pair_prompts(row)
        named = [name for name in EFFECTS if re.search(rf"\b{name}\b", wide.text, re.IGNORECASE)]
        assert named == [row["effect"]]
        assert wide.dimensions == (row["dimension"],) == (EFFECTS[row["effect"]].dimension,)
        assert wide.text.startswith(f"{original.text}. ")


def test_only_one_image_is_made_at_a_time(monkeypatch):
    opened = []
    monkeypatch.setattr(controlled, "open_photograph", lambda path: opened.append(path) or open_photograph(path))
    assert [row["strength"] for row in islice(controlled_rows(size=128), 6)] == [0, 1, 2, 3, 4, 0]
    assert len(opened) == 1


def test_the_columns_are_what_the_dose_response_takes(rows):
    contrast = [float(pixels(row).std()) for row in rows]
    result = dose_response(
        [*contrast, *(-value for value in contrast)],
        [row["strength"] for row in rows] * 2,
        [False] * len(rows) + [True] * len(rows),
        series=[row["pair_id"] for row in rows] * 2,
        dimension=[row["dimension"] for row in rows] * 2,
        prompt_id=[row["photograph"] for row in rows] * 2,
        n_resamples=20,
    )
    assert result["n_pairs"] == 6 * len(EFFECTS)
    assert result["by_dimension"]["lighting distinction"]["slope_unrequested"] < 0


@pytest.fixture
def photos(tmp_path):
    """Two photographs, `garden.png` and `street.png`."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, angle in (("garden", 0), ("street", 90)):
        PIL.Image.linear_gradient("L").rotate(angle).convert("RGB").resize((144, 96)).save(folder / f"{name}.png")
    return folder


def test_own_photographs_have_the_rights_that_their_owner_states(photos, tmp_path):
    captions = tmp_path / "captions.csv"
    captions.write_text("file,caption\ngarden.png,A garden!\n")
    rows = list(controlled_rows(photos, captions, size=128))
    assert [row["row_id"] for row in rows[::65]] == ["garden.png/empty flat field/0", "street.png/empty flat field/0"]
    assert {row["original_prompt"] for row in rows} == {"A garden!", "street"}
    assert all(row["wide_spectrum_prompt"].startswith(("A garden! ", "Street. ")) for row in rows)
    assert {row["license"] + row["credit"] for row in rows} == {""}
    assert set(image_rights(photos, captions)) == {"garden.png", "street.png"}
    assert all(text.startswith("unclear: ") for text in image_rights(photos).values())
    assert set(image_rights(photos, rights="mine, CC0-1.0").values()) == {"clear: mine, CC0-1.0"}


def test_the_rights_in_the_shipped_photographs_are_those_of_the_card(rows):
    rights = controlled.photograph_rights()
    assert list(rights) == list(dict.fromkeys(prompt.subset for prompt in load_prompt_set("photographs").prompts))
    assert image_rights() == {name: f"clear: {rights[name]['license']}; {credit}" for name, credit in _credits(rows)}
    assert image_rights(unclear=True)["motorcycle"].startswith("unclear: none given; Nera Nesic")
    assert {row["photograph"] for row in islice(controlled_rows(size=128, unclear=True), 260, 325)} == {"motorcycle"}
    card = (Path(__file__).parents[1] / "cards" / "photographs.md").read_text("utf-8")
    for name, entry in rights.items():
        (line,) = [line for line in card.splitlines() if line.startswith(f"| {name} |")]
        assert entry["credit"].split(",")[0].split(" (")[0] in line
        assert ("unclear" in line) == (entry["status"] == "unclear")
        assert entry["url"] in line or "CC0" in line


def _credits(rows):
    return dict.fromkeys((row["photograph"], row["credit"]) for row in rows)


def test_the_specs_name_every_strength():
    specs = {label: ModelSpec.parse(text) for label, text in generator_specs(128).items()}
    assert [spec.params["strength"] for spec in specs.values()] == [0, 1, 2, 3, 4]
    assert all(str(spec.params["strength"]) in label and spec.revision for label, spec in specs.items())


def test_a_photograph_that_is_too_small_is_named(photos):
    PIL.Image.new("RGB", (100, 127)).save(photos / "a.png")
    with pytest.raises(InputError, match=r"a\.png has 100 x 127 pixels: expected a longer side of at least 128"):
        next(controlled_rows(photos))


def test_a_size_that_cannot_be_is_named_before_the_work_begins():
    with pytest.raises(InputError, match="size must be a whole number from 16 to 8192 pixels; got 9"):
        next(controlled_rows(size=9))
    with pytest.raises(InputError, match=r"the size must be at least 128 pixels, .* got 127"):
        next(controlled_rows(size=127))
