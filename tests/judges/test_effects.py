"""The effect judge, against a server on loopback."""

import json

import PIL.Image
import pytest

from tests.chat_server import serving
from tests.judges import endpoints
from widespectrum.judges import load_judge
from widespectrum.judges.effects import EffectJudge
from widespectrum.judges.instructions import instruction
from widespectrum.protocols import Abstention, Answer, EndpointJudge, Failure, Question
from widespectrum.types import DIMENSIONS, OPTIONAL_DIMENSIONS, Prompt

IMAGE = PIL.Image.new("RGB", (40, 24), "gray")
CAPTION = Prompt(prompt_id="", text="a yellow bus on a street", pair_id="bus", role="original")
TEXT = "a yellow bus on a street, smeared into one blur, under a sky as black as tar, nobody about"
ASKED = ("clarity", "color brightness", "richness")
WORDS = ("smeared into one blur", "under a sky as black as tar", "nobody about")


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-a-very-secret-key")
    monkeypatch.setattr("widespectrum.chat.client._pause", lambda seconds, stop: False)


def prompt(effects=WORDS, dimensions=ASKED):
    return Prompt(prompt_id="", text=TEXT, pair_id="bus", role="wide_spectrum", dimensions=dimensions, effects=effects)


def question(dimension="effects", image=IMAGE, **fields):
    return Question(**{"prompt": prompt(), "image": image, "dimension": dimension, "original": CAPTION, **fields})


def ask(replies, questions, **options):
    with serving(replies) as server:
        judge = EffectJudge(model="org/tiny", base_url=server.url, **options)
        try:
            return judge.judge(questions), server
        finally:
            judge.close()


BOTH = [question("effects"), question("main concept")]
GOOD = endpoints.rating(effect_1=90, effect_2=60, effect_3=0, main_concept=85)


def test_it_is_in_the_table_with_the_protocol():
    judge = load_judge("vlm-effects", model="gpt-5")
    assert isinstance(judge, EffectJudge)
    assert isinstance(judge, EndpointJudge)
    assert judge.dimensions == ("effects", "main concept")
    assert judge.spec.params["instruction"] == instruction("effects").digest
    assert judge.spec.params["descriptions"] == instruction("effect_descriptions").digest


def test_one_request_answers_both_and_what_was_looked_for_is_kept():
    answers, server = ask(GOOD, BOTH)
    assert len(server.requests) == 1
    assert [each.outcome for each in answers] == [pytest.approx(0.5), pytest.approx(0.85)]
    assert answers[0].details == answers[1].details
    assert json.loads(json.dumps(answers[0].details)) == {
        "effects": [
            {"dimension": name, "looked_for": words, "visible": visible}
            for name, words, visible in zip(ASKED, WORDS, (90, 60, 0), strict=True)
        ],
        "main_concept": {"looked_for": CAPTION.text, "visible": 85},
    }
    assert {each.rationale for each in answers} == {"a bus, hardly to be seen"}
    assert all(json.loads(each.raw)["effect_2"] == 60 for each in answers)


def test_the_request_lists_the_words_of_the_prompt():
    _, server = ask(GOOD, BOTH)
    body = server.requests[0].body
    assert body["messages"][0]["content"] == instruction("effects").text
    text = endpoints.text(body)
    for number, words in enumerate(WORDS, start=1):
        assert f"{number}. {words}\n" in text
    assert TEXT in text
    assert f"The main concept:\n\n{CAPTION.text}\n" in text
    assert len(endpoints.images(body)) == 1
    schema = body["response_format"]["json_schema"]["schema"]
    numbers = ["effect_1", "effect_2", "effect_3", "main_concept"]
    assert schema["required"] == list(schema["properties"]) == ["description", *numbers]
    assert {(each["minimum"], each["maximum"]) for each in map(schema["properties"].get, numbers)} == {(0, 100)}


def test_without_the_words_a_dimension_is_described():
    everything = DIMENSIONS + OPTIONAL_DIMENSIONS
    answers, server = ask(endpoints.rating(main_concept=1), [question(prompt=prompt((), everything), original=None)])
    looked_for = [each["looked_for"] for each in answers[0].details["effects"]]
    assert [each["dimension"] for each in answers[0].details["effects"]] == list(everything)
    assert len(set(looked_for)) == len(everything)
    assert "blurry" in looked_for[everything.index("clarity")]
    assert "dark" in looked_for[everything.index("color brightness")]
    text = endpoints.text(server.requests[0].body)
    assert all(words in text for words in looked_for)
    assert answers[0].details["main_concept"]["looked_for"] == TEXT


@pytest.mark.parametrize(
    "numbers",
    [
        {"effect_1": 101, "main_concept": 50},
        {"effect_1": -1, "main_concept": 50},
        {"effect_1": 50.5, "main_concept": 50},
        {"effect_1": "90", "main_concept": 50},
        {"effect_1": None, "main_concept": 50},
    ],
)
def test_a_number_that_cannot_be_is_a_failure(numbers):
    answers, server = ask(endpoints.rating(**numbers), BOTH, attempts=2)
    assert [type(each) for each in answers] == [Failure, Failure]
    assert len(server.requests) == 2


@pytest.mark.parametrize("change", [{"effect_4": 3}, {"effect_3": ...}, {"main_concept": ...}, {"score": 1}])
def test_effects_that_are_missing_or_too_many_are_failures(change):
    def reply(body):
        return {name: value for name, value in (GOOD(body) | change).items() if value is not ...}

    answers, _ = ask(reply, BOTH, attempts=1)
    assert [type(each) for each in answers] == [Failure, Failure]


def test_a_refusal_is_an_abstention_of_both():
    answers, _ = ask([endpoints.REFUSAL], BOTH, attempts=1)
    assert [type(each) for each in answers] == [Abstention, Abstention]
    assert answers[0].raw == endpoints.REFUSAL.refusal


def test_questions_that_come_apart_take_one_request(tmp_path):
    other = question(image=PIL.Image.new("RGB", (40, 24), "white"))
    with serving(GOOD) as server:
        for asked, requests in (([BOTH[0], other, other, BOTH[1]], 2), ([BOTH[1]], 2), ([BOTH[0]], 2)):
            judge = EffectJudge(model="org/tiny", base_url=server.url, journal=tmp_path / "journal.jsonl")
            assert all(isinstance(each, Answer) for each in judge.judge(asked))
            judge.close()
            assert len(server.requests) == requests


def test_what_it_is_not_asked():
    answers, server = ask(GOOD, [question(rival=IMAGE), question("overall"), question("effects", prompt=CAPTION)])
    assert [type(each) for each in answers] == [Abstention] * 3
    assert answers[2].reason == "the prompt asks for no effect"
    assert server.requests == []


def test_the_estimate_counts_a_request_once():
    judge = EffectJudge(model="m")
    tokens = judge.estimate(prompt(), "effects", [(280, 280)])
    assert tokens.input > 100 + len(instruction("effects").text) / 6
    assert judge.estimate(prompt(), "main concept", [(280, 280)]) is None
