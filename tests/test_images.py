import hashlib
import io

import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import EpsImagePlugin

from widespectrum import store
from widespectrum.errors import RunFolderError
from widespectrum.images import ImageReader, decode, encode
from widespectrum.types import ImageRecord


def picture(number, size=(5, 4)):
    pixels = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return PIL.Image.fromarray(pixels)


def write_images(run, numbers, size=(5, 4)):
    """A part with these pictures; their ids in order."""
    records, payload = [], []
    for number in numbers:
        image_id, content = encode(picture(number, size))
        record = ImageRecord(
            image_id=image_id,
            prompt_id=f"p{number}",
            generator="g",
            seed=0,
            status="ok",
            detail="",
            width=size[0],
            height=size[1],
            path="x.png",
        )
        records.append(record)
        payload.append({"bytes": content, "path": "x.png"})
    return store.append(run, "images", records, payload), [record.image_id for record in records]


def same(image, number, size=(5, 4)):
    return np.array_equal(np.asarray(image), np.asarray(picture(number, size)))


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "1"])
def test_encoding_loses_nothing_and_is_always_the_same(mode):
    image = picture(1).convert(mode)
    image_id, content = encode(image)
    assert image_id == hashlib.sha256(content).hexdigest()
    assert encode(image.copy()) == (image_id, content)
    back = decode(content, "here")
    assert back.mode == mode
    assert np.array_equal(np.asarray(back), np.asarray(image))


@pytest.mark.parametrize(("limit", "allowed"), [(20, True), (19, False), (9, False)])
def test_the_pixel_limit(monkeypatch, limit, allowed):
    """Pillow warns beyond its limit and refuses beyond twice the limit; both are refused here."""
    content = encode(picture(1))[1]
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", limit)
    if allowed:
        assert decode(content, "image x").size == (5, 4)
    else:
        with pytest.raises(RunFolderError, match=f"image x cannot be decoded: it has more than {limit} pixels"):
            decode(content, "image x")


@pytest.mark.parametrize("content", [b"", b"no image at all", encode(picture(1))[1][:-30], encode(picture(1))[1][:40]])
def test_what_cannot_be_decoded(content):
    with pytest.raises(RunFolderError, match="image x cannot be decoded"):
        decode(content, "image x")


def saved(image, kind):
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def test_other_formats_are_not_decoded(monkeypatch):
    """Pillow would hand EPS to Ghostscript."""
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_: pytest.fail("Ghostscript was started"))
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n%%EOF\n"
    for content in (eps, saved(picture(1), "BMP")):
        assert PIL.Image.open(io.BytesIO(content)).format in ("EPS", "BMP")
        with pytest.raises(RunFolderError, match="image x cannot be decoded: expected PNG, JPEG, WEBP, got other"):
            decode(content, "image x")


@pytest.mark.parametrize(("kind", "mode"), [("JPEG", "CMYK"), ("JPEG", "L"), ("WEBP", "RGBA")])
def test_imported_images_become_rgb(kind, mode, tmp_path):
    content = saved(picture(1).convert(mode), kind)
    image_id = hashlib.sha256(content).hexdigest()
    record = ImageRecord(
        image_id=image_id,
        prompt_id="p",
        generator="g",
        seed=0,
        status="ok",
        detail="",
        width=5,
        height=4,
        path="x",
    )
    store.append(tmp_path, "images", [record], [{"bytes": content, "path": "x"}])
    image = ImageReader(tmp_path).read([image_id])[image_id]
    assert image.mode == "RGB"
    assert image.size == picture(1).size
    assert decode(content, "image x").mode == PIL.Image.open(io.BytesIO(content)).mode


def test_no_flipped_bit_gets_another_error():
    content = encode(picture(1))[1]
    refused = 0
    for position in range(len(content)):
        damaged = bytearray(content)
        damaged[position] ^= 1 << (position % 8)
        try:
            decode(bytes(damaged), "image x")
        except RunFolderError:
            refused += 1
    assert refused > len(content) // 2


def test_images_are_found_by_id_across_parts(tmp_path):
    _, first = write_images(tmp_path, [1, 2])
    _, second = write_images(tmp_path, [3])
    reader = ImageReader(tmp_path)
    found = reader.read([second[0], first[0], second[0]])
    assert list(found) == [second[0], first[0]]
    assert same(found[second[0]], 3)
    assert same(found[first[0]], 1)
    assert hashlib.sha256(reader.content(first[1])).hexdigest() == first[1]
    found[first[0]].putpixel((0, 0), (1, 2, 3))
    assert same(reader.read([first[0]])[first[0]], 1)


def test_images_are_found_beyond_what_is_kept_in_memory(tmp_path):
    _, ids = write_images(tmp_path, range(620), size=(1, 1))
    reader = ImageReader(tmp_path)
    for number in (*range(0, 620, 60), 0, 619):
        assert same(reader.read([ids[number]])[ids[number]], number, (1, 1))


def test_an_id_that_is_not_there(tmp_path):
    with pytest.raises(RunFolderError, match="the image abc is not in this run; run the generate stage again"):
        ImageReader(tmp_path).content("abc")


def test_exchanged_bytes_are_noticed(tmp_path):
    part, ids = write_images(tmp_path, [1, 2])
    table = pq.read_table(part)
    images = table["image"].to_pylist()
    images[1]["bytes"] = encode(picture(3))[1]
    column = pa.array(images, store.SCHEMAS["images"].field("image").type)
    pq.write_table(table.set_column(table.schema.get_field_index("image"), "image", column), part)
    reader = ImageReader(tmp_path)
    assert same(reader.read([ids[0]])[ids[0]], 1)
    with pytest.raises(RunFolderError, match=f"{part}: the bytes of image {ids[1][:12]} are not the ones"):
        reader.read([ids[1]])


def test_a_flipped_bit_of_an_image_is_noticed(tmp_path):
    # Large, so that its bytes are in the file once and not among the statistics of the column as well.
    part, ids = write_images(tmp_path, [1], size=(60, 60))
    content = bytearray(part.read_bytes())
    assert content.count(b"IDAT") == 1
    content[content.index(b"IDAT") + 10] ^= 1
    part.write_bytes(content)
    with pytest.raises(RunFolderError, match="delete"):
        ImageReader(tmp_path).read(ids)


def test_a_damaged_part_is_named(tmp_path):
    part, _ = write_images(tmp_path, [1])
    part.write_bytes(part.read_bytes()[:-9])
    with pytest.raises(RunFolderError, match=f"{part} is damaged .*: delete it and run again"):
        ImageReader(tmp_path)
