"""The judge of content against the reward model that it is made of."""

import json

import numpy as np
import pytest
from PIL import Image

from tests.rewards import made_blip
from widespectrum import judging, store
from widespectrum.errors import InputError
from widespectrum.judges import load_judge
from widespectrum.protocols import Abstention, Answer, Failure, Question
from widespectrum.rewards import load_reward_model
from widespectrum.types import Prompt

TEXTS = ["a photo of the cat", "dog " * 32 + "dog", "dog " * 34, "horse, 3 dogs", "a photo of the cat"]
"""The second fills the window of 35 tokens with [CLS] and [SEP], the third goes beyond it."""


def image(seed, size=(90, 70)):
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (*size[::-1], 3), dtype=np.uint8))


def question(text, shown, **fields):
    text = text.strip()
    prompt = Prompt(prompt_id="", text=text, pair_id=f"pair {text[:9]}", role="wide_spectrum", dimensions=("clarity",))
    return Question(prompt=prompt, image=shown, **{"dimension": "content", **fields})


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    return made_blip.checkpoint(tmp_path_factory.mktemp("blip"), grid=4)


@pytest.fixture(scope="module")
def judge(options):
    return load_judge("blip-itm", **options, device="cpu", batch_size=2)


@pytest.fixture(scope="module")
def questions():
    shared = image(1)
    shown = [shared, image(2), shared, image(3, (40, 160)), shared]
    return [question(text, each) for text, each in zip(TEXTS, shown, strict=True)]


def test_the_outcome_is_the_score_of_the_reward_model(judge, questions, options):
    answers = judge.judge(questions)
    model = load_reward_model("blip-l", **options, device="cpu", batch_size=2)
    scores = model.score([each.image for each in questions], [each.prompt.text for each in questions])
    assert [answer.outcome for answer in answers] == scores.tolist()
    assert len(set(scores)) == 4
    assert [answer.confidence for answer in answers] == [None] * 5


def test_details_say_whether_the_prompt_was_cut(judge, questions):
    details = [answer.details for answer in judge.judge(questions)]
    assert [each["tokens"] for each in details] == [7, 35, 36, 7, 7]
    assert [each["truncated"] for each in details] == [False, False, True, False, False]


def test_a_batch_equals_singles_in_any_order(judge, questions):
    together = [answer.outcome for answer in judge.judge(questions)]
    alone = [judge.judge([each])[0].outcome for each in questions]
    backward = [answer.outcome for answer in judge.judge(questions[::-1])]
    assert together == pytest.approx(alone, abs=1e-6)
    assert together == pytest.approx(backward[::-1], abs=1e-6)


def test_an_image_is_encoded_once_for_its_prompts(judge, questions, monkeypatch):
    encoded = []
    encode = type(judge.model)._encode
    monkeypatch.setattr(
        type(judge.model), "_encode", lambda self, pixels: encoded.append(len(pixels)) or encode(self, pixels)
    )
    judge.judge(questions)
    assert sum(encoded) == 3


def test_what_it_is_not_asked_and_what_it_cannot_read(judge, tmp_path):
    path = tmp_path / "cut.png"
    image(4).save(path)
    path.write_bytes(path.read_bytes()[:3000])
    with Image.open(path) as cut:
        good, clarity, pair, broken, last = judge.judge(
            [
                question("a cat", image(5)),
                question("a cat", image(5), dimension="clarity"),
                question("a cat", image(5), rival=image(6)),
                question("a cat", cut),
                question("a dog", image(5)),
            ]
        )
    assert isinstance(good, Answer)
    assert isinstance(last, Answer)
    assert clarity == Abstention("BLIP is not asked for 'clarity' of one image")
    assert pair == Abstention("BLIP is not asked for 'content' of two images")
    assert isinstance(broken, Failure)
    assert broken.cause == "input"
    assert broken.reason.startswith("the image of pair pair a cat cannot be decoded: ")


def test_nothing_is_loaded_for_nothing(options, monkeypatch):
    judge = load_judge("blip-itm", **options)
    monkeypatch.setattr(type(judge.model), "_load", lambda self: pytest.fail("loaded"))
    assert judge.judge([]) == []
    assert isinstance(judge.judge([question("a cat", image(5), dimension="clarity")])[0], Abstention)


def test_the_spec_is_that_of_the_reward_model_under_another_name(options, tmp_path):
    judge = load_judge("blip-itm", **options, device="cpu", batch_size=3)
    reward = load_reward_model("blip-l", **options).spec
    assert (judge.spec.adapter, judge.spec.name, judge.spec.params) == ("blip-itm", "blip-l", reward.params)
    assert judge.spec == load_judge("blip-itm", **options).spec
    other = made_blip.checkpoint(tmp_path, grid=4, seed=1)
    assert judge.spec != load_judge("blip-itm", **other).spec
    assert judge.spec != load_judge("blip-itm", **options, dtype="bfloat16").spec


@pytest.mark.parametrize(
    "wrong, said",
    [
        ({"checkpoint": "nowhere/blip.pth"}, "blip-l"),
        ({"batch_size": 0}, "batch_size must be a whole number of 1 or more"),
        ({"dtype": "int8"}, "expected a dtype of float32"),
        ({"head": "itc"}, "has no option 'head'"),
    ],
)
def test_wrong_options(options, wrong, said):
    with pytest.raises(InputError, match=said):
        load_judge("blip-itm", **{**options, **wrong}).open()


def test_the_judge_stage_stores_what_it_says(judge, run_copy):
    judged = judging.judge_all(judging.planned(run_copy, "blip-itm", judge), batch_size=8, description="judge")
    assert (judged.failures, judged.left, judged.trouble) == ([], 0, None)
    rows = [row for row in store.read(run_copy, "verdicts").to_pylist() if row["judge"] == "blip-itm"]
    assert len(rows) == judged.answered > 20
    assert {(row["dimension"], row["order"], row["rival_id"]) for row in rows} == {("content", "both", "")}
    assert set(json.loads(rows[0]["details"])) == {"tokens", "truncated"}
