"""The config `emotion_edits`: every face to each emotion and back, restartable, with what was left out listed."""

import base64
import hashlib
import io
import re

import numpy as np
import PIL.Image
import pytest

from tests.chat_server import serving
from widespectrum.chat import Chat, Endpoint
from widespectrum.emotion_edits import FEATURES, INSTRUCTION, REJECTED_FEATURES, EditOptions, emotion_edits, fill
from widespectrum.errors import InputError, ModelError, RunFolderError
from widespectrum.functional import emotion_bias
from widespectrum.generators import load_generator
from widespectrum.prompts.pairs import pair_prompts
from widespectrum.protocols import Refusal
from widespectrum.types import ModelSpec

TEMPLATE = "A woman in a green coat before a neutral gray wall, with a clearly [emotion] expression."
OTHERS = ("sad", "angry", "fearful", "disgusted", "neutral")


class Stamp:
    """An editor that colors one column of pixels by the prompt and the seed.

    It refuses prompts with the word `refused`, and breaks down after `lasts` images.
    """

    needs_images = True
    spec = ModelSpec(adapter="test", name="stamp", revision="v1")

    def __init__(self, refused="no such word", lasts=1000):
        self.refused, self.lasts, self.made = refused, lasts, 0

    def generate(self, prompts, *, seeds, images=None):
        if self.made + len(prompts) > self.lasts:
            raise ModelError("out of memory")
        return [self.edit(*item) for item in zip(prompts, seeds, images, strict=True)]

    def edit(self, prompt, seed, image):
        self.made += 1
        if self.refused in prompt.text:
            return Refusal("it looks unsafe")
        digest = hashlib.sha256(f"{prompt.text} {seed}".encode()).digest()
        pixels = np.asarray(image).copy()
        pixels[:, digest[3] % pixels.shape[1]] = list(digest[:3])
        return PIL.Image.fromarray(pixels)


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr("widespectrum.chat.client._pause", lambda seconds, stop: False)


@pytest.fixture
def faces(tmp_path):
    """Two small pictures, `ann.png` and `bo.png`."""
    folder = tmp_path / "faces"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in ("bo.png", "ann.png"):
        PIL.Image.fromarray(rng.integers(0, 255, (30, 40, 3), dtype=np.uint8)).save(folder / name)
    return folder


@pytest.fixture
def server():
    with serving([{"template": TEMPLATE}]) as running:
        yield running


def made(server, faces, generator=None, *, work="work", **options):
    generator = generator or load_generator("identity", size=64)
    folder = faces.parent / work
    with Chat(Endpoint.parse(server.endpoint), folder / "replies.jsonl") as chat:
        found = emotion_edits(
            faces, folder, chat=chat, generator=generator, label="editor", options=EditOptions(**options)
        )
    assert list(found.rows()) == list(found.rows())
    return list(found.rows()), found.rejected


def opened(image):
    return np.asarray(PIL.Image.open(io.BytesIO(image["bytes"])))


def test_every_face_goes_to_every_emotion_and_back(server, faces):
    rows, rejected = made(server, faces)
    assert rejected == []
    assert [(row["face"], row["emotion"], row["direction"]) for row in rows] == [
        (face, emotion, direction)
        for face in ("ann.png", "bo.png")
        for emotion in OTHERS
        for direction in ("forward", "reverse")
    ]
    for row in rows:
        assert tuple(row) == tuple(FEATURES)
        original, wide = pair_prompts(row)
        assert original.text == TEMPLATE.replace("[emotion]", "happy")
        assert wide.text == TEMPLATE.replace("[emotion]", row["emotion"])
        assert row["template"] == TEMPLATE
        forward = row["direction"] == "forward"
        assert row["prompt"] == (wide.text if forward else original.text)
        assert (row["source_emotion"], row["target_emotion"]) == (
            ("happy", row["emotion"]) if forward else (row["emotion"], "happy")
        )
        assert np.array_equal(opened(row["image"]), np.asarray(PIL.Image.open(faces / row["face"])))
        assert (row["width"], row["height"]) == (40, 30)
        for name in ("image", "source_image"):
            assert hashlib.sha256(row[name]["bytes"]).hexdigest() == row[f"{name}_id"]
    assert [request.body["messages"][0]["content"] for request in server.requests] == [INSTRUCTION] * 2


