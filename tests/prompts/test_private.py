import json

import pytest

from widespectrum.errors import InputError
from widespectrum.prompts.coco import Caption
from widespectrum.prompts.private import SECRET, commitment, draw_secretly, read_secret, write_commitment

CAPTIONS = [Caption(caption_id=n, image_id=n // 2, text=f"A dog of kind {n} runs home.") for n in range(200)]
KEY = "0123456789abcdef0123456789abcdef"


def draw(secret=KEY, rotation="2026-12", captions=CAPTIONS):
    return draw_secretly(captions, 20, secret=secret, rotation=rotation)


def test_secret_and_rotation_decide_the_draw_and_the_order_of_the_file_does_not():
    drawn, seed = draw()
    assert draw(captions=CAPTIONS[::-1]) == (drawn, seed)
    assert len({caption.image_id for caption in drawn}) == 20
    for other in (draw(secret=KEY[::-1]), draw(rotation="2027-01")):
        assert other[1] != seed
        assert len(set(other[0]) & set(drawn)) < 12


@pytest.mark.parametrize("secret", ["", "short"])
def test_a_secret_must_be_long(monkeypatch, secret):
    monkeypatch.setenv(SECRET, secret)
    with pytest.raises(InputError, match=f"at least 32 characters in WIDESPECTRUM_SECRET.*got {len(secret)} char"):
        read_secret()
    monkeypatch.setenv(SECRET, KEY)
    assert read_secret() == KEY


@pytest.mark.parametrize("rotation", ["", "a b", "x/y"])
def test_a_rotation_must_be_a_name(rotation):
    with pytest.raises(InputError, match="name the rotation"):
        draw(rotation=rotation)


def test_more_pairs_than_images():
    with pytest.raises(InputError, match="101 pairs were asked for, but the captions show only 100 images"):
        draw_secretly(CAPTIONS, 101, secret=KEY, rotation="a")


def test_the_commitment_changes_with_any_text_and_with_the_rotation(tmp_path):
    row = {"pair_id": "coco-1", "original_prompt": "a", "wide_spectrum_prompt": "b", "dimensions": ["clarity"]}
    rows = [row, {**row, "pair_id": "coco-2"}]
    write_commitment(tmp_path, rows, "2026-12")
    written = json.loads((tmp_path / "commitment.json").read_text())
    assert written == {"rotation": "2026-12", "pairs": 2, "sha256": commitment(rows, "2026-12")}
    others = [commitment(rows[::-1], "2026-12"), commitment(rows, "2027-01"), commitment(rows[:1], "2026-12")]
    others += [commitment([{**row, name: "c"}, rows[1]], "2026-12") for name in row]
    assert len({written["sha256"], *others}) == 8
