"""The verdict judge, against a server on loopback."""

import collections
import json
import re

import PIL.Image
import pytest

from tests.chat_server import Reply, serving
from tests.judges import endpoints
from widespectrum.budget import Budget
from widespectrum.errors import BudgetSpentError, InputError, ModelError
from widespectrum.judges import JUDGES, load_judge
from widespectrum.judges.instructions import instruction
from widespectrum.judges.vlm import VLMJudge
from widespectrum.protocols import Abstention, Answer, EndpointJudge, Failure, Question, Tokens
from widespectrum.types import ModelSpec, Prompt

KEY = "sk-a-very-secret-key"
DARK, BRIGHT = (PIL.Image.new("RGB", (40, 24), (level,) * 3) for level in (20, 220))


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in ("OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_BASE_URL", "OPENAI_CUSTOM_HEADERS", "OPENAI_ADMIN_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


@pytest.fixture(autouse=True)
def pauses(monkeypatch):
    """The seconds that the client wanted to wait; it does not."""
    waited = []
    monkeypatch.setattr("widespectrum.chat.client._pause", lambda seconds, stop: waited.append(seconds))
    return waited


def prompt(text="a yellow bus, so dark that it can hardly be seen", pair="bus"):
    dimensions = ("color brightness",)
    return Prompt(prompt_id="", text=text, pair_id=pair, role="wide_spectrum", dimensions=dimensions)


def question(order="first", image=DARK, rival=BRIGHT, **fields):
    return Question(**{"prompt": prompt(), "image": image, "rival": rival, "order": order, **fields})


def opened(server, **options):
    return VLMJudge(model="org/tiny", base_url=server.url, **options)


def ask(replies, questions=None, **options):
    with serving(replies) as server:
        judge = opened(server, **options)
        try:
            return judge.judge(questions or [question("first"), question("second")]), server, judge
        finally:
            judge.close()


def test_it_is_in_the_table_with_the_protocol():
    judge = load_judge("vlm", model="gpt-5")
    assert isinstance(judge, VLMJudge)
    assert isinstance(judge, EndpointJudge)
    assert judge.dimensions == ("overall",)
    assert JUDGES["vlm"].extra == "judges"


@pytest.mark.parametrize(
    ("answer", "outcomes"),
    [
        (endpoints.always("first"), [1, 0]),
        (endpoints.always("second"), [0, 1]),
        (endpoints.always("tie"), [0.5, 0.5]),
        (endpoints.darker, [1, 1]),
    ],
)
def test_outcomes_are_of_the_image_whatever_its_place(answer, outcomes):
    answers, server, _ = ask(answer)
    assert [each.outcome for each in answers] == outcomes
    assert {each.rationale for each in answers} == {"it shows more of it"}
    assert all(json.loads(each.raw)["reason"] == "it shows more of it" for each in answers)
    assert len(server.requests) == 2


def test_the_darker_image_loses_where_it_is_the_rival():
    answers, *_ = ask(endpoints.darker, [question("first", BRIGHT, DARK), question("second", BRIGHT, DARK)])
    assert [each.outcome for each in answers] == [0, 0]


def test_a_request_shows_the_prompt_and_the_images_in_order_and_nothing_else():
    large = PIL.Image.new("RGB", (2000, 500), "white")
    asked = [question("first", rival=large), question("second", rival=large)]
    _, server, _ = ask(endpoints.always("tie"), asked, concurrency=1, max_side=100)
    for received, sizes in zip(server.requests, ([(40, 24), (100, 25)], [(100, 25), (40, 24)]), strict=True):
        system, user = received.body["messages"]
        assert system == {"role": "system", "content": instruction("verdict").text}
        assert [image.size for image in endpoints.images(received.body)] == sizes
        assert prompt().text in endpoints.text(received.body)
        assert [part["type"] for part in user["content"]] == ["text", "text", "image_url", "text", "image_url"]
        captions = [part["text"] for part in user["content"] if part["type"] == "text"][1:]
        assert captions == ["The first image:", "The second image:"]
        assert received.body["temperature"] == 0
        # What a model writes first it cannot fit to its verdict afterwards.
        schema = received.body["response_format"]["json_schema"]
        assert (list(schema["schema"]["properties"]), schema["strict"]) == (["reason", "verdict"], True)
        for secret in (asked[0].prompt.prompt_id, "wide_spectrum", "original", "rival", "'bus'"):
            assert secret not in json.dumps({**received.body, "messages": [system, endpoints.text(received.body)]})
    first, second = (endpoints.text(received.body) for received in server.requests)
    assert first == second


def test_the_instruction_is_ours_and_asks_for_both_sides():
    text = instruction("verdict")
    assert text.sha256.startswith(text.digest) and len(text.digest) == 16
    # The judge on this machine leaves out the last paragraph, which says how to answer.
    assert text.text.rpartition("\n\n")[2].startswith("Answer in JSON")
    for word in ("reason", "verdict", '"first"', '"second"', '"tie"', "more conventional", "stranger"):
        assert word in text.text
    with pytest.raises(InputError, match=r"no instruction verdict\.v9\.txt; there are .*verdict\.v1\.txt"):
        instruction("verdict", "v9")


def test_what_changes_answers_is_in_the_spec_and_nothing_else():
    plain = VLMJudge(model="org/tiny:free", input_price=1, output_price=2)
    assert ModelSpec.parse(str(plain.spec)) == plain.spec
    assert plain.spec.revision == "v1"
    assert plain.spec.params == {
        "model": "org/tiny:free",
        "temperature": 0.0,
        "max_side": 1024,
        "instruction": instruction("verdict").sha256[:16],
    }
    same = VLMJudge(model="org/tiny:free", base_url="http://localhost:1/v1", concurrency=2, attempts=1, timeout=3)
    assert same.spec == plain.spec
    for other in ({"model": "b"}, {"temperature": 0.5}, {"temperature": "default"}, {"max_side": 512}):
        assert VLMJudge(**{"model": "org/tiny:free", **other}).spec != plain.spec


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": ""}, "needs a model"),
        ({"model": 4}, "model is 4, expected a text"),
        ({"base_url": "x:1"}, "the base URL is 'x:1', expected http://... or https://...; give model= and base_url="),
        ({"base_url": "http://a:b@c"}, "holds no user and no password: set OPENAI_API_KEY; give model= and base_url="),
        ({"temperature": "cold"}, "temperature is 'cold', expected a number of 0 or more or \"default\""),
        ({"temperature": -1}, "temperature is -1"),
        ({"max_side": 0}, "max_side is 0, expected a whole number of 1 or more"),
        ({"attempts": 1.5}, "attempts is 1.5"),
        ({"concurrency": True}, "concurrency is True"),
        ({"timeout": 0}, "timeout is 0, expected a number above 0"),
        ({"input_price": 1.0}, "expected both or neither: give input_price= and output_price="),
        ({"input_price": -1.0, "output_price": 1.0}, "input_price is -1.0"),
    ],
)
def test_options_that_cannot_be(options, message):
    with pytest.raises(InputError, match=re.escape(message)):
        VLMJudge(**{"model": "m", **options})