def test_the_way_back_starts_from_the_edited_image(server, faces):
    rows, _ = made(server, faces, Stamp(), seeds=(0, 5), emotions=("angry", "sad"))
    assert len(rows) == len({row["image_id"] for row in rows}) == 2 * 2 * 2 * 2
    for forward, reverse in zip(rows[::2], rows[1::2], strict=True):
        assert (forward["direction"], reverse["direction"]) == ("forward", "reverse")
        assert forward["pair_id"] == reverse["pair_id"]
        assert forward["seed"] == reverse["seed"]
        assert reverse["source_image"] == forward["image"]
        assert np.array_equal(opened(forward["source_image"]), np.asarray(PIL.Image.open(faces / forward["face"])))
        assert (opened(reverse["image"]) != opened(reverse["source_image"])).any(axis=(0, 2)).sum() == 1


def test_a_refusal_is_listed_not_asked_again_and_has_no_way_back(server, faces):
    editor = Stamp(refused="fearful")
    rows, rejected = made(server, faces, editor)
    assert len(rows) == 2 * 4 * 2
    assert [tuple(row) for row in rejected] == [tuple(REJECTED_FEATURES)] * 2
    assert rejected[0] == {
        "face": "ann.png",
        "emotion": "fearful",
        "direction": "forward",
        "generator": "editor",
        "seed": 0,
        "reason": "it looks unsafe",
    }
    assert editor.made == 2 * 5 + 2 * 4
    assert made(server, faces, editor) == (rows, rejected)
    assert editor.made == 2 * 5 + 2 * 4
    way_back, rejected = made(server, faces, Stamp(refused="happy"), work="another")
    assert {row["direction"] for row in way_back} == {"forward"}
    assert {row["direction"] for row in rejected} == {"reverse"}
    assert len(way_back) == len(rejected) == 10


def test_a_generator_that_edits_no_faces_refuses_them_all(server, faces):
    rows, rejected = made(server, faces, load_generator("photo-effects", size=64))
    assert rows == []
    assert {row["reason"] for row in rejected} == {"classical image processing cannot change emotion"}
    assert len(rejected) == 10


@pytest.mark.parametrize("lasts", [0, 8, 10, 18])
def test_what_was_made_before_a_breakdown_is_kept_and_the_rest_made_alike(server, faces, lasts):
    whole = made(server, faces, Stamp(), work="whole")
    first, second = Stamp(lasts=lasts), Stamp()
    with pytest.raises(ModelError, match=r"^editor, (forward|reverse) edits: .*out of memory; run again: what is made"):
        made(server, faces, first)
    assert made(server, faces, second) == whole
    assert first.made + second.made == 20


def test_another_face_template_option_or_generator_is_edited_anew(server, faces):
    editor = Stamp()
    made(server, faces, editor, emotions=("sad",))
    before, _ = made(server, faces, editor, emotions=("sad",))
    assert editor.made == 4
    (faces / "ann.png").replace(faces / "bo.png")
    (renamed, _), rejected = made(server, faces, editor, emotions=("sad",))
    assert (editor.made, rejected) == (4, [])
    assert renamed["image_id"] == before[0]["image_id"]
    made(server, faces, editor, emotions=("sad",), size=20)
    assert editor.made == 6
    made(server, faces, editor, emotions=("sad",), start="neutral")
    assert editor.made == 7  # the way to sad is the same, the way back is not
    server.replies = [{"template": "A baker, looking [emotion]."}]
    rows, _ = made(server, faces, editor, emotions=("sad",), size=20)
    assert editor.made == 7
    (faces.parent / "work" / "replies.jsonl").unlink()
    rows, _ = made(server, faces, editor, emotions=("sad",), size=20)
    assert editor.made == 9
    assert (rows[0]["prompt"], rows[0]["width"]) == ("A baker, looking sad.", 20)


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ({"template": "A woman on a ferry."}, r"\[emotion\] occurs 0 times, expected once, in 'A woman on a ferry.'"),
        ({"template": "An [emotion] woman, [emotion] eyes."}, r"\[emotion\] occurs 2 times"),
        ({"template": "A smiling woman, [emotion]."}, r"the word 'smiling', expected no feeling beside \[emotion\]"),
        ({"template": "A man, [emotion], with a neutral look."}, "the word 'neutral look', expected no feeling"),
        ({"template": "A woman\nlooks [emotion]."}, "line breaks or control characters, expected one sentence"),
        ({"template": "[emotion] " + "x " * 60}, "61 words, expected at most 60"),
        ({"caption": "x"}, "no reply to the question .* that fits the schema"),
    ],
)
def test_a_description_that_cannot_be_used_is_listed(faces, reply, reason):
    (faces / "dan.png").write_text("no image")
    plain = PIL.Image.new("RGB", (20, 20), "red")
    plain.save(faces / "cy.png")

    def answer(body):
        url = body["messages"][-1]["content"][-1]["image_url"]["url"]
        picture = PIL.Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))
        return reply if picture.size == plain.size else {"template": TEMPLATE}

    with serving(answer) as server:
        rows, rejected = made(server, faces, emotions=("sad",))
    assert [row["face"] for row in rows[::2]] == ["ann.png", "bo.png"]
    assert [(row["face"], row["emotion"], row["seed"]) for row in rejected] == [
        ("cy.png", "", None),
        ("dan.png", "", None),
    ]
    assert re.search(reason, rejected[0]["reason"])
    assert rejected[1]["reason"].startswith("dan.png is not an image that can be read")


