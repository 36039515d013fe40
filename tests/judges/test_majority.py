from __future__ import annotations

import itertools

import pytest
from PIL import Image

from widespectrum.errors import InputError
from widespectrum.judges import load_judge
from widespectrum.judges.majority import MajorityJudge
from widespectrum.protocols import Abstention, Answer, Failure, Question
from widespectrum.types import ModelSpec, Prompt

PROMPT = Prompt(prompt_id="", text="x", pair_id="p", role="wide_spectrum", dimensions=("clarity",))
BLANK = Image.new("RGB", (8, 8))


def vote(judge: MajorityJudge, **verdicts: float | None) -> Answer | Abstention | Failure:
    (answer,) = judge.judge([Question(prompt=PROMPT, image=BLANK, rival=BLANK, verdicts=verdicts)])
    return answer


@pytest.mark.parametrize("votes", list(itertools.product([0.0, 0.5, 1.0], repeat=3)))
def test_the_answer_of_more_than_half_and_else_a_tie(votes):
    answer = vote(MajorityJudge(judges="a;b;c"), **dict(zip("abc", votes, strict=True)))
    frequent = max(set(votes), key=votes.count)
    assert answer.outcome == (frequent if votes.count(frequent) >= 2 else 0.5)
    assert answer.details == {"votes": dict(zip("abc", votes, strict=True))}


@pytest.mark.parametrize(
    ("votes", "outcome"),
    [((1.0, 1.0, None), 1.0), ((1.0, 0.0, None), 0.5), ((1.0, None, None), None), ((None, None, None), None)],
)
def test_who_abstained_has_no_vote(votes, outcome):
    answer = vote(MajorityJudge(judges="a;b;c"), **dict(zip("abc", votes, strict=True)))
    if outcome is None:
        assert answer == Abstention(f"only {3 - votes.count(None)} of 3 judges answered")
    else:
        assert answer.outcome == outcome
        assert "c abstained" in answer.rationale


def test_two_judges_have_to_agree():
    judge = MajorityJudge(judges="a,b")
    assert [vote(judge, a=1.0, b=b).outcome for b in (1.0, 0.5, 0.0)] == [1.0, 0.5, 0.5]


def test_it_waits_for_every_judge():
    answer = vote(MajorityJudge(judges="a;b;c"), a=1.0, b=1.0)
    assert answer == Failure("c gave no verdict yet: judge with it first, then again", "model")


def test_it_rates_no_single_image():
    (answer,) = MajorityJudge(judges="a;b").judge([Question(prompt=PROMPT, image=BLANK, dimension="clarity")])
    assert isinstance(answer, Abstention)


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("a;b", ("a", "b")),
        (
            "vlm[model=x,max_side=512], vlm[model=y] ;human:r1",
            ("vlm[model=x,max_side=512]", "vlm[model=y]", "human:r1"),
        ),
    ],
)
def test_labels_may_hold_commas_in_brackets(text, labels):
    assert load_judge("majority", judges=text).judges == labels


@pytest.mark.parametrize("text", ["", "a", "a;a", ";", "a[b;c]"])
def test_one_judge_is_no_majority(text):
    with pytest.raises(InputError, match=r"judges is .*, expected the labels of two or more different judges"):
        MajorityJudge(judges=text)


def test_its_spec_holds_those_of_its_judges():
    one, other = (ModelSpec(adapter="vlm", name="vlm", revision="v1", params={"model": name}) for name in "xy")
    keys = set()
    for spec in (one, other):
        judge = MajorityJudge(judges="a;b")
        judge.bind({"a": spec, "b": one, "unasked": one})
        assert ModelSpec.parse(str(judge.spec)) == judge.spec
        keys.add(judge.spec.key)
    assert len(keys) == 2
    with pytest.raises(InputError, match=r"^judges: the majority needs the verdicts of 'b', .* run; it has: a$"):
        MajorityJudge(judges="a;b").bind({"a": one})


def test_a_judge_of_single_images_has_no_vote():
    people, effects = (ModelSpec(adapter=name, name=name) for name in ("human", "vlm-effects"))
    MajorityJudge(judges="a;b").bind({"a": people, "b": ModelSpec(adapter="vlm", name="vlm")})
    with pytest.raises(InputError, match=r"^judges: 'b' rates images one by one, .*: leave it out$"):
        MajorityJudge(judges="a;b").bind({"a": people, "b": effects})
