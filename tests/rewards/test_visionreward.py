"""A server on loopback that answers for the model; the sum is done again by hand."""

from __future__ import annotations

import base64
import gc
import json
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.chat_server import Reply, serving
from tests.rewards.made_visionreward import COEFFICIENTS, QUESTIONS, files
from widespectrum.errors import InputError, ModelError
from widespectrum.protocols import RewardModel
from widespectrum.rewards.visionreward import VisionReward
from widespectrum.rewards.visionreward_questions import read_questionnaire

SOURCE = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "sources" / "visionreward"
official = pytest.mark.skipif(not SOURCE.is_dir(), reason="VisionReward's files are not there")
SHORT = (SOURCE / "VisionReward_image_qa_select.txt", SOURCE / "weight_select.json")
LONG = (SOURCE / "VisionReward_image_qa.txt", SOURCE / "weight.json")
RED, BLUE = (Image.new("RGB", (40, 30), color) for color in ("red", "blue"))


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in ("OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_BASE_URL", "OPENAI_ADMIN_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-a-very-secret-key")
    monkeypatch.setattr("widespectrum.chat.client._pause", lambda seconds, stop: False)


def asked(body):
    """(the question, the color in the middle of the image) of a request."""
    text, picture = body["messages"][-1]["content"]
    with Image.open(BytesIO(base64.b64decode(picture["image_url"]["url"].partition(",")[2]))) as image:
        red, _, blue = image.convert("RGB").getpixel((20, 15))
    return text["text"], "red" if red > blue else "blue"


def answering(yes):
    """A server's replies: `yes(question, color)`."""
    return lambda body: {"answer": "yes" if yes(*asked(body)) else "no"}


def expected_of_short(answers, alignment, coefficients, intercept):
    """The reward of 30 answers, written out from the specification."""
    value = {number: 1.0 if answer else -1.0 for number, answer in enumerate(answers)}
    if not answers[0]:
        for number in (22, 23, 24, 28, 29):
            value[number] = 0.0
    if not answers[1]:
        value[25] = value[26] = 0.0
    if not answers[2]:
        value[27] = 0.0
    terms = [alignment] + [value[number] for number in range(3, 30)]
    assert len(terms) == len(coefficients) == 28
    return sum(term * weight for term, weight in zip(terms, coefficients, strict=True)) + intercept


def random_answers():
    rng = np.random.default_rng(0)
    return [*(rng.random((40, 30)) < 0.5).tolist(), [True] * 30, [False] * 30]


def test_the_sum_is_that_of_the_specification(tmp_path):
    made = files(tmp_path)
    form = read_questionnaire(made["questions"], made["weights"])
    for answers in random_answers():
        expected = expected_of_short(answers, 0.75, COEFFICIENTS, 0.25)
        assert form.reward(answers, 0.75) == pytest.approx(expected, abs=1e-12)
    assert not form.is_official


@official
def test_the_official_files_belong_together_and_both_lists_agree():
    short, long = read_questionnaire(*SHORT), read_questionnaire(*LONG)
    assert (len(short.questions), len(short.coefficients)) == (30, 28)
    assert (len(long.questions), len(long.coefficients)) == (59, 55)
    assert short.is_official
    assert long.is_official
    assert "Is the image not monotonous?" in short.questions
    weights = json.loads(SHORT[1].read_text())
    rng = np.random.default_rng(1)
    for answers in random_answers():
        expected = expected_of_short(answers, 0.3, weights["coef"], weights["intercept"][0])
        assert short.reward(answers, 0.3) == pytest.approx(expected, abs=1e-12)
        # What the short list leaves out weighs nothing in the long one, whatever is answered.
        known = dict(zip(short.questions, answers, strict=True))
        all_answers = [known.get(question, bool(rng.random() < 0.5)) for question in long.questions]
        assert long.reward(all_answers, 0.3) == pytest.approx(expected, abs=1e-12)
    lowest, highest = short.reward([True] * 3 + [False] * 27, 0), short.reward([True] * 30, 1)
    assert (round(lowest, 2), round(highest, 2)) == (-2.54, 4.89)


