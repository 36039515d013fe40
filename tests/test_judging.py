"""The judge stage, on the images and scores of the small run, with judges that misbehave on purpose."""

import itertools
import math
import random
import re
from collections import Counter

import pyarrow.compute as pc
import pytest

from widespectrum import judging, pipeline, store
from widespectrum.errors import BudgetSpentError, HubError, InputError, ModelError
from widespectrum.images import ImageReader, encode
from widespectrum.judges.majority import MajorityJudge
from widespectrum.protocols import Abstention, Answer, Failure
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


def test_an_answer_is_stored_with_all_that_was_said(run_copy):
    """The aggregate of the orders is nobody's words."""
    said = {"first": ("one", 0.75), "second": ("two", 0.5)}

    def answer(question):
        raw, confidence = said[question.order]
        return Answer(1.0, "why", raw, {"b": [1], "a": None}, confidence)

    judge(run_copy, FakeJudge(answer))
    rows = [row for row in store.read(run_copy, "verdicts").to_pylist() if row["judge"] == "j"]
    found = {(row["order"], row["raw"], row["details"], row["confidence"]) for row in rows}
    assert found == {
        *((order, raw, '{"a":null,"b":[1]}', confidence) for order, (raw, confidence) in said.items()),
        ("both", "", "", None),
    }


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


@pytest.mark.parametrize("outcome", [-0.1, 1.1, math.nan])
def test_a_rating_beyond_its_range_stores_nothing(run_copy, outcome):
    (failure,), _ = judge(run_copy, FakeJudge(lambda question: Answer(outcome), dimensions=("clarity",)), batch_size=99)
    assert failure.endswith(f": j gave the rating {outcome}; expected 0 to 1")
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


class Streaming(FakeJudge):
    """Behind an endpoint: answers come one by one, in an order of their own; `end` is raised after `count` of them."""

    def __init__(self, answer, dimensions=("overall",), *, end=None, count=None, watch=None):
        super().__init__(answer, dimensions)
        self.end, self.count, self.watch = end, count, watch

    def open(self):
        pass

    def estimate(self, prompt, dimension, sizes):
        raise AssertionError

    def ask(self, questions):
        asked = list(questions)
        self.questions += [question for _, question in asked]
        random.Random(7).shuffle(asked)
        for mark, question in asked[: self.count]:
            yield mark, self.answer(question)
            if self.watch:
                self.watch()
        if self.end is not None:
            raise self.end


def first_wins(question):
    return Answer(float(question.order == "first"))


def is_prompt(question, dimension):
    return question.prompt.dimensions == (dimension,)


def test_answers_that_come_in_any_order_belong_to_their_questions(run_copy):
    streaming = Streaming(rate, dimensions=("clarity", "richness"))
    assert judge(run_copy, streaming) == ([], Counter())
    found = verdicts(run_copy)
    assert {key: value for key, (value, _) in found.items()} == {key: red(run_copy, key[1]) for key in found}
    assert len(found) == len(streaming.questions) == 2 * (22 + 12)
    judge(run_copy, Streaming(first_wins))
    assert verdicts(run_copy).keys() - found == {(*ask, order) for ask in overall(run_copy) for order in ORDERS}
    assert not judging.planned(run_copy, "j", Streaming(first_wins)).asks


def test_what_is_asked_about_one_photograph_stands_side_by_side(run_copy):
    # Both generators begin with the same photographs.
    streaming = Streaming(first_wins)
    judge(run_copy, streaming)
    pairs = [question.prompt.pair_id for question in streaming.questions]
    assert [pair for pair, _ in itertools.groupby(pairs)] == sorted(set(pairs))
    rivals = {pair: {id(q.rival) for q in streaming.questions if q.prompt.pair_id == pair} for pair in pairs}
    assert {len(images) for images in rivals.values()} == {1}


@pytest.mark.parametrize("kind", [FakeJudge, Streaming])
@pytest.mark.parametrize("wrong", ["first", "second"])
def test_a_failure_in_one_order_leaves_the_pair_for_the_next_run(run_copy, kind, wrong):
    def fails(question):
        lost = is_prompt(question, "clarity") and question.order == wrong
        return Failure("no connection", "model") if lost else first_wins(question)

    failures, _ = judge(run_copy, kind(fails))
    (failure,) = failures
    assert re.match(r"4 of 34 not answered, the first pair .*/clarity of .*: no connection$", failure)
    kept = verdicts(run_copy)
    assert len(kept) == 3 * (34 - 4)
    again = kind(first_wins)
    assert judge(run_copy, again) == ([], Counter())
    assert Counter(question.order for question in again.questions) == {"first": 4, "second": 4}
    assert verdicts(run_copy).items() >= kept.items()
    assert len(verdicts(run_copy)) == 3 * 34


