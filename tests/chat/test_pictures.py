"""Images on their way to a model."""

import base64
import hashlib
import io

import numpy as np
import PIL.Image
import pytest

from tests.chat.asking import GOOD, MESSAGES, SCHEMA, lines, opened
from tests.chat_server import Reply, serving
from widespectrum.errors import InputError


def pixels(width, height):
    values = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return PIL.Image.fromarray(values)


def encoded(image, form, **options):
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def sent_images(request):
    parts = [part for part in request.body["messages"][-1]["content"] if part["type"] == "image_url"]
    heads, contents = zip(*(part["image_url"]["url"].split(";base64,") for part in parts), strict=True)
    return heads, [base64.b64decode(content, validate=True) for content in contents]


def test_images_follow_the_text_and_the_journal_has_their_digests(journal):
    small, large = encoded(pixels(40, 30), "PNG"), pixels(200, 100)
    with serving([GOOD]) as server, opened(server, journal, max_side=100) as chat:
        assert chat.ask("q", MESSAGES, SCHEMA, images=[small, large]) == GOOD
        assert chat.ask("q", MESSAGES, SCHEMA, images=[small, large.copy()]) == GOOD
    (request,) = server.requests
    assert request.body["messages"][0] == MESSAGES[0]
    assert request.body["messages"][1]["content"][0] == {"type": "text", "text": MESSAGES[1]["content"]}
    heads, (first, second) = sent_images(request)
    assert heads == ("data:image/png", "data:image/jpeg")
    assert first == small
    assert PIL.Image.open(io.BytesIO(second)).size == (100, 50)
    assert large.size == (200, 100)
    _, *records = lines(journal)[0]["request"]["messages"][1]["content"]
    assert [record["image_url"]["sha256"] for record in records] == [
        hashlib.sha256(content).hexdigest() for content in (first, second)
    ]
    facts = {"bytes": len(second), "media_type": "image/jpeg", "width": 100, "height": 50}
    assert facts.items() <= records[1]["image_url"].items()
    assert "base64" not in journal.read_text()


def test_images_and_words_join_what_is_in_parts_already(journal):
    parts = [{"type": "text", "text": "one"}]
    messages = [{"role": "system", "content": parts}, {"role": "user", "content": parts}]
    with serving([Reply(status=400), GOOD]) as server, opened(server, journal) as chat:
        chat.ask("q", messages, SCHEMA, images=[pixels(8, 8)])
    system, user = (message["content"] for message in server.requests[1].body["messages"])
    assert [len(system), len(user), len(parts)] == [2, 2, 1]
    assert system[1]["text"].startswith("Answer with one JSON object")
    assert user[1]["type"] == "image_url"


def test_another_image_or_size_is_another_question(journal):
    image = pixels(40, 30)
    other = image.copy()
    other.putpixel((0, 0), (1, 2, 3))
    with serving([GOOD]) as server:
        for max_side, images in (
            (64, [image]),
            (64, [other]),
            (64, [image, other]),
            (64, [other, image]),
            (32, [image]),
        ):
            for _ in range(2):
                with opened(server, journal, max_side=max_side) as chat:
                    chat.ask("q", MESSAGES, SCHEMA, images=images)
    assert len(server.requests) == 5


TURNED = PIL.Image.Exif()
TURNED[0x0112] = 6


@pytest.mark.parametrize(
    ("content", "size", "is_kept"),
    [
        (encoded(pixels(64, 32), "JPEG"), (64, 32), True),
        (encoded(pixels(64, 32), "WEBP"), (64, 32), True),
        (encoded(pixels(65, 32), "JPEG"), (64, 32), False),
        (encoded(pixels(64, 32), "BMP"), (64, 32), False),
        (encoded(pixels(64, 32), "JPEG", exif=TURNED), (32, 64), False),
        (encoded(pixels(128, 64).convert("RGBA"), "PNG"), (64, 32), False),
        (pixels(30, 20).convert("L"), (30, 20), False),
    ],
)
def test_images_are_sent_upright_and_small_and_otherwise_as_they_are(journal, content, size, is_kept):
    with serving([GOOD]) as server, opened(server, journal, max_side=64) as chat:
        chat.ask("q", MESSAGES, SCHEMA, images=[content])
    (head,), (sent,) = sent_images(server.requests[0])
    image = PIL.Image.open(io.BytesIO(sent))
    assert (image.size, image.mode) == (size, "RGB")
    assert head == f"data:image/{image.format.lower()}"
    assert (sent == content) == is_kept


@pytest.mark.parametrize(
    "image",
    [
        b"no image",
        *(encoded(pixels(64, 64), form)[:-500] for form in ("PNG", "JPEG")),
        PIL.Image.new("F", (8, 8)),
        encoded(pixels(8, 8), "GIF"),
    ],
)
def test_an_image_that_cannot_be_read_is_named(journal, image):
    named = pytest.raises(InputError, match="image 2 of the question 'q' cannot be read")
    with serving([GOOD]) as server, opened(server, journal) as chat, named:
        chat.ask("q", MESSAGES, SCHEMA, images=[pixels(8, 8), image])
    assert server.requests == []


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_images_beyond_the_pixel_limit_are_not_decoded(journal, monkeypatch):
    content = encoded(pixels(64, 64), "PNG")
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 3000)
    refused = pytest.raises(InputError, match=r"cannot be read \(more than 3,000 pixels\)")
    with serving([GOOD]) as server, opened(server, journal) as chat, refused:
        chat.ask("q", MESSAGES, SCHEMA, images=[content])
