"""One question: the real SDK against a server on loopback that goes wrong."""

import datetime
import email.utils
import json
import re

import pytest

from tests.chat.asking import GOOD, KEY, MESSAGES, SCHEMA, lines, opened
from tests.chat_server import Reply, serving
from widespectrum.chat import BadReplyError, Chat, Endpoint, Pricing
from widespectrum.errors import InputError, ModelError

# As OpenRouter says it.
FLAGGED = json.dumps(
    {"error": {"code": 403, "message": "flagged", "metadata": {"reasons": ["violence"], "flagged_input": "blood"}}}
)
ODD = {"Content-Type": "application/json; charset=zip"}
SSE = {"Content-Type": "text/event-stream"}


def test_what_is_asked_and_what_the_journal_says_of_it(journal):
    with serving([GOOD]) as server, opened(server, journal, seed=7) as chat:
        assert chat.ask("q", MESSAGES, SCHEMA) == GOOD
    (request,) = server.requests
    assert request.path == "/v1/chat/completions"
    assert request.headers["Authorization"] == f"Bearer {KEY}"
    shape = {"name": "reply", "strict": True, "schema": SCHEMA}
    assert request.body == {
        "model": "org/tiny",
        "temperature": 0.1,
        "seed": 7,
        "messages": MESSAGES,
        "response_format": {"type": "json_schema", "json_schema": shape},
    }
    (line,) = lines(journal)
    assert line["request"] == {"base_url": server.url, "max_side": 1024, **request.body}
    kept = ("key", "attempt", "status", "reply", "error", "id", "model", "finish_reason")
    assert [line[name] for name in kept] == ["q", 1, "ok", '{"rating": 3}', None, "chatcmpl-1", "tiny-2025", "stop"]
    assert line["usage"]["total_tokens"] == 12
    assert line["cost"] is None
    assert len(line["digest"]) == 64


def test_the_journal_holds_what_a_request_cost_where_the_price_is_known(journal):
    pricing = Pricing(input=1e6, output=2e6)
    with serving([GOOD]) as server, opened(server, journal, pricing=pricing) as chat:
        chat.ask("q", MESSAGES, SCHEMA)
        spent = chat.spent().cost
    assert lines(journal)[0]["cost"] == spent == 7 + 2 * 5


def test_a_temperature_of_none_is_left_to_the_server(journal):
    with serving([GOOD]) as server, opened(server, journal, temperature=None) as chat:
        chat.ask("q", MESSAGES, SCHEMA)
    assert not {"temperature", "seed"} & set(server.requests[0].body)


@pytest.mark.parametrize(
    "text",
    [
        '```json\n{"rating": 3}\n```',
        '```\n{"rating": 3}```\n',
        ' \n```JSON\n{\n"rating": 3}\n\n```',
        '\n{"rating": 3}\n',
        '```{"rating": 3}```',
        'Here it is:\n\n```json\n{"rating": 3}\n```\nTell me if {"rating": 2} is better.',
        '<think>\nIs it {"rating": 1}?\n```{"rating": 2}```\n</think>\n\n{"rating": 3}',
    ],
)
def test_what_stands_around_the_reply_is_passed_over(journal, text):
    with serving([text]) as server, opened(server, journal) as chat:
        assert chat.ask("q", MESSAGES, SCHEMA) == GOOD
    assert lines(journal)[0]["reply"] == text