def test_an_image_is_asked_about_once_and_each_prompt_once(tmp_path):
    def yes(question, color):
        if color == "red":
            return QUESTIONS.index(question) % 3 == 0 if question in QUESTIONS else "red ball" in question
        return QUESTIONS.index(question) != 1 if question in QUESTIONS else "blue" in question

    rows = [(RED, "a red ball"), (BLUE, "a red ball"), (RED.copy(), "a blue ball"), (BLUE, "a blue ball")] * 2
    expected = [
        expected_of_short(
            [yes(each, "red" if n % 2 == 0 else "blue") for each in QUESTIONS], float(fits), COEFFICIENTS, 0.25
        )
        for n, fits in enumerate([True, False, False, True] * 2)
    ]
    with serving(answering(yes)) as server:
        model = VisionReward(endpoint=server.endpoint, **files(tmp_path))
        assert isinstance(model, RewardModel)
        assert server.requests == []
        scores = model.score([image for image, _ in rows], [prompt for _, prompt in rows])
        assert (scores.dtype, scores.shape) == (np.float64, (8,))
        np.testing.assert_allclose(scores, expected, atol=1e-12)
        assert len(server.requests) == 2 * 30 + 4
        assert model.score([RED], ["a third"]) == expected[2]
        assert len(server.requests) == 2 * 30 + 5
        body = server.requests[0].body
        assert body["temperature"] == 0
        assert body["response_format"]["json_schema"]["schema"]["properties"]["answer"]["enum"] == ["yes", "no"]
        assert [message["role"] for message in body["messages"]] == ["user"]
        model.close()
        again = VisionReward(endpoint=server.endpoint, **files(tmp_path))
        np.testing.assert_array_equal(again.score([image for image, _ in rows], [p for _, p in rows]), scores)
        assert len(server.requests) == 2 * 30 + 5
    assert "secret" not in (tmp_path / "journal.jsonl").read_text()


def test_without_alignment_the_prompt_changes_nothing(tmp_path):
    with serving(answering(lambda question, color: question != QUESTIONS[4])) as server:
        model = VisionReward(endpoint=server.endpoint, alignment="none", **files(tmp_path))
        scores = model.score([RED, RED], ["a", "b"])
        assert len(server.requests) == 30
    expected = expected_of_short([number != 4 for number in range(30)], 0.0, COEFFICIENTS, 0.25)
    np.testing.assert_allclose(scores, [expected] * 2, atol=1e-12)


def test_the_journal_is_free_when_the_model_is_gone(tmp_path):
    with serving([{"answer": "yes"}]) as server:
        model = VisionReward(endpoint=server.endpoint, **files(tmp_path))
        model.score([RED], ["a"])
        other = VisionReward(endpoint=server.endpoint, **files(tmp_path))
        with pytest.raises(InputError, match="is in use"):
            other.score([RED], ["a"])
        del model
        gc.collect()
        assert other.score([RED], ["a"]).shape == (1,)
        other.close()


def test_the_spec_names_what_changes_the_scores_and_not_where_the_server_is(tmp_path):
    made = files(tmp_path)
    one = VisionReward(endpoint="openai:org/tiny@http://127.0.0.1:1/v1", **made)
    assert one.spec == VisionReward(endpoint="openai:org/tiny@http://localhost:2/v1", concurrency=1, **made).spec
    assert (one.spec.adapter, one.spec.params["model"], one.spec.params["alignment"]) == (
        *("visionreward", "org/tiny", "yes-no"),
    )
    assert one.spec.params["official_files"] is False
    assert "127.0.0.1" not in str(one.spec)
    keys = {one.spec.key}
    for change in ({"alignment": "none"}, {"temperature": 1.0}, {"endpoint": "openai:other@http://127.0.0.1:1/v1"}):
        keys.add(VisionReward(**{"endpoint": "openai:org/tiny@http://127.0.0.1:1/v1", **made, **change}).spec.key)
    made["questions"].write_text("\n".join(QUESTIONS[::-1]), encoding="utf-8")
    keys.add(VisionReward(endpoint="openai:org/tiny@http://127.0.0.1:1/v1", **made).spec.key)
    assert len(keys) == 5