def test_without_a_key_nothing_is_opened(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(InputError, match="set OPENAI_API_KEY"):
        VLMJudge(model="gpt-5").open()


def test_what_it_is_not_asked():
    answers, server, _ = ask(
        endpoints.always("tie"), [question(rival=None), question(dimension="clarity"), question("first")]
    )
    assert [type(each) for each in answers] == [Abstention, Abstention, Answer]
    assert "only compares two images" in answers[0].reason
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("fault", "kind", "requests"),
    [
        (endpoints.MALFORMED, Failure, 3),
        (endpoints.EXTRA_KEY, Failure, 3),
        (endpoints.WRONG_WORD, Failure, 3),
        (endpoints.BROKEN, Failure, 3),
        (endpoints.TOO_MANY, Failure, 3),
        (endpoints.CUT, Failure, 3),
        (endpoints.REFUSAL, Abstention, None),
        (endpoints.FILTERED, Abstention, None),
    ],
)
def test_what_is_no_answer_is_neither_a_tie_nor_lost(fault, kind, requests):
    answers, server, _ = ask([fault], [question()], attempts=3)
    assert type(answers[0]) is kind
    assert requests is None or len(server.requests) == requests
    if kind is Failure:
        assert answers[0].cause == "model"
        assert "after 3 attempts" in answers[0].reason
    else:
        assert "declined" in answers[0].reason
        assert answers[0].raw