@pytest.mark.parametrize(
    ("reply", "status", "error"),
    [
        ("{rating: 3}", "bad", "no JSON"),
        ('{"rating": NaN}', "bad", "NaN is not JSON"),
        ("[" * 100_000, "bad", "no JSON"),
        ('{"rating": "\\ud83d"}', "bad", "half a surrogate pair in a text"),
        ('```{"rating": 3}``` or ```{"rating": 4}```', "bad", "no JSON"),
        ("[3]", "bad", "expected a JSON object, got list"),
        ({"rating": "3"}, "bad", r"\$\.rating: '3' is not of type 'integer'"),
        (Reply('{"rat', finish_reason="length"), "bad", "cut off at the token limit"),
        (Reply(None, finish_reason="error"), "bad", r"no text \(finish reason error\)"),
        (Reply(body="<html>busy</html>"), "error", "no chat completion came: <html>busy</html>"),
        (Reply(body='{"error": {"message": "busy"}}'), "error", "no chat completion came"),
        (Reply(body='{"choices": []}'), "error", "no chat completion came"),
        (Reply(body='{"choices": [null], "usage": 3}'), "error", "no chat completion came"),
        (Reply(body='{"choices": [{"mess'), "error", "no chat completion came"),
        (Reply(body='data: {"choices": [{"delta": {}}]}\n\ndata: [DONE]\n\n', headers=SSE), "error", "came: data:"),
        (Reply('{"rating": 3}', chunked=True, cut=True), "error", "no connection: peer closed connection"),
        (Reply(body="no gzip", headers={"Content-Encoding": "gzip"}), "error", "no connection: .*incorrect header"),
        (Reply('{"rating": 3}', headers=ODD), "error", "no reply that can be read: "),
        (Reply(status=500, headers=ODD), "error", "no reply that can be read: "),
        ({"rating": 3, "why": "sharp"}, "bad", r"Additional properties are not allowed \('why' was unexpected\)"),
        (Reply(status=408), "error", "408: something went wrong"),
        (Reply(status=409), "error", "409"),
        (Reply(status=500), "error", "500"),
        (Reply(status=503, body="nope"), "error", "503: nope"),
        (Reply("{}", cut=True), "error", "no connection: peer closed connection"),
    ],
)
def test_after_what_passes_the_question_is_asked_again(journal, pauses, reply, status, error):
    with serving([reply, reply, GOOD]) as server, opened(server, journal) as chat:
        assert chat.ask("q", MESSAGES, SCHEMA) == GOOD
    assert [(line["attempt"], line["status"]) for line in lines(journal)] == [(1, status), (2, status), (3, "ok")]
    assert re.search(error, lines(journal)[0]["error"])
    assert 0.5 <= pauses[0] <= 1 <= pauses[1] <= 2
    assert server.requests[0].body == server.requests[2].body


def test_a_reply_that_is_late_is_not_waited_for(journal, pauses):
    with serving([Reply("{}", delay=30), GOOD]) as server, opened(server, journal, timeout=0.3) as chat:
        assert chat.ask("q", MESSAGES, SCHEMA) == GOOD
        server.closing.set()
    assert [line["error"] for line in lines(journal)] == ["no reply in time", None]


def in_seconds(seconds):
    return email.utils.format_datetime(datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds))


@pytest.mark.parametrize(
    ("header", "low", "high"),
    [
        ("7", 7, 7),
        ("0.25", 0.25, 0.25),
        (lambda: in_seconds(40), 30, 40),
        (lambda: in_seconds(-40), 0, 0),
        ("-3", 0, 0),
        ("soon", 0.5, 1),
        ("nan", 0.5, 1),
    ],
)
def test_the_pause_that_the_server_asks_for_is_kept(journal, pauses, header, low, high):
    header = header() if callable(header) else header
    limited = Reply(status=429, headers={"Retry-After": header})
    with serving([limited, GOOD]) as server, opened(server, journal) as chat:
        assert chat.ask("q", MESSAGES, SCHEMA) == GOOD
    assert low <= pauses[0] <= high


def test_pauses_grow_up_to_a_limit(journal, pauses):
    with (
        serving([Reply(status=500)]) as server,
        opened(server, journal, attempts=12) as chat,
        pytest.raises(ModelError, match=r"'q', after 12 attempts \(500: something went wrong\): make sure that it is"),
    ):
        chat.ask("q", MESSAGES, SCHEMA)
    assert len(server.requests) == 12
    assert len(pauses) == 11
    assert 30 <= pauses[-1] <= 60


def test_a_reply_that_never_fits_is_handed_over(journal, pauses):
    with serving(['{"rating": "three"}']) as server, opened(server, journal, attempts=3) as chat:
        with pytest.raises(
            BadReplyError, match=r"reply to the question 'q' .* after 3 attempts \(\$\.rating: "
        ) as caught:
            chat.ask("q", MESSAGES, SCHEMA)
        assert (caught.value.key, caught.value.raw) == ("q", '{"rating": "three"}')
        assert len(server.requests) == 3
    assert [line["status"] for line in lines(journal)] == ["bad"] * 3