@pytest.mark.parametrize("said", ["Yes.", {"answer": "maybe"}, {"answer": "Yes"}, Reply(refusal="no", text=None)])
def test_neither_yes_nor_no_is_an_error_and_the_rest_is_kept(said, tmp_path):
    failing = [True]

    def reply(body):
        return said if failing and asked(body)[0] == QUESTIONS[7] else {"answer": "no"}

    with serving(reply) as server:
        model = VisionReward(endpoint=server.endpoint, alignment="none", concurrency=1, **files(tmp_path))
        with pytest.raises(ModelError, match=r"^1 of 30 questions got neither yes nor no; the first: "):
            model.score([RED], ["a"])
        count = len(server.requests)
        failing.clear()
        model.score([RED], ["a"])
        assert len(server.requests) == count + 1


def test_a_server_that_fails_is_an_error(tmp_path):
    with serving([Reply(status=500)]) as server:
        model = VisionReward(endpoint=server.endpoint, concurrency=1, **files(tmp_path))
        with pytest.raises(ModelError, match=r"3 of 3 questions got no answer; the last: .*500"):
            model.score([RED], ["a"])
    with pytest.raises(InputError, match="expected at least one image"):
        model.score([], [])


def weights(folder, text):
    (folder / "weights.json").write_text(text, encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            lambda at: (at / "questions.txt").unlink(),
            r"the question file .*questions.txt cannot be read \(No such file",
        ),
        (lambda at: (at / "weights.json").unlink(), r"the weight file .*weights.json cannot be read \(No such file"),
        (
            lambda at: (at / "questions.txt").write_text("\n".join(QUESTIONS[:29])),
            r"questions.txt holds 29 questions: expected 30 \(VisionReward_image_qa_select.txt\) or 59 \(",
        ),
        (lambda at: (at / "questions.txt").write_bytes(b"\xff\xfe\x00"), r"questions.txt is not UTF-8 text"),
        (
            lambda at: weights(at, json.dumps({"coef": [1.0] * 55, "intercept": [0]})),
            r"weights.json holds 55 coefficients: expected 28 for the 30 questions of .*; weight_select.json goes with",
        ),
        (lambda at: weights(at, "{"), r"weights.json holds no weights \(Expecting .*\): expected JSON with \"coef\""),
        (lambda at: weights(at, "[]"), r"weights.json holds no weights"),
        (lambda at: weights(at, '{"coef": [1], "intercept": [0, 1]}'), r"weights.json holds no weights \(too many"),
        (lambda at: weights(at, '{"coef": [NaN], "intercept": 0}'), r"weights.json holds no weights \(got nan\)"),
        (lambda at: weights(at, '{"coef": ["1"], "intercept": 0}'), r"weights.json holds no weights \(got '1'\)"),
        (lambda at: weights(at, '{"coef": [1]}'), r"weights.json holds no weights \('intercept'\)"),
    ],
)
def test_files_that_do_not_fit(change, expected, tmp_path):
    made = files(tmp_path)
    change(tmp_path)
    with pytest.raises(InputError, match=expected):
        VisionReward(endpoint="openai:m@http://127.0.0.1:1/v1", **made)


def test_options_that_cannot_be(tmp_path, monkeypatch):
    made = files(tmp_path)
    with pytest.raises(InputError, match="alignment must be one of yes-no, none; got 'vqascore'"):
        VisionReward(endpoint="openai:m@http://127.0.0.1:1/v1", alignment="vqascore", **made)
    with pytest.raises(InputError, match="'gpt' is not an endpoint: write it as"):
        VisionReward(endpoint="gpt", **made)
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(InputError, match="set OPENAI_API_KEY"):
        VisionReward(endpoint="openai:m@https://example.org/v1", **made).score([RED], ["a"])