def test_equal_reasons_are_equal_texts():
    asked = [question(prompt=prompt(pair=f"p{n}")) for n in range(3)]
    answers, *_ = ask([endpoints.MALFORMED], asked, attempts=1)
    assert len({each.reason for each in answers}) == 1


def test_a_server_without_structured_output_is_asked_in_words():
    def reply(body):
        return Reply(status=400, error="no response_format") if "response_format" in body else endpoints.darker(body)

    answers, server, _ = ask(reply, concurrency=1)
    assert [each.outcome for each in answers] == [1, 1]
    assert len(server.requests) == 3


def test_a_temperature_that_the_server_refuses_says_what_to_do():
    said = (
        "Unsupported value: 'temperature' does not support 0 with this model. Only the default (1) value is supported."
    )

    def reply(body):
        refused = Reply(status=400, error=said, code="unsupported_value")
        return refused if "temperature" in body else endpoints.darker(body)

    with pytest.raises(InputError, match=r"/v1 does not take temperature=0 \(400: .* value is supported\.\): set"):
        ask(reply)
    assert [each.outcome for each in ask(reply, temperature="default")[0]] == [1, 1]


def test_a_server_that_answers_nobody_ends_it():
    asked = [(n, question(prompt=prompt(pair=f"p{n}"))) for n in range(50)]
    with serving([endpoints.BROKEN]) as server:
        judge = opened(server, attempts=1, concurrency=2)
        given = []
        with pytest.raises(ModelError, match="no answer"):
            given.extend(judge.ask(asked))
        judge.close()
    assert len(given) <= 6
    assert len(server.requests) < 12


def test_an_image_that_cannot_be_shown_fails_alone():
    deep = PIL.Image.new("I;16", (4, 4))
    answers, *_ = ask(endpoints.darker, [question(rival=deep), question()])
    assert [type(each) for each in answers] == [Failure, Answer]
    assert answers[0].cause == "input"
    assert "an image of pair 'bus' cannot be read" in answers[0].reason


def test_equal_questions_are_asked_once_and_each_is_answered():
    twice = [question("first"), question("first", DARK.copy(), BRIGHT.copy()), question("second")] * 2
    answers, server, judge = ask(endpoints.darker, twice)
    assert [each.outcome for each in answers] == [1] * 6
    assert len(server.requests) == judge.spent().calls == 2


def test_an_image_is_encoded_once_for_both_orders(monkeypatch):
    saved = []
    save = PIL.Image.Image.save
    monkeypatch.setattr(PIL.Image.Image, "save", lambda self, *a, **k: saved.append(self.size) or save(self, *a, **k))
    ask(endpoints.always("first"))
    assert len(saved) == 2


def test_the_journal_knows_what_was_answered(tmp_path):
    with serving(endpoints.darker) as server:
        for _ in range(2):
            judge = opened(server)
            judge.keep(tmp_path / "journal.jsonl")
            assert [each.outcome for each in judge.judge([question("first"), question("second")])] == [1, 1]
            judge.close()
        own = opened(server, journal=tmp_path / "own.jsonl")
        own.keep(tmp_path / "unused.jsonl")
        own.judge([question()])
        own.close()
    assert len(server.requests) == 3
    lines = (tmp_path / "journal.jsonl").read_text().splitlines()
    assert len(lines) == 2
    assert KEY not in "".join(lines)
    assert (tmp_path / "own.jsonl").exists() and not (tmp_path / "unused.jsonl").exists()