def test_no_usable_face_is_an_error(faces):
    with (
        serving([{"template": "A happy woman."}]) as server,
        pytest.raises(
            InputError, match=r"none of the faces in .* can be used; ann.png: the model's reply was not used"
        ),
    ):
        made(server, faces)


@pytest.mark.parametrize(
    ("template", "emotion", "text"),
    [
        ("A [emotion] boy.", "angry", "An angry boy."),
        ("An [emotion] boy.", "sad", "A sad boy."),
        ("Oh, an [emotion] boy.", "neutral", "Oh, a neutral boy."),
        ("Panama [emotion].", "angry", "Panama angry."),
        ("[emotion] boy.", "fearful", "Fearful boy."),
        ("A boy, [emotion].", "happy", "A boy, happy."),
    ],
)
def test_the_slot_is_filled_with_good_grammar(template, emotion, text):
    assert fill(template, emotion) == text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start": "sad"}, "the faces must be happy or neutral to start with; got 'sad'"),
        ({"emotions": ("happy",)}, "expected each emotion once, out of sad, angry, .*; got 'happy'"),
        ({"emotions": ("sad", "sad")}, "expected each emotion once"),
        ({"start": "neutral", "emotions": ("bored",)}, "out of sad, angry, fearful, happy, disgusted; got 'bored'"),
        ({"seeds": ()}, r"expected seeds from 0 up, each once; got \[\]"),
        ({"seeds": (1, 1)}, "expected seeds from 0 up"),
        ({"seeds": (-1,)}, "expected seeds from 0 up"),
        ({"size": 4}, "emotion_edits: size must be a whole number from 16 to 8192 pixels; got 4"),
    ],
)
def test_options_that_cannot_be(options, message):
    with pytest.raises(InputError, match=message):
        EditOptions(**options)


def test_a_generator_that_starts_from_text_is_refused(server, faces):
    editor = Stamp()
    editor.needs_images = False
    with pytest.raises(InputError, match="editor starts from text; emotion edits need a generator that starts from im"):
        made(server, faces, editor)
    assert server.requests == []


def test_a_damaged_part_is_named(server, faces):
    made(server, faces, emotions=("sad",))
    (part, *_) = (faces.parent / "work").glob("*/0/forward/images/part-*.parquet")
    part.write_bytes(part.read_bytes()[:-20])
    with pytest.raises(RunFolderError, match=r"part-.* is damaged .*delete it and run again"):
        made(server, faces, emotions=("sad",))
    part.unlink()
    assert len(made(server, faces, emotions=("sad",))[0]) == 4


def test_the_columns_are_what_the_metric_takes(server, faces):
    rows, _ = made(server, faces)
    for direction in ("forward", "reverse"):
        asked = [row for row in rows if row["direction"] == direction]
        rewards = np.random.default_rng(0).random((4, len(asked)))
        result = emotion_bias(
            rewards[0],
            rewards[1],
            r_io_po=rewards[2],
            r_ia_po=rewards[3],
            emotion=[row["emotion"] for row in asked],
            prompt_id=[row["face"] for row in asked],
            image_seed=[row["seed"] for row in asked],
            n_resamples=20,
        )
        assert (result["n_pairs"], result["n_prompts"], set(result["by_emotion"])) == (10, 2, set(OTHERS))
