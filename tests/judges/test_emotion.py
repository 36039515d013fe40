"""The judge of expressed emotion on a real photograph, against its parts."""

from statistics import fmean

import numpy as np
import pytest
from PIL import Image

from tests.rewards import made_blip
from widespectrum.judges import load_judge
from widespectrum.judges.emotion import emotions_in
from widespectrum.judges.faces import crop_face, find_faces
from widespectrum.prompts import load_prompt_set, open_photograph
from widespectrum.prompts.emotion import emotion_rows
from widespectrum.protocols import Abstention, Answer, Failure, Question
from widespectrum.rewards import load_reward_model
from widespectrum.types import ModelSpec, Prompt

WORDINGS = {
    "published": "The face shows sad expression",
    "expression": "The expression on the face is sad.",
    "looks": "The person in the picture looks sad.",
    "close-up": "A close-up of a face that looks sad.",
    "noun": "The face expresses sadness.",
}
ASTRONAUT = open_photograph(load_prompt_set("photographs").photographs["astronaut/clarity"])
PLAIN = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8))


def prompt(text="a portrait", subset="", dimensions=("emotion",), effects=()):
    return Prompt(
        prompt_id="",
        text=text,
        pair_id="pair",
        role="wide_spectrum",
        dimensions=dimensions,
        effects=effects,
        subset=subset,
    )


def question(shown, *, dimension="expressed emotion", rival=None, **fields):
    return Question(prompt=prompt(**fields), image=shown, dimension=dimension, rival=rival)


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    return made_blip.checkpoint(tmp_path_factory.mktemp("blip"), grid=4)


@pytest.fixture(scope="module")
def judge(options):
    return load_judge("emotion", **options, device="cpu", batch_size=3)


def crowd():
    scene = Image.new("RGB", (768, 512), "gray")
    scene.paste(ASTRONAUT.resize((256, 256)), (512, 128))
    scene.paste(ASTRONAUT, (0, 0))
    return scene


@pytest.mark.parametrize("shown, faces", [(ASTRONAUT, 1), (crowd(), 2), (PLAIN, 0)], ids=["one", "two", "none"])
def test_the_outcome_is_the_mean_match_of_the_largest_face_with_every_wording(judge, options, shown, faces):
    (answer,) = judge.judge([question(shown, subset="sad")])
    boxes = find_faces(shown)
    view = crop_face(shown, boxes[0]) if faces else shown
    model = load_reward_model("blip-l", **options, device="cpu", batch_size=3)
    scores = dict(zip(WORDINGS, model.score([view] * len(WORDINGS), list(WORDINGS.values())).tolist(), strict=True))
    face = list(boxes[0]) if faces else None
    assert answer.details == {"emotion": "sad", "face": face, "faces": faces, "probes": scores}
    assert answer.outcome == fmean(scores.values())
    assert answer.confidence is None


def test_a_batch_equals_singles_in_any_order(judge):
    questions = [
        question(ASTRONAUT, subset="angry"),
        question(PLAIN, subset="happy"),
        question(PLAIN, subset="rocket", dimensions=("clarity",)),
        question(ASTRONAUT, subset="neutral"),
        question(PLAIN, subset="angry"),
    ]
    together, backward = judge.judge(questions), judge.judge(questions[::-1])[::-1]
    alone = [judge.judge([each])[0] for each in questions]
    assert [type(each) for each in together] == [Answer, Answer, Abstention, Answer, Answer]
    assert together[2] == Abstention("the prompt names no emotion")
    for others in (backward, alone):
        for one, other in zip(together, others, strict=True):
            if isinstance(one, Answer):
                assert one.outcome == pytest.approx(other.outcome, abs=1e-6)
                assert one.details["face"] == other.details["face"]
    assert len({each.outcome for each in together if isinstance(each, Answer)}) == 4


def test_a_face_is_looked_for_and_encoded_once(judge, monkeypatch):
    encoded, looked = [], []
    encode = type(judge.model)._encode
    monkeypatch.setattr(
        type(judge.model), "_encode", lambda self, pixels: encoded.append(len(pixels)) or encode(self, pixels)
    )
    monkeypatch.setattr("widespectrum.judges.emotion.find_faces", lambda image: looked.append(image) or [])
    judge.judge([question(PLAIN, subset="sad"), question(PLAIN, subset="angry")])
    assert (encoded, looked) == ([1], [PLAIN])


def test_the_prompts_of_the_config_name_their_emotion():
    for row in emotion_rows():
        assert emotions_in(prompt(row["wide_spectrum_prompt"], row["subset"])) == [row["emotion"]]
        # Without the subset, by the words alone.
        assert emotions_in(prompt(row["wide_spectrum_prompt"])) == [row["emotion"]]


@pytest.mark.parametrize(
    "fields, expected",
    [
        ({"text": "Her ANGRY face"}, ["angry"]),
        ({"text": "full of Sadness and sad"}, ["sad"]),
        ({"text": "a man who shows no particular emotion"}, ["neutral"]),
        ({"text": "angry, then happy"}, ["angry", "happy"]),
        ({"text": "a saddle on a sadder day"}, []),
        ({"text": "a happy man", "dimensions": ("clarity",)}, []),
        ({"text": "happy children, a sad clown", "dimensions": ("clarity", "emotion"), "effects": ("", "a sad clown")},
         ["sad"]),
        ({"text": "an angry man", "subset": "sad"}, ["sad"]),
    ],
)  # fmt: skip
def test_which_emotions_a_prompt_names(fields, expected):
    assert emotions_in(prompt(**fields)) == expected


def test_what_it_declines(judge, tmp_path):
    path = tmp_path / "cut.png"
    PLAIN.save(path)
    path.write_bytes(path.read_bytes()[:3000])
    with Image.open(path) as cut:
        replies = judge.judge(
            [
                question(PLAIN, text="angry, then happy"),
                question(PLAIN, subset="sad", dimension="overall", rival=ASTRONAUT),
                question(cut, subset="sad"),
            ]
        )
    assert replies[0] == Abstention("the prompt names several emotions: angry, happy")
    assert replies[1] == Abstention("BLIP is not asked for 'overall' of two images")
    assert isinstance(replies[2], Failure)
    assert "cannot be decoded" in replies[2].reason


def test_the_spec_names_blip_the_wordings_and_the_detector(judge, options, monkeypatch):
    spec = judge.spec
    assert (spec.adapter, spec.name, spec.revision) == ("emotion", "blip-l", "v1")
    reward = load_reward_model("blip-l", **options).spec
    assert reward.params.items() < spec.params.items()
    faces = {"detector", "detector_sha256", "detector_size", "detector_share", "margin"}
    assert set(spec.params) - set(reward.params) == faces | {"probes"}
    monkeypatch.setattr("widespectrum.judges.emotion.detector_facts", lambda: {"detector": "dlib-99"})
    assert load_judge("emotion", **options).spec != spec


@pytest.mark.parametrize("name", ["blip-itm", "emotion"])
def test_a_run_stays_at_the_commit_it_began_with(name, options):
    commit = "0123456789" * 4
    begun = {
        "blip-itm": ModelSpec(adapter="blip-itm", name="blip-l", revision=commit),
        "emotion": ModelSpec(adapter="emotion", name="blip-l", revision="v1", params={"commit": commit}),
    }
    judge = load_judge(name)
    judge.keep_to(begun[name])
    assert judge.model.checkpoint.hub.revision == commit
    mine = load_judge(name, **options)
    mine.keep_to(begun[name])
    assert mine.spec == load_judge(name, **options).spec