def test_what_it_costs():
    _, _, judge = ask(endpoints.darker, input_price=2.0, output_price=10.0)
    spent = judge.spent()
    # The server counts 7 tokens in and 5 out.
    assert (spent.calls, spent.tokens) == (2, Tokens(14, 10))
    assert spent.cost == pytest.approx((14 * 2 + 10 * 10) / 1e6)
    assert judge.price(Tokens(1_000_000, 0)) == 2
    assert ask(endpoints.darker)[2].spent().cost is None
    assert VLMJudge(model="m").price(Tokens(1, 1)) is None


def test_the_estimate_grows_with_what_is_sent():
    judge = VLMJudge(model="m", max_side=280)
    small, large, huge = (judge.estimate(prompt(), "overall", [(side, side)] * 2).input for side in (28, 280, 2240))
    assert large - small == 2 * (100 - 1)
    assert huge == large
    assert len(instruction("verdict").text) / 6 < small < len(instruction("verdict").text) / 2
    assert judge.estimate(prompt(), "overall", [(28, 28)]).output > 20


def test_a_budget_stops_it_and_the_next_run_goes_on(tmp_path):
    asked = [(n, question(prompt=prompt(pair=f"p{n}"))) for n in range(12)]
    prices = {"input_price": 1000.0, "output_price": 1000.0}
    with serving(endpoints.darker) as server:
        judge = opened(server, concurrency=2, journal=tmp_path / "j.jsonl", **prices)
        judge.limit(Budget(max_calls=5))
        given = {}
        with pytest.raises(BudgetSpentError, match="budget of 5 calls is spent"):
            for mark, answer in judge.ask(asked):
                given[mark] = answer
        judge.close()
        assert len(server.requests) == len(given) == 5
        again = opened(server, journal=tmp_path / "j.jsonl", **prices)
        given |= dict(again.ask((mark, each) for mark, each in asked if mark not in given))
        again.close()
    assert len(server.requests) == 12
    assert {each.outcome for each in given.values()} == {1}
    with pytest.raises(BudgetSpentError, match=r"budget of \$0.01 is spent"), serving(endpoints.darker) as server:
        poor = opened(server, **prices)
        poor.limit(Budget(max_cost=0.01))
        list(poor.ask(asked))
    assert server.requests == []
    with pytest.raises(InputError, match=r"vlm \(m\): .*give input_price= and output_price="):
        VLMJudge(model="m").limit(Budget(max_cost=1))


def test_nothing_is_lost_or_double_over_5000_calls_with_faults(tmp_path):
    """A fifth of the replies go wrong; the second run asks only what failed, with an honest server."""
    sides = [PIL.Image.new("RGB", (8, 8), (level,) * 3) for level in (10, 240)]
    pairs = [(prompt(pair=f"p{n}"), *sides[:: 1 if n % 2 else -1]) for n in range(2100)]
    asked = {
        (each.pair_id, order): Question(prompt=each, image=image, rival=rival, order=order)
        for each, image, rival in pairs
        for order in ("first", "second")
    }

    def run(replies, questions):
        server.replies = replies
        before = len(server.requests)
        judge = opened(server, attempts=2, concurrency=4, journal=tmp_path / "journal.jsonl")
        marks = [*judge.ask(questions.items())]
        judge.close()
        assert sorted(mark for mark, _ in marks) == sorted(questions)
        return dict(marks), len(server.requests) - before

    with serving([]) as server:
        found, requests = run(endpoints.failing(endpoints.darker, 0.2), asked)
        assert requests >= 5000 * 0.95
        kinds = collections.Counter(type(each) for each in found.values())
        assert kinds[Failure] > 50 and kinds[Abstention] > 50 and kinds[Answer] > 3500
        answered = {mark: each for mark, each in found.items() if isinstance(each, Answer)}
        unanswered = {mark: asked[mark] for mark, each in found.items() if isinstance(each, Failure)}
        again, requests = run(endpoints.darker, {mark: asked[mark] for mark in (*answered, *unanswered)})
    assert requests == len(unanswered)
    for mark, each in again.items():
        darker = endpoints.brightness(asked[mark].image) < endpoints.brightness(asked[mark].rival)
        assert each.outcome == darker
        assert mark not in answered or answered[mark] == each
