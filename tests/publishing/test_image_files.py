from __future__ import annotations

import io
import os
import random
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from widespectrum.errors import InputError
from widespectrum.prompts import images as photographs
from widespectrum.publishing.image_files import (
    FORMATS,
    Folder,
    UnreadError,
    check_image,
    quiet,
    read_groups,
    read_image,
)


def photograph(mode="RGB", size=(96, 64), seed=0):
    rng = np.random.default_rng(seed)
    light = np.linspace(20, 230, size[0])[None, :, None] + rng.normal(0, 20, (size[1], size[0], 3))
    return Image.fromarray(np.clip(light, 0, 255).astype(np.uint8)).convert(mode)


def encoded(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def exif():
    found = Image.Exif()
    found[0x010E] = "a photograph " * 20
    return found


FRAMES = [photograph(seed=seed) for seed in range(1, 4)]
DEEP = Image.fromarray(np.arange(96 * 64, dtype=np.uint16).reshape(64, 96) * 10)

JPEGS = {
    "baseline": encoded(photograph(), "JPEG", quality=85),
    "gray": encoded(photograph("L"), "JPEG"),
    "CMYK": encoded(photograph("CMYK"), "JPEG"),
    "EXIF": encoded(photograph(), "JPEG", exif=exif()),
    "restarts": encoded(photograph(), "JPEG", restart_marker_rows=1),
    "4:4:4": encoded(photograph(), "JPEG", subsampling=0, optimize=True),
    "progressive": encoded(photograph(), "JPEG", progressive=True),
    "progressive restarts": encoded(photograph("CMYK"), "JPEG", progressive=True, restart_marker_rows=1),
    "large": encoded(photograph(size=(200, 333)), "JPEG", progressive=True),
}
OTHERS = {
    "PNG": encoded(photograph(), "PNG"),
    "PNG, palette": encoded(photograph("P"), "PNG", transparency=3),
    "PNG, 16 bits": encoded(DEEP, "PNG"),
    "PNG, animated": encoded(photograph(), "PNG", save_all=True, append_images=FRAMES),
    "BMP": encoded(photograph(), "BMP"),
    "TIFF": encoded(photograph(), "TIFF"),
    "TIFF, 16 bits, deflated": encoded(DEEP, "TIFF", compression="tiff_deflate"),
    "TIFF, pages": encoded(photograph(), "TIFF", save_all=True, append_images=FRAMES, compression="tiff_lzw"),
    "WEBP": encoded(photograph(), "WEBP"),
    "WEBP, animated": encoded(photograph(), "WEBP", save_all=True, append_images=FRAMES),
    "MPO": encoded(photograph(), "MPO", save_all=True, append_images=FRAMES),
}


def refusal(content):
    """Why a file is refused, or None."""
    with quiet():
        try:
            check_image(content)
        except InputError as error:
            return str(error)
    return None


def test_the_same_formats_are_taken_as_for_photographs():
    assert FORMATS == photographs._FORMATS


@pytest.mark.parametrize("name", [*JPEGS, *OTHERS])
def test_whole_files_pass_with_their_size(name):
    content = {**JPEGS, **OTHERS}[name]
    assert check_image(content) == Image.open(io.BytesIO(content)).size
    if "TIFF" not in name:  # TIFF goes by offsets: there is no end to look for
        assert check_image(content + b"\0camera's own data" * 9) == check_image(content)


@pytest.mark.parametrize("name", [*JPEGS, *OTHERS])
@pytest.mark.parametrize("part", [3, 0.02, 0.1, 0.35, 0.6, 0.9, -20])
def test_files_that_are_cut_off_are_refused(name, part):
    content = {**JPEGS, **OTHERS}[name]
    if name == "MPO":  # the first picture of the file is what is shown
        content = content[: content.index(b"\xff\xd9") + 2]
    end = int(part * len(content)) if isinstance(part, float) else part
    assert refusal(content[:end])


@pytest.mark.parametrize("name", JPEGS)
def test_jpeg_files_with_a_lost_tail_are_refused_though_pillow_may_show_them(name):
    content = JPEGS[name]
    half = len(content) // 2
    assert "cut off" in refusal(content[:half] + bytes(len(content) - half))
    assert "cut off" in refusal(content[:-2])
    assert "cut off" in refusal(content[:-1])
    assert "cut off" in refusal(content[:half] + b"\xff" * half)


def damaged(rng, content):
    """One of the ways in which files get damaged."""
    at = rng.randrange(2, len(content) - 64)
    other = rng.choice(list(JPEGS.values()))
    ways = (
        lambda: content[:at],
        lambda: content[:at] + b"\xff\xd9",
        lambda: content[:at] + bytes([content[at] ^ 1 << rng.randrange(8)]) + content[at + 1 :],
        lambda: content[:at] + rng.randbytes(64) + content[at + 64 :],
        lambda: content[:at] + content[at + rng.randrange(1, 64) :],
        lambda: content[:at] + rng.randbytes(rng.randrange(1, 9)) + content[at:],
        lambda: content[:at] + bytes([0xFF, rng.randrange(1, 255)]) + content[at + 2 :],
        lambda: content[:at] + other[min(at, len(other)) :],
    )
    return rng.choice(ways)()


def decodes(content):
    with quiet():
        try:
            with Image.open(io.BytesIO(content), formats=("JPEG",)) as image:
                image.load()
        except Exception:
            return False
    return True


@pytest.mark.parametrize("name", JPEGS)
def test_what_decoding_the_whole_jpeg_file_refuses_is_refused(name):
    rng = random.Random(name)
    files = [damaged(rng, JPEGS[name]) for _ in range(400)]
    broken = [content for content in files if not decodes(content)]
    assert len(broken) > 40
    assert all(refusal(content) for content in broken)


def png(width, height):
    """A PNG file whose header promises more than there is."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    content = zlib.compress(bytes(10_000_000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", content) + chunk(b"IEND", b"")


def resized(content, height):
    """A JPEG file whose header gives another height."""
    at = content.index(b"\xff\xc0") + 5
    return content[:at] + struct.pack(">H", height) + content[at + 2 :]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"hello, I am a text file\n" * 50, "is not an image that can be read; expected one of JPEG, PNG, BMP, TIFF"),
        (encoded(photograph("P"), "GIF"), "is not an image that can be read"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "is not an image that can be read"),
        (png(30_000, 30_000), "is too large"),
        (png(10_000, 10_000), "is too large: 10000 x 10000 pixels, at most 89,478,485"),
        (resized(encoded(photograph(size=(2000, 8)), "JPEG"), 65_500), "is too large: 2000 x 65500 pixels"),
        (resized(encoded(photograph(size=(8, 8)), "JPEG"), 65_501), "is damaged"),
        (resized(JPEGS["baseline"], 0), "is "),
        (b"\xff\xd8\xff\xd9", "is "),
        (JPEGS["baseline"][:2] + JPEGS["baseline"][2:].replace(b"\xff\xda", b"\xff\x33"), "FF33 at byte"),
    ],
    ids=["empty", "text", "GIF", "EPS", "bomb", "over", "huge", "high", "flat", "nothing", "marker"],
)
def test_reasons(content, reason):
    assert reason in refusal(content)


def test_a_changed_byte_of_a_png_file_is_found_by_its_checksum():
    content = bytearray(OTHERS["PNG"])
    content[content.index(b"IDAT") + 40] ^= 1
    assert "damaged" in refusal(bytes(content))


@pytest.mark.parametrize("name", ["PNG, animated", "WEBP, animated", "TIFF, pages"])
def test_all_frames_together_stay_under_the_pixel_limit(name, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 96 * 64 * 3)
    assert refusal(OTHERS[name]) == "is too large: 96 x 64 pixels in 4 frames, at most 18,432 pixels are taken"
    assert refusal(OTHERS["PNG"]) is None


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "root"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "a.jpg").write_bytes(JPEGS["gray"])
    (tmp_path / "secret.jpg").write_bytes(JPEGS["gray"])
    (tmp_path / "root-b").mkdir()
    (tmp_path / "root-b" / "a.jpg").write_bytes(JPEGS["gray"])
    return folder


def test_files_inside_are_found_also_by_links(root, tmp_path, monkeypatch):
    (root / "link.jpg").symlink_to("sub/a.jpg")
    (tmp_path / "door").symlink_to("root")
    monkeypatch.chdir(tmp_path)
    for start in (root, tmp_path / "door", type(root)("root")):
        folder = Folder(start)
        assert [folder.find(start / name).name for name in ("sub/a.jpg", "link.jpg")] == ["sub/a.jpg", "link.jpg"]
        assert folder.find(start / "sub" / ".." / "sub" / "a.jpg").name == "sub/a.jpg"
    assert folder.find(root / "sub/a.jpg").size == len(JPEGS["gray"])


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../secret.jpg", "lies outside the root folder"),
        ("../root-b/a.jpg", "lies outside the root folder"),
        ("/etc/passwd", "lies outside the root folder"),
        ("out.jpg", "lies outside the root folder"),
        ("way/secret.jpg", "lies outside the root folder"),
        ("dangling.jpg", "is missing"),
        ("absent.jpg", "is missing"),
        ("sub/a.jpg/b.jpg", "is missing"),
        ("loop.jpg", "cannot be opened"),
        ("a\0b.jpg", "cannot be opened"),
        ("x" * 300, "cannot be opened (File name too long)"),
        ("sub", "is not a file"),
        ("..", "is not a file"),
        ("pipe.jpg", "is not a file"),
        ("caf\udce9.jpg", "has a name that is not valid UTF-8"),
    ],
)
def test_what_is_not_a_file_inside_is_refused(root, name, reason):
    for link, target in (("out", "../secret.jpg"), ("dangling", "none.jpg"), ("loop", "loop.jpg")):
        (root / f"{link}.jpg").symlink_to(target)
    (root / "way").symlink_to("..")
    os.mkfifo(root / "pipe.jpg")
    (root / os.fsdecode(b"caf\xe9.jpg")).write_bytes(b"")
    folder = Folder(root)
    with pytest.raises(InputError) as caught:
        folder.find(root / name)
    assert str(caught.value).startswith(reason)
    folder.name(root / name).encode()


def test_a_root_that_is_no_folder(tmp_path):
    with pytest.raises(InputError, match="none is not a folder; expected the folder that holds the image files"):
        Folder(tmp_path / "none")


def test_a_file_that_cannot_be_read_or_changed_is_told_from_a_bad_one(root):
    folder, path = Folder(root), root / "sub" / "a.jpg"
    file = folder.find(path)
    for content in (JPEGS["gray"][:-1], JPEGS["gray"] + b"x"):
        path.write_bytes(content)
        with pytest.raises(UnreadError, match="changed while it was read; run again"):
            read_image(file)
    path.unlink()
    with pytest.raises(UnreadError, match=r"cannot be read \(No such file"):
        read_image(file)


def test_groups_hold_the_files_in_order_and_stay_small(root, monkeypatch):
    from concurrent.futures import ThreadPoolExecutor

    from widespectrum.publishing import image_files

    monkeypatch.setattr(image_files, "FILES_PER_GROUP", 7)
    contents = [encoded(photograph(seed=seed), "JPEG") for seed in range(24)]
    contents[5] = contents[5][:500]
    for number, content in enumerate(contents):
        (root / f"{number}.jpg").write_bytes(content)
    folder = Folder(root)
    files = [folder.find(root / f"{number}.jpg") for number in range(24)]
    monkeypatch.setattr(image_files, "_BYTES_PER_GROUP", sum(file.size for file in files[14:18]))
    seen = []
    with ThreadPoolExecutor(2) as pool:
        for group, images, content in read_groups(files, pool):
            assert bytes(content[: sum(files[i].size for i in group)]) == b"".join(contents[i] for i in group)
            seen += [(i, isinstance(image, InputError)) for i, image in zip(group, images, strict=True)]
            assert len(group) <= 7
    assert seen == [(number, number == 5) for number in range(24)]
