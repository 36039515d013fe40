"""Images that already exist: which file stands for which prompt, and what is said where none does."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from widespectrum.errors import InputError
from widespectrum.generators import load_generator
from widespectrum.protocols import Failure
from widespectrum.types import Prompt

OWN = Prompt(prompt_id="", text="a café", pair_id="café/clarity", role="original")
WIDE = Prompt(
    prompt_id="", text="a blurred café", pair_id="café/clarity", role="wide_spectrum", dimensions=("clarity",)
)


def picture(level: int) -> PIL.Image.Image:
    return PIL.Image.new("RGB", (6, 4), (level, 255 - level, 7))


def save(folder: Path, *names: str) -> Path:
    """Files of these names; the number of each is its level of red."""
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        picture(number).save(folder / name, lossless=True)
    return folder


def levels(folder: Path, *seeds: int) -> list[int]:
    """Which of the files stand for OWN and WIDE with each seed."""
    seeds = seeds or (0,)
    generator = load_generator("folder", folder=folder)
    images = generator.generate([OWN, WIDE] * len(seeds), seeds=[seed for seed in seeds for _ in range(2)])
    assert not any(isinstance(image, Failure) for image in images), images
    return [image.getpixel((0, 0))[0] for image in images]


def test_subfolders_for_the_roles(tmp_path: Path) -> None:
    folder = save(tmp_path, "original/café/clarity.png", "wide_spectrum/cafe\u0301/clarity.webp", "notes/a.png")
    assert levels(folder) == [0, 1]
    assert levels(folder, 0, 7) == [0, 1, 0, 1]


def test_files_named_by_the_prompt(tmp_path: Path) -> None:
    folder = save(tmp_path, f"{WIDE.prompt_id}.PNG", f"{OWN.prompt_id}.png", "of-another-set.png", ".hidden.png")
    assert levels(folder) == [1, 0]


@pytest.mark.parametrize("name", ["images.csv", "metadata.csv"])
def test_a_table_of_prompt_ids(tmp_path: Path, name: str) -> None:
    save(tmp_path, "a.png", "deep/b.png")
    text = f"file_name,prompt_id,note\ndeep/b.png,{OWN.prompt_id},x\na.png,{WIDE.prompt_id},\na.png,other,\n"
    (tmp_path / name).write_text(text)
    assert levels(tmp_path) == [1, 0]


def test_a_table_of_pairs_and_seeds(tmp_path: Path) -> None:
    save(tmp_path, "0.png", "1.png", "2.png")
    rows = [("0.png", "original", None), ("1.png", "wide_spectrum", 3), ("2.png", "wide_spectrum", 4)]
    columns = [{"file": file, "pair_id": OWN.pair_id, "role": role, "seed": seed} for file, role, seed in rows]
    pq.write_table(pa.Table.from_pylist(columns), tmp_path / "images.parquet")
    assert levels(tmp_path, 3, 4) == [0, 1, 0, 2]
    (missing,) = load_generator("folder", folder=tmp_path).generate([WIDE], seeds=[0])
    assert isinstance(missing, Failure)
    assert (
        "no image for the wide_spectrum prompt of pair 'café/clarity' with seed 0: looked for a row of"
        in missing.reason
    )


def test_images_are_upright_in_rgb_and_without_metadata(tmp_path: Path) -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    image = PIL.Image.new("L", (6, 4))
    image.putpixel((0, 0), 200)
    image.save(tmp_path / f"{OWN.prompt_id}.png", exif=exif)
    generator = load_generator("folder", folder=tmp_path)
    first, second = (generator.generate([OWN], seeds=[0])[0] for _ in range(2))
    assert (first.mode, first.size, first.info, dict(first.getexif())) == ("RGB", (4, 6), {}, {})
    assert first.getpixel((3, 0)) == (200, 200, 200)
    assert first is not second


def test_a_missing_or_unreadable_image_is_a_failure_of_that_prompt_alone(tmp_path: Path) -> None:
    save(tmp_path, f"{OWN.prompt_id}.jpg")
    generator = load_generator("folder", folder=tmp_path)
    assert not generator.needs_images
    there, missing = generator.generate([OWN, WIDE], seeds=[0, 0])
    assert not isinstance(there, Failure)
    expected = f"{tmp_path}/wide_spectrum/café/clarity.png and {tmp_path}/{WIDE.prompt_id}.png (or .jpg, .jpeg, .webp)"
    reason = f"no image for the wide_spectrum prompt of pair 'café/clarity' with seed 0: looked for {expected}"
    assert missing == Failure(reason, "input")
    (tmp_path / f"{OWN.prompt_id}.jpg").write_bytes(b"nothing")
    (damaged,) = generator.generate([OWN], seeds=[0])
    assert damaged.cause == "input"
    assert f"{OWN.prompt_id}.jpg is not an image that can be read" in damaged.reason


def test_an_image_beyond_the_pixel_limit_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, f"{OWN.prompt_id}.png")
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 20)
    (answer,) = load_generator("folder", folder=tmp_path).generate([OWN], seeds=[0])
    assert isinstance(answer, Failure)
    assert "too large" in answer.reason


def test_two_files_for_one_prompt(tmp_path: Path) -> None:
    save(tmp_path, "original/café/clarity.png", f"{OWN.prompt_id}.png")
    (answer,) = load_generator("folder", folder=tmp_path).generate([OWN], seeds=[0])
    assert isinstance(answer, Failure)
    assert "two images for the original prompt of pair 'café/clarity'" in answer.reason
    save(tmp_path, "original/café/clarity.jpg")
    with pytest.raises(
        InputError, match=r"names two images for café/clarity original: .*clarity\.jpg and .*clarity\.png"
    ):
        load_generator("folder", folder=tmp_path)


def test_the_spec_is_that_of_the_files_and_not_of_their_place(tmp_path: Path) -> None:
    one, other = (save(tmp_path / name, "original/a.png", "wide_spectrum/a.png") for name in ("one", "other"))
    specs = [load_generator("folder", folder=folder).spec for folder in (one, other)]
    assert specs[0] == specs[1]
    assert specs[0].params["images"] == 2
    assert type(specs[0]).parse(str(specs[0])) == specs[0]
    # The same two files, the other way round.
    contents = [(other / role / "a.png").read_bytes() for role in ("original", "wide_spectrum")]
    assert hashlib.sha256(contents[0]).digest() != hashlib.sha256(contents[1]).digest()
    for role, content in zip(("wide_spectrum", "original"), contents, strict=True):
        (other / role / "a.png").write_bytes(content)
    assert load_generator("folder", folder=other).spec != specs[0]


TABLE = "file,pair_id,role,seed\n"


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("file,text\na.png,x\n", r"needs the columns file, and prompt_id or both pair_id and role; found file, text"),
        (TABLE + "a.png,p,origin,\n", "row 2: role must be original or wide_spectrum; got 'origin'"),
        (TABLE + "a.png,p,original,-1\n", "row 2: seed must be a whole number of 0 or more, or empty .*; got '-1'"),
        (TABLE + ",p,original,\n", "row 2: file must be a text that is not empty; got ''"),
        (
            TABLE + "a.png,p,original,0\nb.png,p,original,00\n",
            r"two images for p original 0: a\.png and b\.png: remove",
        ),
        (TABLE + "c.png,p,original,\n", r"row 2: there is no file .*c\.png: add it or remove the row"),
        (TABLE + "../outside.png,p,original,\n", r"row 2: the file '\.\./outside\.png' lies outside .*: copy it into"),
        (TABLE + "/etc/hostname,p,original,\n", "row 2: the file '/etc/hostname' lies outside"),
        (TABLE + "link.png,p,original,\n", r"row 2: the file 'link\.png' lies outside"),
        (TABLE, "has no rows below its header"),
    ],
)
def test_bad_tables(tmp_path: Path, table: str, message: str) -> None:
    folder = save(tmp_path / "images", "a.png", "b.png")
    save(tmp_path, "outside.png")
    (folder / "link.png").symlink_to(tmp_path / "outside.png")
    (folder / "images.csv").write_text(table)
    with pytest.raises(InputError, match=message):
        load_generator("folder", folder=folder)


def test_bad_folders(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="generator 'folder' needs the option 'folder'"):
        load_generator("folder")
    with pytest.raises(InputError, match=r"expected a folder with images, there is nothing at /.*nowhere"):
        load_generator("folder", folder=tmp_path / "nowhere")
    (tmp_path / "a.txt").touch()
    with pytest.raises(InputError, match=r"there is a file at /.*a\.txt"):
        load_generator("folder", folder=tmp_path / "a.txt")
    with pytest.raises(InputError, match=r"holds no images; expected a table images\.csv or .*<prompt_id>\.png"):
        load_generator("folder", folder=tmp_path)
    save(tmp_path, "outside.png", "images/a.png")
    (tmp_path / "images" / "b.png").symlink_to(tmp_path / "outside.png")
    with pytest.raises(InputError, match=r"b\.png: the file 'b\.png' lies outside"):
        load_generator("folder", folder=tmp_path / "images")
    for name in ("images.csv", "metadata.csv"):
        (tmp_path / name).touch()
    with pytest.raises(InputError, match=r"has both images\.csv and metadata\.csv: remove one"):
        load_generator("folder", folder=tmp_path)


def test_pixels_are_those_of_the_file(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    PIL.Image.fromarray(pixels).save(tmp_path / f"{WIDE.prompt_id}.png")
    (image,) = load_generator("folder", folder=tmp_path).generate([WIDE], seeds=[5])
    assert np.array_equal(np.asarray(image), pixels)
