"""The judge stage, on the images and scores of the small run, with judges that misbehave on purpose."""

import math
from collections import Counter

import pyarrow.compute as pc
import pytest

from widespectrum import judging, pipeline, store
from widespectrum.images import ImageReader, encode
from widespectrum.protocols import Abstention, Answer
from widespectrum.types import ModelSpec

ORDERS = ("first", "second", "both")
IDENTITY, EFFECTS = "identity[size=48]", "photo-effects[size=48,strength=3]"


class FakeJudge:
    """A judge that answers as the function says."""

    spec = ModelSpec(adapter="fake", name="fake", revision="v1")

    def __init__(self, answer, dimensions=("overall",)):
        self.answer, self.dimensions, self.questions = answer, dimensions, []

    def judge(self, questions):
        self.questions += questions
        return [self.answer(question) for question in questions]


def judge(run, model, *, batch_size=8):
    """What failed, and the abstentions."""
    judged = judging.judge_all(judging.planned(run, "j", model), batch_size=batch_size, description="judge")
    assert judged.trouble is None
    return [failure.reason for failure in judged.failures], judged.abstained


def verdicts(run):
    """(prompt, image, rival, dimension, order) → outcome and rationale."""
    found = {}
    for row in store.read(run, "verdicts").to_pylist():
        if row["judge"] == "j":
            key = tuple(row[name] for name in ("prompt_id", "image_id", "rival_id", "dimension", "order"))
            assert key not in found
            found[key] = (row["outcome"], row["rationale"])
    return found


def overall(run):
    """What every pair of the run is to be asked."""
    pairs = pipeline.image_pairs(run)
    assert Counter(pair.generator for pair in pairs) == {IDENTITY: 22, EFFECTS: 12}
    return {
        (
            pair.prompts["wide_spectrum"].prompt_id,
            pair.image_ids["wide_spectrum"],
            pair.image_ids["original"],
            "overall",
        )
        for pair in pairs
    }


def test_a_judge_that_takes_the_first_image_ends_in_ties(run_copy):
    biased = FakeJudge(lambda question: Answer(float(question.order == "first"), question.order))
    assert judge(run_copy, biased) == ([], Counter())
    answers = {"first": (1.0, "first"), "second": (0.0, "second"), "both": (0.5, "the two orders disagree")}
    assert verdicts(run_copy) == {(*ask, order): answers[order] for ask in overall(run_copy) for order in ORDERS}


def test_a_consistent_judge_keeps_its_answer(run_copy):
    judge(run_copy, FakeJudge(lambda question: Answer(1.0, "clearly")))
    assert verdicts(run_copy) == {(*ask, order): (1.0, "clearly") for ask in overall(run_copy) for order in ORDERS}


def test_a_question_shows_the_pair_under_its_prompt_with_the_rewards(run_copy):
    asked = FakeJudge(lambda question: Answer(1.0))
    judge(run_copy, asked)
    rewards = {}
    for row in store.read(run_copy, "scores").to_pylist():
        key = (row["image_id"], row["prompt_id"], row["image_role"])
        rewards.setdefault(key, {})[row["reward_model"]] = row["value"]
    seen = []
    for question in asked.questions:
        prompt, image, rival = question.prompt, encode(question.image)[0], encode(question.rival)[0]
        seen.append((prompt.prompt_id, image, rival, "overall", question.order))
        own = rewards[image, prompt.prompt_id, "wide_spectrum"]
        other = rewards[rival, prompt.prompt_id, "original"]
        assert question.rewards == {model: (own[model], other[model]) for model in ("colorfulness", "random", "oracle")}
    assert Counter(seen) == Counter((*ask, order) for ask in overall(run_copy) for order in ("first", "second"))


def red(run, image_id):
    return ImageReader(run).read([image_id])[image_id].getpixel((0, 0))[0] / 255


def rate(question):
    """The share of red in the first pixel of an image alone."""
    assert (question.rival, question.rewards, question.order) == (None, {}, "both")
    return Answer(question.image.getpixel((0, 0))[0] / 255)


def test_a_dimension_is_asked_of_both_images(tiny_run, tmp_path):
    store.append(tmp_path, "prompts", store.read(tiny_run, "prompts"))
    images = store.read(tiny_run, "images")
    store.append(tmp_path, "images", images.filter(pc.equal(images["generator"], EFFECTS)))
    judge(tmp_path, FakeJudge(rate, dimensions=("clarity", "richness")))
    pairs = pipeline.image_pairs(tmp_path)
    assert len(pairs) == 12
    assert verdicts(tmp_path) == {
        (pair.prompts["wide_spectrum"].prompt_id, image, "", dimension, "both"): (red(tmp_path, image), "")
        for pair in pairs
        for image in pair.image_ids.values()
        for dimension in ("clarity", "richness")
    }


def test_a_dimension_is_asked_once_of_an_image_that_two_generators_gave(run_copy):
    # Both give back the same photograph, and identity gives it back twice.
    asked = FakeJudge(rate, dimensions=("clarity",))
    judge(run_copy, asked)
    expected = {(prompt, image) for prompt, *both, _ in overall(run_copy) for image in both}
    assert len(expected) == 22 + 12
    assert Counter((q.prompt.prompt_id, encode(q.image)[0]) for q in asked.questions) == dict.fromkeys(expected, 1)


@pytest.mark.parametrize("silent", ORDERS)
def test_an_abstention_in_either_order_is_no_verdict_and_is_not_asked_again(run_copy, silent):
    def answer(question):
        abstains = question.prompt.dimensions == ("clarity",) and silent in (question.order, "both")
        return Abstention("too sharp a question") if abstains else Answer(1.0)

    prompts = {prompt.prompt_id: prompt for prompt in pipeline.read_prompts(run_copy)}
    expected = {ask for ask in overall(run_copy) if prompts[ask[0]].dimensions != ("clarity",)}
    assert len(expected) == 34 - 4
    assert judge(run_copy, FakeJudge(answer)) == ([], Counter({"too sharp a question": 4}))
    assert verdicts(run_copy).keys() == {(*ask, order) for ask in expected for order in ORDERS}
    abstentions = [row for row in store.read(run_copy, "abstentions").to_pylist() if row["judge"] == "j"]
    assert len(abstentions) == 4
    assert {row["reason"] for row in abstentions} == {"too sharp a question"}
    assert not judging.planned(run_copy, "j", FakeJudge(answer)).asks


@pytest.mark.parametrize("outcome", [-0.1, 0.25, 1.5, math.nan])
def test_an_outcome_beyond_its_range_stores_nothing(run_copy, outcome):
    failures, _ = judge(run_copy, FakeJudge(lambda question: Answer(outcome)), batch_size=34)
    (failure,) = failures
    assert failure.startswith("34 of 34 not answered, the first pair ")
    assert failure.endswith(f": j gave the outcome {outcome}; expected 0, 0.5 or 1")
    assert verdicts(run_copy) == {}


@pytest.mark.parametrize("change", [1, -1])
def test_a_wrong_number_of_answers_stores_nothing(run_copy, change):
    class Careless(FakeJudge):
        def judge(self, questions):
            answers = super().judge(questions)
            return answers[1:] if change < 0 else [*answers, answers[0]]

    failures, _ = judge(run_copy, Careless(lambda question: Answer(1.0)), batch_size=34)
    (failure,) = failures
    assert failure.startswith("34 of 34 not answered, the first pair ")
    assert failure.endswith(f": j gave {68 + change} answers to 68 questions")
    assert verdicts(run_copy) == {}