@pytest.mark.parametrize(
    ("reply", "requests", "is_refused", "raw"),
    [
        (Reply(None, refusal="I cannot."), 1, True, "I cannot."),
        (Reply("Sorry.", refusal="I cannot."), 1, True, "Sorry."),
        (Reply('{"rat', finish_reason="content_filter"), 1, True, '{"rat'),
        (Reply(None, finish_reason="content_filter: SAFETY"), 1, True, ""),
        (Reply(status=400, code="content_policy_violation"), 1, True, "content_policy_violation"),
        (Reply(status=403, body=FLAGGED), 1, True, "flagged_input"),
        (Reply(body=FLAGGED), 1, True, "flagged_input"),
        (Reply(status=400, code="context_length_exceeded"), 1, False, "context_length_exceeded"),
        (Reply("Sorry, I cannot."), 2, False, "Sorry, I cannot."),
    ],
)
def test_a_refusal_is_told_from_a_reply_that_does_not_fit(journal, pauses, reply, requests, is_refused, raw):
    with serving([reply]) as server, opened(server, journal, attempts=2) as chat:
        with pytest.raises(BadReplyError, match="but declined" if is_refused else "that fits the schema") as caught:
            chat.ask("q", MESSAGES, SCHEMA)
        assert (caught.value.refused, len(server.requests)) == (is_refused, requests)
        assert caught.value.raw == raw or (raw in caught.value.raw and '"error"' in caught.value.raw)


def test_a_reply_that_fits_counts_whatever_the_reason_why_it_ended(journal):
    with serving([Reply('{"rating": 3}', finish_reason="content_filter")]) as server, opened(server, journal) as chat:
        assert chat.ask("q", MESSAGES, SCHEMA) == GOOD


@pytest.mark.parametrize(
    ("reply", "kind", "message"),
    [
        (Reply(status=401), InputError, r"\(401: something went wrong\): set OPENAI_API_KEY"),
        (Reply(status=403), InputError, "ask for access, or choose another model"),
        (Reply(status=404), InputError, "check the name of the model and the base URL"),
        (Reply(status=413), ModelError, "413.*: change the question"),
        (Reply(status=429, code="insufficient_quota"), ModelError, "run again when there is quota left"),
        (Reply(status=429, headers={"Retry-After": "86400"}), ModelError, "run again in 86,400 seconds"),
        (Reply(status=400, code="content_filter"), BadReplyError, "400: something went wrong.*leave the question out"),
    ],
)
def test_what_does_not_pass_is_not_tried_again(journal, pauses, reply, kind, message):
    with serving([reply]) as server, opened(server, journal) as chat, pytest.raises(kind, match=message) as caught:
        chat.ask("q", MESSAGES, SCHEMA)
    assert type(caught.value) is kind
    assert "the question 'q'" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert (len(server.requests), pauses) == (1, [])


def test_an_endpoint_that_is_not_there(journal, pauses):
    with serving([GOOD]) as server:
        gone = server.endpoint
    refused = pytest.raises(ModelError, match=r"after 4 attempts \(no connection: .*Connection refused\)")
    with Chat(Endpoint.parse(gone), journal) as chat, refused:
        chat.ask("q", MESSAGES, SCHEMA)
    assert [line["status"] for line in lines(journal)] == ["error"] * 4


@pytest.mark.parametrize("status", [400, 422])
def test_where_response_format_is_refused_the_schema_goes_into_words_from_then_on(journal, pauses, status):
    def old_server(body):
        return Reply(status=status) if "response_format" in body else GOOD

    with serving(old_server) as server, opened(server, journal) as chat:
        assert chat.ask("q1", MESSAGES, SCHEMA) == GOOD
        assert chat.ask("q2", MESSAGES[1:], SCHEMA) == GOOD
        assert chat.ask("q3", MESSAGES, SCHEMA | {"title": "another"}) == GOOD
    formats = ["response_format" in request.body for request in server.requests]
    assert formats == [True, False, False, True, False]
    _, with_system, without_system, *_ = (request.body["messages"] for request in server.requests)
    assert with_system[0]["content"].startswith("You rate.\n\nAnswer with one JSON object")
    assert '"rating":{"type":"integer"}' in with_system[0]["content"]
    assert [message["role"] for message in without_system] == ["system", "user"]
    assert lines(journal)[1]["request"]["messages"] == with_system
    assert pauses == []


def test_a_request_that_is_refused_either_way_is_refused(journal):
    with (
        serving([Reply(status=400, error="too\nlong"), Reply(status=400), GOOD]) as server,
        opened(server, journal) as chat,
    ):
        with pytest.raises(ModelError, match=r"400: something went wrong.*change the question or an option") as caught:
            chat.ask("q1", MESSAGES, SCHEMA)
        assert not isinstance(caught.value, BadReplyError)
        chat.ask("q2", MESSAGES, SCHEMA)
    assert ["response_format" in request.body for request in server.requests] == [True, False, True]
    assert lines(journal)[0]["error"] == "400: too long"