@pytest.mark.parametrize("error", [BudgetSpentError, HubError, InputError, ModelError])
def test_an_error_in_the_midst_keeps_what_was_answered(run_copy, error):
    def answer(question):
        return Abstention("too sharp a question") if is_prompt(question, "clarity") else first_wins(question)

    streaming = Streaming(answer, end=error("that is all"), count=50)
    judged = judging.judge_all(judging.planned(run_copy, "j", streaming), batch_size=8, description="judge")
    assert (type(judged.trouble), str(judged.trouble)) == (error, "that is all")
    assert judged.trouble.__traceback__ is None
    assert judged.abstained.total() > 0
    assert judged.left == len(judging.planned(run_copy, "j", streaming).asks) > 0
    assert judged.answered == len(verdicts(run_copy)) / 3 == 34 - judged.left - judged.abstained.total()


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_whatever_ends_it_what_was_answered_is_stored(run_copy, error):
    with pytest.raises(error):
        judge(run_copy, Streaming(first_wins, end=error(), count=50))
    kept = verdicts(run_copy)
    assert 0 < len(kept) < 3 * 34
    assert len(kept) % 3 == 0
    judge(run_copy, Streaming(first_wins))
    assert len(verdicts(run_copy)) == 3 * 34


def test_answers_are_stored_while_others_are_waited_for(run_copy, monkeypatch):
    stored, before = [], len(store.parts(run_copy, "verdicts"))
    monkeypatch.setattr(judging, "_SECONDS", 0)
    judge(run_copy, Streaming(first_wins, watch=lambda: stored.append(len(verdicts(run_copy)))))
    assert sorted(set(stored)) == [3 * number for number in range(35)]
    assert len(store.parts(run_copy, "verdicts")) == before + 34


def test_every_batch_of_a_slow_judge_is_stored(run_copy, monkeypatch):
    before = len(store.parts(run_copy, "verdicts"))
    monkeypatch.setattr(judging, "_SECONDS", 0)
    judge(run_copy, FakeJudge(first_wins), batch_size=10)
    assert len(store.parts(run_copy, "verdicts")) == before + 4


@pytest.mark.parametrize("kind", [FakeJudge, Streaming])
def test_not_every_answer_gets_a_file_of_its_own(run_copy, kind):
    before = len(store.parts(run_copy, "verdicts"))
    judge(run_copy, kind(first_wins), batch_size=1)
    assert len(verdicts(run_copy)) == 3 * 34
    # More than one where the machine is slow.
    assert len(store.parts(run_copy, "verdicts")) <= before + 5


def together(run, *labels):
    model = MajorityJudge(judges=";".join(labels))
    judged = judging.judge_all(judging.planned(run, "m", model), batch_size=8, description="judge")
    found = {}
    for row in store.read(run, "verdicts").to_pylist():
        if row["judge"] == "m":
            found.setdefault(row["order"], []).append(row["outcome"])
    return judged, {order: Counter(outcomes) for order, outcomes in found.items()}


def say(run, label, answer):
    judging.judge_all(judging.planned(run, label, FakeJudge(answer)), batch_size=8, description="judge")


def test_the_aggregate_of_a_majority_is_over_the_aggregates(run_copy):
    say(run_copy, "a", first_wins)
    say(run_copy, "b", lambda question: Answer(float(question.order == "second")))
    say(run_copy, "c", lambda question: Answer(1.0))
    # In each order two choose the image, and yet two of three change their answer with the order.
    judged, found = together(run_copy, "a", "b", "c")
    assert found == {"first": {1.0: 34}, "second": {1.0: 34}, "both": {0.5: 34}}
    assert (judged.answered, judged.left) == (34, 0)


def test_a_majority_votes_order_by_order_and_waits_for_all(run_copy):
    def silent(question):
        return Abstention("no word") if is_prompt(question, "clarity") else Answer(1.0)

    def lost(question):
        return Failure("lost", "model") if is_prompt(question, "richness") else Answer(1.0)

    say(run_copy, "a", first_wins)
    say(run_copy, "b", silent)
    say(run_copy, "c", lost)
    judged, found = together(run_copy, "a", "b", "c")
    (failure,) = judged.failures
    assert re.match(
        r"4 of 34 not answered, .*: c gave no verdict yet: judge with it first, then again$", failure.reason
    )
    assert judged.left == 4
    # Where b abstained, a and c agree in one order only.
    assert found == {"first": {1.0: 30}, "second": {1.0: 26, 0.5: 4}, "both": {1.0: 26, 0.5: 4}}
    say(run_copy, "c", lambda question: Answer(1.0))
    assert together(run_copy, "a", "b", "c")[1]["both"] == {1.0: 30, 0.5: 4}
