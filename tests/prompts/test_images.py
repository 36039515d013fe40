from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

from widespectrum.errors import InputError
from widespectrum.prompts.images import luma, open_photograph, to_rgb


def test_orientation_is_applied_and_metadata_dropped(tmp_path: Path) -> None:
    image = Image.new("RGB", (40, 20), "black")
    image.paste("white", (0, 0, 20, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its side: turn by 90 degrees clockwise
    image.save(tmp_path / "a.png", exif=exif)
    upright = open_photograph(tmp_path / "a.png")
    assert upright.size == (20, 40)
    assert upright.getpixel((10, 5)) == (255, 255, 255)
    assert upright.getpixel((10, 35)) == (0, 0, 0)
    assert upright.info == {}
    assert not upright.getexif()


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "1"])
def test_any_mode_becomes_rgb(mode: str, tmp_path: Path) -> None:
    image = Image.new("RGB", (4, 4), "white").convert(mode)
    assert to_rgb(image).getpixel((0, 0)) == (255, 255, 255)
    suffix = "tif" if mode == "CMYK" else "png"
    image.save(tmp_path / f"a.{suffix}")
    assert open_photograph(tmp_path / f"a.{suffix}").mode == "RGB"


def test_transparency_lies_over_white() -> None:
    assert to_rgb(Image.new("RGBA", (1, 1), (255, 0, 0, 0))).getpixel((0, 0)) == (255, 255, 255)
    palette = Image.new("P", (1, 1))
    palette.putpalette([9, 9, 9])
    palette.info["transparency"] = 0
    assert to_rgb(palette).getpixel((0, 0)) == (255, 255, 255)


def test_luma_weights() -> None:
    assert np.allclose(luma(np.eye(3)), [0.299, 0.587, 0.114])


def test_what_cannot_be_opened_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"no photograph at .*absent\.png"):
        open_photograph(tmp_path / "absent.png")
    (tmp_path / "text.png").write_text("hello", encoding="utf-8")
    with pytest.raises(InputError, match=r"text\.png is not an image"):
        open_photograph(tmp_path / "text.png")
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(InputError, match=r"deep\.png has more than 8 bits"):
        open_photograph(tmp_path / "deep.png")
    Image.new("RGB", (30, 30)).save(tmp_path / "large.png")
    for limit in (500, 100):  # above the limit Pillow warns, above twice the limit it raises
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(InputError, match=rf"large\.png is too large: .* at most {limit} pixels"):
            open_photograph(tmp_path / "large.png")


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n"


def test_the_name_does_not_choose_the_decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow hands EPS to Ghostscript, whatever the file is called."""
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_: pytest.fail("Ghostscript was started"))
    (tmp_path / "a.png").write_bytes(EPS)
    with Image.open(tmp_path / "a.png") as file:
        assert file.format == "EPS"
    with pytest.raises(InputError, match=r"a\.png is not an image that can be read, expected one of JPEG, PNG, BMP"):
        open_photograph(tmp_path / "a.png")
    Image.new("RGB", (4, 4)).save(tmp_path / "b.png", "GIF")
    with pytest.raises(InputError, match=r"b\.png is not an image that can be read"):
        open_photograph(tmp_path / "b.png")
    Image.new("RGB", (4, 4)).save(tmp_path / "c.png", "JPEG")
    assert open_photograph(tmp_path / "c.png").size == (4, 4)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp", "tif"])
def test_a_truncated_file_is_an_error(tmp_path: Path, suffix: str) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with pytest.raises(InputError, match=rf"a\.{suffix}"):
        open_photograph(path)
